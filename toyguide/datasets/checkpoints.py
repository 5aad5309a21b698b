"""Trained networks on disk: safetensors with every setting in the metadata, never pickle.

The metadata holds one entry, ``toyguide``, whose JSON has a ``network`` (what is needed to build it), the ``label`` it
models, and a ``training`` record (how it was made) that is only ever shown. What is no field says its ``kind``, that of
the roles that it fills: ``classifier`` or ``adapter``.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from toyguide.datasets.dataset import dataset_names, dataset_root, load_dataset
from toyguide.datasets.trained_classifier import TrainedClassifier
from toyguide.errors import InputError, unknown
from toyguide.fields.adapters import Adapter
from toyguide.fields.networks import EnergyMLP
from toyguide.fields.two_headed import TwoHeadedMLP
from toyguide.files import writing

__all__ = ["UNION", "Learned", "load_learned", "load_model", "model_names", "model_path", "save_model"]

_FORMAT = 1
UNION = "union"

Learned = EnergyMLP | TrainedClassifier | Adapter
"""What a file can hold."""


def save_model(network: Learned, path: str | Path, training: dict[str, Any]) -> None:
    """Write a network whole or not at all.

    Args:
        network: The network; its label is the class it models (None for the union, or for a conditional network).
            A classifier has none.
        path: Where to, a ``.safetensors``.
        training: How it was made, as JSON values.

    Raises:
        InputError: If the file cannot be written.
    """
    described = {
        "format": _FORMAT,
        **_described(network),
        "training": training,
    }
    tensors = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    with writing(path) as temporary:
        temporary.write_bytes(save(tensors, {"toyguide": json.dumps(described)}))


def _described(network: Learned) -> dict[str, Any]:
    """What is needed to build a network, and what it models."""
    shape: dict[str, Any] = {"dim": network.dim, "width": network.width, "layers": network.layers}
    if isinstance(network, TrainedClassifier):
        return {"kind": "classifier", "network": {**shape, "labels": list(network.labels)}, "label": None}
    if isinstance(network, Adapter):
        return {"kind": "adapter", "network": shape, "label": network.label}
    shape |= {"labels": list(network.labels), "bounded": network.bounded}
    if isinstance(network, TwoHeadedMLP):
        shape["auxiliary"] = network.auxiliary
    return {"network": shape, "label": network.label}


def load_model(reference: str | Path) -> EnergyMLP:
    """A trained network by name or path.

    Args:
        reference: ``dataset/name``, for a network in a bundled dataset's folder, or the path of a ``.safetensors``.
            A label-conditional network takes a class (or ``union``) behind an ``@``: ``two-gaussians/main@left``.

    Returns:
        The network, on the CPU, in evaluation mode; ``.label`` and ``.metadata`` say what it is.

    Raises:
        InputError: If there is no such network, or the file is not one.
    """
    text, _, label = str(reference).partition("@")
    network = load_learned(text)
    if not isinstance(network, EnergyMLP):
        kind = "a classifier" if isinstance(network, TrainedClassifier) else "an adapter"
        raise InputError(f"model {str(reference)!r}: is {kind}, expected a field")
    if not label:
        return network
    if not network.labels:
        models = UNION if network.label is None else network.label
        raise InputError(f"model {str(reference)!r}: takes no label; it models {models}")
    return network.with_label(None if label == UNION else label)


def load_learned(reference: str | Path) -> Learned:
    """A trained network of any kind by name or path, on the CPU, in evaluation mode.

    Raises:
        InputError: If there is no such network, or the file is not one.
    """
    return _read(model_path(str(reference)))


def model_names(dataset: str | None = None, kind: str = "field") -> list[str]:
    """The names of the bundled trained networks (of one dataset) that are fields, or of another kind."""
    names = dataset_names() if dataset is None else [dataset]
    files = (path for name in names for path in sorted((dataset_root() / name).glob("*.safetensors")))
    return [f"{p.parent.name}/{p.stem}" for p in files if _kind(p, p.stat().st_mtime_ns) == kind]


# Asked whenever the explorer builds a menu: a file is read once until it changes.
@lru_cache(maxsize=256)
def _kind(path: Path, changed: int) -> str:
    """The kind that a file says it is of; a field where it does not say so, readable or not."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return str(json.loads((file.metadata() or {})["toyguide"]).get("kind", "field"))
    except (SafetensorError, OSError, LookupError, AttributeError, ValueError):
        return "field"


def model_path(text: str) -> Path:
    """The file of a network by name or path.

    Raises:
        InputError: If there is no such network.
    """
    if text.endswith(".safetensors"):
        path = Path(text)
        if not path.is_file():
            raise InputError(f"model {text!r}: no such file")
        return path
    folder, _, stem = text.rpartition("/")
    if folder:
        path = load_dataset(folder).folder / f"{stem}.safetensors"
        if Path(stem).name == stem and path.is_file():
            return path
    raise unknown("model", text, model_names())


def _read(path: Path) -> Learned:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            described = json.loads((file.metadata() or {})["toyguide"])
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - not a mapping
        if described["format"] != _FORMAT:
            raise InputError(f"of format {described['format']}, expected {_FORMAT}")
        network = _built(described, tensors["sigma_data"])
        network.load_state_dict(tensors)
    except InputError as problem:
        raise InputError(f"model {str(path)!r}: {problem}") from problem
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, RuntimeError) as problem:
        said = " ".join(str(problem).split())
        raise InputError(f"model {str(path)!r}: not a network written by toyguide ({said})") from problem
    if not all(t.isfinite().all() for t in tensors.values()):
        raise InputError(f"model {str(path)!r}: has weights that are not finite: expected a network that trained well")
    network.metadata = described
    return network.eval().requires_grad_(False)


def _built(described: dict[str, Any], sigma_data: Tensor) -> Learned:
    """A network of the described shape, with random weights."""
    built, kind = described["network"], described.get("kind", "field")
    dim, width, layers = (int(built[name]) for name in ("dim", "width", "layers"))
    network: Learned
    if kind == "classifier":
        return TrainedClassifier(dim, tuple(built["labels"]), width, layers, sigma_data)
    if kind == "adapter":
        network = Adapter(dim, width, layers, sigma_data)
    elif kind == "field":
        bounded = bool(built.get("bounded", False))  # which files of earlier versions do not say
        shape = (dim, width, layers, sigma_data, tuple(built["labels"]), None, bounded)
        network = TwoHeadedMLP(*shape, auxiliary=int(built["auxiliary"])) if "auxiliary" in built else EnergyMLP(*shape)
    else:
        raise InputError(f"of kind {kind!r}, expected a field, a classifier or an adapter")
    network.label = described["label"]
    return network
