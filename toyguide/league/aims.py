"""What a setting may be chosen for: a number of its run, where less is better."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["AIMS", "COVERAGE", "Aim"]

COVERAGE = 0.8
"""The coverage that rules are compared at: what a run must keep of the class's branches."""


@dataclass(frozen=True)
class Aim:
    """An aim.

    Attributes:
        doc: What is wanted, in a few words.
        loss: The number of a run's metrics that is to be small.
        matched: Whether the coverage must be kept.
    """

    doc: str
    loss: Callable[[Mapping[str, Any]], float]
    matched: bool

    def of(self, metrics: Mapping[str, Any], at_coverage: float = COVERAGE) -> float:
        """The loss of a run.

        Where the coverage must be kept and is not, it is 1 and what is missing of the coverage, more than any share of
        samples; where nothing finite is left, infinite.

        Args:
            metrics: The run's metrics.
            at_coverage: The coverage to keep.
        """
        missing = at_coverage - metrics["coverage"]
        if self.matched and missing > 0:
            return 1.0 + missing
        loss = self.loss(metrics)
        return loss if math.isfinite(loss) else math.inf


def _number(name: str) -> Callable[[Mapping[str, Any]], float]:
    def read(metrics: Mapping[str, Any]) -> float:
        value = metrics.get(name)
        return math.inf if value is None else float(value)

    return read


AIMS = {
    "outliers": Aim("the fewest outliers among settings that keep the coverage", _number("outliers"), True),
    "distance": Aim("the least sliced Wasserstein distance to the exact distribution", _number("sliced_w2"), False),
    "class": Aim("the fewest samples in another class, with the coverage kept", _number("class_leak"), True),
    "coverage": Aim("the highest coverage", lambda metrics: 1.0 - metrics["coverage"], False),
}
"""The aims by name."""
