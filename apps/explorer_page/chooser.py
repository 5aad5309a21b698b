"""The list of all rules behind the rule's name: searched, by family, with what cannot run in the scene greyed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import panel as pn
import param
import torch
from panel.custom import JSComponent

from toyguide.errors import InputError
from toyguide.guidance import Evaluation, Rule, rules
from toyguide_apps.explorer_page.costs import cost_of
from toyguide_apps.explorer_page.own_rules import OWN
from toyguide_apps.explorer_page.precedence import PICTURES
from toyguide_apps.explorer_page.runs import scene_of
from toyguide_apps.explorer_page.state import ExplorerState
from toyguide_apps.shared.notices import told

__all__ = ["RuleChooser", "badges_of", "families", "obstacle"]

_SOURCES = Path(__file__).with_name("stage")
_GUESSED = " (reconstruction)"


class ChooserModel(JSComponent):
    """The button and its list. It asks with messages; what it shows is sent as parameters."""

    _esm = _SOURCES / "chooser.js"
    style: Any = param.String(default=(_SOURCES / "chooser.css").read_text(encoding="utf-8"))
    chosen: Any = param.Dict(default={}, doc="The panel's rule.")
    families: Any = param.List(default=[], doc="All rules, family by family.")
    blocked: Any = param.Dict(default={}, doc="Why rules cannot run in the scene, by name.")
    costs: Any = param.Dict(default={}, doc="What a step of each rule costs.")

    heard: Callable[[Any], None] | None = None
    _rename: ClassVar[dict[str, str | None]] = {"heard": None}

    def _handle_msg(self, data: Any) -> None:
        if self.heard is not None:
            self.heard(data)


class RuleChooser(pn.viewable.Viewer):
    """The selected panel's rule, and the list to choose another one from.

    Args:
        state: The settings.
        choose: Called with the name of the rule that is chosen.
    """

    def __init__(self, state: ExplorerState, choose: Callable[[str], None]) -> None:
        super().__init__()
        self._state, self._choose = state, choose
        self.model = ChooserModel(name="rule", families=families(), sizing_mode="stretch_width", margin=(6, 8))
        self.model.heard = self._hear

    def show(self, chosen: Rule) -> None:
        """Follow the panel's rule."""
        self.model.chosen = {"key": chosen.key, "title": chosen.title}

    @told
    def _hear(self, message: Any) -> None:
        kind = message.get("kind") if isinstance(message, dict) else None
        if kind == "open":
            if (listed := families()) != self.model.families:  # a file has changed
                self.model.families = listed
            pn.state.execute(self._look_up, schedule=True)
        elif kind == "choose":
            self._choose(str(message.get("key")))

    async def _look_up(self) -> None:
        """What takes longer than the list may take to open: first what cannot run, then the costs."""
        for name, find in (("blocked", self._blocked), ("costs", _costs)):
            found = await asyncio.to_thread(find)
            with pn.io.hold():
                setattr(self.model, name, found)

    def _blocked(self) -> dict[str, str]:
        reasons = {key: obstacle(self._state, self._state.selected, cls()) for key, cls in rules().items()}
        return {key: reason for key, reason in reasons.items() if reason}

    def __panel__(self) -> pn.viewable.Viewable:
        return self.model


def families() -> list[dict[str, Any]]:
    """All rules, family by family, as the list shows and searches them; those of one's own files come first."""
    found: dict[str, list[dict[str, Any]]] = {}
    known = rules()
    for key in dict.fromkeys((*OWN.keys, *known)):
        cls = known[key]
        entry = {
            "key": key,
            "title": cls.title.replace(_GUESSED, ""),
            "what": re.split(r"(?<=\.) ", cls.summary)[0],
            "summary": cls.summary,
            "badges": badges_of(cls),
            "find": f"{key} {cls.title} {cls.short} {cls.summary} {cls.source}".lower(),
        }
        found.setdefault("Yours" if key in OWN.keys else cls.family, []).append(entry)
    return [{"family": family, "rules": of} for family, of in found.items()]


def badges_of(cls: type[Rule]) -> list[str]:
    """What is special about a rule, in a word or two each."""
    kinds = {role.kind for role in cls.roles().values()}
    said = {
        "reconstruction": cls.title.endswith(_GUESSED),
        "needs noise": cls.needs_noise,
        "first order": cls.first_order,
        "needs a trained network": bool(kinds & {"network", "internal", "adapter"}),
    }
    return [badge for badge, holds in said.items() if holds]


def obstacle(state: ExplorerState, index: int, chosen: Rule) -> str:
    """Why a panel cannot have a rule in the present scene; empty if it can.

    That is found from its fields and from what it makes before its first step, without a run.
    """
    try:
        experiment = state.experiment(index, chosen)
        if experiment.label is None and any(role.kind == "classifier" for role in experiment.roles().values()):
            return "it needs one class, not all together"
        at = Evaluation(scene_of(experiment, "cpu"), torch.zeros(2, experiment.data.dim), float(experiment.levels()[0]))
        chosen.begin(at, torch.Generator())
    except InputError as problem:
        return str(problem)
    except Exception as problem:  # in a rule of one's own
        return f"{type(problem).__name__}: {problem}"
    return ""


def _costs() -> dict[str, str]:
    """The cost of every rule; counted once, and never while a picture is computed."""
    found = {}
    for key, cls in rules().items():
        PICTURES.wait()
        found[key] = cost_of(cls)
    return found
