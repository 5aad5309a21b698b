"""Foresight guidance: far steps down and back up calibrate the points before some of the steps.

With ``D_w = D_uncond + w (D_main - D_uncond)``, before every m-th step above the threshold, K times:

    y <- D_wf(x; sigma_i) + (sigma_(i+m) / sigma_i) (x - D_wf)      m steps down at once, with the weight w_f
    x <- D_wb(y; sigma_(i+m)) + (sigma_i / sigma_(i+m)) (y - D_wb)      and back up, with the weight w_b

then a step of CFG++ with its weight lam: ``x' = D_lam + (sigma'/sigma)(x - D_uncond)``. For short intervals a
calibration shifts x by ``(w_f - w_b) |dsigma| (D_main - D_uncond) / sigma``.

Other rules are settings of this one. Z-sampling (zigzag): m = 1, K = 1, threshold = 0 and the step of CFG with w_f.
Weak-to-strong diffusion: the same with a weaker field in the role ``uncond``, w_f = 1 (the strong one) and w_b = 0 (the
weak one).
"""

from __future__ import annotations

from typing import Any

import param
from torch import Tensor

from toyguide.guidance.base import Limit, PerTrajectory, Rule
from toyguide.guidance.evaluation import Evaluation, Guided


class ForesightGuidance(Rule):
    """See the module's docstring; with w_b = 0 a calibration evaluates three fields.

    w_f, w_b and lam are the authors'. They calibrate before the steps 0, 5 and 15 of 40, over 5 steps, twice, twice and
    once; here it is every m-th step, an eighth of 32 steps, K times, above the level of their last one (0.65 on this
    project's schedule from 5 down).
    """

    key = "fsg"
    title = "Foresight guidance"
    short = "FSG"
    formula = (
        r"x \leftarrow \Phi_{w_b}^{\sigma_{i+m} \to \sigma_i}\,\Phi_{w_f}^{\sigma_i \to \sigma_{i+m}}(x)"
        r" \quad (K\ \text{times}), \qquad x' = D_\lambda + \tfrac{\sigma'}{\sigma}\,(x - D_\mathrm{uncond}),"
        r" \quad D_w = D_\mathrm{uncond} + w\,(D_\mathrm{main} - D_\mathrm{uncond})"
    )
    source = (
        "Foresight Guidance, arXiv 2510.21512, and the authors' code; Z-sampling, arXiv 2412.10891; "
        "weak-to-strong diffusion, arXiv 2502.00473"
    )
    summary = (
        "Before some of the steps, goes far ahead guided and comes back unguided: the points move to where both paths "
        "agree better, and then take a CFG++ step. Z-sampling and weak-to-strong diffusion are settings of it."
    )
    family = "Several fields"
    needs = ("main", "uncond")
    unguided = {"step": "cfg", "w_f": 1.0, "K": 0}
    only_with = {"lam": {"step": ("cfg++",)}}
    off = {"K": 0}
    limits = (
        Limit({"K": 0}, "cfg++", same=("lam",)),
        Limit({"step": "cfg", "w_f": 3.5, "K": 0}, "cfg", {"w": 3.5}),
        Limit({"step": "cfg", "w_f": 1.0, "w_b": 1.0, "K": 0}, "none"),
    )
    first_order = True
    batchable = True

    w_f = param.Number(5.5, bounds=(0.0, 30.0), softbounds=(0.0, 10.0), step=0.1, doc="Weight on the way down.")
    w_b = param.Number(0.0, bounds=(0.0, 30.0), softbounds=(0.0, 10.0), step=0.1, doc="Weight on the way back up.")
    lam = PerTrajectory(1.0, bounds=(0.0, 1.0), step=0.05, doc="Weight λ of the CFG++ step.")
    K = param.Integer(2, bounds=(0, 20), softbounds=(0, 6), doc="Calibrations at one level; 0 is none.")
    m = param.Integer(4, bounds=(1, 100), softbounds=(1, 16), doc="How many steps ahead, and from one to the next.")
    threshold = param.Number(
        0.6, bounds=(0.0, 100.0), softbounds=(0.0, 5.0), step=0.05, doc="Calibrate only above this noise level."
    )
    step: Any = param.Selector(
        default="cfg++", objects=["cfg++", "cfg"], doc="The step that follows: CFG++ with λ, or CFG with w_f."
    )

    def before_step(self, at: Evaluation, memory: Any) -> tuple[Tensor, Any]:
        ahead = at.levels[min(at.index + self.m, len(at.levels) - 2)]  # the last level but 0: none leads back from 0
        if at.index % self.m or at.sigma <= self.threshold or ahead == at.sigma:
            return at.x, memory
        x = at.x
        for _ in range(self.K):
            there = _stepped(at if x is at.x else at.moved(x), ahead, self.w_f)
            x = _stepped(at.moved(there, ahead), at.sigma, self.w_b)
        return x, memory

    def guide(self, at: Evaluation, memory: Any) -> Guided:
        if self.step == "cfg":
            return Guided(_extrapolated(at, self.w_f))
        main, uncond = at.denoised_each("main", "uncond")
        return Guided(uncond + self.lam * (main - uncond), renoise=uncond)


def _extrapolated(at: Evaluation, w: float) -> Tensor:
    """``D_w``; only the fields that have a part in it are evaluated."""
    if w in (0.0, 1.0):
        return at.denoised("main" if w else "uncond")
    main, uncond = at.denoised_each("main", "uncond")
    return uncond + w * (main - uncond)


def _stepped(at: Evaluation, sigma: float, w: float) -> Tensor:
    """An Euler step of ``D_w`` to another level, lower or higher."""
    denoised = _extrapolated(at, w)
    return denoised + sigma / at.sigma * (at.x - denoised)
