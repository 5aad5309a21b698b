"""95 % confidence intervals of metrics, each for what the metric's value is in expectation at this n.

    a share          Wilson's score interval
    a mean           the studentised bootstrap, for which long tails are no surprise
    a median         the order statistics that hold it whatever the distribution (binomial)

References:
    Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927.
    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 12 (studentised).
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

__all__ = ["Z", "counts", "of_mean", "of_median", "of_share", "percentiles"]

Z = 1.959963984540054  # the normal distribution's quantile at 97.5 %


def of_share(share: float, n: int) -> list[float]:
    """Of a share of ``n`` independent samples."""
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return [max(centre - half, 0.0), min(centre + half, 1.0)]


def of_mean(values: Tensor, drawn: list[Tensor]) -> list[float]:
    """Of the mean of values (n,), from resamples: how often each value is drawn, in blocks (R, n)."""
    mean = values.mean()
    about = values - mean
    powers = torch.stack([torch.ones_like(about), about, about.square()], -1)
    total, moved, spread = torch.cat([part @ powers for part in drawn]).unbind(-1)
    moved, spread = moved / total, spread / total
    students = moved / (spread - moved.square()).clamp(min=0).sqrt()
    students = students[students.isfinite()]  # not those that drew a single value all the time
    if not len(students):
        return [float(mean), float(mean)]
    low, high = percentiles(students) * about.square().mean().sqrt()
    return [float(mean - high), float(mean - low)]


def of_median(values: Tensor) -> list[float]:
    """Of the median of values (n,)."""
    from scipy.special import bdtrik

    ordered = values.sort().values
    beyond = bdtrik(0.025, len(values), 0.5)  # so many below the median are too few, at 2.5 %
    first = max(math.floor(beyond), 0) if math.isfinite(beyond) else 0
    return [float(ordered[first]), float(ordered[len(values) - 1 - first])]


def percentiles(resampled: Tensor) -> Tensor:
    """The ends between which another resampled number lies 95 % of the time, by those that were drawn (R,)."""
    drawn = len(resampled)
    rank = max(0.025 * (drawn + 1) - 1, 0.0) / max(drawn - 1, 1)  # the k-th of R has k/(R + 1) below it
    return resampled.quantile(torch.tensor([rank, 1 - rank], dtype=torch.float64))


@lru_cache(maxsize=4)
def counts(n: int, resamples: int, seed: int) -> Tensor:
    """How often each of n samples is drawn in each resample, with shape (resamples, n), float64."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(n, (resamples, n), generator=generator)
    return torch.zeros(resamples, n, dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(drawn).double())
