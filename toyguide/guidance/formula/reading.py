"""From the text to the trees of its parts: what is no token of the language never reaches Python's parser."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from toyguide.guidance.formula.errors import FormulaError

__all__ = ["LONGEST", "Part", "read"]

LONGEST = 1000
"""The most characters of a formula."""

_TOKEN = re.compile(
    r"[ \t\r\n]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.])|[A-Za-z_]\w*|\*\*|[<>=!]=|[-+*/()<>,=;\[\]]", re.ASCII
)
_WRONG = re.compile(r"[\w.]+|.", re.DOTALL)
_NAMED = re.compile(r"\s*(\w+)\s*=(?!=)", re.ASCII)
_SHOWN = 40  # characters of a wrong word that are repeated


@dataclass(frozen=True)
class Part:
    """A part of a formula between semicolons.

    Attributes:
        text: The whole formula.
        start: Where the part's expression begins in it.
        tree: The expression; ``col_offset`` counts from ``start``.
        name: What it is called; empty for the last part.
        named_at: Where the name begins.
    """

    text: str
    start: int
    tree: ast.expr
    name: str = ""
    named_at: int = 0

    def error(self, problem: str, node: ast.expr | None = None) -> FormulaError:
        """A mistake at a node of the tree, or at the name."""
        if node is None:
            return FormulaError(problem, self.text, self.named_at, self.named_at + len(self.name))
        end = node.col_offset + 1 if node.end_col_offset is None else node.end_col_offset
        return FormulaError(problem, self.text, self.start + node.col_offset, self.start + end)


def read(text: str) -> list[Part]:
    """The parts of a formula, the last one without a name.

    Raises:
        FormulaError: If it is too long or no sequence of expressions.
    """
    if len(text) > LONGEST:
        raise FormulaError(f"{len(text)} characters, expected at most {LONGEST}", text, LONGEST, LONGEST + 1)
    at = 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            wrong = _WRONG.match(text, at)[0]  # type: ignore[index]
            raise FormulaError(f"{wrong[:_SHOWN]!r} is not part of the language", text, at, at + len(wrong))
        at = token.end()
    *declarations, result = text.split(";")
    parts, start = [], 0
    for written in declarations:
        found = _NAMED.match(written)
        if found is None or found[1][0].isdigit():
            problem = "expected NAME = VALUE before a semicolon"
            raise FormulaError(problem, text, *_stripped(text, start, start + len(written)))
        value_at = start + found.end()
        tree, first = _parsed(text, value_at, start + len(written))
        parts.append(Part(text, first, tree, found[1], start + found.start(1)))
        start += len(written) + 1
    if (found := _NAMED.match(result)) is not None:
        problem = "expected the guided denoiser after the last semicolon, without a name"
        raise FormulaError(problem, text, start + found.start(1), start + found.end())
    tree, first = _parsed(text, start, len(text))
    return [*parts, Part(text, first, tree)]


def _parsed(text: str, start: int, end: int) -> tuple[ast.expr, int]:
    """The tree of the expression between two places, and where it begins."""
    first, last = _stripped(text, start, end)
    if first == last:
        raise FormulaError("expected an expression", text, first, first)
    source = re.sub(r"\s", " ", text[first:last])  # of the same length
    try:
        return ast.parse(source, mode="eval").body, first
    except SyntaxError as problem:
        at = first + (problem.offset or 0) - 1
        if not first <= at < last:
            raise FormulaError("something is missing at the end", text, last, last) from problem
        if "forgot a comma" in problem.msg:
            end = first + (problem.end_offset or 0) - 1
            raise FormulaError("an operator or a comma is missing in this", text, at, end) from problem
        token = _TOKEN.match(text, at)
        message = problem.msg.partition(". ")[0].partition(";")[0]  # the first sentence, without advice on Python
        message = message.replace("invalid syntax", "this is not expected here")
        raise FormulaError(message, text, at, at + 1 if token is None else token.end()) from problem
    except (ValueError, MemoryError, RecursionError) as problem:
        raise FormulaError("too deeply nested", text, first, last) from problem


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    """The place without the blanks around it; its end twice if there are only blanks."""
    part = text[start:end]
    first = start + len(part) - len(part.lstrip())
    return first, max(first, start + len(part.rstrip()))
