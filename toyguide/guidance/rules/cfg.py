"""Classifier-free guidance: away from the unconditional field."""

from __future__ import annotations

from typing import Any

from toyguide.guidance.base import PerTrajectory, Rule
from toyguide.guidance.evaluation import Evaluation, Guided
from toyguide.targets.target import Target


class ClassifierFreeGuidance(Rule):
    """``D = D_main + (w - 1)(D_main - D_uncond)``.

    Ho and Salimans count from 0: their weight is ``w - 1``.
    """

    key = "cfg"
    title = "Classifier-free guidance"
    short = "CFG"
    formula = r"D = D_\mathrm{main} + (w-1)\,(D_\mathrm{main} - D_\mathrm{uncond})"
    source = "Ho & Salimans, 2022, arXiv 2207.12598; weights as in Karras et al., 2024, arXiv 2406.02507, Eq. 3"
    summary = (
        "Extrapolates from the unconditional field through the conditional one, to where the class is more certain. "
        "A little of it removes outliers; more drops whole branches and adds outliers. It does not sample "
        "the product of powers of both densities that the formula suggests."
    )
    family = "Several fields"
    needs = ("main", "uncond")
    unguided = {"w": 1.0}
    batchable = True

    w = PerTrajectory(4.0, bounds=(0.0, 30.0), softbounds=(0.0, 10.0), step=0.1, doc="Guidance weight; 1 is unguided.")

    def target(self) -> Target:
        return Target({"main": self.w, "uncond": 1 - self.w})

    def guide(self, at: Evaluation, memory: Any) -> Guided:
        main, uncond = at.denoised_each("main", "uncond")
        return Guided(main + (self.w - 1) * (main - uncond))
