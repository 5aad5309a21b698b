"""The regions of a density: near a mode, near a saddle, or in the tail.

    SADDLE   the log-density curves upward in some direction: the Hessian's top eigenvalue is positive
    MODE     it does not, and the point lies in the highest-density region
    TAIL     it does not, and the density is lower

The caller passes the threshold, because a learned density is unnormalised. For 99 % of the exact mass it is
``metrics.hdr_threshold(data, label, sigma)``.

Saddle-free guidance depends on the first line alone: its Heaviside step is 1 exactly where its estimate of the top
eigenvalue is positive (Yeats et al. 2025, arXiv 2511.21863).
"""

from __future__ import annotations

from enum import IntEnum

import torch
from torch import Tensor

from toyguide.fields import Field, Sigma, as_points
from toyguide.geometry.curvature import top_eigenpair

__all__ = ["Region", "regions"]


class Region(IntEnum):
    """The region of a point; :func:`regions` returns these numbers."""

    MODE = 0
    SADDLE = 1
    TAIL = 2


def regions(field: Field, x: Tensor, sigma: Sigma, threshold: float | Tensor) -> Tensor:
    """The region of each point.

    Args:
        field: The field whose log-density and Hessian are evaluated.
        x: Points, with shape ``(..., d)``; one that is not finite is in the tail.
        sigma: The noise level, a scalar or broadcasting to ``x.shape[:-1]``.
        threshold: The log-density at the border between mode and tail, of the same shapes.

    Returns:
        The numbers of :class:`Region`, with shape ``(...)``, int64.
    """
    x = as_points(x)
    upward = top_eigenpair(field.hessian(x, sigma))[0] > 0
    dense = field.log_density(x, sigma) >= torch.as_tensor(threshold, dtype=x.dtype, device=x.device)
    found = torch.where(dense, int(Region.MODE), int(Region.TAIL))
    return torch.where(upward, int(Region.SADDLE), found)
