"""No guidance: the main field alone."""

from __future__ import annotations

from typing import Any

from toyguide.guidance.base import Rule
from toyguide.guidance.evaluation import Evaluation, Guided
from toyguide.targets.target import Target


class Unguided(Rule):
    """``D = D_main``."""

    key = "none"
    title = "Unguided"
    formula = r"D = D_\mathrm{main}"
    source = "Karras et al., EDM, 2022, arXiv 2206.00364, Eq. 3"
    summary = "Follows the main field unchanged: the baseline for every other rule."
    unguided = {}
    batchable = True

    def target(self) -> Target:
        return Target({"main": 1.0})

    def guide(self, at: Evaluation, memory: Any) -> Guided:
        return Guided(at.denoised("main"))
