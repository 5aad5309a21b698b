"""Where a study's claim can be seen in the explorer."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlencode

from toyguide import Experiment, rule
from toyguide.studies import Plan, Study
from toyguide_apps.explorer_page.links import address_of_experiment, address_of_preset
from toyguide_apps.explorer_page.presets import presets

__all__ = ["Scene", "scenes"]


@dataclass(frozen=True)
class Scene:
    """A scene of the explorer.

    Attributes:
        title: What it shows.
        address: Its address, relative to the pages.
    """

    title: str
    address: str


@lru_cache(maxsize=128)
def scenes(study: Study) -> tuple[Scene, ...]:
    """The presets that show a study's claim; if there is none, a run of each rule, else the scene written for it."""
    made = [Scene(p.title, address_of_preset(p.key)) for p in presets().values() if p.study == study.name]
    made = made or _of_cells(study)
    written = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    if not made and study.name in written:
        table = written[study.name]
        made = [Scene(table["title"], f"explorer?{urlencode(table['query'])}")]
    return tuple(made)


def _of_cells(study: Study) -> list[Scene]:
    """The middle one of each rule's runs, with the bundled networks in the place of the study's own."""
    runs: dict[str, list[Experiment]] = {}
    for cell in study.cells(Plan(quick=True)):
        if isinstance(cell.run, Experiment) and cell.run.rule != "none":
            runs.setdefault(cell.run.rule, []).append(cell.run)
    middle = [of[len(of) // 2] for of in runs.values()]
    found = [(e, address_of_experiment(e)) for e in middle]
    return [Scene(_title(e), address) for e, address in found if address is not None]


def _title(experiment: Experiment) -> str:
    place = experiment.dataset if experiment.label is None else f"{experiment.dataset} {experiment.label}"
    numbers = [f"{k} = {v:g}" for k, v in experiment.params.items() if isinstance(v, float)]
    if experiment.interval is not None:
        numbers.append("from σ = {:g} to {:g}".format(*experiment.interval))
    if experiment.schedule is not None:
        numbers.append(experiment.schedule)
    return f"{rule(experiment.rule).title}, {', '.join(numbers)}, on {place}"
