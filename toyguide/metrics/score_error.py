"""The score-matching error of a field, by region and by noise level.

Training averages ``sigma^2 |s_net - s|^2`` over diffused data, so regions with little data, such as saddles at low
noise, hardly count. Here the same loss is averaged over each region separately, for diffused data or for points placed
between the classes (:func:`edge_points`).

References:
    Yeats et al., Saddle-Free Guidance, 2025, arXiv 2511.21863 (the loss is highest in saddle regions and improves least
    with the network's size; their points and regions are not public, so these are ours).
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
from toyguide.metrics.exact import hdr_threshold

__all__ = ["RegionError", "edge_points", "error_at", "score_error"]


@dataclass(frozen=True)
class RegionError:
    """The error in one region at one noise level.

    Attributes:
        sigma: The noise level.
        region: The exact field's region.
        points: The number of points in the region.
        share: Their share of all points.
        loss: The mean of ``sigma^2 |s_net - s|^2`` over them, as in the training loss; NaN without points.
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
    """A field's error on exact diffused samples.

    Args:
        field: The field to evaluate, on the CPU.
        data: The dataset.
        label: The class it should model; None for the union.
        sigmas: The noise levels, positive.
        n: The number of points at each level.
        seed: The seed of the points, which differ from level to level.

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
    """A field's error at given points, computed in float64.

    Args:
        field: The field to evaluate, on the CPU.
        data: The dataset.
        label: The class it should model; None for the union. Its exact field determines each point's region.
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
    """Points between classes: centroids of two or more class means, plus noise.

    At low noise exact samples rarely fall between the classes. Not all of these points lie in the saddle region.

    Args:
        data: The dataset.
        sigma: The noise level; noise of this level is added.
        n: The number of points.
        seed: The seed of the choice of classes and of the noise.
        corners: The number of different classes that each point lies between: 2 for edges, 3 for triangles.

    Returns:
        With shape ``(n, d)``, float64.

    Raises:
        InputError: If there are fewer classes than ``corners``.
    """
    if not 2 <= corners <= len(data.labels):
        raise InputError(f"corners = {corners!r}: expected from 2 to the {len(data.labels)} classes of {data.name}")
    generator = torch.Generator().manual_seed(seed)
    means = torch.stack([data.field(label).mean for label in data.labels])
    order = torch.rand(n, len(means), generator=generator, dtype=torch.float64).argsort(-1)
    middles = means[order[:, :corners]].mean(1)
    return middles + sigma * torch.randn(n, data.dim, generator=generator, dtype=torch.float64)
