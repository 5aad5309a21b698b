"""Sliding-mode control CFG: a step of fixed size towards the sliding surface is taken from the velocities' difference.

    e  = v_main - v_uncond,   v = eps - D
    s  = (e - e_before) + lam e_before
    e <- e - K sign(s)        coordinate by coordinate
    v  = v_uncond + w e

e_before is the corrected e of the step before; in the first one it is e itself, where sign(s) is sign(e) for any
positive lam. Under a second-order sampler all evaluations of a step refer to the step before. The rule depends on the
axes, because of the sign, and on the units of v, in which K is counted. The authors recommend K = 0.2 for latents of
standard deviation 1; the default here is half of it, for data of half that size. Their warm-up without guidance is left
to the interval.
"""

from __future__ import annotations

import torch
from torch import Tensor

from toyguide.fields.base import denoised_from_velocity
from toyguide.guidance.base import Limit, PerTrajectory, Rule
from toyguide.guidance.evaluation import Evaluation, Guided

History = tuple[Tensor, Tensor]
"""The corrected e of the step before and of this one, each with shape ``(n, d)``; 0 before the first step."""


class SlidingModeCfg(Rule):
    """See the module's docstring."""

    key = "smc-cfg"
    title = "Sliding-mode control CFG (CFG-Ctrl)"
    short = "SMC-CFG"
    formula = (
        r"v = v_\mathrm{uncond} + w\,e, \quad e \leftarrow e - K\,\mathrm{sign}\big((e - e^-) + \lambda\, e^-\big),"
        r" \quad e = v_\mathrm{main} - v_\mathrm{uncond} \qquad (v = \epsilon - D)"
    )
    source = "CFG-Ctrl, 2026, arXiv 2603.03281; as in the authors' code"
    summary = (
        "CFG on a difference from which K is taken in each coordinate and step, to make it decay faster and overshoot "
        "less at large weights. Depends on the axes. Where the difference is smaller than K it is overcorrected."
    )
    family = "Several fields"
    needs = ("main", "uncond")
    unguided = {"w": 1.0, "K": 0.0}
    off = {"K": 0.0}
    limits = (Limit({"K": 0.0}, "cfg", same=("w",)),)
    equivariant = ("translation",)
    batchable = True

    w = PerTrajectory(
        4.0, bounds=(0.0, 30.0), softbounds=(0.0, 10.0), step=0.1, doc="Guidance weight; 1 is CFG's none."
    )
    lam = PerTrajectory(
        5.0, bounds=(0.01, 100.0), softbounds=(0.01, 10.0), step=0.05, doc="Slope of the sliding surface (λ)."
    )
    K = PerTrajectory(
        0.1, bounds=(0.0, 10.0), softbounds=(0.0, 1.0), step=0.01, doc="The correction, in units of velocity."
    )

    def begin(self, at: Evaluation, generator: torch.Generator) -> tuple[Tensor, History]:
        return at.x, (torch.zeros_like(at.x), torch.zeros_like(at.x))

    def guide(self, at: Evaluation, memory: History) -> Guided:
        at.denoised_each("main", "uncond")
        uncond = at.velocity("uncond")
        e = at.velocity("main") - uncond
        before = memory[1] if at.is_first else memory[0]
        e = e - self.K * (e - before + self.lam * before).sign()
        return Guided(denoised_from_velocity(uncond + self.w * e, at.x, at.sigma), memory=(before, e))
