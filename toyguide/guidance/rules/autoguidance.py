"""Autoguidance: away from a weaker version of the main field."""

from __future__ import annotations

from typing import Any

from toyguide.guidance.base import Limit, PerTrajectory, Rule
from toyguide.guidance.evaluation import Evaluation, Guided
from toyguide.targets.target import Target


class Autoguidance(Rule):
    """``D = D_main + (w - 1)(D_main - D_weak)``."""

    key = "autoguidance"
    title = "Autoguidance"
    formula = r"D = D_\mathrm{main} + (w-1)\,(D_\mathrm{main} - D_\mathrm{weak})"
    source = "Karras et al., Guiding a Diffusion Model with a Bad Version of Itself, 2024, arXiv 2406.02507, Eq. 3"
    summary = (
        "Extrapolates from a weaker network for the same task through the main one: where both make similar errors, "
        "the weak one's are larger, and the difference points back to the data. Removes outliers and keeps most "
        "branches; coverage falls with the weight."
    )
    family = "Several fields"
    needs = ("main", "weak")
    unguided = {"w": 1.0}
    limits = (Limit({}, "cfg", same=("w",), fields={"weak": "uncond"}), Limit({}, "none", fields={"weak": "main"}))
    batchable = True

    w = PerTrajectory(3.0, bounds=(0.0, 30.0), softbounds=(0.0, 10.0), step=0.1, doc="Guidance weight; 1 is unguided.")

    def target(self) -> Target:
        return Target({"main": self.w, "weak": 1 - self.w})

    def guide(self, at: Evaluation, memory: Any) -> Guided:
        main, weak = at.denoised_each("main", "weak")
        return Guided(main + (self.w - 1) * (main - weak))
