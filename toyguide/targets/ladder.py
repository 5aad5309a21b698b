"""A density on a lattice at every noise level: the rungs of a ladder, each twice as coarse as the one below.

Rung 0 is the density q itself with the spacing h. Rung m is q diffused to ``tau_m = sqrt(2) h_m`` on a lattice of the
spacing ``h_m = 2^m h``, made of the rung below by sums over its points. Each of these is the sum of a mixture of
Gaussians no thinner than the spacing, which is what a lattice is nearly exact for.

At the noise level sigma the density is the rung with ``2 h_m <= sigma < 4 h_m`` diffused further, by
``kappa^2 = sigma^2 - tau_m^2``:

    q(x; sigma) = h_m^2 sum_y q(y; tau_m) N(x; y, kappa^2 I)

It and its moments are summed over a window of points around x. With the window's mean ``mu`` and covariance ``C``,

    score = (mu - x) / kappa^2,    Hessian = (C / kappa^2 - I) / kappa^2

Where x is so far out that the terms that matter are not in its window (more than 5 sigma from all mass), the sum is
over all points of the rung if the noise is as wide as the data. Else the ladder is in doubt, and so it is where the
density is so low that what the lattice leaves out may matter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from toyguide.targets.lattice import Lattice

__all__ = ["Ladder", "Moments", "weighted_moments"]

_HALF = 24  # points of a window each way from its middle
_SIZE = 2 * _HALF + 1
_MARGIN = 5  # points between a window's mean and its border, at least
_BEYOND = 16  # points that a rung has around the one below
_WIDE = 0.25  # noise levels from here up, in units of the data's extent, are as wide as the data
_TRUSTED = 18.0  # nats below the highest density; what the lattice leaves out is e^-14 of a density of that
_COUNTING = 1e-13  # share of the highest density that such a point has, at least
_NEAREST = 64  # points among which the likeliest is looked for
_CHUNK = 1 << 10


@dataclass(frozen=True, eq=False)
class Moments:
    """What is known of the clean or less noisy point y, given x.

    Attributes:
        log_density: ``log q(x; sigma)``, with shape ``(n,)``.
        shift: ``E[y] - x``, with shape ``(n, 2)``.
        covariance: Of y, with shape ``(n, 2, 2)``.
        variance: Of the noise between y and x, on each axis.
    """

    log_density: Tensor
    shift: Tensor
    covariance: Tensor
    variance: float

    @property
    def score(self) -> Tensor:
        """``grad log q(x; sigma)``, with shape ``(n, 2)``."""
        return self.shift / self.variance

    @property
    def hessian(self) -> Tensor:
        """The Hessian of ``log q(x; sigma)``, with shape ``(n, 2, 2)``."""
        identity = torch.eye(2, dtype=self.shift.dtype)
        return (self.covariance / self.variance - identity) / self.variance


@dataclass(frozen=True, eq=False)
class _Rung:
    """The density at one level on its lattice, with ``_HALF`` zeros on each side."""

    spacing: float
    low: tuple[int, int]  # of the first point that is not a zero
    density: Tensor
    tau_squared: float

    @cached_property
    def windows(self) -> Tensor:
        """All windows, a view of shape ``(a, b, _SIZE, _SIZE)``."""
        return self.density.unfold(0, _SIZE, 1).unfold(1, _SIZE, 1)

    @cached_property
    def points(self) -> tuple[Tensor, Tensor]:
        """The points that hold mass, with shape ``(k, 2)``, and the logarithms of their densities, ``(k,)``."""
        some = (self.density > _COUNTING * self.density.max()).nonzero()
        at = (some - _HALF + torch.tensor(self.low)).double() * self.spacing
        return at, self.density[some[:, 0], some[:, 1]].log()

    @cached_property
    def tree(self) -> Any:
        """The same points, for finding the nearest ones."""
        from scipy.spatial import cKDTree

        return cKDTree(self.points[0].numpy())

    def axis(self, k: int) -> Tensor:
        """The coordinates along an axis, without the zeros."""
        return (torch.arange(self.density.shape[k] - 2 * _HALF) + self.low[k]).double() * self.spacing


class Ladder:
    """A density at every noise level from the lattice's spacing up.

    Args:
        lattice: The density at sigma = 0.
    """

    def __init__(self, lattice: Lattice) -> None:
        self.spacing = lattice.spacing
        self._wide = _WIDE * max(lattice.density.shape) * lattice.spacing
        padded = torch.nn.functional.pad(lattice.density, (_HALF,) * 4)
        self._rungs = [_Rung(lattice.spacing, lattice.low, padded, 0.0)]

    def moments(self, x: Tensor, sigma: float) -> tuple[Moments, Tensor]:
        """The moments at points of shape ``(n, 2)``, float64 on the CPU, at a noise level from the spacing up.

        And at which of them they are in doubt, with shape ``(n,)``, bool: less is summed there than there is.
        """
        rung = self._rung(max(0, math.floor(math.log2(sigma / self.spacing)) - 1))
        variance = sigma**2 - rung.tau_squared
        parts = [self._of(rung, part, variance, sigma >= self._wide) for part in x.split(_CHUNK)]
        log_sum, shift, covariance, doubtful = (torch.cat(each) for each in zip(*parts, strict=True))
        log_density = log_sum + 2 * math.log(rung.spacing) - math.log(2 * math.pi * variance)
        return Moments(log_density, shift, covariance, variance), doubtful

    def likeliest(self, x: Tensor, sigma: float) -> Tensor:
        """The lattice point that a noisy point is most likely from, among those nearest to it; with the shape of x."""
        rung = self._rungs[0]
        points, logs = rung.points
        _, index = rung.tree.query(x.numpy(), min(_NEAREST, len(points)))
        nearest = torch.from_numpy(index).reshape(len(x), -1)
        terms = logs[nearest] - (points[nearest] - x[:, None]).square().sum(-1) / (2 * sigma**2)
        return points[nearest.gather(1, terms.argmax(1, keepdim=True))[:, 0]]

    def _rung(self, m: int) -> _Rung:
        while len(self._rungs) <= m:
            self._rungs.append(_coarser(self._rungs[-1]))
        return self._rungs[m]

    def _of(self, rung: _Rung, x: Tensor, variance: float, wide: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The logarithm of the kernel's weighted sum, the shift, the covariance, and where these are in doubt."""
        low = torch.tensor(rung.low)
        last = torch.tensor(rung.density.shape) - _SIZE
        middle = (x / rung.spacing).nan_to_num().clamp(-1e9, 1e9).round().long() - low
        corner = torch.minimum(middle.clamp(min=0), last)
        steps = torch.arange(-_HALF, _HALF + 1)
        offset = (corner[..., None] + low[:, None] + steps).double() * rung.spacing - x[..., None]  # (n, 2, _SIZE)
        exponent = offset.square() / (-2 * variance)
        highest = exponent.amax(-1, keepdim=True)
        kernel = (exponent - highest).exp()
        terms = torch.stack([kernel, kernel * offset, kernel * offset.square()], -1)  # (n, 2, _SIZE, 3)
        patches = rung.windows[corner[:, 0], corner[:, 1]]
        sums = terms[:, 0].mT @ (patches @ terms[:, 1])  # (n, 3, 3), [a, b] of offset_0^a offset_1^b
        log_sum = sums[:, 0, 0].log() + highest.sum((1, 2))
        shift, covariance = _central(sums / sums[:, :1, :1])

        # Where the sum is 0 the mean is NaN, which is not inside.
        inside = ((x + shift) / rung.spacing - corner - low).abs().amax(-1) <= _HALF - _MARGIN
        inside &= (middle == corner).all(-1)
        if wide and not bool(inside.all()):
            far = (~inside).nonzero()[:, 0]
            log_sum[far], shift[far], covariance[far] = _over_all(rung, x[far], variance)
            inside[far] = True
        highest_sum = math.log(2 * math.pi * variance / rung.spacing**2 * float(rung.density.max()))
        return log_sum, shift, covariance, ~(inside & (log_sum > highest_sum - _TRUSTED))


def _over_all(rung: _Rung, x: Tensor, variance: float) -> tuple[Tensor, Tensor, Tensor]:
    """The same with all points of the rung."""
    points, logs = rung.points
    offset = points - x[:, None]
    terms = logs - offset.square().sum(-1) / (2 * variance)
    return (terms.logsumexp(1), *weighted_moments(terms, offset))


def weighted_moments(logs: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of offsets (n, k, 2) with the log-weights (n, k), not normalised."""
    share = logs.softmax(1)
    mean = (share[..., None] * offset).sum(1)
    off = offset - mean[:, None]
    return mean, torch.einsum("nk,nkd,nke->nde", share, off, off)


def _central(sums: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and the covariance of moments about x."""
    shift = torch.stack([sums[:, 1, 0], sums[:, 0, 1]], -1)
    second = torch.stack([sums[:, 2, 0], sums[:, 1, 1], sums[:, 1, 1], sums[:, 0, 2]], -1).unflatten(-1, (2, 2))
    return shift, second - shift[:, :, None] * shift[:, None]


def _coarser(rung: _Rung) -> _Rung:
    """The rung above: the density diffused on, on every second point."""
    spacing = 2 * rung.spacing
    variance = 2 * spacing**2 - rung.tau_squared
    inner = rung.density[_HALF:-_HALF, _HALF:-_HALF]
    low, sums = [], inner
    for k in (0, 1):
        first = math.floor(rung.low[k] / 2) - _BEYOND
        last = math.ceil((rung.low[k] + inner.shape[k]) / 2) + _BEYOND
        to = torch.arange(first, last + 1).double() * spacing
        kernel = (to[:, None] - rung.axis(k)).square().div(-2 * variance).exp()
        sums = (kernel @ sums) * (rung.spacing / math.sqrt(2 * math.pi * variance))
        sums = sums.T.contiguous()  # turned once for each axis
        low.append(first)
    padded = torch.nn.functional.pad(sums, (_HALF,) * 4)
    return _Rung(spacing, (low[0], low[1]), padded, 2 * spacing**2)
