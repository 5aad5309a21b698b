"""A CSV of points as a dataset: a kernel density estimate, exact as a field.

Each point becomes a round Gaussian, of one bandwidth for each class. Unless it is given, a class's bandwidth h is that
of the largest leave-one-out likelihood, the mean over its n points of

    log 1/(n - 1) sum_{j != i} N(x_i; x_j, h^2 I)

found with SciPy's bounded scalar minimisation over log h, around the best of a grid. Copies of a point are left out
with it, since they would make h = 0 the best. In a class of more than m = 1024 points it is found for m of them, at
equal distances in the file, and multiplied by ``(n / m)^(-1 / (d + 4))``, as the best bandwidth falls with n. If a
class has fewer than two different points, the rule is applied to the points of all classes.

References:
    Duin, On the Choice of Smoothing Parameters for Parzen Estimators of Probability Density Functions, 1976.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from toyguide.datasets.mixtures import LabelledMixture, classified
from toyguide.errors import InputError
from toyguide.fields.mixtures import LARGEST, GaussianMixture

__all__ = ["read_points"]

_MOST_POINTS = 20_000  # of a file: each is a component
_MOST_COMPARED = 1024  # of a class, each with each
_GRID = 15  # bandwidths tried before the minimisation
_SHOWN = 6  # classes whose bandwidths are named in the description


def read_points(path: Path, bandwidth: float | None = None) -> LabelledMixture:
    """The kernel density estimate of a file of points.

    Args:
        path: The file. Its header is ``x0,x1,…`` and, where the points have classes, ``label`` last.
        bandwidth: The Gaussians' standard deviation; None for one per class by leave-one-out likelihood.

    Raises:
        InputError: If the file is malformed; the message names file, line and column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            rows = [(reader.line_num, row) for row in reader if row]
    except OSError as problem:
        raise InputError(f"{path}: cannot be read ({problem.strerror})") from problem
    except (ValueError, csv.Error) as problem:
        raise InputError(f"{path}: not a CSV ({problem})") from problem

    labelled = header[-1:] == ["label"]
    dim = len(header) - labelled
    if dim < 1 or header[:dim] != [f"x{i}" for i in range(dim)]:
        raise InputError(f"{path}: line 1: header {','.join(header)[:80]!r}: expected x0,x1,… and label last, if any")
    if not 2 <= len(rows) <= _MOST_POINTS:
        raise InputError(f"{path}: {len(rows)} points: expected from 2 to {_MOST_POINTS}")
    for line, row in rows:
        if len(row) != len(header):
            raise InputError(f"{path}: line {line}: {len(row)} columns: expected {len(header)}, like the header")
        if labelled and not row[-1].strip():
            raise InputError(f"{path}: line {line}: label: is blank: expected a name")
    means = torch.tensor(
        [[_coordinate(row[i], f"{path}: line {line}: x{i}") for i in range(dim)] for line, row in rows],
        dtype=torch.float64,
    )
    names = [row[-1].strip() if labelled else "points" for _, row in rows]
    widths = _bandwidths(means, names, bandwidth)
    if widths is None:
        raise InputError(f"{path}: all points are the same: expected a spread, or a bandwidth")
    variances = torch.tensor([widths[name] ** 2 for name in names], dtype=torch.float64)
    covariances = variances[:, None, None] * torch.eye(dim, dtype=torch.float64)
    try:
        mixture = GaussianMixture(means.new_ones(len(rows)), means, covariances)
    except InputError as problem:
        raise InputError(f"{path}: {problem}") from problem
    found = ", ".join(f"{name} {width:.3g}" for name, width in list(widths.items())[:_SHOWN])
    found += ", …" if len(widths) > _SHOWN else ""
    rule = "by leave-one-out likelihood" if bandwidth is None else "as given"
    return classified(mixture, names, f"{len(names)} points, each a round Gaussian; bandwidth {rule}: {found}.")


def _bandwidths(x: Tensor, names: list[str], given: float | None) -> dict[str, float] | None:
    """The bandwidth of each class, of points (n, d); None if there is no spread to choose one by."""
    if given is not None:
        return dict.fromkeys(names, given)
    index = np.array(names)
    found = {name: _leave_one_out(x[index == name]) for name in dict.fromkeys(names)}
    if None in found.values():
        common = _leave_one_out(x)
        if common is None:
            return None
        return {name: common if width is None else width for name, width in found.items()}
    return {name: width for name, width in found.items() if width is not None}


def _leave_one_out(x: Tensor) -> float | None:
    """The bandwidth of points (n, d) by the module's rule; None if they are all the same."""
    from scipy.optimize import minimize_scalar

    n, dim = x.shape
    x = x[torch.linspace(0, n - 1, min(n, _MOST_COMPARED), dtype=torch.float64).long()]
    squares = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").square()
    others = squares > 0
    if not others.any():
        return None
    low, high = (0.5 * math.log(float(bound)) for bound in (squares[others].min(), squares.max()))
    exponents = torch.where(others, -0.5 * squares, -math.inf)[others.any(1)]

    def loss(log_h: float) -> float:
        return dim * log_h - float((exponents * math.exp(-2 * log_h)).logsumexp(1).mean())

    grid = np.linspace(low - math.log(10), high, _GRID)
    best = grid[int(np.argmin([loss(h) for h in grid]))]
    step = grid[1] - grid[0]
    found = minimize_scalar(loss, bounds=(best - step, best + step), method="bounded", options={"xatol": 1e-4})
    return math.exp(found.x) * (n / len(x)) ** (-1 / (dim + 4))


def _coordinate(text: str, where: str) -> float:
    try:
        value = math.nan if "_" in text else float(text)
    except ValueError:
        value = math.nan
    if not abs(value) <= LARGEST:
        raise InputError(f"{where}: {text[:40]!r}: expected a number from {-LARGEST:g} to {LARGEST:g}")
    return value
