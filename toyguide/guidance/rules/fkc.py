"""Feynman-Kac correctors: weighted points whose density is a product of powers of the fields' own densities.

At every noise level the target is ``prod_r p_r(x; sigma)^(a_r)``, by mode:

    cfg        p_main^w p_uncond^(1 - w)
    tempering  p_main^beta
    product    p_main p_other

The points follow the reverse SDE with the score ``s = sum a_r s_r`` of the target, and their log-weights grow by

    dlog W = sigma (|s|^2 - sum a_r |s_r|^2) |dsigma|

which is ``sigma w (w - 1) |s_main - s_uncond|^2``, ``sigma beta (beta - 1) |s_main|^2`` and
``2 sigma s_main . s_other``. Weighted, they are samples of the target; resampled, without weights.

The increment of a step from x at sigma to x' at t is the log of a ratio of the ancestral sampler's own Gaussian steps,
``K_r`` with the field of a role and K with s, and of the noising step q from t to sigma, which stands for a flat field:

    prod_r K_r(x' | x)^(a_r) q(x | x')^(1 - A) / K(x' | x),   A = sum a_r

It is the above in the limit of small steps, and for CFG it is ``w (w - 1)|D_main - D_uncond|^2 (1/t^2 - 1/sigma^2)/2``.
If the ``K_r`` are right, so are the weights, however large the step; so the bias is that of the sampler without
guidance. In the step to 0, which makes no noise, the scores are held fixed instead.

The start, a sample of p_main, is moved to where the target would be if both were Gaussians as wide as their noise, and
gets the weight of the target over the density that it then has: nothing is left out at the first level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import param
import torch
from torch import Tensor

from toyguide.datasets.roles import Role
from toyguide.guidance.base import Limit, Rule
from toyguide.guidance.evaluation import Arrival, Evaluation, Guided, Transition
from toyguide.guidance.particles import effective_share, resampled, weights_trace
from toyguide.targets import Target


@dataclass(frozen=True)
class Weighted:
    """The memory.

    Attributes:
        log_weights: The log-weights since the last resampling, with shape ``(n,)``.
        share: The effective share of the points at the end of the last step, before they were resampled.
        denoised: Each role's denoised points at the beginning of the step.
    """

    log_weights: Tensor
    share: float
    denoised: tuple[Tensor, ...] = ()


class FeynmanKacCorrectors(Rule):
    """See the module's docstring; two evaluations a step (tempering: one), and a few more in the first.

    The weights are for the ancestral sampler. Where classes are far apart a large step of CFG may land far out, with a
    weight beside which no other counts: the trace ``ess``, the effective share before each resampling, then falls to
    ``1/n``, and more steps help (two-gaussians, w = 3: 32 are too few, 128 are enough).

    With an interval the weights begin where the interval does, and are dropped where it ends above 0. Trained networks
    need one for cfg (low = 0.1 on the fractal): at low noise their errors, which no density explains, would take all
    the weight.
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
        "points get weights on the way and are resampled when few of them carry most of it. Becomes exact with many "
        "points and steps; take 100 steps or more, and an interval with trained networks."
    )
    needs = ("main", "uncond", Role("other", "class", "the field whose density main's is multiplied with"))
    unguided = {"mode": "cfg", "w": 1.0}
    only_with = {"w": {"mode": ("cfg",)}, "beta": {"mode": ("tempering",)}}
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

    def target(self) -> Target:
        return Target(self.powers())

    def powers(self) -> dict[str, float]:
        """The power of each field's density in the target, by role."""
        if self.mode == "cfg":
            return {"main": self.w, "uncond": 1 - self.w}
        return {"main": self.beta} if self.mode == "tempering" else {"main": 1.0, "other": 1.0}

    def evaluates(self) -> dict[str, Role]:
        return {name: self.roles()[name] for name in self.powers()}

    def before_step(self, at: Evaluation, memory: Weighted | None) -> tuple[Tensor, Weighted]:
        if memory is not None:
            return at.x, memory
        powers, x = self.powers(), at.x
        if at.index == 0:  # an interval may begin at any level, where the densities are far from Gaussian
            total = sum(powers.values())
            centres = dict(zip(powers, (d.nanmean(0) for d in at.denoised_each(*powers)), strict=True))
            shift = sum(a * centres[role] for role, a in powers.items()) / total - centres["main"]
            x = x + (1 / math.sqrt(total) - 1) * (x - centres["main"]) + shift
        there = at.moved(x)
        log_weights = sum((a * there.log_density(role) for role, a in powers.items()), -at.log_density())
        return x, Weighted(log_weights, effective_share(log_weights))

    def guide(self, at: Evaluation, memory: Weighted | None) -> Guided:
        powers = self.powers()
        each = at.denoised_each(*powers)
        before = Weighted(at.x.new_zeros(len(at.x)), 1.0) if memory is None else memory
        guided = at.x + sum(a * (d - at.x) for a, d in zip(powers.values(), each, strict=True))
        trace = weights_trace(before.log_weights, before.share)
        return Guided(guided, memory=replace(before, denoised=tuple(each)), trace=trace)

    def after_step(self, step: Transition, memory: Weighted, generator: torch.Generator) -> Arrival:
        log_weights = memory.log_weights + self.growth(step, memory)
        share = effective_share(log_weights)
        rows = resampled(log_weights, self.threshold, step.sigma_next == 0, generator)
        if rows is None:
            return Arrival(step.x_next, Weighted(log_weights, share))
        return Arrival(step.x_next[rows], Weighted(torch.zeros_like(log_weights), share), rows)

    def growth(self, step: Transition, memory: Weighted) -> Tensor:
        """The increments of the log-weights in a step, with shape ``(n,)``; clamped if the rule says so."""
        s, t, powers = step.sigma, step.sigma_next, self.powers().values()
        pulls = [d - step.x for d in memory.denoised]
        whole = sum((a * p for a, p in zip(powers, pulls, strict=True)), torch.zeros_like(step.x))
        excess = whole.square().sum(-1) - sum(a * p.square().sum(-1) for a, p in zip(powers, pulls, strict=True))
        if t == 0:
            found = excess / (2 * s**2)
        else:
            # The steps K have the variance (t/s)^2 (s^2 - t^2) around x + (1 - (t/s)^2) (D - x), the noising step has
            # s^2 - t^2 around x: the squares of x' - x are left over, its products with D - x are not.
            moved = (step.x_next - step.x).square().sum(-1)
            found = (1 / t**2 - 1 / s**2) / 2 * excess + (1 - sum(powers)) * moved / (2 * t**2)
        return found if self.clamp == 0 else (found - found.nanmean()).clamp(-self.clamp, self.clamp)
