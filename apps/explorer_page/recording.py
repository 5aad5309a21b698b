"""A scene with all its steps, and with some values of its rules' parameters: what an exported file shows by itself.

The stage's own parts are recorded, exactly as the page would send them, for each step of the time line and each
combination of the sliders' values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import param

from toyguide import rule
from toyguide.errors import InputError, unknown
from toyguide_apps.explorer_page.code import python_code, shell_code
from toyguide_apps.explorer_page.compute import Picture
from toyguide_apps.explorer_page.packing import Packer, Window
from toyguide_apps.explorer_page.panels import LETTERS, Request, following
from toyguide_apps.explorer_page.permalink import query_of, read
from toyguide_apps.explorer_page.planes import home_window
from toyguide_apps.explorer_page.state import LAYERS, ExplorerState
from toyguide_apps.explorer_page.views.parts import Look
from toyguide_apps.explorer_page.views.stage import StageView

__all__ = ["Recording", "Slider", "parse_slider", "usual_slider"]

_MOST_VALUES = 101
_MOST_PICTURES = 1000  # of all sliders together
_USUAL_VALUES = 9
_SLOW = frozenset({"critical"})  # found by a search that takes seconds at each noise level; kept if it is asked for


@dataclass(frozen=True)
class Slider:
    """A parameter of a panel's rule, and the values that it can take.

    Attributes:
        panel: The panel's number, from 0.
        name: The parameter.
        values: Its values, ascending.
    """

    panel: int
    name: str
    values: tuple[float, ...]


def parse_slider(text: str, state: ExplorerState) -> Slider:
    """A slider from a text like ``w=1:4:11``, or ``B.w=1:4:11``: eleven values of w from 1 to 4, and the scene's own.

    Args:
        text: The text; without a letter it is the chosen panel that is meant.
        state: The scene.

    Raises:
        InputError: If there is no such panel or parameter, or its values are out of bounds.
    """
    found = re.fullmatch(r"(?:([A-Z])\.)?(\w+)=([^:]+):([^:]+):(\d+)", text)
    try:
        low, high, count = (float(found[3]), float(found[4]), int(found[5])) if found else (0.0, 0.0, 0)
    except ValueError:
        found = None
    if found is None:
        raise InputError(f"slider {text!r}: expected NAME=FROM:TO:COUNT, like w=1:4:11 or B.w=1:4:11")
    letters = LETTERS[: len(state.panels)]
    if found[1] and found[1] not in letters:
        raise unknown("panel of a slider", found[1], letters)
    if not 2 <= count <= _MOST_VALUES or not low < high:
        raise InputError(f"slider {text!r}: expected FROM below TO, and a COUNT from 2 to {_MOST_VALUES}")
    panel = letters.index(found[1]) if found[1] else state.selected
    return _checked(panel, found[2], np.linspace(low, high, count).tolist(), state)


def usual_slider(state: ExplorerState) -> list[Slider]:
    """A slider for the first number among the parameters of the chosen panel's rule, if there is one."""
    chosen = state.panels[state.selected].rule
    for name, known in chosen.declared().items():
        if (bounds := _bounds(known)) is not None and math.isfinite(getattr(chosen, name)):
            return [_checked(state.selected, name, np.linspace(*bounds, _USUAL_VALUES).tolist(), state)]
    return []


def _bounds(known: param.Parameter) -> tuple[float, float] | None:
    """What a number's slider spans; None if it is no number or has no end."""
    if not isinstance(known, param.Number) or isinstance(known, param.Boolean):
        return None
    low, high = known.get_soft_bounds()
    return None if low is None or high in (None, math.inf) else (low, high)


def _nearest(values: Sequence[float], value: float) -> int:
    """The index of the value that is nearest to another one, which may be infinite."""
    return len(values) - 1 if value == math.inf else int(np.abs(np.array(values) - value).argmin())


def _checked(panel: int, name: str, values: list[float], state: ExplorerState) -> Slider:
    chosen = state.panels[panel].rule
    declared = {k: v for k, v in chosen.declared().items() if _bounds(v) is not None}
    if name not in declared:
        raise unknown(f"number of {chosen.key}", name, declared)
    whole = isinstance(declared[name], param.Integer)
    numbers = [round(v) if whole else float(f"{v:.6g}") for v in values]
    for value in (numbers[0], numbers[-1]):
        rule(chosen.key, **{**chosen.values(), name: value})
    own = getattr(chosen, name)
    kept = {*numbers, own} if numbers[0] <= own <= numbers[-1] else set(numbers)
    return Slider(panel, name, tuple(sorted(kept)))


class Recording:
    """Asks for the pictures of a scene one by one, and packs them.

    Args:
        state: The scene; it is copied.
        sliders: At most two.
        look: What is said about the scene as it is; with a slider elsewhere the runs speak for themselves.

    Raises:
        InputError: If the sliders are too many.
    """

    def __init__(self, state: ExplorerState, sliders: Sequence[Slider], look: Look) -> None:
        if len(sliders) > 2 or len({(s.panel, s.name) for s in sliders}) < len(sliders):
            raise InputError(f"{len(sliders)} sliders: expected at most two different ones")
        self._combinations = list(product(*(range(len(s.values)) for s in sliders)))
        if len(self._combinations) > _MOST_PICTURES:
            raise InputError(f"sliders with {len(self._combinations)} pictures: expected at most {_MOST_PICTURES}")
        self._sliders, self._look = tuple(sliders), look
        self._state = ExplorerState()
        read(self._state, query_of(state))
        self._panels = self._state.panels
        self._start = self._started()
        dropped = _SLOW - set(state.layers)
        self._layers = [layer for layer in LAYERS if layer not in dropped]
        self._state.set({"layers": self._layers, "opacity": {}, "point": None, "sample": None, "profile": False})
        self._state.set({"errors": False, "curve": None})
        self._packer = Packer()
        self._shots: list[list[dict[str, int]]] = []
        self._codes: list[dict[str, str]] = []
        self._title = ""

    def __len__(self) -> int:
        """How many pictures there are."""
        return len(self._combinations) * (self._state.steps + 1)

    def requests(self) -> Iterator[Request]:
        """The pictures that are needed; each is to be added before the next is asked for.

        Raises:
            InputError: If the scene's settings do not fit together.
        """
        for combination in self._combinations:
            self._enter(combination)
            self._view = StageView(self._state)  # which has sent nothing yet
            self._shots.append([])
            for step in range(self._state.steps + 1):
                self._state.set({"step": step})
                yield self._state.request()

    def add(self, picture: Picture) -> None:
        """Record the picture that was asked for last."""
        shots = self._shots[-1]
        if not shots:
            runs = picture.request.runs
            self._codes.append({"Python": python_code(runs), "Command line": shell_code(runs)})
        asis = self._state.panels == self._panels
        self._view.show(picture, self._look if asis else Look(metrics=self._look.metrics))
        shot = {}
        for name, value in self._view.stage.param.values().items():
            if name.startswith(("run_", "scene_", "arrows_", "legend", "headline", "board")) and value:
                shot[name] = self._packer.add(self._offered(name, value), self._windows(value))
        shots.append(shot)
        if asis or not self._title:
            self._title = self._view.stage.headline["title"]

    def packed(self) -> tuple[str, str]:
        """Title and packed contents, once every picture has been added."""
        sliders = [
            {
                "label": f"{s.name} of {LETTERS[s.panel]}" if len(self._panels) > 1 else s.name,
                "doc": self._panels[s.panel].rule.declared()[s.name].doc or "",
                "values": list(s.values),
                "start": _nearest(s.values, getattr(self._panels[s.panel].rule, s.name)),
            }
            for s in self._sliders
        ]
        said = {"start": self._start, "sliders": sliders, "shots": self._shots, "codes": self._codes}
        stage = self._view.stage
        return self._title, self._packer.packed(said | {"looks": stage.looks, "words": stage.words})

    def _started(self) -> dict[str, Any]:
        """What the visitor of a file can change, as it is at first."""
        state = self._state
        names = ("layers", "opacity", "bands", "window", "following", "step", "sample")
        return {name: getattr(state, name) for name in names}

    def _enter(self, combination: tuple[int, ...]) -> None:
        """Give the rules the sliders' values."""
        self._state.set({"panels": self._panels})
        for slider, index in zip(self._sliders, combination, strict=True):
            chosen = self._state.panels[slider.panel].rule
            values = {**chosen.values(), slider.name: slider.values[index]}
            self._state.set_rule(slider.panel, rule(chosen.key, **values))

    def _offered(self, name: str, part: dict[str, Any]) -> dict[str, Any]:
        """A part as a file offers it: a legend has only the layers and the background that were recorded."""
        if name != "legend":
            return part
        groups = [{**g, "rows": [r for r in g["rows"] if r["key"] in self._layers]} for g in part["groups"]]
        bands = part["bands"]
        kept = [option for option in bands["options"] if option[0] in ("none", self._state.bands)]
        return {**part, "groups": [g for g in groups if g["rows"]], "bands": {**bands, "options": kept}, "sources": []}

    def _windows(self, part: dict[str, Any]) -> list[Window]:
        """What a view that follows the noise shows where a part is: at a run's levels, or at this step's."""
        sigma = part.get("sigma") or [self._state.levels()[self._state.step]]
        home = home_window(self._state.dataset, self._state.plane)
        return [following(self._state.window, home, level) for level in sigma]
