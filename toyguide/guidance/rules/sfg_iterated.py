"""Saddle-free guidance with more power iterations in each solver step, or without the warm start.

The paper makes one iteration per step, starting from the previous step's v, and leaves open whether more would help.
Here all ``iterations`` of a step are made at the same point, each with its own product; the last product guides:

    u_k = (D(x + h sigma v_k) - D(x)) / (h sigma) - v_k,    v_(k+1) = (u_k + alpha v_k) / |u_k + alpha v_k|

A random start draws a new v for each solver step. One iteration with a warm start is SFG itself.
"""

from __future__ import annotations

from typing import Any

import param
import torch
from torch import Tensor

from toyguide.guidance.base import Limit
from toyguide.guidance.evaluation import Arrival, Evaluation, Transition
from toyguide.guidance.rules.sfg import Direction, SaddleFreeGuidance, random_direction


class IteratedSaddleFreeGuidance(SaddleFreeGuidance):
    """See the module's docstring; evaluates ``main`` ``1 + iterations`` times."""

    key = "sfg-iterated"
    title = "SFG, iterated or restarted (reconstruction)"
    formula = (
        SaddleFreeGuidance.formula + r", \quad"
        r" u \leftarrow \frac{D_\mathrm{main}(x + h\sigma v) - D_\mathrm{main}(x)}{h\sigma} - v \quad \text{again}"
    )
    source = "Yeats et al., 2025, arXiv 2511.21863, its open question on more than one iteration; read in a review"
    summary = (
        "SFG with several power iterations at each point, from the last step's direction or from a random one: shows "
        "the effect of more iterations and of the warm start. Each iteration is one evaluation."
    )
    limits = (Limit({"iterations": 1}, "sfg", same=("w", "alpha", "h", "sign")),)
    batchable = False

    iterations = param.Integer(2, bounds=(1, 100), softbounds=(1, 20), doc="Power iterations in each evaluation.")
    start: Any = param.Selector(
        default="warm", objects=["warm", "random"], doc="The start of each step's v: the last step's, or a random one."
    )

    def begin(self, at: Evaluation, generator: torch.Generator) -> tuple[Tensor, Direction]:
        first = super().begin(at, generator.clone_state())
        torch.rand((), generator=generator)  # skip the number that seeds the sampler's noise; restarts use the next
        return first

    def correction(
        self, at: Evaluation, denoised: Tensor, memory: Direction
    ) -> tuple[Tensor, Direction, dict[str, Tensor]]:
        for _ in range(self.iterations - 1):
            _, memory, _ = super().correction(at, denoised, memory)
        return super().correction(at, denoised, memory)

    def after_step(self, step: Transition, memory: Direction, generator: torch.Generator) -> Arrival:
        if self.start == "random":
            # A separate stream, so that the first points' directions do not depend on the number of points.
            stream = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))
            memory = Direction(random_direction(step.x_next, stream), memory.alpha)
        return Arrival(step.x_next, memory)
