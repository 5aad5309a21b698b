"""What a league's rows say: a standing for each rule in each arena, with 95 % intervals over the seeds.

A number at a matched coverage is read off the ladder of weights: where the mean coverage over the seeds is the stated
one, between two weights by linear interpolation, or wherever it is higher if the outliers are fewer there. All seeds
are read at the same weight, so that no seed chooses for itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toyguide.league.aims import COVERAGE
from toyguide.league.arenas import ARENAS, Entrant, samples
from toyguide.league.rounds import LADDER, ladder
from toyguide.league.run import League
from toyguide.league.settings import text_of, weight_at, weight_of
from toyguide.studies.rows import Interval, Rows, interval

__all__ = [
    "COMPARED",
    "NUMBERS",
    "at_coverage",
    "beside",
    "differences",
    "front",
    "good_share",
    "place_of",
    "standings",
]

NUMBERS = {
    "outliers": "outliers",
    "coverage": "coverage",
    "matched_outliers": f"outliers at coverage {COVERAGE:g}",
    "equal_outliers": "outliers at equal evaluations",
    "accuracy": "in the class",
    "distance": "W2 to the truth",
    "target_distance": "W2 to its own target",
    "strays": "strays",
    "good_share": "good share of the slider",
    "evaluations": "evaluations",
    "gradients": "of them gradients",
    "time": "time",
    "default_outliers": "outliers, defaults",
    "default_distance": "W2, defaults",
}
"""The numbers of a standing with their titles."""
COMPARED = ("outliers", "coverage", "matched_outliers", "distance")
"""The numbers that are kept for each seed, so that rules can be compared seed by seed."""
_GRID = 1001  # places on a slider where a ladder is read

Array = NDArray[np.float64]


def at_coverage(coverage: Array, outliers: Array, level: float) -> tuple[float, list[float]] | None:
    """The fewest outliers of a ladder whose mean coverage is at least ``level``.

    Args:
        coverage: By seed and rung, with shape ``(seeds, rungs)``.
        outliers: The same of the outliers.
        level: The coverage.

    Returns:
        The place on the ladder, whole numbers being rungs, and each seed's outliers there, both by linear
        interpolation; None if the mean coverage is nowhere so high.
    """
    mean, rungs = coverage.mean(0), np.arange(coverage.shape[1])
    places = [float(j) for j in rungs if mean[j] >= level]
    places += [
        float(j + (level - mean[j]) / (mean[j + 1] - mean[j]))
        for j in rungs[:-1]
        if (mean[j] - level) * (mean[j + 1] - level) < 0
    ]
    if not places:
        return None
    read = {place: [float(np.interp(place, rungs, of)) for of in outliers] for place in places}
    best = min(places, key=lambda place: (float(np.mean(read[place])), place))
    return best, read[best]


def good_share(
    shares: Sequence[float], coverage: Array, outliers: Array, unguided: Sequence[float], level: float
) -> list[float]:
    """For each seed, the share of the weight's slider where outliers are fewer than unguided and the coverage is kept.

    Args:
        shares: Where on the slider the ladder's rungs are, from 0 to 1.
        coverage: By seed and rung, with shape ``(seeds, rungs)``; linear between the rungs.
        outliers: The same of the outliers.
        unguided: Each seed's unguided outliers.
        level: The coverage to keep.
    """
    grid = np.linspace(0.0, 1.0, _GRID)
    found = []
    for covered, out, least in zip(coverage, outliers, unguided, strict=True):
        good = (np.interp(grid, shares, out) < least) & (np.interp(grid, shares, covered) >= level)
        found.append(float(good.mean()))
    return found


def front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The names of points (x, y) that no other beats in both, more x and less y being better; by rising x."""

    def beaten(x: float, y: float) -> bool:
        return any(a >= x and b <= y and (a, b) != (x, y) for a, b in points.values())

    return sorted((name for name, (x, y) in points.items() if not beaten(x, y)), key=lambda name: points[name])


def differences(standings: Mapping[str, Any], rule: str, rival: str) -> dict[str, Interval]:
    """What a rule's numbers are more than a rival's in one arena, paired by seed; those that both have.

    Args:
        standings: An arena's standings.
        rule: The rule.
        rival: The other one.
    """
    mine, other = (standings["rules"][name]["seeds"] for name in (rule, rival))
    shared = [name for name in COMPARED if name in mine and name in other and len(mine[name]) == len(other[name])]
    return {name: interval(a - b for a, b in zip(mine[name], other[name], strict=True)) for name in shared}


def beside(found: Mapping[str, Any], others: Mapping[str, Any] | None, arena: str) -> dict[str, Any]:
    """An arena's standings with those of the rules that only another league has, if that was run in the same way.

    Args:
        found: The standings of a league.
        others: Those of another one.
        arena: The arena's name.
    """
    own = dict(found["arenas"][arena])
    settings = {k: v for k, v in found.items() if k != "arenas"}
    if (
        others is None
        or {k: v for k, v in others.items() if k != "arenas"} != settings
        or arena not in others["arenas"]
    ):
        return own
    rules = {**others["arenas"][arena]["rules"], **own["rules"]}
    own["rules"] = dict(sorted(rules.items(), key=lambda item: _rank(item[1], own["branched"])))
    own["front"] = _front(rules, own["branched"])
    return own


def standings(league: League) -> dict[str, Any]:
    """All standings, as JSON values: by arena its title, its rules' numbers, its front, and why others do not run."""
    rows = league.rows_of()
    found: dict[str, Any] = {}
    for arena in ARENAS:
        here = [e for e in league.picks if e.arena == arena]
        if not here:
            continue
        unguided = rows.get((arena.name, "none"))
        rules = {e.rule: _standing(league, e, rows[arena.name, e.rule], unguided) for e in here}
        found[arena.name] = {
            "title": arena.title,
            "dataset": arena.dataset,
            "label": arena.label,
            "branched": arena.branched,
            "rules": dict(sorted(rules.items(), key=lambda item: _rank(item[1], arena.branched))),
            "absent": {rule: reason for (name, rule), reason in league.absent.items() if name == arena.name},
        }
        found[arena.name]["front"] = _front(rules, arena.branched)
    plan = league.plan
    return {
        "quick": plan.quick,
        "seeds": plan.seeds,
        "first_seed": plan.first_seed,
        "n": samples(plan),
        "budget": league.budget,
        "tuning_seeds": league.tuning_seeds,
        "equal_evaluations": league.equal_evaluations,
        "coverage": COVERAGE,
        "arenas": found,
    }


def _front(rules: Mapping[str, Any], branched: bool) -> list[str]:
    places = {key: place_of(standing, branched) for key, standing in rules.items()}
    return front({key: place for key, place in places.items() if place is not None})


def place_of(standing: Mapping[str, Any], branched: bool) -> tuple[float, float] | None:
    """Where a rule stands: its coverage, or its distance's negative, and its outliers; None if nowhere."""
    numbers = standing["numbers"]
    if not branched and "distance_there" not in numbers:
        return None
    across = numbers["coverage"][0] if branched else -numbers["distance_there"][0]
    return across, numbers["outliers"][0]


def _rank(standing: Mapping[str, Any], branched: bool) -> float:
    value = standing["numbers"].get("matched_outliers" if branched else "distance")
    return float("inf") if value is None else value[0]


def _standing(league: League, e: Entrant, rows: Rows, unguided: Rows | None) -> dict[str, Any]:
    """A rule's numbers in one arena."""
    picks = league.picks[e]
    chosen = picks[e.arena.aim]
    best, nearest = (_Runs(rows, text_of(params), e.steps) for params in (chosen, picks["distance"]))
    plain, equal = _Runs(rows, "", e.steps), _Runs(rows, text_of(chosen), e.equal_steps)
    values = {
        "outliers": best.of("outliers"),
        "coverage": best.of("coverage"),
        "accuracy": [1.0 - leak for leak in best.of("class_leak")],
        "distance": nearest.of("sliced_w2"),
        "distance_there": best.of("sliced_w2"),
        "target_distance": best.of("target_w2"),
        "strays": best.of("strays_10"),
        "evaluations": [a + b for a, b in zip(best.of("nfe"), best.of("gradients"), strict=True)],
        "gradients": best.of("gradients"),
        "time": [row["time"] for row in best.rows if "time" in row],
        "equal_outliers": equal.of("outliers"),
        "default_outliers": plain.of("outliers"),
        "default_distance": plain.of("sliced_w2"),
    }
    weight = weight_of(e.cls)
    rungs = [_Runs(rows, text_of(params), e.steps) for params in ladder(e, chosen)]
    matched_at = None
    if rungs:
        coverage, outliers = (np.array([rung.of(name) for rung in rungs]).T for name in ("coverage", "outliers"))
        matched = at_coverage(coverage, outliers, COVERAGE)
        if matched is not None:
            place, values["matched_outliers"] = matched
            share = float(np.interp(place, np.arange(len(LADDER)), LADDER))
            matched_at = weight_at(e.cls, share)
    elif np.mean(values["coverage"]) >= COVERAGE:
        values["matched_outliers"] = values["outliers"]
    if unguided is not None:
        free = _Runs(unguided, "", next(iter(unguided))["steps"])
        if rungs:
            values["good_share"] = good_share(LADDER, coverage, outliers, free.of("outliers"), COVERAGE)
    return {
        "title": e.cls.short or e.cls.title.partition(" (")[0],
        "family": e.cls.family,
        "sampler": e.sampler,
        "steps": e.steps,
        "equal_steps": e.equal_steps,
        "exact": list(e.exact_roles),
        "params": dict(chosen),
        "distance_params": dict(picks["distance"]),
        "weight": weight,
        "matched_weight": matched_at,
        "numbers": {name: _written(found) for name, found in values.items() if found},
        "seeds": {name: [_short(v) for v in values[name]] for name in COMPARED if values.get(name)},
    }


class _Runs:
    """One setting's rows, seed by seed."""

    def __init__(self, rows: Rows, setting: str, steps: int) -> None:
        self.rows = rows.where(setting=setting, steps=steps)

    def of(self, column: str) -> list[float]:
        """A column for each seed; nothing where a seed does not have it."""
        own = [row for row in self.rows if column in row]
        seeds = {row["seed"] for row in self.rows}
        return [float(row[column]) for row in sorted(own, key=lambda r: r["seed"])] if len(own) == len(seeds) else []


def _written(values: Sequence[float]) -> list[float]:
    found = interval(values)
    return [_short(v) for v in (found.mean, found.low, found.high)]


def _short(value: float) -> float:
    return float(f"{value:.4g}")
