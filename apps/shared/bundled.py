"""Where the data that came with toyguide lie: beside the apps in a checkout, in a package of their own installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

__all__ = ["bundled"]


def bundled(name: str) -> Path | None:
    """The folder ``name/`` of a checkout, or the package ``toyguide_name`` of an installation; None without either."""
    beside = Path(__file__).resolve().parents[2] / name
    if (beside / "__init__.py").is_file():
        return beside
    spec = importlib.util.find_spec(f"toyguide_{name}")
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) if places else None
