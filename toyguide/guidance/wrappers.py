"""Rules that wrap another rule and delegate to it whatever they do not change."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from toyguide.datasets.roles import Role
from toyguide.errors import InputError
from toyguide.guidance.base import Rule
from toyguide.guidance.evaluation import Arrival, Evaluation, Guided, Transition, kept

__all__ = ["Batched", "Interval", "Settled", "Wrapper"]


class Wrapper(Rule):
    """A rule that delegates everything to another. Subclasses override parts of it. It has no target: nobody says what
    a rule samples that is changed at some noise levels.

    Args:
        rule: The inner rule.
    """

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self.rule = rule
        for name in ("needs", "first_order", "needs_noise", "interacts", "equivariant"):
            setattr(self, name, getattr(rule, name))

    def roles(self) -> dict[str, Role]:  # type: ignore[override]
        return self.rule.roles()

    def evaluates(self) -> dict[str, Role]:
        return self.rule.evaluates()

    def values(self) -> dict[str, Any]:
        return {"rule": self.rule}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.values().items())})"

    def begin(self, at: Evaluation, generator: torch.Generator) -> tuple[Tensor, Any]:
        return self.rule.begin(at, generator)

    def before_step(self, at: Evaluation, memory: Any) -> tuple[Tensor, Any]:
        return self.rule.before_step(at, memory)

    def guide(self, at: Evaluation, memory: Any) -> Guided:
        return self.rule.guide(at, memory)

    def after_step(self, step: Transition, memory: Any, generator: torch.Generator) -> Arrival:
        return self.rule.after_step(step, memory, generator)


class Interval(Wrapper):
    """The inner rule where ``low < sigma <= high``, the main field elsewhere (with the rule's memory kept).

    Guidance is harmful at high noise and needless at low (Kynkäänniemi et al., Applying Guidance in a Limited Interval
    Improves Sample and Distribution Quality in Diffusion Models, 2024, arXiv 2404.07724). The level that a solver step
    starts from decides, so either both evaluations of a Heun step are guided or neither, as in the authors' code.

    Args:
        rule: The inner rule.
        low: Not guided at this level and below.
        high: Not guided above this level.
    """

    def __init__(self, rule: Rule, low: float, high: float) -> None:
        super().__init__(rule)
        self.low, self.high = low, high

    def values(self) -> dict[str, Any]:
        return {"rule": self.rule, "low": self.low, "high": self.high}

    def _guides(self, sigma: float) -> bool:
        return self.low < sigma <= self.high

    def before_step(self, at: Evaluation, memory: Any) -> tuple[Tensor, Any]:
        return super().before_step(at, memory) if self._guides(at.step_sigma) else (at.x, memory)

    def guide(self, at: Evaluation, memory: Any) -> Guided:
        return super().guide(at, memory) if self._guides(at.step_sigma) else Guided(at.denoised(), memory=memory)

    def after_step(self, step: Transition, memory: Any, generator: torch.Generator) -> Arrival:
        return super().after_step(step, memory, generator) if self._guides(step.sigma) else Arrival(step.x_next, memory)


class Settled(Wrapper):
    """The inner rule with a memory that is updated several times at the starting points.

    A memory that converges along a trajectory, such as SFG's direction, would still be random in a run that starts at a
    low noise level. Settling repeats its update at the starting points instead.

    Args:
        rule: The inner rule.
        times: The number of updates.
    """

    def __init__(self, rule: Rule, times: int) -> None:
        super().__init__(rule)
        self.times = times

    def values(self) -> dict[str, Any]:
        return {"rule": self.rule, "times": self.times}

    def begin(self, at: Evaluation, generator: torch.Generator) -> tuple[Tensor, Any]:
        x, memory = super().begin(at, generator)
        moved = at if x is at.x else at.moved(x)
        for _ in range(self.times if memory is not None else 0):
            memory = kept(self.rule.guide(moved, memory).memory, memory)
        return x, memory


class Batched(Wrapper):
    """Several runs of one rule as one run of all their points, in the order of the runs.

    The rules differ only in :class:`PerTrajectory` parameters, which become tensors with one number for each point.
    Each run's ``begin`` gets its own parameters, points and random numbers. The results equal those of separate runs up
    to rounding: a tensor parameter has the points' dtype, a number is a double.

    Args:
        rules: Each run's rule, all of one ``batchable`` class.
        generators: Each run's random numbers.
        like: Points, of the dtype and on the device of the runs' own, with shape ``(runs * n, d)``.
    """

    def __init__(self, rules: Sequence[Rule], generators: Sequence[torch.Generator], like: Tensor) -> None:
        first, each = rules[0], len(like) // len(rules)
        columns = {}
        for name in first.per_trajectory():
            numbers = [getattr(rule, name) for rule in rules]
            if len(set(numbers)) > 1:
                column = torch.tensor(numbers, dtype=torch.float64, device="cpu").to(like)
                columns[name] = column.repeat_interleave(each)[:, None]
        super().__init__(type(first)(**{**first.values(), **columns}) if columns else first)
        self.rules, self._generators = tuple(rules), tuple(generators)

    def values(self) -> dict[str, Any]:
        return {"rules": self.rules}

    def begin(self, at: Evaluation, generator: torch.Generator) -> tuple[Tensor, Any]:
        parts = [at.moved(part) for part in at.x.chunk(len(self.rules))]
        each = zip(self.rules, parts, self._generators, strict=True)
        begun = [rule.begin(part, own) for rule, part, own in each]
        return torch.cat([x for x, _ in begun]), _joined([memory for _, memory in begun])


def _joined(memories: Sequence[Any]) -> Any:
    """The runs' memories as one: concatenates tensors, at any depth in tuples, dicts and dataclasses."""
    first = memories[0]
    if first is None:
        return None
    if isinstance(first, Tensor):
        return torch.cat(list(memories))
    if isinstance(first, tuple | list):
        return type(first)(_joined(parts) for parts in zip(*memories, strict=True))
    if isinstance(first, dict):
        return {key: _joined([m[key] for m in memories]) for key in first}
    if not dataclasses.is_dataclass(first) or isinstance(first, type):
        raise InputError(f"memory of type {type(first).__name__}: expected tensors, or None, in tuples or dataclasses")
    parts = {f.name: _joined([getattr(m, f.name) for m in memories]) for f in dataclasses.fields(first)}
    return dataclasses.replace(first, **parts)
