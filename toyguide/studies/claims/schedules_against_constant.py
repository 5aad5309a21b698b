"""A weight that rises or falls over a run, against a constant one: of the same mean, and of the same coverage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from toyguide.experiment import Experiment
from toyguide.studies.base import Cell, Criterion, Plan, Study
from toyguide.studies.charts import Chart, Cloud, Mark, Sheet, series
from toyguide.studies.claims.shared.fractal_networks import experiment, networks
from toyguide.studies.rows import Interval, Rows
from toyguide.studies.workshop import Workshop

_CONSTANT = "constant"
_RISING, _FALLING = ("linear", "cosine"), ("linear-down", "cosine-down")
_SHAPES = (*_RISING, *_FALLING, "triangle", "v", "late:0.5")
_SHOWN = (_CONSTANT, "linear", "cosine", "cosine-down")
_MEANS = (2.0, 3.0)  # of the schedules' weights
_W = 3.0  # the one that is judged
_CONSTANTS = (1.0, 1.25, 1.5, 2.0, _W)  # what constant weights are run, unguided first
_COLUMNS = {"outliers": "Outliers", "coverage": "Coverage"}


def _at(schedule: str, w: float = _W) -> dict[str, Any]:
    return {"schedule": schedule, "w": w}


def _least(shapes: Iterable[str], effect: Callable[[str], Iterable[float]]) -> list[float]:
    """The effect of the shape where it is least, for each seed."""
    return [min(each) for each in zip(*map(effect, shapes), strict=True)]


def _fewer(outliers: Iterable[float], than: Iterable[float]) -> list[float]:
    return [1 - a / b for a, b in zip(outliers, than, strict=True)]


def _at_equal_coverage(rows: Rows, schedule: str) -> list[float]:
    """The outliers of the constant weight that has the coverage of a schedule, for each seed.

    Between two constant weights both are interpolated linearly, and beyond the last they are those of the last.
    """
    coverage, outliers = (
        np.array([rows.per_seed(column, **_at(_CONSTANT, w)) for w in reversed(_CONSTANTS)]).T
        for column in ("coverage", "outliers")
    )
    wanted = rows.per_seed("coverage", **_at(schedule))
    # Coverage falls with the weight; where two weights have nearly the same, the running maximum keeps it in order.
    known = [np.maximum.accumulate(c) for c in coverage]
    return [float(np.interp(x, c, o)) for x, c, o in zip(wanted, known, outliers, strict=True)]


class SchedulesAgainstConstant(Study):
    """See the module's text."""

    name = "schedules-against-constant"
    title = "A weight that rises over the run"
    statement = (
        "A CFG weight that rises over the run, linearly or as a cosine, leaves fewer outliers and keeps more coverage "
        "than a constant one of the same mean, and fewer outliers than the constant one of the same coverage; one that "
        "falls keeps less."
    )
    source = "Wang et al. 2024, arXiv 2404.13040 (the shapes as others quote them)"
    setting = (
        "CFG on the fractal's class A, with networks trained anew for each seed; 32 Heun steps, 2048 samples. The "
        "shapes are the paper's, with the weight that each step has as their mean: w - 1 is ramped, and progress "
        "counts steps, not log sigma, which is our reading. Judged at the mean w = 3, the less favourable shape of "
        "each two. A mean says little of how strong guidance is, so a rising weight is judged against the constant "
        "one of the same coverage as well, interpolated between w = 1, 1.25, 1.5, 2 and 3. The thresholds are ours: "
        "0.05 of coverage, a tenth of the outliers. They were settled on the bundled networks."
    )
    finding = (
        "At the same mean, yes: at w = 3 a rising weight keeps .11 more coverage and leaves 28 % fewer outliers. Much "
        "of that is weaker guidance at high noise: against the constant weight of the same coverage the gain differs "
        "from network to network, by 7 % fewer outliers on average."
    )
    order = 41
    criteria = (
        Criterion(
            "coverage_gained_rising",
            "At the mean w = 3 a rising weight keeps at least 0.05 more coverage than a constant one",
            lambda rows: _least(_RISING, lambda s: rows.difference("coverage", _at(s), _at(_CONSTANT))),
            at_least=0.05,
        ),
        Criterion(
            "outliers_removed_rising",
            "At the mean w = 3 a rising weight leaves at least a tenth fewer outliers than a constant one",
            lambda rows: _least(
                _RISING,
                lambda s: _fewer(rows.per_seed("outliers", **_at(s)), rows.per_seed("outliers", **_at(_CONSTANT))),
            ),
            at_least=0.1,
        ),
        Criterion(
            "outliers_removed_at_equal_coverage",
            "A rising weight of mean 3 leaves at least a tenth fewer outliers than the constant one of the same "
            "coverage",
            lambda rows: _least(
                _RISING, lambda s: _fewer(rows.per_seed("outliers", **_at(s)), _at_equal_coverage(rows, s))
            ),
            at_least=0.1,
        ),
        Criterion(
            "coverage_lost_falling",
            "At the mean w = 3 a falling weight keeps at least 0.05 less coverage than a constant one",
            lambda rows: _least(_FALLING, lambda s: rows.difference("coverage", _at(_CONSTANT), _at(s))),
            at_least=0.05,
        ),
    )

    def cells(self, plan: Plan) -> list[Cell]:
        runs = [(_CONSTANT, w) for w in _CONSTANTS] + [(s, w) for s in _SHAPES for w in _MEANS]
        return [
            Cell(
                {**_at(schedule, w), "seed": seed},
                _experiment(plan, schedule, w, seed),
                needs=networks(plan, seed),
                cost=plan.pick(0.3, 0.2),
            )
            for seed in plan.seed_range
            for schedule, w in runs
        ]

    def numbers(self, rows: Rows) -> Mapping[str, Interval]:
        keys = {"unguided": _at(_CONSTANT, 1.0)}
        keys |= {f"{s}_w{w:g}": _at(s, w) for w in _MEANS for s in (_CONSTANT, *_SHAPES)}
        return {f"{column}_{k}": rows.over_seeds(column, **v) for k, v in keys.items() for column in _COLUMNS}

    def sheets(self, rows: Rows, workshop: Workshop) -> list[Sheet]:
        plan, clouds = workshop.plan, []
        for schedule in _SHOWN:
            x = workshop.run(_experiment(plan, schedule, _W, plan.first_seed)).x[-1]
            row = rows.where(**_at(schedule), seed=plan.first_seed)[0]
            caption = f"outliers {row['outliers']:.1%},  coverage {row['coverage']:.0%}"
            clouds.append(Cloud(schedule.capitalize(), "fractal", "A", x, caption))
        charts = [
            Chart(
                title,
                "schedule of the weight",
                "share of the samples" if column == "outliers" else "share of the mass",
                [
                    series(
                        f"mean w = {w:g}",
                        [(s, rows.over_seeds(column, **_at(s, w))) for s in (_CONSTANT, *_SHAPES)],
                        style="bars",
                    )
                    for w in _MEANS
                ],
                [Mark("unguided", y=rows.over_seeds(column, **_at(_CONSTANT, 1.0)).mean)],
            )
            for column, title in _COLUMNS.items()
        ]
        return [
            Sheet(
                "samples",
                clouds,
                "Samples of class A from the networks of one seed under CFG with the mean weight 3, by how the weight "
                "varies over the run, over the exact 99 % region; outliers are red.",
            ),
            Sheet(
                "schedules",
                charts,
                "Outliers and coverage of CFG by how its weight varies over the run, at two means of the weight. Means "
                "and 95 % intervals over the seeds of training and sampling.",
                columns=1,
            ),
        ]


def _experiment(plan: Plan, schedule: str, w: float, seed: int) -> Experiment:
    settings: dict[str, Any] = {"rule": "none"} if w == 1 else {"rule": "cfg", "params": {"w": w}}
    shape = None if schedule == _CONSTANT else schedule
    return experiment(plan, seed, n=plan.n // 2, schedule=shape, **settings)
