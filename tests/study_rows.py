"""What the tests of several studies share: small plans, rows made by hand, and what a study makes of them."""

from __future__ import annotations

import numpy as np

from toyguide.studies import Plan, study
from toyguide.studies.base import Cell
from toyguide.studies.rows import Rows
from toyguide.studies.workshop import Workshop


class SmallPlan(Plan):
    """A quick plan with few trajectories."""

    n = 128


def cell_of(name: str, shop: Workshop, **key) -> Cell:
    """The one cell of a study's first seed with these values."""
    found = [c for c in study(name).cells(shop.plan) if all(c.key.get(k) == v for k, v in key.items())]
    assert len(found) == 1
    return found[0]


def rows_like(name: str, numbers, seeds: int = 5) -> Rows:
    """A study's rows with numbers of one's own: a function of the key and a little noise, the same for a seed."""
    noise = np.random.default_rng(0).normal(0, 1, seeds)
    cells = study(name).cells(Plan(quick=True, seeds=seeds))
    return Rows({**c.key, **numbers(dict(c.key), noise[int(c.key["seed"])])} for c in cells)


def verdicts(name: str, rows: Rows) -> dict[str, str]:
    return {c.name: c.judge(rows).verdict for c in study(name).criteria}


def values(name: str, rows: Rows) -> dict[str, list[float]]:
    return {c.name: list(c.effect(rows)) for c in study(name).criteria}
