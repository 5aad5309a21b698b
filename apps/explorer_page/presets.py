"""Scenes with a name, from ``presets.toml``."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

__all__ = ["Preset", "Shown", "presets"]


@dataclass(frozen=True)
class Shown:
    """A statement of a preset's sentence as a condition on a metric: ``outliers <= 0.7 unguided``, say.

    Attributes:
        metric: The metric.
        at_most: Whether its value is at most the threshold; else at least.
        factor: The threshold, or
        of_unguided: whether it is a multiple of the value of the other panel, the unguided run.
    """

    metric: str
    at_most: bool
    factor: float
    of_unguided: bool

    @classmethod
    def parse(cls, text: str) -> Shown:
        """A condition from its text."""
        found = re.fullmatch(r"(\w+) (<=|>=) (\d+\.?\d*)( unguided)?", text)
        assert found, f"{text!r}: expected METRIC <= NUMBER, or >=, and unguided behind it for a multiple"
        return cls(found[1], found[2] == "<=", float(found[3]), found[4] is not None)

    def holds(self, guided: Mapping[str, Any], unguided: Mapping[str, Any]) -> bool:
        """Whether it is so, from the metrics of both runs."""
        threshold = self.factor * (unguided[self.metric] if self.of_unguided else 1)
        value = guided[self.metric]
        return bool(value <= threshold if self.at_most else value >= threshold)


@dataclass(frozen=True)
class Preset:
    """Settings with a name and a sentence about what to see, and what that sentence says as conditions.

    Attributes:
        key: Its name in links.
        title: Its name in the menu.
        look: The sentence.
        shows: The conditions.
        study: The study that judges the claim behind it, or an empty text.
        settings: The settings, as for ``ExplorerState.set``.
    """

    key: str
    title: str
    look: str
    shows: tuple[Shown, ...]
    study: str
    settings: Mapping[str, Any]


@lru_cache(maxsize=1)
def presets() -> dict[str, Preset]:
    """The presets by key, in the order of the file."""
    table = tomllib.loads(Path(__file__).with_name("presets.toml").read_text(encoding="utf-8"))
    return {
        k: Preset(
            k, v.pop("title"), v.pop("look"), tuple(map(Shown.parse, v.pop("shows"))), v.pop("study", ""), settings=v
        )
        for k, v in table.items()
    }
