"""Feedback guidance: the weight follows from how well the path so far fits the class.

The main field is taken for a class contaminated by the union, ``p_main = pi p_class + (1 - pi) p_uncond``. Diffusion
keeps that so at every level, hence the class's own denoiser is exactly

    D = D_uncond + lambda (D_main - D_uncond),   lambda = r / (r - (1 - pi)),   r = p_main / p_uncond

The rule estimates r along the path. It starts at 1, and each step multiplies it by the ratio of both fields'
probabilities of that step, tempered by tau, and by e^delta:

    mu = (sigma'/sigma)^2 x + (1 - (sigma'/sigma)^2) D,   var = (sigma^2 - sigma'^2) (sigma'/sigma)^2
    log r <- log r - tau (|x' - mu_main|^2 - |x' - mu_uncond|^2) / (2 var) + delta

log r is kept from log((1 - pi) lam_max / (lam_max - 1)), where lambda is lam_max, up to 3. With tau = 1 and delta = 0
it is Bayes' rule for an ancestral step. A negative delta makes lambda grow until the path fits the class.

The authors set delta and tau by two times: delta = ln(3 (1 - pi) / 2) / ((1 - t0) steps), with which lambda without
feedback reaches 3 at the share t0 of the steps left, and a tau in units of their latents' squared distances, which has
no counterpart in the plane. The defaults here are Bayes' tau = 1, and their delta for pi = 0.85, t0 = 0.5 and 32 steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from toyguide.guidance.base import Limit, PerTrajectory, Rule
from toyguide.guidance.evaluation import Arrival, Evaluation, Guided, Transition

_HIGHEST = 3.0
"""The largest log r, as in the authors' code: beyond it lambda is 1 for any pi in use."""


@dataclass(frozen=True)
class Feedback:
    """log r, with shape ``(n, 1)``, and both fields' denoised points before the step, None before the first."""

    log_r: Tensor
    main: Tensor | None = None
    uncond: Tensor | None = None


class FeedbackGuidance(Rule):
    """See the module's docstring. Lambda is traced as ``w``: it is CFG's weight."""

    key = "fbg"
    title = "Feedback guidance"
    short = "FBG"
    formula = (
        r"D = D_\mathrm{uncond} + \lambda\,(D_\mathrm{main} - D_\mathrm{uncond}), \quad"
        r" \lambda = \frac{r}{r - (1-\pi)}, \quad \log r \leftarrow \log r - \frac{\tau}{2\,\mathrm{var}}"
        r"\big(\lVert x' - \mu_\mathrm{main}\rVert^2 - \lVert x' - \mu_\mathrm{uncond}\rVert^2\big) + \delta"
    )
    source = "Koulischer et al., Feedback Guidance, 2025, arXiv 2506.06085; the update as in the authors' code"
    summary = (
        "CFG that is strong only while a point's path fits the union as well as the class. It undoes a network's "
        "contamination: if a share 1 - π of what the main field samples is the union, the exact ratio r gives the "
        "clean class at every noise level."
    )
    family = "Several fields"
    needs = ("main", "uncond")
    unguided = {"pi": 1.0}
    off = {"tau": 0.0, "delta": 0.0}
    limits = (
        Limit({"pi": 0.5, "tau": 0.0, "delta": 0.0}, "cfg", {"w": 2.0}),
        Limit({}, "none", fields={"uncond": "main"}),
    )
    batchable = True

    pi = PerTrajectory(
        0.85, bounds=(0.5, 1.0), step=0.01, doc="The class's share of the main field (π); 1 is unguided."
    )
    tau = PerTrajectory(
        1.0, bounds=(0.0, 100.0), softbounds=(0.0, 2.0), step=0.05, doc="Weight of the feedback (τ); 1 is Bayes' rule."
    )
    delta = PerTrajectory(
        -0.09, bounds=(-10.0, 0.0), softbounds=(-0.5, 0.0), step=0.01, doc="What log r loses in each step (δ)."
    )
    lam_max = PerTrajectory(
        10.0, bounds=(2.0, 100.0), softbounds=(2.0, 12.0), step=0.5, doc="The largest weight (λ_max)."
    )

    def begin(self, at: Evaluation, generator: torch.Generator) -> tuple[Tensor, Feedback]:
        return at.x, Feedback(at.x.new_zeros(len(at.x), 1))

    def guide(self, at: Evaluation, memory: Feedback) -> Guided:
        main, uncond = at.denoised_each("main", "uncond")
        extra = (1 - self.pi) / (memory.log_r.exp() - (1 - self.pi)).clamp_min(1e-30)  # lambda - 1
        guided = main + extra * (main - uncond)
        return Guided(guided, memory=Feedback(memory.log_r, main, uncond), trace={"w": 1 + extra[:, 0]})

    def after_step(self, step: Transition, memory: Feedback, generator: torch.Generator) -> Arrival:
        if step.sigma_next == 0 or memory.main is None or memory.uncond is None:
            return Arrival(step.x_next, memory)
        shrink = (step.sigma_next / step.sigma) ** 2
        var = (step.sigma**2 - step.sigma_next**2) * shrink
        # |x' - mu_main|^2 - |x' - mu_uncond|^2, which has no difference of large numbers in this form
        middle = shrink * step.x + (1 - shrink) * (memory.main + memory.uncond) / 2
        apart = (1 - shrink) * (memory.main - memory.uncond)
        further = -2 * ((step.x_next - middle) * apart).sum(-1, keepdim=True)
        log_r = memory.log_r - self.tau * further / (2 * var) + self.delta
        lowest = (torch.zeros_like(log_r) + (1 - self.pi) * self.lam_max / (self.lam_max - 1)).log()
        return Arrival(step.x_next, Feedback(torch.maximum(log_r, lowest).clamp(max=_HIGHEST)))
