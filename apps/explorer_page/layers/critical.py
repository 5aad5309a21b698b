"""The critical points of a density as marks in the plane.

A search takes a second or more, so it runs in a thread of its own: a picture first comes without the marks, and again
with them. Results are cached and shared.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch
from cachetools import LRUCache
from torch import Tensor

from toyguide.datasets import load_dataset
from toyguide.fields import Field, Sigma
from toyguide.fields.networks import EnergyMLP
from toyguide.geometry.critical import CriticalPoints, critical_points, starting_points
from toyguide_apps.explorer_page.layers.densities import Spot
from toyguide_apps.explorer_page.runs import CancelledError, field

__all__ = ["Critical", "critical_at_hand", "find_critical"]

STARTS = 48
"""Samples that a search starts from, in addition to a grid."""
_GRID = {2: 4}  # starting points of the grid, each way, by dimension
_GRID_BEYOND = 3
_NEAR = 0.08  # of the window's width: largest distance from the plane at which a critical point is shown
_GAP, _REACH = 0.013, 0.036  # of the window's width: from where to where an unstable direction is drawn


@dataclass(frozen=True, eq=False)
class Critical:
    """Critical points in the plane.

    Attributes:
        x: First coordinates, with shape ``(m,)``, float32.
        y: Second coordinates.
        index: Morse indices, with shape ``(m,)``, uint8: 0 is a mode.
        strokes: The unstable directions of what is neither mode nor minimum, on both sides of each: start and end, as
            ``x0, y0, x1, y1``, with shape ``(4, k)``, float32.
        beyond: How many others were found too far from the plane.
    """

    x: np.ndarray
    y: np.ndarray
    index: np.ndarray
    strokes: np.ndarray
    beyond: int


_found: LRUCache[tuple[Spot, str], Critical] = LRUCache(128)
_found_lock = Lock()


def critical_at_hand(spot: Spot, reference: str) -> Critical | None:
    """The cached result of an earlier search."""
    with _found_lock:
        return _found.get((spot, reference))


def find_critical(spot: Spot, reference: str, cancelled: Callable[[], bool] = lambda: False) -> Critical:
    """Search for the critical points of a field, and cache them.

    Args:
        spot: Where; the search starts inside its window.
        reference: The field.
        cancelled: Called before every evaluation.

    Raises:
        CancelledError: Once ``cancelled()`` is true.
    """
    known = critical_at_hand(spot, reference)
    if known is None:
        found = field(reference, spot.dataset, spot.label, "main", "cpu")
        # A network caches its weights for the last dtype; a copy does not disturb the pictures' thread.
        own = copy.copy(found) if isinstance(found, EnergyMLP) else found
        known = _marks(spot, critical_points(_Watched(own, cancelled), spot.sigma, _starts(spot)))
        with _found_lock:
            _found[spot, reference] = known
    return known


class _Watched(Field):
    """A field that raises ``CancelledError`` once the result is no longer wanted."""

    def __init__(self, field: Field, cancelled: Callable[[], bool]) -> None:
        self.field, self.dim, self._cancelled = field, field.dim, cancelled

    def _wanted(self) -> Field:
        if self._cancelled():
            raise CancelledError
        return self.field

    def log_density(self, x: Tensor, sigma: Sigma) -> Tensor:
        return self._wanted().log_density(x, sigma)

    def score(self, x: Tensor, sigma: Sigma) -> Tensor:
        return self._wanted().score(x, sigma)

    def hessian(self, x: Tensor, sigma: Sigma) -> Tensor:
        return self._wanted().hessian(x, sigma)


def _starts(spot: Spot) -> Tensor:
    """Points inside the window, in the plane: a grid, and in two dimensions where the data's parts and samples are."""
    data = load_dataset(spot.dataset)
    left, bottom, right, top = spot.window
    n = _GRID.get(data.dim, _GRID_BEYOND)
    shares = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    grid = torch.cartesian_prod(left + shares * (right - left), bottom + shares * (top - bottom))
    if data.dim > 2:
        corners = spot.plane.project(spot.corners)
        middles = (corners + corners.roll(1, 0)) / 2
        return spot.plane.embed(torch.cat([corners, middles, corners.mean(0, keepdim=True), grid]))
    points = starting_points(data, spot.label, spot.sigma, 40 * STARTS)
    low, high = torch.tensor([left, bottom]), torch.tensor([right, top])
    inside = ((points > low) & (points < high)).all(-1)
    return torch.cat([points[inside][:STARTS], grid])


def _marks(spot: Spot, points: CriticalPoints) -> Critical:
    surface = spot.plane
    at = surface.project(points.x)
    near = (points.x - surface.embed(at)).norm(dim=-1) <= _NEAR * spot.size
    strokes = []
    for i in near.nonzero()[:, 0].tolist():
        index = int(points.index[i])
        for v in points.eigenvectors[i, :index] if index < points.x.shape[1] else ():
            along = spot.size * surface.project_vectors(v)
            strokes += [torch.cat([at[i] + s * _GAP * along, at[i] + s * _REACH * along]) for s in (-1, 1)]
    marks = at[near].float().numpy()
    return Critical(
        x=marks[:, 0].copy(),
        y=marks[:, 1].copy(),
        index=points.index[near].numpy().astype(np.uint8),
        strokes=(torch.stack(strokes, 1) if strokes else torch.zeros(4, 0)).float().numpy(),
        beyond=int((~near).sum()),
    )
