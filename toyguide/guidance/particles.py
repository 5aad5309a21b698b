"""Weighted particles: how evenly their weights are spread, and resampling.

Points of weight W_i stand for a density that they were not drawn from. The effective sample size,
``(sum W)^2 / sum W^2``, is the number of points of equal weight that would do as well, if they were independent.
Systematic resampling puts n evenly spaced marks, with one common random offset, on the line of the cumulative weights:
a point of share p is copied ``n p`` times, rounded up or down.

References:
    Douc & Cappé, Comparison of Resampling Schemes for Particle Filtering, 2005, arXiv cs/0507025.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["effective_share", "resampled", "separate_stream", "systematic", "weights_trace"]


def effective_share(log_weights: Tensor) -> float:
    """The effective sample size over the number of points, from ``1/n`` to 1.

    Args:
        log_weights: Unnormalised log-weights, with shape ``(n,)``. Those that are no numbers count nothing.
    """
    return float(1 / _shares(log_weights).square().sum() / len(log_weights))


def systematic(log_weights: Tensor, generator: torch.Generator) -> Tensor:
    """The indices of the points that systematic resampling keeps, ascending, with shape ``(n,)``, int64.

    Args:
        log_weights: Unnormalised log-weights, with shape ``(n,)``.
        generator: Random numbers, on the CPU; one is drawn.
    """
    n = len(log_weights)
    marks = (torch.arange(n) + torch.rand((), generator=generator, dtype=torch.float64)) / n
    rows = torch.searchsorted(_shares(log_weights).cumsum(0), marks).clamp(max=n - 1)  # the sum may round below 1
    return rows.to(log_weights.device)


def resampled(log_weights: Tensor, threshold: float, last: bool, generator: torch.Generator) -> Tensor | None:
    """The indices of the points to go on with, or None where the points stay.

    Args:
        log_weights: Unnormalised log-weights, with shape ``(n,)``.
        threshold: Resample where the effective share is below it.
        last: Whether this is the end of the run. Then any unequal weights are used up, so that the points are samples.
        generator: Random numbers, on the CPU.
    """
    uneven = last and bool((log_weights != log_weights[0]).any())
    if not (uneven or effective_share(log_weights) < threshold):
        return None
    return systematic(log_weights, generator)


def weights_trace(log_weights: Tensor, share: float) -> dict[str, Tensor]:
    """For display, each with shape ``(n,)``: the log of each weight over the mean weight, and an effective share."""
    relative = log_weights - torch.logsumexp(log_weights, 0) + math.log(len(log_weights))
    return {"log_weight": relative, "ess": torch.full_like(log_weights, share)}


def separate_stream(generator: torch.Generator) -> torch.Generator:
    """Random numbers of their own, of which the first points get the same however many points there are."""
    torch.rand((), generator=generator)  # skip the number that seeds the sampler's noise
    return torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))


def _shares(log_weights: Tensor) -> Tensor:
    """The weights over their sum, float64 on the CPU; equal if none is a number."""
    counted = log_weights.double().cpu().nan_to_num(nan=-math.inf, posinf=-math.inf)
    return torch.softmax(counted if bool((counted > -math.inf).any()) else torch.zeros_like(counted), 0)
