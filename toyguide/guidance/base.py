"""What a guidance rule is, what it may ask for, and how it is found.

A rule is a value: a name, a few bounded parameters, no memory. The sampling loop hands it an :class:`Evaluation`,
which knows one point ``x`` at one ``sigma`` and evaluates the named fields there when first asked (so a field that a
rule does not need costs nothing and is not counted), and gets back a :class:`Guided`.

A rule can do these things, and most do only the third:

    begin         make its per-trajectory memory (a direction, a momentum buffer, log-weights), once per run
    before_step   move ``x`` before a solver step (inner iterations)
    guide         combine the fields into one guided denoiser; hand on new memory, a second denoiser to renoise with,
                  and a trace to be shown
    after_step    replace the points of a finished step (resampling, selection among candidates)

Memory is threaded, never hidden: what ``guide`` returned at the first evaluation of a solver step is what the rest of
that step and the next one get, so it is updated once per step however many evaluations the solver makes.

**Weight 1 is unguided** for every extrapolating rule, weight 0 the guiding field.

A file in this folder, or in a folder named by the environment variable ``TOYGUIDE_RULES``, that defines a subclass of
:class:`Rule` with a ``key`` is a rule: nothing else has to be touched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import param
import torch
from torch import Tensor

from toyguide.errors import InputError, unknown
from toyguide.fields import Field, eps_from_denoised, score_from_denoised, velocity_from_denoised
from toyguide.fields.joint import denoise_together

__all__ = ["ROLES", "Evaluation", "Guided", "Rule", "Transition", "expectation"]

# What a field can be to a rule: what is sampled, what CFG-like rules extrapolate from, what autoguidance does.
ROLES = ("main", "uncond", "weak")


class Evaluation:
    """The fields at one point and noise level, each evaluated when first asked for and counted.

    Attributes:
        x: The points, with shape ``(n, d)``.
        sigma: Their noise level, positive.
        step_sigma: The level that the current solver step started from; what switches within a step look at.
        nfe: How many field evaluations were made here.
    """

    def __init__(self, fields: Mapping[str, Field], x: Tensor, sigma: float, step_sigma: float | None = None) -> None:
        self.x, self.sigma = x, sigma
        self.step_sigma = sigma if step_sigma is None else step_sigma
        self.nfe = 0
        self._fields = fields
        self._denoised: dict[str, Tensor] = {}

    def denoised(self, role: str = "main") -> Tensor:
        """The denoised points of the field in ``role``, with shape ``(n, d)``."""
        if role not in self._denoised:
            self._denoised[role] = self.elsewhere(self.x, self.sigma, role)
        return self._denoised[role]

    def together(self, *roles: str) -> list[Tensor]:
        """The denoised points of several fields that a rule wants all of: those that can be evaluated at once, are."""
        missing = [role for role in dict.fromkeys(roles) if role not in self._denoised]
        self.nfe += len(missing)
        found = denoise_together([self.field(role) for role in missing], self.x, self.sigma)
        self._denoised |= zip(missing, found, strict=True)
        return [self._denoised[role] for role in roles]

    def score(self, role: str = "main") -> Tensor:
        return score_from_denoised(self.denoised(role), self.x, self.sigma)

    def eps(self, role: str = "main") -> Tensor:
        return eps_from_denoised(self.denoised(role), self.x, self.sigma)

    def velocity(self, role: str = "main") -> Tensor:
        return velocity_from_denoised(self.denoised(role), self.x, self.sigma)

    def elsewhere(self, x: Tensor, sigma: float, role: str = "main") -> Tensor:
        """The denoised points of a field at another point or level; counted every time it is asked."""
        self.nfe += 1
        return self.field(role).denoise(x, sigma)

    def field(self, role: str) -> Field:
        """The field itself, for what is not an evaluation of its denoiser (a Hessian for the eye, a posterior)."""
        if role not in self._fields:
            raise unknown("field", role, self._fields)
        return self._fields[role]


@dataclass(frozen=True)
class Guided:
    """What a rule makes of the fields at one point.

    Attributes:
        denoised: The guided denoiser, with shape ``(n, d)``.
        renoise: The denoiser whose noise is put back by a step, where that is another one (CFG++).
        memory: The rule's memory from here on.
        trace: Per-point quantities worth showing, each with shape ``(n,)`` or ``(n, d)``.
    """

    denoised: Tensor
    renoise: Tensor | None = None
    memory: Any = None
    trace: Mapping[str, Tensor] = field(default_factory=dict)

    def slope(self, x: Tensor, sigma: float, sigma_next: float) -> Tensor:
        """The slope ``dx/dsigma`` of a step from ``sigma`` to ``sigma_next``, with shape ``(n, d)``.

        A step lands on ``D + (sigma'/sigma)(x - R)`` with the denoiser D and the renoiser R; with R = D this is the
        probability-flow slope ``(x - D)/sigma``, whatever the next level.
        """
        if self.renoise is None:
            return eps_from_denoised(self.denoised, x, sigma)
        landing = self.denoised + (sigma_next / sigma) * (x - self.renoise)
        return (landing - x) / (sigma_next - sigma)


@dataclass(frozen=True)
class Transition:
    """One finished solver step, for rules that choose among its outcomes.

    Attributes:
        x: The points before the step, with shape ``(n, d)``.
        sigma: The level before the step.
        x_next: The points after it.
        sigma_next: The level after it; 0 at the last step.
        guided: What the rule returned at the step's first evaluation.
        draw: Makes the step again with fresh noise (the same points with a deterministic sampler).
    """

    x: Tensor
    sigma: float
    x_next: Tensor
    sigma_next: float
    guided: Guided
    draw: Callable[[], Tensor]


class Rule(param.Parameterized):
    """A guidance rule. Parameters are ``param`` declarations: bounds, step and doc are written once, next to them."""

    key: ClassVar[str] = ""
    """The name it is chosen by."""
    title: ClassVar[str] = ""
    """The name people read; says so where the formula is a reconstruction."""
    formula: ClassVar[str] = ""
    """LaTeX, in the denoiser D unless the rule works elsewhere."""
    source: ClassVar[str] = ""
    """Paper, arXiv number and equation."""
    summary: ClassVar[str] = ""
    """What it does and when to reach for it, in a sentence or two."""
    needs: ClassVar[tuple[str, ...]] = ("main",)
    """The roles it evaluates."""
    unguided: ClassVar[Mapping[str, Any]] = {}
    """Parameter values at which it must equal the main field exactly."""
    first_order: ClassVar[bool] = False
    """Whether it steps in a way of its own that only a first-order sampler can follow (a renoiser of its own)."""
    per_point: ClassVar[tuple[str, ...] | None] = None
    """Parameters whose place in every formula a column with a number for each point can take, with shape ``(n, 1)``;
    then no point may see another, and random numbers are drawn in ``begin`` alone. None where runs cannot be joined."""

    def __init__(self, /, **params: Any) -> None:
        super().__init__()
        declared = self.declared()
        for key, value in params.items():
            if key not in declared:
                raise unknown(f"parameter of {self.key}", key, declared)
            try:
                if isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)):
                    raise ValueError(value)
                # 3 and 3.0 must be one value, in a hash and in JSON too.
                is_real = isinstance(declared[key], param.Number) and not isinstance(declared[key], param.Integer)
                setattr(self, key, float(value) if is_real and isinstance(value, int) else value)
            except ValueError as problem:
                raise InputError(f"{self.key}: {key} = {value!r}: expected {expectation(declared[key])}") from problem

    @classmethod
    def declared(cls) -> dict[str, param.Parameter]:
        """The rule's parameters by name, in the order they are written, a parent's first."""
        known = cls.param.objects(instance=False)
        written = [k for base in reversed(cls.__mro__) for k in vars(base)]
        return {k: known[k] for k in dict.fromkeys(written) if k in known and k != "name"}

    def values(self) -> dict[str, Any]:
        """The parameters' values by name."""
        return {k: getattr(self, k) for k in self.declared()}

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.values() == other.values()

    def __hash__(self) -> int:
        return hash((type(self), tuple(self.values().items())))

    def __repr__(self) -> str:
        return f"{self.key}({', '.join(f'{k}={v!r}' for k, v in self.values().items())})"

    def begin(self, x: Tensor, sigma: float, generator: torch.Generator) -> Any:
        """The memory at the start of a run; None for a rule without memory.

        Args:
            x: The starting points, with shape ``(n, d)``.
            sigma: The first noise level.
            generator: The run's random numbers, on the CPU.
        """
        return None

    def before_step(self, at: Evaluation, memory: Any) -> tuple[Tensor, Any]:
        """The points that the step starts from, and the memory; by default as they are."""
        return at.x, memory

    def guide(self, at: Evaluation, memory: Any) -> Guided:
        """The guided denoiser at one point. Must be given by every rule."""
        raise TypeError(f"the rule {self.key!r} does not say how it guides")

    def after_step(self, step: Transition, memory: Any, generator: torch.Generator) -> tuple[Tensor, Any]:
        """The points that the step ends on, and the memory; by default as they are."""
        return step.x_next, memory


def expectation(parameter: param.Parameter) -> str:
    """A parameter's valid values, in words."""
    if isinstance(parameter, param.Selector):
        return "one of " + ", ".join(map(str, parameter.objects))
    if isinstance(parameter, param.Number):
        kind = "a whole number" if isinstance(parameter, param.Integer) else "a number"
        low, high = parameter.bounds or (None, None)
        return f"{kind} from {low} to {high}" if None not in (low, high) else kind
    return parameter.doc or "another value"
