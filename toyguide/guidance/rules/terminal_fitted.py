"""Terminal-fitted guidance: a CFG step that stays bounded however large the weight and the step.

A step from sigma to sigma', with ``r = sigma'/sigma``, lands on

    x' = D_main + r (x - D_main) + (r^w - r)(D_uncond - D_main)

which is the Euler step of CFG with a weight that depends on the step, ``w_eff - 1 = (r - r^w) / (1 - r)``: as the steps
become finer it tends to ``w - 1``. As w grows the step tends to that of CFG++ with lam = 1. The last step, to 0, lands
on D_main for w > 0.
"""

from __future__ import annotations

from typing import Any

from toyguide.guidance.base import Limit, PerTrajectory, Rule
from toyguide.guidance.evaluation import Evaluation, Guided
from toyguide.targets import Target


class TerminalFitted(Rule):
    """See the module's docstring. With the ancestral sampler, which steps lower and adds noise, w_eff is the same."""

    key = "terminal-fitted"
    title = "Terminal-fitted CFG (reconstruction)"
    formula = (
        r"x' = D_\mathrm{main} + r\,(x - D_\mathrm{main}) + (r^w - r)\,(D_\mathrm{uncond} - D_\mathrm{main}),"
        r" \qquad r = \sigma'/\sigma"
    )
    source = "arXiv 2607.07665; the formula as a port has it"
    summary = (
        "CFG for few steps and large weights: each step's push is bounded, and tends to that of CFG as steps become "
        "finer. It is stable, not more accurate: with few steps it guides less than CFG would with many."
    )
    family = "Several fields"
    needs = ("main", "uncond")
    unguided = {"w": 1.0}
    off = {"w": 1.0}
    limits = (Limit({"w": 1000.0}, "cfg++", {"lam": 1.0}, sampler="euler"),)
    first_order = True
    batchable = True

    w = PerTrajectory(
        4.0, bounds=(0.0, 1000.0), softbounds=(0.0, 10.0), step=0.1, doc="Guidance weight; 1 is unguided."
    )

    def target(self) -> Target:
        return Target({"main": self.w, "uncond": 1 - self.w})

    def guide(self, at: Evaluation, memory: Any) -> Guided:
        main, uncond = at.denoised_each("main", "uncond")
        r = at.next_sigma / at.sigma
        return Guided(main + (r - r**self.w) / (1 - r) * (main - uncond))
