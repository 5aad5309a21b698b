"""Two Gaussians for which guidance has closed forms: the ODE, the SDE and the tilted density all differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from toyguide.devices import resolve_device
from toyguide.experiment import Experiment
from toyguide.fields import Field
from toyguide.guidance import Batched, rule
from toyguide.samplers import sampler, trajectory
from toyguide.studies.base import Cell, Criterion, Plan, Study
from toyguide.studies.charts import Chart, Series, Sheet, series
from toyguide.studies.rows import Interval, Rows
from toyguide.studies.workshop import Workshop, trained
from toyguide.training import TrainSettings

_DATASET = "two-variances"
_W = 3.0  # the weight at which the closed forms are judged
_WEIGHTS = (1.0, 2.0, _W, 5.0, 8.0)
_KINDS = {"ode": "PF-ODE (Heun)", "sde": "Reverse SDE (ancestral)", "tilted": "Tilted density"}
_SAMPLERS = {"ode": "heun", "sde": "ancestral"}
_PLACES = {"exact": "Exact fields", "networks": "Networks"}
_NETWORK_SIGMA_MAX = 10.0  # exp(-1.2 + 3 * 1.2) = 11: three standard deviations of the training noise
_SMALL = 0.1  # the level at which a network's log-density is taken: its errors grow as 1/sigma


def variance(kind: str, w: float) -> float:
    """The paper's closed form of the variance when N(0, 1) is guided away from N(0, 2).

    Args:
        kind: ``tilted`` for the tilted density; ``ode`` or ``sde`` for a sampler from infinite noise in infinitely many
            steps.
        w: The guidance weight.
    """
    if kind == "tilted":
        return 2 / (w + 1)
    return 2 ** (1 - w) if kind == "ode" else (2 - 2 ** (2 - 2 * w)) / (2 * w - 1)


def tilted_variance(x: Tensor, drawn: Field, main: Field, uncond: Field, sigma: float, w: float) -> float:
    """The variance per axis about 0 of ``p_main^w p_uncond^(1 - w)``, by importance weights.

    Args:
        x: Samples at ``sigma``, with shape ``(n, d)``.
        drawn: The field that ``x`` was drawn from.
        main: The field to guide.
        uncond: The field to guide away from.
        sigma: The noise level of all three.
        w: The guidance weight.
    """
    tilted = w * main.log_density(x, sigma).double() + (1 - w) * uncond.log_density(x, sigma).double()
    weights = torch.softmax(tilted - drawn.log_density(x, sigma).double(), 0)
    return float(weights @ x.double().square().mean(-1))


def network(plan: Plan, seed: int, label: str) -> TrainSettings:
    """A small network of one of the two Gaussians."""
    return TrainSettings(_DATASET, label, width=32, iterations=plan.pick(512, 256), batch=2048, seed=seed)


def networks(plan: Plan, seed: int) -> tuple[TrainSettings, TrainSettings]:
    """The networks of both Gaussians."""
    return network(plan, seed, "narrow"), network(plan, seed, "wide")


def _experiment(plan: Plan, place: str, kind: str, seed: int) -> Experiment:
    settings: dict[str, Any] = {"main": "exact", "uncond": "exact@wide", "n": 4096}
    steps = plan.pick(2048, 1024) if kind == "sde" else plan.pick(256, 128)
    if place == "networks":
        main, uncond = map(trained, networks(plan, seed))
        settings = {"main": main, "uncond": uncond, "n": plan.n // 2, "sigma_max": _NETWORK_SIGMA_MAX}
        steps = plan.pick(512, 256) if kind == "sde" else 64
    return Experiment(
        _DATASET, "narrow", rule="cfg", sampler=_SAMPLERS.get(kind, "heun"), steps=steps, seed=seed, **settings
    )


def _column(w: float) -> str:
    return f"variance_w{w:g}"


def _measure(workshop: Workshop, place: str, kind: str, seed: int) -> Mapping[str, float]:
    """The variances at all weights."""
    plan = workshop.plan
    e = _experiment(plan, place, kind, seed)
    if kind == "tilted":
        sigma = _SMALL if place == "networks" else 0.0
        # Exact samples replace those of a network; the importance weights account for it.
        drawn, fields = e.data.field("narrow"), workshop.fields(e)
        x = drawn.sample(16 * plan.n, sigma, torch.Generator().manual_seed(seed)).float()
        return {_column(w): tilted_variance(x, drawn, fields["main"], fields["uncond"], sigma, w) for w in _WEIGHTS}

    # All weights in one batch, from the same starting points, each with its own noise.
    device = resolve_device(plan.device)
    x = e.start().repeat(len(_WEIGHTS), 1).to(device)
    guidance = Batched([rule("cfg", w=w) for w in _WEIGHTS], [e.generator() for _ in _WEIGHTS], x)
    *_, last = trajectory(guidance, workshop.fields(e, plan.device), sampler(e.sampler), x, e.levels(), e.generator())
    each = last.x.double().square().mean(-1).reshape(len(_WEIGHTS), -1).mean(-1)
    return {_column(w): v for w, v in zip(_WEIGHTS, each.tolist(), strict=True)}


_MARGIN = 0.25 * (variance("tilted", _W) - variance("sde", _W))  # a quarter of the way between two of the three


def _off(rows: Rows, kind: str) -> list[float]:
    return [abs(v - variance(kind, _W)) for v in rows.per_seed(_column(_W), place="exact", kind=kind)]


def _below_tilt(rows: Rows, place: str) -> list[float]:
    """How far the samplers end below the measured tilt, as a share of the closed form; the smaller of the two."""
    tilted = rows.per_seed(_column(_W), place="exact", kind="tilted")
    shares = []
    for kind in _SAMPLERS:
        gap = variance("tilted", _W) - variance(kind, _W)
        sampled = rows.per_seed(_column(_W), place=place, kind=kind)
        shares.append([(t - s) / gap for t, s in zip(tilted, sampled, strict=True)])
    return [min(pair) for pair in zip(*shares, strict=True)]


class CfgIsNotTilting(Study):
    """See the module's text."""

    name = "cfg-is-not-tilting"
    title = "Guidance does not sample the tilted density"
    statement = (
        "Guiding N(0, 1) away from N(0, 2) at w = 3 ends at the variance 0.25 by the ODE and 0.3875 by the SDE; "
        "neither is the tilted density's 0.5."
    )
    source = "Bradley & Nakkiran 2024, arXiv 2408.09000 (read in notes on it)"
    setting = (
        "Two Gaussians in two dimensions, each axis as in the paper; variances are over both axes. The variance of "
        "the tilted density is measured by importance weights on exact samples, not computed. Equality means within "
        "0.028, a quarter of the smallest distance between the three variances. Discretisation is part of the "
        "measurement: the ancestral sampler is of first order, and its 2048 steps (1024 in a quick look) end 0.003 "
        "(0.005) too low at w = 3. Networks of width 32 are trained anew for each seed and start at sigma 10, which "
        "their training noise reaches; they must show at least half of the exact gaps. The samplers on exact "
        "fields take three seeds."
    )
    finding = "Both samplers end where the closed forms say, with networks too."
    order = 10
    criteria = (
        Criterion(
            "ode_off",
            "By the ODE the variance at w = 3 on exact fields is within 0.028 of 0.25",
            lambda rows: _off(rows, "ode"),
            at_most=_MARGIN,
        ),
        Criterion(
            "sde_off",
            "By the SDE the variance at w = 3 on exact fields is within 0.028 of 0.3875",
            lambda rows: _off(rows, "sde"),
            at_most=_MARGIN,
        ),
        Criterion(
            "tilted_off",
            "The measured variance of the tilted density at w = 3 is within 0.028 of 0.5",
            lambda rows: _off(rows, "tilted"),
            at_most=_MARGIN,
        ),
        Criterion(
            "networks_below_tilt",
            "With trained networks too, ODE and SDE end below the tilted variance by at least half of what the closed "
            "forms say",
            lambda rows: _below_tilt(rows, "networks"),
            at_least=0.5,
        ),
    )

    def cells(self, plan: Plan) -> list[Cell]:
        def cell(seed: int, place: str, kind: str) -> Cell:
            cost = {"ode": plan.pick(2.5, 1.0), "sde": plan.pick(12.0, 4.0), "tilted": 0.1}[kind]
            return Cell(
                {"place": place, "kind": kind, "seed": seed},
                _measure,
                needs=networks(plan, seed) if place == "networks" else (),
                cost=cost / 4 if place == "networks" else cost,
            )

        runs = [(place, kind) for place in _PLACES for kind in _KINDS]
        slow = [("exact", kind) for kind in _SAMPLERS]
        return [cell(seed, *run) for run in runs for seed in (plan.seed_range[:3] if run in slow else plan.seed_range)]

    def numbers(self, rows: Rows) -> Mapping[str, Interval]:
        suffix = {"exact": "", "networks": "_networks"}
        return {
            f"variance_{kind}{suffix[place]}": rows.over_seeds(_column(_W), place=place, kind=kind)
            for place in _PLACES
            for kind in _KINDS
        }

    def sheets(self, rows: Rows, workshop: Workshop) -> list[Sheet]:
        fine = [_WEIGHTS[0] + (_WEIGHTS[-1] - _WEIGHTS[0]) * i / 70 for i in range(71)]

        def lines(place: str) -> list[Series]:
            found = []
            for colour, (kind, label) in enumerate(_KINDS.items()):
                points = [(w, rows.over_seeds(_column(w), place=place, kind=kind)) for w in _WEIGHTS]
                forms = [variance(kind, w) for w in fine]
                found += [
                    series(label, points, "points", colour),
                    Series(f"{label}, closed form", fine, forms, style="dashed", colour=colour),
                ]
            return found

        charts = [
            Chart(title, "weight w (1 is unguided)", "variance", lines(place), y_scale="log")
            for place, title in _PLACES.items()
        ]
        return [
            Sheet(
                "variances",
                charts,
                "Variance of the samples against the weight, by both samplers, and of the tilted density by importance "
                "weights; means and 95 % intervals over the seeds. Dashed: the closed forms, from infinite noise in "
                "infinitely many steps.",
            )
        ]
