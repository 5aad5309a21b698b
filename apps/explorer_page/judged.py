"""What the studies found about the claims that presets show."""

from __future__ import annotations

from toyguide.studies import study
from toyguide_apps.explorer_page.presets import presets
from toyguide_apps.studies_page.results import found

__all__ = ["judged"]


def judged(key: str) -> str:
    """A preset's verdict in a sentence; empty if no study judges it, or the study has no result."""
    name = presets()[key].study
    results, _ = found(study(name)) if name else ([], [])
    if not results:
        return ""
    summary = results[0].summary
    return f"The claim of the study “{summary['title']}”: {summary['verdict']}."
