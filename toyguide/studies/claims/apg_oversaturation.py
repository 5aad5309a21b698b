"""Adaptive projected guidance at large weights: how far samples move outwards, and what is left of the benefit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from toyguide.experiment import Experiment
from toyguide.studies.base import Cell, Criterion, Plan, Study
from toyguide.studies.charts import Chart, Cloud, Series, Sheet, series
from toyguide.studies.claims.shared.fractal_networks import experiment, networks
from toyguide.studies.claims.shared.matching import at_coverage
from toyguide.studies.rows import Interval, Rows
from toyguide.studies.workshop import Workshop

_N = 1024
_W = 4.0  # of the paper's two class-conditional models
_LARGE = (_W, 8.0, 16.0)
_SMALL = (1.25, 1.5, 2.0)  # of CFG, to match the coverage of APG
_RULES: Mapping[str, tuple[str, Mapping[str, float]]] = {
    "none": ("none", {}),
    "cfg": ("cfg", {}),
    "apg": ("apg", {}),
    "projected": ("apg", {"eta": 0.0, "beta": 0.0, "r": math.inf}),
    "clipped": ("apg", {"eta": 1.0}),
}
_TITLES = {
    "cfg": "CFG",
    "apg": "APG",
    "projected": "Only the projection",
    "clipped": "Only clip and momentum",
}
_UNGUIDED: dict[str, Any] = {"fields": "networks", "rule": "none", "w": 1.0}


def _key(rule: str, w: float = _W, fields: str = "networks") -> dict[str, Any]:
    return {"fields": fields, "rule": rule, "w": w}


def _experiment(plan: Plan, fields: str, rule: str, w: float, seed: int) -> Experiment:
    exact = {"main": "exact", "uncond": "exact@union"} if fields == "exact" else {}
    key, params = _RULES[rule]
    weight = {} if rule == "none" else {"w": w}
    return experiment(plan, seed, rule=key, params={**params, **weight}, n=_N, **exact)


def _measure(workshop: Workshop, fields: str, rule: str, w: float, seed: int) -> Mapping[str, float]:
    """The median distance from the origin, and the metrics."""
    result = workshop.run(_experiment(workshop.plan, fields, rule, w, seed))
    radius = result.x[-1].norm(dim=-1).nan_to_num(math.inf).median()
    measured = result.metrics(resamples=0)
    return {"radius": float(radius), **{name: measured[name] for name in ("outliers", "coverage", "trimmed_w2")}}


def _over(rows: Rows, column: str, key: Mapping[str, Any], other: Mapping[str, Any]) -> list[float]:
    """A column's ratio, for each seed."""
    pairs = zip(rows.per_seed(column, **key), rows.per_seed(column, **other), strict=True)
    return [a / b for a, b in pairs]


def _growth(rows: Rows, rule: str) -> list[list[float]]:
    """The radius over the unguided one at each large weight, for each seed."""
    return [list(at) for at in zip(*(_over(rows, "radius", _key(rule, w), _UNGUIDED) for w in _LARGE), strict=True)]


def _outliers_of_cfgs(rows: Rows) -> list[float]:
    """APG's outliers over CFG's at the same weight, where they are most; for each seed."""
    ratios = (_over(rows, "outliers", _key("apg", w), _key("cfg", w)) for w in _LARGE)
    return [max(at) for at in zip(*ratios, strict=True)]


def _over_weaker_cfg(rows: Rows) -> list[float]:
    """APG's outliers over those of CFG at the weight at which it covers as much, for each seed."""
    settings = [_UNGUIDED, *(_key("cfg", w) for w in (*_SMALL, *_LARGE))]
    weaker = at_coverage(rows, "outliers", settings, rows.per_seed("coverage", **_key("apg")))
    return [a / b for a, b in zip(rows.per_seed("outliers", **_key("apg")), weaker, strict=True)]


class ApgOversaturation(Study):
    """See the module's text."""

    name = "apg-oversaturation"
    title = "Projected guidance does not oversaturate"
    statement = (
        "At large weights CFG moves samples outwards and adaptive projected guidance does not, because it leaves out "
        "the part along the denoised point; it keeps CFG's benefit."
    )
    source = "Sadat et al. 2024, arXiv 2410.02416 (read in its authors' later code and in notes on it)"
    setting = (
        "The fractal's class A with networks trained anew for each seed, 32 Heun steps, weights 4, 8 and 16. The "
        "paper's class-conditional models have w = 4; its momentum and projection are taken over, its limit r is "
        "scaled to a point in the plane. Saturation, which points do not have, is read as the paper explains it: as "
        "the growth of what is denoised, here of the samples' median distance from the origin. The thresholds are "
        "ours: growth is a quarter, none is at most a tenth; the benefit is the removal of a tenth of the unguided "
        "outliers at w = 4. APG is weaker than CFG at the same weight, so it is also compared with CFG at the smaller "
        "weight that covers as much of the class. Exact fields take three seeds."
    )
    finding = (
        "CFG moves samples outwards by 84 % at w = 4, and APG does not. There it has 37 % fewer outliers than no "
        "guidance, and 31 % fewer than CFG at the weight that covers as much. From w = 8 on, CFG with some networks "
        "ends on a single branch with few outliers, so that APG's are not always half as many; at w = 16 they are "
        "twice the unguided ones."
    )
    order = 22
    criteria = (
        Criterion(
            "growth_by_cfg",
            "At each weight CFG's radius is at least 1.25 times the unguided one",
            lambda rows: [min(at) for at in _growth(rows, "cfg")],
            at_least=1.25,
        ),
        Criterion(
            "growth_by_apg",
            "At each weight APG's radius is at most 1.1 times the unguided one",
            lambda rows: [max(at) for at in _growth(rows, "apg")],
            at_most=1.1,
        ),
        Criterion(
            "growth_by_projection",
            "The projection alone, without clip and momentum, keeps the radius to 1.1 times the unguided one too",
            lambda rows: [max(at) for at in _growth(rows, "projected")],
            at_most=1.1,
        ),
        Criterion(
            "outliers_of_cfgs",
            "At each weight APG has at most half of CFG's outliers",
            _outliers_of_cfgs,
            at_most=0.5,
        ),
        Criterion(
            "outliers_of_unguided",
            "At w = 4 APG has at most 0.9 times the unguided outliers",
            lambda rows: _over(rows, "outliers", _key("apg"), _UNGUIDED),
            at_most=0.9,
        ),
        Criterion(
            "outliers_of_weaker_cfg",
            "At w = 4 APG has no more outliers than CFG at the weight that covers as much of the class",
            _over_weaker_cfg,
            at_most=1.0,
        ),
    )

    def cells(self, plan: Plan) -> list[Cell]:
        weights = {"none": (1.0,), "cfg": (*_SMALL, *_LARGE), "apg": (2.0, *_LARGE)}
        learned = [("networks", rule, w) for rule in _RULES for w in weights.get(rule, _LARGE)]
        exact = [("exact", "none", 1.0), *(("exact", rule, w) for rule in ("cfg", "apg") for w in _LARGE)]

        def cell(seed: int, fields: str, rule: str, w: float) -> Cell:
            return Cell(
                {**_key(rule, w, fields), "seed": seed},
                _measure,
                needs=networks(plan, seed) if fields == "networks" else (),
                cost=0.5 if fields == "networks" else 1.5,
            )

        runs = [(seed, *run) for seed in plan.seed_range for run in learned]
        return [cell(*run) for run in [*runs, *((seed, *run) for seed in plan.seed_range[:3] for run in exact)]]

    def numbers(self, rows: Rows) -> Mapping[str, Interval]:
        found = {"unguided": _UNGUIDED, "unguided_exact": {**_UNGUIDED, "fields": "exact"}}
        found |= {f"{rule}_w{w:g}": _key(rule, w) for rule in _TITLES for w in _LARGE}
        found |= {f"{rule}_exact_w{w:g}": _key(rule, w, "exact") for rule in ("cfg", "apg") for w in _LARGE}
        columns = ("radius", "outliers", "coverage")
        return {f"{column}_{name}": rows.over_seeds(column, **key) for name, key in found.items() for column in columns}

    def sheets(self, rows: Rows, workshop: Workshop) -> list[Sheet]:
        plan = workshop.plan
        shown = {"Unguided": ("none", 1.0), "CFG, w = 4": ("cfg", _W), "APG, w = 4": ("apg", _W)}
        clouds = []
        for title, (rule, w) in shown.items():
            x = workshop.run(_experiment(plan, "networks", rule, w, plan.first_seed)).x[-1]
            row = rows.where(**_key(rule, w), seed=plan.first_seed)[0]
            caption = f"radius {row['radius']:.2f},  outliers {row['outliers']:.1%},  coverage {row['coverage']:.0%}"
            clouds.append(Cloud(title, "fractal", "A", x, caption))

        def lines(column: str) -> list[Series]:
            found = []
            for rule, label in _TITLES.items():
                weights = sorted({row["w"] for row in rows.where(fields="networks", rule=rule)})
                points = [(w, rows.over_seeds(column, **_key(rule, w))) for w in weights]
                found.append(series(label, [(1.0, rows.over_seeds(column, **_UNGUIDED)), *points]))
            return found

        charts = [
            Chart("Distance from the origin", "weight", "median radius", lines("radius"), x_scale="log"),
            Chart("Outliers", "weight", "share of the samples", lines("outliers"), x_scale="log"),
            Chart("Coverage", "weight", "share of the mass", lines("coverage"), x_scale="log"),
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
                "The median distance from the origin, outliers and coverage against the weight, with networks; means "
                "and 95 % intervals over the seeds. APG's two parts are also shown alone.",
            ),
        ]
