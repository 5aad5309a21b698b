"""CFG++: denoises along an interpolation of both fields, and adds back the unconditional field's noise.

    D  = D_uncond + lam (D_main - D_uncond),   0 <= lam <= 1
    x' = D + (sigma'/sigma) (x - D_uncond)

A step of it is an Euler step of CFG with the weight ``lam sigma / (sigma - sigma')``. So the weight in CFG's sense is
lam in the last step, and elsewhere grows with the number of steps: with ever finer steps CFG++ has no limit.
"""

from __future__ import annotations

from typing import Any

from toyguide.guidance.base import Limit, PerTrajectory, Rule
from toyguide.guidance.evaluation import Evaluation, Guided


class CfgPlusPlus(Rule):
    """See the module's docstring. The same in every space: all weights add up to 1."""

    key = "cfg++"
    title = "CFG++"
    formula = (
        r"D = D_\mathrm{uncond} + \lambda\,(D_\mathrm{main} - D_\mathrm{uncond}), \qquad"
        r" x' = D + \frac{\sigma'}{\sigma}\,(x - D_\mathrm{uncond})"
    )
    source = "Chung et al., CFG++, 2024, arXiv 2406.08070"
    summary = (
        "Steps towards a point between both fields' denoised ones, then adds back the unconditional field's noise. Its "
        "strength in CFG's sense depends on the step: w = λσ/(σ - σ'), more with more steps. λ = 0 samples the "
        "unconditional field."
    )
    family = "Several fields"
    needs = ("main", "uncond")
    limits = (Limit({}, "none", fields={"uncond": "main"}),)
    first_order = True
    batchable = True

    lam = PerTrajectory(0.6, bounds=(0.0, 1.0), step=0.05, doc="Between the fields (λ); 0 is the unconditional one.")

    def guide(self, at: Evaluation, memory: Any) -> Guided:
        main, uncond = at.denoised_each("main", "uncond")
        return Guided(uncond + self.lam * (main - uncond), renoise=uncond)
