"""Fields by what they are called: the references that experiments, the CLI and the app use.

    exact              the dataset's exact field of the class that is sampled
    exact@B            the exact field of another class; exact@union of all
    exact+noise:0.1    the exact field seen at sigma * 1.1: a weak model with no training
    fractal/main       a trained network of a bundled dataset
    two-gaussians/main@left, …@union      a label-conditional network at a class
    path/to.safetensors                   a network of one's own

A role that is left out gets its natural partner.
"""

from __future__ import annotations

import math

from toyguide.datasets.checkpoints import UNION, load_model, model_names
from toyguide.datasets.dataset import Dataset
from toyguide.errors import InputError, unknown
from toyguide.fields import Field, NoisierField
from toyguide.fields.networks import EnergyMLP

__all__ = ["natural_reference", "resolve_field"]


def resolve_field(reference: str, data: Dataset, label: str | None, role: str = "main") -> Field:
    """The field that a reference means.

    Args:
        reference: As in the module's text.
        data: The dataset it is used on.
        label: The class that is sampled; what ``exact`` and a conditional network without ``@`` stand for, save in
            the role ``uncond``, where a conditional network stands for the union.
        role: What the field is used as.

    Raises:
        InputError: If there is no such field, or it does not fit the dataset or the role.
    """
    if reference == "exact" or reference.startswith(("exact@", "exact+")):
        return _exact(reference, data, label)
    if "/" not in reference and ".safetensors" not in reference:
        exact = ["exact", *(f"exact@{x}" for x in (*data.labels, UNION)), "exact+noise:SHARE"]
        raise unknown("field", reference, [*exact, *model_names()])
    network = load_model(reference)
    if network.labels and "@" not in reference:
        network = network.with_label(None if role == "uncond" else label)
    _check(network, reference, data, label, role)
    return network


def natural_reference(role: str, main: str | None, data: Dataset, label: str | None = None) -> str:
    """The field that a role gets when none is named.

    For ``main`` itself: the dataset's own network if it models the label, else ``exact``. Beside a trained main: the
    dataset's own networks, or for ``uncond`` the main network itself at the union where it is label-conditional. Beside
    an exact main: the exact union, and ``exact+noise:0.2``.

    Args:
        role: ``main``, ``uncond`` or ``weak``.
        main: The main field's reference; not looked at for the role ``main``.
        data: The dataset.
        label: The class that is sampled; only looked at for the role ``main``.

    Raises:
        InputError: If the role has no natural partner.
    """
    if role == "main":
        if not _has(data, "main"):
            return "exact"
        own = f"{data.name}/{data.models['main']}"
        network = load_model(own)
        return own if network.labels or network.label == label else "exact"
    if main is not None and main.startswith("exact"):
        return "exact@union" if role == "uncond" else "exact+noise:0.2"
    if role in data.models and _has(data, role):
        return f"{data.name}/{data.models[role]}"
    if role == "uncond" and main is not None and load_model(main).labels:
        return f"{main.partition('@')[0]}@{UNION}"
    raise InputError(f"{role}: {data.name} has no trained network for it: expected a field named for {role}")


def _has(data: Dataset, role: str) -> bool:
    return role in data.models and (data.folder / f"{data.models[role]}.safetensors").is_file()


def _exact(reference: str, data: Dataset, label: str | None) -> Field:
    base, plus, noise = reference.partition("+")
    _, at, named = base.partition("@")
    if at:
        label = None if named == UNION else data.check_label(named)
    field = data.field(label)
    if not plus:
        return field
    kind, _, value = noise.partition(":")
    try:
        relative = float(value)
    except ValueError:
        relative = math.nan
    if kind != "noise" or not 0 <= relative <= 10:
        raise InputError(f"field {reference!r}: expected exact+noise:SHARE with a share from 0 to 10")
    return NoisierField(field, relative)


def _check(network: EnergyMLP, reference: str, data: Dataset, label: str | None, role: str) -> None:
    if network.dim != data.dim:
        raise InputError(f"{role} {reference!r}: of dimension {network.dim}, expected {data.dim} for {data.name}")
    if network.label is not None and network.label not in data.labels:
        raise unknown(f"label of {role} {reference!r}", network.label, data.labels)
    if role == "main" and network.label != label:
        of, wanted = (f"class {x}" if x is not None else "the union of the classes" for x in (network.label, label))
        raise InputError(f"main {reference!r}: models {of}, expected a field of {wanted}, like exact")
