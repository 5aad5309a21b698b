"""Running experiments that differ only in their seed or in parameters of their rule as one batch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Executor
from typing import Any

import torch
from torch import Tensor

from toyguide.devices import resolve_device
from toyguide.errors import InputError
from toyguide.experiment import Experiment, Result
from toyguide.guidance import Batched, Fields, is_from_file, rule, rules, source_of
from toyguide.samplers import Noise, Sampler, Slope, Step, noise_of, sampler, trajectory
from toyguide.sweeps.executors import completed

__all__ = ["batches", "ends", "identity", "run_batch", "sweep", "walk_batch"]

# Most points of a batch: what a CPU's caches hold, what keeps a GPU busy.
_POINTS = {"cpu": 1 << 13, "cuda": 1 << 20}


def sweep(
    experiments: Sequence[Experiment],
    executor: Executor | None = None,
    device: str = "auto",
    done: Collection[str] = (),
) -> Iterator[list[dict[str, Any]]]:
    """Run experiments, batch by batch.

    Workers receive JSON text and return plain values. The batches follow from the experiments and the device alone, so
    an interrupted sweep gives the same rows when it is continued.

    Args:
        experiments: The experiments; equal ones are run once.
        executor: Any of ``concurrent.futures``, with processes started by ``spawn``; None for this process. Workers on
            other machines read datasets and networks from their own disks, by the same names.
        device: ``auto``, ``cpu`` or ``cuda``, on each worker.
        done: Identities of experiments that have a row; a batch of nothing else is left out.

    Yields:
        The rows of a batch, as batches are completed; see :func:`run_batch`.

    Raises:
        InputError: If a field or the device does not exist where an experiment is run.
        BrokenExecutor: If a worker died, and the executor does not start another one.
    """
    missing = [b for b in batches(experiments, device) if any(identity(e) not in done for e in b)]
    for name in {e.rule for e in experiments} if executor is not None else ():
        if not is_from_file(rules()[name]):
            raise InputError(f"rule {name!r}: is defined in this process only, expected a file in TOYGUIDE_RULES")
    wanted = [([e.to_json() for e in batch], device) for batch in missing]
    for _, rows in completed(run_batch, wanted, executor):
        yield rows


def run_batch(texts: Sequence[str], device: str) -> list[dict[str, Any]]:
    """Run a batch of experiments and measure each: one task of a worker.

    Args:
        texts: The experiments of a batch, as JSON.
        device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        A row for each experiment: its identity, its settings (``params.w``, ``interval.low``, …), and its metrics.
        ``seconds`` is the time of the batch divided by the number of its experiments.
    """
    experiments = [Experiment.from_json(text) for text in texts]
    fields = experiments[0].build_fields(device)
    began = time.perf_counter()
    (last,) = deque(walk_batch(experiments, device, fields), maxlen=1)
    seconds = (time.perf_counter() - began) / len(experiments)
    found = zip(experiments, ends(experiments, last, seconds), strict=True)
    return [{"id": identity(e), **_settings(e), **end.metrics(resamples=0)} for e, end in found]


def ends(experiments: Sequence[Experiment], last: Step, seconds: float = 0.0) -> Iterator[Result]:
    """Each run of a batch, its final points alone.

    Args:
        experiments: The batch.
        last: Its last step, as from :func:`walk_batch`.
        seconds: The wall time of a run.
    """
    for i, e in enumerate(experiments):
        own = slice(i * e.n, (i + 1) * e.n)
        end = dataclasses.replace(last, x=last.x[own], cost=last.cost.copy(own), trace={}, ancestors=None)
        yield Result.of(e, [end], seconds)


def walk_batch(experiments: Sequence[Experiment], device: str = "cpu", fields: Fields | None = None) -> Iterator[Step]:
    """The runs of a batch, side by side, step by step: ``x`` of a step has shape ``(experiments * n, d)``.

    Args:
        experiments: A batch, see :func:`batches`. A single experiment is run as by ``Experiment.run``.
        device: ``auto``, ``cpu`` or ``cuda``.
        fields: The fields by role, if they were made already.
    """
    first = experiments[0]
    if len(experiments) == 1:
        yield from first.walk(device, fields)
        return
    starts = {e.seed: e for e in experiments}
    drawn = {seed: e.start() for seed, e in starts.items()}
    x = torch.cat([drawn[e.seed] for e in experiments]).to(resolve_device(device))

    batched = Batched([rule(e.rule, **e.params) for e in experiments], [e.generator() for e in experiments], x)
    stepping = sampler(first.sampler)
    if stepping.stochastic:
        part = x[: first.n]
        noises = {seed: noise_of(part, e.generator(), first.n) for seed, e in starts.items()}
        stepping = _OwnNoise(stepping, [noises[e.seed] for e in experiments])
    yield from trajectory(
        first.wrapped(batched), first.scene(device, fields), stepping, x, first.levels(), torch.Generator()
    )


class _OwnNoise(Sampler):
    """A sampler that gives each run the noise that it would have alone; runs of one seed have the same."""

    def __init__(self, inner: Sampler, noises: Sequence[Noise]) -> None:
        self.inner, self.noises = inner, noises

    def aim(self, sigma: float, sigma_next: float) -> float:
        return self.inner.aim(sigma, sigma_next)

    def step(self, x: Tensor, sigma: float, sigma_next: float, first: Tensor, slope: Slope, noise: Noise) -> Tensor:
        return self.inner.step(x, sigma, sigma_next, first, slope, self.draw)

    def draw(self) -> Tensor:
        fresh = {id(noise): noise() for noise in dict.fromkeys(self.noises)}
        return torch.cat([fresh[id(noise)] for noise in self.noises])


def batches(
    experiments: Sequence[Experiment], device: str = "cpu", points: int | None = None
) -> list[list[Experiment]]:
    """Group experiments into batches of bounded size that can be run as one, in order of first appearance.

    Args:
        experiments: The experiments.
        device: ``auto``, ``cpu`` or ``cuda``.
        points: The most points of a batch, unless one experiment has more; None for what suits the device.
    """
    groups: dict[str, list[Experiment]] = {}
    for e in dict.fromkeys(experiments):
        groups.setdefault(_kind(e), []).append(e)
    # "cuda" may be the device of another machine's worker.
    points = points or _POINTS["cuda" if device == "cuda" else resolve_device(device).type]
    found = []
    for group in groups.values():
        size = max(1, points // group[0].n)
        found += [group[i : i + size] for i in range(0, len(group), size)]
    return found


def identity(experiment: Experiment) -> str:
    """The ``id`` of an experiment's row: 16 hexadecimal digits of its settings' digest."""
    described = experiment.to_json() + source_of(experiment.rule)
    return hashlib.sha256(described.encode()).hexdigest()[:16]


def _kind(e: Experiment) -> str:
    """What all experiments of a batch agree on."""
    kind = rule(e.rule, **e.params)
    if not kind.batchable:
        return e.to_json()
    fixed = {k: v for k, v in e.params.items() if k not in kind.per_trajectory()}
    return json.dumps({**e.settings(), "seed": None, "params": fixed})


def _settings(e: Experiment) -> dict[str, Any]:
    """Its settings in one flat table."""
    found: dict[str, Any] = {}
    for key, value in e.settings().items():
        if key == "fields":
            found |= e.references()
        elif key == "params":
            found |= {f"params.{name}": number for name, number in value.items()}
        elif key == "interval":
            found |= {"interval.low": value and value[0], "interval.high": value and value[1]}
        else:
            found[key] = value
    return found
