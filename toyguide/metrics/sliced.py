"""The sliced Wasserstein-2 distance of samples to the exact distribution, in full and trimmed.

Along each of 64 fixed directions the sorted samples ``x_i`` are compared with ``q_i``, the means of the exact
distribution between its quantiles at ``(i - 1)/n`` and ``i/n``; the distance is the root of the mean of
``(x_i - q_i)^2`` over samples and directions. Trimmed, the outermost 0.5 % at both ends of a direction are left out.

How much it varies: the first-order change of the squared distance T with a sample is its Kantorovich potential ``phi``,
so that far from the truth the standard error of T is ``s = std(phi)/sqrt(n)``. Near it T is a sum of squares
``|delta + noise|^2``, for which that is too much: with the noise's share ``r = E|noise|^2 / T``, at most 1, it is
``s sqrt(1 - r/2)`` if the squares are of equal size. The interval is symmetric on a logarithmic scale.

References:
    Bonneel et al., Sliced and Radon Wasserstein Barycenters of Measures, 2015.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from toyguide.datasets import Dataset
from toyguide.metrics.exact import MANY, exact_samples
from toyguide.metrics.intervals import Z

__all__ = ["Distance", "distance_between", "distances", "noise"]

_DIRECTIONS = 64
_TRIMMED = 0.005  # share of the samples left out at each end of a direction
_REPEATS, _REPEATED = 8, 1 << 10  # sets of exact samples for the noise of a distance, and their size


@dataclass(frozen=True)
class Distance:
    """A distance with what its interval needs.

    Attributes:
        squared: The squared distance.
        potential: The first-order change of ``squared`` with each sample (n,), up to a constant.
    """

    squared: float
    potential: Tensor

    @property
    def error(self) -> float:
        """The first-order standard error of ``squared``."""
        return float(self.potential.std(correction=0)) / math.sqrt(len(self.potential))

    @property
    def value(self) -> float:
        """The distance."""
        return math.sqrt(self.squared)

    def interval(self, noise: float) -> list[float]:
        """The 95 % interval of the expected distance.

        Args:
            noise: The expected squared distance of as many exact samples.
        """
        if not self.squared:
            return [0.0, 0.0]
        near = min(noise / self.squared, 1.0)
        factor = math.exp(Z * self.error * math.sqrt(1 - near / 2) / (2 * self.squared))
        return [self.value / factor, self.value * factor]


def distances(x: Tensor, data: Dataset, label: str | None) -> tuple[Distance, Distance]:
    """The full and the trimmed distance of finite samples ``x``, with shape ``(n, d)``."""
    directions, target = _target(data, label, len(x))
    line, order = (directions @ x.T.double()).sort(-1)  # (directions, n)
    trimmed = int(_TRIMMED * len(x))
    return _distance(line, target, order, 0), _distance(line, target, order, trimmed)


def noise(data: Dataset, label: str | None, n: int) -> tuple[float, float]:
    """The expected squared distances of ``n`` exact samples, full and trimmed, from those of 1024 and as 1/n."""
    full, trimmed = _noise(data, label)
    return full / n, trimmed / n


@lru_cache(maxsize=64)
def _noise(data: Dataset, label: str | None) -> tuple[float, float]:
    """``n`` times the expected squared distances of ``n`` exact samples."""
    drawn = [exact_samples(data, label, _REPEATED, seed, "measured") for seed in range(_REPEATS)]
    found = [[d.squared for d in distances(x, data, label)] for x in drawn]
    full, trimmed = (sum(squares) / _REPEATS * _REPEATED for squares in zip(*found, strict=True))
    return full, trimmed


def _distance(line: Tensor, target: Tensor, order: Tensor, trimmed: int) -> Distance:
    """The distance without ``trimmed`` samples at each end."""
    gap = (line - target)[:, trimmed : line.shape[1] - trimmed]
    # Each direction by itself: torch splits one large sum by the number of its threads, which shows in the last digit.
    return Distance(float(gap.square().mean(-1).mean()), _potential(line, target, order, trimmed))


def _potential(line: Tensor, target: Tensor, order: Tensor, trimmed: int) -> Tensor:
    """The first-order change of the squared distance with each sample (n,), up to a constant.

    In one dimension the optimal matching is the sorted one. A dual solution needs
    ``phi_i + psi_j <= (x_i - q_j)^2``, with equality for matched pairs. This bounds the difference of neighbouring
    ``phi`` to an interval, whose middle is ``(x_(i+1) - x_i) (x_i + x_(i+1) - q_i - q_(i+1))``. Where samples are left
    out it is constant.
    """
    n = line.shape[1]
    kept = slice(trimmed, n - trimmed)
    gap = line[:, kept] - target[:, kept]
    steps = line[:, kept].diff() * (gap[:, :-1] + gap[:, 1:])
    rising = torch.nn.functional.pad(steps.cumsum(-1), (trimmed + 1, 0))
    rising = torch.cat([rising, rising[:, -1:].expand(-1, trimmed)], -1)
    return torch.zeros_like(line).scatter_(-1, order, rising).mean(0) * (n / gap.shape[1])


def distance_between(x: Tensor, y: Tensor) -> float:
    """The full distance of finite samples ``x``, with shape ``(n, d)``, to other samples, with shape ``(m, d)``."""
    directions = _directions(x.shape[1])
    line = (directions @ x.T.double()).sort(-1).values
    return math.sqrt(float((line - _means(_sums(directions, y), len(x))).square().mean()))


@lru_cache(maxsize=16)
def _target(data: Dataset, label: str | None, n: int) -> tuple[Tensor, Tensor]:
    """The directions (directions, d), and n exact means along each (directions, n), ascending; float64."""
    directions, sums = _exact(data, label)
    return directions, _means(sums, n)


@lru_cache(maxsize=2)
def _exact(data: Dataset, label: str | None) -> tuple[Tensor, Tensor]:
    """The directions (directions, d), and sums of the lowest exact samples along each (directions, 65537); float64."""
    directions = _directions(data.dim)
    return directions, _sums(directions, exact_samples(data, label, MANY, 0, "compared"))


def _directions(dim: int) -> Tensor:
    """The directions, with shape ``(directions, dim)``, float64."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(_DIRECTIONS, dim, dtype=torch.float64, generator=generator)
    return directions / directions.norm(dim=-1, keepdim=True)


def _sums(directions: Tensor, y: Tensor) -> Tensor:
    """Sums of the 0 to m lowest of m samples along each direction, with shape ``(directions, m + 1)``."""
    return torch.nn.functional.pad((directions @ y.T.double()).sort(-1).values.cumsum(-1), (1, 0))


def _means(sums: Tensor, n: int) -> Tensor:
    """n means of as many samples each, or of fractions of a sample, ascending, with shape ``(directions, n)``."""
    many = sums.shape[1] - 1
    at = torch.arange(n + 1, dtype=torch.float64) * (many / n)
    below = at.long().clamp(max=many - 1)
    between = torch.lerp(sums[:, below], sums[:, below + 1], at - below)
    return between.diff() * (n / many)
