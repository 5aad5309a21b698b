"""The networks of the autoguidance paper's toy example, trained once for each seed."""

from __future__ import annotations

from dataclasses import replace

from toyguide.experiment import Experiment
from toyguide.studies.plan import Plan
from toyguide.studies.workshop import trained
from toyguide.training import TrainSettings

__all__ = ["AVERAGES", "experiment", "main", "networks", "uncond", "weak", "weak_ensemble"]

AVERAGES = (0.010, 0.050, 0.100)  # sigma_rel; the first is the paper's, one study compares them
_SHORT = 512  # iterations of the guiding networks in the paper


def main(plan: Plan, seed: int) -> TrainSettings:
    """Class A, width 64, 4096 iterations (a quarter in a quick look)."""
    return TrainSettings("fractal", "A", width=64, iterations=plan.pick(4096, 1024), ema=AVERAGES, seed=seed)


def weak(plan: Plan, seed: int) -> TrainSettings:
    """Class A, width 32, 512 iterations: the weak network of autoguidance."""
    return TrainSettings("fractal", "A", width=32, iterations=_SHORT, seed=seed)


def uncond(plan: Plan, seed: int) -> TrainSettings:
    """Both classes, width 32, 512 iterations: the unconditional network of CFG."""
    return TrainSettings("fractal", None, width=32, iterations=_SHORT, seed=seed)


def weak_ensemble(plan: Plan, seed: int, count: int) -> tuple[TrainSettings, ...]:
    """Weak networks that differ in nothing but their seeds, ``seed + 1000 k``; the first is the weak network itself."""
    own = weak(plan, seed)
    return tuple(replace(own, seed=seed + 1000 * k) for k in range(count))


def networks(plan: Plan, seed: int) -> tuple[TrainSettings, ...]:
    """All three networks."""
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
