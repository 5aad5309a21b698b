"""The standings that the page shows: those of this server, or those that came with toyguide.

The server's own are in ``out/league`` under its working directory, or in the folder that the environment variable
``TOYGUIDE_LEAGUE`` names.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from toyguide import Experiment
from toyguide.errors import InputError
from toyguide.guidance import FAMILIES
from toyguide.league import read_league
from toyguide.league.report import STANDINGS, table
from toyguide.league.settings import text_of
from toyguide.palette import SERIES
from toyguide_apps.explorer_page.links import address_of_experiment
from toyguide_apps.shared.bundled import bundled

__all__ = ["league_folder", "shown", "standings_of"]


def league_folder() -> Path | None:
    """The folder of the standings; None if there are none."""
    own = Path(os.environ.get("TOYGUIDE_LEAGUE") or Path("out") / "league")
    places = [own, bundled("league")]
    return next((p for p in places if p is not None and (p / STANDINGS).is_file()), None)


def standings_of(folder: Path) -> dict[str, Any]:
    """The standings in a folder.

    Raises:
        InputError: If the file is not one of standings.
    """
    return _read(folder, (folder / STANDINGS).stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _read(folder: Path, _when: int) -> dict[str, Any]:
    return read_league(folder)


def shown(folder: Path) -> dict[str, Any]:
    """All that the page's component draws, as JSON values.

    Raises:
        InputError: If the file is not one of standings.
    """
    return _shown(folder, (folder / STANDINGS).stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _shown(folder: Path, when: int) -> dict[str, Any]:
    arenas = _read(folder, when)["arenas"]
    present = {s["family"] for arena in arenas.values() for s in arena["rules"].values()}
    families = [*FAMILIES, *sorted(present - set(FAMILIES))]
    return {
        "families": [
            {"name": name, "colour": SERIES[i % len(SERIES)], "shape": i}
            for i, name in enumerate(families)
            if name in present
        ],
        "arenas": [{"name": name, **_arena(arena)} for name, arena in arenas.items()],
    }


def _arena(arena: Mapping[str, Any]) -> dict[str, Any]:
    titles, rows = table(arena)
    across = "coverage" if arena["branched"] else "distance_there"
    return {
        "title": arena["title"],
        "branched": arena["branched"],
        "front": arena["front"],
        "titles": titles,
        "rules": [
            {
                "rule": key,
                "title": s["title"],
                "family": s["family"],
                "setting": text_of(s["params"]) or "defaults",
                "x": s["numbers"].get(across),
                "y": s["numbers"]["outliers"],
                "cells": cells,
                "address": _address(arena, key, s),
            }
            for (key, s), cells in zip(arena["rules"].items(), rows, strict=True)
        ],
        "absent": list(arena["absent"].items()),
    }


def _address(arena: Mapping[str, Any], key: str, standing: Mapping[str, Any]) -> str | None:
    """A setting's address in the explorer, with the bundled networks; None for a rule that is not known here."""
    try:
        run = Experiment(
            arena["dataset"],
            arena["label"],
            rule=key,
            params=standing["params"],
            sampler=standing["sampler"],
            steps=standing["steps"],
        )
    except InputError:
        return None
    return address_of_experiment(run)
