"""A formula as a rule's own Python file, to be read and changed."""

from __future__ import annotations

import inspect
import re
import textwrap
from types import FunctionType

from toyguide.errors import InputError
from toyguide.guidance.formula import functions
from toyguide.guidance.formula.checking import Parameter, Parsed, parse

__all__ = ["as_rule_file"]

_WIDTH = 120
_KEY = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", re.ASCII)
_FILE = '''\
"""A guidance rule that was typed as a formula:

{formula}
"""

{imports}


class {name}(Rule):
    """The formula of the module's docstring."""

    key = "{key}"
    title = "{title}"
    family = "{family}"
    formula = r"D = \\text{{see the file}}"
    source = "typed as a formula"
    summary = "A rule that was typed as a formula."
    needs = ({needs})
    equivariant = ()  # to be filled in once it is known
    batchable = True
{parameters}
    def guide(self, at: Evaluation, memory: Any) -> Guided:
{body}
'''


def as_rule_file(expression: str, key: str) -> str:
    """The text of a Python file with a rule that equals a formula.

    Args:
        expression: The formula.
        key: The rule's name: small letters, digits and single dashes.

    Raises:
        InputError: If the name cannot be one; a ``FormulaError`` if the formula is wrong.
    """
    if not _KEY.fullmatch(key):
        raise InputError(f"rule name {key!r}: expected small letters, digits and single dashes, like my-rule")
    found = parse(expression)
    parameters = [line for p in found.parameters for line in _declaration(p)]
    helpers = [inspect.getsource(_function(name)).strip() for name in _with_helpers(found.functions)]
    code = _FILE.format(
        formula=textwrap.indent("\n".join(_wrapped(expression)), "    "),
        imports=_imports(found, helpers),
        name="".join(part.capitalize() for part in key.split("-")),
        key=key,
        title=key.replace("-", " ").capitalize(),
        family="Several fields" if len(found.roles) > 1 else "One field",
        needs=", ".join(f'"{role}"' for role in found.roles) + "," * (len(found.roles) == 1),
        parameters="".join(f"\n{line}" for line in parameters) + "\n" * bool(parameters),
        body="\n".join(line for statement in found.body for line in _statement(statement)),
    )
    return "\n\n\n".join([code.rstrip(), *helpers]) + "\n"


def _with_helpers(names: tuple[str, ...]) -> list[str]:
    """The functions with those that they call, in the order of their file."""
    found = set(names)
    while more := {n for name in found for n in _function(name).__code__.co_names} & set(functions.__all__) - found:
        found |= more
    return sorted(found, key=lambda name: _function(name).__code__.co_firstlineno)


def _function(name: str) -> FunctionType:
    found: FunctionType = getattr(functions, name)
    return found


def _imports(found: Parsed, helpers: list[str]) -> str:
    """What the file imports: no more than it uses."""
    code = "\n".join([*found.body, *helpers])
    torch = ["import torch"] if "torch." in code else []
    torch += ["from torch import Tensor"] if "Tensor" in code else []
    names = ["Evaluation", "Guided", *["PerTrajectory"] * bool(found.parameters), "Rule"]
    groups = [["from typing import Any"], torch, [f"from toyguide.guidance import {', '.join(names)}"]]
    return "\n\n".join("\n".join(group) for group in groups if group)


def _wrapped(expression: str) -> list[str]:
    """A formula as lines of a docstring."""
    lines = [part.strip() for part in expression.replace(";", ";\n").splitlines() if part.strip()]
    return [piece for line in lines for piece in textwrap.wrap(line, _WIDTH - 8)]


def _declaration(p: Parameter) -> list[str]:
    """A parameter, on one line or with a line for each argument."""
    arguments = [f"{p.default}", f"bounds=({p.low}, {p.high})", f"step={p.step}", f'doc="{p.doc}"']
    line = f"    {p.name} = PerTrajectory({', '.join(arguments)})"
    if len(line) <= _WIDTH:
        return [line]
    return [f"    {p.name} = PerTrajectory(", *(f"        {a}," for a in arguments), "    )"]


def _statement(code: str) -> list[str]:
    """A statement of the method, on one line or continued at its blanks, inside of brackets."""
    blank = " " * 8
    if len(blank + code) <= _WIDTH:
        return [blank + code]
    if code.startswith(head := "return Guided("):
        inner = code.removeprefix(head).removesuffix(")")
    else:
        name, _, inner = code.partition(" = ")
        head = f"{name} = ("
    lines = textwrap.wrap(inner, _WIDTH - 12, break_long_words=False, break_on_hyphens=False)
    return [blank + head, *(f"{blank}    {line}" for line in lines), f"{blank})"]
