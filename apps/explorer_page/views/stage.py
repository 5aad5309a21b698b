"""The stage: one component of the browser that draws all panels, their time line, legend and headline.

Its JavaScript lies in ``stage/``. The page sends it each part of a picture that has changed; what a visitor does there
comes back as messages, each of which is checked like any other setting.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import panel as pn
import param
from panel.custom import JSComponent

from toyguide.errors import InputError
from toyguide_apps.explorer_page.compute import Picture
from toyguide_apps.explorer_page.glossary import glossary
from toyguide_apps.explorer_page.layers.responses import parameters
from toyguide_apps.explorer_page.looks import looks
from toyguide_apps.explorer_page.panels import LETTERS
from toyguide_apps.explorer_page.planes import home_window
from toyguide_apps.explorer_page.state import ExplorerState
from toyguide_apps.explorer_page.views import parts
from toyguide_apps.explorer_page.views.headline import headline
from toyguide_apps.explorer_page.views.legend import legend
from toyguide_apps.shared.notices import complain

__all__ = ["StageModel", "StageView", "script"]

_LOG = logging.getLogger(__name__)
_SOURCES = Path(__file__).parents[1] / "stage"
_MODULES = ("icons", "view", "paint", "panel", "timeline", "legend", "words", "welcome", "stage")


def script() -> str:
    """The stage's JavaScript, with its style: what the page and an exported file both run."""
    style = (_SOURCES / "stage.css").read_text(encoding="utf-8")
    modules = [(_SOURCES / f"{name}.js").read_text(encoding="utf-8") for name in _MODULES]
    return "\n".join([f"const STYLE = {json.dumps(style)}", *modules])


def _parameters() -> dict[str, Any]:
    """One parameter for each part that is sent by itself."""
    names = [f"{part}_{i + 1}" for part in ("run", "scene", "arrows") for i in range(len(LETTERS))]
    return {
        n: param.Dict(default={})
        for n in ("looks", "words", "address", "board", "marks", "legend", "headline", "status", *names)
    }


class StageModel(JSComponent):
    """The component; its parameters are the parts."""

    _esm = script() + (_SOURCES / "panel_component.js").read_text(encoding="utf-8")
    locals().update(_parameters())

    heard: Callable[[dict[str, Any]], None] | None = None
    _rename: ClassVar[dict[str, str | None]] = {"heard": None}

    def _handle_msg(self, data: Any) -> None:
        if self.heard is not None:
            self.heard(data)


def _words() -> dict[str, dict[str, str]]:
    """The glossary; a metric's entry by the metric's name."""
    return {entry.metric or key: {"term": entry.term, "text": entry.text} for key, entry in glossary().items()}


class StageView(pn.viewable.Viewer):
    """The stage, and what a visitor does on it.

    Args:
        state: Told of what the visitor does.
        playing: Told whether the stage plays, with each step that it says.
        travelled: Told of the address that the visitor went back or on to, from its question mark on.
    """

    def __init__(
        self,
        state: ExplorerState,
        playing: Callable[[bool], None] = lambda _: None,
        travelled: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__()
        self._state, self._playing, self._travelled = state, playing, travelled
        self._said = 0
        self._shown: dict[str, Any] = {}
        self._kept: dict[int, tuple[str, dict[int, bool]]] = {}  # the browser's layers: their key; steps, and if whole
        self.stage = StageModel(
            name="stage",
            looks=looks(),
            words=_words(),
            sizing_mode="stretch_width",
            margin=(0, 8),
            styles={"flex": "none", "max-height": "none"},
        )
        self.stage.heard = self._hear
        self._status = {"busy": 0, "coarse": 0}

    def show(self, picture: Picture, look: parts.Look) -> None:
        """Draw a picture; what has not changed since the last one is not sent again.

        Args:
            picture: The picture.
            look: What is said about it.
        """
        changes: dict[str, Any] = {}
        for i, (run, arrows) in enumerate(zip(picture.runs, picture.guidance, strict=True), 1):
            if self._fresh(f"run_{i}", run):
                changes[f"run_{i}"] = parts.run(run)
            if self._fresh(f"arrows_{i}", arrows):
                changes[f"arrows_{i}"] = parts.strokes(arrows)
        changes |= self._layers(picture, self._state.step)
        if self._fresh("marks", (picture.inspection, picture.terms)):
            changes["marks"] = parts.marks(picture)
        changes["board"] = self._board(picture)
        changes["legend"] = legend(picture, self._state)
        if not picture.coarse:
            changes["headline"] = headline(picture, look)
        self._status["coarse"] = int(picture.coarse)
        changes["status"] = dict(self._status)
        self._send(changes)

    def follow(self, picture: Picture | None) -> None:
        """Send what the settings say about a picture that is shown already."""
        if picture is not None and len(picture.runs) == len(self._state.panels):
            self._send({"board": self._board(picture)})

    def ahead(self, picture: Picture, step: int) -> None:
        """Send the layers of another noise level of the same picture, for when the time line gets there."""
        self._send(self._layers(picture, step))

    def write_address(self, search: str) -> None:
        """Put the settings into the visitor's address bar."""
        self.stage.address = {"search": search, "count": self.stage.address.get("count", 0) + 1}

    def busy(self, busy: bool) -> None:
        """Say on the page whether a picture is being computed."""
        self._status["busy"] = int(busy)
        self._send({"status": dict(self._status)})

    def _send(self, changes: dict[str, Any]) -> None:
        fresh = {k: v for k, v in changes.items() if k not in ("board", "legend", "headline", "status")}
        fresh |= {k: v for k, v in changes.items() if k not in fresh and getattr(self.stage, k) != v}
        self.stage.param.update(**fresh)

    def _layers(self, picture: Picture, step: int) -> dict[str, Any]:
        """The layers of a step that the browser has not got yet.

        It keeps those of one key by their step, so a key is of one time line. The last step shows the layers of the one
        before, since learned fields have no value at sigma = 0.
        """
        state, fresh = self._state, {}
        step = min(step, state.steps - 1)
        for i, scene in enumerate(dict.fromkeys(picture.scenes), 1):
            made = parts.scene(picture, scene, step)
            key = made["key"] = repr((state.dataset, state.steps, state.following)) + made["key"]
            if self._kept.get(i, ("", {}))[0] != key:
                self._kept[i] = key, {}
            steps, whole = self._kept[i][1], scene.missing is None
            if steps.get(step) is not whole:
                steps[step] = whole
                fresh[f"scene_{i}"] = made
        return fresh

    def _board(self, picture: Picture) -> dict[str, Any]:
        state = self._state
        scenes = list(dict.fromkeys(picture.scenes))
        return {
            "panels": [
                {
                    "title": parts.title(run),
                    "note": parts.note(run.experiment),
                    "scene": scenes.index(scene) + 1,
                    "empty": scene.empty,
                }
                for run, scene in zip(picture.runs, picture.scenes, strict=True)
            ],
            "selected": state.selected,
            "levels": list(state.levels()),
            "step": min(state.step, state.steps),
            "home": list(home_window(state.dataset, state.plane)),
            "window": list(state.window),
            "following": state.following,
            "layers": list(state.layers),
            "opacity": dict(state.opacity),
            "interval": self._interval(),
            "point": list(state.point) if state.point else None,
            "sample": state.sample,
            "open": {
                "table": state.table,
                "point": state.point is not None,
                "sample": state.sample,
                "curve": state.curve is not None,
                "errors": state.errors,
                "edge": state.profile if state.ends else None,
            },
            "said": self._said,
        }

    def _interval(self) -> list[float] | None:
        """The guidance interval of the selected panel, which has handles on the time line; None for everywhere."""
        state = self._state
        shared = state.interval if state.limited else None
        interval = state.panels[state.selected].own.get("interval", shared)
        return None if interval is None else list(interval)

    def _fresh(self, name: str, value: Any) -> bool:
        """Whether this is another object, or a tuple of others, than was last shown under the name."""
        known = self._shown.get(name, self)
        if isinstance(value, tuple) and isinstance(known, tuple):
            same = len(value) == len(known) and all(a is b for a, b in zip(value, known, strict=True))
        else:
            same = known is value
        self._shown[name] = value
        return not same

    def _hear(self, message: Any) -> None:
        """Apply what a visitor did; a message that is not valid is answered and changes nothing."""
        try:
            self._apply(message)
        except InputError as problem:
            complain(str(problem))
        except (KeyError, TypeError, ValueError):
            _LOG.debug("a message was refused", exc_info=True)
            complain(f"the page said {str(message)[:80]!r}: expected one of its own messages")

    def _apply(self, message: dict[str, Any]) -> None:
        state = self._state
        kind, value = message["kind"], message.get("value")
        said = message.get("said", 0)
        self._said = said if isinstance(said, int) else 0
        if kind == "step":
            self._playing(message.get("playing") is True)
            state.set({"step": value})
        elif kind == "window":
            state.set({"window": tuple(value or ()), "following": message["following"] is True})
        elif kind == "home":
            state.go_home()
        elif kind == "point":
            state.set({"point": value if value is None else tuple(value)})
            state.held = message["held"] is True
        elif kind == "interval":
            own = state.panels[state.selected].own
            if own.get("interval") is not None:
                state.set_own(state.selected, {**own, "interval": tuple(value or ())})
            else:
                state.set({"interval": tuple(value or ())})
            state.held = message["held"] is True
        elif kind in ("sample", "bands", "source", "opacity"):
            state.set({kind: value})
        elif kind == "layer":
            others = [layer for layer in state.layers if layer != message["layer"]]
            state.set({"layers": [*others, message["layer"]] if message["on"] is True else others})
        elif kind == "select":
            state.set({"selected": message["panel"]})
        elif kind == "travel":
            self._travelled(str(value))
        elif kind == "open":
            self._open(message["what"], message["on"] is True)
        else:
            {"copy": state.copy_panel, "remove": state.remove_panel, "swap": state.swap_panels}[kind](message["panel"])

    def _open(self, what: str, on: bool) -> None:
        """Open or close one of the parts below the stage."""
        state = self._state
        if what == "point":
            left, bottom, right, top = state.window
            state.set({"point": ((left + right) / 2, (bottom + top) / 2) if on else None})
        elif what == "sample":
            state.set({"sample": None})
        elif what == "curve":
            # Outliers against the first parameter of a rule, to begin with.
            first = parameters([state.experiment(i) for i in range(len(state.panels))])[0]
            state.set({"curve": ("outliers", first) if on else None})
        else:
            state.set({{"table": "table", "errors": "errors", "edge": "profile"}[what]: on})

    def __panel__(self) -> pn.viewable.Viewable:
        return self.stage
