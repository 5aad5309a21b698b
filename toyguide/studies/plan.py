"""How much of a study is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["DEVELOPMENT", "SEEDS", "Plan"]

SEEDS = {False: 10, True: 3}
"""How many seeds by default: in full, and in a quick look (True)."""
DEVELOPMENT = 100
"""Seeds below this are for development and for bundled networks."""


@dataclass(frozen=True)
class Plan:
    """How much is run.

    Attributes:
        quick: Whether to take a quick look: fewer seeds and samples, shorter trainings.
        seeds: How many seeds of training and sampling.
        device: ``auto``, ``cpu`` or ``cuda``.
        first_seed: The first of the seeds; by default the first that nobody looked at while settling criteria.
    """

    quick: bool = False
    seeds: int = SEEDS[False]
    device: str = "auto"
    first_seed: int = DEVELOPMENT

    @property
    def seed_range(self) -> range:
        """The seeds, ``first_seed … first_seed + seeds - 1``."""
        return range(self.first_seed, self.first_seed + self.seeds)

    @property
    def n(self) -> int:
        """Trajectories in a run."""
        return 1024 if self.quick else 4096

    def pick(self, full: Any, quick: Any) -> Any:
        """One of two settings, by whether this is a quick look."""
        return quick if self.quick else full
