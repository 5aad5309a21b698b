"""How fields and classifiers are written: the references that experiments, the command line and the app use.

    exact                                 the dataset's exact field of the class that is sampled
    exact@B, exact@union                  the exact field of another class, or of all
    fractal/main                          a trained network of a bundled dataset
    two-gaussians/main@left, ...@union    a label-conditional network at a class
    path/to.safetensors                   a network of one's own
    mean(fractal/weak, exact)             the mean of fields
    mean(fractal/weak*)                   the mean of all bundled networks with such a name
    posterior                             the exact classifier
    fractal/classifier                    a trained classifier, or an adapter, by name or path

Each of them can be changed by what follows a plus sign:

    +noise:0.1         a field evaluated at sigma * 1.1: a weak model with no training
    +input-noise:0.1   a field whose points get the noise as well
    +dropout:0.1       a network without a tenth of its hidden units, drawn anew for each point and noise level
    +layer:2           a network read out after its second hidden layer
    +temperature:2     a classifier whose logits are halved

A role that is left out gets its natural partner.
"""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Callable
from functools import lru_cache

from toyguide.datasets.checkpoints import UNION, load_learned, load_model, model_names, model_path
from toyguide.datasets.classifiers import Classifier, ExactClassifier
from toyguide.datasets.dataset import Dataset
from toyguide.datasets.roles import ROLES, Role
from toyguide.datasets.trained_classifier import TrainedClassifier
from toyguide.errors import InputError, unknown
from toyguide.fields.adapters import Adapter
from toyguide.fields.base import Conditional, Field, NoisierField
from toyguide.fields.degradations import DropoutField, NoisyInputField
from toyguide.fields.ensembles import MeanField
from toyguide.fields.mixtures import GaussianMixture
from toyguide.fields.networks import EnergyMLP
from toyguide.fields.two_headed import TwoHeadedMLP

__all__ = ["at_label", "canonical", "check_role", "natural_reference", "resolve", "resolve_field"]

_SEED = 0  # of the random numbers of a degraded field that is written as a reference


def resolve(reference: str, data: Dataset, label: str | None, role: Role | str = "main") -> Field | Classifier:
    """The field or classifier that a reference means.

    Args:
        reference: As in the module's text.
        data: The dataset it is used on.
        label: The class that is sampled; what ``exact`` and a conditional network without ``@`` stand for, except in
            a role of the kind ``union``, where a conditional network stands for the union.
        role: What it is used as.

    Raises:
        InputError: If there is no such field, or it does not fit the dataset or the role.
    """
    role = ROLES[role] if isinstance(role, str) else role
    found = _parsed(reference.strip(), data, label, role)
    check_role(found, reference, data, label, role)
    return found


def resolve_field(reference: str, data: Dataset, label: str | None, role: Role | str = "main") -> Field:
    """As :func:`resolve`, for a role that a field fills.

    Raises:
        InputError: If there is no such field, or it does not fit the dataset or the role.
    """
    found = resolve(reference, data, label, role)
    if isinstance(found, Classifier):
        raise InputError(f"field {reference!r}: is a classifier, expected a field, like exact")
    return found


def check_role(found: Field | Classifier, name: str, data: Dataset, label: str | None, role: Role) -> None:
    """That a field or classifier fits the dataset and the role.

    Raises:
        InputError: If it does not.
    """
    if (role.kind == "classifier") != isinstance(found, Classifier):
        expected = "a classifier, like posterior" if role.kind == "classifier" else "a field, like exact"
        raise InputError(f"{role.name} {name!r}: expected {expected}")
    if isinstance(found, Classifier):
        dim = getattr(found, "dim", data.dim)
        if found.labels != data.labels or dim != data.dim:
            of = f"dimension {dim} and classes {', '.join(found.labels)}"
            raise InputError(f"{role.name} {name!r}: of {of}; expected {data.dim} and the classes of {data.name}")
        return
    if (role.kind == "adapter") != isinstance(found, Adapter):
        expected = "an adapter, made by toyguide distill" if role.kind == "adapter" else "a field, not an adapter"
        raise InputError(f"{role.name} {name!r}: expected {expected}")
    if found.dim != data.dim:
        raise InputError(f"{role.name} {name!r}: of dimension {found.dim}, expected {data.dim} for {data.name}")
    if role.kind == "network" and not isinstance(found, EnergyMLP):
        raise InputError(f"{role.name} {name!r}: expected a trained network, like {_example(data)}")
    if role.kind == "internal" and not isinstance(found, TwoHeadedMLP):
        own = _own(data, "internal")
        like = f"like {own}" if own else "made by toyguide train --auxiliary LAYER"
        raise InputError(f"{role.name} {name!r}: expected a network with an auxiliary read-out, {like}")
    if role.kind == "exact" and not isinstance(found, GaussianMixture):
        raise InputError(f"{role.name} {name!r}: expected an exact field, like exact")
    if role.kind == "classes":
        try:
            at_label(found, data, data.labels[0])
        except InputError as problem:
            raise InputError(f"{role.name} {name!r}: models one class, expected every class, like exact") from problem
    for network in _networks(found):
        if network.label is not None and network.label not in data.labels:
            raise unknown(f"label of {role.name} {name!r}", network.label, data.labels)
        if role.kind in ("sampled", "network", "internal", "adapter") and network.label != label:
            of, wanted = map(_called, (network.label, label))
            raise InputError(f"{role.name} {name!r}: models {of}, expected a field of {wanted}, like exact")


def natural_reference(role: Role | str, main: str | None, data: Dataset, label: str | None = None) -> str:
    """The reference that a role gets when none is named.

    For what is sampled: the dataset's own network if it models the label, else ``exact``; for a rule that needs an
    auxiliary read-out the dataset's network ``internal``. For any other role its own
    ``partner``, if it has one. Else, beside a trained main, the dataset's network of that name, or the main network
    itself at the union or another class where it is label-conditional, or another class's exact field; beside an exact
    main the exact union, another class, or ``exact+noise:0.2``. All classes together are the main if it has them, else
    the exact ones. A classifier is the exact posterior.

    Args:
        role: The role.
        main: The main field's reference; not looked at for the role that is sampled.
        data: The dataset.
        label: The class that is sampled.

    Raises:
        InputError: If the role has no natural partner.
    """
    role = ROLES[role] if isinstance(role, str) else role
    if role.kind in ("sampled", "network"):
        own = _own(data, "main")
        return own if own and _models(own, label) else "exact"
    if role.kind == "exact":
        return "exact"
    if role.partner:
        return role.partner
    if role.kind == "internal":
        own = _own(data, "internal")
        if own and _models(own, label):
            return own
        raise InputError(
            f"{role.name}: {data.name} has no network with an auxiliary read-out for {_called(label)}; expected "
            f"one, made by toyguide train --auxiliary LAYER"
        )
    if role.kind == "classifier":
        return "posterior"
    is_exact = main is None or main.startswith("exact")
    if role.kind == "classes":
        return main if main and (is_exact or _is_conditional(main)) else "exact"
    others = [name for name in data.labels if name != label]
    other = {"union": UNION, "class": others[0] if others else None}.get(role.kind)
    if is_exact and role.kind == "weaker":
        return "exact+noise:0.2"
    if is_exact and other:
        return f"exact@{other}"
    own = _own(data, role.name)
    if own and (role.kind not in ("weaker", "adapter") or _models(own, label)):
        return own
    if other and main is not None and _is_conditional(main):
        return f"{main.partition('@')[0]}@{other}"
    if other and role.kind == "class":
        return f"exact@{other}"
    raise InputError(f"{role.name}: {data.name} has no trained network for this role, expected one to be given")


def canonical(reference: str, label: str | None, role: Role) -> str:
    """A reference with the class it stands for written out, so that two that mean one field are one text."""
    head, changes = _taken_apart(reference)
    if role.kind == "classes":
        return f"{reference} at every class"
    if reference.startswith("mean("):
        return reference
    if "@" not in head and (head == "exact" or _is_conditional(head)):
        union = label is None or (role.kind == "union" and head != "exact")
        head = f"{head}@{UNION if union else label}"
    return "+".join([head, *changes])


def at_label(field: Field, data: Dataset | None, label: str | None) -> Field:
    """The same field at another class, or at the union for None.

    Args:
        field: A label-conditional network, an exact field of the dataset, or what is made of these.
        data: The dataset, if there is one.
        label: The class.

    Raises:
        InputError: If the field is of one class only.
    """
    if isinstance(field, Conditional) and field.labels:
        return field.with_label(label)
    if isinstance(field, NoisierField):
        return NoisierField(at_label(field.field, data, label), field.relative)
    if isinstance(field, MeanField):
        return MeanField([at_label(member, data, label) for member in field.members])
    if data is not None and any(field is data.field(name) for name in (*data.labels, None)):
        return data.field(label)
    raise InputError(f"label {label!r}: the field models one class only, expected exact or a label-conditional network")


def _parsed(text: str, data: Dataset, label: str | None, role: Role) -> Field | Classifier:
    if text.startswith("mean(") and text.endswith(")"):
        names = [name for part in _split(text[5:-1], text) for name in _expanded(part.strip(), text)]
        members = [_parsed(name, data, label, role) for name in names]
        if any(isinstance(m, Classifier) for m in members):
            raise InputError(f"field {text!r}: expected fields in mean(...), not a classifier")
        return MeanField([m for m in members if isinstance(m, Field)])
    head, changes = _taken_apart(text)
    found = _plain(head, text, data, label, role)
    for change in changes:
        found = _changed(found, change, text)
    return found


def _taken_apart(text: str) -> tuple[str, list[str]]:
    """What a reference starts with, and the changes behind it; a path may have plus signs of its own."""
    found = re.fullmatch(r"(.*?)((?:\+[^+/]*)*)", text)
    head, changes = found.groups() if found and ".safetensors+" not in found[1] else (text, "")
    return head, changes.split("+")[1:]


def _split(inside: str, text: str) -> list[str]:
    """The members between the brackets of ``mean(...)``, which may be means themselves."""
    parts, depth = [""], 0
    for character in inside:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    if depth or not all(part.strip() for part in parts):
        raise InputError(f"field {text!r}: expected mean(FIELD, FIELD, ...)")
    return parts


def _expanded(part: str, text: str) -> list[str]:
    """A member of ``mean(...)``; the names that it stands for if it has a star."""
    if "*" not in part:
        return [part]
    if not (found := fnmatch.filter(model_names(), part)):
        raise InputError(f"field {text!r}: no bundled network is called {part}; expected a name like fractal/weak*")
    return found


def _plain(head: str, text: str, data: Dataset, label: str | None, role: Role) -> Field | Classifier:
    base, at, named = head.partition("@")
    if base == "posterior" and not at:
        return ExactClassifier.of(data)
    if base == "exact":
        if at:
            label = None if named == UNION else data.check_label(named)
        return data.field(label)
    if "/" not in head and ".safetensors" not in head:
        known = ["exact", *(f"exact@{x}" for x in (*data.labels, UNION)), "exact+noise:SHARE", "posterior", "mean(...)"]
        raise unknown("field", text, [*known, *model_names()])
    network = load_model(head) if at else load_learned(head)
    if not isinstance(network, EnergyMLP):
        return network
    if network.labels and not at:
        network = network.with_label(None if role.kind == "union" else label)
    return network


def _noisier(found: Field | Classifier, share: float, text: str) -> Field:
    return NoisierField(_field(found, text), share)


def _noisy_input(found: Field | Classifier, share: float, text: str) -> Field:
    return NoisyInputField(_field(found, text), share, _SEED)


def _thinned(found: Field | Classifier, rate: float, text: str) -> Field:
    return DropoutField(_network(found, text), rate, _SEED)


def _cut(found: Field | Classifier, layer: float, text: str) -> Field:
    if layer != int(layer):
        raise InputError(f"field {text!r}: layer:{layer:g}, expected a whole number")
    return _network(found, text).early_exit(int(layer))


def _tempered(found: Field | Classifier, temperature: float, text: str) -> Classifier:
    if not isinstance(found, ExactClassifier | TrainedClassifier):
        raise InputError(f"field {text!r}: expected a classifier in front of +temperature, like posterior")
    return found.tempered(temperature)


_CHANGES: dict[str, tuple[Callable[..., Field | Classifier], str, float, float]] = {
    "noise": (_noisier, "SHARE", 0.0, 10.0),
    "input-noise": (_noisy_input, "SHARE", 0.0, 10.0),
    "dropout": (_thinned, "RATE", 0.0, 0.99),
    "layer": (_cut, "NUMBER", 1.0, 100.0),
    "temperature": (_tempered, "T", 0.01, 100.0),
}
"""What may follow a plus sign: what it makes, what its number is called, and the least and the greatest."""


def _changed(found: Field | Classifier, change: str, text: str) -> Field | Classifier:
    kind, _, number = change.partition(":")
    if kind not in _CHANGES:
        raise unknown(f"change of the field {text!r}", f"+{kind}", [f"+{k}" for k in _CHANGES])
    make, called, low, high = _CHANGES[kind]
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise InputError(f"field {text!r}: expected +{kind}:{called} with a number from {low:g} to {high:g}")
    return make(found, value, text)


def _field(found: Field | Classifier, text: str) -> Field:
    if isinstance(found, Classifier):
        raise InputError(f"field {text!r}: expected a field in front of the plus sign, not a classifier")
    return found


def _network(found: Field | Classifier, text: str) -> EnergyMLP:
    if not isinstance(found, EnergyMLP):
        raise InputError(f"field {text!r}: expected a trained network in front of the plus sign")
    return found


def _networks(found: Field) -> list[EnergyMLP | Adapter]:
    """The trained networks that a field is made of."""
    if isinstance(found, EnergyMLP | Adapter):
        return [found]
    if isinstance(found, MeanField):
        return [network for member in found.members for network in _networks(member)]
    if isinstance(found, NoisierField | NoisyInputField):
        return _networks(found.field)
    return [found.network] if isinstance(found, DropoutField) else []


def _own(data: Dataset, role: str) -> str | None:
    """The dataset's own network for a role, if its file is there."""
    stem = data.models.get(role)
    return f"{data.name}/{stem}" if stem and (data.folder / f"{stem}.safetensors").is_file() else None


def _called(label: str | None) -> str:
    return "the union of the classes" if label is None else f"class {label}"


def _example(data: Dataset) -> str:
    return _own(data, "main") or "fractal/main"


def _described(reference: str) -> tuple[bool, str | None]:
    """Whether a network is label-conditional, and the class that it models otherwise."""
    return _read_once(reference, model_path(reference.partition("@")[0]).stat().st_mtime_ns)


# Asked for each experiment that is made, and so for each movement of a slider: a file is read once until it changes.
@lru_cache(maxsize=256)
def _read_once(reference: str, changed: int) -> tuple[bool, str | None]:
    network = load_learned(reference.partition("@")[0])
    if isinstance(network, EnergyMLP):
        return bool(network.labels), network.label
    return False, network.label if isinstance(network, Adapter) else None


def _models(reference: str, label: str | None) -> bool:
    """Whether a network can model a class."""
    conditional, own = _described(reference)
    return conditional or own == label


def _is_conditional(reference: str) -> bool:
    head = _taken_apart(reference)[0].partition("@")[0]
    return ("/" in head or head.endswith(".safetensors")) and "(" not in head and _described(head)[0]
