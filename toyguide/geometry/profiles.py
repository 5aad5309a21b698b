"""Profiles of a field along the straight line (the edge) through two class means, in any dimension.

Between two isotropic Gaussians of equal variance, V with the noise, the midpoint is a saddle of the log-density while
the top eigenvalue there, ``-1/V + |dmu|^2 / (4 V^2)``, is positive. Its eigenvector is parallel to the edge.
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
    """A field at n points on the line through two class means; float64.

    Attributes:
        t: The position on the line, 0 at the first mean and 1 at the second, with shape ``(n,)``.
        x: The points, with shape ``(n, d)``.
        log_density: With shape ``(n,)``; a learned field's is unnormalised.
        top_eigenvalue: The top eigenvalue of the log-density's Hessian, with shape ``(n,)``; it has the unit of
            1 / sigma^2.
        direction: The absolute cosine between its eigenvector and the edge, from 0 to 1, with shape ``(n,)``.
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
        field: The field to evaluate, on the CPU; None for the exact union of all classes.
        n: The number of points, equally spaced; an odd number includes the midpoint, t = 1/2.
        overshoot: How far the line extends beyond each mean, relative to the distance between the means.

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
