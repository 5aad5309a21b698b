"""Saddle-free guidance's inner workings made visible: its power iteration against the exact eigenpair.

SFG carries a direction v from step to step and estimates ``u = sigma^2 J v``, J the score's Jacobian, by a finite
difference of length ``h sigma``. Three things can be off, and each is measured here: how far the carried v lags behind
the top eigenvector of the place where the trajectory is (:func:`along`), what the finite difference is off by
(:func:`product_error`), and how many iterations the eigenvector takes (:func:`iterations`).

The difference's error is half of ``h sigma^3`` times the third derivative of the log-density along v, so it falls with
h, until rounding, which grows as 1/h, takes over. A power iteration shrinks the tangent of v's angle by the ratio of
the shifted eigenvalues, ``(sigma^2 lambda_2 + alpha) / (sigma^2 lambda_1 + alpha)``, or by more.

References:
    Yeats et al., Saddle-Free Guidance, 2025, arXiv 2511.21863.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from toyguide.errors import InputError
from toyguide.fields import Field
from toyguide.geometry.curvature import top_eigenpair
from toyguide.guidance.rules.sfg import finite_product, power_step

__all__ = ["Inside", "Iterated", "Run", "along", "iterations", "product_error"]


class Run(Protocol):
    """What is looked at of a run; ``toyguide.Result`` is one."""

    @property
    def x(self) -> Tensor: ...
    @property
    def sigma(self) -> Tensor: ...
    @property
    def trace(self) -> Mapping[str, Tensor]: ...


@dataclass(frozen=True, eq=False)
class Inside:
    """SFG from within, at the beginning of each step of each trajectory; NaN where the rule did not guide.

    Attributes:
        sigma: The noise level of each step, with shape ``(steps,)``.
        angle: Between the carried v and the field's top eigenvector, in degrees from 0 to 90, with shape
            ``(steps, n)``. Where the top eigenvalues are equal (far from all data) it means nothing.
        cosine: Between v and the step before's, with shape ``(steps, n)``; NaN at the first step.
        lam: SFG's estimate of the eigenvalue, lambda, with shape ``(steps, n)``.
        top_eigenvalue: The field's top eigenvalue times sigma^2, what lambda estimates, with shape ``(steps, n)``.
    """

    sigma: Tensor
    angle: Tensor
    cosine: Tensor
    lam: Tensor
    top_eigenvalue: Tensor

    @property
    def on(self) -> Tensor:
        """Where the Heaviside is on, lambda > 0, with shape ``(steps, n)``."""
        return self.lam > 0

    @property
    def wrong(self) -> Tensor:
        """Where it is on and the exact top eigenvalue is not positive, or the other way round."""
        return (self.on != (self.top_eigenvalue > 0)) & self.lam.isfinite()


@dataclass(frozen=True, eq=False)
class Iterated:
    """Power iterations at n points, after each of some counts of them.

    Attributes:
        angle: Between v and the top eigenvector, in degrees from 0 to 90, with shape ``(counts, n)``.
        lam: v's Rayleigh quotient ``v' (sigma^2 J) v``, with shape ``(counts, n)``.
        top_eigenvalue: What it tends to, the top eigenvalue times sigma^2, with shape ``(n,)``.
    """

    angle: Tensor
    lam: Tensor
    top_eigenvalue: Tensor


@torch.no_grad()
def along(result: Run, field: Field) -> Inside:
    """SFG along the trajectories of a run.

    Args:
        result: A run of ``sfg``, or of a rule on top of it.
        field: Whose top eigenvector v is compared with, on the CPU: the run's own main field shows what the iteration
            is off by, the exact field what the whole of SFG is. One Hessian for each step and trajectory.

    Raises:
        InputError: If the run has no trace of SFG's.
    """
    if not {"v", "lambda"} <= set(result.trace):
        raise InputError("power iteration: the run has no trace of v and lambda, expected one of sfg")
    v, lam = result.trace["v"].double(), result.trace["lambda"].double()
    values, angles = [], []
    for x, sigma, v_here in zip(result.x, result.sigma.tolist(), v, strict=False):  # the last point is no step's start
        value, vector = top_eigenpair(sigma**2 * field.hessian(x.double(), sigma))
        values.append(value)
        angles.append(_angle(v_here, vector))
    cosine = torch.full_like(lam, torch.nan)
    cosine[1:] = torch.nn.functional.cosine_similarity(v[1:], v[:-1], dim=-1)
    top = torch.stack(values).where(lam.isfinite(), torch.nan)
    return Inside(result.sigma[:-1].double(), torch.stack(angles), cosine, lam, top)


@torch.no_grad()
def product_error(field: Field, x: Tensor, sigma: float, v: Tensor, hs: Sequence[float]) -> Tensor:
    """The relative error of SFG's finite-difference product, ``|u - sigma^2 J v| / |sigma^2 J v|``.

    The difference is made in the dtype of ``x``, float32 or float64, whose rounding it shows; the product that it is
    compared with in float64.

    Args:
        field: An exact or a learned field.
        x: Points, with shape ``(..., d)``.
        sigma: Their noise level, positive.
        v: Unit vectors, of the same shape.
        hs: The steps, in units of sigma.

    Returns:
        With shape ``(len(hs), ...)``, float64.
    """
    direction = v.double()
    exact = sigma**2 * (field.hessian(x.double(), sigma) @ direction[..., None])[..., 0]
    denoised = field.denoise(x, sigma)
    steps = [h * sigma for h in hs]
    products = [finite_product(field.denoise(x + step * v, sigma), denoised, v, step) for step in steps]
    return torch.stack([(u.double() - exact).norm(dim=-1) / exact.norm(dim=-1) for u in products])


@torch.no_grad()
def iterations(field: Field, x: Tensor, sigma: float, v0: Tensor, alpha: float, counts: Sequence[int]) -> Iterated:
    """Repeated power iterations at fixed points, with exact products.

    Args:
        field: An exact or a learned field.
        x: Points, with shape ``(n, d)``.
        sigma: Their noise level.
        v0: The unit vectors that it starts from, with shape ``(n, d)``.
        alpha: SFG's least shift.
        counts: After how many iterations to look, rising; 0 is the start.
    """
    matrix = sigma**2 * field.hessian(x.double(), sigma)
    value, vector = top_eigenpair(matrix)
    v, shift = v0.double(), torch.full_like(value, alpha)[:, None]
    angles, lams = [], []
    for count in range(max(counts) + 1):
        lam, v_next, shift = power_step((matrix @ v[..., None])[..., 0], v, shift)
        if count in counts:
            angles.append(_angle(v, vector))
            lams.append(lam[:, 0])
        v = v_next
    return Iterated(torch.stack(angles), torch.stack(lams), value)


def _angle(v: Tensor, axis: Tensor) -> Tensor:
    """The angle between vectors and unit axes without a sign, in degrees, right for the smallest ones too."""
    along = (v * axis).sum(-1, keepdim=True)
    return torch.atan2((v - along * axis).norm(dim=-1), along[..., 0].abs()).rad2deg()
