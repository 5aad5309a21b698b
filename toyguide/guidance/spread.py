"""Several runs of one rule, side by side: each point is guided with its own run's numbers.

A formula like ``main + (w - 1)(main - weak)`` does not mind whether ``w`` is a number or a column with one number for
each point. So runs that differ in such parameters, or in their random numbers, are one run of all their points: the
fields are evaluated once a step for all of them. A rule says in ``per_point`` that its formulas allow it.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import param
import torch
from torch import Tensor

from toyguide.guidance.base import Evaluation, Guided, Rule, Transition


class Spread(Rule):
    """Runs of rules that differ in nothing but parameters that are ``per_point``, the points run after run.

    Each run begins as it would alone: with its own numbers, its own points and its own random numbers. What follows is
    what it would be alone, up to rounding: a column has the points' dtype, a number is a double.

    Args:
        rules: Each run's rule.
        generators: Each run's random numbers.
        like: Points, of the dtype and on the device of the runs' own, with shape ``(runs * n, d)``.
    """

    def __init__(self, rules: Sequence[Rule], generators: Sequence[torch.Generator], like: Tensor) -> None:
        super().__init__()
        self.rules, self._generators = tuple(rules), tuple(generators)
        first, each = rules[0], len(like) // len(rules)
        columns = {}
        for name in first.per_point or ():
            numbers = [getattr(rule, name) for rule in rules]
            if len(set(numbers)) > 1:
                columns[name] = torch.tensor(numbers, dtype=torch.float64).to(like).repeat_interleave(each)[:, None]
        self._rule = _WithColumns(first, columns) if columns else first
        self.needs, self.first_order = first.needs, first.first_order  # type: ignore[misc]

    def values(self) -> dict[str, Any]:
        return {"rules": self.rules}

    def begin(self, x: Tensor, sigma: float, generator: torch.Generator) -> Any:
        parts = x.chunk(len(self.rules))
        each = zip(self.rules, parts, self._generators, strict=True)
        return _joined([rule.begin(part, sigma, own) for rule, part, own in each])

    def before_step(self, at: Evaluation, memory: Any) -> tuple[Tensor, Any]:
        return self._rule.before_step(at, memory)

    def guide(self, at: Evaluation, memory: Any) -> Guided:
        return self._rule.guide(at, memory)

    def after_step(self, step: Transition, memory: Any, generator: torch.Generator) -> tuple[Tensor, Any]:
        return self._rule.after_step(step, memory, generator)


class _WithColumns:
    """A rule in whose methods ``self`` has columns where the rule has numbers.

    It cannot be the rule itself, whose parameters are checked to be numbers. The rule's methods and properties are
    bound to this object; whatever else is asked for is the rule's.
    """

    def __init__(self, rule: Rule, columns: Mapping[str, Tensor]) -> None:
        self._rule, self._columns = rule, columns

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # what super() in the rule's methods looks at
        return type(self._rule)

    def __getattr__(self, name: str) -> Any:
        if name in self._columns:
            return self._columns[name]
        written = inspect.getattr_static(type(self._rule), name, None)
        if hasattr(written, "__get__") and not isinstance(written, param.Parameter):
            return written.__get__(self, type(self._rule))
        return getattr(self._rule, name)


def _joined(memories: Sequence[Any]) -> Any:
    """The runs' memories as one: tensors one behind the other, wherever in a dataclass they are."""
    first = memories[0]
    if first is None:
        return None
    if isinstance(first, Tensor):
        return torch.cat(list(memories))
    if not dataclasses.is_dataclass(first) or isinstance(first, type):
        raise TypeError(f"memory of type {type(first).__name__}: expected a tensor, a dataclass of them or None")
    parts = {f.name: _joined([getattr(m, f.name) for m in memories]) for f in dataclasses.fields(first)}
    return dataclasses.replace(first, **parts)
