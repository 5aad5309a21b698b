"""Guidance away from the confused class: how sure the classifier must be, and how often it must be asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toyguide.experiment import Experiment
from toyguide.studies.base import Cell, Criterion, Plan, Study
from toyguide.studies.charts import Chart, Mark, Series, Sheet, series
from toyguide.studies.rows import Interval, Rows
from toyguide.studies.workshop import Workshop, trained
from toyguide.training import TrainSettings

_THRESHOLD = 0.9
_THRESHOLDS = (0.05, 0.1, 0.25, 0.5, 0.75, _THRESHOLD, 1.0)
_SELDOM = 8  # near the end of the paper's range of periods, 1 to 10
_PERIODS = (1, 2, 4, _SELDOM, 16)
_WEIGHTS = (1.1, 1.2, 1.5, 2.0, 3.0)
_CFG = 2.0  # judged
_POINTS = {"denoised": "at denoised points", "noisy": "at noisy points"}
_COLUMNS = {"class_leak": "Class leak", "coverage": "Coverage"}
_METRICS = ("class_leak", "coverage", "outliers", "nfe")
_UNGUIDED: dict[str, Any] = {"way": "unguided"}


def network(plan: Plan, seed: int) -> TrainSettings:
    """Both classes and the union in one small network, so that its classes leak into each other."""
    iterations = plan.pick(1024, 512)
    return TrainSettings("fractal", None, conditional=True, width=32, iterations=iterations, batch=1024, seed=seed)


def _at(threshold: float = _THRESHOLD, period: int = 1, point: str = "denoised") -> dict[str, Any]:
    return {"way": point, "value": threshold, "period": period}


def _cfg(w: float) -> dict[str, Any]:
    return {"way": "cfg", "value": w}


def _removed(rows: Rows, **key: Any) -> list[float]:
    """The share of the unguided class leak that is removed."""
    pairs = zip(rows.per_seed("class_leak", **key), rows.per_seed("class_leak", **_UNGUIDED), strict=True)
    return [1 - left / whole for left, whole in pairs]


def _as_much(rows: Rows, **key: Any) -> list[float]:
    """The removed leak over that of the judged threshold with the classifier asked in every step."""
    return [part / whole for part, whole in zip(_removed(rows, **key), _removed(rows, **_at()), strict=True)]


class GfcgFrequencyAndThreshold(Study):
    """See the module's text."""

    name = "gfcg-frequency-and-threshold"
    title = "When gradient-free classifier guidance asks, and when it acts"
    statement = (
        "Guiding points that a classifier doubts away from the class that they are taken for removes errors of class "
        "without loss of coverage; asking the classifier in one step of eight is enough; too low a threshold never "
        "guides, and one that guides every point costs coverage."
    )
    source = "Shenoy et al. 2024, arXiv 2411.15393 (read in a review, without its formulas)"
    setting = (
        "The rule is a reconstruction: its strength 2 (1 - p) and its reference class are ours. Class A of the fractal "
        "from a label-conditional network of width 32, 1024 iterations, trained anew for each seed, with the exact "
        "posterior at the denoised points for the classifier; 32 Heun steps. With two classes the reference is always "
        "the other one, so the choice of a reference is not tested. The paper has images, precision and recall; class "
        "leak and coverage of the branches stand for these. Thresholds are ours."
    )
    finding = (
        "It removes 80 % of the class leak, as much as CFG at w = 2 does, and keeps all of the coverage, of which CFG "
        "loses 0.21. Asking in one step of four is as good as in each; one in eight removes 71 % as much, about what "
        "was asked. The threshold 0.1 still removes half, and 1 costs nothing: denoised points are nearly all certain, "
        "of one class or of the other. Asked at the noisy points, a high threshold does cost coverage."
    )
    order = 30
    criteria = (
        Criterion(
            "leak_removed",
            "At the threshold 0.9 it removes at least half of the unguided samples of the other class",
            lambda rows: _removed(rows, **_at()),
            at_least=0.5,
        ),
        Criterion(
            "coverage_lost",
            "It covers at most 0.02 less of the class than without guidance",
            lambda rows: rows.difference("coverage", _UNGUIDED, _at()),
            at_most=0.02,
        ),
        Criterion(
            "more_coverage_than_cfg",
            "It covers at least 0.05 more of the class than CFG at w = 2",
            lambda rows: rows.difference("coverage", _at(), _cfg(_CFG)),
            at_least=0.05,
        ),
        Criterion(
            "asking_seldom",
            "Asking in one step of eight removes at least three quarters of what asking in each removes",
            lambda rows: _as_much(rows, **_at(period=_SELDOM)),
            at_least=0.75,
        ),
        Criterion(
            "low_threshold",
            "The threshold 0.1 removes at most half of what 0.9 removes",
            lambda rows: _as_much(rows, **_at(0.1)),
            at_most=0.5,
        ),
        Criterion(
            "high_threshold",
            "The threshold 1, which guides every point, costs at least 0.02 of the coverage at 0.9",
            lambda rows: rows.difference("coverage", _at(), _at(1.0)),
            at_least=0.02,
        ),
    )

    def cells(self, plan: Plan) -> list[Cell]:
        runs: list[dict[str, Any]] = [{**_UNGUIDED, "value": 0.0, "period": 1}]
        runs += [{**_cfg(w), "period": 1} for w in _WEIGHTS]
        runs += [_at(threshold, point=point) for point in _POINTS for threshold in _THRESHOLDS]
        runs += [_at(period=period) for period in _PERIODS if period > 1]

        def cell(seed: int, way: str, value: float, period: int) -> Cell:
            settings: dict[str, Any] = {"rule": "none"}
            if way == "cfg":
                settings = {"rule": "cfg", "params": {"w": value}}
            elif way in _POINTS:
                settings = {"rule": "gfcg", "params": {"threshold": value, "s_cp": period, "point": way}}
            need = network(plan, seed)
            fields = dict.fromkeys(("main", "uncond", "guide"), trained(need))
            e = Experiment("fractal", "A", fields=fields, n=plan.n, seed=seed, **settings)
            key: dict[str, str | int | float] = {"way": way, "value": value, "period": period, "seed": seed}
            return Cell(key, e, _METRICS, needs=(need,), cost=plan.pick(0.6, 0.2))

        return [cell(seed, **run) for seed in plan.seed_range for run in runs]

    def numbers(self, rows: Rows) -> Mapping[str, Interval]:
        shown = {
            "unguided": _UNGUIDED,
            "gfcg": _at(),
            "gfcg_threshold_1": _at(1.0),
            "gfcg_one_step_of_eight": _at(period=_SELDOM),
            "gfcg_noisy": _at(point="noisy"),
            "cfg": _cfg(_CFG),
        }
        return {
            f"{column}_{name}": rows.over_seeds(column, **key) for name, key in shown.items() for column in _METRICS
        }

    def sheets(self, rows: Rows, workshop: Workshop) -> list[Sheet]:
        def marks(column: str) -> list[Mark]:
            return [
                Mark("unguided", y=rows.over_seeds(column, **_UNGUIDED).mean),
                Mark("CFG, w = 2", y=rows.over_seeds(column, **_cfg(_CFG)).mean),
            ]

        def by_threshold(column: str) -> list[Series]:
            return [
                series(label, [(t, rows.over_seeds(column, **_at(t, point=point))) for t in _THRESHOLDS])
                for point, label in _POINTS.items()
            ]

        def by_period(column: str) -> list[Series]:
            points = [(str(k), rows.over_seeds(column, **_at(period=k))) for k in _PERIODS]
            return [series(_POINTS["denoised"], points, colour=0)]

        charts = []
        for column, title in _COLUMNS.items():
            label = column.replace("_", " ")
            charts.append(Chart(title, "threshold", label, by_threshold(column), marks(column)))
            charts.append(Chart(title, "steps from question to question", label, by_period(column), marks(column)))
        return [
            Sheet(
                "questions",
                charts,
                "Samples of the other class, and coverage of the class, by the threshold below which points are guided "
                "and by how often the classifier is asked (at the threshold 0.9; 32 steps in all). Lines: the network "
                "unguided and under CFG at w = 2. Means and 95 % intervals over the seeds.",
                columns=2,
            )
        ]
