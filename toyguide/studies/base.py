"""What a study is: one claim of one paper, the runs that test it, and the rule that its verdict follows.

A study is a file in this folder with a subclass of :class:`Study`. It states, before anything runs,

    cells      the runs, each with a key (what was set, the seed among it) and the numbers that it measures
    criteria   effects, one value for each seed, each with the size that it must reach
    numbers    what else is worth reporting
    sheets     the figures, as data

The verdict is never by eye. A criterion compares the 95 % interval of its effect over the seeds (Student's t) with its
threshold: *supported* if all of the interval lies on the claimed side, *not supported* if all of it lies on the other,
else *inconclusive*. A study is supported if all its criteria are, and not supported as soon as one is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from toyguide.studies.charts import Sheet
from toyguide.studies.plan import Plan
from toyguide.studies.rows import Interval, Rows, interval
from toyguide.studies.workshop import Workshop
from toyguide.training import TrainSettings

__all__ = ["INCONCLUSIVE", "NOT_SUPPORTED", "SUPPORTED", "Cell", "Criterion", "Judged", "Plan", "Study", "verdict_of"]

SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE = "supported", "not supported", "inconclusive"


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        key: What was set, as plain values by name; no two cells of a study have the same. Part of the CSV.
        work: Measures: the numbers by name. Everything random in it follows from the key.
        needs: The networks that it uses, which are trained before.
        cost: Roughly how long it takes, in seconds on two cores; for the progress bar.
    """

    key: Mapping[str, str | int | float]
    work: Callable[[Workshop], Mapping[str, float]]
    needs: tuple[TrainSettings, ...] = ()
    cost: float = 0.4


@dataclass(frozen=True)
class Criterion:
    """One condition of a claim, with the least effect that counts, written down before the runs.

    Attributes:
        name: A short name, as in ``figures``.
        text: What is claimed, as a sentence; what the number is and which side of the threshold is meant.
        effect: The number, one for each seed.
        at_least: The threshold, where the claim is that the effect is no smaller.
        at_most: The threshold, where the claim is that the effect is no larger. One of the two is given.
    """

    name: str
    text: str
    effect: Callable[[Rows], Sequence[float]]
    at_least: float | None = None
    at_most: float | None = None

    def judge(self, rows: Rows) -> Judged:
        """The criterion's own verdict on a study's rows."""
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
    """A criterion with what was found.

    Attributes:
        criterion: The criterion.
        found: Its effect over the seeds.
        verdict: ``supported``, ``not supported`` or ``inconclusive``.
    """

    criterion: Criterion
    found: Interval
    verdict: str


def verdict_of(judged: Iterable[Judged]) -> str:
    """A study's verdict from those of its criteria: the worst, with *not supported* the last."""
    verdicts = {j.verdict for j in judged}
    return next(v for v in (NOT_SUPPORTED, INCONCLUSIVE, SUPPORTED) if v in verdicts)


class Study:
    """One claim of one paper. Has no state; see the module's text."""

    name: ClassVar[str] = ""
    """What it is called by."""
    title: ClassVar[str] = ""
    """A few words, for people."""
    statement: ClassVar[str] = ""
    """The claim, in our words, as a sentence that can be wrong."""
    source: ClassVar[str] = ""
    """Paper, arXiv number, section or figure."""
    setting: ClassVar[str] = ""
    """How it is tested here, and what in that is our choice, in two to five sentences."""
    criteria: ClassVar[tuple[Criterion, ...]] = ()
    """What decides."""
    order: ClassVar[int] = 100
    """Where it stands in a list."""

    def cells(self, plan: Plan) -> list[Cell]:
        """All runs. Must be given by every study."""
        raise TypeError(f"the study {self.name!r} does not say what it runs")

    def numbers(self, rows: Rows) -> Mapping[str, Interval]:
        """What is reported beside the criteria, by name."""
        return {}

    def sheets(self, rows: Rows, workshop: Workshop) -> list[Sheet]:
        """The figures. May run experiments again for what no row holds; must be deterministic."""
        return []
