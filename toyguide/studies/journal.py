"""A study's finished runs on disk, one line of JSON each, so that an interruption loses none of them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toyguide.errors import InputError

__all__ = ["Journal"]


class Journal:
    """Rows by key. A line that was torn by a kill, or that is not a row, counts as not run.

    Args:
        path: The file; made with the first row.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: dict[str, dict[str, Any]] = {}
        self._whole = True
        try:
            text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        except OSError as problem:
            raise InputError(f"{str(path)!r}: cannot be read ({problem.strerror})") from problem
        self._whole = not text or text.endswith("\n")
        for line in text.splitlines():
            try:
                row = json.loads(line)
                self._found[_name(row["key"])] = {**row["key"], **row["numbers"]}
            except (ValueError, LookupError, TypeError, RecursionError):
                continue

    def __contains__(self, key: Mapping[str, Any]) -> bool:
        return _name(key) in self._found

    def row(self, key: Mapping[str, Any]) -> dict[str, Any]:
        """The key and the numbers of a finished run."""
        return self._found[_name(key)]

    def add(self, key: Mapping[str, Any], numbers: Mapping[str, float]) -> None:
        """Note a finished run; on disk when this returns.

        Raises:
            InputError: If it cannot be written.
        """
        line = json.dumps({"key": dict(key), "numbers": dict(numbers)})
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(("" if self._whole else "\n") + line + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as problem:
            raise InputError(f"{str(self.path)!r}: cannot be written ({problem.strerror})") from problem
        self._whole = True
        # Read back from the text, so that a run that was resumed and one that was not see the same numbers.
        row = json.loads(line)
        self._found[_name(key)] = {**row["key"], **row["numbers"]}


def _name(key: Mapping[str, Any]) -> str:
    return json.dumps(dict(key), sort_keys=True)
