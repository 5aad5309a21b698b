"""Planes and windows in which a distribution of any dimension is shown.

A :class:`Plane` is an affine map between points ``x`` of the data space and coordinates ``uv`` in a two-dimensional
plane, with orthonormal axes, so that distances in the plane are distances in space. A :class:`Window` is a rectangle of
such coordinates. Planes are stored in float64; mapped points keep their own dtype and device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from toyguide.datasets import Dataset
from toyguide.errors import InputError
from toyguide.fields.mixtures import GaussianMixture

__all__ = ["Plane", "Window", "plane_of", "window_of"]

_MARGIN = 0.15  # around a window fitted to the data, relative to the data's extent
_FITTED_SAMPLES = 20_000


@dataclass(frozen=True, eq=False)
class Plane:
    """A plane in the data space.

    Attributes:
        origin: The point whose coordinates are (0, 0), with shape ``(d,)``.
        axes: The directions of the first and the second coordinate, orthonormal, with shape ``(2, d)``.
    """

    origin: Tensor
    axes: Tensor

    @classmethod
    def through(cls, a: Tensor, b: Tensor, c: Tensor) -> Plane:
        """The plane through three points, each with shape ``(d,)``.

        The origin is their centroid. The first axis points from ``a`` to ``b``, and ``c`` lies on the positive side of
        the second: a triangle is shown upright, with ``a`` and ``b`` as its base.

        Raises:
            InputError: If the points lie on one line.
        """
        a, b, c = (p.to(torch.float64) for p in (a, b, c))
        base, rise = b - a, c - a
        size = torch.maximum(base.norm(), rise.norm())
        u = base / base.norm()
        rise = rise - (rise @ u) * u
        if not rise.norm() > 1e-9 * size:  # also where a and b coincide, which makes u NaN
            raise InputError("a plane through three points: they lie on one line, expected a triangle")
        return cls((a + b + c) / 3, torch.stack([u, rise / rise.norm()]))

    def embed(self, uv: Tensor) -> Tensor:
        """The points in space at coordinates ``uv`` with shape ``(..., 2)``, with shape ``(..., d)``."""
        return self.origin.to(uv) + uv @ self.axes.to(uv)

    def project(self, x: Tensor) -> Tensor:
        """The coordinates of the projections of ``x`` with shape ``(..., d)``, with shape ``(..., 2)``."""
        return self.project_vectors(x - self.origin.to(x))

    def marginal(self, field: GaussianMixture) -> GaussianMixture:
        """The exact distribution of the projected points of ``field``, a mixture in the coordinates ``uv``.

        The projection of isotropic noise is isotropic, so this holds at every noise level.
        """
        covariances = self.axes @ field.covariances @ self.axes.T
        return GaussianMixture(field.weights, self.project(field.means), (covariances + covariances.mT) / 2)

    def project_vectors(self, v: Tensor) -> Tensor:
        """The components of vectors ``v`` with shape ``(..., d)`` in the plane, with shape ``(..., 2)``."""
        return v @ self.axes.to(v).T


@dataclass(frozen=True)
class Window:
    """A rectangle in a plane.

    Attributes:
        low: The lower left corner.
        high: The upper right corner.

    Raises:
        InputError: If it is empty.
    """

    low: tuple[float, float]
    high: tuple[float, float]

    def __post_init__(self) -> None:
        if not all(a < b for a, b in zip(self.low, self.high, strict=True)):
            raise InputError(f"window {self.low} … {self.high}: expected the upper right corner above the lower left")

    @property
    def size(self) -> tuple[float, float]:
        """Width and height."""
        return self.high[0] - self.low[0], self.high[1] - self.low[1]

    @property
    def aspect(self) -> float:
        """The ratio of width to height."""
        return self.size[0] / self.size[1]

    def grown(self, margin: float) -> Window:
        """The window with ``margin`` added on each side."""
        return Window(
            (self.low[0] - margin, self.low[1] - margin),
            (self.high[0] + margin, self.high[1] + margin),
        )

    def grid(self, n: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
        """Coordinates on a regular grid from edge to edge, with shape ``(n, n, 2)``.

        In ``grid[row, column]`` the first coordinate rises with the column and the second with the row, like the pixels
        of an image with its origin at the lower left.
        """
        u, v = (torch.linspace(a, b, n, dtype=dtype, device=device) for a, b in zip(self.low, self.high, strict=True))
        return torch.stack(torch.meshgrid(u, v, indexing="xy"), -1)


def plane_of(data: Dataset) -> Plane:
    """The plane that a dataset is shown in.

    For two-dimensional data this is the identity. In more dimensions it is the plane through the means of the three
    classes that the dataset's view names. If it names none, or the means lie on one line, it is the plane through the
    union's mean along its first two principal axes.

    Raises:
        InputError: If the data is one-dimensional.
    """
    if data.dim < 2:
        raise InputError(f"dataset {data.name!r}: of dimension {data.dim}, expected at least 2 to show it in a plane")
    if data.dim == 2:
        return Plane(torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    if data.view.plane is not None:
        try:
            return Plane.through(*(data.field(label).mean for label in data.view.plane))
        except InputError:
            pass  # the means lie on one line
    return _principal(data.field())


def window_of(data: Dataset, plane: Plane) -> Window:
    """The window that a dataset is shown in: its view's, or else a square around 98 % of the union along each axis."""
    if data.view.low is not None and data.view.high is not None:
        return Window(data.view.low, data.view.high)
    x = data.field().sample(_FITTED_SAMPLES, generator=torch.Generator().manual_seed(0))
    low, high = plane.project(x).quantile(torch.tensor([0.01, 0.99], dtype=x.dtype), dim=0)
    half = float((high - low).max()) * (0.5 + _MARGIN)
    u, v = ((low + high) / 2).tolist()
    return Window((u - half, v - half), (u + half, v + half))


def _principal(field: GaussianMixture) -> Plane:
    centred = field.means - field.mean
    covariance = torch.einsum("k,kde->de", field.weights, field.covariances + centred[:, :, None] * centred[:, None, :])
    axes = torch.linalg.eigh(covariance)[1].T[-2:].flip(0)
    # The sign of an eigenvector is arbitrary: make its largest entry positive, so that pictures are reproducible.
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    return Plane(field.mean, axes * largest.sign())
