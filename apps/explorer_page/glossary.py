"""The explorer's words, from ``glossary.toml``."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

__all__ = ["Entry", "glossary"]


@dataclass(frozen=True)
class Entry:
    """A word and what it means.

    Attributes:
        term: The word, as it is shown.
        text: One or two sentences.
        role: The library's role that it explains, or an empty text.
        metric: The library's metric that it explains, or an empty text.
    """

    term: str
    text: str
    role: str = ""
    metric: str = ""


@lru_cache(maxsize=1)
def glossary() -> dict[str, Entry]:
    """The entries by key, in the order of the file."""
    table = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    return {key: Entry(**entry) for key, entry in table.items()}
