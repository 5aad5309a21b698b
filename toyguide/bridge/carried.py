"""A rule along a run whose fields are known only as a pipeline gives them: at the run's points, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor

from toyguide.datasets.roles import KINDS
from toyguide.errors import InputError
from toyguide.fields import Field
from toyguide.guidance import Evaluation, Rule, Scene, Wrapper
from toyguide.guidance.evaluation import kept

__all__ = ["PASSES", "Carried"]

PASSES = {"sampled": "main", "union": "uncond", "weaker": "weak"}
"""The pass of a pipeline's model that fills a kind of role: the conditional one, the unconditional one, a weaker
model's."""


_ELSEWHERE = "it evaluates the model a second time in a step, at other points or another level"


class Carried:
    """A rule and its memory.

    Args:
        rule: The rule.
        weak: Whether there is a weaker model.

    Attributes:
        passes: The passes that the rule needs, by role.

    Raises:
        InputError: If the rule needs what a pipeline does not have; the message says what.
    """

    def __init__(self, rule: Rule, weak: bool) -> None:
        self.rule = rule
        self._memory: Any = None
        self.passes = {name: PASSES.get(role.kind, "") for name, role in rule.evaluates().items()}
        if why := _obstacle(rule, weak):
            raise InputError(f"rule {_inner(rule).key!r}: cannot run in a pipeline, because {why}")
        try:
            self._try()
        except InputError as problem:
            raise InputError(f"rule {_inner(rule).key!r}: cannot run in a pipeline, because {problem}") from problem

    def guided(self, x: Tensor, levels: tuple[float, ...], index: int, denoised: Mapping[str, Tensor]) -> Tensor:
        """The guided denoiser at a step; the steps of a run in their order, from 0.

        Args:
            x: The points, with shape ``(n, d)``.
            levels: The run's noise levels, falling, the last one 0.
            index: The step.
            denoised: The denoised points of each pass, with shape ``(n, d)``.

        Raises:
            InputError: If the rule asks for more than the passes.
        """
        fields = {role: _Known(x, levels[index], denoised[name]) for role, name in self.passes.items()}
        at = _AllKnown(Scene(fields, levels), x, levels[index], index)
        if index == 0:
            start, self._memory = self.rule.begin(at, torch.Generator().manual_seed(0))
            if start is not x:
                raise InputError("it moves the points that a run starts from")
        found = self.rule.guide(at, self._memory)
        if found.renoise is not None:
            raise InputError("it adds back another noise than it takes away, and a scheduler takes one prediction")
        self._memory = kept(found.memory, self._memory)
        return found.denoised

    def _try(self) -> None:
        """Three steps with random numbers: raises what the rule would raise in a run."""
        g, levels = torch.Generator().manual_seed(0), (4.0, 1.0, 0.25, 0.0)
        for index in range(3):
            x, *passes = torch.randn(4, 2, 4, generator=g, dtype=torch.float64)
            self.guided(x, levels, index, dict(zip(PASSES.values(), passes, strict=True)))


class _Known(Field):
    """A field whose denoised points are known at some points of one level, and nothing else."""

    def __init__(self, x: Tensor, sigma: float, denoised: Tensor) -> None:
        self.dim, self._x, self._sigma, self._denoised = x.shape[-1], x, sigma, denoised

    def denoise(self, x: Tensor, sigma: Any) -> Tensor:
        if x is not self._x or sigma != self._sigma:
            raise InputError(_ELSEWHERE)
        return self._denoised

    def log_density(self, x: Tensor, sigma: Any) -> NoReturn:
        raise InputError("it asks for a density")

    def score(self, x: Tensor, sigma: Any) -> NoReturn:
        raise InputError(_ELSEWHERE)

    def hessian(self, x: Tensor, sigma: Any) -> NoReturn:
        raise InputError("it asks for derivatives of the model")

    def jvp(self, x: Tensor, sigma: Any, v: Tensor) -> NoReturn:
        raise InputError("it asks for derivatives of the model")


class _AllKnown(Evaluation):
    """Every field is known at every point, so a rule that asks for some of them gets all."""

    @property
    def data(self) -> NoReturn:
        raise InputError("it asks for the dataset, and a pipeline has none")  # or it would be another rule without

    def denoised(self, role: str = "main", *, where: Tensor | None = None) -> Tensor:
        return super().denoised(role)


def _inner(rule: Rule) -> Rule:
    return _inner(rule.rule) if isinstance(rule, Wrapper) else rule


def _obstacle(rule: Rule, weak: bool) -> str | None:
    """What a rule declares that a pipeline does not have; None for nothing."""
    inner = type(_inner(rule))
    if rule.interacts:
        return "its points affect each other"
    if rule.needs_noise:
        return "it chooses among noisy steps, and the scheduler takes the steps"
    if inner.before_step is not Rule.before_step or inner.after_step is not Rule.after_step:
        return "it moves the points before or after a step, and the scheduler takes the steps"
    for name, role in rule.evaluates().items():
        if role.kind not in PASSES:
            return f"it needs {KINDS[role.kind]} ({name})"
        if PASSES[role.kind] == "weak" and not weak:
            return f"it needs {KINDS[role.kind]} ({name}), expected a denoiser as weak"
    return None
