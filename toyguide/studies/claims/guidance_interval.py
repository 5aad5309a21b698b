"""Guidance in a limited interval of noise levels: where it harms, where it is needless, and what is regained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from toyguide.experiment import Experiment
from toyguide.studies.base import Cell, Criterion, Plan, Study
from toyguide.studies.charts import Chart, Cloud, Mark, Series, Sheet, series
from toyguide.studies.claims.shared.choices import fewest_outliers
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
_LOWER_ENDS = {_BOTTOM: "no lower end", 0.02: "from 0.02", 0.05: "from 0.05", _LOW: "from 0.19"}
_UPPER_ENDS = (0.05, 0.1, _LOW, 0.4, 0.8, _HIGH)
_FIELDS = {"networks": "networks", "exact": "exact fields"}

Ends = tuple[float, float]
"""The lower and the upper end of an interval of noise levels."""

# What may be chosen, the paper's interval among them: bounded above.
_INTERVALS: list[Ends] = [(low, high) for low in _LOWER_ENDS for high in _UPPER_ENDS if low < high]


def _key(ends: Ends, fields: str = "networks") -> dict[str, Any]:
    return {"fields": fields, "low": ends[0], "high": ends[1]}


def _at(region: str, fields: str = "networks") -> dict[str, Any]:
    return _key(_REGIONS[region], fields)


def _chosen(rows: Rows, intervals: Iterable[Ends] = _INTERVALS) -> list[Ends]:
    """For each seed, the interval that is best on the other seeds."""
    outliers, coverage = (
        {ends: rows.per_seed(column, **_key(ends)) for ends in intervals} for column in ("outliers", "coverage")
    )
    return fewest_outliers(outliers, coverage, rows.per_seed("coverage", **_at("nowhere")))


def _per_seed(rows: Rows, column: str, chosen: Iterable[Ends]) -> list[float]:
    """A column on networks, at each seed's own interval."""
    return [rows.per_seed(column, **_key(ends))[i] for i, ends in enumerate(chosen)]


def _removed(rows: Rows, chosen: Iterable[Ends]) -> list[float]:
    """The share of the unguided outliers that guidance in each seed's interval removes."""
    pairs = zip(_per_seed(rows, "outliers", chosen), rows.per_seed("outliers", **_at("nowhere")), strict=True)
    return [1 - guided / unguided for guided, unguided in pairs]


def _back(rows: Rows, chosen: Iterable[Ends]) -> list[float]:
    """The regained share: of the coverage lost by guiding everywhere, what guidance in each seed's interval keeps."""
    nowhere, everywhere = (rows.per_seed("coverage", **_at(region)) for region in ("nowhere", "everywhere"))
    found = zip(_per_seed(rows, "coverage", chosen), nowhere, everywhere, strict=True)
    return [(inside - e) / (n - e) for inside, n, e in found]


def _lost_above(rows: Rows, chosen: Sequence[Ends]) -> list[float]:
    """The coverage lost by guiding above each seed's interval as well."""
    upwards = [(low, _TOP) for low, _ in chosen]
    pairs = zip(_per_seed(rows, "coverage", chosen), _per_seed(rows, "coverage", upwards), strict=True)
    return [inside - more for inside, more in pairs]


def _gained_below(rows: Rows) -> list[float]:
    """What low noise adds: to the share of the outliers removed by the best interval with a lower end."""
    without, with_one = ([e for e in _INTERVALS if (e[0] == _BOTTOM) is open_below] for open_below in (True, False))
    pairs = zip(_removed(rows, _chosen(rows, without)), _removed(rows, _chosen(rows, with_one)), strict=True)
    return [a - b for a, b in pairs]


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
        "CFG at w = 4 on the fractal's class A, 32 Heun steps, with networks trained anew for each seed. The paper "
        "searches for its interval, and so is it done here: of 20 bounded above, for each seed the one with the fewest "
        "outliers on the other seeds among those that cost at most 0.05 of coverage there. The paper's own, 0.19 < "
        "sigma <= 1.61 for its largest network, is one of them (the standard deviation of the data is 0.5 in both), "
        "and is reported beside it, on exact fields (the class against the union; five seeds) too. The thresholds are "
        "ours: harm is a loss of 0.05 of coverage, benefit is the removal of a tenth of the unguided outliers, "
        "needless is what removes no more than another tenth. The choice of the interval in place of the paper's was "
        "settled on seeds 0 to 9, at which the paper's added outliers; it is judged on seeds from 100 on."
    )
    finding = (
        "Chosen on this data, the interval (.02, .05] removes 27 % of the outliers and loses .03 of the "
        "coverage. ImageNet's, (.19, 1.61], adds 54 % of outliers here."
    )
    order = 12
    criteria = (
        Criterion(
            "coverage_lost_above",
            "Guiding above the chosen interval as well costs at least 0.05 of coverage",
            lambda rows: _lost_above(rows, _chosen(rows)),
            at_least=0.05,
        ),
        Criterion(
            "outliers_removed_below",
            "The best interval without a lower end removes at most a tenth of the unguided outliers more than the "
            "best one from sigma = 0.02 or above",
            _gained_below,
            at_most=0.1,
        ),
        Criterion(
            "outliers_removed",
            "Guiding only in the chosen interval removes at least a tenth of the unguided outliers",
            lambda rows: _removed(rows, _chosen(rows)),
            at_least=0.1,
        ),
        Criterion(
            "coverage_back",
            "Guiding only in the chosen interval regains at least half of the coverage lost by guiding everywhere",
            lambda rows: _back(rows, _chosen(rows)),
            at_least=0.5,
        ),
    )

    def cells(self, plan: Plan) -> list[Cell]:
        upwards = [(low, _TOP) for low in _LOWER_ENDS]
        intervals = {
            "networks": list(dict.fromkeys([*_REGIONS.values(), *_INTERVALS, *upwards])),
            "exact": list(_REGIONS.values()),
        }
        seeds = {"networks": plan.seed_range, "exact": plan.seed_range[:5]}

        def cell(seed: int, fields: str, low: float, high: float) -> Cell:
            return Cell(
                {"fields": fields, "low": low, "high": high, "seed": seed},
                _experiment(plan, fields, low, high, seed),
                needs=networks(plan, seed) if fields == "networks" else (),
                cost=plan.pick(0.5, 0.2) * (3 if fields == "exact" else 1),
            )

        return [cell(seed, fields, *ends) for fields in _FIELDS for seed in seeds[fields] for ends in intervals[fields]]

    def numbers(self, rows: Rows) -> Mapping[str, Interval]:
        found = {
            f"{column}_{fields}_{region.replace(' ', '_')}": rows.over_seeds(column, **_at(region, fields))
            for fields in _FIELDS
            for region in _REGIONS
            for column in ("outliers", "coverage")
        }
        chosen, paper = _chosen(rows), [_REGIONS["middle"]] * len(rows.where(**_at("middle")))
        for i, end in enumerate(("low", "high")):
            found[f"chosen_{end}"] = interval([ends[i] for ends in chosen])
        for column in ("outliers", "coverage"):
            found[f"{column}_networks_chosen"] = interval(_per_seed(rows, column, chosen))
        return {
            **found,
            "coverage_lost_above_paper": interval(_lost_above(rows, paper)),
            "outliers_removed_paper": interval(_removed(rows, paper)),
            "coverage_back_paper": interval(_back(rows, paper)),
        }

    def sheets(self, rows: Rows, workshop: Workshop) -> list[Sheet]:
        plan, best = workshop.plan, _chosen(rows)[0]
        shown = {
            "Unguided": _REGIONS["nowhere"],
            f"Guided {_words(best)}": best,
            "Guided from 0.19 to 1.61": _REGIONS["middle"],
            "Guided everywhere": _REGIONS["everywhere"],
        }
        clouds = []
        for title, ends in shown.items():
            x = workshop.run(_experiment(plan, "networks", *ends, plan.first_seed)).x[-1]
            row = rows.where(**_key(ends), seed=plan.first_seed)[0]
            caption = f"outliers {row['outliers']:.1%},  coverage {row['coverage']:.0%}"
            clouds.append(Cloud(title, "fractal", "A", x, caption))

        def bars(column: str, fields: str) -> Series:
            points = [(region, rows.over_seeds(column, **_at(region, fields))) for region in _REGIONS]
            return series(_FIELDS[fields], points, style="bars")

        def by_upper_end(column: str, title: str, y_label: str) -> Chart:
            lines = [
                series(
                    label,
                    [
                        (high, rows.over_seeds(column, **_key((low, high))))
                        for high in (*_UPPER_ENDS, _TOP)
                        if low < high
                    ],
                )
                for low, label in _LOWER_ENDS.items()
            ]
            unguided = Mark("unguided", y=rows.over_seeds(column, **_at("nowhere")).mean)
            return Chart(title, "upper end, sigma", y_label, lines, [Mark("the paper's", x=_HIGH), unguided], "log")

        charts = [
            Chart("Coverage", "where CFG guides", "share of the mass", [bars("coverage", f) for f in _FIELDS]),
            Chart("Outliers", "where CFG guides", "share of the samples", [bars("outliers", f) for f in _FIELDS]),
            by_upper_end("coverage", "Coverage by interval", "share of the mass"),
            by_upper_end("outliers", "Outliers by interval", "share of the samples"),
        ]
        return [
            Sheet(
                "samples",
                clouds,
                "Samples of class A from the networks of one seed under CFG at w = 4, guided nowhere, only in the "
                "interval that is best on the other seeds, only in the paper's, and everywhere, over the exact 99 % "
                "region; outliers are red.",
            ),
            Sheet(
                "intervals",
                charts,
                "Coverage and outliers by where CFG at w = 4 guides: above sigma = 1.61, from 0.19 to 1.61 (middle), "
                "below; and against the upper end of the interval, a line for each lower end, on networks. Means and "
                "95 % intervals over the seeds; an upper end at 10 lies above all levels.",
                columns=2,
            ),
        ]


def _words(ends: Ends) -> str:
    low, high = ends
    return f"below {high:g}" if low == _BOTTOM else f"from {low:g} to {high:g}"


def _experiment(plan: Plan, fields: str, low: float, high: float, seed: int) -> Experiment:
    guided: dict[str, Any] = {"rule": "cfg", "params": {"w": _W}, "interval": (low, high)}
    settings = {"rule": "none"} if low == high else guided
    if fields == "exact":
        return Experiment("fractal", "A", main="exact", n=plan.n, seed=seed, **settings)
    return experiment(plan, seed, **settings)
