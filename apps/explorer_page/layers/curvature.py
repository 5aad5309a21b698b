"""Backgrounds of curvature: the Hessian's top eigenvalue, the regions by its sign, and SFG's approximation error.

They are evaluated on a coarse grid, since a Hessian costs as much as several scores, and interpolated.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from toyguide.datasets import load_dataset
from toyguide.fields import Field
from toyguide.geometry.curvature import top_eigenpair
from toyguide.geometry.regions import Region
from toyguide.guidance.sfg_diagnostics import product_error
from toyguide.metrics import hdr_threshold
from toyguide_apps.explorer_page.layers.densities import PIXELS, Spot, log_density

__all__ = [
    "CURVATURE_LEVELS",
    "ERROR_LEVELS",
    "curvature",
    "product_errors",
    "region_map",
    "tail_level",
    "top_curvature",
]

CURVATURE_LEVELS = (-0.9, -0.6, -0.3, -0.05, 0.05, 0.5, 2.0, 8.0)
"""Steps of sigma^2 times the top eigenvalue: -1 where nothing of the data is near, 0 where the density is flat."""
ERROR_LEVELS = (1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
"""Steps of the finite-difference product's relative error."""

_GRID = {2: 96}  # points each way, by dimension
_GRID_BEYOND = 40  # in more dimensions
_TYPICAL = 1 << 14  # exact samples behind a learned field's tail


@lru_cache(maxsize=64)
@torch.no_grad()
def _pairs(spot: Spot, reference: str) -> tuple[Tensor, Tensor, Tensor]:
    """Points of a grid in space, sigma^2 times the top eigenvalue there, and its eigenvector."""
    x = spot.plane.embed(spot.grid(_GRID.get(load_dataset(spot.dataset).dim, _GRID_BEYOND)))
    values, vectors = top_eigenpair(spot.field(reference).hessian(x, spot.sigma))
    return x, spot.sigma**2 * values, vectors


@lru_cache(maxsize=64)
def top_curvature(spot: Spot, reference: str) -> np.ndarray:
    """sigma^2 times the top eigenvalue at every pixel, with shape ``(n, n)``, float64."""
    return _fine(_pairs(spot, reference)[1])


def curvature(spot: Spot, reference: str) -> np.ndarray:
    """Which of the steps between ``CURVATURE_LEVELS`` each pixel is in, with shape ``(n, n)``, uint8."""
    return np.digitize(top_curvature(spot, reference), CURVATURE_LEVELS).astype(np.uint8)


@lru_cache(maxsize=64)
def region_map(spot: Spot, reference: str) -> np.ndarray:
    """The :class:`Region` of each pixel, as the library defines them, with shape ``(n, n)``, uint8."""
    dense = log_density(spot, reference, "main") >= tail_level(spot, reference)
    image = np.where(dense, np.uint8(Region.MODE), np.uint8(Region.TAIL))
    image[top_curvature(spot, reference) > 0] = Region.SADDLE
    return image


@lru_cache(maxsize=256)
@torch.no_grad()
def tail_level(spot: Spot, reference: str) -> float:
    """The log-density that 99 % of the exact samples lie above at the spot's noise level, in a field's own units."""
    data = load_dataset(spot.dataset)
    if reference == "exact":
        return float(hdr_threshold(data, spot.label, spot.sigma))
    x = data.field(spot.label).sample(_TYPICAL, spot.sigma, torch.Generator().manual_seed(0)).float().to(spot.device)
    return float(spot.field(reference).log_density(x, spot.sigma).double().quantile(0.01))


@lru_cache(maxsize=64)
@torch.no_grad()
def product_errors(spot: Spot, reference: str, h: float) -> np.ndarray:
    """The relative error of SFG's finite-difference product along the top eigenvector v.

    Returns:
        Which of the steps between ``ERROR_LEVELS`` each pixel is in, with shape ``(n, n)``, uint8.
    """
    x, _, v = _pairs(spot, reference)
    field: Field = spot.field(reference)
    error = product_error(field, x.flatten(0, 1), spot.sigma, v.flatten(0, 1), [h])[0].reshape(x.shape[:-1])
    # Steep where the product vanishes: straight lines between the points do not overshoot there.
    coarse = error.nan_to_num(0.0).clamp(1e-8, 1e8).log10()[None, None]
    fine = functional.interpolate(coarse, (PIXELS, PIXELS), mode="bilinear", align_corners=True)
    return np.digitize(fine[0, 0].cpu().numpy(), np.log10(ERROR_LEVELS)).astype(np.uint8)


def _fine(values: Tensor) -> np.ndarray:
    """Values on the coarse grid, smooth between its points."""
    from scipy.interpolate import RectBivariateSpline

    known = values.nan_to_num(0.0).double().cpu().numpy()
    at, pixels = np.linspace(0, 1, len(known)), np.linspace(0, 1, PIXELS)
    return RectBivariateSpline(at, at, known)(pixels, pixels)
