"""Curvature of a log-density: the top eigenpair of its Hessian, and the divergence of its score.

A positive top eigenvalue means that the log-density curves upward along its eigenvector: a saddle between modes. For
a symmetric ``[[a, b], [b, c]]`` with the half difference ``e = (a - c) / 2``,

    lambda = (a + c) / 2 + sqrt(e^2 + b^2),    v = (cos t, sin t),    t = atan2(b, e) / 2

which needs no case for nearly equal eigenvalues. An eigenvector has no sign of its own; :func:`align` gives one.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["align", "align_path", "divergence", "top_eigenpair"]


def top_eigenpair(hessian: Tensor) -> tuple[Tensor, Tensor]:
    """The largest eigenvalue of symmetric matrices, and its unit eigenvector up to sign.

    Args:
        hessian: Symmetric matrices, with shape ``(..., d, d)``.

    Returns:
        The eigenvalues, with shape ``(...)``, and the eigenvectors, with shape ``(..., d)``; NaN for each matrix with
        an entry that is not finite.
    """
    finite = hessian.isfinite().all(-1).all(-1)
    safe = hessian.where(finite[..., None, None], 0.0)
    if hessian.shape[-1] == 2:
        a, b, c = safe[..., 0, 0], (safe[..., 0, 1] + safe[..., 1, 0]) / 2, safe[..., 1, 1]
        half = (a - c) / 2
        value = (a + c) / 2 + torch.hypot(half, b)
        angle = torch.atan2(b, half) / 2
        vector = torch.stack([angle.cos(), angle.sin()], -1)
    else:
        values, vectors = torch.linalg.eigh(safe)
        value, vector = values[..., -1], vectors[..., -1]
    return value.where(finite, torch.nan), vector.where(finite[..., None], torch.nan)


def align(vectors: Tensor, reference: Tensor) -> Tensor:
    """Vectors turned around where they point away from a reference: one direction for a grid, or one per vector.

    Args:
        vectors: With shape ``(..., d)``.
        reference: Broadcasts to ``vectors``.
    """
    return vectors.where((vectors * reference).sum(-1, keepdim=True) >= 0, -vectors)


def align_path(vectors: Tensor) -> Tensor:
    """Vectors along paths, each turned to its predecessor's side; the first of each path stays.

    Args:
        vectors: With shape ``(steps, ..., d)``.
    """
    turned = (vectors[1:] * vectors[:-1]).sum(-1, keepdim=True) < 0
    odd = torch.cat([torch.zeros_like(vectors[:1, ..., :1]), turned.cumsum(0) % 2]) == 1
    return vectors.where(~odd, -vectors)


def divergence(jacobian: Tensor) -> Tensor:
    """The trace of a vector field's Jacobian, with shape ``(...)``; of a score, the Laplacian of the log-density."""
    return jacobian.diagonal(dim1=-2, dim2=-1).sum(-1)
