"""Training a study's networks and measuring its runs, in this process or on the workers of an executor."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict
from pathlib import Path

from toyguide.errors import InputError
from toyguide.experiment import Experiment
from toyguide.studies.claims import own_claims
from toyguide.studies.plan import Plan
from toyguide.studies.record import Record, Run
from toyguide.studies.workshop import Workshop
from toyguide.sweeps.batch import identity, sweep
from toyguide.sweeps.executors import completed
from toyguide.training import TrainSettings

__all__ = ["Finished", "measured", "networks_trained"]

Finished = list[tuple[Run, Mapping[str, float]]]
"""Runs with the numbers that they measured."""


def measured(record: Record, workshop: Workshop, executor: Executor | None = None) -> Iterator[Finished]:
    """Measure the missing runs.

    Experiments run in batches, as those of a sweep; a function that measures a run is one call.

    Args:
        record: The study's runs.
        workshop: The workshop with the plan and the trained networks.
        executor: Any of ``concurrent.futures``; None for this process. Its workers need the folder of networks under
            the same path.

    Yields:
        Runs as they are finished, with their numbers.

    Raises:
        InputError: If a field does not exist, or a worker does not find a function.
        BrokenExecutor: If a worker died, and the executor does not start another one.
    """
    calls = [run for run in record.missing if not isinstance(run.cell.run, Experiment)]
    yield from _experiments(record, workshop, executor)
    yield from _calls([run for run in calls if not run.cell.timed], workshop, executor)
    yield from _calls([run for run in calls if run.cell.timed], workshop, None)


def networks_trained(
    settings: Sequence[TrainSettings], workshop: Workshop, executor: Executor | None = None
) -> Iterator[int]:
    """Train networks, and yield the index of each when it is trained."""
    if executor is None:
        done = completed(workshop.train, [(s,) for s in settings], None)
    else:
        done = completed(_train, [(*_workplace(workshop), json.dumps(asdict(s))) for s in settings], executor)
    for index, _ in done:
        yield index


def _experiments(record: Record, workshop: Workshop, executor: Executor | None) -> Iterator[Finished]:
    # All experiments, so that the batches are the same when a study is continued.
    found = [(run, workshop.located(run.cell.run)) for run in record.runs if isinstance(run.cell.run, Experiment)]
    missing = {run.id for run in record.missing}
    wanted: dict[str, list[Run]] = {}
    for run, experiment in found:
        if run.id in missing:
            wanted.setdefault(identity(experiment), []).append(run)
    done = {identity(experiment) for _, experiment in found} - wanted.keys()
    for rows in sweep([experiment for _, experiment in found], executor, workshop.plan.device, done):
        yield [
            (run, {name: float(row[name]) for name in run.cell.metrics if row.get(name) is not None})
            for row in rows
            for run in wanted.get(row["id"], ())
        ]


def _calls(runs: Sequence[Run], workshop: Workshop, executor: Executor | None) -> Iterator[Finished]:
    functions = [run.cell.run for run in runs if not isinstance(run.cell.run, Experiment)]
    keys = [run.cell.key for run in runs]
    if executor is None:
        done = completed(_call, [(f, workshop, key) for f, key in zip(functions, keys, strict=True)], None)
    else:
        there = _workplace(workshop)
        texts = [(*there, f.__module__, f.__name__, json.dumps(k)) for f, k in zip(functions, keys, strict=True)]
        done = completed(_call_by_name, texts, executor)
    for index, numbers in done:
        yield [(runs[index], numbers)]


def _call(
    function: Callable[..., Mapping[str, float]], workshop: Workshop, key: Mapping[str, object]
) -> dict[str, float]:
    return {name: float(value) for name, value in function(workshop, **key).items()}


# What a worker is called with: plain values.


def _workplace(workshop: Workshop) -> tuple[str, str]:
    return json.dumps(asdict(workshop.plan)), str(workshop.networks)


def _workshop(plan: str, networks: str) -> Workshop:
    return Workshop(Plan(**json.loads(plan)), Path(networks))


def _train(plan: str, networks: str, settings: str) -> None:
    values = json.loads(settings)
    _workshop(plan, networks).train(TrainSettings(**{**values, "ema": tuple(values["ema"])}))


def _call_by_name(plan: str, networks: str, module: str, name: str, key: str) -> dict[str, float]:
    own_claims()
    try:
        function = getattr(sys.modules.get(module) or importlib.import_module(module), name)
    except (ImportError, AttributeError) as problem:
        raise InputError(
            f"{module}.{name}: a worker does not find it: expected a file in a folder of TOYGUIDE_CLAIMS"
        ) from problem
    return _call(function, _workshop(plan, networks), json.loads(key))
