"""Experiments: the frozen, serialisable description of one run, and what came of it.

An :class:`Experiment` is the only currency between the app, the CLI, studies and permalinks: everything that can be
shown or measured follows from it, and the same experiment gives the same points.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from toyguide.datasets import Dataset, load_dataset
from toyguide.datasets.references import natural_reference, resolve_field
from toyguide.devices import resolve_device
from toyguide.errors import InputError, unknown
from toyguide.fields import Field
from toyguide.fields.networks import EnergyMLP
from toyguide.files import writing
from toyguide.guidance import Interval, Rule, rule
from toyguide.metrics import measure
from toyguide.noise import edm_schedule
from toyguide.samplers import Step, sampler, trajectory

__all__ = ["Experiment", "Result"]


@dataclass(frozen=True)
class Experiment:
    """One run: what is sampled, how it is guided, and from which random numbers. Checked when it is made.

    Args:
        dataset: A dataset's name or path.
        label: The class to sample; None for the union.
        main: The field that is sampled; None for the dataset's trained network, or the exact field where none models
            the label.
        uncond: What CFG-like rules extrapolate from; None for the natural partner of ``main``.
        weak: What autoguidance extrapolates from; None for the natural partner of ``main``.
        rule: The guidance rule's name.
        params: The rule's parameters; those left out take their defaults, so equal runs are equal experiments.
        interval: Guide only where ``low < sigma <= high``; None for everywhere.
        sampler: The sampler's name.
        steps: Solver steps.
        n: Trajectories.
        seed: Of the starting points and of all other random numbers.
        sigma_min: The last noise level before 0; None for the dataset's.
        sigma_max: The first noise level; None for the dataset's.
        rho: How the levels crowd; None for the dataset's.

    Raises:
        InputError: If a value is out of range or names something that does not exist.
    """

    dataset: str = "fractal"
    label: str | None = None
    main: str | None = None
    uncond: str | None = None
    weak: str | None = None
    rule: str = "none"
    params: Mapping[str, Any] = field(default_factory=dict)
    interval: tuple[float, float] | None = None
    sampler: str = "heun"
    steps: int = 32
    n: int = 4096
    seed: int = 0
    sigma_min: float | None = None
    sigma_max: float | None = None
    rho: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "dataset", str(self.dataset))
        for name in ("label", "main", "uncond", "weak"):
            value = getattr(self, name)
            if not (value is None or isinstance(value, str)):
                raise InputError(f"{name} = {value!r}: expected a name, or nothing")
        for name, value, low, high in (
            ("steps", self.steps, 1, 10_000),
            ("n", self.n, 1, 100_000_000),
            ("seed", self.seed, 0, 2**63 - 1),
        ):
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise InputError(f"{name} = {value!r}: expected a whole number from {low} to {high}")
        for name in ("sigma_min", "sigma_max", "rho"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and math.isfinite(value) and value > 0):
                raise InputError(f"{name} = {value!r}: expected a positive number")
            object.__setattr__(self, name, None if value is None else float(value))
        if not isinstance(self.params, Mapping) or not all(isinstance(k, str) for k in self.params):
            raise InputError(f"params = {self.params!r}: expected a table of numbers by name")
        object.__setattr__(self, "params", rule(str(self.rule), **self.params).values())
        object.__setattr__(self, "interval", _checked_interval(self.interval))
        self.data.check_label(self.label)
        if sampler(str(self.sampler)).order > 1 and self.build_rule().first_order:
            raise InputError(f"sampler {self.sampler!r}: the rule {self.rule!r} needs a first-order one, like 'euler'")
        self.levels()

    def __hash__(self) -> int:
        return hash(self.to_json())

    @property
    def data(self) -> Dataset:
        """The dataset."""
        return load_dataset(self.dataset)

    def build_rule(self) -> Rule:
        """The rule, inside its interval if there is one."""
        bare = rule(self.rule, **self.params)
        return bare if self.interval is None else Interval(bare, *self.interval)

    def references(self) -> dict[str, str]:
        """The field in each role that the rule needs (and ``main``), by what it is called."""
        main = self.main or natural_reference("main", None, self.data, self.label)
        named = {"uncond": self.uncond, "weak": self.weak}
        partners = {r: named[r] or natural_reference(r, main, self.data) for r in self.build_rule().needs if r in named}
        return {"main": main, **partners}

    def fields(self, device: str = "cpu") -> dict[str, Field]:
        """The fields by role, on a device.

        Raises:
            InputError: If a field does not exist or does not fit.
        """
        where = resolve_device(device)
        found = {r: resolve_field(ref, self.data, self.label, r) for r, ref in self.references().items()}
        return {r: f.to(where) if isinstance(f, EnergyMLP) else f for r, f in found.items()}

    def levels(self) -> Tensor:
        """The noise levels, with shape ``(steps + 1,)``, float64, the last one 0."""
        s = self.data.sampling
        low, high = self.sigma_min or s.sigma_min, self.sigma_max or s.sigma_max
        return edm_schedule(self.steps, low, high, self.rho or s.rho)

    def start(self) -> Tensor:
        """The starting points, exact samples of ``p(x | label; sigma_max)``, with shape ``(n, d)``, float32."""
        generator = torch.Generator().manual_seed(self.seed)
        return self.data.field(self.label).sample(self.n, float(self.levels()[0]), generator).float()

    def generator(self) -> torch.Generator:
        """The random numbers of the rule and the sampler, on the CPU; not the stream of the starting points."""
        generator = torch.Generator().manual_seed(self.seed)
        return generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))

    def walk(
        self, device: str = "cpu", fields: dict[str, Field] | None = None, first: int | None = None
    ) -> Iterator[Step]:
        """The run, step by step.

        Args:
            device: ``auto``, ``cpu`` or ``cuda``.
            fields: The fields by role, if they were made already.
            first: Only so many of the trajectories, the first ones. They start where those of the whole run start, and
                follow them where a rule moves each point by itself, with random numbers drawn in the points' order (up
                to rounding, which depends on how many points are computed together). A sampler's noise is the same.
        """
        where = resolve_device(device)
        yield from trajectory(
            self.build_rule(),
            fields or self.fields(device),
            sampler(self.sampler),
            self.start()[:first].to(where),
            self.levels(),
            self.generator(),
            self.n,
        )

    def run(self, device: str = "auto", watch: Callable[[Iterator[Step]], Iterable[Step]] = iter) -> Result:
        """All of it.

        Args:
            device: ``auto``, ``cpu`` or ``cuda``.
            watch: Wraps the steps as they come: a progress bar, say.
        """
        fields = self.fields(device)
        began = time.perf_counter()
        steps = list(watch(self.walk(device, fields)))
        if steps[-1].x.is_cuda:
            torch.cuda.synchronize()
        return Result.of(self, steps, time.perf_counter() - began)

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Experiment:
        """The experiment that ``to_json`` wrote.

        Raises:
            InputError: If the text is not that.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as problem:
            raise InputError(f"experiment: not JSON ({problem})") from problem
        if not isinstance(values, dict):
            raise InputError("experiment: expected a JSON object")
        known = [f.name for f in dataclasses.fields(cls)]
        for key in values:
            if key not in known:
                raise unknown("setting of an experiment", key, known)
        return cls(**values)


@dataclass(frozen=True, eq=False)
class Result:
    """What came of an experiment.

    Attributes:
        experiment: What was run.
        x: The points at every level, with shape ``(steps + 1, n, d)``, float32 on the CPU.
        sigma: The levels, with shape ``(steps + 1,)``.
        nfe: Field evaluations per trajectory.
        seconds: Wall time of the sampling.
        trace: What the rule showed at the beginning of each step, each with shape ``(steps, n)`` or ``(steps, n, d)``;
            steps without guidance are NaN. SFG shows ``v`` and ``lambda``.
    """

    experiment: Experiment
    x: Tensor
    sigma: Tensor
    nfe: int
    seconds: float
    trace: Mapping[str, Tensor]

    @classmethod
    def of(cls, experiment: Experiment, steps: list[Step], seconds: float) -> Result:
        """The result of the steps of a run."""
        x = torch.stack([s.x for s in steps]).cpu()
        names = {k: v for s in steps for k, v in s.trace.items()}
        trace = {
            k: torch.stack([s.trace.get(k, torch.full_like(v, math.nan)) for s in steps[1:]]).cpu()
            for k, v in names.items()
        }
        sigma = torch.tensor([s.sigma for s in steps], dtype=torch.float32)
        return cls(experiment, x, sigma, steps[-1].nfe, seconds, trace)

    @cached_property
    def diverged(self) -> int:
        """How many trajectories ended outside the finite numbers."""
        return int((~self.x[-1].isfinite().all(-1)).sum())

    def metrics(self, resamples: int = 200) -> dict[str, Any]:
        """The final samples measured against the exact field; see ``toyguide.metrics.measure``."""
        e = self.experiment
        measured = measure(self.x[-1], e.data, e.label, resamples=resamples, seed=e.seed)
        return {**measured, "nfe": self.nfe, "seconds": self.seconds}

    def save(self, path: str | Path) -> None:
        """Write an ``.npz`` with the arrays ``x``, ``sigma``, ``nfe``, ``seconds``, one ``trace.…`` for each trace, and
        the string ``experiment``.

        Raises:
            InputError: If the file cannot be written.
        """
        arrays: dict[str, Any] = {
            "x": self.x.numpy(),
            "sigma": self.sigma.numpy(),
            "nfe": np.array(self.nfe),
            "seconds": np.array(self.seconds),
            "experiment": np.array(self.experiment.to_json()),
            **{f"trace.{k}": v.numpy() for k, v in self.trace.items()},
        }
        with writing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> Result:
        """Read what ``save`` wrote.

        Raises:
            InputError: If the file is not that.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                parts = {k: arrays[k] for k in arrays.files}
            experiment = Experiment.from_json(str(parts["experiment"]))
            x, sigma = torch.from_numpy(parts["x"]), torch.from_numpy(parts["sigma"])
            nfe, seconds = int(parts["nfe"]), float(parts["seconds"])
            trace = {k.removeprefix("trace."): torch.from_numpy(v) for k, v in parts.items() if k.startswith("trace.")}
        except InputError as problem:
            raise InputError(f"run {str(path)!r}: {problem}") from problem
        except FileNotFoundError as problem:
            raise InputError(f"run {str(path)!r}: no such file") from problem
        except Exception as problem:  # whatever a damaged or foreign file makes NumPy and zipfile raise
            raise InputError(f"run {str(path)!r}: damaged, or not written by toyguide sample") from problem
        expected = (experiment.steps + 1, experiment.n, experiment.data.dim)
        if x.shape != expected or x.dtype != torch.float32 or sigma.shape != x.shape[:1]:
            raise InputError(
                f"run {str(path)!r}: its points are {tuple(x.shape)}, {x.dtype}: expected {expected}, torch.float32"
            )
        return cls(experiment, x, sigma, nfe, seconds, trace)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _checked_interval(interval: Any) -> tuple[float, float] | None:
    if interval is None:
        return None
    try:
        low, high = interval
    except (TypeError, ValueError):
        low = high = None
    if not (_is_number(low) and _is_number(high) and 0 <= low < high < math.inf):
        raise InputError(f"interval = {interval!r}: expected two noise levels, 0 <= low < high")
    return float(low), float(high)
