"""A picture's parts as plain dictionaries of numbers and float32 or uint8 arrays, as the stage takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import param

from toyguide import Experiment, rule
from toyguide.errors import InputError
from toyguide_apps.explorer_page.compute import Picture
from toyguide_apps.explorer_page.judged import judged
from toyguide_apps.explorer_page.layers.densities import Arrows, Curves
from toyguide_apps.explorer_page.layers.point_arrows import Drawing
from toyguide_apps.explorer_page.presets import Preset
from toyguide_apps.explorer_page.roles import MAIN, natural
from toyguide_apps.explorer_page.runs import Paths
from toyguide_apps.explorer_page.scene import Scene

__all__ = ["Look", "marks", "named", "note", "run", "scene", "short_name", "strokes", "title"]

_STROKES = ("x0", "y0", "x1", "y1")
_STILL = ("region", "other-regions")  # lines that belong to the data, at sigma = 0


@dataclass(frozen=True)
class Look:
    """What is said about a picture: the preset's title, sentence, metrics and verdict; empty for a scene of one's own.

    Attributes:
        title: The title.
        text: The sentence.
        metrics: The metrics that carry it.
        verdict: The verdict of the study that judges it, with the study's address, or None.
    """

    title: str = ""
    text: str = ""
    metrics: tuple[str, ...] = ()
    verdict: dict[str, str] | None = None

    @classmethod
    def of(cls, preset: Preset) -> Look:
        """What a preset says, and what the study found that judges it."""
        said = judged(preset.key)
        verdict = {"text": said, "href": f"studies?study={preset.study}"} if said else None
        return cls(preset.title, preset.look, tuple(dict.fromkeys(shown.metric for shown in preset.shows)), verdict)


def run(paths: Paths) -> dict[str, Any]:
    """A run's frames, ``(steps + 1) * n`` coordinates with ``n`` for each level, and what is known of its samples."""
    return {
        "x": paths.frames[..., 0].ravel(),
        "y": paths.frames[..., 1].ravel(),
        "n": paths.frames.shape[1],
        "sigma": list(paths.sigma),
        "outlier": paths.outlier.astype(np.uint8),
        "logp": paths.log_density,
        "branch": paths.branch,
        "push": [float(v) for v in paths.push_sizes],
    }


def strokes(arrows: Arrows | None) -> dict[str, Any]:
    """Straight strokes; no columns where there are none."""
    return {"none": True} if arrows is None else {c: _floats(getattr(arrows, c)) for c in _STROKES}


def scene(picture: Picture, layers: Scene, step: int) -> dict[str, Any]:
    """Layers at one step of the time line. Those of one key differ in the step alone."""
    request = picture.request
    still = {k: _curves(v) for k, v in layers.curves.items() if k in _STILL}
    found: dict[str, Any] = {
        "key": repr(layers.key),
        "step": step,
        "window": list(request.window),
        "still": {"curves": still},
        "curves": {k: _curves(v) for k, v in layers.curves.items() if k not in _STILL},
        "bands": request.bands,
    }
    if layers.image is not None:
        found |= {"image": np.ascontiguousarray(layers.image).ravel(), "pixels": len(layers.image)}
    if layers.score is not None:
        found["score"] = strokes(layers.score)
    if layers.saddles is not None and len(layers.saddles.value):
        top = float(np.quantile(layers.saddles.value, 0.98))
        found["saddles"] = strokes(layers.saddles) | {"value": _floats(layers.saddles.value), "top": top}
    if (critical := layers.critical) is not None:
        groups = {"modes": critical.index == 0, "passes": critical.index == 1, "others": critical.index > 1}
        found["critical"] = {
            name: {
                "x": critical.x[which],
                "y": critical.y[which],
                "text": [str(i) for i in critical.index[which]] if name == "others" else [],
            }
            for name, which in groups.items()
        }
        found["critical"]["unstable"] = dict(zip(_STROKES, map(_floats, critical.strokes), strict=True))
    return found


def marks(picture: Picture) -> dict[str, Any]:
    """The paths and arrows at the inspected point, one entry for each panel."""
    seen = picture.inspection
    if seen is None:
        return {"panels": []}
    drawn = picture.terms or (None,) * len(seen.terms)
    return {
        "panels": [
            {"way": _curves(Curves(terms.path[:, 0], terms.path[:, 1])), "arrows": _drawing(drawing)}
            for terms, drawing in zip(seen.terms, drawn, strict=True)
        ]
    }


def _drawing(drawing: Drawing | None) -> dict[str, Any] | None:
    if drawing is None:
        return None
    columns = dict(zip((*_STROKES, "kind"), map(_floats, drawing.strokes), strict=True))
    x, y = map(_floats, drawing.at)
    return {**columns, "x": x, "y": y, "names": list(drawing.names), "kinds": _floats(drawing.kinds)}


def named(experiment: Experiment) -> str:
    """A run's rule with its parameters that mean anything; of its choices those that are not the default."""
    chosen = rule(experiment.rule, **experiment.params)
    choices = {k for k, known in chosen.declared().items() if isinstance(known, param.Selector)} & set(chosen.changed())
    shown = {k: v for k, v in chosen.effective().items() if isinstance(v, float | int) or k in choices}
    values = ", ".join(_value(k, v) for k, v in shown.items())
    name = short_name(experiment)
    return f"{name}  ({values})" if values else name


def _value(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"{name} {'on' if value else 'off'}"
    return f"{name} {value}" if isinstance(value, str) else f"{name} = {value:g}"


def short_name(experiment: Experiment) -> str:
    """A run's rule as it is called where there is little room."""
    return rule(experiment.rule).called()


def note(experiment: Experiment) -> str:
    """What is special about a run's fields, class, interval and schedule; empty if nothing is."""
    data = experiment.data
    main = str(experiment.main)
    parts = [] if main == f"{data.name}/{data.models.get('main')}" else [f"main: {_short(main, data.name)}"]
    for name, reference in experiment.fields.items():
        weaker = experiment.roles()[name].kind == "weaker"  # there are several, so that one is always named
        if weaker or (name != MAIN and str(reference) != _natural(experiment, name)):
            parts.append(f"{name}: {_short(str(reference), data.name)}")
    if experiment.interval is not None:
        low, high = experiment.interval
        parts.append(f"guided for σ from {low:g} to {high:g}")
    if experiment.schedule is not None:
        parts.append(f"schedule of the weight: {experiment.schedule}")
    return ", ".join(parts)


def _natural(experiment: Experiment, name: str) -> str:
    try:
        return natural(experiment.roles()[name], str(experiment.main), experiment.dataset, experiment.label)
    except InputError:
        return ""


def _short(reference: str, dataset: str) -> str:
    return reference.replace(f"{dataset}/", "")


def title(paths: Paths) -> str:
    """What a panel shows: the rule, its parameters, and how many trajectories got lost."""
    experiment = paths.experiment
    text = named(experiment)
    if paths.coarse:
        return text + f"  ·  first {paths.frames.shape[1]} of {experiment.n}"
    if paths.diverged:
        text += f"  ·  {paths.diverged} of {experiment.n} diverged"
    return text + f"  ·  {paths.far} of {experiment.n} far away" if paths.far else text


def _curves(curves: Curves) -> dict[str, np.ndarray]:
    return {"x": _floats(curves.x), "y": _floats(curves.y)}


def _floats(values: Any) -> np.ndarray:
    return np.ascontiguousarray(values, dtype=np.float32)
