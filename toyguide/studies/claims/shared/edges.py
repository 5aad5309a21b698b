"""Points along the edges between classes, for the studies that look at the saddles there."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from toyguide.datasets import Dataset

__all__ = ["edge_data", "merging_sigma"]


def edge_data(data: Dataset, sigma: float, t: float | Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Diffused data of one class, moved a share of the way along the edge to another class' mean.

    At t = 0 it is data; at t = 1/2 it lies around the middles of edges as data lies around the means.

    Args:
        data: The dataset, of two classes or more.
        sigma: The noise level.
        t: The share, one for all points or one for each, with shape ``(n,)``.
        n: How many points; each has an edge of its own, all as likely.
        generator: Of the edges and the points, on the CPU.

    Returns:
        With shape ``(n, d)``, float64.
    """
    fields = [data.field(label) for label in data.labels]
    means = torch.stack([f.mean for f in fields])
    first, second = torch.rand(n, len(fields), generator=generator, dtype=torch.float64).argsort(-1)[:, :2].T
    x = torch.empty(n, data.dim, dtype=torch.float64)
    for k, exact in enumerate(fields):
        here = first == k
        if here.any():
            x[here] = exact.sample(int(here.sum()), sigma, generator)
    share = torch.as_tensor(t, dtype=torch.float64).expand(n)[:, None]
    return x + share * (means[second] - means[first])


def merging_sigma(data: Dataset) -> float:
    """The noise level at which the first two classes alone become one mode: ``sigma^2 + c = |dmu|^2 / 4``.

    For round Gaussians of one variance c. Where there are others about, the middle of an edge fills up sooner.
    """
    a, b = (data.field(label) for label in data.labels[:2])
    return math.sqrt(float((a.mean - b.mean).square().sum()) / 4 - float(a.std[0]) ** 2)
