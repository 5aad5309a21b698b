"""Rectified-CFG++: the push of CFG, taken where an unguided step would lead.

    x~ = the point of the main field's Euler step from sigma to sigma~ = sigma + share (sigma' - sigma)
    v  = v_main(x; sigma) + (w - 1) (v_main(x~; sigma~) - v_uncond(x~; sigma~))

It works on velocities, ``v = eps - D``, whose gap is ``-(1 + 1/sigma)`` times that of the denoised points, so that

    D = D_main(x) + (w - 1) sigma (1 + sigma~) / ((1 + sigma) sigma~) (D_main(x~) - D_uncond(x~))

A whole step ahead of the last one the gap has no velocity (sigma~ = 0): it is not guided. The authors' code also adds
noise of standard deviation 0.005 to x~, which is left out here.
"""

from __future__ import annotations

from typing import Any

import param

from toyguide.fields import denoised_from_velocity
from toyguide.guidance.base import Limit, PerTrajectory, Rule
from toyguide.guidance.evaluation import Evaluation, Guided
from toyguide.targets import Target


class RectifiedCfgPlusPlus(Rule):
    """See the module's docstring. The paper counts from 0: its weight is ``w - 1``, 4.5 in the authors' code."""

    key = "rectified-cfg++"
    title = "Rectified-CFG++"
    formula = (
        r"v = v_\mathrm{main}(x) + (w-1)\,\bigl(v_\mathrm{main}(\tilde x) - v_\mathrm{uncond}(\tilde x)\bigr), \quad"
        r" \tilde x = x + (\tilde\sigma - \sigma)\,\epsilon_\mathrm{main}(x)"
    )
    source = "Saini et al., Rectified-CFG++, 2025, arXiv 2510.07631, and the authors' code"
    summary = (
        "CFG whose push is evaluated one unguided step ahead, nearer to the data, so that a guided step leaves the "
        "unguided path less. Costs three evaluations; made for few steps with flow models."
    )
    family = "Several fields"
    needs = ("main", "uncond")
    unguided = {"w": 1.0}
    off = {"w": 1.0, "share": 0.0}
    limits = (Limit({"share": 0.0}, "cfg", same=("w",)),)
    first_order = True
    batchable = True

    w = PerTrajectory(5.5, bounds=(0.0, 30.0), softbounds=(0.0, 10.0), step=0.1, doc="Guidance weight; 1 is unguided.")
    share: Any = param.Number(
        1.0, bounds=(0.0, 1.0), step=0.05, doc="How far ahead the push is evaluated, in steps; 0 is CFG."
    )

    def target(self) -> Target:
        return Target({"main": self.w, "uncond": 1 - self.w})

    def guide(self, at: Evaluation, memory: Any) -> Guided:
        main = at.denoised("main")
        level = at.sigma + self.share * (at.next_sigma - at.sigma)
        if level == 0:
            return Guided(main)
        ahead = at.moved(main + level / at.sigma * (at.x - main), level)
        ahead.denoised_each("main", "uncond")
        push = ahead.velocity("main") - ahead.velocity("uncond")
        return Guided(denoised_from_velocity(at.velocity("main") + (self.w - 1) * push, at.x, at.sigma))
