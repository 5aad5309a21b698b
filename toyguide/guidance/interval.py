"""The guidance interval: any rule, switched on only between two noise levels.

Kynkäänniemi et al. find guidance harmful at high noise and needless at low. The switch looks at the level that a
solver step starts from, so both evaluations of a Heun step are guided or neither, as in the authors' code.

References:
    Kynkäänniemi et al., Applying Guidance in a Limited Interval Improves Sample and Distribution Quality in
    Diffusion Models, 2024, arXiv 2404.07724.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from toyguide.guidance.base import Evaluation, Guided, Rule, Transition


class Interval(Rule):
    """``rule`` where ``low < sigma <= high``, the main field elsewhere (with the rule's memory kept)."""

    def __init__(self, rule: Rule, low: float, high: float) -> None:
        super().__init__()
        self.rule, self.low, self.high = rule, low, high
        self.needs, self.first_order = rule.needs, rule.first_order  # type: ignore[misc]

    def values(self) -> dict[str, Any]:
        return {"rule": self.rule, "low": self.low, "high": self.high}

    def _on(self, sigma: float) -> bool:
        return self.low < sigma <= self.high

    def begin(self, x: Tensor, sigma: float, generator: torch.Generator) -> Any:
        return self.rule.begin(x, sigma, generator)

    def before_step(self, at: Evaluation, memory: Any) -> tuple[Tensor, Any]:
        return self.rule.before_step(at, memory) if self._on(at.step_sigma) else (at.x, memory)

    def guide(self, at: Evaluation, memory: Any) -> Guided:
        return self.rule.guide(at, memory) if self._on(at.step_sigma) else Guided(at.denoised("main"), memory=memory)

    def after_step(self, step: Transition, memory: Any, generator: torch.Generator) -> tuple[Tensor, Any]:
        return self.rule.after_step(step, memory, generator) if self._on(step.sigma) else (step.x_next, memory)
