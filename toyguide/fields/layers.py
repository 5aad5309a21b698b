"""Magnitude-preserving layers, as of ``toyguide.fields.networks``, for small networks whose output is not a density.

Every weight row has unit norm and SiLU is divided by its gain, so that inputs of unit magnitude give outputs of unit
magnitude. Derivatives are left to autograd.

References:
    Karras et al., Analyzing and Improving the Training Dynamics of Diffusion Models, 2023, arXiv 2312.02696.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from toyguide.fields.base import Sigma, as_sigma
from toyguide.fields.networks import SILU_GAIN, unit_rows

__all__ = ["UnitMLP", "noise_inputs"]


class UnitMLP(nn.Module):
    """Linear layers with SiLUs between them.

    Args:
        sizes: The inputs, the features of each hidden layer, and the outputs.
        generator: The random numbers of the initial weights.
    """

    def __init__(self, sizes: Sequence[int], generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(n_out, n_in, generator=generator, dtype=torch.float32))
            for n_in, n_out in itertools.pairwise(sizes)
        )
        self.normalize()

    def forward(self, h: Tensor) -> Tensor:
        """The outputs, with shape ``(..., outputs)``, of inputs ``h``, with shape ``(..., inputs)``; in their dtype."""
        for i, weights in enumerate(self.weights):
            h = h if i == 0 else functional.silu(h) / SILU_GAIN
            h = h @ functional.normalize(weights.to(h.dtype), dim=-1).T
        return h

    def normalize(self) -> None:
        """Scale every weight row to norm sqrt(inputs): training changes directions, not magnitudes."""
        for weights in self.weights:
            unit_rows([weights])


def noise_inputs(x: Tensor, sigma: Sigma, sigma_data: Tensor) -> Tensor:
    """The inputs that tell a network where it is: ``x / sqrt(sigma^2 + sigma_data^2)``, ``log(sigma) / 4`` and 1.

    Args:
        x: Points, with shape ``(..., d)``.
        sigma: Noise levels, positive; a scalar or broadcasting to ``x.shape[:-1]``.
        sigma_data: The data's per-axis standard deviation, with shape ``(d,)``.

    Returns:
        With shape ``(..., d + 2)``.
    """
    s = as_sigma(sigma, x)
    level = (s.log() / 4).expand(*x.shape[:-1], 1)
    return torch.cat([x * (s.square() + sigma_data.to(x).square()).rsqrt(), level, torch.ones_like(level)], -1)
