"""The results of studies: those bundled with toyguide and those of runs on this server.

A result is a folder with a ``summary.json``. Bundled results are in ``studies/`` in a checkout and in a package of
their own in an installation; the server's own are in ``out/studies`` under its working directory, or in the folder that
the environment variable ``TOYGUIDE_STUDIES`` names.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from toyguide.errors import InputError
from toyguide.studies import Plan, Study
from toyguide.studies.plan import SEEDS
from toyguide.studies.record import Record, Run, runs_of
from toyguide.studies.report import SUMMARY, describe, read_summary
from toyguide.studies.run import folder_of, remaining_cost
from toyguide.studies.workshop import Workshop
from toyguide_apps.shared.bundled import bundled

__all__ = ["Found", "bundled_root", "found", "output_root", "rough_seconds"]

_TEXTS = ("name", "title", "statement", "source", "setting", "verdict", "command")
_CRITERION = {"text", "threshold", "value", "low", "high", "p_against", "verdict"}


@dataclass(frozen=True)
class Found:
    """A study's result.

    Attributes:
        summary: The summary, with everything that a page shows.
        folder: Its folder.
        own: Whether it was run here.
        when: When it was written, in seconds since the epoch.
        dated: Whether it was judged by other criteria than the study has now.
    """

    summary: dict[str, Any]
    folder: Path
    own: bool
    when: float
    dated: bool

    @property
    def key(self) -> str:
        """Its name on the page."""
        return "bundled" if not self.own else "quick" if self.summary["quick"] else "full"

    def file(self, name: str) -> Path | None:
        """One of its files, if it exists; never one outside its folder."""
        path = self.folder / name
        return path if Path(name).name == name and path.is_file() else None


def output_root() -> Path:
    """The folder of this server's own results."""
    return Path(os.environ.get("TOYGUIDE_STUDIES") or Path("out") / "studies")


def bundled_root() -> Path | None:
    """The folder of the bundled results: ``studies/`` in a checkout, else their own package."""
    return bundled("studies")


def found(study: Study) -> tuple[list[Found], list[str]]:
    """A study's results, full runs before quick looks and new before old; and the unreadable ones, one line each."""
    output, bundled = output_root(), bundled_root()
    places = [(folder_of(study, Plan(quick=quick), output), True) for quick in (False, True)]
    if bundled is not None and bundled.resolve() != output.resolve():
        places.append((bundled / study.name, False))
    results, problems = [], []
    for folder, own in places:
        path = folder / SUMMARY
        try:
            when = path.stat().st_mtime_ns
            summary = _checked(path, when)
        except OSError:
            continue  # not run, or being replaced
        except InputError as problem:
            problems.append(str(problem))
            continue
        results.append(Found(summary, folder, own, when / 1e9, _dated(study, summary)))
    return sorted(results, key=lambda r: (r.key == "quick", -r.when)), problems


def rough_seconds(study: Study, quick: bool) -> float:
    """A rough estimate of a study's remaining seconds on two cores."""
    plan, output = Plan(quick, SEEDS[quick]), output_root()
    record = Record(study, _runs(study, quick), folder_of(study, plan, output))
    return remaining_cost(record, Workshop(plan, output / "networks"))


@lru_cache(maxsize=128)
def _runs(study: Study, quick: bool) -> list[Run]:
    return runs_of(study, Plan(quick, SEEDS[quick]))


@lru_cache(maxsize=128)
def _checked(path: Path, _when: int) -> dict[str, Any]:
    summary = read_summary(path)
    flawed = InputError(f"{str(path)!r}: not the summary of a study")
    try:
        whole = all(isinstance(summary[key], str) for key in _TEXTS)
        whole &= all(set(c) >= _CRITERION for c in summary["criteria"])
        whole &= all(isinstance(s[key], str) for s in summary["sheets"] for key in ("name", "caption"))
        whole &= all(len(summary["intervals"][name]) == 2 for name in summary["figures"])
    except (LookupError, TypeError, AttributeError) as problem:
        raise flawed from problem
    if not whole:
        raise flawed
    return summary


def _dated(study: Study, summary: dict[str, Any]) -> bool:
    now = [(c["text"], c["threshold"]) for c in describe(study)["criteria"]]
    return now != [(c["text"], c["threshold"]) for c in summary["criteria"]]
