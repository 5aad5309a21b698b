"""Final samples and experiments as the contents of files that other programs read.

Runs stand for panels, which are called A, B, C and so on. The samples' table has one row for each sample:

    panel      the run
    x0, x1, …  the final point
    outlier    whether it lies outside the exact 99 % region of the class that was sampled, or is not finite
    label      the class that is likeliest there by the exact posterior; empty if the point is not finite
    branch     the branch that is likeliest there, by number; -1 if the point is not finite
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from string import ascii_uppercase
from typing import Any

import numpy as np
import torch
from torch import Tensor

from toyguide.datasets import Dataset
from toyguide.errors import InputError
from toyguide.experiment import Experiment, Result
from toyguide.metrics import are_outliers

__all__ = ["experiments_json", "samples_csv", "samples_npz"]

_BLOCK = 1 << 12  # samples whose responsibilities are computed at once


def samples_csv(results: Sequence[Result]) -> str:
    """The table of the final samples as CSV, with a header; numbers are exact.

    Raises:
        InputError: If there are no runs, or they are of several dimensions.
    """
    table = _table(results)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["panel", *(f"x{i}" for i in range(table["x"].shape[1])), "outlier", "label", "branch"])
    for panel, x, outlier, label, branch in zip(*table.values(), strict=True):
        writer.writerow([panel, *(str(v) for v in x), int(outlier), label, branch])
    return text.getvalue()


def samples_npz(results: Sequence[Result]) -> bytes:
    """The table as an ``.npz`` with the arrays ``panel``, ``x`` (float32, with shape ``(N, d)``), ``outlier``,
    ``label`` and ``branch``, and the string ``experiments``, see :func:`experiments_json`.

    Raises:
        InputError: If there are no runs, they are of several dimensions, or a field is a Python object.
    """
    table = _table(results)
    file = io.BytesIO()
    experiments = np.array(experiments_json([result.experiment for result in results]))
    np.savez_compressed(file, **table, experiments=experiments)
    return file.getvalue()


def experiments_json(experiments: Sequence[Experiment]) -> str:
    """A JSON object with the settings of each experiment by panel; ``Experiment(**settings)`` makes it again.

    Raises:
        InputError: If a field of an experiment is a Python object and not a reference.
    """
    named = zip(ascii_uppercase, experiments, strict=False)
    return json.dumps({panel: experiment.settings() for panel, experiment in named}, indent=2) + "\n"


def _table(results: Sequence[Result]) -> dict[str, Any]:
    """The columns, each an array with one row for each sample."""
    dims = {result.experiment.data.dim for result in results}
    if len(dims) != 1:
        raise InputError(f"{len(results)} runs in {len(dims)} dimensions: expected some, of as many dimensions each")
    parts = [_columns(panel, result) for panel, result in zip(ascii_uppercase, results, strict=False)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _columns(panel: str, result: Result) -> dict[str, Any]:
    x, data = result.x[-1], result.experiment.data
    label, branch = _likeliest(x, data)
    names = np.array([*data.labels, ""])  # -1 is the last
    return {
        "panel": np.full(len(x), panel),
        "x": x.numpy(),
        "outlier": are_outliers(x, data, result.experiment.label).numpy(),
        "label": names[label.numpy()],
        "branch": branch.numpy(),
    }


def _likeliest(x: Tensor, data: Dataset) -> tuple[Tensor, Tensor]:
    """The likeliest class and branch at points (n, d), with shape ``(n,)``; -1 where a point is not finite."""
    parts = data.components
    found = torch.full((2, len(x)), -1)
    for rows in x.isfinite().all(-1).nonzero()[:, 0].split(_BLOCK):
        shares = parts.mixture.responsibilities(x[rows], 0.0)
        for kind, index in enumerate((parts.component_label, parts.component_branch)):
            summed = shares.new_zeros(len(rows), int(index.max()) + 1).index_add_(-1, index, shares)
            found[kind, rows] = summed.argmax(-1)
    return found[0], found[1]
