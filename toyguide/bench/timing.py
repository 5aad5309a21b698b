"""Timing functions in alternation, so that a machine that drifts affects all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Spread", "alternate", "pairwise_ratio", "seconds_per_call"]

_TURN = 0.1  # seconds that a function is called for before it is the next one's turn
_FEWEST, _MOST = 3, 15  # turns
_ENOUGH = 8.0  # seconds after which there are no more turns than the fewest

Clock = Callable[[], float]


@dataclass(frozen=True)
class Spread:
    """The middle and the ends of some values."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))


def alternate(functions: Sequence[Callable[[], Any]], clock: Clock = time.perf_counter) -> list[list[float]]:
    """Time functions in turn, A B A B …, after a turn of each that does not count.

    Args:
        functions: What to call; each returns when its work is done, on a GPU too.
        clock: Seconds.

    Returns:
        For each function its turns, in seconds per call. Turns i of all functions are neighbours in time.
    """
    for function in functions:
        seconds_per_call(function, clock)
    turns: list[list[float]] = [[] for _ in functions]
    began = clock()
    while len(turns[0]) < _FEWEST or (len(turns[0]) < _MOST and clock() - began < _ENOUGH):
        for function, own in zip(functions, turns, strict=True):
            own.append(seconds_per_call(function, clock))
    return turns


def seconds_per_call(function: Callable[[], Any], clock: Clock = time.perf_counter) -> float:
    """The mean over one turn: as many calls as it takes to fill it, at least one."""
    calls, began = 0, clock()
    while True:
        function()
        calls += 1
        spent = clock() - began
        if spent >= _TURN:
            return spent / calls


def pairwise_ratio(slow: Sequence[float], fast: Sequence[float]) -> Spread:
    """The ratio of each turn of the slow function to the neighbouring turn of the fast one."""
    return Spread.of([s / f for s, f in zip(slow, fast, strict=True)])
