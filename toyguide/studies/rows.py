"""The rows of a study's runs, and intervals over their seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Interval", "Rows", "at_best", "interval"]


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and its 95 % confidence interval.

    Attributes:
        mean: The mean.
        low: The lower end; the mean for a single value, which has no interval.
        high: The upper end.
        count: The number of values.
    """

    mean: float
    low: float
    high: float
    count: int


def interval(values: Iterable[float]) -> Interval:
    """Student's t interval of independent values; NaN if one of them is.

    ``mean ± t(0.975, k - 1) s / sqrt(k)`` for k values with standard deviation s: exact for normal values, and
    the usual approximation for means over samples.
    """
    from scipy.stats import t

    found = np.asarray(list(values), dtype=float)
    mean = float(found.mean()) if len(found) else math.nan
    if len(found) < 2:
        return Interval(mean, mean, mean, len(found))
    half = float(t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / math.sqrt(len(found)))
    return Interval(mean, mean - half, mean + half, len(found))


class Rows(Sequence[Mapping[str, Any]]):
    """Rows in the order of the study's cells, each with the key and the columns of one run."""

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self._rows = list(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return self._rows[index]

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self._rows)

    def where(self, **key: Any) -> Rows:
        """The rows with these values; numbers are compared up to rounding.

        Raises:
            LookupError: If there is none.
        """
        found = [row for row in self._rows if all(_equal(row.get(k), v) for k, v in key.items())]
        if not found:
            raise LookupError(f"no row with {key}")
        return Rows(found)

    def values(self, column: str) -> list[Any]:
        """The distinct values of a column, in order of appearance."""
        return list(dict.fromkeys(row[column] for row in self._rows if column in row))

    def per_seed(self, column: str | Callable[[Mapping[str, Any]], float], **key: Any) -> list[float]:
        """A column, or a function of a row, for each seed in order: its mean over the seed's rows with these values."""
        read = column if callable(column) else lambda row: float(row[column])
        found = self.where(**key)
        return [float(np.mean([read(row) for row in found.where(seed=seed)])) for seed in sorted(found.values("seed"))]

    def over_seeds(self, column: str | Callable[[Mapping[str, Any]], float], **key: Any) -> Interval:
        """The interval of ``per_seed`` over the seeds."""
        return interval(self.per_seed(column, **key))

    def difference(self, column: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> list[float]:
        """``first - second`` of a column, paired by seed."""
        pairs = zip(self.per_seed(column, **first), self.per_seed(column, **second), strict=True)
        return [a - b for a, b in pairs]


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, int | float) and isinstance(b, int | float):
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)
    return bool(a == b)


def at_best(values: Mapping[Any, Sequence[float]]) -> list[float]:
    """For each seed, its value at the setting that is best for the other seeds: the one with the least mean.

    A seed has no part in the choice of its own setting (unless there is only one seed), so the least of many noisy
    numbers does not pass for an effect.

    Args:
        values: By setting, one value for each seed.
    """
    table = np.asarray(list(values.values()), dtype=float)  # (settings, seeds)
    seeds = table.shape[1]
    chosen = []
    for seed in range(seeds):
        others = [s for s in range(seeds) if s != seed] or [seed]
        chosen.append(float(table[table[:, others].mean(1).argmin(), seed]))
    return chosen
