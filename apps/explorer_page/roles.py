"""The fields that rules ask for, by role: what is on offer for each, and what stands in where nothing is chosen.

A role can have any name. Its kind decides what is offered for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from toyguide import load_dataset, load_model
from toyguide.datasets.checkpoints import UNION, model_names
from toyguide.datasets.references import natural_reference
from toyguide.fields.two_headed import TwoHeadedMLP
from toyguide.guidance import ROLES, Role, Rule, rules

__all__ = ["AUTO", "MAIN", "choices", "known_roles", "natural", "offered_roles", "roles_of", "title_of", "union_role"]

AUTO = "natural partner"
"""The choice of a field that leaves it to the library."""
MAIN = "main"
"""The role of the field that is sampled."""
_TITLES = {MAIN: "Main field", "uncond": "Unconditional"}
_WEAKER = ("exact+noise:0.1", "exact+noise:0.2", "exact+noise:0.5")
_CLASSIFIERS = ("posterior", "posterior+temperature:0.5", "posterior+temperature:2")


def title_of(role: Role) -> str:
    """The label of a role's menu."""
    return _TITLES.get(role.name, role.name.capitalize())


def roles_of(rule: Rule | type[Rule]) -> dict[str, Role]:
    """The roles that a rule evaluates, by name, ``main`` first."""
    return {MAIN: ROLES[MAIN], **(rule.roles() if isinstance(rule, type) else rule.evaluates())}


def known_roles() -> dict[str, Role]:
    """The library's own roles and those of all rules, by name."""
    return _with_roles(ROLES.values(), rules().values())


def offered_roles(chosen: list[Rule]) -> dict[str, Role]:
    """The roles that get a menu: the library's own fields, and whatever a chosen rule needs."""
    return _with_roles([role for role in ROLES.values() if role.kind != "classifier"], chosen)


def _with_roles(first: Iterable[Role], of: Iterable[Rule | type[Rule]]) -> dict[str, Role]:
    found = {role.name: role for role in first}
    for rule in of:
        found |= {name: role for name, role in roles_of(rule).items() if name not in found}
    return found


def union_role() -> Role:
    """The library's role for a field of all classes together."""
    return next(role for role in ROLES.values() if role.kind == "union")


@lru_cache(maxsize=256)
def choices(dataset: str, label: str, role: Role) -> list[str]:
    """The references on offer for a role, the first being the one to start with.

    Args:
        dataset: The dataset's name.
        label: The class that is sampled, or ``union``.
        role: The role.
    """
    data = load_dataset(dataset)
    trained = [] if "?" in dataset else model_names(dataset)
    others = [x for x in data.labels if x != label] if len(data.labels) <= 4 else []
    if role.kind == "internal":
        fit = [name for name in trained if isinstance(load_model(name), TwoHeadedMLP)]
        return [name for name in fit if _fits(name, None if label == UNION else label)] or ["exact"]
    if role.kind in ("sampled", "network"):
        fit = [name for name in trained if _fits(name, None if label == UNION else label)]
        own = f"{dataset}/{data.models.get(MAIN)}"
        return [own, *(name for name in fit if name != own), "exact"] if own in fit else ["exact", *fit]
    if role.kind == "exact":
        return ["exact"]
    if role.kind == "classifier":
        return [AUTO, *_CLASSIFIERS, *_others(dataset, "classifier")]
    if role.kind == "adapter":
        return [AUTO, *_others(dataset, "adapter")]
    if role.kind == "classes":
        return [AUTO, *(name for name in trained if load_model(name).labels), "exact", *_WEAKER]
    if role.kind in ("union", "class"):
        return [AUTO, *trained, "exact@union", *(f"exact@{x}" for x in others)]
    own_partner = [role.partner] if role.partner and role.partner not in _WEAKER else []
    weak = f"{dataset}/{data.models.get('weak')}"
    several = [f"mean({weak}*)"] if sum(name.startswith(weak) for name in trained) > 1 else []
    return [AUTO, *several, *trained, *own_partner, *_WEAKER]


def _others(dataset: str, kind: str) -> list[str]:
    """The bundled networks of a dataset that are no fields."""
    return [] if "?" in dataset else model_names(dataset, kind)


def _fits(name: str, label: str | None) -> bool:
    network = load_model(name)
    return bool(network.labels) or network.label == label


def natural(role: Role, main: str, dataset: str, label: str | None) -> str:
    """The reference that stands in for a role.

    Raises:
        InputError: If the role has no natural partner.
    """
    return natural_reference(role, main, load_dataset(dataset), label)
