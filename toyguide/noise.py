"""Noise levels: the schedule of a sampler, and the training distribution of a network.

References:
    Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, 2022, arXiv 2206.00364,
    Eq. 5 (schedule) and Table 1 (training distribution).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from toyguide.errors import InputError

__all__ = ["LogNormalNoise", "edm_schedule"]


def edm_schedule(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """The EDM noise levels, from ``sigma_max`` down to ``sigma_min`` and then 0.

    Args:
        steps: The number of solver steps, at least 1.
        sigma_min: The last level before 0, at least 1e-9.
        sigma_max: The first level, above ``sigma_min``, at most 1e9.
        rho: From 0.1 to 1000; larger values space the levels more closely towards ``sigma_min``, 1 spaces them evenly.

    Returns:
        ``steps + 1`` levels in float64, the last one 0.

    Raises:
        InputError: If a number is out of range.
    """
    if steps < 1:
        raise InputError(f"steps {steps}: expected a whole number of at least 1")
    if not 1e-9 <= sigma_min < sigma_max <= 1e9:
        raise InputError(
            f"sigma range {sigma_min} … {sigma_max}: expected 0 < sigma_min < sigma_max, both from 1e-9 to 1e9"
        )
    if not 0.1 <= rho <= 1000:  # outside this range powers of the levels overflow or round to the same number
        raise InputError(f"rho {rho}: expected a number from 0.1 to 1000")
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    hi, lo = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    levels = ((1 - ramp) * hi + ramp * lo) ** rho  # exact at both ends
    return torch.cat([levels, levels.new_zeros(1)])


@dataclass(frozen=True)
class LogNormalNoise:
    """Noise levels for training, with ``log sigma ~ N(mean, std^2)``."""

    mean: float
    std: float

    def sample(self, n: int, generator: torch.Generator | None = None, device: str | torch.device = "cpu") -> Tensor:
        """``n`` noise levels in float32, with shape ``(n,)``."""
        z = torch.randn(n, generator=generator, dtype=torch.float32, device=device)
        return torch.exp(self.mean + self.std * z)
