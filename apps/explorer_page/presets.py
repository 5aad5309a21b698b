"""Scenes with a name, from ``presets.toml``."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from toyguide_apps.explorer_page.panels import LETTERS, panel_names

__all__ = ["Preset", "Shown", "presets"]

_CONDITION = re.compile(r"(?:([A-D]) )?(\w+) (<=|>=) (\d+\.?\d*)(?: ([A-D]))?")


@dataclass(frozen=True)
class Shown:
    """A statement of a preset's sentence as a condition on a metric: ``C outliers <= 0.7 A``, say.

    Attributes:
        panel: The panel whose metric it is; the last one where the text names none.
        metric: The metric.
        at_most: Whether its value is at most the threshold; else at least.
        factor: The threshold, or
        times: the panel whose value it is a multiple of.
    """

    panel: int
    metric: str
    at_most: bool
    factor: float
    times: int | None

    @classmethod
    def parse(cls, text: str) -> Shown:
        """A condition from its text."""
        found = _CONDITION.fullmatch(text)
        assert found, f"{text!r}: expected METRIC <= NUMBER, or >=, a panel before it and one behind it for a multiple"
        panel = LETTERS.index(found[1]) if found[1] else -1
        times = LETTERS.index(found[5]) if found[5] else None
        return cls(panel, found[2], found[3] == "<=", float(found[4]), times)

    def holds(self, panels: Sequence[Mapping[str, Any]]) -> bool:
        """Whether it is so, from the metrics of all panels' runs."""
        threshold = self.factor * (1 if self.times is None else panels[self.times][self.metric])
        value = panels[self.panel][self.metric]
        return bool(value <= threshold if self.at_most else value >= threshold)


@dataclass(frozen=True)
class Preset:
    """Settings with a name and a sentence about what to see, and what that sentence says as conditions.

    Attributes:
        key: Its name in links.
        group: Where it stands in the menu.
        title: Its title.
        look: What is to be seen.
        shows: The same in numbers.
        study: The study that judges the claim behind it, or an empty text.
        settings: As for ``ExplorerState.set``.
    """

    key: str
    group: str
    title: str
    look: str
    shows: tuple[Shown, ...]
    study: str
    settings: Mapping[str, Any]


@lru_cache(maxsize=1)
def presets() -> dict[str, Preset]:
    """The presets by key, in the order of the file."""
    table = tomllib.loads(Path(__file__).with_name("presets.toml").read_text(encoding="utf-8"))
    return {key: _preset(key, entry) for key, entry in table.items()}


def _preset(key: str, entry: dict[str, Any]) -> Preset:
    group, title, look = (entry.pop(name) for name in ("group", "title", "look"))
    shows = tuple(map(Shown.parse, entry.pop("shows")))
    panels = _panels(entry.pop("panels", ()))
    study = entry.pop("study", "")
    return Preset(key, group, title, look, shows, study, entry | panels)


def _panels(tables: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The settings of panels that are listed one by one; without a list there are two, the first one unguided."""
    settings: dict[str, Any] = {"count": len(tables)} if tables else {}
    for name, table in zip(panel_names(len(tables)), tables, strict=False):
        settings[name] = table["rule"]
        settings["params" if name == "rule" else f"{name}.params"] = table.get("params", {})
        settings[f"{name}.own"] = {k: v for k, v in table.items() if k not in ("rule", "params")}
    return settings
