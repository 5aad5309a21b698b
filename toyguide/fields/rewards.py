"""Quadratic log-rewards, and what they make of a mixture of Gaussians.

    r(x) = b . x - x' P x / 2 + constant

A linear reward has P = 0. The nearness to a point y is ``-|x - y|^2 / (2 s^2)``: b is ``y / s^2`` and P is ``1 / s^2``.
A Gaussian times ``e^r`` is a Gaussian, so ``p e^r`` is a mixture again: with ``S'^-1 = S^-1 + P``, each component has

    mean' = S' (S^-1 mean + b),   covariance' = S',
    log weight' = log weight + (mean' . S'^-1 mean' - mean . S^-1 mean + log det S' - log det S) / 2
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from toyguide.errors import InputError
from toyguide.fields.mixtures import GaussianMixture

__all__ = ["Reward"]


@dataclass(frozen=True, eq=False)
class Reward:
    """A quadratic log-reward; see the module's docstring.

    Attributes:
        b: The linear part, with shape ``(d,)``, float64.
        P: The precision, symmetric, with shape ``(d, d)``, float64.
        constant: What is added.
    """

    b: Tensor
    P: Tensor
    constant: float = 0.0

    @classmethod
    def linear(cls, direction: Tensor) -> Reward:
        """``r(x) = direction . x``; direction has shape ``(d,)``."""
        b = direction.double()
        return cls(b, torch.zeros(len(b), len(b), dtype=torch.float64, device=b.device))

    @classmethod
    def near(cls, y: Tensor, observed: Tensor | None = None, scale: float = 1.0) -> Reward:
        """``r(x) = -|A (x - y)|^2 / (2 scale^2)``: how near x is to a point, or to it in some coordinates.

        Args:
            y: The point, with shape ``(d,)``.
            observed: A, with shape ``(k, d)``; None for all coordinates.
            scale: The standard deviation of the Gaussian that ``e^r`` is.
        """
        y = y.double()
        a = torch.eye(len(y), dtype=torch.float64, device=y.device) if observed is None else observed.double()
        precision = a.T @ a / scale**2
        return cls(precision @ y, precision, -float(y @ precision @ y) / 2)

    def __mul__(self, factor: float) -> Reward:
        return Reward(self.b * factor, self.P * factor, self.constant * factor)

    def value(self, x: Tensor) -> Tensor:
        """``r(x)``, with shape ``(...)`` for x of shape ``(..., d)``."""
        return x @ self.b.to(x) - ((x @ self.P.to(x)) * x).sum(-1) / 2 + self.constant

    def gradient(self, x: Tensor) -> Tensor:
        """``grad r(x)``, with the shape of x."""
        return self.b.to(x) - x @ self.P.to(x)

    def tilted(self, mixture: GaussianMixture) -> GaussianMixture:
        """The mixture ``p e^r``, normalised.

        Raises:
            InputError: If it cannot be normalised, because the reward grows faster than a component falls.
        """
        inverse = torch.linalg.inv(mixture.covariances)
        precision = inverse + self.P.to(inverse)
        if float(torch.linalg.eigvalsh(precision).min()) <= 0:
            raise InputError("reward: grows faster than the density falls, expected a product with a finite integral")
        covariances = torch.linalg.inv(precision)
        pull = (inverse @ mixture.means[..., None])[..., 0]
        means = (covariances @ (pull + self.b.to(pull))[..., None])[..., 0]
        exponent = ((means[:, None] @ precision @ means[..., None])[:, 0, 0] - (pull * mixture.means).sum(-1)) / 2
        volume = (torch.logdet(covariances) - torch.logdet(mixture.covariances)) / 2
        weights = torch.softmax(mixture.weights.log() + exponent + volume, 0)
        left = weights > 0  # of components far from the reward nothing is left
        return GaussianMixture(weights[left], means[left], (covariances + covariances.mT)[left] / 2)
