"""Schedules: the weight of any rule, varied over a run.

The weight of the step ``i`` of N is

    w_i = u + f(p_i) (w - u) / mean(f),   p_i = i / (N - 1)

with u the weight at which the rule is unguided. What is ramped is the excess ``w - u`` (``w - 1`` for CFG), and its
mean over the steps is that of the constant weight, so that shapes of one w differ only in where they guide. The papers
leave open whether w or ``w - 1`` is ramped; p counts steps here, from the highest noise level to the lowest.

    constant      f = 1
    linear        f = 2 p              Wang et al., 2024, arXiv 2404.13040 (linear-down: backwards)
    cosine        f = 1 - cos(pi p)    the same (cosine-down: backwards)
    v             f = 2 |2 p - 1|      the same
    triangle      f = 2 - 2 |2 p - 1|  the same, as Lambda; 1 -> 2 w - 1 -> 1 in arXiv 2509.22007
    beta          f = 6 p (1 - p)      the density of Beta(2, 2): arXiv 2502.10574, without its power of the gap
    early:SHARE   f = 1 for p <= SHARE, 0 after it: guided early alone, as in arXiv 2602.00716
    late:SHARE    the same backwards
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import param
import torch
from torch import Tensor

from toyguide.errors import InputError, unknown
from toyguide.guidance.base import Rule
from toyguide.guidance.evaluation import Arrival, Evaluation, Guided, Transition
from toyguide.guidance.wrappers import Batched, Wrapper

__all__ = ["SHAPES", "Schedule", "checked_schedule", "shares", "weight_of", "why_constant"]

_WEIGHTS = ("w", "k", "lam")  # what rules call their weight
_SHARE = 0.5  # of the steps that `early` and `late` guide, if nothing is said


def _backwards(shape: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda p: shape(p)[::-1]


def _linear(p: np.ndarray) -> np.ndarray:
    return 2 * p


def _cosine(p: np.ndarray) -> np.ndarray:
    return 1 - np.cos(np.pi * p)


SHAPES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "constant": np.ones_like,
    "linear": _linear,
    "linear-down": _backwards(_linear),
    "cosine": _cosine,
    "cosine-down": _backwards(_cosine),
    "v": lambda p: 2 * np.abs(2 * p - 1),
    "triangle": lambda p: 2 - 2 * np.abs(2 * p - 1),
    "beta": lambda p: 6 * p * (1 - p),
}
"""The shapes without a number: from the progress p of each step, with shape ``(N,)``, to ``f(p)`` before its mean is
divided out. ``early`` and ``late`` have a number."""
_SWITCHED = ("early", "late")


def checked_schedule(schedule: Any) -> str | None:
    """A schedule as it is written: ``linear``, ``early:0.5``; None for a constant weight.

    Raises:
        InputError: If there is no such schedule.
    """
    if schedule is None or schedule == "constant":
        return None
    name, colon, number = str(schedule).partition(":")
    if name in SHAPES and not colon:
        return name
    if name not in _SWITCHED:
        raise unknown("schedule", str(schedule), [*SHAPES, *_SWITCHED])
    try:
        share = float(number) if colon else _SHARE
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise InputError(f"schedule {schedule!r}: expected a share of the steps up to 1, like {name}:{_SHARE}")
    return f"{name}:{share:g}"


def shares(schedule: str | None, steps: int) -> tuple[float, ...]:
    """The excess of the weight at each step, as a multiple of the constant one's; the mean is 1.

    Args:
        schedule: As from :func:`checked_schedule`.
        steps: The number of steps of the run.

    Raises:
        InputError: If the run has so few steps that the shape is 0 at all of them.
    """
    p = np.arange(steps) / max(steps - 1, 1)
    name, _, number = (schedule or "constant").partition(":")
    if name in _SWITCHED:
        early = (p <= float(number)).astype(float)
        found = early if name == "early" else early[::-1]
    else:
        found = SHAPES[name](p)
    if not found.any():
        raise InputError(f"schedule {schedule!r}: is unguided at each of {steps} steps, expected more steps")
    return tuple((found / found.mean()).tolist())


def weight_of(rule: Rule | type[Rule]) -> str | None:
    """The name of a rule's weight: of its number ``w``, ``k`` or ``lam`` that has an unguided value.

    None if there is none, and if the rule's points interact: the weights of particles follow from a constant ``w``.
    """
    if rule.interacts:
        return None
    declared, unguided = rule.declared(), rule.unguided or {}
    numbers = [k for k, v in declared.items() if isinstance(v, param.Number) and not isinstance(v, param.Integer)]
    return next((name for name in _WEIGHTS if name in unguided and name in numbers), None)


def why_constant(rule: Rule | type[Rule]) -> str:
    """Why a rule without a weight in the sense of :func:`weight_of` has none, in a few words."""
    return "its points interact" if rule.interacts else "it has no weight with an unguided value"


class Schedule(Wrapper):
    """The inner rule with a weight that varies over the run; see the module's docstring.

    The level that a solver step starts from decides, so both evaluations of a Heun step have one weight. A level that
    is none of the run's, at which a probe asks, has the weight of the nearest one. A weight may exceed the upper bound
    of the rule's parameter, which is that of one constant weight; below the lower one a formula may have no meaning.

    Args:
        rule: The inner rule, or several as one batch.
        schedule: As from :func:`checked_schedule`.
        levels: The run's noise levels, falling, the last one 0.

    Attributes:
        weight: The name of the parameter that varies.
        unguided_weight: Its value without guidance.

    Raises:
        InputError: If the rule has no weight that may vary, the schedule takes it below its lower bound, or there are
            too few steps.
    """

    def __init__(self, rule: Rule, schedule: str | None, levels: Sequence[float]) -> None:
        super().__init__(rule)
        self.schedule, self.levels = schedule, tuple(levels)
        self._shares = dict(zip(self.levels[:-1], shares(schedule, len(self.levels) - 1), strict=True))
        self._inner = rule.rule if isinstance(rule, Batched) else rule
        self._made: tuple[float, Rule] | None = None
        name = weight_of(self._inner)
        if name is None:
            raise InputError(f"schedule {schedule!r} of {self._inner.key!r}: {why_constant(self._inner)}")
        self.weight, self.unguided_weight = name, float((self._inner.unguided or {})[name])
        self._check_bounds()

    def _check_bounds(self) -> None:
        for rule in self.rule.rules if isinstance(self.rule, Batched) else (self.rule,):
            least = min(self._scaled(share, getattr(rule, self.weight)) for share in self._shares.values())
            low, _ = rule.declared()[self.weight].bounds or (None, None)
            if low is not None and least < low:
                raise InputError(
                    f"schedule {self.schedule!r}: takes {self.weight} to {least:g}, expected at least {low:g}"
                )

    def values(self) -> dict[str, Any]:
        return {"rule": self.rule, "schedule": self.schedule, "levels": self.levels}

    def __repr__(self) -> str:
        return f"Schedule(rule={self.rule!r}, schedule={self.schedule!r})"

    def _scaled(self, share: float, weight: Any) -> Any:
        return weight if share == 1 else self.unguided_weight + share * (weight - self.unguided_weight)

    def weight_at(self, sigma: float) -> Any:
        """The weight of the step that starts from a level; a column with one for each point if the inner rule's is."""
        share = self._shares.get(sigma)
        if share is None:
            share = self._shares[min(self._shares, key=lambda level: abs(math.log(level / sigma)))]
        return self._scaled(share, getattr(self._inner, self.weight))

    def at_step(self, sigma: float) -> Rule:
        """The inner rule with the weight of the step that starts from a level."""
        if self._made is None or self._made[0] != sigma:
            made = type(self._inner)(**self._inner.values())
            made.param[self.weight].bounds = None  # of this one object: its weight is computed
            setattr(made, self.weight, self.weight_at(sigma))
            self._made = sigma, made
        return self._made[1]

    def before_step(self, at: Evaluation, memory: Any) -> tuple[Tensor, Any]:
        return self.at_step(at.step_sigma).before_step(at, memory)

    def guide(self, at: Evaluation, memory: Any) -> Guided:
        return self.at_step(at.step_sigma).guide(at, memory)

    def after_step(self, step: Transition, memory: Any, generator: torch.Generator) -> Arrival:
        return self.at_step(step.sigma).after_step(step, memory, generator)
