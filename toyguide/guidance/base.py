"""The interface of a guidance rule.

A rule is a value: a name and a few bounded parameters, without state. The sampling loop passes it an
:class:`Evaluation`, which holds the points and their noise level and evaluates the named fields there on first use (so
an unused field costs nothing and is not counted). The rule returns a :class:`Guided`.

A rule has four methods; most rules define only the third:

    begin         make its per-trajectory memory (a direction, a momentum buffer, log-weights), or move the starting
                  points, once per run
    before_step   move the points before a solver step (inner iterations)
    guide         combine the fields into one guided denoiser; optionally return new memory, a second denoiser to
                  renoise with, and a trace for display
    after_step    replace the points of a finished step (resampling, selection among candidates)

Memory is passed explicitly. The memory that ``guide`` returns at the first evaluation of a solver step is used for the
rest of that step and for the next, so it is updated once per step however many evaluations the solver makes.

Class attributes declare the rest: the roles of the fields, whether the points interact, which samplers the rule needs.

**Weight 1 is unguided** for every extrapolating rule, weight 0 the guiding field.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import param
import torch
from torch import Tensor

from toyguide.datasets.roles import ROLES, Role
from toyguide.errors import InputError, unknown
from toyguide.guidance.evaluation import Arrival, Evaluation, Guided, Transition
from toyguide.targets.target import Target

__all__ = ["FAMILIES", "Limit", "PerTrajectory", "Rule", "expectation"]

FAMILIES = ("One field", "Several fields", "Classifiers", "Rewards and particles", "Inside the network")
"""The groups of a menu, in this order; rules of other families come after them."""


class PerTrajectory(param.Number):
    """A number, or a tensor with one number for each point, with shape ``(n, 1)``.

    A formula like ``main + (w - 1)(main - weak)`` works for both. A rule with such parameters can run many weights as
    one batch; see ``Rule.batchable``.
    """

    def _validate_value(self, val: Any, allow_None: bool) -> None:
        if not isinstance(val, Tensor):
            super()._validate_value(val, allow_None)
        elif val.ndim != 2 or val.shape[1] != 1:
            raise ValueError(f"a tensor of shape {tuple(val.shape)}, expected (n, 1)")

    def _validate_bounds(self, val: Any, bounds: Any, inclusive_bounds: Any) -> None:
        for extreme in (float(val.min()), float(val.max())) if isinstance(val, Tensor) else (val,):
            super()._validate_bounds(extreme, bounds, inclusive_bounds)


@dataclass(frozen=True)
class Limit:
    """Values at which a rule equals another: a fact of its formula, which a test asks of every rule.

    ``Limit({"eta": 1.0, "beta": 0.0, "r": math.inf}, "cfg", same=("w",))`` says that the rule with these values is
    ``cfg`` with the same w, whatever w is.

    Attributes:
        params: The rule's own values.
        rule: The other rule's name.
        of: The other rule's values.
        same: Parameters of both rules that have the same value, whichever it is.
        fields: Roles that get the field of another role, in both rules: ``{"weak": "uncond"}`` runs both with the
            unconditional field in the role ``weak``.
        sampler: The sampler for which it holds; empty for every sampler that both rules allow.
    """

    params: Mapping[str, Any]
    rule: str
    of: Mapping[str, Any] = field(default_factory=dict)
    same: tuple[str, ...] = ()
    fields: Mapping[str, str] = field(default_factory=dict)
    sampler: str = ""


class Rule(param.Parameterized):
    """A guidance rule. Parameters are ``param`` declarations: bounds, step and doc are written once, next to them."""

    key: ClassVar[str] = ""
    """The name in code, files and the CLI."""
    title: ClassVar[str] = ""
    """The displayed name; says so if the formula is a reconstruction."""
    short: ClassVar[str] = ""
    """The name where there is little room; empty for the title without what it says in brackets."""
    family: ClassVar[str] = "One field"
    """The group it is listed in, one of ``FAMILIES`` or another name."""
    formula: ClassVar[str] = ""
    """LaTeX, in the denoiser D unless the rule works elsewhere."""
    source: ClassVar[str] = ""
    """Paper, arXiv number and equation."""
    summary: ClassVar[str] = ""
    """What it does and when to use it, in a sentence or two."""
    needs: ClassVar[tuple[Any, ...]] = ("main",)
    """The fields it evaluates: a name of ``ROLES``, or a :class:`Role` for any other. Names alone once defined."""
    unguided: ClassVar[Mapping[str, Any] | None] = None
    """Parameter values at which it must equal the main field exactly; None where there are none."""
    off: ClassVar[Mapping[str, Any]] = {}
    """The value that switches each parameter off, for those that have one. ``math.inf`` may be such a value, though
    the sliders end below it."""
    only_with: ClassVar[Mapping[str, Mapping[str, tuple[Any, ...]]]] = {}
    """The choices with which a parameter means anything: ``{"k": {"aim": ("tempered",)}}``. Without them its value
    changes nothing, and the explorer does not show it."""
    limits: ClassVar[tuple[Limit, ...]] = ()
    """Values at which it equals other rules."""
    equivariant: ClassVar[tuple[str, ...]] = ("rotation", "translation")
    """The transformations of fields and points that the rule commutes with."""
    first_order: ClassVar[bool] = False
    """Whether it needs a first-order sampler, as rules with a renoiser do."""
    needs_noise: ClassVar[bool] = False
    """Whether it needs a stochastic sampler, because without noise its candidates would all be the same."""
    interacts: ClassVar[bool] = False
    """Whether its points affect each other. Then part of a run is not a preview of it, runs are not batched, and
    intervals come only from independent runs."""
    batchable: ClassVar[bool] = False
    """Whether runs that differ in seeds and in :class:`PerTrajectory` parameters may be batched into one run of all
    their points: points do not interact, random numbers are drawn only in ``begin``, and memory is a tensor with a row
    for each point, or several in a tuple, dict or dataclass."""

    _roles: ClassVar[dict[str, Role]] = {"main": ROLES["main"]}

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "needs" in vars(cls):
            if isinstance(cls.needs, str | Role):
                raise TypeError(f"needs = {cls.needs!r}: expected a tuple of roles, like ('main', 'weak')")
            cls._roles = {role.name: role for role in map(_as_role, cls.needs)}
            cls.needs = tuple(cls._roles)
        if vars(cls).get("key"):
            DEFINED[cls.key] = cls

    def __init__(self, /, **params: Any) -> None:
        super().__init__()
        declared = self.declared()
        for key, value in params.items():
            if key not in declared:
                raise unknown(f"parameter of {self.key}", key, declared)
            is_flag = isinstance(declared[key], param.Boolean)
            if value == "inf":  # as JSON has it
                value = math.inf
            try:
                is_off = isinstance(value, float) and value == self.off.get(key)
                if isinstance(value, bool) != is_flag or not (is_off or _is_finite(value)):
                    raise ValueError(value)
                # 3 and 3.0 must be the same value, also in a hash and in JSON.
                is_real = isinstance(declared[key], param.Number) and not isinstance(
                    declared[key], param.Integer | param.Boolean
                )
                setattr(self, key, float(value) if is_real and isinstance(value, int) else value)
            except ValueError as problem:
                raise InputError(f"{self.key}: {key} = {value!r}: expected {expectation(declared[key])}") from problem

    @classmethod
    def called(cls) -> str:
        """Its name where there is little room."""
        return cls.short or cls.title.partition(" (")[0]

    @classmethod
    def roles(cls) -> dict[str, Role]:
        """The roles of the fields it evaluates, by name."""
        return cls._roles

    def evaluates(self) -> dict[str, Role]:
        """The roles of the fields that it evaluates with its values: all, unless a rule of several forms says less."""
        return self.roles()

    @classmethod
    def declared(cls) -> dict[str, param.Parameter]:
        """The rule's parameters by name, in the order of their declaration, base classes first."""
        known = cls.param.objects(instance=False)
        written = [k for base in reversed(cls.__mro__) for k in vars(base)]
        return {k: known[k] for k in dict.fromkeys(written) if k in known and k != "name"}

    @classmethod
    def per_trajectory(cls) -> tuple[str, ...]:
        """The parameters that may be a tensor with one number for each point."""
        return tuple(k for k, declared in cls.declared().items() if isinstance(declared, PerTrajectory))

    def values(self) -> dict[str, Any]:
        """The parameters' values by name."""
        return {k: getattr(self, k) for k in self.declared()}

    def effective(self) -> dict[str, Any]:
        """The values that mean anything with the other ones, see ``only_with``."""
        values = self.values()
        return {
            k: v
            for k, v in values.items()
            if all(values[choice] in among for choice, among in self.only_with.get(k, {}).items())
        }

    def changed(self) -> dict[str, Any]:
        """The values that are not the defaults: what makes this rule from its name."""
        declared = self.declared()
        return {k: v for k, v in self.values().items() if v != declared[k].default}

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.values() == other.values()

    def __hash__(self) -> int:
        return hash((type(self), tuple(self.values().items())))

    def __repr__(self) -> str:
        return f"{self.key}({', '.join(f'{k}={v!r}' for k, v in self.values().items())})"

    def target(self) -> Target | None:
        """The density that it is said to sample, as a product of powers of its fields'; by default none.

        What a run is measured against, and what the explorer draws, where the fields are exact.
        """
        return None

    def begin(self, at: Evaluation, generator: torch.Generator) -> tuple[Tensor, Any]:
        """The points that the run starts from, and the memory; by default the points drawn, and no memory.

        Args:
            at: The starting points at the first noise level.
            generator: The run's random numbers, on the CPU.
        """
        return at.x, None

    def before_step(self, at: Evaluation, memory: Any) -> tuple[Tensor, Any]:
        """The points that the step starts from, and the memory; by default both unchanged."""
        return at.x, memory

    def guide(self, at: Evaluation, memory: Any) -> Guided:
        """The guided denoiser at the points. Every rule must define it."""
        raise TypeError(f"the rule {self.key!r} does not say how it guides")

    def after_step(self, step: Transition, memory: Any, generator: torch.Generator) -> Arrival:
        """The points that the step ends on, and the memory; by default both unchanged."""
        return Arrival(step.x_next, memory)


DEFINED: dict[str, type[Rule]] = {}
"""The rule classes defined in this process by name; a later definition replaces an earlier one."""


def _is_finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _as_role(need: str | Role) -> Role:
    if isinstance(need, Role):
        return need
    if need not in ROLES:
        names = ", ".join(ROLES)
        raise TypeError(f"needs {need!r}: expected one of {names}, or Role({need!r}, kind, doc) to describe it")
    return ROLES[need]


def expectation(parameter: param.Parameter) -> str:
    """A parameter's valid values, in words."""
    if isinstance(parameter, param.Boolean):
        return "true or false"
    if isinstance(parameter, param.Selector):
        return "one of " + ", ".join(map(str, parameter.objects))
    if isinstance(parameter, param.Number):
        kind = "a whole number" if isinstance(parameter, param.Integer) else "a number"
        low, high = parameter.bounds or (None, None)
        if low is not None and high == math.inf:
            return f"{kind} from {low}, or inf"
        if low is not None and high is not None:
            return f"{kind} from {low} to {high}"
        return f"{kind} from {low}" if low is not None else f"{kind} up to {high}" if high is not None else kind
    return parameter.doc or "another value"
