"""Shared by the tests of studies: a small plan, a workshop without training, single runs, and made-up rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from toyguide.experiment import Experiment
from toyguide.studies import Plan, study
from toyguide.studies.rows import Rows
from toyguide.studies.workshop import Workshop


class SmallPlan(Plan):
    """A quick plan with few trajectories."""

    n = 128


class ExactShop(Workshop):
    """A workshop whose networks need no training: small and short ones see the exact field at 20 % more noise, others
    are exact. Where a field is given, every network is that field."""

    def __init__(self, folder, field=None, n=128):
        plan = SmallPlan(quick=True, seeds=1, device="cpu", first_seed=0)
        object.__setattr__(plan, "n", n)
        super().__init__(plan, folder)
        self.field = field

    def network(self, settings, sigma_rel=None):
        return self.field

    def located(self, experiment):
        return replace(experiment, fields={role: self.exact(name) for role, name in experiment.fields.items()})

    @staticmethod
    def exact(name):
        if not name.startswith("networks/"):
            return name
        return "exact+noise:0.2" if "-w32-" in name or "-i128-" in name else "exact"


def measured(name: str, shop: Workshop, **key) -> dict[str, float]:
    """What the one cell of a study's first seed with these values measures."""
    wanted = {"seed": 0, **key}
    (cell,) = [c for c in study(name).cells(shop.plan) if all(c.key.get(k) == v for k, v in wanted.items())]
    if not isinstance(cell.run, Experiment):
        return dict(cell.run(shop, **cell.key))
    return dict(study(name).columns(metrics(shop.located(cell.run), *cell.metrics)))


def metrics(experiment: Experiment, *names: str) -> dict[str, float]:
    """The metrics of a run alone; all without names."""
    found = experiment.run("cpu").metrics(resamples=0)
    return {k: v for k, v in found.items() if v is not None and (k in names or not names)}


def rows_like(name: str, numbers, seeds: int = 5) -> Rows:
    """A study's rows with made-up numbers: a function of the key and of standard normal noise, one value a seed."""
    noise = np.random.default_rng(0).normal(0, 1, seeds)
    cells = study(name).cells(Plan(quick=True, seeds=seeds, first_seed=0))
    return Rows({**c.key, **numbers(dict(c.key), noise[int(c.key["seed"])])} for c in cells)


def values(name: str, rows: Rows) -> dict[str, list[float]]:
    """The effect of each criterion, one value for each seed."""
    return {c.name: list(c.effect(rows)) for c in study(name).criteria}
