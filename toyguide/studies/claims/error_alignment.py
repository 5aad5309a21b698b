"""Why autoguidance works: the weak network makes the main one's errors, only larger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from toyguide.datasets import Dataset
from toyguide.experiment import Experiment
from toyguide.geometry.regions import Region, regions
from toyguide.metrics import hdr_threshold
from toyguide.metrics.alignment import alignment, denoising_errors, level_shares
from toyguide.studies.base import Cell, Criterion, Plan, Study
from toyguide.studies.charts import Chart, Mark, Series, Sheet, series
from toyguide.studies.claims.shared import fractal_networks
from toyguide.studies.rows import Interval, Rows, interval
from toyguide.studies.workshop import Workshop, trained
from toyguide.training import TrainSettings

_MEMBERS = 4  # weak networks in the mean
_GUIDES = {"weak": "a weak network", "mean": f"the mean of {_MEMBERS} weak networks", "uncond": "the unconditional one"}
_WEIGHTS = {"weak": 3.0, "mean": 3.0, "uncond": 4.0}  # the paper's, of autoguidance and of CFG
_PLACES = {"data": "diffused data", "unguided": "unguided runs", "guided": "runs guided by it"}
_STEPS = (9, 12, 15, 18, 21, 24, 27)  # of the 32: sigma from 1.1 to 0.01
_LOW = (15, 18, 21, 24, 27)  # below the data's standard deviation of 0.5
_DEPTHS = {"trunk": (0, 1), "middle": (2, 3, 4), "tips": (5, 6)}  # levels of branches
_HALF = 0.5  # between unrelated errors, at 0, and the same ones, at 1


def _at_low_noise(rows: Rows, column: str, guide: str = "weak", place: str = "data") -> list[float]:
    """A column for each seed, its mean over the low levels."""
    levels = [rows.per_seed(column, guide=guide, place=place, step=step) for step in _LOW]
    return [float(np.mean(values)) for values in zip(*levels, strict=True)]


def _more_than_cfg(rows: Rows) -> list[float]:
    pairs = zip(_at_low_noise(rows, "shortened"), _at_low_noise(rows, "shortened", "uncond"), strict=True)
    return [a - b for a, b in pairs]


class ErrorAlignment(Study):
    """See the module's text."""

    name = "error-alignment"
    title = "The weak network's errors are the main one's, larger"
    statement = (
        "A weaker version of the main network makes similar errors in the same places, only larger, so their "
        "difference points to better samples; that of CFG, whose unconditional network has another task, does less so."
    )
    source = "Karras et al. 2024, arXiv 2406.02507, Sec. 4 (similar errors, only stronger) and Sec. 1 (another task)"
    setting = (
        "The toy example's networks, trained anew for each seed. Errors are those of the denoisers, against the exact "
        "one of class A for the unconditional network too. The criteria are about diffused data at five noise levels "
        "from 0.3 to 0.01, below the data's standard deviation, and take the mean over the levels; the figures show "
        "more levels and the points that runs visit. The paper measures none of this: that half of the way from "
        "unrelated to equal errors is similar, is our reading."
    )
    finding = (
        "The errors lie in the same places, but hardly in the same direction (cosine .14). A little guidance "
        "shortens the error at 43 % of the points, though at 59 % of those in the tail (82 % at sigma .03), "
        "where outliers are; w = 3 shortens it at 4 %. Guidance moves outliers back at the cost of the score "
        "elsewhere."
    )
    order = 3
    criteria = (
        Criterion(
            "similar",
            "The cosine between the weak network's error and the main one's is at least 0.5 (the mean over the points)",
            lambda rows: _at_low_noise(rows, "mean_cosine"),
            at_least=_HALF,
        ),
        Criterion(
            "same_places",
            "The rank correlation of the two errors' lengths is at least 0.5",
            lambda rows: _at_low_noise(rows, "places"),
            at_least=_HALF,
        ),
        Criterion(
            "stronger",
            "The part of the weak network's error along the main one's is at least as large as that (pooled)",
            lambda rows: _at_low_noise(rows, "along"),
            at_least=1.0,
        ),
        Criterion(
            "shortens",
            "A little autoguidance shortens the error at no less than half of the points",
            lambda rows: _at_low_noise(rows, "shortened"),
            at_least=0.5,
        ),
        Criterion(
            "more_than_cfg",
            "A little autoguidance shortens the error at no fewer points than a little CFG",
            _more_than_cfg,
            at_least=0.0,
        ),
    )

    def cells(self, plan: Plan) -> list[Cell]:
        def cell(seed: int, guide: str, place: str, step: int) -> Cell:
            return Cell(
                {"guide": guide, "place": place, "step": step, "seed": seed},
                _measure,
                needs=(fractal_networks.main(plan, seed), *_networks(plan, seed, guide)),
                cost=plan.pick(0.6, 0.2),
            )

        return [
            cell(seed, guide, place, step)
            for seed in plan.seed_range
            for guide in _GUIDES
            for place in _PLACES
            for step in _STEPS
        ]

    def numbers(self, rows: Rows) -> Mapping[str, Interval]:
        columns = ("cosine", "mean_cosine", "places", "along", "best_weight", "remaining", "shortened", "shortened_at")
        found = {}
        for guide in _GUIDES:
            for column in columns:
                found[f"{column}_{guide}"] = interval(_at_low_noise(rows, column, guide))
            for place in _PLACES:
                if place != "data":
                    found[f"shortened_{guide}_{place}"] = interval(_at_low_noise(rows, "shortened", guide, place))
                # Where the outliers are.
                tail = _at_low_noise(rows, "shortened_tail", guide, place)
                found[f"shortened_tail_{guide}_{place}"] = interval(tail)
        return found

    def sheets(self, rows: Rows, workshop: Workshop) -> list[Sheet]:
        sigma = {step: rows.where(step=step)[0]["sigma"] for step in _STEPS}

        def line(label: str, column: str, guide: str, place: str = "data", **look: Any) -> Series:
            return series(
                label,
                [(sigma[step], rows.over_seeds(column, guide=guide, place=place, step=step)) for step in _STEPS],
                **look,
            )

        def chart(title: str, y_label: str, lines: Sequence[Series], *marks: Mark, y_scale: str = "linear") -> Chart:
            return Chart(title, "noise level σ", y_label, lines, marks, x_scale="log", y_scale=y_scale)

        def each(column: str) -> list[Series]:
            return [line(label, column, guide, colour=i) for i, (guide, label) in enumerate(_GUIDES.items())]

        def shares(title: str, lines: Sequence[Series]) -> Chart:
            return chart(title, "share of the points", lines, Mark("half", y=0.5))

        sizes = [*each("guide_size"), line("the main network", "main_size", "weak", colour=len(_GUIDES))]
        quartiles = [line(text, f"best_weight_{q}", "weak") for q, text in _QUARTILES.items()]
        pooled = line("pooled", "best_weight", "weak", style="dashed")
        return [
            Sheet(
                "errors",
                [
                    chart("Size", "root mean square error", sizes, y_scale="log"),
                    chart("Direction", "cosine with the main error", each("mean_cosine"), Mark("unrelated", y=0)),
                    chart("Part along the main error", "pooled", each("along"), Mark("the main error", y=1)),
                    chart("Places", "rank correlation of the lengths", each("places"), Mark("unrelated", y=0)),
                ],
                "On diffused data: the sizes of the denoisers' errors; the cosine between a guide's error and the main "
                "network's, the mean over the points; the part of it along the main one, above 1 where guidance can "
                "help; and how far both are large in the same places. Means and 95 % intervals over the seeds.",
                columns=2,
            ),
            Sheet(
                "weights",
                [
                    chart("Best weight", "pooled best weight", each("best_weight"), Mark("unguided", y=1)),
                    chart("Best weight of each point", "best weight", [*quartiles, pooled], Mark("unguided", y=1)),
                    chart("What is left at it", "remaining / unguided error", each("remaining")),
                ],
                "On diffused data: the weight of the least mean squared error, for each guide; the quartiles of the "
                "points' best weights, for the weak network; and the error that is left at the pooled best weight, as "
                "a share of the unguided one.",
            ),
            Sheet(
                "shares",
                [
                    shares("Any guidance", each("shortened")),
                    shares("At the paper's weight", each("shortened_at")),
                    *(
                        shares(f"By {text}", [line(_PLACES[p], "shortened", guide, p) for p in _PLACES])
                        for guide, text in (("weak", "a weak network"), ("uncond", "the unconditional one"))
                    ),
                    shares(
                        "By a weak network: regions",
                        [line(r.name.lower(), f"shortened_{r.name.lower()}", "weak") for r in Region],
                    ),
                    shares("By a weak network: depth", [line(d, f"shortened_{d}", "weak") for d in _DEPTHS]),
                ],
                "The share of the points at which guidance shortens the error: with a weight just above 1, and with "
                "the paper's (3 for autoguidance, 4 for CFG), on diffused data; at the points that runs visit; and on "
                "diffused data by the region of the exact field, and by the branches that the points come from.",
                columns=3,
            ),
        ]


_QUARTILES = {"low": "lower quartile", "median": "median", "high": "upper quartile"}


def _networks(plan: Plan, seed: int, guide: str) -> tuple[TrainSettings, ...]:
    """The networks that a guide is made of."""
    if guide == "uncond":
        return (fractal_networks.uncond(plan, seed),)
    return fractal_networks.weak_ensemble(plan, seed, _MEMBERS if guide == "mean" else 1)


def _guided(plan: Plan, seed: int, guide: str) -> Experiment:
    """The run with a guide."""
    names = [trained(network) for network in _networks(plan, seed, guide)]
    settings: dict[str, Any] = {"rule": "cfg" if guide == "uncond" else "autoguidance"}
    if guide == "mean":
        settings["weak"] = f"mean({', '.join(names)})"
    return fractal_networks.experiment(plan, seed, params={"w": _WEIGHTS[guide]}, **settings)


def _measure(workshop: Workshop, guide: str, place: str, step: int, seed: int) -> dict[str, float]:
    """The errors' alignment at a run's level: of all points, and parts of it by region and by depth."""
    plan = workshop.plan
    e = _guided(plan, seed, guide)
    sigma = float(e.levels()[step])
    x = _points(workshop, e, place, step).double()
    exact = e.data.field(e.label)
    main, other = (denoising_errors(field, exact, x, sigma) for field in workshop.fields(e).values())
    whole = alignment(main, other, _WEIGHTS[guide])
    found = {k: v for k, v in vars(whole).items() if isinstance(v, float)}
    found |= {f"best_weight_{k}": v for k, v in zip(_QUARTILES, whole.best_weights, strict=True)}
    found |= {"sigma": sigma, "places": _rank_correlation(main.norm(dim=-1), other.norm(dim=-1))}
    for name, counts in _groups(e.data, e.label, x, sigma).items():
        part = alignment(main, other, _WEIGHTS[guide], counts)
        found[f"share_{name}"] = part.points / whole.points
        found[f"along_{name}"], found[f"shortened_{name}"] = part.along, part.shortened
    return {k: float(f"{v:.6g}") for k, v in found.items()}


def _points(workshop: Workshop, e: Experiment, place: str, step: int) -> Tensor:
    """Diffused data, or where the points of a run are at the beginning of a step."""
    if place == "data":
        sigma = float(e.levels()[step])
        return e.data.field(e.label).sample(e.n, sigma, torch.Generator().manual_seed(e.seed))
    if place == "unguided":
        e = fractal_networks.experiment(workshop.plan, e.seed)
    return next(islice(workshop.located(e).walk(workshop.plan.device), step, None)).x.cpu()


def _groups(data: Dataset, label: str | None, x: Tensor, sigma: float) -> dict[str, Tensor]:
    """How much each point counts in each region and at each depth."""
    found = regions(data.field(label), x, sigma, hdr_threshold(data, label, sigma))
    levels = level_shares(data, label, x, sigma)
    by_region = {region.name.lower(): found == region for region in Region}
    return by_region | {name: levels[:, list(of)].sum(-1) for name, of in _DEPTHS.items()}


def _rank_correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's, over the finite values."""
    from scipy.stats import spearmanr

    finite = a.isfinite() & b.isfinite()
    return float(spearmanr(a[finite].numpy(), b[finite].numpy()).statistic)
