"""What a study is: one claim of one paper, the runs that test it, and the rule that its verdict follows.

A study is a file in ``claims`` with a subclass of :class:`Study`. It states, before anything runs,

    cells      the runs, each with a key (its settings and its seed) and the numbers to measure
    criteria   effects, one value for each seed, each with its threshold
    numbers    other numbers to report
    sheets     the figures, as data

The verdict follows from a rule. A criterion compares the 95 % interval of its effect over the seeds (Student's t) with
its threshold: *supported* if the whole interval lies on the claimed side, *not supported* if it lies wholly on the
other, else *inconclusive*. A study is supported if all its criteria are, and not supported as soon as one is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from toyguide.experiment import Experiment
from toyguide.studies.charts import Sheet
from toyguide.studies.plan import Plan
from toyguide.studies.rows import Interval, Rows, interval
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
    "verdict_of",
]

USUAL_METRICS = ("outliers", "coverage", "dropped_mass", "tips", "log_density", "sliced_w2", "class_leak")
SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE = "supported", "not supported", "inconclusive"


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

    def judge(self, rows: Rows) -> Judged:
        """The verdict of this criterion on a study's rows."""
        found = interval(self.effect(rows))
        if self.at_least is not None:
            holds, fails = found.low >= self.at_least, found.high < self.at_least
        else:
            assert self.at_most is not None, f"{self.name}: has no threshold"
            holds, fails = found.high <= self.at_most, found.low > self.at_most
        return Judged(self, found, SUPPORTED if holds else NOT_SUPPORTED if fails else INCONCLUSIVE)

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
        verdict: ``supported``, ``not supported`` or ``inconclusive``.
    """

    criterion: Criterion
    found: Interval
    verdict: str


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
