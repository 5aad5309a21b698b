"""The runs of a study: finished ones in a journal on disk, and those that are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from toyguide.studies.base import Cell, Study
from toyguide.studies.plan import Plan
from toyguide.studies.provenance import depends_on, identity
from toyguide.studies.rows import Rows
from toyguide.sweeps.journal import Journal

__all__ = ["Record", "Run", "runs_of"]


@dataclass(frozen=True)
class Run:
    """A cell's run.

    Attributes:
        cell: The cell.
        depends: A digest of each part that the run depends on.
        id: What its row in the journal is known by: a digest of the cell's key and of ``depends``.
    """

    cell: Cell
    depends: Mapping[str, str]
    id: str


def runs_of(study: Study, plan: Plan) -> list[Run]:
    """All runs of a study, in the order of its cells."""
    cells = ((cell, depends_on(cell, plan)) for cell in study.cells(plan))
    return [Run(cell, depends, identity(cell.key, depends)) for cell, depends in cells]


class Record:
    """The runs of a study with their journal.

    Args:
        study: The study.
        runs: Its runs.
        folder: Its folder.

    Raises:
        InputError: If the journal cannot be read.
    """

    def __init__(self, study: Study, runs: Sequence[Run], folder: Path) -> None:
        self.study, self.runs = study, runs
        self.journal = Journal(folder / "runs.csv.journal")

    @property
    def missing(self) -> list[Run]:
        """The runs that are not finished."""
        return [run for run in self.runs if run.id not in self.journal.rows]

    @property
    def stale(self) -> list[tuple[Run, list[str]]]:
        """The missing runs that were finished before something they depend on changed, and the names of that."""
        old = {identity(row["key"], {}): row["depends"] for row in self.journal.rows.values()}
        found = [(run, old.get(identity(run.cell.key, {}))) for run in self.missing]
        return [
            (run, [part for part, digest in run.depends.items() if before.get(part) != digest])
            for run, before in found
            if before is not None
        ]

    def add(self, finished: Sequence[tuple[Run, Mapping[str, float]]]) -> None:
        """Add finished runs with their numbers, on disk when this returns."""
        self.journal.add(
            [
                {"id": run.id, "key": dict(run.cell.key), "depends": dict(run.depends), "numbers": dict(numbers)}
                for run, numbers in finished
            ]
        )

    def rows(self) -> Rows:
        """The rows of all runs, once all are finished."""
        rows = [self.journal.rows[run.id] for run in self.runs]
        return Rows({**row["key"], **self.study.columns(row["numbers"])} for row in rows)
