"""What metrics take from the exact distribution: fresh samples, and the borders of highest-density regions."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from toyguide.datasets import Dataset

__all__ = ["MANY", "are_outliers", "exact_log_densities", "exact_points", "exact_samples", "hdr_threshold"]

MANY = 1 << 16
"""Exact samples that stand for the distribution itself."""


def exact_samples(data: Dataset, label: str | None, n: int, seed: int, purpose: str) -> Tensor:
    """Exact samples in float32, from a random stream of the purpose's own, which no starting points share.

    Args:
        data: The dataset.
        label: The class; None for the union.
        n: The number of samples.
        seed: The seed.
        purpose: ``compared`` or ``measured``.

    Returns:
        With shape ``(n, d)``.
    """
    generator = torch.Generator().manual_seed(seed)
    streams = torch.randint(2**62, (4,), generator=generator)
    generator.manual_seed(int(streams[{"compared": 2, "measured": 3}[purpose]]))
    return data.field(label).sample(n, generator=generator).float()


@lru_cache(maxsize=128)
def hdr_threshold(data: Dataset, label: str | None, sigma: float = 0.0, share: float = 0.99) -> float:
    """The log-density at the border of the highest-density region that holds a given share of the exact mass.

    Estimated from 65,536 exact samples with a fixed seed. The true share of the region has a standard error of
    ``sqrt(share (1 - share) / 65536)``, which is 0.0004 at 99 % and 0.00012 at 99.9 %.

    Args:
        data: The dataset.
        label: The class; None for the union.
        sigma: The noise level.
        share: The share of the mass inside the region.
    """
    return float(exact_log_densities(data, label, sigma).quantile(1 - share))


def are_outliers(x: Tensor, data: Dataset, label: str | None) -> Tensor:
    """Which samples (n, d) lie outside the exact 99 % region, or are not finite; bool, with shape ``(n,)``."""
    return ~(x.isfinite().all(-1) & (data.field(label).log_density(x, 0.0) >= hdr_threshold(data, label)))


@lru_cache(maxsize=4)
def exact_log_densities(data: Dataset, label: str | None, sigma: float) -> Tensor:
    """Exact log-densities of exact samples (65536,), float64."""
    return data.field(label).log_density(exact_points(data, label, sigma), sigma).double()


def exact_points(data: Dataset, label: str | None, sigma: float) -> Tensor:
    """The exact samples that stand for the distribution itself, with shape ``(65536, d)``, float32."""
    return data.field(label).sample(MANY, sigma, torch.Generator().manual_seed(0)).float()
