"""Parametric families of datasets: a few numbers in a file become a labelled mixture.

Each builder takes the table of its family from ``dataset.toml`` and returns :class:`LabelledMixture`: the union of
all classes, with the class and the branch that each component belongs to.

References:
    Karras et al., Guiding a Diffusion Model with a Bad Version of Itself, 2024, arXiv 2406.02507, Appendix C (tree).
    Yeats et al., Saddle-Free Guidance, 2025, arXiv 2511.21863 (simplex, pair); the paper's own settings are not
    public, so the ones in the dataset files are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from toyguide.datasets.mixtures import LabelledMixture, classified
from toyguide.datasets.points import read_points
from toyguide.datasets.tables import Table
from toyguide.errors import InputError
from toyguide.fields.mixtures import GaussianMixture

__all__ = ["FAMILIES"]


def tree(table: Table, _folder: Path) -> LabelledMixture:
    """A fractal: per class a binary tree of thin branches, each a row of Gaussians.

    The random numbers are NumPy's legacy MT19937, whose stream is frozen for good, drawn depth first: first the
    branch's own length, then, for each child, its heading just before that child grows.
    """
    rng = np.random.RandomState(table.integer("seed", 0, 2**32 - 1))
    depth, per_branch = table.integer("levels", 1, 12), table.integer("components_per_branch", 1, 64)
    scale = np.array(table.numbers("scale", 2, positive=True))
    length, shrink = table.number("length", positive=True), table.number("length_decay", positive=True)
    thickness, turn = table.number("thickness", positive=True), table.number("turn_decay", positive=True)
    spread, weight = table.number("component_spread", positive=True), table.number("weight_decay", positive=True)
    jitter = table.number("jitter")
    first, last = table.numbers("component_span", 2)
    positions = np.linspace(first, last, per_branch)
    origin = np.array(table.numbers("origin", 2))
    headings = _classes(table, "headings")

    weights: list[float] = []
    means: list[np.ndarray] = []
    covariances: list[np.ndarray] = []
    labels: list[int] = []
    levels: list[int] = []

    def grow(start: np.ndarray, heading: float, level: int, label: int) -> None:
        long = length * shrink**level * (1 + jitter * rng.randn())
        along = np.array([math.cos(heading), math.sin(heading)])
        across = np.array([-along[1], along[0]])
        ratio = thickness * shrink**level / long
        size = scale * long * spread
        covariance = (np.outer(along, along) + ratio**2 * np.outer(across, across)) * np.outer(size, size)
        for t in positions:
            weights.append(long * weight**level)
            means.append((start + long * t * along) * scale)
            covariances.append(covariance)
        labels.append(label)
        levels.append(level)
        for side in (1, -1):
            child = heading + side * turn**level * (1 + jitter * rng.randn())
            if level + 1 < depth:
                grow(start + long * along, child, level + 1, label)

    for index, label in enumerate(headings.keys()):
        grow(origin, math.radians(headings.number(label)), 0, index)

    branch = torch.arange(len(labels)).repeat_interleave(per_branch)
    mixture = GaussianMixture(*(torch.from_numpy(np.asarray(a)) for a in (weights, means, covariances)))
    return LabelledMixture(mixture, tuple(headings.keys()), torch.tensor(labels)[branch], branch, torch.tensor(levels))


def simplex(table: Table, _folder: Path) -> LabelledMixture:
    """A regular simplex of unit-norm vertices about the origin, one round Gaussian and one class per vertex.

    ``vertices`` points span ``vertices - 1`` dimensions; any two have the inner product ``-1 / (vertices - 1)``.
    """
    count = table.integer("vertices", 3, 257)
    # Centred corners of the standard simplex span a hyperplane; Helmert's rows are an orthonormal basis of it.
    basis = torch.zeros(count - 1, count, dtype=torch.float64)
    for i in range(1, count):
        basis[i - 1, :i] = 1 / math.sqrt(i * (i + 1))
        basis[i - 1, i] = -i / math.sqrt(i * (i + 1))
    means = basis.T / math.sqrt(1 - 1 / count)
    return _one_component_per_label([f"v{i + 1}" for i in range(count)], means, table.number("std", positive=True) ** 2)


def pair(table: Table, _folder: Path) -> LabelledMixture:
    """Round Gaussians of one variance, each a class of its own."""
    section = _classes(table, "means")
    means = torch.tensor([section.numbers(label, 2) for label in section.keys()], dtype=torch.float64)  # noqa: SIM118
    return _one_component_per_label(section.keys(), means, table.number("variance", positive=True))


def explicit(table: Table, folder: Path) -> LabelledMixture:
    """The user's own mixture: lists in the file, or an ``.npz`` in the same folder with arrays of the same names.

    ``weights (K,)``, ``means (K, d)``, ``covariances (K, d, d)`` and ``labels (K,)``, the class of each component.
    """
    if "file" in table:
        path = folder / table.text("file")
        parts, names = _read_arrays(path)
        where = f"{path}: "
    else:
        parts = {key: np.array(table.array(key, n)) for key, n in (("weights", 1), ("means", 2), ("covariances", 3))}
        where = table.error("", "").args[0].removesuffix(": ")
        names = table.texts("labels")

    if len(names) != len(parts["means"]):
        raise InputError(f"{where}labels: {len(names)} of them: expected {len(parts['means'])}, one for each mean")
    if len(parts["weights"]) != len(parts["means"]):
        raise InputError(
            f"{where}weights: {len(parts['weights'])} of them: expected {len(parts['means'])}, one for each mean"
        )
    if not all(name.strip() for name in names):
        raise InputError(f"{where}labels: one of them is blank: expected names")
    try:
        mixture = GaussianMixture(
            *(torch.from_numpy(parts[k].astype(float)) for k in ("weights", "means", "covariances"))
        )
    except InputError as problem:
        raise InputError(f"{where}{problem}") from problem
    return classified(mixture, names)


def points(table: Table, folder: Path) -> LabelledMixture:
    """A CSV of points in the same folder, as ``toyguide.datasets.points`` reads it; ``bandwidth`` is optional."""
    bandwidth = table.number("bandwidth", positive=True) if "bandwidth" in table else None
    return read_points(folder / table.text("file"), bandwidth)


def _read_arrays(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays of an ``.npz`` with numbers in at least one dimension, and the labels."""
    keys = ("weights", "means", "covariances", "labels")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            for key in keys:
                if key not in arrays:
                    raise InputError(f"{path}: {key}: is missing")
            parts = {k: arrays[k] for k in keys}
    except InputError:
        raise
    except Exception as problem:  # whatever a damaged or foreign file makes NumPy, zipfile and zlib raise
        raise InputError(f"{path}: not a readable .npz of plain arrays ({problem})") from problem
    for key, kinds, expected in (*((k, "fiu", "numbers") for k in keys[:3]), ("labels", "Uiu", "texts")):
        if parts[key].dtype.kind not in kinds or not parts[key].ndim:
            shape, kind = parts[key].shape, parts[key].dtype
            raise InputError(f"{path}: {key}: of type {kind} and shape {shape}: expected a list of {expected}")
    names = parts.pop("labels")
    if names.ndim != 1:
        raise InputError(f"{path}: labels: of shape {names.shape}: expected one for each component")
    return parts, [str(name) for name in names.tolist()]


def _classes(table: Table, key: str) -> Table:
    """A section whose keys are the names of the classes."""
    section = table.section(key)
    if not section.keys() or not all(name.strip() for name in section.keys()):  # noqa: SIM118
        raise table.error(key, "expected at least one class, each with a name")
    return section


def _one_component_per_label(labels: list[str], means: Tensor, variance: float) -> LabelledMixture:
    count, dim = means.shape
    covariances = variance * torch.eye(dim, dtype=torch.float64).expand(count, dim, dim)
    index = torch.arange(count)
    return LabelledMixture(GaussianMixture(means.new_ones(count), means, covariances), tuple(labels), index, index)


FAMILIES: dict[str, Callable[[Table, Path], LabelledMixture]] = {
    "tree": tree,
    "simplex": simplex,
    "pair": pair,
    "mixture": explicit,
    "points": points,
}
