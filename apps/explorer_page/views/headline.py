"""The headline above the panels: a title, one sentence, and two or three numbers of the runs that are shown."""

from __future__ import annotations

from typing import Any

from toyguide.metrics import METRICS, Difference
from toyguide_apps.explorer_page.compute import Picture
from toyguide_apps.explorer_page.panels import LETTERS
from toyguide_apps.explorer_page.runs import Paths
from toyguide_apps.explorer_page.views.parts import Look, named, short_name

__all__ = ["headline", "moved", "shown_number", "verdict"]

_USUAL = ("outliers", "coverage", "dropped_mass")
_MOST = 3


def headline(picture: Picture, look: Look) -> dict[str, Any]:
    """The headline of a picture.

    Args:
        picture: The picture.
        look: What its preset says; a scene of one's own is described by its rules and by what was measured.
    """
    runs = picture.runs
    known = [m for m in (*look.metrics, *_USUAL) if all(run.metrics.get(m) is not None for run in runs)]
    metrics = sorted(list(dict.fromkeys(known))[:_MOST], key=list(METRICS).index)
    return {
        "title": look.title or _title(runs),
        "text": look.text or _sentence(picture),
        "numbers": [_number(picture, metric) for metric in metrics],
        "verdict": look.verdict,
        "scene": _scene(runs[-1]),
    }


def shown_number(metric: str, value: float, sign: str = "") -> str:
    """A metric's value as it is written: a share in per cent, a difference of shares in points (pp)."""
    if METRICS[metric].unit == "share":
        text = f"{100 * value:{sign}.1f} {'pp' if sign else '%'}"
    else:
        text = format(value, sign + (METRICS[metric].format if abs(value) < 100 else ".0f"))
    return text.replace("-", "\u2212")


def _number(picture: Picture, metric: str) -> dict[str, Any]:
    values = [
        {"letter": LETTERS[i], "text": shown_number(metric, run.metrics[metric]), "word": _word(picture, i, metric)}
        for i, run in enumerate(picture.runs)
    ]
    exact = picture.truth[-1].get(metric)
    truth = "" if exact is None else f"exact samples {shown_number(metric, exact)}"
    return {"label": METRICS[metric].title, "doc": METRICS[metric].doc, "values": values, "truth": truth, "key": metric}


def _word(picture: Picture, index: int, metric: str) -> str:
    """How a run compares with the first panel's, where that is beyond chance: closer to the truth, or farther."""
    change = picture.changes[index].get(metric) if index else None
    return {1: "better", -1: "worse"}.get(verdict(change), "") if change else ""


def verdict(change: Difference) -> int:
    """1 if a run is closer to the truth than the first one beyond chance, -1 if it is farther from it, else 0."""
    low, high = change.gain_interval
    return int(low > 0) - int(high < 0)


def moved(change: Difference) -> bool:
    """Whether the metric differs beyond chance, in whatever direction."""
    low, high = change.interval
    return low > 0 or high < 0


def _scene(run: Paths) -> str:
    """Of what the numbers are."""
    e = run.experiment
    label = f"class {e.label}" if e.label else "all classes"
    return f"{e.dataset}, {label}, {e.n} samples at the end (σ = 0)"


def _title(runs: tuple[Paths, ...]) -> str:
    names = [short_name(run.experiment) for run in runs]
    if len(set(names)) == len(names):
        return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    return " and ".join(dict.fromkeys(named(run.experiment).replace("  (", " (") for run in runs))


def _sentence(picture: Picture) -> str:
    """What is different in the last panel, and clearly so, in words."""
    if len(picture.runs) == 1:
        return "One run. Copy the panel to compare it with another on the same noise."
    changes = picture.changes[-1]
    clear = [(metric, changes[metric]) for metric in _WORDS if metric in changes and moved(changes[metric])]
    first, last = LETTERS[0], LETTERS[len(picture.runs) - 1]
    said = [f"{_WORDS[m][change.value > 0]}" for m, change in clear[:_MOST]]
    if not said:
        return f"No difference between {first} and {last} is beyond chance at this number of samples."
    listed = said[0] if len(said) == 1 else ", ".join(said[:-1]) + " and " + said[-1]
    return f"Compared with {first}, {last} {listed}."


_WORDS = {
    "outliers": ("has fewer outliers", "has more outliers"),
    "coverage": ("covers less of the data", "covers more of the data"),
    "dropped_mass": ("drops fewer branches", "drops more branches"),
    "class_leak": ("leaks less into other classes", "leaks more into other classes"),
    "median_log_density": ("spreads out more", "concentrates more"),
}
