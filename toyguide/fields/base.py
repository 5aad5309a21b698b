"""Fields: anything that has a density and a score at every noise level, and the spaces their values live in.

The EDM convention is used throughout: ``x = x0 + sigma * n`` with ``n ~ N(0, I)``, so the field at ``sigma`` is the
data distribution convolved with ``N(0, sigma^2 I)``. One score, four ways to write it:

    score     s = grad log p(x; sigma)
    denoised  D = x + sigma^2 s                  (the posterior mean of x0)
    eps       e = (x - D) / sigma = -sigma s     (the slope dx/dsigma of the probability-flow ODE)
    velocity  v = e - D                          (flow matching, t = sigma / (1 + sigma), z = x / (1 + sigma))

These conversions live here and nowhere else. Rules whose weights sum to one give the same result in all four
spaces; rules with norms, projections or momentum do not, and state theirs.

References:
    Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, 2022, arXiv 2206.00364.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

__all__ = [
    "Field",
    "NoisierField",
    "Sigma",
    "as_sigma",
    "denoised_from_eps",
    "denoised_from_score",
    "denoised_from_velocity",
    "eps_from_denoised",
    "score_from_denoised",
    "velocity_from_denoised",
]

Sigma = float | Tensor


def as_sigma(sigma: Sigma, x: Tensor) -> Tensor:
    """The noise level as a tensor that broadcasts against ``x``.

    Args:
        sigma: A scalar, or a tensor that broadcasts to ``x.shape[:-1]``; not negative.
        x: Points, with shape ``(..., d)``.

    Returns:
        ``sigma`` with a trailing axis of length 1, in the dtype and on the device of ``x``.
    """
    return torch.as_tensor(sigma, dtype=x.dtype, device=x.device)[..., None]


def _factor(sigma: Sigma, x: Tensor) -> Sigma:
    """``as_sigma``, but a number stays one: a tensor made of it would cost more than what is done with it."""
    return sigma if isinstance(sigma, float) else as_sigma(sigma, x)


def denoised_from_score(score: Tensor, x: Tensor, sigma: Sigma) -> Tensor:
    """``D = x + sigma^2 s``."""
    return x + _factor(sigma, x) ** 2 * score


def score_from_denoised(denoised: Tensor, x: Tensor, sigma: Sigma) -> Tensor:
    """``s = (D - x) / sigma^2``; sigma must be positive."""
    return (denoised - x) / _factor(sigma, x) ** 2


def eps_from_denoised(denoised: Tensor, x: Tensor, sigma: Sigma) -> Tensor:
    """``e = (x - D) / sigma``; sigma must be positive."""
    return (x - denoised) / _factor(sigma, x)


def denoised_from_eps(eps: Tensor, x: Tensor, sigma: Sigma) -> Tensor:
    """``D = x - sigma e``."""
    return x - _factor(sigma, x) * eps


def velocity_from_denoised(denoised: Tensor, x: Tensor, sigma: Sigma) -> Tensor:
    """``v = e - D``, the flow-matching velocity ``n - x0``; sigma must be positive."""
    return eps_from_denoised(denoised, x, sigma) - denoised


def denoised_from_velocity(velocity: Tensor, x: Tensor, sigma: Sigma) -> Tensor:
    """``D = (x - sigma v) / (1 + sigma)``."""
    s = _factor(sigma, x)
    return (x - s * velocity) / (1 + s)


class Field(ABC):
    """A density and its derivatives at every noise level.

    ``x`` has shape ``(..., d)``; ``sigma`` is a scalar or broadcasts to ``x.shape[:-1]``. Results follow the dtype
    and device of ``x``.
    """

    dim: int

    @property
    def evaluations(self) -> int:
        """How many network or mixture evaluations one evaluation of this field costs."""
        return 1

    @abstractmethod
    def log_density(self, x: Tensor, sigma: Sigma) -> Tensor:
        """``log p(x; sigma)``, with shape ``(...)``. A learned field's is unnormalised."""

    @abstractmethod
    def score(self, x: Tensor, sigma: Sigma) -> Tensor:
        """``grad log p(x; sigma)``, with shape ``(..., d)``."""

    @abstractmethod
    def hessian(self, x: Tensor, sigma: Sigma) -> Tensor:
        """The Hessian of ``log p(x; sigma)``, which is the score's Jacobian, with shape ``(..., d, d)``."""

    def jvp(self, x: Tensor, sigma: Sigma, v: Tensor) -> Tensor:
        """The Hessian times vectors of shape ``(..., d)``: how the score changes along them; with that shape."""
        return (self.hessian(x, sigma) @ v[..., None])[..., 0]

    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        """The posterior mean of the clean point, ``D = x + sigma^2 s``, with shape ``(..., d)``."""
        return denoised_from_score(self.score(x, sigma), x, sigma)


class NoisierField(Field):
    """A field seen at a noise level raised by a fixed share: a weak model that needs no training.

    On an exact field the error is known, so the best autoguidance weight is too. Karras et al. 2024 (section 4) do a
    little more: they raise the level by adding noise to the points too (``toyguide.fields.degradations``).

    Args:
        field: The field to degrade.
        relative: The share added to the noise level: the result at ``sigma`` is ``field`` at ``sigma (1 + relative)``.
    """

    def __init__(self, field: Field, relative: float) -> None:
        self.field, self.relative, self.dim = field, relative, field.dim

    @property
    def evaluations(self) -> int:
        return self.field.evaluations

    def _raised(self, sigma: Sigma) -> Sigma:
        return sigma * (1 + self.relative)

    def log_density(self, x: Tensor, sigma: Sigma) -> Tensor:
        return self.field.log_density(x, self._raised(sigma))

    def score(self, x: Tensor, sigma: Sigma) -> Tensor:
        return self.field.score(x, self._raised(sigma))

    def hessian(self, x: Tensor, sigma: Sigma) -> Tensor:
        return self.field.hessian(x, self._raised(sigma))
