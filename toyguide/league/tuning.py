"""The best parameters of a rule for an aim, found by an optimiser, and whether they are better on fresh seeds.

The optimiser sees the tuning seeds alone. What it found is then run beside the defaults on seeds that it never saw;
the difference of the aim's loss, paired by seed, has a 95 % interval (Student's t). Better is what lies wholly below 0.

References:
    Akiba et al., Optuna: A Next-generation Hyperparameter Optimization Framework, 2019, arXiv 1907.10902.
    Bergstra et al., Algorithms for Hyper-Parameter Optimization, 2011 (the tree-structured Parzen estimator).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any

from toyguide.errors import InputError
from toyguide.experiment import Experiment
from toyguide.guidance import rules
from toyguide.league.aims import AIMS
from toyguide.league.settings import design, main_parameters, span
from toyguide.studies.rows import Interval, interval
from toyguide.sweeps import sweep
from toyguide.sweeps.batch import identity

__all__ = ["BETTER", "NOT_BETTER", "NOT_SHOWN", "Tuned", "tune"]

BETTER, NOT_BETTER, NOT_SHOWN = "yes", "no", "not shown"
_AT_ONCE = 4  # settings that are tried side by side, as one batch where the rule allows it
_DIGITS = 4

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Tuned:
    """What tuning found.

    Attributes:
        experiment: A run with the best parameters, on the first fresh seed.
        trials: How many settings were tried, the defaults among them.
        tuning_loss: The mean loss of the best setting on the tuning seeds, and that of the defaults.
        best: The rows of the best setting on the fresh seeds, one for each.
        default: Those of the defaults.
        difference: The loss of the best setting minus that of the defaults on the fresh seeds.
    """

    experiment: Experiment
    trials: int
    tuning_loss: tuple[float, float]
    best: Sequence[Row]
    default: Sequence[Row]
    difference: Interval

    @property
    def better(self) -> str:
        """Whether the best setting is really better than the defaults: ``yes``, ``no`` or ``not shown``."""
        return BETTER if self.difference.high < 0 else NOT_BETTER if self.difference.low > 0 else NOT_SHOWN


def tune(
    start: Experiment,
    aim: str,
    trials: int,
    tuning_seeds: Sequence[int],
    fresh_seeds: Sequence[int],
    at_coverage: float,
    *,
    device: str = "auto",
    executor: Executor | None = None,
    tell: Callable[[int], None] = lambda tried: None,
) -> Tuned:
    """Search a rule's main parameters, and check the best setting.

    Args:
        start: A run of the rule; its seed and the parameters that are searched do not count.
        aim: One of ``AIMS``.
        trials: How many settings to try, the defaults among them.
        tuning_seeds: The seeds that the optimiser sees.
        fresh_seeds: Other seeds, two or more, for the check.
        at_coverage: The coverage that a matched aim keeps.
        device: ``auto``, ``cpu`` or ``cuda``.
        executor: Where runs are computed; None for this process.
        tell: Receives how many settings were tried so far.

    Raises:
        InputError: If Optuna is not installed, the rule has nothing to tune, or seeds are in both lists.
    """
    try:
        import optuna
    except ImportError as problem:
        raise InputError(
            "tuning needs optuna, which is not installed: expected pip install 'toyguide[tune]'"
        ) from problem
    cls = rules()[start.rule]
    names = main_parameters(cls)
    if not names:
        raise InputError(f"rule {start.rule!r}: has no real parameter to tune")
    if set(tuning_seeds) & set(fresh_seeds) or len(fresh_seeds) < 2:
        raise InputError("fresh seeds: expected two or more that are not among the tuning seeds")

    def with_params(params: Mapping[str, float]) -> Experiment:
        return replace(start, params={**start.params, **params})

    def rows_of(settings: Iterable[Mapping[str, float]], seeds: Sequence[int]) -> list[list[Row]]:
        runs = [[made.with_seed(seed) for seed in seeds] for made in map(with_params, settings)]
        found = {row["id"]: row for rows in sweep([e for own in runs for e in own], executor, device) for row in rows}
        return [[found[identity(e)] for e in own] for own in runs]

    def loss(rows: Sequence[Row]) -> float:
        return sum(losses(rows)) / len(rows)

    def losses(rows: Sequence[Row]) -> list[float]:
        return [AIMS[aim].of(row, at_coverage) for row in rows]

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, constant_liar=True))
    for params in design(cls, trials // 3)[1:]:  # where guidance begins to work, which is a small part of the slider
        search.enqueue_trial(params)
    (plain,) = rows_of([{}], tuning_seeds)
    tried: list[tuple[float, dict[str, float]]] = [(loss(plain), {})]
    while len(tried) < trials:
        asked = [search.ask() for _ in range(min(_AT_ONCE, trials - len(tried)))]
        settings = [{name: _rounded(trial.suggest_float(name, *span(cls, name))) for name in names} for trial in asked]
        for trial, params, rows in zip(asked, settings, rows_of(settings, tuning_seeds), strict=True):
            tried.append((loss(rows), params))
            search.tell(trial, min(tried[-1][0], _WORST))
        tell(len(tried))
    least, params = min(tried, key=lambda each: each[0])
    best, default = rows_of([params, {}], fresh_seeds)
    gained = interval(a - b for a, b in zip(losses(best), losses(default), strict=True))
    found = with_params(params).with_seed(fresh_seeds[0])
    return Tuned(found, len(tried), (least, tried[0][0]), best, default, gained)


_WORST = 1e6  # for runs of which nothing finite is left


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
