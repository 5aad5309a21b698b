"""Whether the directions of positive curvature of the log-density are those of a classifier's gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from toyguide.datasets import Dataset, load_dataset
from toyguide.fields import Field
from toyguide.fields.mixtures import GaussianMixture
from toyguide.geometry.curvature import top_eigenpair
from toyguide.studies.base import Cell, Criterion, Plan, Study
from toyguide.studies.charts import Chart, Map, Mark, Series, Sheet, Strokes, series
from toyguide.studies.claims.shared.edges import edge_data, merging_sigma
from toyguide.studies.rows import Interval, Rows
from toyguide.studies.workshop import Workshop
from toyguide.training import TrainSettings

_PAIR = "two-gaussians"
_BELOW = (0.1, 0.25, 0.5, 0.75, 0.9)  # in units of the level at which the two modes merge
_ABOVE = (1.1, 1.5)
_DRAWN = 0.5
_LABELS = {"exact": "exact field", "network": "networks"}
_OTHERS = {"simplex16": (0.2, 0.4), "fractal": (0.03, 0.1, 0.3)}  # noise levels
_UNEQUAL = "unequal"  # the two Gaussians' means with other covariances
_ROUND = 0.05  # the variance of one of them
_OBLIQUE = ((0.11, 0.09), (0.09, 0.11))  # of the other one: 0.2 along a diagonal, 0.02 across


def _worst(rows: Rows, data: str, field: str = "exact") -> list[float]:
    """Each seed's mean absolute cosine at the level where it is least."""
    levels = [rows.per_seed("cosine", data=data, field=field, level=level) for level in _OTHERS.get(data, _BELOW)]
    return [min(each) if all(map(math.isfinite, each)) else math.nan for each in zip(*levels, strict=True)]


class SfgCurvatureIsTheClassifier(Study):
    """See the module's text."""

    name = "sfg-curvature-is-the-classifier"
    title = "Positive curvature points where a classifier does"
    statement = (
        "The eigenvector of positive curvature of the union's log-density is the direction of a classifier's gradient: "
        "with networks between two Gaussians, where covariances differ, and on the fractal."
    )
    source = "Yeats et al. 2025, arXiv 2511.21863, the two-dimensional Gaussian separation problem (read in a review)"
    setting = (
        "Two round Gaussians at (±1, 0) with variance 0.05, one for each class; the paper's settings are not public. "
        "The points are diffused data moved by a random share along the line between the means, at five noise levels "
        "from a tenth to nine tenths of the level at which the two modes merge. Where the top eigenvalue of a field's "
        "own Hessian is positive, its eigenvector is compared with the exact gradient of log p(left|x)/p(right|x): "
        "the mean absolute cosine is 1 if they are parallel and 0.64 for random directions in the plane. With equal "
        "covariances the claim is an identity of the exact field, whose Hessian is p q g g' less a multiple of the "
        "identity matrix, g the classifier's gradient: this is shown and not judged. Judged are networks of the union "
        "(width 64, without labels), trained anew for each seed; exact fields with the same means and unequal "
        "covariances, one of them oblique (variances 0.2 and 0.02); and the exact fractal, which goes beyond the "
        "paper's problem. The 16-simplex is shown too. The criteria were settled on seeds 0 to 9 and are judged on "
        "seeds from 100 on."
    )
    finding = (
        "For equal covariances it is an identity. For unequal ones it nearly holds (cosine .98); on the "
        "fractal it does not (.72 to .85)."
    )
    order = 13
    criteria = (
        Criterion(
            "networks",
            "On networks trained without labels the mean absolute cosine is 0.9 or more at every noise level (the "
            "least of the levels)",
            lambda rows: _worst(rows, _PAIR, "network"),
            at_least=0.9,
        ),
        Criterion(
            "unequal",
            "On exact fields of unequal covariances it is 0.9 or more at every noise level",
            lambda rows: _worst(rows, _UNEQUAL),
            at_least=0.9,
        ),
        Criterion(
            "fractal",
            "On the exact fractal it is 0.9 or more at every noise level",
            lambda rows: _worst(rows, "fractal"),
            at_least=0.9,
        ),
    )

    def cells(self, plan: Plan) -> list[Cell]:
        def pair(seed: int, data: str, field: str, level: float) -> Cell:
            needs = () if field == "exact" else (_network(plan, seed),)
            return Cell({"data": data, "field": field, "level": level, "seed": seed}, _measure_pair, needs=needs)

        def other(seed: int, name: str, sigma: float) -> Cell:
            return Cell({"data": name, "field": "exact", "level": sigma, "seed": seed}, _measure_other)

        return [
            *(pair(s, _PAIR, f, level) for s in plan.seed_range for f in _LABELS for level in _BELOW + _ABOVE),
            *(pair(s, _UNEQUAL, "exact", level) for s in plan.seed_range for level in _BELOW),
            *(other(s, name, sigma) for s in plan.seed_range for name, levels in _OTHERS.items() for sigma in levels),
        ]

    def numbers(self, rows: Rows) -> Mapping[str, Interval]:
        found = {}
        for field, data in (("exact", _PAIR), ("network", _PAIR), ("unequal", _UNEQUAL)):
            for level in _BELOW:
                key = {"data": data, "field": "network" if field == "network" else "exact", "level": level}
                found[f"cosine_{field}_{level:g}"] = rows.over_seeds("cosine", **key)
                found[f"positive_{field}_{level:g}"] = rows.over_seeds("positive", **key)
        for level in _BELOW:
            key = {"data": _PAIR, "field": "network", "level": level}
            found[f"same_sign_{level:g}"] = rows.over_seeds("same_sign", **key)
        for name, levels in _OTHERS.items():
            for sigma in levels:
                key = {"data": name, "level": sigma}
                found[f"cosine_{name}_sigma_{sigma:g}"] = rows.over_seeds("cosine", **key)
                found[f"positive_{name}_sigma_{sigma:g}"] = rows.over_seeds("positive", **key)
        return found

    def sheets(self, rows: Rows, workshop: Workshop) -> list[Sheet]:
        data = load_dataset(_PAIR)
        sigma = _DRAWN * merging_sigma(data)
        network = workshop.network(_network(workshop.plan, workshop.plan.first_seed))
        labels = {(_PAIR, f): label for f, label in _LABELS.items()} | {(_UNEQUAL, "exact"): "unequal covariances"}

        def chart(title: str, y_label: str, column: str, levels: tuple[float, ...]) -> Chart:
            lines = [
                series(label, [(x, rows.over_seeds(column, data=d, field=f, level=x)) for x in levels], colour=i)
                for i, ((d, f), label) in enumerate(labels.items())
                if d == _PAIR or levels == _BELOW
            ]
            if column == "cosine":
                ends = [min(levels), max(levels)]
                lines.append(Series("random directions", ends, [2 / math.pi] * 2, style="dashed", colour=3))
            marks = [Mark("the modes merge", x=1.0)] if max(levels) > 1 else []
            return Chart(title, "noise level, in units of σ*", y_label, lines, marks, y_range=(0, 1.05))

        return [
            Sheet(
                "directions",
                [
                    _map(f"Exact field, σ = {sigma:.2f}", data.field(), data, sigma),
                    _map(f"One network, σ = {sigma:.2f}", network, data, sigma),
                    _map(f"Unequal covariances, exact, σ = {sigma:.2f}", _unequal().field(), _unequal(), sigma),
                ],
                "The top eigenvalue of the log-density's Hessian, times sigma². Where it is positive: its eigenvector "
                "(lines) over the gradient of log p(left|x)/p(right|x) (arrows).",
            ),
            Sheet(
                "levels",
                [
                    chart("Between eigenvector and classifier", "mean absolute cosine", "cosine", _BELOW),
                    chart("Where the curvature is positive", "share of the points", "positive", _BELOW + _ABOVE),
                ],
                "Mean absolute cosine between eigenvector and classifier's gradient where the curvature is positive, "
                "and how many points that is, over the noise level in units of the level σ* at which the two modes "
                "merge; means and 95 % intervals over the seeds.",
            ),
        ]


def _measure_pair(workshop: Workshop, data: str, field: str, level: float, seed: int) -> Mapping[str, float]:
    """Compare curvature and classifier between two Gaussians; the level is in units of the round pair's merging one."""
    pair, n = _unequal() if data == _UNEQUAL else load_dataset(data), workshop.plan.n
    sigma, generator = level * merging_sigma(load_dataset(_PAIR)), torch.Generator().manual_seed(seed)
    x = edge_data(pair, sigma, torch.rand(n, generator=generator), n, generator)
    judged = pair.field() if field == "exact" else workshop.network(_network(workshop.plan, seed))
    return {"sigma": sigma, **_compared(judged, pair, x, sigma)}


def _measure_other(workshop: Workshop, data: str, field: str, level: float, seed: int) -> Mapping[str, float]:
    """Compare them on another dataset's exact field and data; the level is a noise level."""
    other = load_dataset(data)
    x = other.field().sample(workshop.plan.n, level, torch.Generator().manual_seed(seed))
    return {"sigma": level, **_compared(other.field(), other, x, level)}


def _unequal() -> Dataset:
    """The two Gaussians with the same means and other covariances."""
    pair = load_dataset(_PAIR)
    covariances = torch.stack([_ROUND * torch.eye(2, dtype=torch.float64), torch.tensor(_OBLIQUE, dtype=torch.float64)])
    mixture = GaussianMixture(torch.ones(2), torch.stack([pair.field(k).mean for k in pair.labels]), covariances)
    return replace(pair, components=replace(pair.components, mixture=mixture), _fields={})


def _network(plan: Plan, seed: int) -> TrainSettings:
    return TrainSettings(_PAIR, None, width=64, iterations=plan.pick(1024, 512), batch=1024, seed=seed)


def classifier_gradient(data: Dataset, x: Tensor, sigma: float) -> Tensor:
    """The exact gradient of ``log p(a|x)/p(b|x)`` for the two most probable classes of each point, with shape (n, d).

    The sum rule for the union's Hessian has it as its direction: ``p H_a + q H_b + p q g g'``, for two classes with
    the probabilities p and q and the gradient g.
    """
    best = data.posterior(x, sigma).topk(2).indices
    scores = torch.stack([data.field(label).score(x, sigma) for label in data.labels], 1)
    a, b = (scores.gather(1, k[:, None, None].expand(-1, 1, data.dim))[:, 0] for k in best.T)
    return a - b


@torch.no_grad()
def _compared(field: Field, data: Dataset, x: Tensor, sigma: float) -> dict[str, float]:
    """Compare a field's positive curvature with the exact classifier at some points.

    Returns:
        ``positive``: the share of the points where the field's top eigenvalue is positive. ``cosine``: the mean
        absolute cosine between its eigenvector and the classifier's gradient over those; NaN without any.
        ``same_sign``: the share of points at which the exact top eigenvalue has the same sign.
    """
    value, vector = top_eigenpair(field.hessian(x, sigma))
    exact = top_eigenpair(data.field().hessian(x, sigma))[0]
    cosine = torch.nn.functional.cosine_similarity(vector, classifier_gradient(data, x, sigma), dim=-1).abs()
    on = value > 0
    return {
        "positive": float(on.double().mean()),
        "cosine": float(cosine[on].mean()),
        "same_sign": float((on == (exact > 0)).double().mean()),
    }


@torch.no_grad()
def _map(title: str, field: Field, data: Dataset, sigma: float) -> Map:
    left, bottom, right, top = window = (-1.5, -1.5, 1.5, 1.5)

    def grid(columns: int, margin: float) -> Tensor:
        x = torch.linspace(left + margin, right - margin, columns, dtype=torch.float64)
        y = torch.linspace(bottom + margin, top - margin, columns, dtype=torch.float64)
        return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)

    values = sigma**2 * top_eigenpair(field.hessian(grid(121, 0.0), sigma))[0]
    places = grid(14, 0.2).flatten(0, 1)
    value, vector = top_eigenpair(field.hessian(places, sigma))
    on = value > 0
    gradient = torch.nn.functional.normalize(classifier_gradient(data, places, sigma), dim=-1)
    strokes = [
        Strokes("classifier's gradient", places[on] - 0.08 * gradient[on], 0.16 * gradient[on], colour=1),
        Strokes("eigenvector", places[on], 0.16 * vector[on], signed=False, colour=0),
    ]
    return Map(title, window, values, "top eigenvalue · σ²", diverging=True, strokes=strokes)
