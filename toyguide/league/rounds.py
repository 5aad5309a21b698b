"""The two rounds of a league as studies without a claim, so that a study's machinery trains, runs and keeps them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toyguide.errors import InputError
from toyguide.experiment import Experiment
from toyguide.league.aims import AIMS
from toyguide.league.arenas import ARENAS, EVALUATIONS, STEPS, Entrant
from toyguide.league.settings import design, params_of, text_of, weight_at, weight_of
from toyguide.metrics.sliced import distance_between
from toyguide.metrics.to_target import exact_stand_ins
from toyguide.studies.base import Cell, Study
from toyguide.studies.plan import Plan
from toyguide.studies.rows import Rows
from toyguide.studies.workshop import Workshop
from toyguide.targets import samples_of

__all__ = ["CHOSEN_FOR", "LADDER", "Final", "Params", "Tuning", "chosen", "ladder", "time_of", "to_target"]

Params = Mapping[str, Any]
"""Values of a rule's parameters that are not its defaults."""

METRICS = ("outliers", "coverage", "class_leak", "sliced_w2", "strays_10", "nfe", "gradients")
CHOSEN_FOR = ("outliers", "distance")
"""The aims that the first round chooses settings for."""
LADDER = (0.0, 0.05, 0.12, 0.25, 0.5, 1.0)
"""Shares of the way from no guidance to the end of the weight's slider."""
_TARGET_SAMPLES = 1 << 14
_SECONDS = 0.1 / 64  # of a run on two cores, for each evaluation; for the progress bar


class _Round(Study):
    """Runs of entrants with a few settings each."""

    def __init__(self, settings: Mapping[Entrant, Sequence[tuple[Params, int]]]) -> None:
        self.settings = settings

    def cells(self, plan: Plan) -> list[Cell]:
        return [
            Cell(
                _key(entrant, params, steps, seed),
                entrant.experiment(params, steps, plan, seed),
                METRICS,
                entrant.needs(plan, seed),
                entrant.evaluations * _SECONDS,
            )
            for seed in plan.seed_range
            for entrant, several in self.settings.items()
            for params, steps in several
        ]


class Tuning(_Round):
    """The first round: equally many settings of every rule.

    Args:
        entrants: The rules.
        budget: How many settings.
    """

    name = "league-tuning"
    title = "Settings for the league"

    def __init__(self, entrants: Iterable[Entrant], budget: int) -> None:
        super().__init__({e: [(params, e.steps) for params in design(e.cls, budget)] for e in entrants})


class Final(_Round):
    """The second round: what was chosen, the defaults, a ladder of weights, and a run with equal evaluations.

    Args:
        picks: For each entrant the setting that was chosen for each aim of ``CHOSEN_FOR``.
    """

    name = "league"
    title = "The league"

    def __init__(self, picks: Mapping[Entrant, Mapping[str, Params]]) -> None:
        super().__init__({e: _runs(e, by_aim) for e, by_aim in picks.items()})
        self.picks = picks

    def cells(self, plan: Plan) -> list[Cell]:
        found = super().cells(plan)
        for e, by_aim in self.picks.items():
            best = by_aim[e.arena.aim]
            has_target = e.cls(**best).target() is not None
            for seed in plan.seed_range:
                key, needs = _key(e, best, e.steps, seed), e.needs(plan, seed)
                if has_target:
                    found.append(Cell({**key, "measured": "target"}, to_target, needs=needs))
                if seed == plan.first_seed:
                    found.append(Cell({**key, "measured": "time"}, time_of, needs=needs, timed=True))
        return found


def to_target(workshop: Workshop, measured: str, seed: int, **key: Any) -> dict[str, float]:
    """How far a run ends from what its rule is said to sample; nothing where that density does not exist."""
    try:
        drawn = _target_samples(workshop.plan, workshop.networks, **key)
    except InputError:
        return {}
    x = workshop.run(_experiment(workshop.plan, seed=seed, **key)).x[-1].double()
    return {"target_w2": distance_between(x, drawn)} if x.isfinite().all() else {}


def time_of(workshop: Workshop, measured: str, **key: Any) -> dict[str, float]:
    """How long a run takes, in units of the unguided one's beside it; the shortest of three each."""
    guided = workshop.located(_experiment(workshop.plan, **key))
    free = workshop.located(
        _experiment(workshop.plan, **{**key, "rule": "none", "setting": "", "sampler": "heun", "steps": STEPS})
    )
    pairs = [[run.run(workshop.plan.device).seconds for run in (guided, free)] for _ in range(3)]
    mine, other = map(min, zip(*pairs, strict=True))
    return {"time": mine / other}


def _experiment(plan: Plan, arena: str, rule: str, setting: str, sampler: str, steps: int, seed: int) -> Experiment:
    place = next(a for a in ARENAS if a.name == arena)
    return Entrant(place, rule, sampler, steps, EVALUATIONS).experiment(params_of(setting), steps, plan, seed)


@lru_cache(maxsize=64)
def _target_samples(plan: Plan, networks: Path, **key: Any) -> Tensor:
    # Any seed will do: the exact fields that stand in for networks are the same.
    run = Workshop(plan, networks).located(_experiment(plan, seed=plan.first_seed, **key))
    target = run.build_rule().target()
    assert target is not None, f"{run.rule}: has no target"
    fields = exact_stand_ins(run.build_fields(), run.data)
    return samples_of(target, fields, _TARGET_SAMPLES, torch.Generator().manual_seed(0))[0]


def ladder(entrant: Entrant, params: Params) -> list[Params]:
    """The settings of a ladder of weights through a setting; without a weight there is nothing to climb."""
    weight = weight_of(entrant.cls)
    if weight is None:
        return []
    return [{**params, weight: weight_at(entrant.cls, share)} for share in LADDER]


def chosen(rows: Rows, entrant: Entrant, budget: int, aim: str) -> Params:
    """The setting of the first round that is best for an aim, by its mean loss over the seeds.

    Args:
        rows: The entrant's rows.
        entrant: The rule.
        budget: How many settings were tried.
        aim: One of ``AIMS``.
    """

    def loss(params: Params) -> float:
        own = rows.where(setting=text_of(params))
        return sum(AIMS[aim].of(row) for row in own) / len(own)

    return min(design(entrant.cls, budget), key=loss)


def _runs(e: Entrant, by_aim: Mapping[str, Params]) -> list[tuple[Params, int]]:
    best = by_aim[e.arena.aim]
    several = [({}, e.steps), *((by_aim[aim], e.steps) for aim in CHOSEN_FOR)]
    several += [(params, e.steps) for params in ladder(e, best)]
    several.append((best, e.equal_steps))
    return list({(text_of(params), steps): (params, steps) for params, steps in several}.values())


def _key(e: Entrant, params: Params, steps: int, seed: int) -> dict[str, str | int | float]:
    own = {"arena": e.arena.name, "rule": e.rule, "setting": text_of(params), "sampler": e.sampler}
    return {**own, "steps": steps, "seed": seed}
