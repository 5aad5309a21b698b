"""Metrics against parameters: what each panel's run measures where a parameter of it has other values, over seeds.

The runs are those of a sweep, in its batches: many weights and seeds at once where the rule allows it. They are made on
a thread of their own, which waits between two solver steps while a picture is computed. First come a few values far
apart, then those midway, twice. What has been measured is kept by run, so that another metric, and a slider that moves
along the curve, find it there.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from threading import Lock
from typing import Any

import numpy as np
import param
import torch
from cachetools import LRUCache

from toyguide import Experiment, rule
from toyguide.errors import InputError, unknown
from toyguide.guidance import Rule, rules
from toyguide.metrics import METRICS
from toyguide.samplers import Step
from toyguide.studies.rows import interval
from toyguide.sweeps.batch import batches, ends, walk_batch
from toyguide_apps.explorer_page.precedence import PICTURES
from toyguide_apps.explorer_page.runs import CancelledError, truth

__all__ = [
    "MEASURED",
    "SHARED",
    "Axis",
    "Plan",
    "Question",
    "Response",
    "checked_curve",
    "measure",
    "parameters",
    "plan",
    "planned",
    "question",
    "responses",
    "value_of",
    "varied",
]

MEASURED = tuple(name for name in METRICS if name != "seconds")  # runs of a batch have one time together
"""The metrics that there are curves of."""
SHARED = ("steps", "interval.low", "interval.high")
"""The parameters that are none of a rule."""

_COUNT = {1: 17, 2: 9}  # values of each parameter, for a curve and for a map: 2^k + 1
_STRIDES = (4, 2, 1)  # between the values at first, then, and at last
_STEPS = (4, 64)
_POINTS = {"cpu": 1 << 11}  # of a batch, so that a solver step delays a picture little
_LOGARITHMIC = 100  # a range over which the largest value is so many times the smallest is divided by factors

_WORKER = ThreadPoolExecutor(1, "toyguide-curves", initializer=torch.set_num_threads, initargs=(1,))
_measured: LRUCache[Experiment, dict[str, Any]] = LRUCache(1 << 15)
_measured_lock = Lock()


@dataclass(frozen=True)
class Axis:
    """A parameter and its values, rising.

    Attributes:
        name: A parameter of a rule, or one of ``SHARED``.
        values: The values.
        logarithmic: Whether they are evenly spaced in their logarithm.
    """

    name: str
    values: tuple[float, ...]
    logarithmic: bool

    @property
    def ranks(self) -> list[int]:
        """When each value's turn comes: 0 for those far apart, then for those midway, and so on."""
        return [next(r for r, stride in enumerate(_STRIDES) if i % stride == 0) for i in range(len(self.values))]


@dataclass(frozen=True)
class Question:
    """What a curve or a map asks; the same for all present values of the parameters, along which nothing changes.

    Attributes:
        bases: The panels' experiments, with the parameters at some value.
        axes: The parameters, one or two.
        seeds: How many seeds, from each experiment's own on.
    """

    bases: tuple[Experiment, ...]
    axes: tuple[Axis, ...]
    seeds: int


@dataclass(frozen=True, eq=False)
class Plan:
    """The runs behind a curve or a map.

    Attributes:
        axes: The parameters, one or two.
        cells: For each panel the runs over the seeds by the indices of the axes' values, or by ``()`` if it has none of
            the parameters; empty for a panel that a map has no place for.
        order: All runs, in groups from coarse to fine.
    """

    axes: tuple[Axis, ...]
    cells: tuple[dict[tuple[int, ...], tuple[Experiment, ...]], ...]
    order: tuple[tuple[Experiment, ...], ...]

    def progress(self) -> tuple[int, int]:
        """How many of the runs are measured, and how many there are."""
        everything = [e for group in self.order for e in group]
        with _measured_lock:
            return sum(e in _measured for e in everything), len(everything)


@dataclass(frozen=True, eq=False)
class Response:
    """A metric's mean over the seeds and its 95 % interval (Student's t), as far as they are measured.

    Attributes:
        mean: With the shape of the axes' values, or ``()`` for a panel without the parameter; NaN where it is not
            measured yet, where the parameter does not fit, and where the run has no such metric.
        low: The interval's lower end.
        high: Its upper end.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def checked_curve(value: Any, chosen: Iterable[Rule] = ()) -> tuple[str, ...] | None:
    """A metric and one or two parameters, by name.

    Args:
        value: What is to be checked.
        chosen: Rules that may have parameters of their own, as typed ones do.

    Raises:
        InputError: If there is none of a name.
    """
    if value is None:
        return None
    if not isinstance(value, tuple | list) or len(value) not in (2, 3) or len(set(value)) < len(value):
        raise InputError(f"curve = {value!r}: expected a metric and one or two different parameters")
    metric, *names = value
    if metric not in MEASURED:
        raise unknown("metric", metric, MEASURED)
    every: list[Rule | type[Rule]] = [*rules().values(), *chosen]
    known = {name for of in every for name in _numbers(of.declared())} | set(SHARED)
    for name in names:
        if name not in known:
            raise unknown("parameter", name, sorted(known))
    return tuple(value)


def parameters(runs: Iterable[Experiment]) -> list[str]:
    """The parameters that some of the runs have, those of the rules first."""
    runs = list(runs)
    own = [name for e in reversed(runs) for name in _own_numbers(e)]
    shared = [name for name in SHARED if any(value_of(e, name) is not None for e in runs)]
    return list(dict.fromkeys([*own, *shared]))


def value_of(experiment: Experiment, name: str) -> float | None:
    """A run's value of a parameter, which may be infinite; None if it has no such parameter."""
    if name == "steps":
        return float(experiment.steps)
    if name in ("interval.low", "interval.high"):
        guided = experiment.interval if experiment.rule != "none" else None
        return None if guided is None else guided[name == "interval.high"]
    known = _own_numbers(experiment)
    return float(experiment.params[name]) if name in known else None


def varied(experiment: Experiment, name: str, value: float) -> Experiment | None:
    """A run with another value of a parameter that it has; None if the value does not fit with the rest of it."""
    settings = experiment.settings()
    if name == "steps":
        settings["steps"] = round(value)
    elif name in ("interval.low", "interval.high"):
        low, high = settings["interval"]
        settings["interval"] = (value, high) if name == "interval.low" else (low, value)
    else:
        known = _own_numbers(experiment)[name]
        settings["params"][name] = round(value) if isinstance(known, param.Integer) else value
    try:
        return Experiment(**settings)
    except InputError:
        return None


def question(runs: Sequence[Experiment], names: Sequence[str], seeds: int) -> Question:
    """What a curve (one parameter) or a map (two) asks.

    Args:
        runs: The panels' experiments.
        names: The parameters, which some run has.
        seeds: How many seeds, from each run's own on.
    """
    axes = tuple(_axis(name, runs, _COUNT[len(names)]) for name in names)
    bases = []
    for base in runs:
        for axis in axes:
            if value_of(base, axis.name) is not None:
                placed = (varied(base, axis.name, value) for value in axis.values)
                base = next((found for found in placed if found is not None), base)
        bases.append(base)
    return Question(tuple(bases), axes, seeds)


@lru_cache(maxsize=16)
def plan(asked: Question) -> Plan:
    """The runs behind a curve or a map; takes half a millisecond for each place of the axes."""
    axes = asked.axes
    ranked: dict[int, list[Experiment]] = {}
    cells = []
    for base in asked.bases:
        own: dict[tuple[int, ...], tuple[Experiment, ...]] = {}
        if all(value_of(base, axis.name) is not None for axis in axes):
            for indices in product(*(range(len(axis.values)) for axis in axes)):
                placed: Experiment | None = base
                for axis, i in zip(axes, indices, strict=True):
                    placed = placed and varied(placed, axis.name, axis.values[i])
                if placed is not None:
                    own[indices] = _over_seeds(placed, asked.seeds)
        elif len(axes) == 1:
            own[()] = _over_seeds(base, asked.seeds)
        for indices, of in own.items():
            rank = max((axis.ranks[i] for axis, i in zip(axes, indices, strict=False)), default=0)
            ranked.setdefault(rank, []).extend(of)
        cells.append(own)
    return Plan(axes, tuple(cells), tuple(tuple(dict.fromkeys(ranked[rank])) for rank in sorted(ranked)))


async def planned(asked: Question) -> tuple[Plan, dict[str, Any]]:
    """The runs, and the metrics of an exact sample like those of the first panel, once no picture is computed."""
    return await asyncio.wrap_future(_WORKER.submit(_planned, asked))


def _planned(asked: Question) -> tuple[Plan, dict[str, Any]]:
    PICTURES.wait()
    first = asked.bases[0]
    return plan(asked), truth(first.dataset, first.label, first.n)


def responses(of: Plan, metric: str) -> tuple[Response, ...]:
    """What is measured so far, for each panel."""
    return tuple(_response(of, cells, metric) for cells in of.cells)


def _response(of: Plan, cells: dict[tuple[int, ...], tuple[Experiment, ...]], metric: str) -> Response:
    shape = () if () in cells else tuple(len(axis.values) for axis in of.axes)
    found = Response(*(np.full(shape, np.nan) for _ in range(3)))
    for indices, runs in cells.items():
        with _measured_lock:
            rows = [_measured.get(e) for e in runs]
        values = [row[metric] for row in rows if row is not None and row[metric] is not None]
        if len(values) == len(runs):
            over = interval(values)
            found.mean[indices], found.low[indices], found.high[indices] = over.mean, over.low, over.high
    return found


async def measure(of: Plan, device: str, cancelled: Callable[[], bool]) -> AsyncIterator[None]:
    """Make the runs that are missing, from coarse to fine; comes back after each batch.

    Args:
        of: The runs.
        device: Where to make them.
        cancelled: Called between solver steps: is the curve no longer wanted?

    Raises:
        CancelledError: Once ``cancelled()`` is true.
    """
    for group in of.order:
        with _measured_lock:
            missing = [e for e in group if e not in _measured]
        for batch in batches(missing, device, _POINTS.get(device)):
            await asyncio.wrap_future(_WORKER.submit(_measure, batch, device, cancelled))
            yield


def _measure(batch: list[Experiment], device: str, cancelled: Callable[[], bool]) -> None:
    def give_way() -> None:
        PICTURES.wait()
        if cancelled():
            raise CancelledError

    give_way()
    steps: list[Step] = []
    for step in walk_batch(batch, device):
        steps[:] = [step]
        give_way()
    for e, end in zip(batch, ends(batch, steps[0]), strict=True):
        row = end.metrics(resamples=0)
        with _measured_lock:
            _measured[e] = {name: row.get(name) for name in MEASURED}
        give_way()


def _over_seeds(experiment: Experiment, seeds: int) -> tuple[Experiment, ...]:
    return tuple(experiment.with_seed(experiment.seed + i) for i in range(seeds))


def _axis(name: str, runs: Sequence[Experiment], count: int) -> Axis:
    """A parameter's values: over its slider's range, and as far as a run's own value."""
    present = [value for e in runs if (value := value_of(e, name)) is not None and math.isfinite(value)]
    whole = name == "steps"
    if name == "steps":
        low, high = map(float, _STEPS)
    elif name in SHARED:
        sampling = runs[0].data.sampling
        low, high = sampling.sigma_min, sampling.sigma_max
    else:
        declared = [_own_numbers(e).get(name) for e in runs]
        ranges = [_range(known) for known in declared if known is not None]
        whole = any(isinstance(known, param.Integer) for known in declared)
        low, high = min(r[0] for r in ranges), max(r[1] for r in ranges)
    low, high = min([low, *present]), max([high, *present])
    logarithmic = name == "steps" or (low > 0 and high / low >= _LOGARITHMIC)
    values = np.geomspace(low, high, count) if logarithmic else np.linspace(low, high, count)
    texts = [float(f"{value:.4g}") for value in (values.round() if whole else values)]
    return Axis(name, tuple(dict.fromkeys(texts)), logarithmic)


def _range(known: param.Number) -> tuple[float, float]:
    """A slider's range; where a parameter has none, up to a few times its default."""
    low, high = known.get_soft_bounds()
    least = 0.0 if low is None else float(low)
    return least, max(4 * float(known.default), least + 1) if high in (None, math.inf) else float(high)


def _own_numbers(experiment: Experiment) -> dict[str, param.Number]:
    """The parameters of a run's rule that are numbers."""
    return _numbers(rule(experiment.rule, **experiment.params).declared())


def _numbers(declared: dict[str, param.Parameter]) -> dict[str, param.Number]:
    """The parameters that are numbers."""
    kinds = {k: v for k, v in declared.items() if isinstance(v, param.Number) and not isinstance(v, param.Boolean)}
    return {k: v for k, v in kinds.items() if math.isfinite(float(v.default))}
