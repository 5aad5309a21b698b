"""Finished rows on disk, one line of JSON each, appended as they come.

Whatever ends the process, only the line being written is lost: it has no end, and is cut off before more is appended.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from toyguide.errors import InputError

__all__ = ["Journal"]


class Journal:
    """The rows of a file by their ``id``; as a context manager it holds the file open for more.

    Args:
        path: The file. Made on entering; removed on leaving if there is no row in it.

    Attributes:
        path: The file.
        rows: The rows by ``id``, in the order in which they were added.

    Raises:
        InputError: If the file cannot be read, or a whole line of it is not a row.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, dict[str, Any]] = {}
        try:
            whole, newline, _ = (path.read_bytes() if path.exists() else b"").rpartition(b"\n")
        except OSError as problem:
            raise InputError(f"journal {str(path)!r}: cannot be read ({problem.strerror})") from problem
        self._size = len(whole + newline)
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                self._take(line)
            except (ValueError, LookupError, TypeError, RecursionError) as problem:
                raise InputError(f"journal {str(path)!r}: line {number} is damaged: expected a row") from problem

    def __enter__(self) -> Journal:
        try:
            self._file = self.path.open("ab")
            self._file.truncate(self._size)
        except OSError as problem:
            raise self._unwritable(problem) from problem
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self._size = self._file.tell()
        self._file.close()
        if not self.rows:
            self.path.unlink()

    def add(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """Add rows, on disk when this returns; those whose ``id`` is there are left out.

        Returns:
            How many were added.

        Raises:
            InputError: If they cannot be written.
        """
        lines = [json.dumps(row).encode() for row in rows if row["id"] not in self.rows]
        try:
            self._file.write(b"".join(line + b"\n" for line in lines))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as problem:
            raise self._unwritable(problem) from problem
        for line in lines:  # read back, so that an interrupted run and a whole one see the same values
            self._take(line)
        return len(lines)

    def _take(self, line: bytes) -> None:
        row = json.loads(line)
        self.rows[row["id"]] = row

    def _unwritable(self, problem: OSError) -> InputError:
        return InputError(f"journal {str(self.path)!r}: cannot be written ({problem.strerror})")
