"""Ratio-aware guidance in few steps: where its ratio is large, and whether it does more than a smaller weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from toyguide.devices import resolve_device
from toyguide.experiment import Experiment
from toyguide.guidance.evaluation import Evaluation
from toyguide.studies.base import Cell, Criterion, Plan, Study
from toyguide.studies.charts import Chart, Series, Sheet, series
from toyguide.studies.claims.shared.fractal_networks import experiment, networks
from toyguide.studies.rows import Interval, Rows, at_best, interval
from toyguide.studies.workshop import Workshop

_N = 2048
_STEPS = (5, 8, 10)
_W = 10.0  # published with alpha = 8
_ALPHAS = (1.0, 2.0, 4.0, 8.0)
_ALPHA = _ALPHAS[-1]
_WEIGHTS = (1.0, 1.1, 1.2, 1.35, 1.5, 2.0, 3.0, 5.0, _W)  # of CFG
_LEVELS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
_TOP = _LEVELS[-1]
_METRICS = ("outliers", "coverage", "trimmed_w2")
_UNGUIDED, _CFG, _RAAG = ("cfg", 1.0), ("cfg", _W), ("raag", _ALPHA)
_SHOWN = {"Unguided": _UNGUIDED, "RAAG": _RAAG, "CFG, w = 1.5": ("cfg", 1.5), "CFG, w = 10": _CFG}
_FIELDS = {"networks": "networks", "exact": "exact fields"}


def _key(rule: str, value: float, steps: int, fields: str = "networks") -> dict[str, Any]:
    """The rule's value is CFG's weight, and RAAG's alpha."""
    return {"fields": fields, "rule": rule, "value": value, "steps": steps}


def _experiment(plan: Plan, fields: str, rule: str, value: float, steps: int, seed: int) -> Experiment:
    exact = {"main": "exact", "uncond": "exact@union"} if fields == "exact" else {}
    params = {"w": value} if rule == "cfg" else {"w": _W, "alpha": value}
    return experiment(plan, seed, rule=rule, params=params, sampler="euler", steps=steps, n=_N, **exact)


def _ratios(workshop: Workshop, fields: str, sigma: float, seed: int) -> dict[str, float]:
    """The median ratio of the velocities' difference to the unconditional velocity, at exact diffused points."""
    device = workshop.plan.device
    e = _experiment(workshop.plan, fields, "raag", _ALPHA, _STEPS[0], seed)
    x = e.data.field(e.label).sample(_N, sigma, torch.Generator().manual_seed(seed)).float().to(resolve_device(device))
    at = Evaluation(workshop.fields(e, device), x, sigma)
    v_main, v_uncond = at.velocity(), at.velocity("uncond")
    return {"ratio": float(((v_main - v_uncond).norm(dim=-1) / v_uncond.norm(dim=-1)).median())}


def _first_over_later(rows: Rows) -> list[float]:
    """The ratio at the highest level over the largest one below, for each seed."""
    first, *later = (rows.per_seed("ratio", fields="exact", sigma=sigma) for sigma in reversed(_LEVELS))
    return [a / max(b) for a, b in zip(first, zip(*later, strict=True), strict=True)]


def _worst(rows: Rows, effect: Callable[[Rows, int], list[float]]) -> list[float]:
    """An effect at the number of steps where it is largest, for each seed."""
    return [max(at) for at in zip(*(effect(rows, steps) for steps in _STEPS), strict=True)]


def _over(rows: Rows, column: str, key: Mapping[str, Any], other: Mapping[str, Any]) -> list[float]:
    pairs = zip(rows.per_seed(column, **key), rows.per_seed(column, **other), strict=True)
    return [a / b for a, b in pairs]


def _best_weight(rows: Rows, steps: int) -> list[float]:
    """The distance of CFG at the weight that is best on the other seeds, for each seed."""
    return at_best({w: rows.per_seed("trimmed_w2", **_key("cfg", w, steps)) for w in _WEIGHTS})


def _over_best_weight(rows: Rows, steps: int) -> list[float]:
    pairs = zip(rows.per_seed("trimmed_w2", **_key(*_RAAG, steps)), _best_weight(rows, steps), strict=True)
    return [a / b for a, b in pairs]


class RaagFewSteps(Study):
    """See the module's text."""

    name = "raag-few-steps"
    title = "Ratio-aware guidance in few steps"
    statement = (
        "The two velocities differ most in the first steps; guidance that is weaker where they do makes large weights "
        "usable in 5 to 10 steps, and does better than any constant weight."
    )
    source = "RAAG, later MAMBO-G, 2025, arXiv 2508.03442 (read in the diffusers library and in notes on it)"
    setting = (
        "The fractal's class A in 5, 8 and 10 Euler steps, which are those of a flow at the same levels, from sigma 5; "
        "with networks trained anew for each seed. RAAG has the published w = 10 and alpha = 8. The ratio is the "
        "median at exact diffused points with exact fields, from sigma 20 down, as the paper calls it a property of "
        "the data. Usable means at most half of the outliers of CFG at the same weight; since RAAG's weight is small "
        "almost everywhere here, it must also remove a tenth of the unguided outliers, and end no farther from the "
        "truth, by the trimmed distance, than CFG at the best of nine weights from 1 to 10, chosen on the other seeds. "
        "The number of steps where an effect is worst counts. The thresholds are ours. Exact fields take three seeds."
    )
    finding = (
        "The ratio is largest at sigma .5 to 1, over twice that at sigma 20. RAAG is far better than CFG at w = 10, "
        "and a seventh nearer to the truth than the best constant weight, but adds a seventh to the unguided "
        "outliers."
    )
    order = 24
    criteria = (
        Criterion(
            "ratio_first_over_later",
            "The ratio at the first of nine levels is at least that at every later one",
            _first_over_later,
            at_least=1.0,
        ),
        Criterion(
            "outliers_of_cfgs",
            "RAAG has at most half of the outliers of CFG at the same weight",
            lambda rows: _worst(rows, lambda rows, n: _over(rows, "outliers", _key(*_RAAG, n), _key(*_CFG, n))),
            at_most=0.5,
        ),
        Criterion(
            "outliers_of_unguided",
            "RAAG has at most 0.9 times the unguided outliers",
            lambda rows: _worst(rows, lambda rows, n: _over(rows, "outliers", _key(*_RAAG, n), _key(*_UNGUIDED, n))),
            at_most=0.9,
        ),
        Criterion(
            "distance_of_best_weight",
            "RAAG ends no farther from the truth than CFG at its best constant weight",
            lambda rows: _worst(rows, _over_best_weight),
            at_most=1.0,
        ),
    )

    def cells(self, plan: Plan) -> list[Cell]:
        seeds = {"networks": plan.seed_range, "exact": plan.seed_range[:3]}
        runs = [*(("cfg", w) for w in _WEIGHTS), *(("raag", alpha) for alpha in _ALPHAS)]

        def cells(seed: int, fields: str) -> list[Cell]:
            needs = networks(plan, seed) if fields == "networks" else ()
            cost = 0.2 if fields == "networks" else 0.6
            sampled = [
                Cell(
                    {**_key(rule, value, steps, fields), "seed": seed},
                    _experiment(plan, fields, rule, value, steps, seed),
                    _METRICS,
                    needs=needs,
                    cost=cost,
                )
                for rule, value in runs
                for steps in _STEPS
            ]
            # The judged ratio is that of exact fields, which costs next to nothing at every seed.
            ratios = [
                Cell({"fields": fields, "sigma": sigma, "seed": seed}, _ratios, needs=needs, cost=0.02)
                for sigma in _LEVELS
            ]
            return [*(sampled if seed in seeds[fields] else []), *ratios]

        return [cell for fields in _FIELDS for seed in plan.seed_range for cell in cells(seed, fields)]

    def numbers(self, rows: Rows) -> Mapping[str, Interval]:
        ways = {"unguided": _UNGUIDED, "cfg_w10": _CFG, "raag": _RAAG}
        found = {
            f"{column}_{name}_{fields}_{steps}": rows.over_seeds(column, **_key(*way, steps, fields))
            for fields in _FIELDS
            for steps in _STEPS
            for name, way in ways.items()
            for column in _METRICS
        }
        best = {f"trimmed_w2_best_weight_{steps}": interval(_best_weight(rows, steps)) for steps in _STEPS}
        over = {f"distance_of_best_weight_{steps}": interval(_over_best_weight(rows, steps)) for steps in _STEPS}
        return {**found, **best, **over}

    def sheets(self, rows: Rows, workshop: Workshop) -> list[Sheet]:
        def by_steps(column: str) -> list[Series]:
            return [
                series(label, [(n, rows.over_seeds(column, **_key(*way, n))) for n in _STEPS], colour=colour)
                for colour, (label, way) in enumerate(_SHOWN.items())
            ]

        def paths(steps: int) -> list[Series]:
            """Outliers against coverage, along CFG's weights and RAAG's alphas; coverage is the mean over the seeds."""
            found: list[Series] = []
            lines = {"RAAG, α from 8 to 1": ("raag", _ALPHAS), "CFG, w from 1 to 3": ("cfg", _WEIGHTS[:7])}
            for label, (rule, values) in lines.items():
                keys = [_key(rule, value, steps) for value in values]
                points = [(rows.over_seeds("coverage", **k).mean, rows.over_seeds("outliers", **k)) for k in keys]
                found.append(series(label, points, colour=4 + len(found)))
            return found

        ratios = [
            series(label, [(sigma, rows.over_seeds("ratio", fields=fields, sigma=sigma)) for sigma in _LEVELS])
            for fields, label in _FIELDS.items()
        ]
        steps = "number of Euler steps"
        return [
            Sheet(
                "ratio",
                [Chart("Difference of the velocities", "sigma", "median ratio", ratios, x_scale="log")],
                "The length of the difference of the conditional and the unconditional velocity over that of the "
                "latter, at exact points of class A; medians over the points, means and 95 % intervals over the seeds.",
            ),
            Sheet(
                "few-steps",
                [
                    Chart("Outliers", steps, "share of the samples", by_steps("outliers")),
                    Chart("Distance to the truth", steps, "trimmed W2", by_steps("trimmed_w2"), y_scale="log"),
                    Chart("In 8 steps", "coverage", "outliers", paths(8)),
                ],
                "With networks, means and 95 % intervals over the seeds. Left and middle: outliers, and the trimmed "
                "distance to exact samples, against the number of steps. Right: outliers against coverage in 8 steps, "
                "along CFG's weights and along RAAG's alpha at w = 10.",
            ),
        ]
