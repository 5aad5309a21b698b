"""Experiments: the frozen, serialisable description of one run, and its result.

The app, the CLI, studies and permalinks all exchange an :class:`Experiment`: it determines everything that can be shown
or measured, and equal experiments give equal points.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from toyguide.datasets import Dataset, load_dataset
from toyguide.datasets.classifiers import Classifier
from toyguide.datasets.references import canonical, check_role, natural_reference, resolve
from toyguide.devices import resolve_device
from toyguide.errors import InputError, unknown
from toyguide.fields import Field
from toyguide.fields.mixtures import GaussianMixture
from toyguide.files import writing
from toyguide.guidance import ROLES, Fields, Interval, Role, Rule, Scene, Schedule, rules
from toyguide.guidance import rule as make_rule
from toyguide.guidance.schedules import checked_schedule
from toyguide.metrics import Difference, Features, differences, features_of, measure_features
from toyguide.metrics.to_target import measure_to_target
from toyguide.noise import edm_schedule
from toyguide.samplers import Step, follow, misfit, trajectory
from toyguide.samplers import sampler as make_sampler

__all__ = ["Experiment", "Reference", "Result"]

Reference = str | Field | Classifier
"""A field in an experiment: a reference (see ``toyguide.datasets.references``), or the object itself."""


@dataclass(frozen=True, init=False, repr=False)
class Experiment:
    """One run: the fields, the guidance rule, the sampler and the random seed. Validated on construction.

    Args:
        dataset: A dataset's name or path.
        label: The class to sample; None for the union.
        main: The field that is sampled, as a reference or a :class:`toyguide.Field`; None for the dataset's trained
            network, or the exact field if no network models the label.
        uncond: The field that CFG extrapolates from; None for the natural partner of ``main``.
        weak: The field that autoguidance extrapolates from; None for the natural partner of ``main``.
        rule: The guidance rule's name.
        params: The rule's parameters. Defaults are filled in, so equal runs are equal experiments.
        interval: Guide only where ``low < sigma <= high``; None for everywhere.
        schedule: How the rule's weight varies over the steps, like ``linear`` or ``early:0.5``, with the weight as its
            mean; see ``toyguide.guidance.schedules``. None for a constant weight.
        sampler: The sampler's name.
        steps: The number of solver steps.
        n: The number of trajectories.
        seed: The seed of the starting points and of all other random numbers.
        sigma_min: The last noise level before 0; None for the dataset's.
        sigma_max: The first noise level; None for the dataset's.
        rho: How closely the levels are spaced towards ``sigma_min``, see ``toyguide.noise``; None for the dataset's.
        fields: Fields and classifiers by role, for roles of any name; the keywords above take precedence. Missing roles
            that the rule needs are filled with their natural partners, so an experiment's ``fields`` name every field
            that is evaluated.

    Raises:
        InputError: If a value is out of range or names something that does not exist.
    """

    dataset: str
    label: str | None
    fields: Mapping[str, Reference]
    rule: str
    params: Mapping[str, Any]
    interval: tuple[float, float] | None
    schedule: str | None
    sampler: str
    steps: int
    n: int
    seed: int
    sigma_min: float | None
    sigma_max: float | None
    rho: float | None
    _rule: ClassVar[Rule]  # each has its own, which is no setting: another one where a rule's class was defined again

    def __init__(
        self,
        dataset: str | Path = "fractal",
        label: str | None = None,
        main: Reference | None = None,
        uncond: Reference | None = None,
        weak: Reference | None = None,
        rule: str = "none",
        params: Mapping[str, Any] | None = None,
        interval: tuple[float, float] | None = None,
        schedule: str | None = None,
        sampler: str = "heun",
        steps: int = 32,
        n: int = 4096,
        seed: int = 0,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        rho: float | None = None,
        fields: Mapping[str, Reference | None] | None = None,
    ) -> None:
        put = partial(object.__setattr__, self)
        if not (label is None or isinstance(label, str)):
            raise InputError(f"label = {label!r}: expected a name, or nothing")
        for name, count in (("steps", steps), ("n", n), ("seed", seed)):
            put(name, _checked_count(name, count))
        for name, value in (("sigma_min", sigma_min), ("sigma_max", sigma_max), ("rho", rho)):
            if value is not None and not (_is_number(value) and math.isfinite(value) and value > 0):
                raise InputError(f"{name} = {value!r}: expected a positive number")
            put(name, None if value is None else float(value))
        params = {} if params is None else params
        if not isinstance(params, Mapping) or not all(isinstance(k, str) for k in params):
            raise InputError(f"params = {params!r}: expected a table of numbers by name")
        put("dataset", str(dataset))
        put("label", label)
        put("rule", str(rule))
        put("_rule", make_rule(self.rule, **params))
        put("params", self._rule.values())
        put("interval", _checked_interval(interval))
        put("schedule", checked_schedule(schedule))
        put("sampler", str(sampler))
        self.data.check_label(label)
        self._check_sampler()
        self.levels()
        fields = _checked_fields({} if fields is None else fields)
        put("fields", self._completed({**fields, **_checked_fields({"main": main, "uncond": uncond, "weak": weak})}))

    def _check_sampler(self) -> None:
        if needed := misfit(self.build_rule(), self.sampler):
            raise InputError(f"sampler {self.sampler!r}: the rule {self.rule!r} needs {needed}")

    def _completed(self, named: dict[str, Reference]) -> dict[str, Reference]:
        """The named fields, with natural partners for the missing ones; ``main`` and the rule's roles come first."""
        roles = self.roles()
        known = list(dict.fromkeys([*roles, *ROLES, *(name for cls in rules().values() for name in cls.roles())]))
        for name in named:
            if name not in known:
                raise unknown("role of a field", name, known)
        main = named.get("main") or natural_reference(roles["main"], None, self.data, self.label)
        partner_of = main if isinstance(main, str) else "exact" if isinstance(main, GaussianMixture) else ""
        found: dict[str, Reference] = {"main": main}
        for name in list(roles)[1:]:
            found[name] = named.get(name) or natural_reference(roles[name], partner_of, self.data, self.label)
        return {**found, **named}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Experiment) and vars(self) == vars(other)

    def __hash__(self) -> int:
        fixed = tuple(v for k, v in vars(self).items() if k not in ("fields", "params"))
        return hash((fixed, tuple(self.fields.items()), tuple(self.params.items())))

    def __repr__(self) -> str:
        where = self.dataset if self.label is None else f"{self.dataset} {self.label}"
        fields = ", ".join(f"{name}={_called(self.fields[name])}" for name in self.roles())
        counts = f"{self.steps} {self.sampler} steps, n={self.n}, seed={self.seed}"
        return f"<Experiment {where}: {self.build_rule()!r}, {fields}, {counts}>"

    def with_seed(self, seed: int) -> Experiment:
        """The same run with another seed, without the time that checking the other settings takes.

        Raises:
            InputError: If it is no seed.
        """
        found = copy.copy(self)
        object.__setattr__(found, "seed", _checked_count("seed", seed))
        return found

    @property
    def main(self) -> Reference:
        """The field that is sampled."""
        return self.fields["main"]

    @property
    def data(self) -> Dataset:
        """The dataset."""
        return load_dataset(self.dataset)

    def build_rule(self) -> Rule:
        """The rule, by the schedule and inside the interval if there are such."""
        return self.wrapped(self._rule)

    def wrapped(self, bare: Rule) -> Rule:
        """A rule, or several as one batch, by this run's schedule and inside its interval if there are such."""
        found = bare if self.schedule is None else Schedule(bare, self.schedule, self.levels().tolist())
        return found if self.interval is None else Interval(found, *self.interval)

    def roles(self) -> dict[str, Role]:
        """The roles of the fields that are evaluated, by name; the first is ``main``."""
        return {"main": ROLES["main"], **self.build_rule().evaluates()}

    def references(self) -> dict[str, Reference]:
        """The fields that are evaluated, by role: ``fields`` without those that the rule does not need."""
        return {name: self.fields[name] for name in self.roles()}

    def build_fields(self, device: str = "cpu") -> dict[str, Field | Classifier]:
        """The fields and classifiers that are evaluated, by role, on a device.

        Raises:
            InputError: If a field does not exist or does not fit.
        """
        where = resolve_device(device)
        found: dict[str, Field | Classifier] = {}
        for name, role in self.roles().items():
            given = self.fields[name]
            field = resolve(given, self.data, self.label, role) if isinstance(given, str) else given
            if field is given:
                check_role(field, _called(given), self.data, self.label, role)
            found[name] = field.to(where) if isinstance(field, nn.Module) else field
        return found

    def build_field(self, role: str = "main", device: str = "cpu") -> Field:
        """The field in one role, on a device.

        Raises:
            InputError: If it does not exist, does not fit, or is a classifier.
        """
        return self.scene(device).field(role)

    def warnings(self) -> list[str]:
        """Likely mistakes, one line each: two roles with the same field, and fields that are not used."""
        roles: dict[Reference, str] = {}
        found = []
        for name, role in self.roles().items():
            given = self.fields[name]
            same = canonical(given, self.label, role) if isinstance(given, str) else given
            if same in roles:
                found.append(f"{self.rule}: {roles[same]} and {name} are the same field, {_called(same)}")
            roles.setdefault(same, name)
        return found + [f"{self.rule}: the field for {name} is not used" for name in self.fields.keys() - self.roles()]

    def levels(self) -> Tensor:
        """The noise levels, with shape ``(steps + 1,)``, float64, the last one 0."""
        s = self.data.sampling
        low, high = self.sigma_min or s.sigma_min, self.sigma_max or s.sigma_max
        return edm_schedule(self.steps, low, high, self.rho or s.rho)

    def scene(self, device: str = "cpu", fields: Fields | None = None) -> Scene:
        """The fields, levels, dataset and label of the run.

        Args:
            device: ``auto``, ``cpu`` or ``cuda``.
            fields: The fields by role, if they are built already.
        """
        levels = tuple(float(s) for s in self.levels())
        return Scene(fields or self.build_fields(device), levels, self.data, self.label)

    def start(self) -> Tensor:
        """The starting points, exact samples of ``p(x | label; sigma_max)``, with shape ``(n, d)``, float32."""
        generator = torch.Generator().manual_seed(self.seed)
        return self.data.field(self.label).sample(self.n, float(self.levels()[0]), generator).float()

    def generator(self) -> torch.Generator:
        """The random generator of the rule and the sampler, on the CPU; independent of the starting points'."""
        generator = torch.Generator().manual_seed(self.seed)
        return generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))

    def walk(self, device: str = "cpu", fields: Fields | None = None, first: int | None = None) -> Iterator[Step]:
        """The run, step by step.

        Args:
            device: ``auto``, ``cpu`` or ``cuda``.
            fields: The fields by role, if they are built already.
            first: Run only the first so many trajectories. They have the starting points and the sampler's noise of the
                whole run, and follow it up to rounding (which depends on the batch size) if the rule draws its random
                numbers in the points' order. A rule whose points affect each other always runs with all of them.
        """
        where, guidance = resolve_device(device), self.build_rule()
        yield from trajectory(
            guidance,
            self.scene(device, fields),
            make_sampler(self.sampler),
            self.start()[: None if guidance.interacts else first].to(where),
            self.levels(),
            self.generator(),
            self.n,
        )

    def run(self, device: str = "auto", watch: Callable[[Iterator[Step]], Iterable[Step]] = iter) -> Result:
        """The whole run.

        Args:
            device: ``auto``, ``cpu`` or ``cuda``.
            watch: Wraps the iterator of steps, for example in a progress bar.
        """
        fields = self.build_fields(device)
        began = time.perf_counter()
        steps = list(watch(self.walk(device, fields)))
        if steps[-1].x.is_cuda:
            torch.cuda.synchronize()
        return Result.of(self, steps, time.perf_counter() - began)

    def settings(self) -> dict[str, Any]:
        """All settings as plain values, as in the JSON.

        Raises:
            InputError: If a field is a Python object and not a reference.
        """
        for name, given in self.fields.items():
            if not isinstance(given, str):
                raise InputError(f"field {name!r}: a {_called(given)} object cannot be written, expected a reference")
        found = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        # JSON has no infinity, which switches some parameters off.
        params = {name: "inf" if value == math.inf else value for name, value in self.params.items()}
        return {**found, "fields": dict(self.fields), "params": params}

    def to_json(self) -> str:
        """One line of JSON; a constant weight is not mentioned, as in files from before there were schedules.

        Raises:
            InputError: If a field is a Python object and not a reference.
        """
        return json.dumps({k: v for k, v in self.settings().items() if (k, v) != ("schedule", None)})

    @classmethod
    def from_json(cls, text: str) -> Experiment:
        """The experiment that ``to_json`` wrote.

        Raises:
            InputError: If the text is not valid JSON of an experiment.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as problem:
            raise InputError(f"experiment: not JSON ({problem})") from problem
        if not isinstance(values, dict):
            raise InputError("experiment: expected a JSON object")
        for key in values:
            if key not in SETTINGS:
                raise unknown("setting of an experiment", key, SETTINGS)
        return cls(**values)


SETTINGS = tuple(inspect.signature(Experiment).parameters)
"""The names of an experiment's settings."""


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """The result of an experiment.

    Attributes:
        experiment: The experiment.
        x: The points at every level, with shape ``(steps + 1, n, d)``, float32 on the CPU.
        sigma: The levels, with shape ``(steps + 1,)``.
        nfe_per_trajectory: The number of field evaluations for each trajectory, with shape ``(n,)``, int64.
        gradients: The number of Jacobian products and classifier gradients for each trajectory.
        seconds: The wall time of the sampling.
        trace: The rule's traces at the beginning of each step, each with shape ``(steps, n)`` or ``(steps, n, d)``; NaN
            for steps without guidance. SFG's traces are ``v`` and ``lambda``.
        ancestors: If the rule resampled, the index before each step of each point's ancestor, with shape
            ``(steps, n)``, int64; None otherwise.
    """

    experiment: Experiment
    x: Tensor
    sigma: Tensor
    nfe_per_trajectory: Tensor
    gradients: int
    seconds: float
    trace: Mapping[str, Tensor]
    ancestors: Tensor | None = None

    @classmethod
    def of(cls, experiment: Experiment, steps: Sequence[Step], seconds: float) -> Result:
        """The result of the steps of a run."""
        last = steps[-1]
        names = {k: v for s in steps for k, v in s.trace.items()}
        trace = {
            k: torch.stack([s.trace.get(k, torch.full_like(v, math.nan)).cpu() for s in steps[1:]])
            for k, v in names.items()
        }
        ancestors = None
        if any(s.ancestors is not None for s in steps):
            unmoved = torch.arange(len(last.x), device="cpu")
            ancestors = torch.stack([unmoved if s.ancestors is None else s.ancestors.cpu() for s in steps[1:]])
        x = torch.stack([s.x.cpu() for s in steps])
        sigma = torch.tensor([s.sigma for s in steps], dtype=torch.float32, device="cpu")
        nfe, gradients = last.cost.per_trajectory(len(last.x)), last.cost.gradients
        return cls(experiment, x, sigma, nfe, gradients, seconds, trace, ancestors)

    def __repr__(self) -> str:
        size = f"{self.x.shape[1]} points, {self.experiment.steps} steps"
        return f"<Result of {self.experiment.build_rule()!r}: {size}, {self.nfe:g} evaluations, {self.seconds:.2f} s>"

    @property
    def nfe(self) -> float:
        """The number of field evaluations, the mean over the trajectories."""
        return float(self.nfe_per_trajectory.double().mean())

    @cached_property
    def diverged(self) -> int:
        """The number of trajectories whose final point is not finite."""
        return int((~self.x[-1].isfinite().all(-1)).sum())

    def paths(self) -> Tensor:
        """The paths of the final points, with the shape of ``x``; through their ancestors if the rule resampled."""
        return self.x if self.ancestors is None else follow(self.x, list(self.ancestors))

    def metrics(self, resamples: int = 200, features: Features | None = None) -> dict[str, Any]:
        """The final samples compared with the exact field; see ``toyguide.metrics.measure``.

        Points that affect each other are not independent samples, so a run of such a rule has no intervals.

        Args:
            resamples: The number of bootstrap resamples; 0 for no intervals.
            features: Those of the final samples, if they are known.
        """
        e = self.experiment
        resamples = 0 if e.build_rule().interacts else resamples
        features = features or features_of(self.x[-1], e.data, e.label)
        measured = measure_features(features, resamples=resamples, seed=e.seed)
        return {**measured, "nfe": self.nfe, "gradients": self.gradients, "seconds": self.seconds}

    def target_metrics(self) -> dict[str, Any]:
        """The final samples compared with what the rule is said to sample; see ``toyguide.metrics.to_target``.

        Raises:
            InputError: If nobody says what the rule samples, or a field is neither exact nor a network.
        """
        e = self.experiment
        target = e.build_rule().target()
        if target is None:
            raise InputError(f"target: nobody says which density {e.build_rule()!r} samples, expected a rule like cfg")
        return measure_to_target(self.x[-1], target, e.build_fields(), e.data, e.label, e.seed)

    def differences(self, other: Result, resamples: int = 200) -> dict[str, Difference]:
        """What another run's metrics are more than this one's, with intervals; see ``toyguide.metrics.paired``.

        Runs with the same seed share their noise, which makes the intervals narrow. Runs whose points affect each other
        have none, so there are no differences with these.

        Args:
            other: A run of the same dataset, class and number of trajectories.
            resamples: The number of bootstrap resamples.

        Raises:
            InputError: If the two runs differ in dataset, class or number of trajectories.
        """
        if any(r.experiment.build_rule().interacts for r in (self, other)):
            return {}
        mine, others = (features_of(r.x[-1], r.experiment.data, r.experiment.label) for r in (self, other))
        return differences(mine, others, resamples=resamples, seed=self.experiment.seed)

    def save(self, path: str | Path) -> None:
        """Write an ``.npz`` with the arrays ``x``, ``sigma``, ``nfe`` (of each trajectory), ``gradients``, ``seconds``,
        one ``trace.…`` for each trace, ``ancestors`` if there are any, and the string ``experiment``.

        Raises:
            InputError: If the file cannot be written, or a field of the experiment is a Python object.
        """
        arrays: dict[str, Any] = {
            "x": self.x.numpy(),
            "sigma": self.sigma.numpy(),
            "nfe": self.nfe_per_trajectory.numpy(),
            "gradients": np.array(self.gradients),
            "seconds": np.array(self.seconds),
            "experiment": np.array(self.experiment.to_json()),
            **{f"trace.{k}": v.numpy() for k, v in self.trace.items()},
            **({} if self.ancestors is None else {"ancestors": self.ancestors.numpy()}),
        }
        with writing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> Result:
        """Read a file written by ``save``.

        Raises:
            InputError: If there is no such file, or it is not one.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                parts = {k: arrays[k] for k in arrays.files}
            experiment = Experiment.from_json(str(parts["experiment"]))
            x, sigma = torch.from_numpy(parts["x"]), torch.from_numpy(parts["sigma"])
            nfe = torch.from_numpy(np.array(np.broadcast_to(parts["nfe"], experiment.n), dtype=np.int64))
            gradients, seconds = int(parts.get("gradients", 0)), float(parts["seconds"])
            trace = {k.removeprefix("trace."): torch.from_numpy(v) for k, v in parts.items() if k.startswith("trace.")}
            ancestors = torch.from_numpy(parts["ancestors"]) if "ancestors" in parts else None
        except InputError as problem:
            raise InputError(f"run {str(path)!r}: {problem}") from problem
        except FileNotFoundError as problem:
            raise InputError(f"run {str(path)!r}: no such file") from problem
        except Exception as problem:  # NumPy and zipfile raise many exceptions for a damaged file
            raise InputError(f"run {str(path)!r}: damaged, or not written by toyguide sample") from problem
        expected = (experiment.steps + 1, experiment.n, experiment.data.dim)
        if x.shape != expected or x.dtype != torch.float32 or sigma.shape != x.shape[:1]:
            raise InputError(
                f"run {str(path)!r}: its points are {tuple(x.shape)}, {x.dtype}: expected {expected}, torch.float32"
            )
        if ancestors is not None and not (ancestors.shape == x[1:, :, 0].shape and _are_indices(ancestors, x.shape[1])):
            raise InputError(f"run {str(path)!r}: its ancestors are not places of {x.shape[1]} points")
        return cls(experiment, x, sigma, nfe, gradients, seconds, trace, ancestors)


def _called(given: Reference) -> str:
    return given if isinstance(given, str) else type(given).__name__


def _checked_fields(fields: Mapping[str, Any]) -> dict[str, Reference]:
    if not isinstance(fields, Mapping):
        raise InputError(f"fields = {fields!r}: expected a table of references by role")
    for name, given in fields.items():
        if not (given is None or (isinstance(given, str) and given) or isinstance(given, Field | Classifier)):
            raise InputError(f"{name} = {given!r}: expected a field's reference, like exact, or nothing")
    return {name: given for name, given in fields.items() if given is not None}


_COUNTS = {"steps": (1, 10_000), "n": (1, 100_000_000), "seed": (0, 2**63 - 1)}


def _checked_count(name: str, count: Any) -> int:
    low, high = _COUNTS[name]
    if not isinstance(count, int) or isinstance(count, bool) or not low <= count <= high:
        raise InputError(f"{name} = {count!r}: expected a whole number from {low} to {high}")
    return count


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


def _are_indices(ancestors: Tensor, n: int) -> bool:
    return ancestors.dtype == torch.int64 and bool(((ancestors >= 0) & (ancestors < n)).all())
