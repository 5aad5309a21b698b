"""Backgrounds of what a rule is said to sample: the target's density, and how far the rule's denoiser is from its own.

A network has no ideal: the exact field of what it models stands in for it in the target.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from torch.nn import functional

from toyguide import Experiment
from toyguide.errors import InputError
from toyguide.fields import Field
from toyguide.geometry.contours import BAND_SHARES, region_levels
from toyguide.geometry.planes import Window
from toyguide.guidance.probe import guided_at
from toyguide.metrics.to_target import exact_stand_ins
from toyguide.targets import ideal_field
from toyguide_apps.explorer_page.layers.densities import PIXELS, Spot, far_from_data
from toyguide_apps.explorer_page.layers.point import SETTLE
from toyguide_apps.explorer_page.planes import home_window
from toyguide_apps.explorer_page.runs import scene_of

__all__ = ["IDEAL_LEVELS", "target_map"]

IDEAL_LEVELS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Steps of the distance of the guided denoised point from the target's own, over sigma."""

_GRID = 96  # points each way


@lru_cache(maxsize=64)
@torch.no_grad()
def target_map(spot: Spot, experiment: Experiment, kind: str) -> tuple[np.ndarray | None, str]:
    """The target of an experiment's rule in the plane, or the rule's distance from it.

    Args:
        spot: Where, at a positive noise level.
        experiment: The run.
        kind: ``target``, for the density, or ``ideal-error``.

    Returns:
        Which band each pixel is in, with shape ``(n, n)``, uint8, or None; and then why there is nothing to show, else
        an empty text.
    """
    target = experiment.build_rule().target()
    if target is None:
        return None, "nobody says which density this rule samples"
    try:
        field = ideal_field(target, exact_stand_ins(scene_of(experiment, spot.device).fields, experiment.data))
    except InputError as problem:
        return None, str(problem)
    if kind == "target":
        return np.digitize(_fine(_log_density(spot, field)), _levels(spot, field)).astype(np.uint8), ""
    image = np.digitize(_fine(_distance(spot, experiment, field).log()), np.log(IDEAL_LEVELS)).astype(np.uint8)
    image[far_from_data(spot)] = 0
    return image, ""


def _log_density(spot: Spot, field: Field) -> torch.Tensor:
    return field.log_density(spot.plane.embed(spot.grid(_GRID)), spot.sigma)


def _levels(spot: Spot, field: Field) -> np.ndarray:
    """The borders of the bands: in the dataset's own window, so that they do not depend on where a visitor looks."""
    left, bottom, right, top = home_window(spot.dataset, spot.anchors)
    wide = Window((left, bottom), (right, top)).grown(4 * spot.sigma)
    whole = replace(spot, window=(*wide.low, *wide.high))
    return region_levels(_log_density(whole, field).double(), BAND_SHARES).cpu().numpy()


def _distance(spot: Spot, experiment: Experiment, field: Field) -> torch.Tensor:
    """The length of the guided denoised point's distance from the target's, over sigma."""
    x = spot.plane.embed(spot.grid(_GRID)).float()
    scene = scene_of(experiment, spot.device)
    found = guided_at(experiment.build_rule(), scene, x, spot.sigma, experiment.seed, settle=SETTLE)
    return (found["guided"] - field.denoise(x, spot.sigma)).norm(dim=-1).clamp(min=1e-9) / spot.sigma


def _fine(coarse: torch.Tensor) -> np.ndarray:
    """A value at each pixel, interpolated."""
    known = coarse[None, None].double()
    fine = functional.interpolate(known, (PIXELS, PIXELS), mode="bilinear", align_corners=True)
    return fine[0, 0].cpu().numpy()
