"""What a typed rule costs, as a multiple of the built-in rule that it equals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from toyguide.bench.cases import Aim, sampling
from toyguide.bench.timing import Spread, alternate, pairwise_ratio
from toyguide.experiment import Experiment

__all__ = ["typed"]

_RULES: dict[str, dict[str, Any]] = {
    "formula": {"expression": "w = 3 [0, 10]; D_main + (w - 1) * (D_main - D_uncond)"},
    "cfg": {"w": 3.0},
}

Completed = Callable[[Callable[[], Any]], Callable[[], Any]]


def typed(device: torch.device, done: Completed) -> list[tuple[str, Spread, Aim]]:
    """The time of a run with CFG as a formula over that of the same run with the rule.

    Args:
        device: Where the tensors live.
        done: Wraps a function so that it returns only when the device has finished.

    Returns:
        A name, the ratio and what is to be reached: for many points, and for few, where a rule's own time counts.
    """
    found = []
    for n in (4096, 64):
        runs = [Experiment("two-gaussians", "left", "exact", rule=k, params=v, n=n) for k, v in _RULES.items()]
        formula, built_in = alternate([done(sampling(run, device)) for run in runs])
        name = f"CFG as a formula over the built-in rule, {n:,} points, {runs[0].steps} Heun steps, exact fields"
        found.append((name, pairwise_ratio(formula, built_in), Aim(at_most=1.3)))
    return found
