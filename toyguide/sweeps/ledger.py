"""The table of a sweep: a journal of rows while it runs, one file when all of them are there."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from toyguide.errors import InputError
from toyguide.experiment import SETTINGS, Experiment
from toyguide.files import check_writable, writing
from toyguide.sweeps.batch import identity
from toyguide.sweeps.journal import Journal

__all__ = ["Ledger"]

_ORDER = {name: i for i, name in enumerate(["id", *SETTINGS])}


class Ledger:
    """The table of a sweep and its journal; a context manager that holds the journal open.

    Args:
        path: The table, ``.csv`` or ``.parquet``.
        experiments: The experiments, in the order of the table's rows.

    Attributes:
        path: The table.
        journal: The rows so far.
        finished: Whether the table was there already.

    Raises:
        InputError: If the table cannot be written, or the files there belong to other experiments.
    """

    def __init__(self, path: str | Path, experiments: Sequence[Experiment]) -> None:
        self.path = check_writable(path)
        if self.path.suffix not in (".csv", ".parquet"):
            raise InputError(f"output {str(path)!r}: expected a name that ends in .csv or .parquet")
        if self.path.suffix == ".parquet":
            _parquet()
        self._ids = list(dict.fromkeys(identity(e) for e in experiments))
        self.finished = self._is_finished()
        self.journal = Journal(self.path.with_name(f"{self.path.name}.journal"))
        if not self.finished and self.rows.keys() - set(self._ids):
            raise InputError(f"journal {str(self.journal.path)!r}: has rows of another sweep, expected another output")

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """The rows so far, by identity."""
        return self.journal.rows

    def __enter__(self) -> Ledger:
        self.journal.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, where: TracebackType | None
    ) -> None:
        self.journal.__exit__(kind, problem, where)
        if kind is None and len(self.rows) == len(self._ids):
            self._finish()

    def add(self, rows: Sequence[dict[str, Any]]) -> int:
        """Add rows, on disk when this returns; those that are there are left out. Returns how many were added."""
        return self.journal.add(rows)

    def _finish(self) -> None:
        """Write the table, in the order of the experiments, and remove the journal."""
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
        self.journal.path.unlink()

    def _is_finished(self) -> bool:
        """Whether the table exists, with these experiments."""
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


def _place(column: str) -> int:
    """A column's place in the table: settings in an experiment's order, then metrics as they come."""
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
