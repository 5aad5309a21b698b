"""What a study is: one claim of one paper, the runs that test it, and the rule that its verdict follows.

A study is a file in ``claims`` with a subclass of :class:`Study`. It states, before anything runs,

    cells      the runs, each with a key (its settings and its seed) and the numbers to measure
    criteria   effects, one value for each seed, each with its threshold
    numbers    other numbers to report
    sheets     the figures, as data

The verdict follows from a rule.

    supported        if every criterion is: if the 95 % interval of its effect over the seeds (Student's t) lies wholly
                     on the claimed side of its threshold
    not supported    if one criterion is: if Student's one-sided test rejects that its effect lies on the claimed side,
                     at 2.5 % for all criteria together (Holm's correction)
    inconclusive     otherwise

*Supported* needs no correction, as all criteria must pass; *not supported* does, because any one of them fails the
claim. With one criterion it says that the interval lies wholly on the other side.

Whichever is the truth, a verdict says the opposite at most 2.5 % of the time if effects are normal over the seeds, and
less than 5 % if they are uniform or have two equal modes. With ten seeds, an effect on its threshold whose distribution
is skewed to the side of the truth errs more often: 5 % for two modes of 70 : 30 and 9 % for an exponential one, and
14 % and 22 % if five independent criteria all do so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from toyguide.experiment import Experiment
from toyguide.studies.charts import Sheet
from toyguide.studies.plan import Plan
from toyguide.studies.rows import Interval, Rows, holm, interval, p_below
from toyguide.studies.workshop import Workshop
from toyguide.training import TrainSettings

__all__ = [
    "INCONCLUSIVE",
    "NOT_SUPPORTED",
    "SUPPORTED",
    "USUAL_METRICS",
    "Cell",
    "Criterion",
    "Judged",
    "Plan",
    "Study",
    "judge",
    "verdict_of",
]

USUAL_METRICS = (
    *("outliers", "far_outliers", "strays_05", "strays_10", "strays_20", "coverage", "dropped_mass", "tips"),
    *("class_leak", "log_density", "median_log_density", "sliced_w2", "trimmed_w2"),
)
SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE = "supported", "not supported", "inconclusive"
_ERROR = 0.025  # of a verdict, as of each side of a 95 % interval


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Most cells are an experiment and names of metrics. A cell that measures something else has a function instead,
    which is called as ``run(workshop, **key)`` and returns numbers by name; everything random in it must follow from
    the key.

    Attributes:
        key: The cell's settings as plain values by name, the seed among them; unique within the study. Columns of the
            CSV.
        run: The experiment; or the function, one of its module's top level, so that workers find it and its code can
            be part of the digest that finished runs are known by.
        metrics: Which metrics of the experiment's final samples to keep; those that a dataset does not have are left
            out.
        needs: The networks that it uses, which are trained before.
        cost: Roughly how long it takes, in seconds on two cores; for the progress bar.
        timed: Whether it measures time, so that it must run alone, in this process.
    """

    key: Mapping[str, str | int | float]
    run: Experiment | Callable[..., Mapping[str, float]]
    metrics: tuple[str, ...] = USUAL_METRICS
    needs: tuple[TrainSettings, ...] = ()
    cost: float = 0.4
    timed: bool = False


@dataclass(frozen=True)
class Criterion:
    """One condition of a claim: an effect and its threshold, stated before the runs.

    Attributes:
        name: A short name, the key of the summary's ``figures``.
        text: The condition as a sentence that names the effect and the threshold.
        effect: Computes the effect from a study's rows, one value for each seed.
        at_least: The threshold, if the claim is that the effect is no smaller.
        at_most: The threshold, if the claim is that the effect is no larger. One of the two is given.
    """

    name: str
    text: str
    effect: Callable[[Rows], Sequence[float]]
    at_least: float | None = None
    at_most: float | None = None

    def holds(self, found: Interval) -> bool:
        """Whether the whole interval lies on the claimed side; never for a single value, which has none."""
        if found.count < 2:
            return False
        if self.at_least is not None:
            return found.low >= self.at_least
        assert self.at_most is not None, f"{self.name}: has no threshold"
        return found.high <= self.at_most

    def p_against(self, values: Sequence[float]) -> float:
        """The p-value against this criterion: how likely values so far on the other side are if it is just met."""
        if self.at_least is not None:
            return p_below(values, self.at_least)
        assert self.at_most is not None, f"{self.name}: has no threshold"
        return p_below([-v for v in values], -self.at_most)

    @property
    def threshold(self) -> str:
        """``≥ 0.01``, say."""
        return f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"


@dataclass(frozen=True)
class Judged:
    """A criterion and its result.

    Attributes:
        criterion: The criterion.
        found: The interval of its effect over the seeds.
        p_against: The p-value against it, with Holm's correction for its study's criteria.
        verdict: ``supported``, ``not supported`` or ``inconclusive``.
    """

    criterion: Criterion
    found: Interval
    p_against: float
    verdict: str


def judge(criteria: Sequence[Criterion], rows: Rows) -> list[Judged]:
    """The verdicts of a study's criteria on its rows, by the rule in the module's text."""
    effects = [list(criterion.effect(rows)) for criterion in criteria]
    against = holm([criterion.p_against(values) for criterion, values in zip(criteria, effects, strict=True)])
    judged = []
    for criterion, values, p in zip(criteria, effects, against, strict=True):
        found = interval(values)
        verdict = SUPPORTED if criterion.holds(found) else NOT_SUPPORTED if p <= _ERROR else INCONCLUSIVE
        judged.append(Judged(criterion, found, p, verdict))
    return judged


def verdict_of(judged: Iterable[Judged]) -> str:
    """A study's verdict: the worst of its criteria's, in the order supported, inconclusive, not supported."""
    verdicts = {j.verdict for j in judged}
    return next(v for v in (NOT_SUPPORTED, INCONCLUSIVE, SUPPORTED) if v in verdicts)


class Study:
    """One claim of one paper. Has no state; see the module's text."""

    name: ClassVar[str] = ""
    """Its name on the command line."""
    title: ClassVar[str] = ""
    """Its title, a few words."""
    statement: ClassVar[str] = ""
    """The claim, in our words, as a sentence that can be wrong."""
    source: ClassVar[str] = ""
    """Paper, arXiv number, section or figure."""
    setting: ClassVar[str] = ""
    """How it is tested here, and which of that is our choice, in two to five sentences."""
    criteria: ClassVar[tuple[Criterion, ...]] = ()
    """The conditions that decide."""
    finding: ClassVar[str] = ""
    """What the published runs found, in one or two plain sentences; written after them, for the page of results."""
    order: ClassVar[int] = 100
    """Its place in a list."""

    def cells(self, plan: Plan) -> list[Cell]:
        """All runs. Every study must define it."""
        raise TypeError(f"the study {self.name!r} does not define its cells")

    def columns(self, numbers: Mapping[str, float]) -> Mapping[str, float]:
        """The columns of a row, from the numbers that its cell measured."""
        return numbers

    def numbers(self, rows: Rows) -> Mapping[str, Interval]:
        """Numbers to report besides the criteria, by name."""
        return {}

    def sheets(self, rows: Rows, workshop: Workshop) -> list[Sheet]:
        """The figures. May run experiments again for what no row has; must be deterministic."""
        return []
