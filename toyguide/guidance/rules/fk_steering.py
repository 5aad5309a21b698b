"""Feynman-Kac steering: the points of a run are particles, resampled by potentials of the reward that they expect.

At each step a particle expects the reward ``r_t = r(D(x))``, at the posterior mean. Its weight is multiplied by a
potential G, in the log and with the earlier, noisier steps s <= t:

    diff   lam (r_t - r_(t-1)),  the first one lam r_t
    max    lam max_s r_s
    add    lam sum_s r_s
    rt     lam r_t

The last potential is ``e^(lam r(x0))`` over the product of all before. So the product of all is ``e^(lam r(x0))``,
whichever the potential, and many particles sample ``p e^(lam r)``, p being what the sampler samples without them. The
potentials decide only how early the choice is made: diff adds up to it on the way, the others select more strongly and
are meant for few of the steps.

The expected reward is that of the evaluation that the step makes anyway, as in the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import param
import torch
from torch import Tensor

from toyguide.guidance.evaluation import Arrival, Evaluation, Guided, Transition
from toyguide.guidance.particles import effective_share, resampled, weights_trace
from toyguide.guidance.rewarded import Rewarded
from toyguide.targets import Target


@dataclass(frozen=True)
class Particles:
    """The memory: log-weights since the last resampling, what the potential remembers of earlier rewards, and the log
    of the product of all potentials, each with shape ``(n,)``."""

    log_weights: Tensor
    history: Tensor
    spent: Tensor


class FkSteering(Rewarded):
    """See the module's docstring. The paper's k particles are all points of a run."""

    key = "fk-steering"
    title = "Feynman-Kac steering"
    short = "FK steering"
    family = "Rewards and particles"
    formula = (
        r"W \leftarrow W \cdot G_t, \quad G_t = e^{\lambda (r(D_\mathrm{main}(x_t)) - r(D_\mathrm{main}(x_{t+1})))},"
        r" \quad \textstyle\prod_t G_t = e^{\lambda r(x_0)}, \quad p \propto p_\mathrm{main}\, e^{\lambda r}"
    )
    source = (
        "Singhal, Horvitz et al., A General Framework for Inference-time Scaling and Steering of Diffusion Models, "
        "2025, arXiv 2501.06848, and its code"
    )
    summary = (
        "Copies the points that promise a large reward and drops others, without a gradient. With many points it "
        "samples the density times e^(lam r); the number of different ancestors is the price."
    )
    unguided = {"lam": 0.0}
    off = {"lam": 0.0}
    equivariant = ()
    interacts = True
    needs_noise = True

    lam = param.Number(
        4.0, bounds=(0.0, 100.0), softbounds=(0.0, 20.0), step=0.5, doc="Weight λ of the reward; 0 is unguided."
    )
    potential: Any = param.Selector(
        default="diff",
        objects=["diff", "max", "add", "rt"],
        doc="Growth of the expected reward, its largest so far, its sum so far, or itself.",
    )
    every = param.Integer(
        1,
        bounds=(1, 1000),
        softbounds=(1, 16),
        doc="Steps from one potential to the next; 1 for diff, 5 or more for the others.",
    )
    threshold = param.Number(
        0.5, bounds=(0.0, 1.0), step=0.05, doc="Resample where the effective share of the points is below this."
    )

    def target(self) -> Target:
        return Target({"main": 1.0}, self.reward_of(2) * self.lam)

    def begin(self, at: Evaluation, generator: torch.Generator) -> tuple[Tensor, Particles]:
        zero = at.x.new_zeros(len(at.x))
        return at.x, Particles(zero, zero - torch.inf if self.potential == "max" else zero, zero)

    def guide(self, at: Evaluation, memory: Particles) -> Guided:
        denoised = at.denoised()
        if (at.index + 1) % self.every == 0:
            history, potential = self._potential(self.lam * self.reward_of(at.x.shape[-1]).value(denoised), memory)
            memory = Particles(memory.log_weights + potential, history, memory.spent + potential)
        return Guided(
            denoised, memory=memory, trace=weights_trace(memory.log_weights, effective_share(memory.log_weights))
        )

    def _potential(self, now: Tensor, memory: Particles) -> tuple[Tensor, Tensor]:
        """What to remember, and the log-potentials, from lam times the expected rewards; each with shape ``(n,)``."""
        if self.potential == "diff":
            return now, now - memory.history
        if self.potential == "rt":
            return memory.history, now
        history = torch.maximum(memory.history, now) if self.potential == "max" else memory.history + now
        return history, history

    def after_step(self, step: Transition, memory: Particles, generator: torch.Generator) -> Arrival:
        x, log_weights, last = step.x_next, memory.log_weights, step.sigma_next == 0
        if last:
            log_weights = log_weights + self.lam * self.reward_of(x.shape[-1]).value(x) - memory.spent
        rows = resampled(log_weights, self.threshold, last, generator)
        if rows is None:
            return Arrival(x, memory)
        return Arrival(
            x[rows], Particles(torch.zeros_like(log_weights), memory.history[rows], memory.spent[rows]), rows
        )
