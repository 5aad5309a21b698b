"""Running a league: the first round, the choice, the second round."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path

from toyguide.league.arenas import Arena, Entrant, entrants
from toyguide.league.rounds import CHOSEN_FOR, Final, Params, Tuning, chosen
from toyguide.studies.plan import SEEDS, Plan
from toyguide.studies.rows import Rows
from toyguide.studies.run import Tell, run_study

__all__ = ["League", "run_league"]

_BUDGET = {False: 12, True: 4}
"""Settings of each rule in the first round: in full, and in a quick look (True)."""
_TUNING_SEEDS = {False: 2, True: 1}


@dataclass(frozen=True)
class League:
    """What a league measured.

    Attributes:
        plan: How much was run in the second round.
        budget: How many settings of each rule the first round tried.
        tuning_seeds: On how many seeds.
        equal_evaluations: Whether the steps were adapted so that all rules have about equal evaluations.
        picks: For each entrant the chosen setting by aim.
        absent: The reason, by arena and rule, of each that does not run.
        tuning: The rows of the first round.
        rows: Those of the second.
    """

    plan: Plan
    budget: int
    tuning_seeds: int
    equal_evaluations: bool
    picks: Mapping[Entrant, Mapping[str, Params]]
    absent: Mapping[tuple[str, str], str]
    tuning: Rows
    rows: Rows

    def rows_of(self) -> dict[tuple[str, str], Rows]:
        """The rows of the second round by arena and rule."""
        return _grouped(self.rows)


def run_league(
    arenas: Sequence[Arena],
    keys: Iterable[str],
    output: Path,
    *,
    quick: bool = False,
    device: str = "auto",
    equal_evaluations: bool = False,
    tell: Tell = lambda progress: None,
    executor: Executor | None = None,
    networks: Path | None = None,
) -> League:
    """Run what is missing of a league. Finished runs in ``output`` are kept and not repeated.

    Args:
        arenas: Where.
        keys: The rules' names.
        output: The folder of the rounds' journals, and of the networks.
        quick: Take a quick look: fewer settings, seeds and samples, shorter trainings.
        device: ``auto``, ``cpu`` or ``cuda``.
        equal_evaluations: Adapt the steps so that all rules have about equal evaluations.
        tell: Receives the progress of each round.
        executor: Trains and measures; None for this process.
        networks: Another folder of networks than that in ``output``.

    Raises:
        InputError: If a folder cannot be written, or a field does not exist.
        BrokenExecutor: If a worker died, and the executor does not start another one.
    """
    budget = _BUDGET[quick]
    running, absent = entrants(arenas, keys, equal_evaluations)
    first = Plan(quick, _TUNING_SEEDS[quick], device, first_seed=0)
    tuning = run_study(Tuning(running, budget), first, output, tell, executor, networks).rows
    by_entrant = _grouped(tuning)
    picks = {e: {aim: chosen(by_entrant[e.arena.name, e.rule], e, budget, aim) for aim in CHOSEN_FOR} for e in running}
    plan = replace(first, seeds=SEEDS[quick], first_seed=Plan.first_seed)
    rows = run_study(Final(picks), plan, output, tell, executor, networks).rows
    return League(plan, budget, first.seeds, equal_evaluations, picks, absent, tuning, rows)


def _grouped(rows: Rows) -> dict[tuple[str, str], Rows]:
    groups = defaultdict(list)
    for row in rows:
        groups[row["arena"], row["rule"]].append(row)
    return {place: Rows(found) for place, found in groups.items()}
