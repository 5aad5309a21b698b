"""What a rule does to the main field's error: in the plane at one noise level, and over the noise levels.

The error is that of the denoised point, against the exact field of the sampled class; the push is what the rule adds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from toyguide import Experiment
from toyguide.guidance.probe import guided_at
from toyguide.metrics.alignment import Correction, correction, error_ratio
from toyguide_apps.explorer_page.layers.densities import PIXELS, Spot, far_from_data
from toyguide_apps.explorer_page.layers.point import SETTLE
from toyguide_apps.explorer_page.runs import scene_of

__all__ = ["RATIO_LEVELS", "ErrorCurves", "ErrorMap", "error_curves", "error_map"]

RATIO_LEVELS = (0.25, 0.5, 0.8, 0.95, 1.05, 1.25, 2.0, 4.0)
"""Steps of the guided error's length over the unguided one's."""

NO_ERROR = "main is exact and has no error"

_GRID = {2: 96}  # points each way, by dimension
_GRID_BEYOND = 40  # in more dimensions
_LEVELS = 17  # of the curves
_POINTS = {2: 512}  # at each level, by dimension
_POINTS_BEYOND = 128


@dataclass(frozen=True, eq=False)
class ErrorMap:
    """The ratio of the errors' lengths in the plane.

    Attributes:
        image: Which band of the palette ``ERROR_RATIO`` each pixel is in: 0 where data are hardly ever, then from the
            lowest step of ``RATIO_LEVELS`` up; with shape ``(n, n)``, uint8. None where there is nothing to show.
        empty: Why there is nothing to show; empty if there is.
    """

    image: np.ndarray | None
    empty: str = ""


@dataclass(frozen=True, eq=False)
class ErrorCurves:
    """The push against the error on exact diffused points, over the noise levels.

    Attributes:
        experiment: The run that the rule belongs to.
        sigma: The noise levels, rising.
        values: By attribute of :class:`toyguide.metrics.alignment.Correction`, one for each level; NaN where the rule
            adds nothing. Empty where there is nothing to show at any level.
        empty: Why there is nothing to show; empty if there is.
    """

    experiment: Experiment
    sigma: np.ndarray
    values: dict[str, np.ndarray]
    empty: str = ""


@lru_cache(maxsize=64)
@torch.no_grad()
def error_map(spot: Spot, experiment: Experiment) -> ErrorMap:
    """Where in the plane the push of an experiment's rule shortens the error, and where it lengthens it."""
    if _is_exact(experiment, spot.device):
        return ErrorMap(None, NO_ERROR)
    x = spot.plane.embed(spot.grid(_GRID.get(experiment.data.dim, _GRID_BEYOND))).float()
    error, push = _terms(experiment, x, spot.sigma, spot.device)
    if not push.any():
        return ErrorMap(None, "the rule adds nothing at this noise level")
    # Interpolated as it is drawn, in steps of factors; bounded, so that a point without an error stays harmless.
    coarse = error_ratio(error, push).log2().nan_to_num(0.0).clamp(-4, 4)[None, None]
    fine = functional.interpolate(coarse, (PIXELS, PIXELS), mode="bilinear", align_corners=True)
    image = 1 + np.digitize(fine[0, 0].cpu().numpy(), np.log2(RATIO_LEVELS))
    image[far_from_data(spot)] = 0
    return ErrorMap(image.astype(np.uint8))


@lru_cache(maxsize=64)
@torch.no_grad()
def error_curves(experiment: Experiment, device: str) -> ErrorCurves:
    """How the push of an experiment's rule lies to the error, from the dataset's lowest noise level to its highest."""
    data = experiment.data
    sigma = np.geomspace(data.sampling.sigma_min, data.sampling.sigma_max, _LEVELS)
    if _is_exact(experiment, device):
        return ErrorCurves(experiment, sigma, {}, NO_ERROR)
    generator, points = torch.Generator().manual_seed(0), _POINTS.get(data.dim, _POINTS_BEYOND)
    found = []
    for level in sigma.tolist():
        x = data.field(experiment.label).sample(points, level, generator).float().to(device)
        error, push = _terms(experiment, x, level, device)
        found.append(correction(error, push) if push.any() else None)
    if not any(found):
        return ErrorCurves(experiment, sigma, {}, "adds nothing")
    names = Correction.__dataclass_fields__
    return ErrorCurves(
        experiment, sigma, {name: np.array([getattr(c, name, np.nan) for c in found], np.float32) for name in names}
    )


def _is_exact(experiment: Experiment, device: str) -> bool:
    return scene_of(experiment, device).field("main") is experiment.data.field(experiment.label)


def _terms(experiment: Experiment, x: Tensor, sigma: float, device: str) -> tuple[Tensor, Tensor]:
    """The main field's error and the rule's push, each with the shape of ``x``."""
    rule, scene = experiment.build_rule(), scene_of(experiment, device)
    found = guided_at(rule, scene, x, sigma, experiment.seed, settle=SETTLE)
    return found["main"] - experiment.data.field(experiment.label).denoise(x, sigma), found["push"]
