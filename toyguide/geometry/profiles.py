"""Edges as curves: what lies along the straight line through two class means, in any dimension.

Between two round Gaussians of equal variance, V with the noise, the log-density's saddle lies in the middle while the
top eigenvalue there, ``-1/V + |dmu|^2 / (4 V^2)``, is positive, and its eigenvector lies along the edge.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from toyguide.datasets import Dataset
from toyguide.errors import InputError
from toyguide.fields import Field
from toyguide.geometry.curvature import top_eigenpair

__all__ = ["EdgeProfile", "edge_profile"]


@dataclass(frozen=True, eq=False)
class EdgeProfile:
    """What lies along the line through two class means; n points, float64.

    Attributes:
        t: The place on the line, 0 at the first mean and 1 at the second, with shape ``(n,)``.
        x: The points, with shape ``(n, d)``.
        log_density: With shape ``(n,)``; a learned field's is unnormalised.
        top_eigenvalue: Of the log-density's Hessian, with shape ``(n,)``; times sigma^2 it has no unit.
        direction: The cosine between its eigenvector and the edge, from 0 to 1, with shape ``(n,)``.
        posterior: The exact probability of each class, in the order of the dataset's labels, with shape
            ``(n, labels)``.
    """

    t: Tensor
    x: Tensor
    log_density: Tensor
    top_eigenvalue: Tensor
    direction: Tensor
    posterior: Tensor


def edge_profile(
    data: Dataset,
    label_a: str,
    label_b: str,
    sigma: float,
    field: Field | None = None,
    n: int = 201,
    overshoot: float = 0.25,
) -> EdgeProfile:
    """A field along the line through the means of two classes.

    Args:
        data: The dataset.
        label_a: The class at t = 0.
        label_b: The class at t = 1.
        sigma: The noise level.
        field: What to look at, on the CPU; None for the exact union of all classes.
        n: How many points, at equal distances; an odd number puts one in the middle, t = 1/2.
        overshoot: How far the line goes on beyond each mean, in lengths of the edge.

    Raises:
        InputError: If there is no such class, or the two have the same mean.
    """
    a, b = data.field(label_a).mean, data.field(label_b).mean
    if torch.equal(a, b):
        raise InputError(f"edge from {label_a!r} to {label_b!r}: their means are the same, expected two different ones")
    field = data.field() if field is None else field
    t = torch.linspace(-overshoot, 1 + overshoot, n, dtype=torch.float64)
    x = torch.lerp(a, b, t[:, None])
    with torch.no_grad():
        value, vector = top_eigenpair(field.hessian(x, sigma))
        cosine = vector @ ((b - a) / (b - a).norm())
        return EdgeProfile(t, x, field.log_density(x, sigma), value, cosine.abs(), data.posterior(x, sigma))
