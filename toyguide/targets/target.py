"""What a rule is said to sample, written down: a product of powers of its fields' densities and of a log-reward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toyguide.fields.rewards import Reward

__all__ = ["Target"]


@dataclass(frozen=True, eq=False)
class Target:
    """The density ``q(x)`` proportional to ``prod_role p_role(x)^power e^{r(x)}``, at sigma = 0.

    ``Target({"main": w, "uncond": 1 - w})`` is what classifier-free guidance is said to sample.

    Attributes:
        powers: The power of each field's density, by role; a role with the power 0 does not count.
        reward: The log-reward r; None for none. Coordinates of the data beyond the reward's own are left alone.
    """

    powers: Mapping[str, float]
    reward: Reward | None = None

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles whose density counts."""
        return tuple(role for role, power in self.powers.items() if power != 0)

    def _key(self) -> Any:
        r = self.reward
        rewarded = None if r is None else (tuple(r.b.tolist()), tuple(r.P.flatten().tolist()))
        return tuple((role, self.powers[role]) for role in self.roles), rewarded

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Target) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())
