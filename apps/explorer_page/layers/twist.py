"""Backgrounds of the guided field's Jacobian: how far it is from being a score at all, and where it gathers.

A score is a gradient and has no curl; a guided one may have, and is then not the score of any density. Both are of the
guided score times sigma^2, so they have no unit; the divergence is divided by the dimension: -1 where nothing of the
data is near, 0 where the field neither gathers nor spreads. A memory is settled at each point, as for the other layers
that look at points where no run has been.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from toyguide import Experiment
from toyguide.geometry import curvature
from toyguide.guidance import Evaluation
from toyguide.guidance.probe import guided_jacobian
from toyguide_apps.explorer_page.layers.densities import PIXELS, Spot, far_from_data
from toyguide_apps.explorer_page.layers.point import SETTLE
from toyguide_apps.explorer_page.runs import scene_of

__all__ = ["CURL_LEVELS", "DIVERGENCE_LEVELS", "curl_and_divergence", "twist_map"]

CURL_LEVELS = (-1.0, -0.3, -0.1, -0.02, 0.02, 0.1, 0.3, 1.0)
"""Steps of sigma^2 times the guided score's curl."""
DIVERGENCE_LEVELS = (-0.9, -0.6, -0.3, -0.05, 0.05, 0.5, 2.0, 8.0)
"""Steps of sigma^2 times the guided score's divergence, over the dimension."""

_GRID = {2: 64}  # points each way, by dimension
_GRID_BEYOND = 24  # in more dimensions
_GRID_SETTLED = 32  # where a memory has to settle at each point


def twist_map(spot: Spot, experiment: Experiment, kind: str) -> tuple[np.ndarray | None, str]:
    """The curl or the divergence of an experiment's guided field in the plane.

    Args:
        spot: Where, at a positive noise level.
        experiment: The run.
        kind: ``curl`` or ``divergence``.

    Returns:
        Which of the steps between the levels each pixel is in, with shape ``(n, n)``, uint8, or None; and then why
        there is nothing to show, else an empty text.
    """
    if experiment.build_rule().interacts:
        return None, "the points of this rule affect each other, so it has no field"
    if experiment.data.dim > 2 and _remembers(experiment):
        return (
            None,
            "the memory of this rule would have to settle at each point, which takes too long beyond two dimensions",
        )
    curl, divergence = curl_and_divergence(spot, experiment)
    coarse, levels = (curl, CURL_LEVELS) if kind == "curl" else (divergence, DIVERGENCE_LEVELS)
    known = coarse.nan_to_num(0.0)[None, None]
    fine = functional.interpolate(known, (PIXELS, PIXELS), mode="bilinear", align_corners=True)
    image = np.digitize(fine[0, 0].cpu().numpy(), levels).astype(np.uint8)
    image[far_from_data(spot)] = len(levels) // 2
    return image, ""


@lru_cache(maxsize=64)
@torch.no_grad()
def curl_and_divergence(spot: Spot, experiment: Experiment) -> tuple[Tensor, Tensor]:
    """sigma^2 times the guided score's curl, and its divergence over the dimension, on a grid of the window.

    The curl is that of ``toyguide.geometry.curvature``: signed in two dimensions, a length in more.

    Returns:
        Each with shape ``(n, n)``, float64.
    """
    rule, scene, dim = experiment.build_rule(), scene_of(experiment, spot.device), experiment.data.dim
    n = _GRID_SETTLED if _remembers(experiment) else _GRID.get(dim, _GRID_BEYOND)
    x = spot.plane.embed(spot.grid(n))
    jacobian = spot.sigma**2 * guided_jacobian(rule, scene, x, spot.sigma, experiment.seed, settle=SETTLE)
    return curvature.curl(jacobian), curvature.divergence(jacobian) / dim


def _remembers(experiment: Experiment) -> bool:
    """Whether the rule has a memory."""
    scene = scene_of(experiment, "cpu")
    at = Evaluation(scene, torch.zeros(1, experiment.data.dim), scene.levels[0])
    return experiment.build_rule().begin(at, torch.Generator())[1] is not None
