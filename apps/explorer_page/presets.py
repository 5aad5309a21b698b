"""Scenes with a name, from ``presets.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

__all__ = ["Preset", "presets"]


@dataclass(frozen=True)
class Preset:
    """Settings with a name and a sentence about what to see."""

    key: str
    title: str
    look: str
    settings: Mapping[str, Any]


@lru_cache(maxsize=1)
def presets() -> dict[str, Preset]:
    """The presets by key, in the order of the file."""
    table = tomllib.loads(Path(__file__).with_name("presets.toml").read_text(encoding="utf-8"))
    return {k: Preset(k, v.pop("title"), v.pop("look"), v) for k, v in table.items()}
