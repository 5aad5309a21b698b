"""Figure 1 of the autoguidance paper: which branches each kind of guidance drops, and how many outliers remain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toyguide.studies.base import Cell, Criterion, Plan, Study
from toyguide.studies.charts import Chart, Cloud, Mark, Sheet, series
from toyguide.studies.claims.shared.fractal_networks import experiment, networks
from toyguide.studies.rows import Interval, Rows
from toyguide.studies.workshop import Workshop

_RULES = {"cfg": "CFG", "autoguidance": "Autoguidance", "score-scaling": "Score scaling"}
_WEIGHTS: Mapping[str, tuple[float, ...]] = {  # besides 1, which is unguided
    "cfg": (1.5, 2.0, 3.0, 4.0, 6.0),
    "autoguidance": (1.5, 2.0, 3.0, 4.0, 6.0),
    "score-scaling": (1.1, 1.2, 1.4, 1.6),
}
_PAPER = {"cfg": 4.0, "autoguidance": 3.0, "score-scaling": 1.4}
_JUDGED = {rule: (2.0, _PAPER[rule]) for rule in ("cfg", "autoguidance")}
_UNGUIDED: dict[str, Any] = {"rule": "none"}


def _at(rule: str, w: float) -> dict[str, Any]:
    return {"rule": rule, "w": w}


def _lost(rows: Rows, column: str, rule: str, w: float) -> list[float]:
    """The decrease of a column by guidance, as a share of the unguided one, for each seed."""
    pairs = zip(rows.per_seed(column, **_at(rule, w)), rows.per_seed(column, **_UNGUIDED), strict=True)
    return [1 - a / b for a, b in pairs]


def _outliers_removed(rule: str, w: float) -> Criterion:
    return Criterion(
        f"{rule}_outliers_removed_w{w:g}",
        f"{_RULES[rule]} at w = {w:g} removes at least a quarter of the unguided outliers",
        lambda rows: _lost(rows, "outliers", rule, w),
        at_least=0.25,
    )


def _branches_kept(w: float) -> Criterion:
    return Criterion(
        f"autoguidance_dropped_mass_w{w:g}",
        f"Autoguidance at w = {w:g} drops branches that hold at most 10 % of the class",
        lambda rows: rows.per_seed("dropped_mass", **_at("autoguidance", w)),
        at_most=0.10,
    )


class AutoguidanceFigure1(Study):
    """See the module's text."""

    name = "autoguidance-figure-1"
    title = "Figure 1 of the autoguidance paper"
    statement = (
        "Unguided samples have many outliers; CFG eliminates them and drops whole branches; score scaling empties the "
        "outer branches; autoguidance removes outliers without dropping branches."
    )
    source = "Karras et al. 2024, arXiv 2406.02507, Fig. 1 and Sec. 3"
    setting = (
        "The two-class fractal with the networks of the paper (class A, width 64, 4096 iterations; guiding networks "
        "of width 32 and 512 iterations), trained anew for each seed; 32 Heun steps. The paper shows one picture for "
        "each rule, CFG at w = 4 and autoguidance at w = 3; what is said of outliers is judged at w = 2 as well. The "
        "thresholds are ours, and mild: 'eliminates' counts from a quarter of the outliers on. Outliers lie outside "
        "the exact 99 % region, so 1 % of exact samples are outliers; a branch is dropped if it receives less than a "
        "tenth of its share. The criteria were settled on seeds 0 to 9 and are judged on seeds from 100 on."
    )
    finding = (
        "CFG does not eliminate outliers here: it removes 14 % of them at w = 2 and adds 70 % at w = 4, where "
        "half of the class is dropped. Autoguidance removes a fifth at either weight and drops next to "
        "nothing."
    )
    order = 1
    criteria = (
        Criterion(
            "unguided_outliers",
            "Unguided samples have at least three times the outliers of exact ones",
            lambda rows: rows.per_seed("outliers", **_UNGUIDED),
            at_least=0.03,
        ),
        *(_outliers_removed("cfg", w) for w in _JUDGED["cfg"]),
        Criterion(
            "cfg_dropped_mass",
            "CFG at w = 4 drops branches that hold at least 10 % of the class",
            lambda rows: rows.per_seed("dropped_mass", **_at("cfg", _PAPER["cfg"])),
            at_least=0.10,
        ),
        Criterion(
            "score_scaling_tips_lost",
            "Score scaling at k = 1.4 loses at least half of the samples in the outermost branches",
            lambda rows: _lost(rows, "tips", "score-scaling", _PAPER["score-scaling"]),
            at_least=0.5,
        ),
        *(_outliers_removed("autoguidance", w) for w in _JUDGED["autoguidance"]),
        *(_branches_kept(w) for w in _JUDGED["autoguidance"]),
    )

    def cells(self, plan: Plan) -> list[Cell]:
        def cell(seed: int, rule: str, w: float) -> Cell:
            params = {} if rule == "none" else {"k" if rule == "score-scaling" else "w": w}
            return Cell(
                {"rule": rule, "w": w, "seed": seed},
                experiment(plan, seed, rule=rule, params=params),
                needs=networks(plan, seed),
                cost=plan.pick(0.5, 0.2),
            )

        weights = {"none": (1.0,), **_WEIGHTS}
        return [cell(seed, rule, w) for seed in plan.seed_range for rule in weights for w in weights[rule]]

    def numbers(self, rows: Rows) -> Mapping[str, Interval]:
        found = {"unguided": _UNGUIDED}
        found |= {rule.replace("-", "_"): _at(rule, _PAPER[rule]) for rule in _RULES}
        found |= {f"{rule}_w{weights[0]:g}": _at(rule, weights[0]) for rule, weights in _JUDGED.items()}
        columns = ("outliers", "coverage", "dropped_mass", "tips")
        return {f"{column}_{name}": rows.over_seeds(column, **key) for name, key in found.items() for column in columns}

    def sheets(self, rows: Rows, workshop: Workshop) -> list[Sheet]:
        shown: dict[str, tuple[str, dict[str, float]]] = {
            "Unguided": ("none", {}),
            "CFG, w = 4": ("cfg", {"w": 4.0}),
            "Score scaling, k = 1.4": ("score-scaling", {"k": 1.4}),
            "Autoguidance, w = 3": ("autoguidance", {"w": 3.0}),
        }
        clouds, seed = [], workshop.plan.first_seed
        for title, (rule, params) in shown.items():
            x = workshop.run(experiment(workshop.plan, seed, rule=rule, params=params)).x[-1]
            row = rows.where(**(_UNGUIDED if rule == "none" else _at(rule, _PAPER[rule])), seed=seed)[0]
            clouds.append(
                Cloud(title, "fractal", "A", x, f"outliers {row['outliers']:.1%},  coverage {row['coverage']:.0%}")
            )
        columns = {"outliers": "Outliers", "coverage": "Coverage", "dropped_mass": "Dropped mass"}

        def over_weight(column: str, rule: str) -> list[tuple[float, Interval]]:
            guided = [(w, rows.over_seeds(column, **_at(rule, w))) for w in _WEIGHTS[rule]]
            return [(1.0, rows.over_seeds(column, **_UNGUIDED)), *guided]

        marks = [Mark(f"{_RULES[rule]} in Fig. 1", x=w) for rule, w in _PAPER.items()]
        charts = [
            Chart(
                title,
                "weight (k of score scaling)",
                "share of the samples" if column == "outliers" else "share of the mass",
                [series(label, over_weight(column, rule)) for rule, label in _RULES.items()],
                [*marks, Mark("exact samples", y=0.01)] if column == "outliers" else [],
            )
            for column, title in columns.items()
        ]
        return [
            Sheet(
                "samples",
                clouds,
                "Samples of class A from the networks of one seed, over the exact 99 % region; outliers are red.",
            ),
            Sheet(
                "weights",
                charts,
                "Outliers, coverage and dropped mass against the weight; means and 95 % intervals over the seeds of "
                "training and sampling. Marked on the left are the weights of the paper's figure.",
            ),
        ]
