"""Feynman-Kac correctors: weighted points whose density is a product of powers of the fields' own densities.

At every noise level the target is ``prod_r p_r(x; sigma)^(a_r)``, by mode:

    cfg        p_main^w p_uncond^(1 - w)
    tempering  p_main^beta
    product    p_main p_other

The points follow the reverse SDE with the score ``s = sum a_r s_r`` of the target, and their log-weights grow by

    dlog W = sigma (|s|^2 - sum a_r |s_r|^2) |dsigma|

which is ``sigma w (w - 1) |s_main - s_uncond|^2``, ``sigma beta (beta - 1) |s_main|^2`` and
``2 sigma s_main . s_other``. Weighted, they are samples of the target; resampled, without weights.

Over a step from sigma to t the increment is integrated in two parts. With ``A = sum a_r``, ``D = sum a_r D_r / A`` and
the noise ``e = (x - D)/sigma``, the bracket is ``A (A - 1)|e|^2 / sigma^2 - sum a_r |D_r - D|^2 / sigma^4``. The noise
and the denoisers change little in a step, their factors much:

    A (A - 1) |e|^2 log(sigma/t)  -  sum a_r |D_r - D|^2 (1/t^2 - 1/sigma^2) / 2

For CFG the second part is the log of the ratio of DDPM's own Gaussian steps, ``K_main^w K_uncond^(1-w) / K``, which the
ancestral sampler makes. In the step to 0, where both factors diverge, the scores are held fixed instead. The bias of
all this falls with the number of steps.

The start, a sample of p_main, is moved to where the target would be if both were Gaussians as wide as their noise, and
gets the weight of the target over the density that it then has: nothing is left out at the first level.
"""

from __future__ import annotations

import math
from typing import Any

import param
import torch
from torch import Tensor

from toyguide.datasets.roles import Role
from toyguide.guidance.base import Limit, Rule
from toyguide.guidance.evaluation import Arrival, Evaluation, Guided, Transition
from toyguide.guidance.particles import resampled, weights_trace


class FeynmanKacCorrectors(Rule):
    """See the module's docstring; the memory is the points' log-weights, with shape ``(n,)``.

    With an interval the weights begin where the interval does, and are dropped where it ends above 0.
    """

    key = "fkc"
    title = "Feynman-Kac correctors"
    short = "FKC"
    family = "Rewards and particles"
    formula = (
        r"s = \sum_r a_r s_r, \quad"
        r" \mathrm{d}\log W = \sigma \big(\lVert s \rVert^2 - \sum_r a_r \lVert s_r \rVert^2\big)"
        r" \lvert\mathrm{d}\sigma\rvert, \quad"
        r" p \propto \begin{cases} p_\mathrm{main}^{w}\, p_\mathrm{uncond}^{1-w} \\ p_\mathrm{main}^{\beta} \\"
        r" p_\mathrm{main}\, p_\mathrm{other} \end{cases}"
    )
    source = (
        "Skreta et al., Feynman-Kac Correctors in Diffusion, 2025, arXiv 2503.02819; the weights of a step and of the "
        "start are ours"
    )
    summary = (
        "Samples what CFG is often said to sample, p_main^w p_uncond^(1-w), or a power or a product of densities: "
        "points get weights on the way and are resampled when few of them carry all the weight. With more points and "
        "steps it becomes exact."
    )
    needs = ("main", "uncond", Role("other", "class", "the field whose density main's is multiplied with"))
    unguided = {"mode": "cfg", "w": 1.0}
    off = {"w": 1.0, "beta": 1.0, "clamp": 0.0}
    limits = (
        Limit({"mode": "tempering", "beta": 1.0}, "none"),
        Limit({"mode": "product"}, "fkc", {"mode": "tempering", "beta": 2.0}, ("threshold",), {"other": "main"}),
    )
    interacts = True
    needs_noise = True

    mode: Any = param.Selector(
        default="cfg", objects=["cfg", "tempering", "product"], doc="The target: see the formula, from top to bottom."
    )
    w = param.Number(3.0, bounds=(0.0, 30.0), softbounds=(0.0, 10.0), step=0.1, doc="Weight of cfg; 1 is unguided.")
    beta = param.Number(
        2.0, bounds=(0.1, 30.0), softbounds=(0.1, 5.0), step=0.1, doc="Power β of tempering; 1 is unguided."
    )
    threshold = param.Number(
        0.5, bounds=(0.0, 1.0), step=0.05, doc="Resample where the effective share of the points is below this."
    )
    clamp = param.Number(
        0.0,
        bounds=(0.0, 1000.0),
        softbounds=(0.0, 5.0),
        step=0.1,
        doc="Largest difference of a step's log-weight from the mean one; 0 is no limit, the authors take 1.",
    )

    def powers(self) -> dict[str, float]:
        """The power of each field's density in the target, by role."""
        if self.mode == "cfg":
            return {"main": self.w, "uncond": 1 - self.w}
        return {"main": self.beta} if self.mode == "tempering" else {"main": 1.0, "other": 1.0}

    def evaluates(self) -> dict[str, Role]:
        return {name: self.roles()[name] for name in self.powers()}

    def before_step(self, at: Evaluation, memory: Tensor | None) -> tuple[Tensor, Tensor]:
        if memory is not None:
            return at.x, memory
        powers, x = self.powers(), at.x
        if at.index == 0:  # an interval may begin at any level, where the densities are far from Gaussian
            total = sum(powers.values())
            centres = dict(zip(powers, (d.nanmean(0) for d in at.denoised_each(*powers)), strict=True))
            shift = sum(a * centres[role] for role, a in powers.items()) / total - centres["main"]
            x = x + (1 / math.sqrt(total) - 1) * (x - centres["main"]) + shift
        there = at.moved(x)
        return x, sum((a * there.log_density(role) for role, a in powers.items()), -at.log_density())

    def guide(self, at: Evaluation, memory: Tensor | None) -> Guided:
        powers = self.powers()
        each = list(zip(powers.values(), at.denoised_each(*powers), strict=True))
        total = sum(powers.values())
        middle = sum((a * d for a, d in each), torch.zeros_like(at.x)) / total
        growth = self._growth(at, each, middle, total)
        log_weights = growth if memory is None else memory + growth
        guided = middle + (total - 1) * (middle - at.x)  # x + A (D - x)
        return Guided(guided, memory=log_weights, trace=weights_trace(log_weights))

    def _growth(self, at: Evaluation, each: list[tuple[float, Tensor]], middle: Tensor, total: float) -> Tensor:
        """The increments of the log-weights in the step, with shape ``(n,)``."""
        s, t = at.sigma, at.next_sigma
        apart = sum((a * (d - middle).square().sum(-1) for a, d in each), at.x.new_zeros(len(at.x)))
        noise = ((at.x - middle) / s).square().sum(-1)
        if t > 0:
            growth = total * (total - 1) * noise * math.log(s / t) - apart * (1 / t**2 - 1 / s**2) / 2
        else:
            growth = (total * (total - 1) * noise - apart / s**2) / 2
        if self.clamp == 0:
            return growth
        return (growth - growth.nanmean()).clamp(-self.clamp, self.clamp)

    def after_step(self, step: Transition, memory: Tensor, generator: torch.Generator) -> Arrival:
        rows = resampled(memory, self.threshold, step.sigma_next == 0, generator)
        if rows is None:
            return Arrival(step.x_next, memory)
        return Arrival(step.x_next[rows], torch.zeros_like(memory), rows)
