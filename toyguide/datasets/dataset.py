"""Datasets: named families of exact fields, one per class and one for their union.

A dataset is a folder with a ``dataset.toml`` that names its family and its numbers, the noise its networks are
trained with, the range of noise it is sampled over, and which trained networks belong to it. The bundled ones are
found by name; anyone's own by path.
"""

from __future__ import annotations

import importlib.util
import math
import os
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from toyguide.datasets.families import FAMILIES
from toyguide.datasets.mixtures import LabelledMixture
from toyguide.datasets.points import read_points
from toyguide.datasets.tables import Table, read_table
from toyguide.errors import InputError, unknown
from toyguide.fields import Sigma
from toyguide.fields.mixtures import GaussianMixture
from toyguide.noise import LogNormalNoise, edm_schedule

__all__ = ["Dataset", "Sampling", "View", "dataset_names", "dataset_root", "load_dataset"]


@dataclass(frozen=True)
class Sampling:
    """The range of noise levels that sampling walks down, and how they crowd (see ``edm_schedule``)."""

    sigma_min: float
    sigma_max: float
    rho: float


@dataclass(frozen=True)
class View:
    """What a plot of this dataset shows first.

    Attributes:
        label: The class to open with; None for the union.
        low: The lower left corner in the plotted plane, or None to fit the data.
        high: The upper right corner, or None to fit the data.
        plane: The labels whose means span the plotted plane; None for two-dimensional data.
    """

    label: str | None
    low: tuple[float, float] | None
    high: tuple[float, float] | None
    plane: tuple[str, str, str] | None


@dataclass(frozen=True, eq=False)
class Dataset:
    """A labelled mixture with what is needed to train on it, sample it and show it.

    Attributes:
        name: What it is loaded by: a bundled name (with its ``?key=value`` if any) or a path.
        title: A short name for people.
        description: One or two sentences.
        folder: Where it was read from; its trained networks lie there.
        components: All classes' components.
        noise: The distribution of noise levels in training.
        sampling: The range of noise levels in sampling.
        models: The networks that are used with each other, by role (``main``, ``uncond``, ``weak``), as file stems.
        view: What a plot shows first.
    """

    name: str
    title: str
    description: str
    folder: Path
    components: LabelledMixture
    noise: LogNormalNoise
    sampling: Sampling
    models: dict[str, str]
    view: View
    _fields: dict[str | None, GaussianMixture] = field(default_factory=dict, repr=False)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes' names."""
        return self.components.labels

    @property
    def dim(self) -> int:
        return self.components.mixture.dim

    @cached_property
    def sigma_data(self) -> Tensor:
        """The exact per-axis standard deviation of the union, with shape ``(d,)``, float64."""
        return self.components.mixture.std

    def check_label(self, label: str | None) -> str | None:
        """The label itself.

        Raises:
            InputError: If the dataset has no such class.
        """
        if label is not None and label not in self.labels:
            raise unknown(f"label of {self.name}", label, self.labels)
        return label

    def mask(self, label: str | None) -> Tensor:
        """Which components belong to a class (all for None), with shape ``(K,)``, bool."""
        if self.check_label(label) is None:
            return torch.ones_like(self.components.component_label, dtype=torch.bool)
        return self.components.component_label == self.labels.index(str(label))

    def field(self, label: str | None = None) -> GaussianMixture:
        """The exact field of a class, or of the union of all classes for None."""
        if self.check_label(label) not in self._fields:
            self._fields[label] = (
                self.components.mixture if label is None else self.components.mixture.subset(self.mask(label))
            )
        return self._fields[label]

    def posterior(self, x: Tensor, sigma: Sigma) -> Tensor:
        """The exact probability of each class given a noisy point, with shape ``(..., labels)``."""
        r = self.components.mixture.responsibilities(x, sigma)
        index = self.components.component_label.to(x.device)
        return r.new_zeros(*r.shape[:-1], len(self.labels)).index_add_(-1, index, r)


def dataset_root() -> Path:
    """The folder of the bundled datasets: next to the package in a checkout, a package itself in an installation."""
    checkout = Path(__file__).resolve().parents[2] / "datasets"
    if (checkout / "fractal" / "dataset.toml").is_file():
        return checkout
    spec = importlib.util.find_spec("toyguide_datasets")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("the bundled datasets are missing: expected them to be installed with toyguide")
    return Path(next(iter(spec.submodule_search_locations)))


def dataset_names() -> list[str]:
    """The names of the bundled datasets."""
    return sorted(p.parent.name for p in dataset_root().glob("*/dataset.toml"))


@lru_cache(maxsize=32)
def load_dataset(name: str | Path) -> Dataset:
    """Read a dataset.

    Args:
        name: The name of a bundled dataset, the path of a folder with a ``dataset.toml``, or the path of a ``.csv`` of
            points. A simplex takes another number of vertices as ``simplex16?vertices=16``, a CSV a bandwidth as
            ``points.csv?bandwidth=0.05``.

    Raises:
        InputError: If there is no such dataset, or its file is malformed; the message names file and key.
    """
    text = str(name)
    stem, _, variant = text.partition("?")
    bundled = dataset_root() / stem / "dataset.toml"
    # os.path.isfile is, unlike Path.is_file, False for any path that cannot be looked at.
    is_name = stem and Path(stem).name == stem and os.path.isfile(bundled)
    path = bundled if is_name else Path(stem) / "dataset.toml"
    if stem.lower().endswith(".csv") and os.path.isfile(stem):
        return _of_points(Path(stem), variant, text)
    if not os.path.isfile(path):
        kinds = "a bundled name, a folder with a dataset.toml, or a .csv of points"
        raise unknown(f"dataset ({kinds})", text, dataset_names())

    table = read_table(path)
    family = table.text("family")
    if family not in FAMILIES:
        raise table.error("family", str(unknown("family", family, FAMILIES)))
    numbers = table.section(family)
    if variant:
        numbers = _vary(numbers, variant, path)
    try:
        with np.errstate(over="raise", invalid="raise"):
            components = FAMILIES[family](numbers, path.parent)
    except InputError as problem:
        where = "" if str(problem).startswith(str(path.parent)) else f"{path}: {family}: "
        raise InputError(f"{where}{problem}") from problem
    except ArithmeticError as problem:
        raise InputError(f"{path}: {family}: its numbers are too large to compute with ({problem})") from problem
    numbers.finish()

    models = _models(table.section("models", optional=True))
    data = Dataset(
        name=text if is_name else str(path.parent),
        title=table.text("title", path.parent.name),
        description=" ".join(filter(None, (table.text("description", ""), components.note))),
        folder=path.parent,
        components=components,
        noise=_noise(table.section("training", optional=True)),
        sampling=_sampling(table.section("sampling", optional=True)),
        # A variant has another dimension, which the folder's networks were not trained for.
        models={} if variant else models,
        view=_view(table.section("view", optional=True), components),
    )
    table.finish()
    return data


def _of_points(path: Path, variant: str, name: str) -> Dataset:
    nothing = Table({}, f"{path}: ")
    components = read_points(path, _bandwidth(path, variant) if variant else None)
    return Dataset(
        name=name,
        title=path.stem,
        description=components.note,
        folder=path.parent,
        components=components,
        noise=_noise(nothing),
        sampling=_sampling(nothing),
        models={},
        view=_view(nothing, components),
    )


def _bandwidth(path: Path, variant: str) -> float:
    key, _, value = variant.partition("=")
    try:
        bandwidth = float(value) if key == "bandwidth" else math.nan
    except ValueError:
        bandwidth = math.nan
    if not 0 < bandwidth < math.inf:
        raise InputError(f"{path.name}?{variant}: expected ?bandwidth=H with a positive number")
    return bandwidth


def _vary(numbers: Table, variant: str, path: Path) -> Table:
    key, _, value = variant.partition("=")
    if key != "vertices" or "vertices" not in numbers or not value.isdecimal() or len(value) > 3:
        raise InputError(f"{path.parent.name}?{variant}: expected ?vertices=N, on a simplex")
    return Table({**{k: numbers.number(k) for k in numbers.keys()}, "vertices": int(value)}, f"{path}: simplex.")  # noqa: SIM118


def _noise(table: Table) -> LogNormalNoise:
    noise = LogNormalNoise(table.number("log_sigma_mean", -1.2), table.number("log_sigma_std", 1.2, positive=True))
    table.finish()
    return noise


def _sampling(table: Table) -> Sampling:
    low = table.number("sigma_min", 0.002, positive=True)
    high = table.number("sigma_max", 10.0, positive=True)
    sampling = Sampling(low, high, table.number("rho", 7.0, positive=True))
    try:
        edm_schedule(2, sampling.sigma_min, sampling.sigma_max, sampling.rho)
    except InputError as problem:
        raise table.error("sigma_max" if "sigma" in str(problem) else "rho", str(problem)) from problem
    table.finish()
    return sampling


def _models(table: Table) -> dict[str, str]:
    models = {role: table.text(role) for role in table.keys()}  # noqa: SIM118, a table is not a dictionary
    table.finish()
    return models


def _view(table: Table, components: LabelledMixture) -> View:
    label = table.text("label") if "label" in table else None
    if label is not None and label not in components.labels:
        raise table.error("label", str(unknown("label", label, components.labels)))
    low = table.numbers("low", 2) if "low" in table else None
    high = table.numbers("high", 2) if "high" in table else None
    if (low is None) != (high is None):
        raise table.error("low", "expected both low and high, or neither")
    if low and high and not (low[0] < high[0] and low[1] < high[1]):
        raise table.error("low", f"{low}: expected it below and left of high, {high}")
    plane = None
    if "plane" in table:
        plane = table.texts("plane")
        if len(plane) != 3 or len(set(plane)) != 3 or not set(plane) <= set(components.labels):
            raise table.error("plane", f"{plane}: expected three different labels of {', '.join(components.labels)}")
    elif components.mixture.dim > 2:
        plane = list(components.labels[:3])
    table.finish()
    return View(
        label,
        (low[0], low[1]) if low else None,
        (high[0], high[1]) if high else None,
        (plane[0], plane[1], plane[2]) if plane and len(plane) == 3 else None,
    )
