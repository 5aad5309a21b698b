"""Ratio-aware adaptive guidance: CFG with less weight where the two velocities are far apart.

    rho = |v_main - v_uncond| / |v_uncond|,   v = eps - D
    D   = D_main + (w - 1) exp(-alpha rho) (D_main - D_uncond)

The ratio lives in velocities: in scores or noises it would vanish at high noise, and the rule would do nothing there.
So it depends on where the origin is. v is raw: it is not rescaled by the data's standard deviation.
"""

from __future__ import annotations

from typing import Any

from toyguide.guidance.base import Limit, PerTrajectory, Rule
from toyguide.guidance.evaluation import Evaluation, Guided


class RatioAwareGuidance(Rule):
    """See the module's docstring. The paper's w_max is ``w``; the weight in use is traced as ``w``."""

    key = "raag"
    title = "Ratio-aware adaptive guidance (RAAG, MAMBO-G)"
    short = "RAAG"
    formula = (
        r"D = D_\mathrm{main} + (w-1)\,e^{-\alpha\rho}\,(D_\mathrm{main} - D_\mathrm{uncond}), \quad"
        r" \rho = \frac{\lVert v_\mathrm{main} - v_\mathrm{uncond} \rVert}{\lVert v_\mathrm{uncond} \rVert}, \quad"
        r" v = \epsilon - D"
    )
    source = "RAAG, renamed MAMBO-G in its 4th version, 2025, arXiv 2508.03442; as in the diffusers library"
    summary = (
        "CFG whose weight falls from w towards 1 where the conditional velocity differs much from the unconditional "
        "one, as in the first steps. The paper means it for large weights in few steps. In the plane the ratio is "
        "large, so that the published α leaves little guidance."
    )
    family = "Several fields"
    needs = ("main", "uncond")
    unguided = {"w": 1.0}
    off = {"alpha": 0.0}
    limits = (Limit({"alpha": 0.0}, "cfg", same=("w",)), Limit({}, "none", fields={"uncond": "main"}))
    equivariant = ("rotation",)
    batchable = True

    w = PerTrajectory(
        10.0, bounds=(0.0, 100.0), softbounds=(0.0, 20.0), step=0.1, doc="Weight where both agree; 1 is unguided."
    )
    alpha = PerTrajectory(
        8.0, bounds=(0.0, 100.0), softbounds=(0.0, 20.0), step=0.5, doc="How fast the weight falls with the ratio (α)."
    )

    def guide(self, at: Evaluation, memory: Any) -> Guided:
        main, uncond = at.denoised_each("main", "uncond")
        v_main, v_uncond = at.velocity("main"), at.velocity("uncond")
        rho = (v_main - v_uncond).norm(dim=-1, keepdim=True) / v_uncond.norm(dim=-1, keepdim=True).clamp_min(1e-30)
        extra = (self.w - 1) * (-self.alpha * rho).exp()
        return Guided(main + extra * (main - uncond), trace={"w": 1 + extra[:, 0]})
