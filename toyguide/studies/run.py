"""Running a study: what is missing is trained and measured, then everything is judged, drawn and written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from toyguide.errors import InputError
from toyguide.studies.base import Judged, Plan, Study, verdict_of
from toyguide.studies.charts import Sheet
from toyguide.studies.journal import Journal
from toyguide.studies.rows import Interval, Rows
from toyguide.studies.workshop import Workshop, training_cost
from toyguide.training import TrainSettings, TrainStep

__all__ = ["MOST_SEEDS", "Outcome", "Progress", "Tell", "check_plan", "folder_of", "run_study"]

MOST_SEEDS = 1000


@dataclass(frozen=True)
class Progress:
    """How far a study is.

    Attributes:
        done: Work done, in rough seconds on two cores; what an earlier run left finished is not in it.
        total: All the work there was to do.
        text: What is being done.
    """

    done: float
    total: float
    text: str


Tell = Callable[[Progress], None]
"""Is told of every step; may raise to stop the study, which loses nothing that is finished."""


@dataclass(frozen=True)
class Outcome:
    """What came of a study.

    Attributes:
        study: The study.
        plan: How it was run.
        rows: All runs.
        judged: Its criteria with what was found.
        numbers: What is reported beside them.
        sheets: The figures.
        seconds: Wall time of this run of it; an earlier one's is not in it.
    """

    study: Study
    plan: Plan
    rows: Rows
    judged: list[Judged]
    numbers: dict[str, Interval]
    sheets: list[Sheet]
    seconds: float

    @property
    def verdict(self) -> str:
        """``supported``, ``not supported`` or ``inconclusive``."""
        return verdict_of(self.judged)


def check_plan(seeds: int) -> int:
    """The number of seeds.

    Raises:
        InputError: If it is out of range.
    """
    if not 1 <= seeds <= MOST_SEEDS:
        raise InputError(f"seeds {seeds}: expected a whole number from 1 to {MOST_SEEDS}")
    return seeds


def folder_of(study: Study, plan: Plan, output: Path) -> Path:
    """Where a study's files go: a quick look has a folder of its own, so that it never replaces a full run."""
    return output / (f"{study.name}-quick" if plan.quick else study.name)


def run_study(study: Study, plan: Plan, output: Path, tell: Tell = lambda progress: None) -> Outcome:
    """Run what is missing of a study, and judge it.

    Args:
        study: The study.
        plan: How much to run.
        output: The folder of all studies; networks are shared in its ``networks``.
        tell: Is told of the progress.

    Raises:
        InputError: If the folder cannot be made, read or written to.
    """
    began = time.perf_counter()
    folder = folder_of(study, plan, output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise InputError(f"output {str(folder)!r}: the folder cannot be made ({problem.strerror})") from problem
    journal = Journal(folder / "journal.jsonl")
    cells = study.cells(plan)
    steps = _Steps(tell)
    workshop = Workshop(plan, output / "networks", steps.training)

    missing = [cell for cell in cells if cell.key not in journal]
    # Runs that can be drawn again from nothing but networks need these too.
    needed = dict.fromkeys(need for cell in cells for need in cell.needs)
    trainings = [need for need in needed if not workshop.has(need)]
    steps.total = sum(map(training_cost, trainings)) + sum(cell.cost for cell in missing)

    for number, settings in enumerate(trainings, 1):
        steps.begin(f"training network {number} of {len(trainings)}", training_cost(settings), settings)
        workshop.train(settings)
        steps.end()
    for cell in missing:
        steps.begin(", ".join(f"{k} {v}" for k, v in cell.key.items()), cell.cost)
        journal.add(cell.key, cell.work(workshop))
        steps.end()
    steps.begin("drawing", 0.0)

    rows = Rows(journal.row(cell.key) for cell in cells)
    return Outcome(
        study,
        plan,
        rows,
        [criterion.judge(rows) for criterion in study.criteria],
        dict(study.numbers(rows)),
        study.sheets(rows, workshop),
        time.perf_counter() - began,
    )


class _Steps:
    """Adds up the work that is done, and tells of it."""

    def __init__(self, tell: Tell) -> None:
        self._tell, self._done, self._cost, self._text = tell, 0.0, 0.0, ""
        self._settings: TrainSettings | None = None
        self.total = 0.0

    def begin(self, text: str, cost: float, settings: TrainSettings | None = None) -> None:
        self._text, self._cost, self._settings = text, cost, settings
        self._tell(Progress(self._done, self.total, text))

    def end(self) -> None:
        self._done += self._cost

    def training(self, steps: Iterator[TrainStep]) -> Iterable[TrainStep]:
        """Passes on the steps of the training that was begun."""
        assert self._settings is not None, "a network is trained outside the list of trainings"
        for step in steps:
            share = step.iteration / self._settings.iterations
            self._tell(Progress(self._done + share * self._cost, self.total, self._text))
            yield step
