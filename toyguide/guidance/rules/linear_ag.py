"""LinearAG: at low noise the unconditional noise is predicted by a linear regression instead of evaluated.

CFG while sigma is above the threshold, and after that

    eps_uncond(i) ~ c_0 eps_main(i) + c_1 eps_main(i-1) + c_2 eps_uncond(i-1),   D = D_main + (w-1)(D_main - D_uncond)

where the last step's eps_uncond may be a prediction itself. The coefficients were fitted to CFG runs beforehand, see
``toyguide.guidance.linear_fits`` and ``toyguide fit-linear-ag``, and are interpolated in log sigma, so that a run may
have other levels than the fit; its numbers of steps should not differ much, since the step before is then elsewhere.
A run of fields without a dataset has no fit: it keeps the last step's difference of both, which is (1, -1, 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import param
import torch
from torch import Tensor

from toyguide.fields import denoised_from_eps
from toyguide.guidance.base import Limit, PerTrajectory, Rule
from toyguide.guidance.evaluation import Evaluation, Guided
from toyguide.guidance.linear_fits import HELD, LinearFit, find_fit
from toyguide.targets import Target


@dataclass(frozen=True)
class Past:
    """What is remembered of a step.

    Attributes:
        index: Which step it was; a run that skipped guidance since must evaluate anew.
        main: The noise predicted by the main field, with shape ``(n, d)``.
        uncond: That by the unconditional field, evaluated or regressed.
        fit: The run's coefficients; None for ``HELD``.
    """

    index: int
    main: Tensor
    uncond: Tensor
    fit: LinearFit | None


class LinearAdaptiveGuidance(Rule):
    """See the module's docstring. The paper's layout of the regression was not found: which evaluations enter, and
    which steps are regressed, is ours. The threshold is that of the middle of 32 steps from sigma 5 down.

    Measured on the fractal, w = 4, with the bundled fits of 32 steps: samples end on average 0.0001 from CFG's on exact
    fields (0.0008 in 16 steps, 0.0006 in 64), and 0.007 with the last step's difference kept instead; on the trained
    networks 0.06 (0.07, 0.09) and 0.07.
    """

    key = "linear-ag"
    title = "LinearAG (reconstruction)"
    formula = (
        r"\epsilon_\mathrm{uncond}^{(i)} \approx c_0\,\epsilon_\mathrm{main}^{(i)}"
        r" + c_1\,\epsilon_\mathrm{main}^{(i-1)} + c_2\,\epsilon_\mathrm{uncond}^{(i-1)}"
        r" \quad (\sigma \le \mathrm{threshold}), \qquad"
        r" D = D_\mathrm{main} + (w-1)\,(D_\mathrm{main} - D_\mathrm{uncond})"
    )
    source = "Castillo et al., Adaptive Guidance, 2023, arXiv 2312.12487; the layout of its regression was not found"
    summary = (
        "CFG that stops evaluating the unconditional field below a noise level and predicts it from the conditional "
        "field and the last step, with coefficients fitted beforehand: a quarter of the evaluations less by default."
    )
    family = "Several fields"
    needs = ("main", "uncond")
    unguided = {"w": 1.0}
    off = {"w": 1.0, "threshold": 0.0}
    limits = (Limit({"threshold": 0.0}, "cfg", same=("w",)),)
    first_order = True

    w = PerTrajectory(4.0, bounds=(0.0, 30.0), softbounds=(0.0, 10.0), step=0.1, doc="Guidance weight; 1 is unguided.")
    threshold = param.Number(
        0.3,
        bounds=(0.0, 100.0),
        softbounds=(0.0, 5.0),
        step=0.01,
        doc="The regression takes over at this noise level and below; 0 is CFG.",
    )

    def target(self) -> Target:
        return Target({"main": self.w, "uncond": 1 - self.w})

    def begin(self, at: Evaluation, generator: torch.Generator) -> tuple[Tensor, Past]:
        fit = None
        if self.threshold > 0 and at.data is not None:
            fit = find_fit(at.data, at.label, at.field("main"), at.field("uncond"), at.x.device)
        return at.x, Past(-2, at.x, at.x, fit)

    def guide(self, at: Evaluation, memory: Past) -> Guided:
        if at.sigma > self.threshold or memory.index != at.index - 1:
            at.denoised_each("main", "uncond")
            eps_main, eps_uncond = at.eps("main"), at.eps("uncond")
        else:
            eps_main = at.eps("main")
            here, before, uncond_before = HELD if memory.fit is None else memory.fit.at(at.sigma)
            eps_uncond = here * eps_main + before * memory.main + uncond_before * memory.uncond
        eps = eps_main + (self.w - 1) * (eps_main - eps_uncond)
        past = Past(at.index, eps_main, eps_uncond, memory.fit)
        return Guided(denoised_from_eps(eps, at.x, at.sigma), memory=past)
