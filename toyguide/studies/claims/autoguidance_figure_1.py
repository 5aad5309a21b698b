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
_WEIGHTS: Mapping[str, tuple[float, ...]] = {
    "cfg": (1.0, 1.5, 2.0, 3.0, 4.0, 6.0),
    "autoguidance": (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0),
    "score-scaling": (1.0, 1.1, 1.2, 1.4, 1.6),
}
_PAPER = {"cfg": 4.0, "autoguidance": 3.0, "score-scaling": 1.4}


def _at_paper(rule: str) -> dict[str, Any]:
    return {"rule": rule, "w": _PAPER[rule]}


_UNGUIDED: dict[str, Any] = {"rule": "none"}


class AutoguidanceFigure1(Study):
    """See the module's text."""

    name = "autoguidance-figure-1"
    title = "Figure 1 of the autoguidance paper"
    statement = (
        "Unguided samples have many outliers; CFG drops whole branches; score scaling empties the outer branches; "
        "autoguidance removes outliers without dropping branches."
    )
    source = "Karras et al. 2024, arXiv 2406.02507, Fig. 1 and Sec. 3"
    setting = (
        "The two-class fractal with the networks of the paper (class A, width 64, 4096 iterations; guiding networks "
        "of width 32 and 512 iterations), trained anew for each seed; 32 Heun steps. The paper shows one picture for "
        "each rule; the thresholds are ours. Outliers lie outside the exact 99 % region, so 1 % of exact samples are "
        "outliers; a branch is dropped if it receives less than a tenth of its share."
    )
    order = 1
    criteria = (
        Criterion(
            "unguided_outliers",
            "Unguided samples have at least three times the outliers of exact ones",
            lambda rows: rows.per_seed("outliers", **_UNGUIDED),
            at_least=0.03,
        ),
        Criterion(
            "cfg_dropped_mass",
            "CFG at w = 4 drops branches that hold at least 10 % of the class",
            lambda rows: rows.per_seed("dropped_mass", **_at_paper("cfg")),
            at_least=0.10,
        ),
        Criterion(
            "score_scaling_tips_lost",
            "Score scaling at k = 1.4 loses at least half of the samples in the outermost branches",
            lambda rows: [
                1 - a / b
                for a, b in zip(
                    rows.per_seed("tips", **_at_paper("score-scaling")), rows.per_seed("tips", **_UNGUIDED), strict=True
                )
            ],
            at_least=0.5,
        ),
        Criterion(
            "autoguidance_outliers_removed",
            "Autoguidance at w = 3 removes at least a quarter of the unguided outliers",
            lambda rows: [
                1 - a / b
                for a, b in zip(
                    rows.per_seed("outliers", **_at_paper("autoguidance")),
                    rows.per_seed("outliers", **_UNGUIDED),
                    strict=True,
                )
            ],
            at_least=0.25,
        ),
        Criterion(
            "autoguidance_dropped_mass",
            "Autoguidance at w = 3 drops branches that hold at most 10 % of the class",
            lambda rows: rows.per_seed("dropped_mass", **_at_paper("autoguidance")),
            at_most=0.10,
        ),
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
        return [cell(seed, rule, w) for seed in range(plan.seeds) for rule in weights for w in weights[rule]]

    def numbers(self, rows: Rows) -> Mapping[str, Interval]:
        found = {"unguided": _UNGUIDED} | {rule.replace("-", "_"): _at_paper(rule) for rule in _RULES}
        columns = ("outliers", "coverage", "dropped_mass", "tips")
        return {f"{column}_{name}": rows.over_seeds(column, **key) for name, key in found.items() for column in columns}

    def sheets(self, rows: Rows, workshop: Workshop) -> list[Sheet]:
        shown: dict[str, tuple[str, dict[str, float]]] = {
            "Unguided": ("none", {}),
            "CFG, w = 4": ("cfg", {"w": 4.0}),
            "Score scaling, k = 1.4": ("score-scaling", {"k": 1.4}),
            "Autoguidance, w = 3": ("autoguidance", {"w": 3.0}),
        }
        clouds = []
        for title, (rule, params) in shown.items():
            x = workshop.run(experiment(workshop.plan, 0, rule=rule, params=params)).x[-1]
            key = {"rule": rule, "seed": 0} | ({} if rule == "none" else {"w": _PAPER[rule]})
            row = rows.where(**key)[0]
            clouds.append(
                Cloud(title, "fractal", "A", x, f"outliers {row['outliers']:.1%},  coverage {row['coverage']:.0%}")
            )
        columns = {"outliers": "Outliers", "coverage": "Coverage", "dropped_mass": "Dropped mass"}
        marks = [Mark(f"{_RULES[rule]} in Fig. 1", x=w) for rule, w in _PAPER.items()]
        charts = [
            Chart(
                title,
                "weight (k of score scaling)",
                "share of the samples" if column == "outliers" else "share of the mass",
                [
                    series(label, [(w, rows.over_seeds(column, rule=rule, w=w)) for w in _WEIGHTS[rule]])
                    for rule, label in _RULES.items()
                ],
                [*marks, Mark("exact samples", y=0.01)] if column == "outliers" else [],
            )
            for column, title in columns.items()
        ]
        return [
            Sheet(
                "samples",
                clouds,
                "Samples of class A from the networks of seed 0, over the exact 99 % region; outliers are vermillion.",
            ),
            Sheet(
                "weights",
                charts,
                "Outliers, coverage and dropped mass against the weight; means and 95 % intervals over the seeds of "
                "training and sampling. Marked on the left are the weights of the paper's figure.",
            ),
        ]
