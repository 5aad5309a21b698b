"""Power-law CFG: classifier-free guidance whose strength grows with the gap between the two scores.

    D = D_main + (w - 1) |s_main - s_uncond|^a (D_main - D_uncond)

The norm is that of the score gap, ``(D_main - D_uncond) / sigma^2``, one for each point: where both fields agree,
guidance vanishes.
"""

from __future__ import annotations

from typing import Any

from toyguide.guidance.base import Limit, PerTrajectory, Rule
from toyguide.guidance.evaluation import Evaluation, Guided


class PowerLawCfg(Rule):
    """See the module's docstring. The paper counts from 0: its weight is ``w - 1``.

    The score has the unit 1/length. On data of standard deviation 0.5 it is twice that on data of 1, so the default of
    ``w - 1`` is half of what 1 + 2 = 3 would be there (a = 0.9: ``2^-0.9`` is about 1/2).
    """

    key = "power-law-cfg"
    title = "Power-law CFG (reconstruction)"
    formula = (
        r"D = D_\mathrm{main} + (w-1)\,\lVert s_\mathrm{main} - s_\mathrm{uncond}\rVert^a\,"
        r"(D_\mathrm{main} - D_\mathrm{uncond})"
    )
    source = "arXiv 2502.07849; the formula as a port has it"
    summary = (
        "CFG that is strong where the conditional and the unconditional score differ much and vanishes where they "
        "agree. The exponent a says how sharply; 0 is CFG. Trained networks' scores differ most at the lowest noise, "
        "where it then overshoots: leave that out by an interval, such as from 0.05 up on the fractal."
    )
    family = "Several fields"
    needs = ("main", "uncond")
    unguided = {"w": 1.0}
    off = {"w": 1.0, "a": 0.0}
    limits = (Limit({"a": 0.0}, "cfg", same=("w",)),)
    batchable = True

    w = PerTrajectory(2.0, bounds=(0.0, 30.0), softbounds=(0.0, 10.0), step=0.1, doc="Guidance weight; 1 is unguided.")
    a = PerTrajectory(0.9, bounds=(0.0, 4.0), softbounds=(0.0, 1.0), step=0.05, doc="Exponent of the gap; 0 is CFG.")

    def guide(self, at: Evaluation, memory: Any) -> Guided:
        main, uncond = at.denoised_each("main", "uncond")
        gap = main - uncond
        size = gap.norm(dim=-1, keepdim=True) / at.sigma**2
        return Guided(main + (self.w - 1) * size**self.a * gap)
