"""The menu of a weight's schedules, and a picture of the selected panel's weight over the noise levels."""

from __future__ import annotations

import math
from typing import Any

import panel as pn
import panel_material_ui as pmui
import param

from toyguide import Experiment, rule
from toyguide.errors import InputError
from toyguide.guidance import Schedule
from toyguide.guidance.schedules import weight_of, why_constant
from toyguide_apps.explorer_page.state import CONSTANT, ExplorerState
from toyguide_apps.shared.notices import told

__all__ = ["ScheduleCard", "offered_schedules", "picture_of"]

_TITLES = {
    CONSTANT: "constant",
    "linear": "rising line",
    "linear-down": "falling line",
    "cosine": "rising cosine",
    "cosine-down": "falling cosine",
    "v": "V: both ends",
    "triangle": "triangle: the middle",
    "beta": "beta: the middle, round",
    "early:0.5": "early half alone",
    "late:0.5": "late half alone",
}
_DOC = "How the weight varies from the highest noise level to the lowest. Its mean over the steps stays as it is set."
_WIDTH, _HEIGHT, _EDGE = 240, 56, 6  # pixels
_PICTURE = """
    :host { font-size: 12px; line-height: 1.3; } svg { display: block; width: 100%; height: auto; }
    .weight { fill: none; stroke: currentColor; stroke-width: 2; }
    .unguided { stroke: currentColor; stroke-width: 1; stroke-dasharray: 3 3; opacity: .5; }
    p { margin: 0; opacity: .8; }
"""


def offered_schedules(chosen: str) -> dict[str, str]:
    """The schedules of a menu by their titles; one that is chosen but not offered, of another share, is among them."""
    named = _TITLES if chosen in _TITLES else {**_TITLES, chosen: chosen}
    return {title: schedule for schedule, title in named.items()}


def picture_of(experiment: Experiment) -> str:
    """The weight of each step over the logarithm of the noise level that it starts from, as HTML with an inline SVG.

    Empty if the weight is constant. Outside the interval of a run the weight is the unguided one.
    """
    if experiment.schedule is None:
        return ""
    levels = experiment.levels().tolist()
    schedule = Schedule(rule(experiment.rule, **experiment.params), experiment.schedule, levels)
    unguided, (low, high) = schedule.unguided_weight, experiment.interval or (0.0, math.inf)
    weights = [schedule.weight_at(s) if low < s <= high else unguided for s in levels[:-1]]
    least, most = min(*weights, unguided), max(*weights, unguided)
    span = most - least or 1.0

    def x(sigma: float) -> float:
        reach = math.log(levels[0] / levels[-2]) or 1.0
        return _EDGE + (_WIDTH - 2 * _EDGE) * math.log(levels[0] / sigma) / reach

    def y(weight: float) -> float:
        return _HEIGHT - _EDGE - (_HEIGHT - 2 * _EDGE) * (weight - least) / span

    points = " ".join(f"{x(s):.1f},{y(w):.1f}" for s, w in zip(levels[:-1], weights, strict=True))
    told_of = f"{schedule.weight} from {least:.3g} to {most:.3g}, over σ from {levels[0]:.3g} to {levels[-2]:.3g}"
    return (
        f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' role='img' aria-label='{told_of}'>"
        f"<line class='unguided' x1='{_EDGE}' x2='{_WIDTH - _EDGE}' y1='{y(unguided):.1f}' y2='{y(unguided):.1f}'/>"
        f"<polyline class='weight' points='{points}'/></svg><p>{told_of}</p>"
    )


class ScheduleCard(pn.viewable.Viewer):
    """The schedule of all panels' weights, and the selected panel's weight over the noise levels.

    Args:
        state: The settings.
    """

    def __init__(self, state: ExplorerState) -> None:
        super().__init__()
        self._state = state
        self._following = False
        look: dict[str, Any] = {"sizing_mode": "stretch_width", "margin": (6, 8), "size": "small"}
        self._menu = pmui.Select(label="Schedule of w", options=[], description=_DOC, **look)
        self._menu.param.watch(self._choose, "value")
        self._picture = pn.pane.HTML("", sizing_mode="stretch_width", margin=(0, 8), stylesheets=[_PICTURE])
        watched = ["panels", "selected", "schedule", "limited", "interval", "steps", "dataset"]
        state.param.watch(lambda *_: self._follow(), watched)
        self._follow()

    def _follow(self) -> None:
        """Options and value in one step: a menu whose options have just changed would choose one of them itself."""
        state, self._following = self._state, True
        chosen = state.panels[state.selected].rule
        scheduled = weight_of(chosen) is not None
        settings: dict[str, Any] = {"options": offered_schedules(state.schedule), "value": state.schedule}
        self._menu.param.update(disabled=not scheduled, **settings)
        self._following = False
        try:
            drawn = picture_of(state.experiment(state.selected))
        except InputError:  # told where it is run
            drawn = ""
        self._picture.object = drawn if scheduled else f"<p>No schedule for this rule: {why_constant(chosen)}.</p>"
        self._picture.visible = bool(self._picture.object)

    @told
    def _choose(self, event: param.parameterized.Event) -> None:
        if not self._following and event.new is not None:
            self._state.set({"schedule": event.new})

    def __panel__(self) -> pn.viewable.Viewable:
        return pn.Column(self._menu, self._picture, margin=0, sizing_mode="stretch_width")
