"""Adaptive projected guidance: CFG's difference with momentum, clipped, and without most of its part along D_main.

    m <- D_main - D_uncond + beta m
    g  = m min(1, r / |m|)
    D  = D_main + (w - 1)(g_perp + eta g_par),   g_par the part of g along D_main, g_perp the rest

The rule lives in the denoiser's space. The clip acts on a copy: the momentum m itself is never clipped. It starts from
0 and is updated once in each solver step. With eta = 0 guidance is orthogonal to D_main: in that step the norm can
grow only as ``|D|^2 = |D_main|^2 + (w - 1)^2 |g_perp|^2``. What is parallel depends on where the origin is.

The paper's r for latents with standard deviation 0.5 to 1 is 4 to 12 % of such a latent's norm. The default here is 7 %
of the norm of a point in the plane with standard deviation 0.5, which is 0.7.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from toyguide.guidance.base import Limit, PerTrajectory, Rule
from toyguide.guidance.evaluation import Evaluation, Guided

Momentum = tuple[Tensor, Tensor]
"""m after the step before, and after this one; each with shape ``(n, d)``."""


class AdaptiveProjectedGuidance(Rule):
    """See the module's docstring."""

    key = "apg"
    title = "Adaptive projected guidance"
    short = "APG"
    formula = (
        r"D = D_\mathrm{main} + (w-1)\,(g_\perp + \eta\, g_\parallel), \quad g = m\,\min(1, r / \lVert m \rVert), \quad"
        r" m \leftarrow D_\mathrm{main} - D_\mathrm{uncond} + \beta\, m"
        r" \quad (\parallel, \perp \text{ to } D_\mathrm{main})"
    )
    source = (
        "Sadat et al., 2024, arXiv 2410.02416, Algorithm 1; clip and momentum in the order of the diffusers library"
    )
    summary = (
        "CFG whose difference is limited to r and loses its part along the denoised point, which would only lengthen "
        "it; a negative β takes back some of the last steps' push. Meant for large weights."
    )
    family = "Several fields"
    needs = ("main", "uncond")
    unguided = {"w": 1.0}
    off = {"eta": 1.0, "beta": 0.0, "r": math.inf}
    limits = (
        Limit({"eta": 1.0, "beta": 0.0, "r": math.inf}, "cfg", same=("w",)),
        Limit({}, "none", fields={"uncond": "main"}),
        Limit({"r": 0.0}, "none"),
    )
    equivariant = ("rotation",)
    batchable = True

    w = PerTrajectory(4.0, bounds=(0.0, 30.0), softbounds=(0.0, 10.0), step=0.1, doc="Guidance weight; 1 is unguided.")
    eta = PerTrajectory(0.0, bounds=(0.0, 1.0), step=0.05, doc="The share of the part along D that is kept (η).")
    beta = PerTrajectory(-0.5, bounds=(-1.0, 1.0), step=0.05, doc="Momentum (β); the paper's are negative.")
    r = PerTrajectory(
        0.05, bounds=(0.0, math.inf), softbounds=(0.0, 1.0), step=0.01, doc="The largest difference, in units of x."
    )

    def begin(self, at: Evaluation, generator: torch.Generator) -> tuple[Tensor, Momentum]:
        return at.x, (torch.zeros_like(at.x), torch.zeros_like(at.x))

    def guide(self, at: Evaluation, memory: Momentum) -> Guided:
        main, uncond = at.denoised_each("main", "uncond")
        before = memory[1] if at.is_first else memory[0]
        m = main - uncond + self.beta * before
        clipped = m * (self.r / m.norm(dim=-1, keepdim=True).clamp_min(1e-30)).clamp(max=1)
        square = main.square().sum(-1, keepdim=True).clamp_min(1e-30)
        along = (clipped * main).sum(-1, keepdim=True) / square * main
        return Guided(main + (self.w - 1) * (clipped - (1 - self.eta) * along), memory=(before, m))
