"""Contour levels that are comparable between densities: the borders of highest-density regions.

The highest-density region of share q is the smallest set with probability q; its border is a contour of the density.
On a grid of equal cells the level is found by sorting the densities in falling order and summing until the sum reaches
q. Sums are divided by their total, so the levels of a learned field, whose density is unnormalised, are comparable with
the exact ones.

References:
    Hyndman, Computing and Graphing Highest Density Regions, The American Statistician 50(2), 1996.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from toyguide.errors import InputError
from toyguide.fields import Field
from toyguide.geometry.planes import Plane, Window

__all__ = ["BAND_SHARES", "LINE_SHARES", "RATIO_LEVELS", "in_chunks", "log_density_levels", "region_levels"]

BAND_SHARES = (0.999, 0.99, 0.95, 0.85, 0.7, 0.5, 0.25)
"""Shares held by the bands of a density that is drawn, from the outermost in."""
LINE_SHARES = (0.99, 0.8, 0.5)
"""Shares held inside its level lines."""
RATIO_LEVELS = (-3.0, -1.5, -0.5, -0.1, 0.1, 0.5, 1.5, 3.0)
"""Steps of the bands of a log-ratio of two densities."""

_CHUNK = 1 << 14  # points; bounds a network's memory on large grids
_REACH = 4.0  # units of sigma around the data; less than 0.1 % of the mass lies further out


def in_chunks(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Evaluates ``function`` at points with shape ``(..., d)``, in chunks of bounded size and without gradients."""
    with torch.no_grad():
        parts = [function(part) for part in x.reshape(-1, x.shape[-1]).split(_CHUNK)]
    joined = torch.cat(parts)
    return joined.reshape(*x.shape[:-1], *joined.shape[1:])


def region_levels(log_density: Tensor, shares: Sequence[float]) -> Tensor:
    """The log-density at the borders of highest-density regions.

    Args:
        log_density: The log-density, normalised or not, on a grid of equal cells that covers practically all the
            mass; of any shape. Cells that are not finite count as empty.
        shares: The probability inside each region, each above 0 and below 1.

    Returns:
        The levels in the order of ``shares``, with shape ``(len(shares),)``; NaN where nothing is finite.
    """
    for share in shares:
        if not 0 < share < 1:
            raise InputError(f"share {share!r}: expected more than 0 and less than 1")
    falling = log_density[log_density.isfinite()].sort(descending=True).values
    if not len(falling):
        return log_density.new_full((len(shares),), torch.nan)
    inside = (falling - falling[0]).double().exp().cumsum(0)
    wanted = torch.tensor(shares, dtype=inside.dtype, device=inside.device) * inside[-1]
    return falling[torch.searchsorted(inside, wanted).clamp(max=len(falling) - 1)]


def log_density_levels(
    field: Field,
    sigma: float,
    shares: Sequence[float],
    plane: Plane,
    window: Window,
    n: int = 160,
    device: torch.device | str = "cpu",
) -> Tensor:
    """The log-density of a field at the borders of its highest-density regions in a plane.

    In more than two dimensions a region's share is relative to the density restricted to the plane.

    Args:
        field: An exact or a learned field.
        sigma: The noise level.
        shares: The probability inside each region.
        plane: The plane.
        window: Where the data lies; the grid extends beyond it by a few noise levels.
        n: Grid points along each axis.
        device: Where to evaluate.

    Returns:
        The levels in the order of ``shares``, float32, with shape ``(len(shares),)``.
    """
    uv = window.grown(_REACH * sigma).grid(n, device=device)
    return region_levels(in_chunks(lambda x: field.log_density(x, sigma), plane.embed(uv)), shares)
