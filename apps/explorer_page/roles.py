"""The fields that rules ask for, by role: what is on offer for each, and what stands in where nothing is chosen.

A role can have any name. Its kind decides what is offered for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from toyguide import Experiment, load_dataset, load_model
from toyguide.datasets.checkpoints import UNION, model_names
from toyguide.datasets.references import natural_reference, resolve_field
from toyguide.errors import InputError
from toyguide.fields import Field
from toyguide.guidance import ROLES, Rule, rules

__all__ = [
    "AUTO",
    "MAIN",
    "FieldRole",
    "choices",
    "experiment_of",
    "fields_of",
    "known_roles",
    "natural",
    "offered_roles",
    "resolve",
    "roles_of",
    "union_role",
]

AUTO = "natural partner"
"""The choice of a field that leaves it to the library."""
MAIN = "main"
"""The role of the field that is sampled."""
_KINDS = {MAIN: "sampled", "uncond": "union"}
_TITLES = {MAIN: "Main field", "uncond": "Unconditional"}


@dataclass(frozen=True)
class FieldRole:
    """A role.

    Attributes:
        name: The name that an experiment and a link use.
        kind: ``sampled``, ``union`` or ``weaker``.
        title: The label of its menu.
    """

    name: str
    kind: str
    title: str


def _role(name: str) -> FieldRole:
    return FieldRole(name, _KINDS.get(name, "weaker"), _TITLES.get(name, name.capitalize()))


def roles_of(rule: Rule | type[Rule]) -> dict[str, FieldRole]:
    """The roles that a rule evaluates, by name, ``main`` first."""
    return {name: _role(name) for name in dict.fromkeys((MAIN, *rule.needs))}


def known_roles() -> dict[str, FieldRole]:
    """The library's own roles and those of all rules, by name."""
    found = {name: _role(name) for name in ROLES}
    for rule in rules().values():
        found |= {name: role for name, role in roles_of(rule).items() if name not in found}
    return found


def offered_roles(chosen: list[Rule]) -> dict[str, FieldRole]:
    """The roles that get a menu: the library's own, and those that a chosen rule needs."""
    found = {name: _role(name) for name in ROLES}
    for rule in chosen:
        found |= {name: role for name, role in roles_of(rule).items() if name not in found}
    return found


def union_role() -> FieldRole:
    """The library's role for a field of all classes together."""
    return next(role for role in known_roles().values() if role.kind == "union")


@lru_cache(maxsize=256)
def choices(dataset: str, label: str, role: FieldRole) -> list[str]:
    """The references on offer for a role, the first being the one to start with.

    Args:
        dataset: The dataset's name.
        label: The class that is sampled, or ``union``.
        role: The role.
    """
    data = load_dataset(dataset)
    trained = [] if "?" in dataset else model_names(dataset)
    if role.kind == "sampled":
        fit = [name for name in trained if _fits(name, None if label == UNION else label)]
        natural = f"{dataset}/{data.models.get(role.name)}"
        return [*sorted(fit, key=lambda name: name != natural), "exact"]
    if role.kind == "union":
        others = [x for x in data.labels if x != label] if len(data.labels) <= 4 else []
        return [AUTO, *trained, "exact@union", *(f"exact@{x}" for x in others)]
    return [AUTO, *trained, "exact+noise:0.1", "exact+noise:0.2", "exact+noise:0.5"]


def _fits(name: str, label: str | None) -> bool:
    network = load_model(name)
    return bool(network.labels) or network.label == label


def natural(role: str, main: str, dataset: str) -> str:
    """The reference that stands in for a role.

    Raises:
        InputError: If the role has no natural partner.
    """
    return natural_reference(role, main, load_dataset(dataset))


def resolve(reference: str, dataset: str, label: str | None, role: str) -> Field:
    """The field that a reference means in a role.

    Raises:
        InputError: If there is no such field, or it does not fit.
    """
    return resolve_field(reference, load_dataset(dataset), label, role)


def fields_of(experiment: Experiment) -> dict[str, str]:
    """The references of the fields that an experiment evaluates, by role."""
    return experiment.references()


def experiment_of(settings: Mapping[str, Any], rule: Rule, fields: Mapping[str, Any]) -> Experiment:
    """The experiment with these settings, this rule and these fields.

    Raises:
        InputError: If they do not fit together.
    """
    unknown = [name for name in fields if name not in ROLES]
    if unknown:
        raise InputError(f"{rule.key}: a field for {unknown[0]!r} cannot be given")
    return Experiment(**settings, **fields, rule=rule.key, params=rule.values())
