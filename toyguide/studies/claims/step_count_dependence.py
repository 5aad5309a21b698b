"""Whose samples depend on the number of steps: rules that guide a field, and rules that push once a step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor

from toyguide.experiment import Experiment
from toyguide.metrics import measure
from toyguide.studies.base import Cell, Criterion, Plan, Study
from toyguide.studies.charts import Chart, Cloud, Mark, Sheet, series
from toyguide.studies.rows import Interval, Rows
from toyguide.studies.workshop import Workshop

_STEPS = (16, 32, 64, 128, 256)
_W, _BETA = 2.0, -0.5
_LAM, _GMAX, _AT = 0.2, 0.004, 64  # of CFG++ and of EluCD, and the steps at which the rescaled ones have them
_STILL, _MOVED = 0.01, 0.05  # 2 % and 10 % of the data's standard deviation, 0.5

_MOMENTUM = {"w": _W, "eta": 1.0, "r": math.inf, "beta": _BETA}  # APG with nothing but its momentum


def _rule(name: str, steps: int) -> tuple[str, dict[str, Any]]:
    """The rule of a name in this study, in a run of so many steps."""
    scale = _AT / steps if name.endswith("/N") else 1.0
    return {
        "none": ("none", {}),
        "cfg": ("cfg", {"w": _W}),
        "cfg-limit": ("cfg", {"w": 1 + (_W - 1) / (1 - _BETA)}),
        "terminal-fitted": ("terminal-fitted", {"w": _W}),
        "apg": ("apg", _MOMENTUM),
        "smc-cfg": ("smc-cfg", {"w": _W}),
        "cfg++": ("cfg++", {"lam": _LAM * scale}),
        "elucd": ("elucd", {"gmax": _GMAX * scale}),
    }[name.removesuffix("/N")]


_LABELS = {
    "none": "Unguided",
    "cfg": "CFG",
    "terminal-fitted": "Terminal-fitted",
    "apg": "APG's momentum",
    "smc-cfg": "SMC-CFG",
    "cfg++": "CFG++",
    "elucd": "EluCD",
    "cfg++/N": "CFG++, λ ∝ 1/N",
    "elucd/N": "EluCD, g_max ∝ 1/N",
}
_FIELDS, _PUSHES, _RESCALED = ("cfg", "terminal-fitted", "apg"), ("cfg++", "elucd"), ("cfg++/N", "elucd/N")
_BESIDE = {"terminal-fitted": ("cfg",), "apg": ("cfg", "cfg-limit")}
"""Rules, and those that their samples are compared with; the last is what they should tend to."""


def _experiment(name: str, steps: int, seed: int) -> Experiment:
    rule, params = _rule(name, steps)
    return Experiment(
        "fractal", "A", "exact", "exact@union", rule=rule, params=params, sampler="euler", steps=steps, n=256, seed=seed
    )


def _apart(x: Tensor, y: Tensor) -> float:
    """The mean distance of the points of two runs that started at the same points."""
    return float((x - y).norm(dim=-1).mean())


def _measure(workshop: Workshop, rule: str, seed: int) -> Mapping[str, float]:
    """Of one rule at all numbers of steps: the numbers of its samples, how far a doubling moved them, and how far
    they are from those of other rules."""
    found: dict[str, float] = {}
    before: Tensor | None = None
    for steps in _STEPS:
        e = _experiment(rule, steps, seed)
        x = workshop.run(e).x[-1]
        numbers = measure(x, e.data, e.label, resamples=0)
        found |= {f"{column}_{steps}": float(numbers[column]) for column in ("outliers", "coverage")}
        if before is not None:
            found[f"moved_{steps}"] = _apart(x, before)
        before = x
        for other in _BESIDE.get(rule, ()):
            y = workshop.run(_experiment(other, steps, seed)).x[-1]
            found[f"from_{other}_{steps}"] = _apart(x, y)
    return found


_LAST = f"moved_{_STEPS[-1]}"


def _extreme(rows: Rows, rules: tuple[str, ...], which: Callable[[Iterable[float]], float]) -> list[float]:
    """What the last doubling moves the samples of the rule that it moves most or least, for each seed."""
    return [which(each) for each in zip(*(rows.per_seed(_LAST, rule=r) for r in rules), strict=True)]


class StepCountDependence(Study):
    """See the module's text."""

    name = "step-count-dependence"
    title = "Whose samples depend on the number of steps"
    statement = (
        "Samples of CFG, of terminal-fitted guidance and of APG's momentum settle as steps become finer, the second on "
        "those of CFG and the third on those of a weaker CFG; samples of CFG++ and EluCD never do, because they push "
        "once a step, however short it is."
    )
    source = (
        "derived from the formulas: CFG++, arXiv 2406.08070; EluCD, arXiv 2310.11311; APG, arXiv 2410.02416; "
        "terminal-fitted guidance, arXiv 2607.07665"
    )
    setting = (
        "The fractal's class A against the union, all fields and the classifier exact; Euler's method from 16 to 256 "
        "steps, 256 trajectories, the same starting points for all. No paper claims this: it follows from the "
        "formulas. A step of CFG++ is one of CFG with the weight λ σ/(σ - σ'), and EluCD's push has a fixed length. "
        "Steady momentum divides w - 1 by 1 - β. How far a sample moves when the steps are doubled from 128 to 256 "
        "says whether a rule has settled: 0.01 at most (2 % of the data's standard deviation) counts as settled, 0.05 "
        "at least (10 %) as not. The parameters are w = 2, β = -0.5 without projection and clip, λ = 0.2 and g_max = "
        "0.004; as a control λ and g_max fall as 64/N. SMC-CFG, which has a memory too, is shown. Settled on seeds "
        "below 100."
    )
    finding = (
        "As derived. Going from 128 to 256 steps moves samples of CFG and its relatives by .004 at most, those of "
        "EluCD by .12 and those of CFG++ by .28; both settle too if their parameter falls as one over the number of "
        "steps."
    )
    order = 42
    criteria = (
        Criterion(
            "settled_moved",
            "From 128 to 256 steps samples of CFG, terminal-fitted guidance and APG's momentum move by at most 0.01 "
            "(that which moves most)",
            lambda rows: _extreme(rows, _FIELDS, max),
            at_most=_STILL,
        ),
        Criterion(
            "terminal_fitted_from_cfg",
            "At 256 steps samples of terminal-fitted guidance are within 0.01 of those of CFG",
            lambda rows: rows.per_seed(f"from_cfg_{_STEPS[-1]}", rule="terminal-fitted"),
            at_most=_STILL,
        ),
        Criterion(
            "momentum_from_weaker_cfg",
            "At 256 steps samples of APG's momentum are within 0.01 of those of CFG with w - 1 divided by 1 - β",
            lambda rows: rows.per_seed(f"from_cfg-limit_{_STEPS[-1]}", rule="apg"),
            at_most=_STILL,
        ),
        Criterion(
            "pushes_moved",
            "From 128 to 256 steps samples of CFG++ and EluCD move by at least 0.05 (that which moves least)",
            lambda rows: _extreme(rows, _PUSHES, min),
            at_least=_MOVED,
        ),
        Criterion(
            "rescaled_moved",
            "With λ and g_max divided by the number of steps they move by at most 0.01",
            lambda rows: _extreme(rows, _RESCALED, max),
            at_most=_STILL,
        ),
    )

    def cells(self, plan: Plan) -> list[Cell]:
        return [Cell({"rule": rule, "seed": seed}, _measure, cost=1.0) for seed in plan.seed_range for rule in _LABELS]

    def numbers(self, rows: Rows) -> Mapping[str, Interval]:
        found = {f"moved_{rule}": rows.over_seeds(_LAST, rule=rule) for rule in _LABELS}
        for column in ("coverage", "outliers"):
            for rule in _LABELS:
                for steps in (_STEPS[0], _STEPS[-1]):
                    found[f"{column}_{rule}_{steps}"] = rows.over_seeds(f"{column}_{steps}", rule=rule)
        return {**found, "momentum_from_cfg": rows.over_seeds(f"from_cfg_{_STEPS[-1]}", rule="apg")}

    def sheets(self, rows: Rows, workshop: Workshop) -> list[Sheet]:
        def chart(title: str, y_label: str, column: str, steps: tuple[int, ...], **more: Any) -> Chart:
            colours = {rule: i for i, rule in enumerate(_LABELS)}
            lines = [
                series(
                    label,
                    [(n, rows.over_seeds(f"{column}_{n}", rule=rule)) for n in steps],
                    style="dashed" if rule in _RESCALED else "line",
                    colour=colours[rule.removesuffix("/N")],
                )
                for rule, label in _LABELS.items()
            ]
            return Chart(title, "number of steps", y_label, lines, x_scale="log", **more)

        marks = [Mark("settled", y=_STILL), Mark("not settled", y=_MOVED)]
        charts = [
            chart("What a doubling moves", "mean distance", "moved", _STEPS[1:], y_scale="log", marks=marks),
            chart("Coverage", "share of the mass", "coverage", _STEPS),
        ]
        seed, clouds = workshop.plan.first_seed, []
        for steps in (_STEPS[1], _STEPS[-1]):
            for rule in ("cfg", *_PUSHES):
                x = workshop.run(_experiment(rule, steps, seed)).x[-1]
                row = rows.where(rule=rule, seed=seed)[0]
                caption = f"coverage {row[f'coverage_{steps}']:.0%}"
                clouds.append(Cloud(f"{_LABELS[rule]}, {steps} steps", "fractal", "A", x, caption))
        return [
            Sheet(
                "steps",
                charts,
                "Left: how far the samples of each rule move when the number of steps is doubled to this one. Right: "
                "coverage against the number of steps. Dashed: the controls. Means and 95 % intervals over the seeds.",
            ),
            Sheet(
                "samples",
                clouds,
                "The same trajectories with few and with many steps, over the exact 99 % region; outliers are red.",
                columns=3,
            ),
        ]
