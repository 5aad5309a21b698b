"""A mistake in a formula, with its place."""

from __future__ import annotations

from toyguide.errors import InputError

__all__ = ["FormulaError"]

_AROUND = 24  # characters that the message shows on each side of the mistake


class FormulaError(InputError):
    """A mistake in a formula. The message is one line with the place between arrows.

    Args:
        problem: What is wrong, and what was expected.
        text: The formula.
        start: Where the mistake begins, counted from 0.
        end: Where it ends.

    Attributes:
        problem: As given.
        at: Where the mistake begins in the text, counted from 0.
        length: How many characters it has, at least 1 unless it is at the text's end.
    """

    def __init__(self, problem: str, text: str, start: int, end: int) -> None:
        self.problem, self._text = problem, text
        self.at = min(max(start, 0), len(text))
        self.length = min(max(end - self.at, 1), len(text) - self.at)
        last = self.at + self.length
        before = "…" * (self.at > _AROUND) + text[max(0, self.at - _AROUND) : self.at]
        after = text[last : last + _AROUND] + "…" * (len(text) > last + _AROUND)
        wrong = text[self.at : last] if self.length <= 2 * _AROUND else text[self.at : self.at + 2 * _AROUND] + "…"
        place = "".join(c if c.isprintable() else " " for c in f"{before}→{wrong}←{after}")
        super().__init__(f"formula, character {self.at + 1}: {problem}: {place}")

    @property
    def line(self) -> tuple[str, str, str]:
        """The line with the mistake: what is before it, the mistake itself (empty at the end), and what is after it."""
        text, last = self._text, self.at + self.length
        first = text.rfind("\n", 0, self.at) + 1
        return text[first : self.at], text[self.at : last], text[last:].partition("\n")[0]
