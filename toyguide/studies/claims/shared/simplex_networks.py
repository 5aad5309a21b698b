"""Networks of the union of the 16-simplex for the studies of saddle-free guidance, trained once for each seed."""

from __future__ import annotations

from toyguide.experiment import Experiment
from toyguide.studies.plan import Plan
from toyguide.studies.workshop import trained
from toyguide.training import TrainSettings

__all__ = ["experiment", "main", "networks", "weak"]

_BATCH = 1024


def main(plan: Plan, seed: int) -> TrainSettings:
    """All vertices, width 64, 1024 iterations (half in a quick look): short enough to leave errors to correct."""
    return TrainSettings("simplex16", None, width=64, iterations=plan.pick(1024, 512), batch=_BATCH, seed=seed)


def weak(plan: Plan, seed: int) -> TrainSettings:
    """All vertices, half the width, 128 iterations: the weak network of autoguidance."""
    return TrainSettings("simplex16", None, width=32, iterations=128, batch=_BATCH, seed=seed)


def networks(plan: Plan, seed: int) -> tuple[TrainSettings, ...]:
    """Both networks."""
    return main(plan, seed), weak(plan, seed)


def experiment(plan: Plan, seed: int, **settings: object) -> Experiment:
    """A run of the union with the two networks of a seed, which is the run's seed too.

    Args:
        plan: How much is run.
        seed: The seed.
        **settings: Other settings of the experiment.
    """
    m, w = map(trained, networks(plan, seed))
    given = {"dataset": "simplex16", "main": m, "weak": w, "n": plan.n, "seed": seed}
    return Experiment(**{**given, **settings})  # type: ignore[arg-type]
