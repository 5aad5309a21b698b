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

import math
from abc import ABC, abstractmethod
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from toyguide._speed.buffers import transformed
from toyguide.errors import InputError

__all__ = [
    "Conditional",
    "Field",
    "NoisierField",
    "Sigma",
    "as_points",
    "as_sigma",
    "checked",
    "denoised_from_eps",
    "denoised_from_score",
    "denoised_from_velocity",
    "eps_from_denoised",
    "score_from_denoised",
    "velocity_from_denoised",
]

Sigma = float | Tensor


def as_points(x: Any) -> Tensor:
    """Points as a floating-point tensor: NumPy's floats keep their dtype, lists and whole numbers become float32.

    Raises:
        InputError: If they are not real numbers.
    """
    if not isinstance(x, Tensor):
        try:
            x = torch.tensor(x.copy()) if isinstance(x, np.ndarray) else torch.tensor(x, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError) as problem:
            raise InputError(f"points {str(x)[:40]!r}: expected numbers with shape (..., d)") from problem
    if x.is_complex():
        raise InputError(f"points of type {x.dtype}: expected real numbers")
    return x if x.is_floating_point() else x.to(torch.float32)


def checked(x: Any, sigma: Any, dim: int, positive: bool = False) -> tuple[Tensor, Sigma]:
    """The arguments of a field's methods as tensors; a noise level that is a number becomes a float.

    Noise levels in a tensor on a GPU, and those that a transform of torch.func looks at, are not checked: that would
    wait for the device.

    Args:
        x: Points: a tensor, a NumPy array or nested lists.
        sigma: Noise levels.
        dim: The dimension that the points must have.
        positive: Whether sigma must be above 0.

    Raises:
        InputError: If the points have another dimension or a noise level is negative or not finite.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        x = as_points(x)
    if x.ndim == 0 or x.shape[-1] != dim:
        raise InputError(f"points of dimension {x.shape[-1] if x.ndim else 0}: expected dimension {dim}")
    if not isinstance(sigma, Tensor):
        if isinstance(sigma, float) or np.ndim(sigma) == 0:  # np.ndim is slow
            sigma = float(sigma)
            if 0 < sigma < math.inf or (sigma == 0 and not positive):
                return x, sigma
            raise InputError(f"sigma = {sigma:g}: expected a finite number {'above 0' if positive else 'from 0 up'}")
        sigma = torch.as_tensor(sigma, dtype=x.dtype)
    if sigma.is_cpu and not transformed(sigma) and sigma.numel():
        low, high = (float(bound) for bound in sigma.detach().aminmax())
        if not ((low > 0 or (low == 0 and not positive)) and high < math.inf):
            bad = low if low <= 0 else high
            raise InputError(f"sigma = {bad:g}: expected finite numbers {'above 0' if positive else 'from 0 up'}")
    return x, sigma


def as_sigma(sigma: Sigma, x: Tensor) -> Tensor:
    """The noise level as a tensor that broadcasts with ``x``.

    Args:
        sigma: A scalar, or a tensor that broadcasts to ``x.shape[:-1]``; not negative.
        x: Points, with shape ``(..., d)``.

    Returns:
        ``sigma`` with a trailing axis of length 1, in the dtype and on the device of ``x``.
    """
    if isinstance(sigma, float):
        return x.new_full((1,), sigma)  # no copy from the CPU to a GPU
    return torch.as_tensor(sigma, dtype=x.dtype, device=x.device)[..., None]


def _factor(sigma: Sigma, x: Tensor) -> Sigma:
    """``as_sigma``, but a float stays one, since making a tensor costs more than the arithmetic."""
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
    and device of ``x``. Subclasses pass both through :func:`checked`, which accepts NumPy arrays and lists too, and
    raises ``InputError`` for points of another dimension and for noise levels that the field does not have.
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
        """The Hessian times vectors ``v`` of the shape of ``x``: how the score changes along them, ``(..., d)``.

        The Hessian is symmetric, so this is both the Jacobian-vector and the vector-Jacobian product of the score.
        """
        x, v = as_points(x), as_points(v)
        return (self.hessian(x, sigma) @ v.to(x)[..., None])[..., 0]

    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        """The posterior mean of the clean point, ``D = x + sigma^2 s``, with shape ``(..., d)``."""
        x, sigma = checked(x, sigma, self.dim)
        return denoised_from_score(self.score(x, sigma), x, sigma)


@runtime_checkable
class Conditional(Protocol):
    """A field with a view of itself at each class, such as a label-conditional network.

    Attributes:
        labels: The classes; empty for a network that takes none.
    """

    labels: tuple[str, ...]

    def with_label(self, label: str | None) -> Field:
        """The field of one class, or of the union for None."""


class NoisierField(Field):
    """A field evaluated at a relatively higher noise level: a weak model that needs no training.

    On an exact field the error is known, so the best autoguidance weight is too. Karras et al. 2024 (section 4) also
    add the noise to the points (``toyguide.fields.degradations``).

    Args:
        field: The field to degrade.
        relative: The relative increase: the result at ``sigma`` is that of ``field`` at ``sigma (1 + relative)``.
    """

    def __init__(self, field: Field, relative: float) -> None:
        self.field, self.relative, self.dim = field, relative, field.dim

    @property
    def evaluations(self) -> int:
        return self.field.evaluations

    def log_density(self, x: Tensor, sigma: Sigma) -> Tensor:
        return self.field.log_density(*self._raised(x, sigma))

    def score(self, x: Tensor, sigma: Sigma) -> Tensor:
        return self.field.score(*self._raised(x, sigma))

    def hessian(self, x: Tensor, sigma: Sigma) -> Tensor:
        return self.field.hessian(*self._raised(x, sigma))

    def jvp(self, x: Tensor, sigma: Sigma, v: Tensor) -> Tensor:
        return self.field.jvp(*self._raised(x, sigma), v)

    def _raised(self, x: Tensor, sigma: Sigma) -> tuple[Tensor, Sigma]:
        x, sigma = checked(x, sigma, self.dim)
        return x, sigma * (1 + self.relative)
