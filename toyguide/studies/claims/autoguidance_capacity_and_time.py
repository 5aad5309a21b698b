"""Good guides for autoguidance: less training, less capacity or both, and the lengths of the weight averages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from toyguide.experiment import Experiment
from toyguide.studies.base import Cell, Criterion, Plan, Study
from toyguide.studies.charts import Chart, Mark, Sheet, series
from toyguide.studies.claims.shared import fractal_networks
from toyguide.studies.rows import Interval, Rows, at_best, interval
from toyguide.studies.workshop import Workshop, trained
from toyguide.training import TrainSettings

_GUIDES = {"both": "less of both", "time": "less training", "capacity": "less capacity"}
_LENGTHS = fractal_networks.AVERAGES
_WEIGHTS = (1.1, 1.25, 1.5)
_TOY = _LENGTHS[0]  # in the paper's toy example

Setting = tuple[str, float, float, float]
"""A guide, the lengths of the main network's average and of the guide's, and the weight."""


def _network(plan: Plan, seed: int, guide: str = "") -> TrainSettings:
    """The main network, or a guide: half as wide, trained for an eighth of the time, or both."""
    own = fractal_networks.main(plan, seed)
    width = own.width // 2 if guide in ("both", "capacity") else own.width
    iterations = own.iterations // 8 if guide in ("both", "time") else own.iterations
    return replace(own, width=width, iterations=iterations)


def _settings(plan: Plan) -> list[Setting]:
    """All lengths of each guide with the toy example's main network, and all pairs of lengths for the guide of both."""
    pairs = [(guide, _TOY, own) for guide in _GUIDES for own in _LENGTHS]
    pairs += [("both", m, g) for m in _LENGTHS[1:] for g in _LENGTHS]
    return [(*pair, w) for pair in pairs for w in _WEIGHTS]


def _key(setting: Setting) -> dict[str, Any]:
    return dict(zip(("guide", "ema_main", "ema_guide", "w"), setting, strict=True))


def _unguided(length: float = _TOY) -> dict[str, Any]:
    return _key(("none", length, length, 1.0))


def _run(rows: Rows) -> list[Setting]:
    """All guided settings."""
    found = ((row["guide"], row["ema_main"], row["ema_guide"], row["w"]) for row in rows if row["guide"] != "none")
    return list(dict.fromkeys(found))


def _at_best(rows: Rows, settings: Iterable[Setting]) -> list[float]:
    """The misplaced share for each seed, at the setting that is best on the other seeds."""
    return at_best({setting: rows.per_seed("misplaced", **_key(setting)) for setting in settings})


def _guided_by(rows: Rows, guide: str) -> list[Setting]:
    return [setting for setting in _run(rows) if setting[:2] == (guide, _TOY)]


def _gain(rows: Rows, guide: str) -> list[float]:
    """The decrease of the misplaced share by guidance, as a share of the unguided one."""
    unguided = rows.per_seed("misplaced", **_unguided())
    return [1 - a / b for a, b in zip(_at_best(rows, _guided_by(rows, guide)), unguided, strict=True)]


def _more(rows: Rows, guide: str, other: str) -> list[float]:
    """The difference of two guides' gains."""
    return [a - b for a, b in zip(_gain(rows, guide), _gain(rows, other), strict=True)]


def _lengths(rows: Rows, *, same: bool) -> list[Setting]:
    return [s for s in _run(rows) if s[0] == "both" and (s[1] == s[2]) is same]


def _separate(rows: Rows) -> list[float]:
    """The decrease of the misplaced share from equal lengths to different ones, as a share of that with equal ones."""
    pairs = zip(_at_best(rows, _lengths(rows, same=False)), _at_best(rows, _lengths(rows, same=True)), strict=True)
    return [1 - a / b for a, b in pairs]


class AutoguidanceCapacityAndTime(Study):
    """See the module's text."""

    name = "autoguidance-capacity-and-time"
    title = "Autoguidance: capacity, training, averages"
    statement = (
        "A guide with less training is better than one with less capacity, one with less of both is the best, and it "
        "is better if its weights are averaged over another length than the main network's."
    )
    source = "Karras et al. 2024, arXiv 2406.02507, Sec. 5.1, Table 1 and Fig. 3"
    setting = (
        "The fractal's class A, 32 Heun steps. The main network is that of the paper's toy example (width 64, 4096 "
        "iterations). A guide has half the width, an eighth of the iterations, or both, as in the toy example; each "
        "network is trained anew for each seed and averaged over three lengths (sigma_rel 0.01, 0.05, 0.1). As in the "
        "paper, each guide is taken at its best weight above 1 and its best length, chosen here on the other seeds. "
        "The quality measure is the misplaced share: the outliers plus the mass missing from the branches. Like the "
        "paper's Fréchet distance it grows with samples that are off and with samples that are missing; unlike a "
        "Wasserstein distance between points it is bounded, so a few strays, which the main networks already have, do "
        "not decide. It does not see how samples lie within a branch, and was settled on development runs. The claims "
        "are comparisons, and any difference counts."
    )
    finding = (
        "Differences between guides are small: even at its best weight none surely lowers the misplaced share "
        "(outliers and missing mass). Less training looks better than less capacity."
    )
    order = 6
    criteria = (
        Criterion(
            "gain_both",
            "Guided by the network with less of both, the misplaced share is no larger than unguided",
            lambda rows: _gain(rows, "both"),
            at_least=0.0,
        ),
        Criterion(
            "training_over_capacity",
            "Less training of the guide gains more than less capacity",
            lambda rows: _more(rows, "time", "capacity"),
            at_least=0.0,
        ),
        Criterion(
            "both_over_training",
            "A guide with less of both gains more than one with less training",
            lambda rows: _more(rows, "both", "time"),
            at_least=0.0,
        ),
        Criterion(
            "both_over_capacity",
            "A guide with less of both gains more than one with less capacity",
            lambda rows: _more(rows, "both", "capacity"),
            at_least=0.0,
        ),
        Criterion(
            "separate_lengths",
            "Averages of two different lengths gain more than averages of one length",
            _separate,
            at_least=0.0,
        ),
    )

    def cells(self, plan: Plan) -> list[Cell]:
        def cell(seed: int, setting: Setting) -> Cell:
            guide, m, g, w = setting
            main = _network(plan, seed)
            weak = main if guide == "none" else _network(plan, seed, guide)

            settings: dict[str, Any] = {"main": trained(main, m), "weak": trained(weak, g), "n": plan.n, "seed": seed}
            if guide != "none":
                settings |= {"rule": "autoguidance", "params": {"w": w}}
            return Cell(
                {**_key(setting), "seed": seed},
                Experiment("fractal", "A", **settings),
                ("outliers", "coverage", "dropped_mass", "sliced_w2"),
                (main, weak),
                cost=plan.pick(0.4, 0.12),
            )

        unguided: list[Setting] = [("none", length, length, 1.0) for length in _LENGTHS]
        return [cell(seed, setting) for seed in plan.seed_range for setting in [*unguided, *_settings(plan)]]

    def columns(self, numbers: Mapping[str, float]) -> Mapping[str, float]:
        return {"misplaced": numbers["outliers"] + 1 - numbers["coverage"], **numbers}

    def numbers(self, rows: Rows) -> Mapping[str, Interval]:
        columns = ("misplaced", "outliers", "coverage", "dropped_mass", "sliced_w2")
        found = {f"{c}_unguided": rows.over_seeds(c, **_unguided()) for c in columns}
        for guide in _GUIDES:
            best = _best(rows, _guided_by(rows, guide))
            found[f"gain_{guide}"] = interval(_gain(rows, guide))
            found[f"weight_{guide}"], found[f"length_{guide}"] = interval([best[3]]), interval([best[2]])
            found |= {f"{c}_{guide}": rows.over_seeds(c, **_key(best)) for c in columns}
        for name, same in (("same_lengths", True), ("different_lengths", False)):
            best = _best(rows, _lengths(rows, same=same))
            found[f"misplaced_{name}"] = rows.over_seeds("misplaced", **_key(best))
            found[f"length_main_{name}"], found[f"length_guide_{name}"] = interval([best[1]]), interval([best[2]])
        return found

    def sheets(self, rows: Rows, workshop: Workshop) -> list[Sheet]:
        weights = sorted({setting[3] for setting in _run(rows)})

        def along(guide: str, column: str) -> list[tuple[float, list[float]]]:
            """For each seed, against the weight, unguided first, at the guide's best length."""
            _, m, g, _ = _best(rows, _guided_by(rows, guide))
            guided = [(w, rows.per_seed(column, **_key((guide, m, g, w)))) for w in weights]
            return [(1.0, rows.per_seed(column, **_unguided())), *guided]

        def over_unguided(values: Sequence[float]) -> Interval:
            pairs = zip(values, rows.per_seed("misplaced", **_unguided()), strict=True)
            return interval([a / b for a, b in pairs])

        def curves(column: str, title: str, y_label: str) -> Chart:
            summary = over_unguided if column == "misplaced" else interval
            lines = [series(label, [(w, summary(v)) for w, v in along(guide, column)]) for guide, label in labels]
            marks = [Mark("exact samples", y=0.01)] if column == "outliers" else []
            return Chart(title, "weight (1 is unguided)", y_label, lines, marks)

        def traded(guide: str) -> list[tuple[float, Interval]]:
            pairs = zip(along(guide, "coverage"), along(guide, "outliers"), strict=True)
            return [(interval(coverage).mean, interval(outliers)) for (_, coverage), (_, outliers) in pairs]

        def best_of(m: float, g: float) -> Interval:
            best = _best(rows, [s for s in _run(rows) if s[:3] == ("both", m, g)])
            return over_unguided(rows.per_seed("misplaced", **_key(best)))

        labels = _GUIDES.items()
        lengths = Chart(
            "Lengths of the averages",
            "sigma_rel of the guide's average",
            "misplaced share / unguided at 0.01",
            [series(f"main network's {m:g}", [(f"{g:g}", best_of(m, g)) for g in _LENGTHS]) for m in _LENGTHS],
        )
        return [
            Sheet(
                "guides",
                [
                    curves("misplaced", "Misplaced share", "guided / unguided"),
                    curves("outliers", "Outliers", "share of the samples"),
                    curves("coverage", "Coverage", "share of the mass"),
                    Chart(
                        "Outliers against coverage",
                        "coverage",
                        "outliers",
                        [series(label, traded(guide)) for guide, label in labels],
                    ),
                ],
                "Misplaced share (outliers, and mass missing from the branches; beside the unguided one of the same "
                "seed), outliers and coverage against the weight, and outliers against coverage as the weight rises "
                "(from right to left), for each guide at the length of average that suits it best; means and 95 % "
                "intervals over the seeds of training and sampling.",
                columns=2,
            ),
            Sheet(
                "lengths",
                [lengths],
                "The misplaced share for the guide with less of both, beside the unguided one of the same seed, for "
                "each pair of lengths of the two networks' averages, at each pair's best weight; means and 95 % "
                "intervals over the seeds.",
            ),
        ]


def _best(rows: Rows, settings: Iterable[Setting]) -> Setting:
    """The setting with the least misplaced share over all seeds; for reports, not for criteria."""
    return min(settings, key=lambda setting: rows.over_seeds("misplaced", **_key(setting)).mean)
