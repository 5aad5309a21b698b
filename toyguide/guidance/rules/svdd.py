"""SVDD: in each step the best of several candidates, or one drawn in favour of good ones.

From each point M candidates x' are drawn by the sampler's step. With the value ``v = r(D(x'))``, the reward at the
candidate's posterior mean (the paper's SVDD-PM), one of them is kept with probability proportional to ``e^(v/alpha)``;
in the limit alpha = 0 the one with the largest value.

With many candidates and the exact value ``alpha log E[e^(r(x0)/alpha) | x']`` the result is ``p e^(r/alpha)``. For a
linear reward of one Gaussian both values differ by a constant, so that the result is exact; elsewhere it is not.
"""

from __future__ import annotations

from typing import Any

import param
import torch
from torch import Tensor

from toyguide.guidance.evaluation import Arrival, Evaluation, Guided, Transition
from toyguide.guidance.particles import separate_stream
from toyguide.guidance.rewarded import Rewarded
from toyguide.targets import Target


class Svdd(Rewarded):
    """See the module's docstring; evaluates ``main`` ``1 + M`` times a step, once in the last, which has no noise."""

    key = "svdd"
    title = "SVDD (value-based selection of candidates)"
    family = "Rewards and particles"
    formula = (
        r"x' \in \{x'_1, \dots, x'_M\} \sim p_\mathrm{main}(x' \mid x), \quad"
        r" P(x'_m) \propto e^{r(D_\mathrm{main}(x'_m))/\alpha}, \quad p \propto p_\mathrm{main}\, e^{r/\alpha}"
    )
    source = (
        "Li et al., Derivative-Free Guidance in Continuous and Discrete Diffusion Models with Soft Value-Based "
        "Decoding, 2024, arXiv 2408.08252 (SVDD-PM); the authors' code takes alpha = 0"
    )
    summary = (
        "Draws M candidates in each step and goes on with one that promises a large reward, each point by itself and "
        "without a gradient. The reward grows with M, and so does the price."
    )
    unguided = {"M": 1}
    off = {"M": 1}
    equivariant = ()
    needs_noise = True

    M = param.Integer(
        10, bounds=(1, 1000), softbounds=(1, 32), doc="Candidates of each point in a step; 1 is unguided."
    )
    alpha = param.Number(
        0.25,
        bounds=(0.0, 100.0),
        softbounds=(0.0, 2.0),
        step=0.05,
        doc="Temperature α of the choice, in units of the reward; 0 takes the largest value.",
    )

    def target(self) -> Target | None:
        if self.alpha == 0:
            return None  # it chooses the best candidate, whatever the density
        return Target({"main": 1.0}, self.reward_of(2) * (1 / self.alpha))

    def guide(self, at: Evaluation, memory: Any) -> Guided:
        return Guided(at.denoised())

    def after_step(self, step: Transition, memory: Any, generator: torch.Generator) -> Arrival:
        if self.M == 1 or step.sigma_next == 0:
            return Arrival(step.x_next)
        reward = self.reward_of(step.x.shape[-1])
        candidates = [step.x_next, *(step.draw() for _ in range(self.M - 1))]
        values = torch.stack([reward.value(step.evaluate(x).denoised()) for x in candidates], 1)
        chosen = self._chosen(values, separate_stream(generator))
        return Arrival(torch.stack(candidates, 1)[torch.arange(len(chosen), device=chosen.device), chosen])

    def _chosen(self, values: Tensor, generator: torch.Generator) -> Tensor:
        """The index of each point's candidate, with shape ``(n,)``, from values of shape ``(n, M)``."""
        if self.alpha == 0:
            return values.argmax(1)
        heights = torch.rand(len(values), 1, generator=generator, dtype=torch.float64).to(values.device)
        reached = torch.softmax(values.double() / self.alpha, 1).cumsum(1)
        return (reached < heights).sum(1).clamp(max=self.M - 1)  # the sum may round below 1
