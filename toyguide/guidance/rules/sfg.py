"""Saddle-free guidance: out of the regions where the log-density curves upward.

One power-iteration step per solver step follows the top eigenvector v of ``sigma^2 J``, J the score's Jacobian:

    u      = (D(x + h sigma v) - D(x)) / (h sigma) - v         ( = sigma^2 J v as h -> 0)
    lambda = u . v
    alpha <- max(alpha, -lambda)
    D_SFG  = D + sigma w H(lambda) u                           (H the Heaviside step)
    v     <- (u + alpha v) / |u + alpha v|

The first line is the paper's ``(eps(x) - eps(x + h sigma v)) / h`` written in D. Where lambda <= 0 nothing is added.
The paper leaves two choices open. Here v has unit length, and its sign either persists from the random start
(``persistent``) or is flipped at each step so that v has a positive inner product with the score (``score``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import param
import torch
from torch import Tensor

from toyguide.guidance.base import PerTrajectory, Rule
from toyguide.guidance.evaluation import Evaluation, Guided


@dataclass(frozen=True)
class Direction:
    """SFG's memory: the eigenvector estimate v, with shape ``(n, d)``, and the shift alpha, with shape ``(n, 1)``."""

    v: Tensor
    alpha: Tensor


class SaddleFreeGuidance(Rule):
    """See the module's docstring; evaluates ``main`` twice."""

    key = "sfg"
    title = "Saddle-free guidance (reconstruction)"
    short = "SFG"
    formula = (
        r"D = D_\mathrm{main} + \sigma\, w\, H(\lambda)\, u, \quad"
        r" u = \frac{D_\mathrm{main}(x + h\sigma v) - D_\mathrm{main}(x)}{h\sigma} - v, \quad"
        r" \lambda = u \cdot v, \quad v \leftarrow \frac{u + \alpha v}{\lVert u + \alpha v \rVert}"
    )
    source = (
        "Yeats et al., Saddle-Free Guidance, 2025, arXiv 2511.21863; read in a review, no public code, v's sign ours"
    )
    summary = (
        "Estimates, with one power-iteration step per solver step, the direction in which the log-density curves "
        "upward most, and pushes along it where the curvature is positive: away from saddles. Needs no label and no "
        "second network. w = 0 is unguided: w is a strength here, not an extrapolation weight."
    )
    unguided = {"w": 0.0}
    batchable = True

    w = PerTrajectory(4.0, bounds=(0.0, 100.0), softbounds=(0.0, 30.0), step=0.1, doc="Strength; 0 is unguided.")
    alpha = PerTrajectory(
        1.0, bounds=(1.0, 100.0), softbounds=(1.0, 10.0), step=0.5, doc="Least shift of the power iteration (α)."
    )
    h = PerTrajectory(0.1, bounds=(1e-4, 1.0), step=0.01, doc="Finite-difference step, in units of σ.")
    sign: Any = param.Selector(
        default="persistent",
        objects=["persistent", "score"],
        doc="The sign of v: kept from the random start, or aligned with the score at each step.",
    )

    def begin(self, at: Evaluation, generator: torch.Generator) -> tuple[Tensor, Direction]:
        return at.x, Direction(random_direction(at.x, generator), at.x.new_full((len(at.x), 1), self.alpha))

    def guide(self, at: Evaluation, memory: Direction) -> Guided:
        denoised = at.denoised("main")
        correction, memory, trace = self.correction(at, denoised, memory)
        return Guided(denoised + correction, memory=memory, trace=trace)

    def correction(
        self, at: Evaluation, denoised: Tensor, memory: Direction
    ) -> tuple[Tensor, Direction, dict[str, Tensor]]:
        """The term that SFG adds to ``D_main``, the new memory, and the trace with v and lambda."""
        v = memory.v
        if self.sign == "score":
            forward = ((denoised - at.x) * v).sum(-1, keepdim=True) >= 0
            v = torch.where(forward, v, -v)
        step = self.h * at.sigma
        u = finite_product(at.denoised_at(at.x + step * v, at.sigma), denoised, v, step)
        lam, v_next, alpha = power_step(u, v, memory.alpha)
        push = at.sigma * self.w * torch.where(lam > 0, u, 0.0)
        return push, Direction(v_next, alpha), {"v": v, "lambda": lam[:, 0]}


def finite_product(ahead: Tensor, denoised: Tensor, v: Tensor, step: float | Tensor) -> Tensor:
    """``sigma^2 J v`` by a finite difference: ``u = (D(x + step v) - D(x)) / step - v``, with shape ``(n, d)``."""
    return (ahead - denoised) / step - v


def power_step(u: Tensor, v: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One power-iteration step.

    Args:
        u: The matrix's products with ``v``, with shape ``(n, d)``.
        v: Unit vectors, with shape ``(n, d)``.
        alpha: The shifts, with shape ``(n, 1)``.

    Returns:
        The Rayleigh quotients lambda, with shape ``(n, 1)``, the next v, and the next alpha.
    """
    lam = (u * v).sum(-1, keepdim=True)
    alpha = torch.maximum(alpha, -lam)
    turned = u + alpha * v
    norm = turned.norm(dim=-1, keepdim=True)
    return lam, torch.where(norm > 1e-12, turned / norm, v), alpha  # keep v if the shifted product vanishes


def random_direction(x: Tensor, generator: torch.Generator) -> Tensor:
    """Unit vectors, uniform on the sphere; drawn on the CPU so that a seed gives the same ones on every device."""
    z = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    return (z / z.norm(dim=-1, keepdim=True)).to(x)
