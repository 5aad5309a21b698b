"""Addresses of the explorer, relative to the pages: of a preset, and of an experiment."""

from __future__ import annotations

from urllib.parse import urlencode

from toyguide import Experiment, rule
from toyguide.datasets import dataset_names
from toyguide.datasets.checkpoints import UNION
from toyguide.errors import InputError
from toyguide_apps.explorer_page.permalink import query_of
from toyguide_apps.explorer_page.roles import choices
from toyguide_apps.explorer_page.state import CONSTANT, SAMPLE_COUNTS, ExplorerState

__all__ = ["address_of_experiment", "address_of_preset"]

_EXPLORER = "explorer"


def address_of_preset(key: str) -> str:
    """A preset's address."""
    return f"{_EXPLORER}?{urlencode({'preset': key})}"


def address_of_experiment(experiment: Experiment) -> str | None:
    """An experiment's address: its run, beside the unguided one.

    Fields that the explorer does not offer, like networks that a study has trained, are left to its defaults: the
    bundled ones. There are at least as many samples as in the experiment, if the explorer offers so many.

    Returns:
        None if the explorer cannot show it: if the dataset is not bundled, or a setting is out of the explorer's range.
    """
    e = experiment
    own_levels = any(value is not None for value in (e.sigma_min, e.sigma_max, e.rho))
    if own_levels or e.dataset not in dataset_names():
        return None
    label = e.label or UNION
    offered = {k: v for k, v in e.references().items() if v in choices(e.dataset, label, e.roles()[k])}
    run = {
        "dataset": e.dataset,
        "label": label,
        "fields": offered,
        "rule": rule(e.rule, **e.params),
        "limited": e.interval is not None,
        "schedule": e.schedule or CONSTANT,
        "sampler": e.sampler,
        "steps": e.steps,
        "n": next((n for n in SAMPLE_COUNTS if n >= e.n), SAMPLE_COUNTS[-1]),
        "seed": e.seed,
    }
    state = ExplorerState()
    try:
        state.set(run if e.interval is None else {**run, "interval": e.interval})
    except InputError:
        return None
    return f"{_EXPLORER}?{urlencode(query_of(state))}"
