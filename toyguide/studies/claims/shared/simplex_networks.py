"""Networks of the 16-simplex, as the studies of saddle-free guidance train them: once for each seed, of the union."""

from __future__ import annotations

from toyguide.experiment import Experiment
from toyguide.studies.plan import Plan
from toyguide.studies.workshop import trained
from toyguide.training import TrainSettings

__all__ = ["experiment", "main", "networks", "weak"]

_BATCH = 1024


def main(plan: Plan, seed: int) -> TrainSettings:
    """All vertices, width 64, 1024 iterations (half in a quick look): so short that guidance has something to mend."""
    return TrainSettings("simplex16", None, width=64, iterations=plan.pick(1024, 512), batch=_BATCH, seed=seed)


def weak(plan: Plan, seed: int) -> TrainSettings:
    """All vertices, half the width, 128 iterations: what autoguidance guides away from."""
    return TrainSettings("simplex16", None, width=32, iterations=128, batch=_BATCH, seed=seed)


def networks(plan: Plan, seed: int) -> tuple[TrainSettings, ...]:
    """Both."""
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
