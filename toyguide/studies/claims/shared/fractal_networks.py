"""The networks of the autoguidance paper's toy, as the studies train them: once for each seed."""

from __future__ import annotations

from toyguide.experiment import Experiment
from toyguide.studies.plan import Plan
from toyguide.studies.workshop import trained
from toyguide.training import TrainSettings

__all__ = ["AVERAGES", "experiment", "main", "networks", "uncond", "weak"]

AVERAGES = (0.010, 0.050, 0.100)  # sigma_rel; the first is the paper's, one study compares them
_SHORT = 512  # iterations of the guiding networks, as in the paper


def main(plan: Plan, seed: int) -> TrainSettings:
    """Class A, width 64, 4096 iterations (a quarter in a quick look)."""
    return TrainSettings("fractal", "A", width=64, iterations=plan.pick(4096, 1024), ema=AVERAGES, seed=seed)


def weak(plan: Plan, seed: int) -> TrainSettings:
    """Class A, width 32, 512 iterations: what autoguidance guides away from."""
    return TrainSettings("fractal", "A", width=32, iterations=_SHORT, seed=seed)


def uncond(plan: Plan, seed: int) -> TrainSettings:
    """Both classes, width 32, 512 iterations: what CFG guides away from."""
    return TrainSettings("fractal", None, width=32, iterations=_SHORT, seed=seed)


def networks(plan: Plan, seed: int) -> tuple[TrainSettings, ...]:
    """All three."""
    return main(plan, seed), weak(plan, seed), uncond(plan, seed)


def experiment(plan: Plan, seed: int, **settings: object) -> Experiment:
    """A run of class A with the three networks of a seed, which is the run's seed too.

    Args:
        plan: How much is run.
        seed: The seed.
        **settings: Other settings of the experiment.
    """
    m, w, u = map(trained, networks(plan, seed))
    given = {"dataset": "fractal", "label": "A", "main": m, "weak": w, "uncond": u, "n": plan.n, "seed": seed}
    return Experiment(**{**given, **settings})  # type: ignore[arg-type]
