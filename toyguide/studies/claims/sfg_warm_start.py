"""Saddle-free guidance's single power iteration per step: whether it follows the eigenvector, and the gain of more."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from toyguide.devices import resolve_device
from toyguide.experiment import Experiment, Result
from toyguide.fields import Field
from toyguide.geometry.curvature import top_eigenpair
from toyguide.guidance import Evaluation, Guided
from toyguide.guidance.rules.sfg import SaddleFreeGuidance, power_step
from toyguide.samplers import sampler, trajectory
from toyguide.studies.base import Cell, Criterion, Plan, Study
from toyguide.studies.charts import Chart, Mark, Series, Sheet, series
from toyguide.studies.claims.shared import fractal_networks, simplex_networks
from toyguide.studies.rows import Interval, Rows, interval
from toyguide.studies.workshop import Workshop, trained

_PLACES = {"fractal": "Fractal, class A", "simplex16": "16-simplex", "simplex16-exact": "16-simplex, exact"}
_STARTS = {"warm": "warm start", "random": "random restart"}
_KEPT = "kept"  # a warm start that keeps the corrector's iteration too
_COUNTS = (1, 3, 10)
_W = 1.0  # the paper's least weight
_FOLLOWED = 64  # trajectories whose Hessians are evaluated
_ITERATIONS = "iterations in each step"
_TRACKS = 0.9  # the least mean absolute cosine that counts as following the eigenvector: 26 degrees

_UNGUIDED: dict[str, Any] = {"start": "warm", "iterations": 1, "w": 0.0}


def _at(start: str, iterations: int = 1) -> dict[str, Any]:
    return {"start": start, "iterations": iterations, "w": _W}


def _more(rows: Rows, column: str, key: Mapping[str, Any]) -> Interval:
    """How much larger a column is than unguided, over the seeds of these runs."""
    unguided = rows.where(place=key["place"], **_UNGUIDED)
    return interval(row[column] - unguided.where(seed=row["seed"])[0][column] for row in rows.where(**key))


def _follows(place: str, start: str) -> Criterion:
    where = "the fractal's class A" if place == "fractal" else "the 16-simplex"
    warm = start == "warm"
    return Criterion(
        f"{'tracks' if warm else 'restarts'}_{place}",
        f"On networks of {where}, one iteration from {'the last v' if warm else 'a random v'} leaves v with a mean "
        f"absolute cosine of {_TRACKS} or {'more' if warm else 'less'} with the top eigenvector",
        lambda rows: rows.per_seed("cosine", place=place, **_at(start)),
        at_least=_TRACKS if warm else None,
        at_most=None if warm else _TRACKS,
    )


def _keeping_follows(place: str) -> Criterion:
    where = "the fractal's class A" if place == "fractal" else "the 16-simplex"
    return Criterion(
        f"kept_{place}",
        f"On networks of {where}, v follows the top eigenvector no worse if the iteration of Heun's second evaluation "
        "is kept as well",
        lambda rows: rows.difference("cosine", {"place": place, **_at(_KEPT)}, {"place": place, **_at("warm")}),
        at_least=0.0,
    )


class _CorrectorKept(SaddleFreeGuidance):
    """SFG whose every evaluation passes on its v, also that of a solver step's second one.

    The loop keeps what the first evaluation of a step returns. So the memory is a list with one direction, the same
    list in all evaluations of a run, and each replaces its content.
    """

    key = ""  # not listed

    def begin(self, at: Evaluation, generator: torch.Generator) -> tuple[Tensor, Any]:
        x, direction = super().begin(at, generator)
        return x, [direction]

    def guide(self, at: Evaluation, memory: Any) -> Guided:
        guided = super().guide(at, memory[0])
        memory[0] = guided.memory
        return replace(guided, memory=memory)


class SfgWarmStart(Study):
    """See the module's text."""

    name = "sfg-warm-start"
    title = "SFG: one warm-started iteration"
    statement = (
        "One power iteration per step, started from the last step's direction, tracks the top eigenvector; started "
        "from a new random direction it does not. Keeping the second evaluation's iteration as well follows no worse."
    )
    source = "Yeats et al. 2025, arXiv 2511.21863, warm start and its open question 1 (read in a review)"
    setting = (
        "SFG's formula is a reconstruction from a review, and the threshold is ours. Runs of 32 Heun steps at w = 1 "
        "on the fractal's class A and the union of the 16-simplex, with networks of width 64 trained anew for each "
        "seed. At the beginning of each step, wherever the top eigenvalue of the network's own Hessian is positive, v "
        "after the step's iterations is compared with the eigenvector at the same point: the mean absolute cosine, "
        "0.64 for random directions in the plane and 0.20 in 16 dimensions, over the points of each step and then "
        "over the steps. All iterations of a step are made at one point. The benefit of 1 to 10 iterations is "
        "reported, also for samples (more than one from five seeds); so are the push, sigma² J v, which uses the v "
        "before the last iteration, how often it is made where it should be, and the exact 16-simplex (three seeds). "
        "The rule keeps the v of a step's first evaluation; Heun's second one makes an iteration too, whose v can be "
        "kept at no cost. That is our question, and its criterion was settled on seeds 0 to 9 and is judged on seeds "
        "from 100 on."
    )
    finding = "Also keeping the iteration of Heun's second evaluation follows the eigenvector better, at no cost."
    order = 15
    criteria = (
        *(_follows(place, start) for start in _STARTS for place in ("fractal", "simplex16")),
        *(_keeping_follows(place) for place in ("fractal", "simplex16")),
    )

    def cells(self, plan: Plan) -> list[Cell]:
        def cell(seed: int, place: str, settings: Mapping[str, Any]) -> Cell:
            slow = 2.5 if place == "simplex16-exact" else 1.0
            cost = slow * plan.pick(0.2, 0.06) * (1 + settings["iterations"]) + 0.3
            key = {"place": place, **settings, "seed": seed}
            return Cell(key, _measure, needs=_needs(plan, place, seed), cost=cost)

        def runs(place: str) -> list[dict[str, Any]]:
            if place == "simplex16-exact":  # the slowest field: only the least and the most
                return [_UNGUIDED, *(_at(start, count) for start in _STARTS for count in (1, 10))]
            return [_UNGUIDED, *(_at(start, count) for start in _STARTS for count in _COUNTS), _at(_KEPT)]

        def seeds(place: str, run: Mapping[str, Any]) -> range:
            if place == "simplex16-exact":
                return plan.seed_range[:3]
            return plan.seed_range if run["iterations"] == 1 else plan.seed_range[:5]

        return [cell(seed, place, run) for place in _PLACES for run in runs(place) for seed in seeds(place, run)]

    def numbers(self, rows: Rows) -> Mapping[str, Interval]:
        found = {}
        for place in _PLACES:
            name = place.replace("-", "_")
            for column in ("outliers", "coverage"):
                found[f"{column}_{name}_unguided"] = rows.over_seeds(column, place=place, **_UNGUIDED)
            for start in _STARTS:
                for count in (1, 10):
                    key = {"place": place, **_at(start, count)}
                    for column in ("cosine", "cosine_push", "noticed", "outliers", "coverage"):
                        found[f"{column}_{name}_{start}_{count}"] = rows.over_seeds(column, **key)
            if place != "simplex16-exact":
                for column in ("cosine", "outliers", "coverage"):
                    found[f"{column}_{name}_{_KEPT}"] = rows.over_seeds(column, place=place, **_at(_KEPT))
        return found

    def sheets(self, rows: Rows, workshop: Workshop) -> list[Sheet]:
        def lines(place: str, found: Callable[[dict[str, Any]], Interval]) -> list[Series]:
            counts = (1, 10) if place == "simplex16-exact" else _COUNTS
            drawn = [
                series(label, [(k, found({"place": place, **_at(start, k)})) for k in counts], colour=i)
                for i, (start, label) in enumerate(_STARTS.items())
            ]
            if place == "simplex16-exact":
                return drawn
            kept = [(1, found({"place": place, **_at(_KEPT)}))]
            return [*drawn, series("corrector's kept", kept, "points", colour=2)]

        def tracking(place: str) -> Chart:
            drawn = lines(place, lambda key: rows.over_seeds("cosine", **key))
            marks = [Mark("any direction", y=_chance(place))]
            return Chart(_PLACES[place], _ITERATIONS, "mean absolute cosine of v", drawn, marks, y_range=(0, 1.05))

        def samples(column: str, place: str) -> Chart:
            drawn = lines(place, lambda key: _more(rows, column, key))
            title = f"{_PLACES[place]}: {column}"
            return Chart(title, _ITERATIONS, "more than unguided", drawn, [Mark("unguided", y=0.0)])

        return [
            Sheet(
                "iterations",
                [tracking(p) for p in _PLACES],
                "The mean absolute cosine between v after a step's iterations and the top eigenvector of the place, "
                "wherever the top eigenvalue is positive; means and 95 % intervals over the seeds.",
            ),
            Sheet(
                "along",
                [_along(workshop, place) for place in _PLACES],
                "The same over the noise level, for the networks of one seed: one iteration in each step and ten, and "
                "the direction of the push that one warm-started iteration makes. Below the components' width, 0.05, "
                "the simplex' exact log-density curves upward nowhere that data is: what a network's does there is "
                "its error.",
            ),
            Sheet(
                "samples",
                [samples(c, p) for c in ("outliers", "coverage") for p in ("fractal", "simplex16")],
                "Outliers and coverage of the samples at w = 1, less those of unguided samples of the same seed, "
                "against the iterations in each step; means and 95 % intervals over the seeds. Each iteration costs "
                "an evaluation.",
                columns=2,
            ),
        ]


def _needs(plan: Plan, place: str, seed: int) -> tuple[Any, ...]:
    if place == "simplex16-exact":
        return ()
    return ((fractal_networks if place == "fractal" else simplex_networks).main(plan, seed),)


def _measure(workshop: Workshop, place: str, seed: int, **settings: Any) -> Mapping[str, float]:
    experiment = _experiment(workshop.plan, place, seed, settings)
    result = _run(workshop, experiment, kept=settings["start"] == _KEPT)
    measured = result.metrics(resamples=0)
    followed = _followed(result, workshop.fields(experiment)["main"])
    return {
        **{name: float(measured[name]) for name in ("outliers", "coverage", "nfe")},
        **{name: float(v.nanmean()) for name, v in followed.items()},
    }


def _run(shop: Workshop, experiment: Experiment, kept: bool) -> Result:
    if not kept:
        return shop.run(experiment)
    device = resolve_device(shop.plan.device)
    steps = trajectory(
        _CorrectorKept(w=experiment.params["w"]),
        shop.fields(experiment, shop.plan.device),
        sampler(experiment.sampler),
        experiment.start().to(device),
        experiment.levels(),
        experiment.generator(),
    )
    return Result.of(experiment, list(steps), seconds=0.0)


def _experiment(plan: Plan, place: str, seed: int, settings: Mapping[str, Any]) -> Experiment:
    needs = _needs(plan, place, seed)
    return Experiment(
        place.removesuffix("-exact"),
        "A" if place == "fractal" else None,
        main=trained(needs[0]) if needs else "exact",
        rule="sfg-iterated",
        params={**settings, "start": "warm"} if settings["start"] == _KEPT else settings,
        n=plan.n,
        seed=seed,
    )


@torch.no_grad()
def _followed(result: Result, field: Field) -> dict[str, Tensor]:
    """The alignment of SFG's direction with a field's top eigenvector at the beginning of each step.

    Returns:
        Means over the trajectories whose top eigenvalue is positive there, with shape ``(steps,)`` and NaN where there
        are none. ``cosine``: absolute cosine of v after the step's last iteration; ``cosine_before``: of the v that its
        product is taken with; ``cosine_push``: of the product itself. ``noticed``: the share with lambda > 0.
    """
    names = ("cosine", "cosine_before", "cosine_push", "noticed")
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    alpha = torch.full((_FOLLOWED, 1), float(result.experiment.params["alpha"]), dtype=torch.float64)
    for x, sigma, v in zip(result.x, result.sigma.tolist(), result.trace["v"], strict=False):
        before, matrix = v[:_FOLLOWED].double(), sigma**2 * field.hessian(x[:_FOLLOWED].double(), sigma)
        value, vector = top_eigenpair(matrix)
        push = (matrix @ before[..., None])[..., 0]
        lam, after, alpha = power_step(push, before, alpha[: len(before)])
        on = value > 0
        for name, direction in zip(names, (after, before, push), strict=False):
            found[name].append(torch.nn.functional.cosine_similarity(direction, vector, dim=-1).abs()[on].mean())
        found["noticed"].append((lam[on] > 0).double().mean())
    return {name: torch.stack(means) for name, means in found.items()}


def _along(shop: Workshop, place: str) -> Chart:
    lines = {"one, warm": (_at("warm"), "cosine"), "one, random": (_at("random"), "cosine")}
    lines |= {"ten, warm": (_at("warm", 10), "cosine"), "push, one warm": (_at("warm"), "cosine_push")}
    drawn = []
    for colour, (label, (settings, column)) in enumerate(lines.items()):
        experiment = _experiment(shop.plan, place, shop.plan.first_seed, settings)
        result = shop.run(experiment)
        means = _followed(result, shop.fields(experiment)["main"])[column]
        points = [(s, m) for s, m in zip(result.sigma.tolist(), means.tolist(), strict=False) if not math.isnan(m)]
        drawn.append(Series(label, [p[0] for p in points], [p[1] for p in points], colour=colour))
    return Chart(
        _PLACES[place],
        "noise level σ",
        "mean absolute cosine",
        drawn,
        [Mark("any direction", y=_chance(place))],
        x_scale="log",
        y_range=(0, 1.05),
    )


def _chance(place: str) -> float:
    """The mean absolute cosine of a random direction with any other: ``G(d/2) / (sqrt(pi) G((d + 1)/2))``."""
    d = 2 if place == "fractal" else 16
    return math.exp(math.lgamma(d / 2) - math.lgamma((d + 1) / 2)) / math.sqrt(math.pi)
