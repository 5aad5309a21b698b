"""A mix of classifier-free guidance and autoguidance."""

from __future__ import annotations

from typing import Any

from toyguide.guidance.base import Limit, PerTrajectory, Rule
from toyguide.guidance.evaluation import Evaluation, Guided
from toyguide.targets.target import Target


class CfgAutoguidance(Rule):
    """``D = D_main + (1 - mix)(w - 1)(D_main - D_uncond) + mix (w - 1)(D_main - D_weak)``.

    The paper's Eq. 6 with ``w_u = (1 - mix)(w - 1) + 1`` and ``w_c = mix (w - 1) + 1``; its alpha is ``mix`` here.
    """

    key = "cfg+autoguidance"
    title = "CFG + autoguidance"
    formula = (
        r"D = D_\mathrm{main} + (w-1)\,\big[(1-\mathrm{mix})\,(D_\mathrm{main} - D_\mathrm{uncond})"
        r" + \mathrm{mix}\,(D_\mathrm{main} - D_\mathrm{weak})\big]"
    )
    source = "Karras et al., 2024, arXiv 2406.02507, Eq. 6 (its α is mix)"
    summary = "Splits one weight between CFG (mix = 0) and autoguidance (mix = 1)."
    family = "Several fields"
    needs = ("main", "uncond", "weak")
    unguided = {"w": 1.0}
    limits = (
        Limit({"mix": 0.0}, "cfg", same=("w",)),
        Limit({"mix": 1.0}, "autoguidance", same=("w",)),
        Limit({}, "cfg", same=("w",), fields={"weak": "uncond"}),
    )
    batchable = True

    w = PerTrajectory(3.0, bounds=(0.0, 30.0), softbounds=(0.0, 10.0), step=0.1, doc="Guidance weight; 1 is unguided.")
    mix = PerTrajectory(0.5, bounds=(0.0, 1.0), step=0.05, doc="0 is CFG, 1 is autoguidance.")

    def target(self) -> Target:
        beyond = self.w - 1
        return Target({"main": self.w, "uncond": -(1 - self.mix) * beyond, "weak": -self.mix * beyond})

    def guide(self, at: Evaluation, memory: Any) -> Guided:
        main, uncond, weak = at.denoised_each("main", "uncond", "weak")
        gap_uncond, gap_weak = main - uncond, main - weak
        return Guided(main + (self.w - 1) * ((1 - self.mix) * gap_uncond + self.mix * gap_weak))
