"""What can be drawn over a plane at one noise level, as plain arrays ready for a glyph.

Densities of learned fields are unnormalised and those of a slice through many dimensions are not densities in the
plane, so all of them are shown the same way: by the regions of highest density that hold given shares of what lies in
the plane. A band or a level line means the same on every field, at every noise level and in every window.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import contourpy
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from toyguide import Experiment
from toyguide.datasets import load_dataset
from toyguide.devices import resolve_device
from toyguide.fields import Field
from toyguide.geometry.contours import BAND_SHARES, LINE_SHARES, RATIO_LEVELS, region_levels
from toyguide.geometry.curvature import top_eigenpair
from toyguide.geometry.planes import Plane, Window
from toyguide.guidance import Evaluation
from toyguide.metrics import hdr_threshold
from toyguide_apps.explorer_page.planes import Anchors, corners, home_window, plane
from toyguide_apps.explorer_page.runs import field, scene_of

__all__ = ["PIXELS", "Arrows", "Curves", "Spot", "far_from_data", "log_density"]

PIXELS = 320
"""Of an image, each way."""

_OUTLINE_PIXELS = 480  # of the grid that the data's outlines are traced on, enough for six times their size
_LEVEL_PIXELS = 128  # of the grid that levels are taken from
_CURVE_PIXELS = 128  # of the grid that a class boundary is traced on
_FAR = 6.0  # nats below the border of the outermost band: diffused data are hardly ever there
_ARROWS = 21  # each way
_SADDLES = 27  # each way


@dataclass(frozen=True)
class Spot:
    """Where a layer is computed.

    Attributes:
        dataset: The dataset's name.
        label: The class that is sampled.
        sigma: The noise level; 0 only for exact fields.
        window: Left, bottom, right and top in the plane.
        device: Where to compute.
        anchors: The plane.
    """

    dataset: str
    label: str | None
    sigma: float
    window: tuple[float, float, float, float]
    device: str = "cpu"
    anchors: Anchors = ()

    def grid(self, n: int) -> Tensor:
        """The window's coordinates, with shape ``(n, n, 2)``."""
        left, bottom, right, top = self.window
        return Window((left, bottom), (right, top)).grid(n, device=resolve_device(self.device))

    @property
    def plane(self) -> Plane:
        return plane(self.dataset, self.anchors)

    @property
    def corners(self) -> Tensor:
        """The three points in space that the plane goes through, or three points in it, with shape ``(3, d)``."""
        return corners(self.dataset, self.anchors)

    @property
    def size(self) -> float:
        """The window's width."""
        return self.window[2] - self.window[0]

    def field(self, reference: str, role: str = "main") -> Field:
        return field(reference, self.dataset, self.label, role, self.device)


@dataclass(frozen=True, eq=False)
class Curves:
    """Lines as one array of coordinates with NaN between them, which a browser draws fastest."""

    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True, eq=False)
class Arrows:
    """Straight strokes from (x0, y0) to (x1, y1), with a number each for the colour."""

    x0: np.ndarray
    y0: np.ndarray
    x1: np.ndarray
    y1: np.ndarray
    value: np.ndarray


@lru_cache(maxsize=256)
@torch.no_grad()
def log_density(spot: Spot, reference: str, role: str) -> np.ndarray:
    """A field's log-density as its pixels, with shape ``(n, n)``, float64.

    Evaluated on every second pixel each way and interpolated between: a log-density is smooth where it can be seen.
    """
    coarse = spot.field(reference, role).log_density(spot.plane.embed(spot.grid(PIXELS // 2)), spot.sigma)
    fine = functional.interpolate(coarse[None, None].double(), (PIXELS, PIXELS), mode="bilinear", align_corners=True)
    return fine[0, 0].cpu().numpy()


@lru_cache(maxsize=512)
@torch.no_grad()
def _scale(spot: Spot, reference: str, role: str) -> tuple[np.ndarray, np.ndarray, float]:
    """The levels of the bands and of the lines of a field, and its log-mass, which make fields comparable.

    The spot must have the dataset's own window, so that they do not depend on what the visitor looks at.
    """
    left, bottom, right, top = spot.window
    window = Window((left, bottom), (right, top)).grown(4 * spot.sigma)
    grid = window.grid(_LEVEL_PIXELS, device=resolve_device(spot.device))
    values = spot.field(reference, role).log_density(spot.plane.embed(grid), spot.sigma).double().cpu()
    cell = window.size[0] * window.size[1] / (_LEVEL_PIXELS - 1) ** 2
    mass = float(values.flatten().logsumexp(0)) + math.log(cell)
    return region_levels(values, BAND_SHARES).numpy(), region_levels(values, LINE_SHARES).numpy(), mass


def _home(spot: Spot) -> Spot:
    return replace(spot, window=home_window(spot.dataset, spot.anchors))


@lru_cache(maxsize=256)
def bands(spot: Spot, reference: str, role: str) -> np.ndarray:
    """Which band each pixel is in, with shape ``(n, n)``, uint8, for the palette ``BANDS``."""
    levels, _, _ = _scale(_home(spot), reference, role)
    return np.digitize(log_density(spot, reference, role), levels).astype(np.uint8)


def far_from_data(spot: Spot) -> np.ndarray:
    """Which pixels the exact field has practically nothing at, with shape ``(n, n)``, bool."""
    levels, _, _ = _scale(_home(spot), "exact", "main")
    return log_density(spot, "exact", "main") < levels[0] - _FAR


@lru_cache(maxsize=256)
def lines(spot: Spot, reference: str, role: str) -> Curves:
    """Level lines around the regions of ``LINE_SHARES``."""
    _, levels, _ = _scale(_home(spot), reference, role)
    return _contours(spot, log_density(spot, reference, role), list(levels))


@lru_cache(maxsize=256)
def ratio(spot: Spot, main: str, guide: str, guide_role: str) -> np.ndarray:
    """Bands of ``log p_main - log p_guide``, with shape ``(n, n)``, uint8, for the palette ``RATIO``.

    Both normalised, learned or not. Where the main field has practically nothing (e^-30 of its highest density) no
    band is drawn.
    """
    above, below = log_density(spot, main, "main"), log_density(spot, guide, guide_role)
    _, _, main_mass = _scale(_home(spot), main, "main")
    _, _, guide_mass = _scale(_home(spot), guide, guide_role)
    image = np.digitize((above - main_mass) - (below - guide_mass), RATIO_LEVELS).astype(np.uint8)
    image[above < above.max() - 30] = len(RATIO_LEVELS) // 2
    return image


@lru_cache(maxsize=256)
@torch.no_grad()
def score_arrows(spot: Spot, reference: str) -> Arrows:
    """The score on a grid; lengths follow the square root of its magnitude, so that weak ones can be seen."""
    grid = spot.grid(_ARROWS)
    score = spot.field(reference).score(spot.plane.embed(grid), spot.sigma)
    return _arrowheads(spot, grid, spot.plane.project_vectors(score), spot.size / _ARROWS)


@lru_cache(maxsize=256)
@torch.no_grad()
def guidance_arrows(spot: Spot, experiment: Experiment) -> Arrows:
    """What a rule without memory adds to the main field's denoised point, on a grid."""
    rule = experiment.build_rule()
    grid = spot.grid(_ARROWS)
    points = spot.plane.embed(grid).flatten(0, 1)
    at = Evaluation(replace(scene_of(experiment, spot.device), levels=(spot.sigma, 0.0)), points, spot.sigma)
    push = rule.guide(at, None).denoised - at.denoised("main")
    return _arrowheads(spot, grid.flatten(0, 1), spot.plane.project_vectors(push), spot.size / _ARROWS)


def push_arrows(spot: Spot, points: np.ndarray, pushes: np.ndarray) -> Arrows:
    """What a rule with memory added at the points of its own trajectories, which its memory belongs to."""
    some = slice(0, 300)
    return _arrowheads(spot, torch.from_numpy(points[some]), torch.from_numpy(pushes[some]), spot.size / _ARROWS)


@lru_cache(maxsize=256)
@torch.no_grad()
def saddles(spot: Spot, reference: str) -> Arrows:
    """The Hessian's top eigenvector where its eigenvalue is positive; the value is sigma^2 times the eigenvalue."""
    grid = spot.grid(_SADDLES).flatten(0, 1)
    values, vectors = top_eigenpair(spot.field(reference).hessian(spot.plane.embed(grid), spot.sigma))
    up = values > 0
    at, along = grid[up], spot.plane.project_vectors(vectors[up])
    half = 0.42 * spot.size / _SADDLES * along
    start, end = (at - half).cpu().numpy(), (at + half).cpu().numpy()
    strength = (spot.sigma**2 * values[up]).cpu().numpy()
    return Arrows(start[:, 0], start[:, 1], end[:, 0], end[:, 1], strength)


@lru_cache(maxsize=256)
@torch.no_grad()
def boundary(spot: Spot) -> Curves:
    """Where the most likely class changes."""
    data = load_dataset(spot.dataset)
    posterior = data.posterior(spot.plane.embed(spot.grid(_CURVE_PIXELS)), spot.sigma)
    classes = [int(c) for c in posterior.argmax(-1).unique()] if len(data.labels) > 1 else []
    pieces = []
    for c in classes[: max(1, len(classes) - 1)] if len(classes) > 1 else []:
        others = posterior.clone()
        others[..., c] = -1
        pieces.append(_contours(spot, (posterior[..., c] - others.amax(-1)).cpu().numpy(), [0.0]))
    return _joined(pieces)


@lru_cache(maxsize=64)
@torch.no_grad()
def region(spot: Spot) -> Curves:
    """The outline of the class's exact 99 % region in the data (sigma = 0), whatever the spot's noise level."""
    return _region(spot, spot.label)


@lru_cache(maxsize=64)
@torch.no_grad()
def other_regions(spot: Spot) -> Curves:
    """The same of the other classes, where they are few enough to be told apart."""
    labels = load_dataset(spot.dataset).labels
    others = [x for x in labels if x != spot.label] if spot.label is not None and len(labels) <= 4 else []
    return _joined([_region(spot, label) for label in others])


def _region(spot: Spot, label: str | None) -> Curves:
    """In more than two dimensions that of the samples' projection, which is where they are drawn."""
    data = load_dataset(spot.dataset)
    exact = spot.plane.marginal(data.field(label))
    values = exact.log_density(spot.grid(_OUTLINE_PIXELS), 0.0)
    if data.dim == 2:
        level = float(hdr_threshold(data, label))
    else:
        left, bottom, right, top = home_window(spot.dataset, spot.anchors)
        level = float(region_levels(exact.log_density(Window((left, bottom), (right, top)).grid(PIXELS), 0.0), [0.99]))
    return _contours(spot, values.cpu().numpy(), [level])


def _contours(spot: Spot, values: np.ndarray, levels: list[float]) -> Curves:
    left, bottom, right, top = spot.window
    n = len(values)
    generator = contourpy.contour_generator(
        np.linspace(left, right, n),
        np.linspace(bottom, top, n),
        values,
        line_type=contourpy.LineType.ChunkCombinedNan,
    )
    pieces = []
    for level in levels:
        found = [points.astype(np.float32) for points in generator.lines(level)[0] if points is not None]
        pieces += [Curves(points[:, 0], points[:, 1]) for points in found]
    return _joined(pieces)


def _joined(pieces: list[Curves]) -> Curves:
    gap = np.full(1, np.nan, np.float32)
    if not pieces:
        return Curves(gap, gap)
    return Curves(*(np.concatenate([part for p in pieces for part in (axis(p), gap)]) for axis in _AXES))


_AXES: tuple[Callable[[Any], np.ndarray], ...] = (lambda c: c.x, lambda c: c.y)


def _arrowheads(spot: Spot, at: Tensor, vector: Tensor, cell: float) -> Arrows:
    """Arrows as three strokes each, the longest as long as a cell."""
    at, vector = at.reshape(-1, 2), vector.reshape(-1, 2)
    length = vector.norm(dim=-1, keepdim=True)
    usable = length.isfinite() & (length > 0)
    longest = length[usable].quantile(0.95) if usable.any() else length.new_ones(())
    drawn = cell * 0.95 * (length / longest).sqrt().clamp(max=1.0)
    along = torch.where(usable, vector / length, torch.nan)
    visible = (usable & (drawn > 0.03 * cell)).squeeze(-1)
    start, along, drawn = at[visible], along[visible], drawn[visible]
    end = start + drawn * along
    side = torch.stack([-along[:, 1], along[:, 0]], -1)
    head = 0.35 * drawn.clamp(max=0.8 * cell)
    strokes = [(start, end), (end, end - head * (along + 0.55 * side)), (end, end - head * (along - 0.55 * side))]
    first = torch.cat([a for a, _ in strokes]).cpu().numpy()
    last = torch.cat([b for _, b in strokes]).cpu().numpy()
    size = length[visible][:, 0].repeat(3).cpu().numpy()
    return Arrows(first[:, 0], first[:, 1], last[:, 0], last[:, 1], size)
