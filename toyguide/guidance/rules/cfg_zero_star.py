"""CFG-Zero*: CFG in velocities with the unconditional one rescaled, and no movement in the first steps.

    v = eps - D
    s = <v_main, v_uncond> / |v_uncond|^2
    v_guided = s v_uncond + w (v_main - s v_uncond);   0 in the first K steps

The scale s is the one that brings the unconditional velocity closest to the conditional one. So only the part of v_main
orthogonal to v_uncond is extrapolated: with both parallel nothing is guided. A velocity of 0 leaves ``x / (1 + sigma)``
as it is; the last step, which lands on the data, is never skipped. The rule depends on where the origin is, and v is
raw: it is not rescaled by the data's standard deviation.
"""

from __future__ import annotations

from typing import Any

import param

from toyguide.fields.base import denoised_from_velocity
from toyguide.guidance.base import Limit, PerTrajectory, Rule
from toyguide.guidance.evaluation import Evaluation, Guided


class CfgZeroStar(Rule):
    """See the module's docstring; evaluates nothing in the first K steps."""

    key = "cfg-zero-star"
    title = "CFG-Zero*"
    formula = (
        r"v = s\,v_\mathrm{uncond} + w\,(v_\mathrm{main} - s\,v_\mathrm{uncond}), \quad"
        r" s = \frac{\langle v_\mathrm{main}, v_\mathrm{uncond}\rangle}{\lVert v_\mathrm{uncond}\rVert^2}, \quad"
        r" v = 0 \text{ in the first } K \text{ steps} \qquad (v = \epsilon - D)"
    )
    source = "Fan et al., CFG-Zero*, 2025, arXiv 2503.18886; as in the diffusers library"
    summary = (
        "CFG for flow matching: extrapolates only where the conditional velocity turns away from the unconditional "
        "one, and skips the first steps, where the paper finds that an undertrained velocity is worse than none."
    )
    family = "Several fields"
    needs = ("main", "uncond")
    unguided = {"w": 1.0, "K": 0}
    off = {"K": 0}
    limits = (Limit({"K": 0}, "none", fields={"uncond": "main"}),)
    equivariant = ("rotation",)
    batchable = True

    w = PerTrajectory(4.0, bounds=(0.0, 30.0), softbounds=(0.0, 10.0), step=0.1, doc="Guidance weight; 1 is unguided.")
    K = param.Integer(1, bounds=(0, 100), softbounds=(0, 10), doc="The number of first steps that stand still.")

    def guide(self, at: Evaluation, memory: Any) -> Guided:
        if at.index < self.K and at.next_sigma > 0:
            return Guided(at.x / (1 + at.sigma))
        at.denoised_each("main", "uncond")
        main, uncond = at.velocity("main"), at.velocity("uncond")
        s = (main * uncond).sum(-1, keepdim=True) / uncond.square().sum(-1, keepdim=True).clamp_min(1e-30)
        return Guided(denoised_from_velocity(main + (self.w - 1) * (main - s * uncond), at.x, at.sigma))
