"""Diagnostics of saddle-free guidance: its power iteration compared with the exact eigenpair.

SFG carries a direction v from step to step and estimates ``u = sigma^2 J v``, J the score's Jacobian, by a finite
difference of length ``h sigma``. Three errors are measured here: the angle between the carried v and the top
eigenvector at the trajectory's current point (:func:`along`), the error of the finite difference
(:func:`product_error`), and the number of iterations until v converges (:func:`iterations`).

The error of the difference is half of ``h sigma^3`` times the third derivative of the log-density along v, so it falls
with h until the rounding error, which grows as 1/h, dominates. A power iteration shrinks the tangent of v's angle at
least by the ratio of the shifted eigenvalues, ``(sigma^2 lambda_2 + alpha) / (sigma^2 lambda_1 + alpha)``.

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
    """The part of a run that the diagnostics use; ``toyguide.Result`` provides it."""

    @property
    def x(self) -> Tensor: ...
    @property
    def sigma(self) -> Tensor: ...
    @property
    def trace(self) -> Mapping[str, Tensor]: ...


@dataclass(frozen=True, eq=False)
class Inside:
    """SFG's internal quantities at the beginning of each step of each trajectory; NaN where the rule did not guide.

    Attributes:
        sigma: The noise level of each step, with shape ``(steps,)``.
        angle: The angle between the carried v and the field's top eigenvector, in degrees from 0 to 90, with shape
            ``(steps, n)``. Meaningless where the top eigenvalues are equal (far from all data).
        cosine: The cosine between v and that of the previous step, with shape ``(steps, n)``; NaN at the first step.
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
        """Where the Heaviside step is 1, lambda > 0, with shape ``(steps, n)``."""
        return self.lam > 0

    @property
    def wrong(self) -> Tensor:
        """Where the signs of lambda and of the exact top eigenvalue differ, with shape ``(steps, n)``."""
        return (self.on != (self.top_eigenvalue > 0)) & self.lam.isfinite()


@dataclass(frozen=True, eq=False)
class Iterated:
    """Power iteration at n points, after several numbers of iterations.

    Attributes:
        angle: The angle between v and the top eigenvector, in degrees from 0 to 90, with shape ``(counts, n)``.
        lam: The Rayleigh quotient of v, ``v' (sigma^2 J) v``, with shape ``(counts, n)``.
        top_eigenvalue: Its limit, the top eigenvalue times sigma^2, with shape ``(n,)``.
    """

    angle: Tensor
    lam: Tensor
    top_eigenvalue: Tensor


@torch.no_grad()
def along(result: Run, field: Field) -> Inside:
    """SFG's power iteration along the trajectories of a run.

    Args:
        result: A run of ``sfg``, or of a rule derived from it.
        field: The field, on the CPU, whose top eigenvector v is compared with: the run's main field shows the error of
            the iteration alone, the exact field that of the network too. Evaluates one Hessian per step and trajectory.

    Raises:
        InputError: If the run has no trace of SFG.
    """
    if not {"v", "lambda"} <= set(result.trace):
        raise InputError("power iteration: the run has no trace of v and lambda, expected one of sfg")
    v, lam = result.trace["v"].double(), result.trace["lambda"].double()
    values, angles = [], []
    for x, sigma, v_here in zip(result.x, result.sigma.tolist(), v, strict=False):  # no step starts at the last point
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

    The difference is computed in the dtype of ``x`` and includes its rounding error; the exact product in float64.

    Args:
        field: An exact or a learned field.
        x: Points, with shape ``(..., d)``.
        sigma: Their noise level, positive.
        v: Unit vectors, of the same shape.
        hs: The steps of the finite differences, in units of sigma.

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
        v0: The initial unit vectors, with shape ``(n, d)``.
        alpha: SFG's least shift.
        counts: The numbers of iterations to report, rising; 0 is the start.
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
    """The angle between vectors and unit axes up to sign, in degrees; accurate for small angles too."""
    along = (v * axis).sum(-1, keepdim=True)
    return torch.atan2((v - along * axis).norm(dim=-1), along[..., 0].abs()).rad2deg()
