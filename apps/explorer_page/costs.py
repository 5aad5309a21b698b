"""What a rule's step costs, counted on a short run over small random mixtures."""

from __future__ import annotations

from functools import lru_cache

from toyguide.contract import fields_for, points, run
from toyguide.guidance import Rule

__all__ = ["cost_of"]

_POINTS = 8


@lru_cache(maxsize=256)
def cost_of(cls: type[Rule]) -> str:
    """The evaluations of fields in one step of a first-order sampler, with the rule's defaults, in words.

    Takes some milliseconds, and a few rules up to seconds; empty for a rule that cannot run by itself.
    """
    chosen = cls()
    try:
        steps = run(chosen, fields_for(cls), points()[:_POINTS], method="ancestral" if chosen.needs_noise else "euler")
    except Exception:  # a rule of a visitor's own, which is told where it is run
        return ""
    evaluations, gradients = (total / (len(steps) - 1) for total in (steps[-1].nfe, steps[-1].cost.gradients))
    words = f"{evaluations:.2g} evaluation{'' if evaluations == 1 else 's'}"
    return f"{words}, {gradients:.2g} gradient{'' if gradients == 1 else 's'}" if gradients else words
