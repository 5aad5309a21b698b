"""Guidance in a limited interval of noise levels: where it harms, where it is needless, and what is regained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toyguide.experiment import Experiment
from toyguide.studies.base import Cell, Criterion, Plan, Study
from toyguide.studies.charts import Chart, Cloud, Mark, Series, Sheet, series
from toyguide.studies.claims.shared.fractal_networks import experiment, networks
from toyguide.studies.rows import Interval, Rows, interval
from toyguide.studies.workshop import Workshop

_W = 4.0
_LOW, _HIGH = 0.19, 1.61  # the paper's best interval (of its largest network), low < sigma <= high
_BOTTOM, _TOP = 0.001, 10.0  # beyond all levels of a run
_REGIONS = {
    "nowhere": (_BOTTOM, _BOTTOM),
    "above": (_HIGH, _TOP),
    "middle": (_LOW, _HIGH),
    "below": (_BOTTOM, _LOW),
    "middle and below": (_BOTTOM, _HIGH),
    "middle and above": (_LOW, _TOP),
    "everywhere": (_BOTTOM, _TOP),
}
_LOWER_ENDS = (_BOTTOM, 0.02, 0.05, 0.1, _LOW, 0.4, 0.8)
_UPPER_ENDS = (0.05, 0.1, _LOW, 0.4, 0.8, _HIGH, 3.0, _TOP)
_FIELDS = {"networks": "networks", "exact": "exact fields"}


def _at(region: str, fields: str = "networks") -> dict[str, Any]:
    low, high = _REGIONS[region]
    return {"fields": fields, "low": low, "high": high}


def _coverage_back(rows: Rows, fields: str) -> list[float]:
    """The regained share, for each seed: of the coverage lost by guiding everywhere, what the middle alone keeps."""
    lost = rows.difference("coverage", _at("nowhere", fields), _at("everywhere", fields))
    back = rows.difference("coverage", _at("middle", fields), _at("everywhere", fields))
    return [b / a for a, b in zip(lost, back, strict=True)]


def _removed(rows: Rows, before: str, after: str) -> list[float]:
    """The decrease of outliers from one region to another, as a share of the unguided ones."""
    fallen = rows.difference("outliers", _at(before), _at(after))
    return [f / u for f, u in zip(fallen, rows.per_seed("outliers", **_at("nowhere")), strict=True)]


class GuidanceInterval(Study):
    """See the module's text."""

    name = "guidance-interval"
    title = "Guidance in an interval"
    statement = (
        "Guidance harms at high noise and is needless at low noise; limited to the middle it keeps its benefit, and "
        "most of the lost coverage comes back."
    )
    source = "Kynkäänniemi et al. 2024, arXiv 2404.07724"
    setting = (
        "CFG at w = 4 on the fractal's class A, 32 Heun steps, in 0.19 < sigma <= 1.61: the paper's best interval for "
        "its largest network, used here because the standard deviation of the data is 0.5 in both. Networks are "
        "trained anew for each seed; on exact fields (the class against the union) no outlier comes from error. The "
        "thresholds are ours: harm is a loss of 0.05 of coverage, benefit is the removal of a tenth of the unguided "
        "outliers, needless is the removal of no more than another tenth."
    )
    order = 6
    criteria = (
        Criterion(
            "coverage_lost_above",
            "Guiding only above sigma = 1.61 costs at least 0.05 of coverage",
            lambda rows: rows.difference("coverage", _at("nowhere"), _at("above")),
            at_least=0.05,
        ),
        Criterion(
            "outliers_removed_below",
            "Guiding below sigma = 0.19 as well as in the middle removes at most another tenth of the outliers",
            lambda rows: _removed(rows, "middle", "middle and below"),
            at_most=0.1,
        ),
        Criterion(
            "outliers_removed_middle",
            "Guiding only in the middle removes at least a tenth of the unguided outliers",
            lambda rows: _removed(rows, "nowhere", "middle"),
            at_least=0.1,
        ),
        Criterion(
            "coverage_back_networks",
            "Guiding only in the middle regains at least half of the coverage lost by guiding everywhere",
            lambda rows: _coverage_back(rows, "networks"),
            at_least=0.5,
        ),
        Criterion(
            "coverage_back_exact",
            "The same on exact fields",
            lambda rows: _coverage_back(rows, "exact"),
            at_least=0.5,
        ),
    )

    def cells(self, plan: Plan) -> list[Cell]:
        swept = [(low, _HIGH) for low in _LOWER_ENDS] + [(_BOTTOM, high) for high in _UPPER_ENDS]
        intervals = {
            "networks": list(dict.fromkeys([*_REGIONS.values(), *swept])),
            "exact": list(_REGIONS.values()),
        }

        def cell(seed: int, fields: str, low: float, high: float) -> Cell:
            return Cell(
                {"fields": fields, "low": low, "high": high, "seed": seed},
                _experiment(plan, fields, low, high, seed),
                needs=networks(plan, seed) if fields == "networks" else (),
                cost=plan.pick(0.5, 0.2) * (3 if fields == "exact" else 1),
            )

        return [
            cell(seed, fields, *ends) for seed in range(plan.seeds) for fields in _FIELDS for ends in intervals[fields]
        ]

    def numbers(self, rows: Rows) -> Mapping[str, Interval]:
        found = {
            f"{column}_{fields}_{region.replace(' ', '_')}": rows.over_seeds(column, **_at(region, fields))
            for fields in _FIELDS
            for region in _REGIONS
            for column in ("outliers", "coverage")
        }
        lost = rows.difference("coverage", _at("nowhere", "exact"), _at("above", "exact"))
        return {**found, "coverage_lost_above_exact": interval(lost)}

    def sheets(self, rows: Rows, workshop: Workshop) -> list[Sheet]:
        clouds = []
        titles = {
            "nowhere": "Unguided",
            "above": "Guided above σ = 1.61",
            "middle": "Guided from 0.19 to 1.61",
            "everywhere": "Guided everywhere",
        }
        for region, title in titles.items():
            x = workshop.run(_experiment(workshop.plan, "networks", *_REGIONS[region], 0)).x[-1]
            row = rows.where(**_at(region), seed=0)[0]
            caption = f"outliers {row['outliers']:.1%},  coverage {row['coverage']:.0%}"
            clouds.append(Cloud(title, "fractal", "A", x, caption))

        def bars(column: str, fields: str) -> Series:
            points = [(region, rows.over_seeds(column, **_at(region, fields))) for region in _REGIONS]
            return series(_FIELDS[fields], points, style="bars")

        def sweep(title: str, x_label: str, ends: Mapping[float, tuple[float, float]], paper: float) -> Chart:
            lines = [
                series(
                    column,
                    [
                        (x, rows.over_seeds(column, fields="networks", low=low, high=high))
                        for x, (low, high) in ends.items()
                    ],
                )
                for column in ("coverage", "outliers")
            ]
            return Chart(
                title, x_label, "share", lines, [Mark("the paper's", x=paper)], x_scale="log", y_range=(0.0, 1.0)
            )

        charts = [
            Chart("Coverage", "where CFG guides", "share of the mass", [bars("coverage", f) for f in _FIELDS]),
            Chart("Outliers", "where CFG guides", "share of the samples", [bars("outliers", f) for f in _FIELDS]),
            sweep("Lower end, upper end 1.61", "sigma", {low: (low, _HIGH) for low in _LOWER_ENDS}, _LOW),
            sweep("Upper end, no lower one", "sigma", {high: (_BOTTOM, high) for high in _UPPER_ENDS}, _HIGH),
        ]
        return [
            Sheet(
                "samples",
                clouds,
                "Samples of class A from the networks of seed 0 under CFG at w = 4, guided nowhere, only above "
                "sigma = 1.61, only from 0.19 to 1.61, and everywhere, over the exact 99 % region; outliers are red.",
            ),
            Sheet(
                "intervals",
                charts,
                "Coverage and outliers by where CFG at w = 4 guides: above sigma = 1.61, from 0.19 to 1.61 (middle), "
                "below; and against the ends of the interval, on networks. Means and 95 % intervals over the seeds; "
                "an end at 0.001 or 10 lies outside all levels.",
                columns=2,
            ),
        ]


def _experiment(plan: Plan, fields: str, low: float, high: float, seed: int) -> Experiment:
    guided: dict[str, Any] = {"rule": "cfg", "params": {"w": _W}, "interval": (low, high)}
    settings = {"rule": "none"} if low == high else guided
    if fields == "exact":
        return Experiment("fractal", "A", main="exact", n=plan.n, seed=seed, **settings)
    return experiment(plan, seed, **settings)
