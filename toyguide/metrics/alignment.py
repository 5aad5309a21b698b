"""How a guide's error lies to the error that guidance should correct.

With the exact denoiser D, the main field's D1 and the guide's D0, the errors are

    e1 = D1 - D        e0 = D0 - D

and guidance with weight w leaves the error ``e1 + (w - 1)(e1 - e0)``, where ``e1 - e0 = D1 - D0`` is the push. Its
square is a parabola in w with its vertex, the best weight, at

    w* = 1 - <e1, e1 - e0> / |e1 - e0|^2

A little guidance shortens the error exactly where ``w* > 1``, which is where the part of e0 along e1,
``<e1, e0> / |e1|^2``, is above 1; the weight w shortens it where ``w* > (1 + w) / 2``. A guide that makes k times the
main error everywhere has the part k, and w* = k / (k - 1) leaves no error at all.

The best weight of a point has heavy tails, since the push may vanish there. Over many points the pooled one,
``1 - E <e1, e1 - e0> / E |e1 - e0|^2``, leaves the least mean squared error, and quartiles describe the rest.

References:
    Karras et al., Guiding a Diffusion Model with a Bad Version of Itself, 2024, arXiv 2406.02507, Sec. 4 (why a weaker
    version of the same model should make similar but larger errors; the quantities here are ours).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from toyguide.datasets import Dataset
from toyguide.errors import InputError
from toyguide.fields import Field

__all__ = [
    "Alignment",
    "Correction",
    "alignment",
    "best_weights",
    "correction",
    "denoising_errors",
    "error_ratio",
    "level_shares",
]


@dataclass(frozen=True)
class Alignment:
    """Main error and guide's error over some points; NaN where there are none.

    Attributes:
        points: The number of points, or the sum of their counts.
        main_size: The root mean square of ``|e1|``, in the units of the data.
        guide_size: The same of ``|e0|``.
        cosine: The pooled cosine, ``E <e1, e0> / sqrt(E |e1|^2 E |e0|^2)``.
        mean_cosine: The mean over the points of the angle's cosine.
        along: The pooled part of e0 along e1, ``E <e1, e0> / E |e1|^2``.
        best_weight: The pooled best weight.
        best_weights: The quartiles of the points' best weights, where there is a push.
        remaining: The root mean square of the error at the pooled best weight, over the unguided one's.
        shortened: The share of the points where a little guidance shortens the error.
        shortened_at: The same for guidance with the weight that was asked about.
    """

    points: float
    main_size: float
    guide_size: float
    cosine: float
    mean_cosine: float
    along: float
    best_weight: float
    best_weights: tuple[float, float, float]
    remaining: float
    shortened: float
    shortened_at: float


def alignment(main: Tensor, guide: Tensor, w: float, counts: Tensor | None = None) -> Alignment:
    """Summarise errors over points; those with an error that is not finite are left out.

    Args:
        main: The main field's errors ``e1``, with shape ``(n, d)``.
        guide: The guide's errors ``e0``, with shape ``(n, d)``.
        w: The weight that ``shortened_at`` is about.
        counts: How much each point counts, with shape ``(n,)``, not negative; a mask for a region. None for all alike.
    """
    usable = (main.isfinite() & guide.isfinite()).all(-1)
    counts = torch.ones_like(main[:, 0]) if counts is None else counts.to(main)
    usable &= counts > 0
    e1, e0, counts = main[usable].double(), guide[usable].double(), counts[usable].double()
    total = counts.sum()

    def mean(values: Tensor) -> Tensor:
        return (counts * values).sum() / total

    push = e1 - e0
    inner, own, other = _dot(e1, e0), _dot(e1, e1), _dot(e0, e0)
    toward, pushed = _dot(e1, push), _dot(push, push)
    undone = mean(toward).square() / (mean(own) * mean(pushed))
    cosines = (inner / (own * other).sqrt()).nan_to_num(0.0)  # no error has no direction
    return Alignment(
        points=float(total),
        main_size=float(mean(own).sqrt()),
        guide_size=float(mean(other).sqrt()),
        cosine=float(mean(inner) / (mean(own) * mean(other)).sqrt()),
        mean_cosine=float(mean(cosines)),
        along=float(mean(inner) / mean(own)),
        best_weight=float(1 - mean(toward) / mean(pushed)),
        best_weights=_quartiles(best_weights(e1, e0), counts),
        remaining=float((1 - undone).clamp(min=0).sqrt()),
        shortened=float(mean((toward < 0).double())),
        shortened_at=float(mean((error_ratio(e1, (w - 1) * push) < 1).double())),
    )


@dataclass(frozen=True)
class Correction:
    """A push against the error that it should undo, over some points; NaN where there are none.

    Attributes:
        cosine: The mean over the points of the cosine between the push and ``-e1``: 1 straight at the truth, -1 away.
        size: The root mean square of the push over that of the error.
        shortened: The share of the points where the error is shorter with the push.
        best_multiple: The multiple of the push that leaves the least mean squared error; below 1 the push overshoots,
            below 0 it should be the opposite one. NaN without a push.
    """

    cosine: float
    size: float
    shortened: float
    best_multiple: float


def correction(error: Tensor, push: Tensor) -> Correction:
    """Summarise what a push does to errors, whatever rule it comes from; points that are not finite are left out.

    Args:
        error: The unguided errors ``e1``, with shape ``(n, d)``.
        push: What is added to the denoised points, with shape ``(n, d)``.
    """
    usable = (error.isfinite() & push.isfinite()).all(-1)
    error, push = error[usable].double(), push[usable].double()
    toward, own, pushed = -_dot(error, push), _dot(error, error), _dot(push, push)
    return Correction(
        cosine=float((toward / (own * pushed).sqrt()).nan_to_num(0.0).mean()),  # no push has no direction
        size=float((pushed.mean() / own.mean()).sqrt()),
        shortened=float((error_ratio(error, push) < 1).double().mean()),
        best_multiple=float(toward.mean() / pushed.mean()),
    )


def best_weights(main: Tensor, guide: Tensor) -> Tensor:
    """The weight of the shortest guided error at each point.

    Args:
        main: The main field's errors ``e1``, with shape ``(..., d)``.
        guide: The guide's errors ``e0``, with shape ``(..., d)``.

    Returns:
        With shape ``(...)``; NaN where the errors are equal, so that no weight makes a difference.
    """
    push = main - guide
    return 1 - _dot(main, push) / _dot(push, push)


def error_ratio(error: Tensor, push: Tensor) -> Tensor:
    """What a push makes of an error's length, ``|e + p| / |e|``.

    Args:
        error: The unguided errors, with shape ``(..., d)``.
        push: What is added to the denoised points, with shape ``(..., d)``.

    Returns:
        With shape ``(...)``: 0 where nothing is left of the error, 1 where its length stays. Where there is no error
        it is 1 without a push and infinite with one.
    """
    before, after = error.norm(dim=-1), (error + push).norm(dim=-1)
    return torch.where(after == before, torch.ones_like(before), after / before)


@torch.no_grad()
def denoising_errors(field: Field, exact: Field, x: Tensor, sigma: float) -> Tensor:
    """A field's denoised points less the exact ones, computed in float64.

    Args:
        field: The field, on the device of ``x``.
        exact: The field of the distribution that is meant, for a guide too: guidance should lead to it.
        x: The points, with shape ``(n, d)``.
        sigma: Their noise level, positive.

    Returns:
        With shape ``(n, d)``.
    """
    x = x.double()
    return field.denoise(x, sigma) - exact.denoise(x, sigma)


def level_shares(data: Dataset, label: str | None, x: Tensor, sigma: float) -> Tensor:
    """The exact probability, given a noisy point, that it comes from a branch of each level.

    As counts of :func:`alignment` they group points by depth without a hard choice, which at high noise would fall on
    the same level everywhere: over diffused data, the pooled means are those of the data of each level.

    Args:
        data: A dataset of trees.
        label: The class; None for the union.
        x: The points, with shape ``(n, d)``.
        sigma: Their noise level.

    Returns:
        With shape ``(n, levels)``; level 0 is the trunk.

    Raises:
        InputError: If the dataset has no trees.
    """
    levels = data.components.branch_level
    if levels is None:
        raise InputError(f"dataset {data.name!r}: has no levels of branches, expected one of trees")
    index = levels[data.components.component_branch[data.mask(label)]].to(x.device)
    shares = data.field(label).responsibilities(x, sigma)
    return shares.new_zeros(len(x), int(levels.max()) + 1).index_add_(-1, index, shares)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1)


def _quartiles(values: Tensor, counts: Tensor) -> tuple[float, float, float]:
    """The least values below which a quarter, half and three quarters of the counts lie; NaN values do not count."""
    values, counts = values[~values.isnan()], counts[~values.isnan()]
    if not len(values):
        return math.nan, math.nan, math.nan
    ordered, order = values.sort()
    reached = counts[order].cumsum(0)
    places = torch.searchsorted(reached, reached[-1] * reached.new_tensor([0.25, 0.5, 0.75]))
    low, middle, high = (float(v) for v in ordered[places])
    return low, middle, high
