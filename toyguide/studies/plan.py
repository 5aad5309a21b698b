"""How much of a study is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan:
    """How much is run.

    Attributes:
        quick: Whether to take a quick look: fewer seeds and samples, shorter trainings.
        seeds: How many seeds of training and sampling, ``0 … seeds - 1``.
        device: ``auto``, ``cpu`` or ``cuda``.
    """

    quick: bool = False
    seeds: int = 5
    device: str = "auto"

    @property
    def n(self) -> int:
        """Trajectories in a run."""
        return 1024 if self.quick else 4096

    def pick(self, full: Any, quick: Any) -> Any:
        """One of two settings, by whether this is a quick look."""
        return quick if self.quick else full
