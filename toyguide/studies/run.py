"""Running a study: train and measure what is missing, then judge and draw everything."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path

from toyguide.errors import InputError
from toyguide.studies.base import Judged, Study, judge, verdict_of
from toyguide.studies.charts import Sheet
from toyguide.studies.measuring import measured, networks_trained
from toyguide.studies.plan import Plan
from toyguide.studies.record import Record, runs_of
from toyguide.studies.rows import Interval, Rows
from toyguide.studies.workshop import Workshop, training_cost
from toyguide.training import TrainSettings, TrainStep

__all__ = ["Outcome", "Progress", "Tell", "check_plan", "folder_of", "remaining_cost", "run_study"]

_MOST_SEEDS = 1000
_LAST_SEED = 2**31 - 1

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """The progress of a study.

    Attributes:
        done: Work done so far, in rough seconds on two cores, without what was finished before.
        total: All work to do, in the same unit.
        text: The current task.
    """

    done: float
    total: float
    text: str


Tell = Callable[[Progress], None]
"""Receives the progress after each step; may raise to stop the study, which keeps everything finished."""


@dataclass(frozen=True)
class Outcome:
    """The result of a study.

    Attributes:
        study: The study.
        plan: How much was run.
        rows: The rows of all runs.
        judged: The criteria with their results.
        numbers: The numbers reported besides them.
        sheets: The figures.
        seconds: Wall time, without that of earlier, interrupted runs.
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


def check_plan(plan: Plan) -> Plan:
    """The plan, if its seeds are in range.

    Raises:
        InputError: If they are not.
    """
    if not 1 <= plan.seeds <= _MOST_SEEDS:
        raise InputError(f"seeds {plan.seeds}: expected a whole number from 1 to {_MOST_SEEDS}")
    if not 0 <= plan.first_seed <= _LAST_SEED - plan.seeds + 1:
        raise InputError(f"first seed {plan.first_seed}: expected seeds from 0 to {_LAST_SEED}")
    return plan


def folder_of(study: Study, plan: Plan, output: Path) -> Path:
    """The folder of a study's files. A quick look has its own, so that it never replaces a full run."""
    return output / (f"{study.name}-quick" if plan.quick else study.name)


def remaining_cost(record: Record, workshop: Workshop) -> float:
    """Roughly how long the unfinished part of a study takes, in seconds on two cores."""
    trainings = sum(map(training_cost, _untrained(record, workshop)))
    return trainings + sum(run.cell.cost for run in record.missing)


def run_study(
    study: Study,
    plan: Plan,
    output: Path,
    tell: Tell = lambda progress: None,
    executor: Executor | None = None,
    networks: Path | None = None,
) -> Outcome:
    """Run what is missing of a study, and judge it.

    Finished runs whose experiment, code, networks or metrics have changed are run again; the log says so.

    Args:
        study: The study.
        plan: How much is run.
        output: The folder of all studies; they share the networks in its folder ``networks``.
        tell: Receives the progress.
        executor: Trains and measures; any of ``concurrent.futures``, None for this process. Its workers need
            ``output`` under the same path.
        networks: Another folder of networks than that in ``output``.

    Raises:
        InputError: If the folder cannot be made, read or written to.
        BrokenExecutor: If a worker died, and the executor does not start another one.
    """
    began = time.perf_counter()
    folder = folder_of(study, plan, output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise InputError(f"output {str(folder)!r}: the folder cannot be made ({problem.strerror})") from problem
    steps = _Steps(tell)
    workshop = Workshop(plan, networks or output / "networks", steps.training)
    record = Record(study, runs_of(study, plan), folder)
    _log_stale(record)
    trainings = _untrained(record, workshop)
    steps.total = remaining_cost(record, workshop)

    steps.begin("training network", len(trainings))
    for index in networks_trained(trainings, workshop, executor):
        steps.end([training_cost(trainings[index])])
    steps.begin("run", len(record.missing))
    with record.journal:
        for finished in measured(record, workshop, executor):
            record.add(finished)
            steps.end([run.cell.cost for run, _ in finished])
    steps.say("drawing")

    rows = record.rows()
    if executor is not None:  # whose workers may have another device
        workshop = Workshop(replace(plan, device="auto"), workshop.networks)
    return Outcome(
        study,
        plan,
        rows,
        judge(study.criteria, rows),
        dict(study.numbers(rows)),
        study.sheets(rows, workshop),
        time.perf_counter() - began,
    )


def _untrained(record: Record, workshop: Workshop) -> list[TrainSettings]:
    # Finished runs need their networks too: figures are drawn from them.
    needed = dict.fromkeys(need for run in record.runs for need in run.cell.needs)
    return [need for need in needed if not workshop.has(need)]


def _log_stale(record: Record) -> None:
    stale = record.stale
    if stale:
        changed = ", ".join(dict.fromkeys(part for _, parts in stale for part in parts))
        _LOG.warning("%s: %d finished runs are run again; changed since: %s", record.study.name, len(stale), changed)


class _Steps:
    """Adds up the work that is done, and tells of it."""

    def __init__(self, tell: Tell) -> None:
        self._tell, self._done, self._task, self._number, self._count = tell, 0.0, "", 0, 0
        self.total = 0.0

    def begin(self, task: str, count: int) -> None:
        """Begin a number of tasks."""
        self._task, self._number, self._count = task, 1, count
        self._next()

    def end(self, costs: Sequence[float]) -> None:
        """End tasks of these costs."""
        self._done += sum(costs)
        self._number += len(costs)
        self._next()

    def say(self, text: str, more: float = 0.0) -> None:
        """Tell of the current task.

        Args:
            text: What it is.
            more: The part of its cost that is done.
        """
        self._tell(Progress(self._done + more, self.total, text))

    def training(self, settings: TrainSettings, steps: Iterator[TrainStep]) -> Iterable[TrainStep]:
        """Pass on the steps of a training, and tell of each."""
        for step in steps:
            share = step.iteration / settings.iterations
            self.say(self._text, share * training_cost(settings))
            yield step

    def _next(self) -> None:
        if self._number <= self._count:
            self.say(self._text)

    @property
    def _text(self) -> str:
        return f"{self._task} {self._number} of {self._count}"
