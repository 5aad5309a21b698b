"""A target's unnormalised log-density at sigma = 0, and whether it has a finite integral."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from toyguide.errors import InputError
from toyguide.fields.mixtures import GaussianMixture
from toyguide.targets.algebra import UNBOUNDED, quadratic_of
from toyguide.targets.target import Target

__all__ = ["Product"]

_DIRECTIONS = 1440  # of the plane; a component 50 times as long as wide is seen by ten of them


@dataclass(frozen=True, eq=False)
class Product:
    """The product of powers itself.

    Attributes:
        target: The target.
        fields: The exact fields of its roles.
    """

    target: Target
    fields: Mapping[str, GaussianMixture]

    @property
    def dim(self) -> int:
        return next(iter(self.fields.values())).dim

    def log_density(self, x: Tensor) -> Tensor:
        """``log q(x)`` up to a constant, with shape ``(...)``."""
        total = torch.zeros(x.shape[:-1], dtype=x.dtype, device=x.device)
        for role in self.target.roles:
            total = total + self.target.powers[role] * self.fields[role].log_density(x, 0.0)
        if self.target.reward is not None:
            total = total + self.target.reward.value(x[..., : len(self.target.reward.b)])
        return total

    def score(self, x: Tensor) -> Tensor:
        """``grad log q(x)``, with the shape of ``x``."""
        total = torch.zeros_like(x)
        for role in self.target.roles:
            total = total + self.target.powers[role] * self.fields[role].score(x, 0.0)
        if self.target.reward is not None:
            own = len(self.target.reward.b)
            total[..., :own] += self.target.reward.gradient(x[..., :own])
        return total

    def hessian(self, x: Tensor) -> Tensor:
        """The Hessian of ``log q(x)``, with shape ``(..., d, d)``."""
        total = torch.zeros((*x.shape, self.dim), dtype=x.dtype, device=x.device)
        for role in self.target.roles:
            total = total + self.target.powers[role] * self.fields[role].hessian(x, 0.0)
        if self.target.reward is not None:
            own = len(self.target.reward.b)
            total[..., :own, :own] -= self.target.reward.P.to(x)
        return total

    def check_tails(self) -> None:
        """That the density of a plane falls in every direction.

        Far out along a unit vector u the widest component rules each field: ``log p -> -t^2/2 min_k u' C_k^-1 u``. The
        product falls where the sum of these, by their powers, and of the reward's ``u' P u`` is positive.

        Raises:
            InputError: If it does not.
        """
        angle = torch.arange(_DIRECTIONS, dtype=torch.float64) * (math.pi / _DIRECTIONS)
        u = torch.stack([angle.cos(), angle.sin()], -1)
        _, reward = quadratic_of(self.target, {}, self.dim)
        falling = torch.einsum("nd,de,ne->n", u, reward, u)
        scale = falling.abs()
        for role in self.target.roles:
            inverse = torch.linalg.inv(self.fields[role].covariances)
            least = torch.einsum("nd,kde,ne->nk", u, inverse, u).amin(1)
            falling = falling + self.target.powers[role] * least
            scale = scale + abs(self.target.powers[role]) * least
        if not bool((falling > 1e-9 * scale).all()):
            raise InputError(f"target: {UNBOUNDED}")
