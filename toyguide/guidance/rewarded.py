"""Rules with a reward: how a rule's parameters name it."""

from __future__ import annotations

from typing import Any

import param
import torch

from toyguide.fields.rewards import Reward
from toyguide.guidance.base import Rule

__all__ = ["Rewarded"]


class Rewarded(Rule):
    """A rule with a quadratic log-reward of the clean points, placed in their first two coordinates.

    ``linear`` is ``r(x) = y . x``; ``near`` is ``r(x) = -|x - y|^2 / 2`` over the first two coordinates. What a rule
    does to the density is ``p e^{r/alpha}`` or ``p e^{lam r}``, as its own parameter says.
    """

    reward: Any = param.Selector(
        default="linear",
        objects=["linear", "near"],
        doc="The reward: linear in x, y giving direction and slope; or nearness to y, -|x - y|²/2.",
    )
    y0 = param.Number(1.0, bounds=(-100.0, 100.0), softbounds=(-3.0, 3.0), step=0.1, doc="First coordinate of y.")
    y1 = param.Number(0.0, bounds=(-100.0, 100.0), softbounds=(-3.0, 3.0), step=0.1, doc="Second coordinate of y.")

    def reward_of(self, dim: int) -> Reward:
        """The reward in so many dimensions, two or more."""
        y = torch.zeros(dim, dtype=torch.float64)
        y[:2] = torch.tensor([self.y0, self.y1], dtype=torch.float64)[:dim]
        if self.reward == "linear":
            return Reward.linear(y)
        return Reward.near(y, torch.eye(dim, dtype=torch.float64)[:2])
