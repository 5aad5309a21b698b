"""The coefficients of LinearAG: what they are, how they are fitted, and how they are stored beside a dataset.

At each level of a CFG run but the first, ordinary least squares give three numbers for all points and coordinates,

    eps_uncond(i) ~ c_0 eps_main(i) + c_1 eps_main(i-1) + c_2 eps_uncond(i-1)

with the noise predicted at step i and at the one before. A dataset's folder has them in ``linear-ag.json``, an entry
for each class and pair of fields. A rule knows its fields and not their names, so an entry is found by the class and by
what both fields are worth at a few fixed points.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from toyguide.datasets.dataset import Dataset
from toyguide.errors import InputError
from toyguide.fields import Field
from toyguide.files import writing

__all__ = ["HELD", "Coefficients", "LinearFit", "find_fit", "fit_step", "fits_of", "signature", "write_fit"]

Coefficients = tuple[float, float, float]

HELD: Coefficients = (1.0, -1.0, 1.0)
"""The last step's difference of both fields, kept as it was."""

_FILE = "linear-ag.json"
_CLOSE = 1e-4  # in units of the data: far below what two networks differ by, far above rounding in float32


@dataclass(frozen=True)
class LinearFit:
    """The coefficients for one class and pair of fields.

    Attributes:
        label: The class; None for the union.
        main: The reference of the conditional field.
        uncond: The reference of the unconditional field.
        w: The weight of the CFG runs.
        steps: The number of their steps.
        n: The number of trajectories.
        seed: Their seed.
        signature: What both fields are worth at fixed points, see :func:`signature`.
        levels: The noise levels fitted at, falling: all of the run but the first and 0.
        coefficients: Those of each level.
        errors: The relative error of each level's regression, root mean square over all points and coordinates.
    """

    label: str | None
    main: str
    uncond: str
    w: float
    steps: int
    n: int
    seed: int
    signature: tuple[float, ...]
    levels: tuple[float, ...]
    coefficients: tuple[Coefficients, ...]
    errors: tuple[float, ...]

    def at(self, sigma: float) -> Coefficients:
        """The coefficients at a noise level, linear in log sigma between two that were fitted."""
        where = [math.log(level) for level in reversed(self.levels)]
        c = [float(np.interp(math.log(sigma), where, column[::-1])) for column in zip(*self.coefficients, strict=True)]
        return c[0], c[1], c[2]


def fit_step(target: Tensor, features: Sequence[Tensor]) -> tuple[list[float], float]:
    """Ordinary least squares in float64, of least norm where the features are not independent.

    Args:
        target: What is to be predicted, with shape ``(n, d)``.
        features: From what, each with shape ``(n, d)``.

    Returns:
        A coefficient for each feature, and the relative error.
    """
    a, b = torch.stack([f.double().flatten() for f in features], 1), target.double().flatten()
    found = torch.linalg.lstsq(a, b[:, None], rcond=1e-10, driver="gelsd").solution[:, 0]
    return found.tolist(), float((a @ found - b).norm() / b.norm())


def signature(main: Field, uncond: Field, device: torch.device) -> tuple[float, ...]:
    """Both fields' denoised values at two fixed points of the noise level 0.3: what tells them from other fields.

    Args:
        main: The conditional field.
        uncond: The unconditional field.
        device: Where they are.
    """
    x = torch.stack([torch.zeros(main.dim), torch.linspace(0.4, -0.3, main.dim)]).to(device)
    found = torch.cat([f.denoise(x, 0.3).flatten() for f in (main, uncond)])
    return tuple(float(f"{value:.7g}") for value in found.tolist())


def fits_of(data: Dataset) -> tuple[LinearFit, ...]:
    """All that a dataset's folder has.

    Raises:
        InputError: If its file is not one that toyguide wrote.
    """
    path = data.folder / _FILE
    return _read(path, path.stat().st_mtime_ns) if path.is_file() else ()


def find_fit(data: Dataset, label: str | None, main: Field, uncond: Field, device: torch.device) -> LinearFit:
    """The entry for a class and two fields on a device.

    Raises:
        InputError: If there is none.
    """
    mine = [fit for fit in fits_of(data) if fit.label == label]
    if mine:
        wanted = signature(main, uncond, device)
        for fit in mine:
            if len(fit.signature) == len(wanted) and np.allclose(fit.signature, wanted, rtol=0, atol=_CLOSE):
                return fit
    of = "" if label is None else f" --label {label}"
    raise InputError(
        f"linear-ag: no coefficients were fitted to these fields; expected those of "
        f"'toyguide fit-linear-ag --dataset {data.name}{of} --main FIELD --uncond FIELD'"
    )


def write_fit(data: Dataset, fit: LinearFit) -> Path:
    """Put an entry into the dataset's file, in place of one for the same class and references.

    Raises:
        InputError: If the file cannot be written, or is not one that toyguide wrote.
    """
    new = (fit.label, fit.main, fit.uncond)
    others = [old for old in fits_of(data) if (old.label, old.main, old.uncond) != new]
    ordered = sorted([*others, fit], key=lambda f: (f.label or "", f.main, f.uncond))
    lines = ",\n".join(json.dumps(asdict(entry)) for entry in ordered)
    path = data.folder / _FILE
    with writing(path) as temporary:
        temporary.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    return path


@lru_cache(maxsize=32)
def _read(path: Path, changed: int) -> tuple[LinearFit, ...]:
    try:
        return tuple(_entry(values) for values in json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as problem:
        said = " ".join(str(problem).split())
        raise InputError(f"{path}: not a file of linear-ag coefficients written by toyguide ({said})") from problem


def _entry(values: Any) -> LinearFit:
    lists = {name: tuple(float(v) for v in values[name]) for name in ("signature", "levels", "errors")}
    rows = [tuple(float(c) for c in row) for row in values["coefficients"]]
    fit = LinearFit(**{**values, **lists, "coefficients": tuple((a, b, c) for a, b, c in rows)})
    numbers = [*fit.signature, *fit.levels, *(c for row in rows for c in row)]
    falling = all(a > b for a, b in zip(fit.levels, fit.levels[1:], strict=False)) and min(fit.levels) > 0
    if not (falling and len(fit.levels) == len(rows) and all(map(math.isfinite, numbers))):
        raise ValueError("expected finite numbers at falling levels")
    return fit
