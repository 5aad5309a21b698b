"""Checks a formula's trees and writes them as Python on tensors.

Kinds: a ``vector`` has shape ``(n, d)``; a ``number`` is a Python float or a tensor with shape ``(n, 1)`` or ``()``; a
``condition``, from a comparison, is the same with truth values. Parameters may be tensors too (in a batch of runs), so
what Python refuses to do with floats, such as dividing by zero, is done on tensors.
"""

from __future__ import annotations

import ast
import keyword
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from toyguide.datasets.roles import ROLES
from toyguide.errors import nearest
from toyguide.guidance.base import Rule
from toyguide.guidance.formula.reading import Part, read
from toyguide.guidance.formula.vocabulary import FIELDS, FUNCTIONS, VARIABLES

__all__ = ["Parameter", "Parsed", "parse"]

_MOST_NODES, _MOST_PARAMETERS, _DEEPEST, _LONGEST_NAME = 250, 12, 60, 24
_LARGEST = 1e9  # number that may be written
_USUAL_RANGE = (0.0, 10.0)
_INTERNAL = {"at", "expression", "float", "len", "math", "memory", "number", "param", "self", "torch"}
_TAKEN = {*ROLES, *_INTERNAL, *VARIABLES, *FIELDS, *FUNCTIONS, "Any", "Evaluation", "Guided", "PerTrajectory", "Tensor"}
_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow)
_COMPARISONS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)
_HINTS: dict[type, str] = {
    ast.BoolOp: "'and' and 'or' are not part of the language: multiply conditions, expected (a < b) * (c < d)",
    ast.Not: "'not' is not part of the language: expected the opposite comparison",
    ast.IfExp: "'if' is not part of the language: expected where(condition, a, b)",
    ast.Subscript: "expected a range after a parameter's number only, like w = 3 [0, 10]",
    ast.Tuple: "a comma outside a function",
}


@dataclass(frozen=True)
class Parameter:
    """A parameter that a formula declares, with its default and its bounds."""

    name: str
    default: float
    low: float
    high: float

    @property
    def step(self) -> float:
        """The step of its slider, a hundredth of its range."""
        return float(f"{(self.high - self.low) / 100:.3g}")

    @property
    def doc(self) -> str:
        """Its help."""
        return f"Declared in the formula, from {self.low:g} to {self.high:g}."


@dataclass(frozen=True)
class Parsed:
    """A formula that is free of mistakes.

    Attributes:
        text: The formula.
        parameters: What it declares.
        roles: The roles of the fields that it evaluates.
        body: The statements of ``guide(self, at, memory)``, one each.
        functions: The functions of ``functions.py`` that they call.
    """

    text: str
    parameters: tuple[Parameter, ...]
    roles: tuple[str, ...]
    body: tuple[str, ...]
    functions: tuple[str, ...]


@dataclass(frozen=True)
class Term:
    """A part of an expression, written.

    Attributes:
        code: Python.
        kind: ``vector``, ``number`` or ``condition``.
        tensor: Whether it is a tensor for sure; else it may be a Python number.
    """

    code: ast.expr
    kind: str
    tensor: bool


def parse(text: str) -> Parsed:
    """Check a formula.

    Raises:
        FormulaError: If anything in it is wrong; the error says where.
    """
    writer = _Writer()
    *declarations, result = read(text)
    for part in declarations:
        writer.declare(part)
    guided = writer.term(result, result.tree)
    if guided.kind != "vector":
        raise result.error(f"the result is a {guided.kind}, expected a vector, the guided denoiser", result.tree)
    for name, declared in writer.declared.items():
        if name not in writer.used:
            raise declared.error(f"{name!r} is not used")
    return writer.parsed(text, guided)


class _Writer:
    """Knows what has been declared so far, and collects what is used."""

    def __init__(self) -> None:
        self.declared: dict[str, Part] = {}
        self.used: set[str] = set()
        self._parameters: dict[str, Parameter] = {}
        self._definitions: dict[str, tuple[Term, str]] = {}
        self._fields: set[str] = set()
        self._functions: set[str] = set()
        self._nodes = 0
        self._double = False  # whether numbers in double precision may have made the result so

    def declare(self, part: Part) -> None:
        """A parameter or a definition."""
        name = part.name
        if keyword.iskeyword(name) or name in _TAKEN or hasattr(Rule, name) or name.startswith("_"):
            raise part.error(f"the name {name!r} is taken, expected another one")
        if name in self.declared:
            raise part.error(f"{name!r} is declared twice")
        if len(name) > _LONGEST_NAME:
            raise part.error(f"a name of {len(name)} characters, expected at most {_LONGEST_NAME}")
        parameter = _parameter(part)
        if parameter is not None:
            self._parameters[name] = parameter
            if len(self._parameters) > _MOST_PARAMETERS:
                raise part.error(f"more than {_MOST_PARAMETERS} parameters")
        else:
            term = self.term(part, part.tree)
            code = ast.unparse(term.code)
            self._definitions[name] = (Term(_name(name), term.kind, term.tensor), f"{name} = {code}")
        self.declared[name] = part

    def parsed(self, text: str, guided: Term) -> Parsed:
        """Everything together."""
        denoised = [r for r in ROLES if f"D_{r}" in self._fields]
        roles = tuple(r for r in ROLES if any(FIELDS[name].role == r for name in self._fields))
        body = []
        if len(roles) > 1:  # those that can share work are evaluated in one pass
            names = ", ".join(r if r in denoised else "_" for r in roles)
            each = ", ".join(f'"{r}"' for r in roles)
            body.append(f"{names} = at.denoised_each({each})" if denoised else f"at.denoised_each({each})")
        elif denoised:
            body.append(f'{roles[0]} = at.denoised("{roles[0]}")')
        others = {name: f for name, f in FIELDS.items() if name in self._fields and f.method != "denoised"}
        body += [f'{name} = at.{f.method}("{f.role}")' for name, f in others.items()]
        body += [line for _, line in self._definitions.values()]
        found = ast.unparse(guided.code)
        if self._double:
            found = f"({found}).to(at.x)"
        body.append(f"return Guided({found})")
        return Parsed(text, tuple(self._parameters.values()), roles, tuple(body), tuple(sorted(self._functions)))

    def term(self, part: Part, node: ast.expr, depth: int = 0) -> Term:
        """A node of a part's tree, checked and written."""
        self._nodes += 1
        if depth > _DEEPEST or self._nodes > _MOST_NODES:
            raise part.error("too deeply nested" if depth > _DEEPEST else f"more than {_MOST_NODES} terms", node)
        if isinstance(node, ast.Constant):
            return Term(ast.Constant(_constant(part, node)), "number", False)
        if isinstance(node, ast.Name):
            return self._named(part, node)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            operand = self._quantity(self.term(part, node.operand, depth + 1))
            return Term(ast.UnaryOp(node.op, operand.code), operand.kind, operand.tensor)
        if isinstance(node, ast.BinOp) and isinstance(node.op, _ARITHMETIC):
            left, right = (self.term(part, n, depth + 1) for n in (node.left, node.right))
            return self._operation(part, node, left, right)
        if isinstance(node, ast.Compare):
            return self._comparison(part, node, depth)
        if isinstance(node, ast.Call):
            return self._call(part, node, depth)
        self._refuse(part, node)

    def _refuse(self, part: Part, node: ast.expr) -> NoReturn:
        kind = type(node.op) if isinstance(node, ast.UnaryOp) else type(node)
        raise part.error(_HINTS.get(kind, "this is not part of the language"), node)

    def _named(self, part: Part, node: ast.Name) -> Term:
        name = node.id
        self.used.add(name)
        if name in self._parameters:
            return Term(_attribute("self", name), "number", False)
        if name in self._definitions:
            return self._definitions[name][0]
        if name in FIELDS:
            self._fields.add(name)
            return Term(_name(FIELDS[name].role if name.startswith("D_") else name), "vector", True)
        if name in VARIABLES:
            known = VARIABLES[name]
            return Term(_expression(known.code), "vector" if known.vector else "number", known.vector)
        if name in FUNCTIONS:
            raise part.error(f"the function {name!r} without its arguments, expected {_signature(name)}", node)
        raise part.error(_unknown("name", name, [*FIELDS, *VARIABLES, *self._parameters, *self._definitions]), node)

    def _operation(self, part: Part, node: ast.BinOp, left: Term, right: Term) -> Term:
        tensor = left.tensor or right.tensor
        if isinstance(node.op, ast.Mult):
            return self._product(part, node, left, right)
        left, right = self._quantity(left), self._quantity(right)
        if isinstance(node.op, ast.Add | ast.Sub):
            if left.kind != right.kind:
                raise part.error(f"a {left.kind} and a {right.kind} have no sum, expected two of a kind", node)
            return Term(ast.BinOp(left.code, node.op, right.code), left.kind, tensor)
        if right.kind == "vector":
            raise part.error("expected a number here, not a vector (norm gives its length)", node.right)
        if isinstance(node.op, ast.Pow):
            if left.kind == "vector":
                raise part.error("a vector has no powers, expected a number (norm gives its length)", node.left)
            return Term(ast.BinOp(self._as_tensor(left), node.op, right.code), "number", True)
        base = left.code if tensor else self._as_tensor(left)
        return Term(ast.BinOp(base, node.op, right.code), left.kind, True)

    def _product(self, part: Part, node: ast.BinOp, left: Term, right: Term) -> Term:
        kinds = {left.kind, right.kind}
        if kinds == {"vector"}:
            raise part.error("two vectors have no product here, expected dot(a, b)", node)
        if kinds == {"condition"}:
            return Term(ast.BinOp(left.code, ast.BitAnd(), right.code), "condition", left.tensor or right.tensor)
        if kinds == {"condition", "number"}:
            holds, factor = (left, right) if left.kind == "condition" else (right, left)
            return self._where(holds, factor, Term(ast.Constant(0.0), "number", False))
        kind = "vector" if "vector" in kinds else "number"
        return Term(ast.BinOp(left.code, node.op, right.code), kind, left.tensor or right.tensor)

    def _comparison(self, part: Part, node: ast.Compare, depth: int) -> Term:
        sides = [node.left, *node.comparators]
        for side in sides[1:-1]:
            if not isinstance(side, ast.Name | ast.Constant):  # it is evaluated twice
                raise part.error("expected a name between two comparisons", side)
        terms = [self._quantity(self.term(part, side, depth + 1)) for side in sides]
        for side, term in zip(sides, terms, strict=True):
            if term.kind == "vector":
                raise part.error("vectors are not compared, expected numbers (norm gives the length)", side)
        pairs = []
        for op, left, right in zip(node.ops, terms, terms[1:], strict=False):
            if not isinstance(op, _COMPARISONS):
                raise part.error("this is not part of the language", node)
            pairs.append(ast.Compare(left.code, [op], [right.code]))
        code: ast.expr = pairs[0]
        for pair in pairs[1:]:
            code = ast.BinOp(code, ast.BitAnd(), pair)
        return Term(code, "condition", any(term.tensor for term in terms))

    def _call(self, part: Part, node: ast.Call, depth: int) -> Term:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in FUNCTIONS:
            raise part.error(_unknown("function", name, list(FUNCTIONS)) if name else "expected a function", node.func)
        function = FUNCTIONS[name]
        if node.keywords or len(node.args) != len(function.takes):
            raise part.error(f"expected {_signature(name)}", node)
        given = [self.term(part, argument, depth + 1) for argument in node.args]
        for argument, term, wanted in zip(node.args, given, function.takes, strict=True):
            kind = "number" if term.kind == "condition" and wanted != "condition" else term.kind
            if wanted in ("vector", "number", "condition") and kind != wanted:
                raise part.error(f"{name} takes a {wanted} here, not a {term.kind}", argument)
        if name == "where":
            a, b = map(self._quantity, given[1:])
            if a.kind != b.kind:
                raise part.error("where takes two of a kind, expected two vectors or two numbers", node)
            return self._where(given[0], a, b)
        given = list(map(self._quantity, given))
        vector = function.gives == "vector" or (function.gives == "any" and any(t.kind == "vector" for t in given))
        module, _, attribute = function.code.rpartition(".")
        arguments = [self._as_tensor(t) for t in given] if module else [t.code for t in given]
        called = _attribute(module, attribute) if module else self._function(attribute)
        return Term(ast.Call(called, arguments, []), "vector" if vector else "number", True)

    def _where(self, holds: Term, a: Term, b: Term) -> Term:
        self._double |= a.kind == "number"
        code = ast.Call(self._function("where"), [holds.code, a.code, b.code], [])
        return Term(code, a.kind, a.tensor and b.tensor)

    def _quantity(self, term: Term) -> Term:
        """A term to calculate with: a condition is 1 or 0."""
        if term.kind != "condition":
            return term
        return self._where(term, *(Term(ast.Constant(v), "number", False) for v in (1.0, 0.0)))

    def _as_tensor(self, term: Term) -> ast.expr:
        return term.code if term.tensor else ast.Call(self._function("number"), [term.code], [])

    def _function(self, name: str) -> ast.expr:
        self._functions.add(name)
        return _name(name)


def _parameter(part: Part) -> Parameter | None:
    """The parameter that a part declares; None if it is a definition."""
    tree, bounds = part.tree, _USUAL_RANGE
    signed = tree if isinstance(tree, ast.UnaryOp) else None
    ranged = signed.operand if signed else tree  # to Python, -1 [-2, 0] is -(1 [-2, 0])
    if isinstance(ranged, ast.Subscript):
        tree = ast.copy_location(ast.UnaryOp(signed.op, ranged.value), signed) if signed else ranged.value
        ends = ranged.slice.elts if isinstance(ranged.slice, ast.Tuple) else []
        low, high = (_number(part, n) for n in ends) if len(ends) == 2 else (None, None)
        if _number(part, tree) is None:
            raise part.error("expected a number before the range", ranged.value)
        if low is None or high is None or not low < high:
            raise part.error("expected a range of two numbers, like [0, 10]", ranged.slice)
        bounds = (low, high)
    default = _number(part, tree)
    if default is None:
        return None
    if not bounds[0] <= default <= bounds[1]:
        raise part.error("{:g} is out of the range [{:g}, {:g}]".format(default, *bounds), tree)
    return Parameter(part.name, default, *bounds)


def _number(part: Part, node: ast.expr) -> float | None:
    """The number that is written, with a sign or without; None if it is none."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        found = _constant(part, node.operand) if isinstance(node.operand, ast.Constant) else None
        return -found if found is not None and isinstance(node.op, ast.USub) else found
    return _constant(part, node) if isinstance(node, ast.Constant) else None


def _constant(part: Part, node: ast.Constant) -> float:
    value = node.value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise part.error(_unknown("name", str(value), [*FIELDS, *VARIABLES]), node)
    if not value <= _LARGEST:
        raise part.error(f"expected a number up to {_LARGEST:g}", node)
    return float(value)


def _unknown(kind: str, name: str, valid: Sequence[str]) -> str:
    near = nearest(name, valid)
    hint = f"did you mean {near!r}?" if near else f"expected one of {', '.join(valid)}"
    return f"unknown {kind} {name[:_LONGEST_NAME]!r}, {hint}"


def _signature(name: str) -> str:
    return f"{name}({', '.join('abc'[: len(FUNCTIONS[name].takes)])})"


def _name(name: str) -> ast.expr:
    return ast.Name(name, ast.Load())


def _attribute(of: str, name: str) -> ast.expr:
    return ast.Attribute(_name(of), name, ast.Load())


def _expression(code: str) -> ast.expr:
    return ast.parse(code, mode="eval").body
