"""The rows of a sweep on disk: kept as they come, one table when all are there.

Until then they are lines of JSON in a journal beside the table. A line is appended at once, so whatever ends the
process, what is lost is the line under way; it has no end, and is cut off when the sweep is continued.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from toyguide.errors import InputError
from toyguide.experiment import SETTINGS, Experiment
from toyguide.files import check_writable, writing
from toyguide.sweeps.batch import identity

__all__ = ["Ledger"]

_ORDER = {name: i for i, name in enumerate(["id", *SETTINGS])}


class Ledger:
    """The table of a sweep and its journal, as a context that holds the journal open.

    Args:
        path: The table, ``.csv`` or ``.parquet``.
        experiments: What it has a row for each of, in this order.

    Raises:
        InputError: If it cannot be written there, or what is there belongs to other experiments.
    """

    def __init__(self, path: str | Path, experiments: Sequence[Experiment]) -> None:
        self.path = check_writable(path)
        self.journal = self.path.with_name(f"{self.path.name}.journal")
        if self.path.suffix not in (".csv", ".parquet"):
            raise InputError(f"output {str(path)!r}: expected a name that ends in .csv or .parquet")
        if self.path.suffix == ".parquet":
            _parquet()
        self._ids = list(dict.fromkeys(identity(e) for e in experiments))
        self.finished = self._is_finished()
        self.rows: dict[str, dict[str, Any]] = {}
        self._kept = 0 if self.finished else self._read()

    def __enter__(self) -> Ledger:
        try:
            self._file = self.journal.open("ab")
        except OSError as problem:
            raise InputError(f"journal {str(self.journal)!r}: cannot be written ({problem.strerror})") from problem
        self._file.truncate(self._kept)
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self._file.close()
        if kind is None and len(self.rows) == len(self._ids):
            self._finish()
        elif not self.rows:
            self.journal.unlink()

    def add(self, rows: Sequence[dict[str, Any]]) -> int:
        """Keep rows, on disk before this returns; how many of them are new."""
        new = [row for row in rows if row["id"] not in self.rows]
        self._file.write("".join(f"{json.dumps(row)}\n" for row in new).encode())
        self._file.flush()
        self.rows |= {row["id"]: row for row in new}
        return len(new)

    def _finish(self) -> None:
        """Write the table, in the experiments' order whatever the rows' was, and leave no journal."""
        rows = [self.rows[i] for i in self._ids]
        columns = sorted(dict.fromkeys(k for row in rows for k in row), key=_place)
        with writing(self.path) as temporary:
            if self.path.suffix == ".csv":
                with temporary.open("w", newline="", encoding="utf-8") as file:
                    table = csv.DictWriter(file, columns, lineterminator="\n")
                    table.writeheader()
                    table.writerows(rows)
            else:
                arrow, parquet = _parquet()
                parquet.write_table(arrow.table({c: [row.get(c) for row in rows] for c in columns}), temporary)
        self.journal.unlink()

    def _is_finished(self) -> bool:
        """Whether the table is there, for these experiments."""
        if not self.path.exists():
            return False
        try:
            if self.path.suffix == ".csv":
                with self.path.open(newline="", encoding="utf-8") as file:
                    found = [row.get("id") for row in csv.DictReader(file)]
            else:
                found = _parquet()[1].read_table(self.path, columns=["id"]).column("id").to_pylist()
        except Exception as problem:  # whatever a foreign file makes the readers raise
            raise InputError(f"output {str(self.path)!r}: is there, and is no table of a sweep") from problem
        if found != self._ids:
            raise InputError(f"output {str(self.path)!r}: has the rows of another sweep, expected another file name")
        return True

    def _read(self) -> int:
        """Take the journal's rows; how many bytes of it are whole lines."""
        try:
            kept, _, _ = (self.journal.read_bytes() if self.journal.exists() else b"").rpartition(b"\n")
        except OSError as problem:
            raise InputError(f"journal {str(self.journal)!r}: cannot be read ({problem.strerror})") from problem
        for number, line in enumerate(kept.splitlines(), 1):
            try:
                row = json.loads(line)
                self.rows[row["id"]] = row
            except (ValueError, KeyError, TypeError) as problem:
                raise InputError(
                    f"journal {str(self.journal)!r}: line {number} is damaged: expected a row"
                ) from problem
        if self.rows.keys() - set(self._ids):
            raise InputError(f"journal {str(self.journal)!r}: has rows of another sweep, expected another output")
        return len(kept) + 1 if kept else 0


def _place(column: str) -> int:
    """Settings first, as an experiment has them; then what was measured, as it came."""
    return _ORDER.get(column.partition(".")[0], len(_ORDER))


def _parquet() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as problem:
        raise InputError(
            "output: Parquet needs pyarrow, which is not installed: expected pip install 'toyguide[parquet]', or a"
            " name that ends in .csv"
        ) from problem
    return pyarrow, pyarrow.parquet
