"""Score scaling, the naive truncation: every score multiplied by the same factor."""

from __future__ import annotations

from typing import Any

from toyguide.guidance.base import PerTrajectory, Rule
from toyguide.guidance.evaluation import Evaluation, Guided
from toyguide.targets.target import Target


class ScoreScaling(Rule):
    """``s = k s_main``, that is ``D = x + k (D_main - x)``.

    For one Gaussian of variance a and sigma_max = S, the final variance is ``(a + S^2) (a / (a + S^2))^k``: it depends
    on S, and differs from that of the tempered density.
    """

    key = "score-scaling"
    title = "Score scaling (naive truncation)"
    formula = r"s = k\, s_\mathrm{main}, \qquad D = x + k\,(D_\mathrm{main} - x)"
    source = "Karras et al., 2024, arXiv 2406.02507, Fig. 1d"
    summary = (
        "Multiplies every score by k. Concentrates the samples in all directions alike and empties the outer branches."
    )
    unguided = {"k": 1.0}
    batchable = True

    k = PerTrajectory(1.4, bounds=(0.0, 5.0), softbounds=(0.5, 3.0), step=0.05, doc="Score factor; 1 is unguided.")

    def target(self) -> Target:
        return Target({"main": self.k})

    def guide(self, at: Evaluation, memory: Any) -> Guided:
        return Guided(at.x + self.k * (at.denoised("main") - at.x))
