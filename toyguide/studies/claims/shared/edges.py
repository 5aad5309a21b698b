"""Points along the edges between classes, where the saddles of the density are."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from toyguide.datasets import Dataset

__all__ = ["edge_data", "merging_sigma"]


def edge_data(data: Dataset, sigma: float, t: float | Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Diffused data of one class, moved by a share t of the way to the mean of another class.

    At t = 0 they are data; at t = 1/2 they surround the middles of edges as data surround the means.

    Args:
        data: The dataset, of two classes or more.
        sigma: The noise level.
        t: The share, a number or one for each point, with shape ``(n,)``.
        n: The number of points; the edge of each is drawn uniformly.
        generator: Generates the edges and the points, on the CPU.

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

    For round Gaussians of equal variance c. With other classes nearby, the modes merge at a lower level.
    """
    a, b = (data.field(label) for label in data.labels[:2])
    return math.sqrt(float((a.mean - b.mean).square().sum()) / 4 - float(a.std[0]) ** 2)
