"""Reading the tables of a TOML file with every value checked, and every complaint naming file and key."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

from toyguide.errors import InputError, unknown

__all__ = ["Table", "read_table"]

_LARGEST = sys.float_info.max


class Table:
    """One table of a file. Values are read by key and type; keys that were never read are errors (:meth:`finish`).

    Args:
        values: The parsed table.
        path: Where it is, as ``file: table`` for messages.
    """

    def __init__(self, values: dict[str, Any], path: str) -> None:
        self._values, self._path = values, path
        self._asked: list[str] = []

    def __contains__(self, key: str) -> bool:
        self._note(key)
        return key in self._values

    def error(self, key: str, problem: str) -> InputError:
        """The error that names this file and key."""
        return InputError(f"{self._path}{key}: {problem}")

    def text(self, key: str, default: str | None = None) -> str:
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self.error(key, f"{_short(value)}: expected a text")
        return value

    def texts(self, key: str) -> list[str]:
        value = self._get(key, None)
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise self.error(key, f"{_short(value)}: expected a list of texts")
        return value

    def integer(self, key: str, low: int, high: int) -> int:
        value = self._get(key, None)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.error(key, f"{_short(value)}: expected a whole number from {low} to {high}")
        return value

    def number(self, key: str, default: float | None = None, *, positive: bool = False) -> float:
        return self._number(key, self._get(key, default), positive)

    def numbers(self, key: str, count: int | None = None, *, positive: bool = False) -> list[float]:
        value = self._get(key, None)
        if not isinstance(value, list) or (count is not None and len(value) != count):
            raise self.error(
                key, f"{_short(value)}: expected a list of {count if count is not None else 'any number of'} numbers"
            )
        return [self._number(f"{key}[{i}]", v, positive) for i, v in enumerate(value)]

    def array(self, key: str, depth: int) -> list[Any]:
        """Numbers nested ``depth`` lists deep, every list at one depth of one length."""

        def check(value: Any, path: str, level: int) -> None:
            if level == 0:
                self._number(path, value, False)
                return
            if not isinstance(value, list) or not value:
                raise self.error(path, f"{_short(value)}: expected a list")
            for i, item in enumerate(value):
                check(item, f"{path}[{i}]", level - 1)
                if level > 1 and isinstance(item, list) and len(item) != len(value[0]):
                    raise self.error(
                        f"{path}[{i}]", f"has {len(item)} entries: expected {len(value[0])}, like {path}[0]"
                    )

        value = self._get(key, None)
        check(value, key, depth)
        return value

    def section(self, key: str, *, optional: bool = False) -> Table:
        value = self._get(key, {} if optional else None)
        if not isinstance(value, dict):
            raise self.error(key, f"{_short(value)}: expected a table")
        return Table(value, f"{self._path}{key}.")

    def sections(self, key: str) -> list[Table]:
        """The tables of an array, or the only one where it is no array."""
        value = self._get(key, None)
        if isinstance(value, dict):
            return [self.section(key)]
        if not isinstance(value, list) or not value or not all(isinstance(v, dict) for v in value):
            raise self.error(key, f"{_short(value)}: expected a table, or several")
        return [Table(v, f"{self._path}{key}[{i}].") for i, v in enumerate(value)]

    def value(self, key: str) -> Any:
        """A value of any type, to be checked by the caller."""
        return self._get(key, None)

    def keys(self) -> list[str]:
        """All keys, for tables whose keys are the user's own names."""
        return list(self._values)

    def finish(self) -> None:
        """Raise for keys that were never read."""
        for key in self._values:
            if key not in self._asked:
                raise self.error(key, str(unknown("key", key, self._asked)))

    def _note(self, key: str) -> None:
        if key not in self._asked:
            self._asked.append(key)

    def _get(self, key: str, default: Any) -> Any:
        self._note(key)
        value = self._values.get(key, default)
        if value is None:
            raise self.error(key, "is missing")
        return value

    def _number(self, key: str, value: Any, positive: bool) -> float:
        # Compared, not converted: a whole number in TOML can be too large for a float.
        fit = isinstance(value, int | float) and not isinstance(value, bool) and -_LARGEST <= value <= _LARGEST
        if not fit or (positive and value <= 0):
            raise self.error(key, f"{_short(value)}: expected a {'positive' if positive else 'finite'} number")
        return float(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def read_table(path: Path) -> Table:
    """The whole of a TOML file.

    Raises:
        InputError: If the file cannot be read or is not TOML.
    """
    try:
        return Table(tomllib.loads(path.read_text(encoding="utf-8")), f"{path}: ")
    except OSError as problem:
        raise InputError(f"{path}: cannot be read ({problem.strerror})") from problem
    except (ValueError, RecursionError) as problem:  # bad syntax or text, endless digits, endless brackets
        raise InputError(f"{path}: not valid TOML ({problem})") from problem
