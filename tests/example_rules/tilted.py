"""A particle rule: points are resampled in proportion to a reward, each step by the reward's growth in it."""

from dataclasses import dataclass

import param
import torch
from torch import Tensor

from toyguide.guidance import Arrival, Guided, Rule


@dataclass(frozen=True)
class Reward:
    now: Tensor


class Tilted(Rule):
    key = "tilted"
    title = "Particles tilted to the right"
    family = "Rewards and particles"
    formula = r"p_\lambda(x) \propto p(x)\, e^{\lambda x_0}"
    source = "an example for the tests, after FK steering"
    summary = "Resamples the points in each step, so that more of them have a large first coordinate."
    unguided = {"lam": 0.0}
    equivariant = ()
    interacts = True
    needs_noise = True

    lam = param.Number(2.0, bounds=(0.0, 20.0), doc="Weight of the reward; 0 is unguided.")
    resample = param.Boolean(True, doc="Whether to resample at all.")

    def begin(self, at, generator):
        return at.x, Reward(at.denoised()[:, 0])

    def guide(self, at, memory):
        return Guided(at.denoised(), memory=memory)

    def after_step(self, step, memory, generator):
        n = len(step.x_next)
        if not self.resample or self.lam == 0:
            return Arrival(step.x_next, memory)
        expected = step.x_next if step.sigma_next == 0 else step.evaluate(step.x_next).denoised()
        share = torch.softmax(self.lam * (expected[:, 0] - memory.now), 0).cpu().double()
        offsets = (torch.arange(n) + torch.rand((), generator=generator)) / n
        rows = torch.searchsorted(share.cumsum(0), offsets.double()).clamp(max=n - 1).to(step.x.device)
        return Arrival(step.x_next[rows], Reward(expected[rows, 0]), rows)
