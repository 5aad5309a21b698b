"""Saddle-free guidance with more power iterations in each solver step, or without the warm start.

The paper takes one iteration a step, from the v of the step before, and leaves open what more of them would buy. Here
all ``iterations`` of a step are made at the same point, each with a product of its own; the last one's guides:

    u_k = (D(x + h sigma v_k) - D(x)) / (h sigma) - v_k,    v_(k+1) = (u_k + alpha v_k) / |u_k + alpha v_k|

A random start draws a new v at the beginning of each solver step. One iteration from a warm start is SFG itself.
"""

from __future__ import annotations

from typing import Any

import param
import torch
from torch import Tensor

from toyguide.guidance.evaluation import Arrival, Evaluation, Transition
from toyguide.guidance.rules.sfg import Direction, SaddleFreeGuidance, random_direction


class IteratedSaddleFreeGuidance(SaddleFreeGuidance):
    """See the module's text; ``main`` alone is evaluated, ``1 + iterations`` times."""

    key = "sfg-iterated"
    title = "SFG, iterated or restarted (reconstruction)"
    formula = (
        SaddleFreeGuidance.formula + r", \quad"
        r" u \leftarrow \frac{D_\mathrm{main}(x + h\sigma v) - D_\mathrm{main}(x)}{h\sigma} - v \quad \text{again}"
    )
    source = "Yeats et al., 2025, arXiv 2511.21863, its open question on more than one iteration; read in a review"
    summary = (
        "SFG with several power iterations at each point, from the last step's direction or from a random one: shows "
        "what its single iteration and its warm start are worth. Each iteration is an evaluation."
    )
    batchable = False

    iterations = param.Integer(2, bounds=(1, 100), softbounds=(1, 20), doc="Power iterations in each evaluation.")
    start: Any = param.Selector(
        default="warm", objects=["warm", "random"], doc="Where each step's v starts: at the last step's, or anywhere."
    )

    def begin(self, at: Evaluation, generator: torch.Generator) -> tuple[Tensor, Direction]:
        first = super().begin(at, generator.clone_state())
        torch.rand((), generator=generator)  # the sampler's noise has its seed from here, a restart's from the next
        return first

    def correction(
        self, at: Evaluation, denoised: Tensor, memory: Direction
    ) -> tuple[Tensor, Direction, dict[str, Tensor]]:
        for _ in range(self.iterations - 1):
            _, memory, _ = super().correction(at, denoised, memory)
        return super().correction(at, denoised, memory)

    def after_step(self, step: Transition, memory: Direction, generator: torch.Generator) -> Arrival:
        if self.start == "random":
            # From a stream of its own, so that the first points' directions are the same however many there are.
            stream = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))
            memory = Direction(random_direction(step.x_next, stream), memory.alpha)
        return Arrival(step.x_next, memory)
