"""A rule that is typed as text; see :mod:`toyguide.guidance.formula` for what may be written.

The parameters that a text declares are parameters of the rule, so each text has a class of its own, a subclass of
:class:`Formula`. ``Formula(expression=text, w=2.0)`` makes an instance of it. Equality is that of the values, as for
all rules: two classes of one text are the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import param
import torch

from toyguide.errors import InputError
from toyguide.guidance import formula
from toyguide.guidance.base import Limit, PerTrajectory, Rule
from toyguide.guidance.evaluation import Guided
from toyguide.guidance.formula import functions

_CFG = "w = 3 [0, 10]; D_main + (w - 1) * (D_main - D_uncond)"
_AUTOGUIDANCE = "w = 3 [0, 10]; D_main + (w - 1) * (D_main - D_weak)"


class Formula(Rule):
    """The denoiser that ``expression`` says, at the points of each evaluation; without a memory."""

    key = "formula"
    title = "Typed formula"
    short = "Formula"
    formula = r"D = \text{what you type}"
    source = "toyguide's own: any rule without a memory, from the fields at the points"
    summary = (
        "Guides by the formula that you type. Parameters that it declares get sliders, and mistakes are marked. "
        "For trying an idea before writing a rule; what it does to samples is up to the formula."
    )
    family = "Several fields"
    needs = ("main", "uncond")
    limits = (
        Limit({"expression": _CFG}, "cfg", same=("w",)),
        Limit({"expression": "D_main"}, "none"),
    )
    equivariant = ()  # a formula may be anything
    batchable = True

    expression: Any = param.String(default=_CFG, doc="Declarations, and the guided denoiser after the last semicolon.")

    def __new__(cls, /, **params: Any) -> Formula:
        own = cls.param.expression.default
        text = params.get("expression", own)
        if cls is not Formula and text == own:
            return super().__new__(cls)
        return super().__new__(class_of(text)) if cls is Formula else Formula(**params)

    @classmethod
    def declared(cls) -> dict[str, param.Parameter]:
        """The expression and the parameters that it declares; for ``Formula`` itself those of the default one."""
        return class_of(_CFG).declared() if cls is Formula else super().declared()

    def changed(self) -> dict[str, Any]:
        """As for other rules; any expression but that of ``Formula`` is a changed one."""
        text = {} if self.expression == _CFG else {"expression": self.expression}
        return {**text, **super().changed()}

    def retyped(self, text: str) -> Formula:
        """The rule that another text says, with those values of this one that were chosen and still fit.

        Raises:
            FormulaError: If there is a mistake in the text.
        """
        chosen = self.changed()
        fitting = (p for p in formula.parse(text).parameters if p.low <= chosen.get(p.name, math.nan) <= p.high)
        return Formula(expression=text, **{p.name: chosen[p.name] for p in fitting})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Formula) and self.values() == other.values()

    def __hash__(self) -> int:
        return hash(tuple(self.values().items()))


def class_of(text: Any) -> type[Formula]:
    """The class of the rules with an expression.

    Raises:
        InputError: If it is no text; a ``FormulaError`` if there is a mistake in it.
    """
    if not isinstance(text, str):
        raise InputError(f"formula: expression = {text!r}: expected a text like {_CFG!r}")
    return _class_of(text)


@lru_cache(maxsize=1024)
def _class_of(text: str) -> type[Formula]:
    found = formula.parse(text)
    scope: dict[str, Any] = {
        "__module__": __name__,
        "needs": found.roles,
        "guide": _compiled(found.body),
        "expression": param.String(default=text, doc=Formula.param.expression.doc),
    }
    for p in found.parameters:
        scope[p.name] = PerTrajectory(p.default, bounds=(p.low, p.high), step=p.step, doc=p.doc)
    return type("Formula", (Formula,), scope)


def _compiled(body: tuple[str, ...]) -> Callable[..., Guided]:
    """The method ``guide`` of checked statements, with nothing in reach but what they may call."""
    lines = "\n".join(f"    {statement}" for statement in body)
    known = {name: getattr(functions, name) for name in functions.__all__}
    scope = {**known, "__builtins__": {}, "float": float, "len": len, "torch": torch, "Guided": Guided}
    exec(compile(f"def guide(self, at, memory):\n{lines}", "<formula>", "exec"), scope)
    return scope["guide"]
