"""Adapters: small networks that add to a frozen field what guidance would, at any weight.

    log p_w = log p_main + (w - 1) psi(x; sigma, w),   psi = g / sigma * F(x; sigma, w)

F is a network of magnitude-preserving layers (``toyguide.fields.layers``) with one output, g a learned number. At
weight 1 there is exactly nothing to add. What CFG adds to a score, ``(w - 1)(s_main - s_uncond)``, is a gradient, and
so is what an adapter adds.

References:
    Adapter Guidance Distillation, 2025, arXiv 2503.07274.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from toyguide.fields.base import Field, Sigma, as_sigma, checked
from toyguide.fields.layers import UnitMLP, noise_inputs

__all__ = ["Adapter"]

_MIDDLE, _SPREAD = 3.5, 1.5  # of the weights it is trained with, uniform from 1 to 6


class Adapter(nn.Module, Field):
    """What is added to a main field at a weight, as a field: ``(w - 1) psi`` with its gradient and Hessian.

    Args:
        dim: The dimension of the data.
        width: The features of each hidden layer.
        layers: The number of hidden layers.
        sigma_data: The data's per-axis standard deviation, with shape ``(dim,)``.
        generator: The random numbers of the initial weights.

    Attributes:
        w: The weight, a number or one for each point, with shape ``(n, 1)``; 1 until :meth:`at_weight` changes it.
        label: The class that its main field models; None for the union.
    """

    def __init__(
        self, dim: int, width: int, layers: int, sigma_data: Tensor, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.sigma_data: Tensor
        self.dim, self.width, self.layers = dim, width, layers
        self.body = UnitMLP([dim + 3, *[width] * layers, 1], generator)
        self.gain = nn.Parameter(torch.full((), 0.1, dtype=torch.float32))
        self.register_buffer("sigma_data", torch.as_tensor(sigma_data, dtype=torch.float32).clone())
        self.w: float | Tensor = 1.0
        self.label: str | None = None
        self.metadata: dict[str, object] = {}

    def at_weight(self, w: float | Tensor) -> Adapter:
        """The adapter at a weight: a number, or a tensor with one for each point, with shape ``(n, 1)``."""
        view = copy.copy(self)
        view.w = w
        return view

    def log_density(self, x: Tensor, sigma: Sigma) -> Tensor:
        """``(w - 1) psi``, with shape ``(...)``."""
        x, sigma = checked(x, sigma, self.dim, positive=True)
        w = torch.as_tensor(self.w, dtype=x.dtype, device=x.device)
        weight = ((w - _MIDDLE) / _SPREAD).expand(*x.shape[:-1], 1)
        inputs = torch.cat([noise_inputs(x, sigma, self.sigma_data), weight], -1)
        return ((w - 1) * self.gain.to(x.dtype) / as_sigma(sigma, x) * self.body(inputs))[..., 0]

    @torch.enable_grad()
    def score(self, x: Tensor, sigma: Sigma) -> Tensor:
        x, sigma = checked(x, sigma, self.dim, positive=True)
        further = x.requires_grad or self.gain.requires_grad
        at = x if x.requires_grad else x.detach().requires_grad_()
        return torch.autograd.grad(self.log_density(at, sigma).sum(), at, create_graph=further)[0]

    @torch.enable_grad()
    def hessian(self, x: Tensor, sigma: Sigma) -> Tensor:
        at = checked(x, sigma, self.dim, positive=True)[0].detach().requires_grad_()
        parts = self.score(at, sigma).unbind(-1)
        return torch.stack([torch.autograd.grad(part.sum(), at, retain_graph=True)[0] for part in parts], -2)

    def normalize(self) -> None:
        """Scale every weight row to norm sqrt(inputs)."""
        self.body.normalize()
