"""Rules compared where they cover as much of a class, so that weaker guidance does not pass for better guidance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from toyguide.studies.rows import Rows

__all__ = ["at_coverage"]


def at_coverage(
    rows: Rows,
    column: str | Callable[[Mapping[str, Any]], float],
    settings: Sequence[Mapping[str, Any]],
    wanted: Sequence[float],
) -> list[float]:
    """A column at the setting with a given coverage, for each seed.

    Linear between the two settings next to that coverage; that of the outermost setting beyond all of them.

    Args:
        rows: The rows, with a column ``coverage``.
        column: The column, or a function of a row.
        settings: Keys of rows, such as those of one rule at several weights.
        wanted: The coverage for each seed.
    """
    coverage, values = (np.array([rows.per_seed(c, **key) for key in settings]) for c in ("coverage", column))
    found = []
    for seed, target in enumerate(wanted):
        rising = coverage[:, seed].argsort()
        found.append(float(np.interp(target, coverage[rising, seed], values[rising, seed])))
    return found
