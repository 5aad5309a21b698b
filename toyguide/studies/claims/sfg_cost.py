"""The cost of saddle-free guidance compared with classifier-free guidance: evaluations and seconds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from toyguide.experiment import Experiment
from toyguide.studies.base import Cell, Criterion, Plan, Study
from toyguide.studies.charts import Chart, Mark, Series, Sheet, series
from toyguide.studies.claims.shared import fractal_networks
from toyguide.studies.rows import Interval, Rows
from toyguide.studies.workshop import Workshop, trained
from toyguide.training import TrainSettings

_RULES: Mapping[str, Mapping[str, float]] = {"none": {}, "cfg": {"w": 4.0}, "sfg": {"w": 4.0}}
_FIELDS = {
    "conditional": "one conditional network",
    "pair": "two networks, the second smaller",
    "exact": "exact fields",
}
_JUDGED: dict[str, Any] = {"fields": "conditional", "size": "large"}


def _conditional(seed: int) -> TrainSettings:
    """One network for both of CFG's roles, as large as the paper's; barely trained: weights do not affect time."""
    return TrainSettings("fractal", None, conditional=True, width=64, iterations=64, seed=seed)


def _turns(plan: Plan) -> int:
    return plan.pick(7, 5)


def _more_evaluations(rows: Rows) -> list[float]:
    """The absolute difference of SFG's and CFG's evaluations; 0 only if they are equal in every setting."""
    return rows.per_seed(lambda row: abs(row["nfe_sfg"] - row["nfe_cfg"]))


class SfgCost(Study):
    """See the module's text."""

    name = "sfg-cost"
    title = "SFG: what it costs"
    statement = "Saddle-free guidance takes as many evaluations as classifier-free guidance, and as much time."
    source = "Yeats et al. 2025, arXiv 2511.21863, warm-started power iteration (read in a review)"
    setting = (
        "The fractal's class A. Judged is one conditional network (width 64) that serves as both of CFG's fields, so "
        "that every evaluation costs the same; SFG evaluates it at x and at x + h sigma v. The rules sample in turn "
        "within one process, after a warm-up run; the time of each turn is divided by that of the other rule's turn "
        "next to it, and the median is one value per seed. As much time means within 25 % either way, which is our "
        "margin. Seconds depend on the machine, and are the only numbers of the studies that a seed does not "
        "reproduce. CFG's two fields can be evaluated in parallel; SFG's second evaluation needs v and the first. Five "
        "seeds are timed."
    )
    finding = "As many evaluations as CFG, and 1.09 times its time."
    order = 17
    criteria = (
        Criterion(
            "evaluations",
            "In every setting, with Heun and with Euler, SFG makes as many evaluations as CFG",
            _more_evaluations,
            at_most=0.0,
        ),
        Criterion(
            "seconds_at_most",
            "With Heun and the most trajectories, SFG takes at most 1.25 times CFG's time",
            lambda rows: rows.per_seed("sfg_over_cfg", **_JUDGED, sampler="heun"),
            at_most=1.25,
        ),
        Criterion(
            "seconds_at_least",
            "With Heun and the most trajectories, SFG takes at least 0.8 times CFG's time",
            lambda rows: rows.per_seed("sfg_over_cfg", **_JUDGED, sampler="heun"),
            at_least=0.8,
        ),
    )

    def cells(self, plan: Plan) -> list[Cell]:
        small, middle = plan.pick((64, 512), (64, 256))
        runs = [
            ("conditional", "large", "heun", plan.n),
            ("conditional", "large", "euler", plan.n),
            ("conditional", "middle", "heun", middle),
            ("conditional", "small", "heun", small),
            ("pair", "large", "heun", plan.n),
            ("exact", "middle", "heun", middle),
        ]

        def cell(seed: int, fields: str, size: str, sampler: str, n: int) -> Cell:
            key: dict[str, str | int | float] = {
                "fields": fields,
                "size": size,
                "sampler": sampler,
                "n": n,
                "seed": seed,
            }
            needs = {"conditional": (_conditional(seed),), "pair": fractal_networks.networks(plan, seed), "exact": ()}
            # A turn of all three rules: the overhead of calls, and the points.
            turn = 0.05 + 1.2e-4 * n * (10 if fields == "exact" else 1) * (0.5 if sampler == "euler" else 1)
            return Cell(key, _measure, needs=needs[fields], cost=turn * (1 + _turns(plan)), timed=True)

        return [cell(seed, *run) for seed in plan.seed_range[:5] for run in runs]

    def numbers(self, rows: Rows) -> Mapping[str, Interval]:
        found = {}
        for fields, size, sampler in _kinds(rows):
            key = {"fields": fields, "size": size, "sampler": sampler}
            for column in ("sfg_over_cfg", "sfg_over_two_unguided", "cfg_over_two_unguided", "seconds_sfg"):
                found[f"{column}_{fields}_{size}_{sampler}"] = rows.over_seeds(column, **key)
        return found

    def sheets(self, rows: Rows, workshop: Workshop) -> list[Sheet]:
        kinds = [(f"{_FIELDS[f]},\n{s.capitalize()}, n = {_size(rows, f, z)}", f, z, s) for f, z, s in _kinds(rows)]

        def dots(column: str, label: str, colour: int) -> Series:
            points = [
                (text, rows.over_seeds(column, fields=fields, size=size, sampler=sampler))
                for text, fields, size, sampler in kinds
            ]
            return series(label, points, style="points", colour=colour)

        return [
            Sheet(
                "seconds",
                [
                    Chart(
                        "SFG beside CFG",
                        "",
                        "SFG's time over CFG's",
                        [dots("sfg_over_cfg", "", 2)],
                        [Mark("1.25 times", y=1.25), Mark("0.8 times", y=0.8)],
                    ),
                    Chart(
                        "Both beside two evaluations in a row",
                        "",
                        "time over that of two unguided runs",
                        [dots("sfg_over_two_unguided", "SFG", 0), dots("cfg_over_two_unguided", "CFG", 1)],
                        [Mark("", y=1.0)],
                    ),
                ],
                "Wall time of SFG over that of CFG beside it, and of either over that of two unguided runs; means and "
                "95 % intervals over the seeds, each a median over turns. In the lower panel, below 1 CFG's fields are "
                "evaluated beside one another, or its second one is smaller; above 1 the rule's own arithmetic shows, "
                "or a larger second field.",
                columns=1,
            )
        ]


def _measure(workshop: Workshop, **key: Any) -> dict[str, float]:
    """Run the rules in turn: evaluations, the median seconds, and the medians of their ratios turn by turn."""
    runs = {rule: _experiment(workshop.plan, key, rule) for rule in _RULES}
    turns: dict[str, list[float]] = {rule: [] for rule in runs}
    nfe = {rule: workshop.run(run).nfe for rule, run in runs.items()}  # also warms up
    for _ in range(_turns(workshop.plan)):
        for rule, run in runs.items():
            turns[rule].append(workshop.run(run).seconds)

    def ratio(rule: str, other: str) -> float:
        return statistics.median(a / b for a, b in zip(turns[rule], turns[other], strict=True))

    return {
        **{f"nfe_{rule}": count for rule, count in nfe.items()},
        **{f"seconds_{rule}": statistics.median(turns[rule]) for rule in runs},
        "sfg_over_cfg": ratio("sfg", "cfg"),
        "sfg_over_two_unguided": ratio("sfg", "none") / 2,
        "cfg_over_two_unguided": ratio("cfg", "none") / 2,
    }


def _experiment(plan: Plan, key: Mapping[str, Any], rule: str) -> Experiment:
    common = {"rule": rule, "params": _RULES[rule], "sampler": key["sampler"], "n": key["n"]}
    if key["fields"] == "pair":
        return fractal_networks.experiment(plan, key["seed"], **common)
    network = "exact" if key["fields"] == "exact" else trained(_conditional(key["seed"]))
    return Experiment("fractal", "A", main=network, uncond=f"{network}@union", seed=key["seed"], **common)


def _kinds(rows: Rows) -> list[tuple[str, str, str]]:
    return list(dict.fromkeys((row["fields"], row["size"], row["sampler"]) for row in rows))


def _size(rows: Rows, fields: str, size: str) -> int:
    return int(rows.where(fields=fields, size=size)[0]["n"])
