"""The score-matching error of a field, by region and by noise level.

Training averages ``sigma^2 |s_net - s|^2`` over diffused data, so it hardly sees what data hardly reaches: the saddle
region at low noise. Here the same loss is averaged over each region by itself, also over points put between the classes
on purpose (:func:`edge_points`).

References:
    Yeats et al., Saddle-Free Guidance, 2025, arXiv 2511.21863 (the loss is highest in saddle regions and improves least
    with the network's size; their points and regions are not public, these are ours).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from toyguide.datasets import Dataset
from toyguide.errors import InputError
from toyguide.fields import Field
from toyguide.geometry.regions import Region, regions
from toyguide.metrics.samples import hdr_threshold

__all__ = ["RegionError", "edge_points", "error_at", "score_error"]


@dataclass(frozen=True)
class RegionError:
    """The error in one region at one noise level.

    Attributes:
        sigma: The noise level.
        region: The exact field's region.
        points: How many points fell into it.
        share: Their share of all points.
        loss: The mean of ``sigma^2 |s_net - s|^2`` over them, the training loss' unit; NaN without points.
        relative: ``sqrt(E |s_net - s|^2 / E |s|^2)`` over them; NaN without points.
    """

    sigma: float
    region: Region
    points: int
    share: float
    loss: float
    relative: float


def score_error(
    field: Field, data: Dataset, label: str | None, sigmas: Sequence[float], n: int, seed: int = 0
) -> list[RegionError]:
    """A field's error over the exact diffused points.

    Args:
        field: The field to judge, on the CPU.
        data: The dataset.
        label: The class it should model; None for the union.
        sigmas: The noise levels, positive.
        n: Points at each level.
        seed: Of the points; every level has its own.

    Returns:
        One row for each level and each region, in that order.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for sigma in sigmas:
        rows += error_at(field, data, label, data.field(label).sample(n, sigma, generator), sigma)
    return rows


@torch.no_grad()
def error_at(field: Field, data: Dataset, label: str | None, x: Tensor, sigma: float) -> list[RegionError]:
    """A field's error over given points, computed in float64.

    Args:
        field: The field to judge, on the CPU.
        data: The dataset.
        label: The class it should model; None for the union. Its exact field says which region a point is in.
        x: The points, with shape ``(n, d)``.
        sigma: Their noise level, positive.

    Returns:
        One row for each region.
    """
    x = x.double()
    exact = data.field(label)
    score = exact.score(x, sigma)
    wrong = (field.score(x, sigma) - score).square().sum(-1)
    size = score.square().sum(-1)
    found = regions(exact, x, sigma, hdr_threshold(data, label, sigma))
    rows = []
    for region in Region:
        here = found == region
        error = float(wrong[here].mean())  # NaN without points
        relative = math.sqrt(error / float(size[here].mean()))
        rows.append(
            RegionError(sigma, region, int(here.sum()), float(here.double().mean()), sigma**2 * error, relative)
        )
    return rows


def edge_points(data: Dataset, sigma: float, n: int, seed: int = 0, *, corners: int = 2) -> Tensor:
    """Points between classes: middles of edges, or of triangles, between class means, diffused as data is.

    Not all lie in the saddle region; those that do are in its middle. Exact samples hardly fall there at low noise.

    Args:
        data: The dataset.
        sigma: The noise level, whose noise is added.
        n: How many points.
        seed: Of the choice of classes and of the noise.
        corners: How many different classes each point lies between: 2 for edges, 3 for triangles.

    Returns:
        With shape ``(n, d)``, float64.

    Raises:
        InputError: If there are not as many classes.
    """
    if not 2 <= corners <= len(data.labels):
        raise InputError(f"corners = {corners!r}: expected from 2 to the {len(data.labels)} classes of {data.name}")
    generator = torch.Generator().manual_seed(seed)
    means = torch.stack([data.field(label).mean for label in data.labels])
    order = torch.rand(n, len(means), generator=generator, dtype=torch.float64).argsort(-1)
    middles = means[order[:, :corners]].mean(1)
    return middles + sigma * torch.randn(n, data.dim, generator=generator, dtype=torch.float64)
