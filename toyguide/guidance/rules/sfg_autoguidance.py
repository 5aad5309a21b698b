"""Saddle-free guidance with autoguidance: the sum of the two corrections."""

from __future__ import annotations

from toyguide.guidance.base import Limit, PerTrajectory
from toyguide.guidance.evaluation import Evaluation, Guided
from toyguide.guidance.rules.sfg import Direction, SaddleFreeGuidance


class SfgAutoguidance(SaddleFreeGuidance):
    """``D = D_main + (w_auto - 1)(D_main - D_weak) + sigma w H(lambda) u``."""

    key = "sfg+autoguidance"
    title = "SFG + autoguidance (reconstruction)"
    formula = (
        r"D = D_\mathrm{main} + (w_\mathrm{auto}-1)\,(D_\mathrm{main} - D_\mathrm{weak})"
        r" + \sigma\, w\, H(\lambda)\, u \quad (u, \lambda \text{ as in SFG})"
    )
    source = "Yeats et al., 2025, arXiv 2511.21863; that the two corrections are added is our reading"
    summary = "Adds SFG's push, computed on the main field, to autoguidance's. Three evaluations."
    family = "Several fields"
    needs = ("main", "weak")
    unguided = {"w": 0.0, "w_auto": 1.0}
    limits = (
        Limit({"w": 0.0, "w_auto": 2.5}, "autoguidance", {"w": 2.5}),
        Limit({"w_auto": 1.0}, "sfg", same=("w", "alpha", "h", "sign")),
    )
    batchable = True

    w_auto = PerTrajectory(
        2.0, bounds=(0.0, 30.0), softbounds=(0.0, 10.0), step=0.1, doc="Autoguidance weight; 1 is SFG alone."
    )

    def guide(self, at: Evaluation, memory: Direction) -> Guided:
        main = at.denoised("main")
        push, memory, trace = self.correction(at, main, memory)
        return Guided(main + (self.w_auto - 1) * (main - at.denoised("weak")) + push, memory=memory, trace=trace)
