"""Trained networks on disk: safetensors with every setting in the metadata, never pickle.

The metadata holds one entry, ``toyguide``, whose JSON has a ``network`` (what is needed to build it), the ``label`` it
models, and a ``training`` record (how it was made) that is only ever shown.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from toyguide.datasets.dataset import dataset_names, dataset_root, load_dataset
from toyguide.errors import InputError, unknown
from toyguide.fields.networks import EnergyMLP
from toyguide.fields.two_headed import TwoHeadedMLP
from toyguide.files import writing

__all__ = ["UNION", "load_model", "model_names", "model_path", "save_model"]

_FORMAT = 1
UNION = "union"


def save_model(network: EnergyMLP, path: str | Path, training: dict[str, Any]) -> None:
    """Write a network whole or not at all.

    Args:
        network: The network; its label is the class it models (None for the union, or for a conditional network).
        path: Where to, a ``.safetensors``.
        training: How it was made, as JSON values.

    Raises:
        InputError: If the file cannot be written.
    """
    described = {
        "format": _FORMAT,
        "network": {
            "dim": network.dim,
            "width": network.width,
            "layers": network.layers,
            "labels": list(network.labels),
            "bounded": network.bounded,
            **({"auxiliary": network.auxiliary} if isinstance(network, TwoHeadedMLP) else {}),
        },
        "label": network.label,
        "training": training,
    }
    tensors = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    with writing(path) as temporary:
        temporary.write_bytes(save(tensors, {"toyguide": json.dumps(described)}))


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
    network = _read(model_path(text))
    if not label:
        return network
    if not network.labels:
        models = UNION if network.label is None else network.label
        raise InputError(f"model {str(reference)!r}: takes no label; it models {models}")
    return network.with_label(None if label == UNION else label)


def model_names(dataset: str | None = None) -> list[str]:
    """The names of the bundled trained networks (of one dataset)."""
    names = dataset_names() if dataset is None else [dataset]
    return [f"{n}/{stem}" for n in names for stem in sorted(p.stem for p in (dataset_root() / n).glob("*.safetensors"))]


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


def _read(path: Path) -> EnergyMLP:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            described = json.loads((file.metadata() or {})["toyguide"])
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - not a mapping
        if described["format"] != _FORMAT:
            raise InputError(f"of format {described['format']}, expected {_FORMAT}")
        built = described["network"]
        auxiliary = {"auxiliary": int(built["auxiliary"])} if "auxiliary" in built else {}
        network = (TwoHeadedMLP if auxiliary else EnergyMLP)(
            int(built["dim"]),
            int(built["width"]),
            int(built["layers"]),
            tensors["sigma_data"],
            tuple(built["labels"]),
            bounded=bool(built.get("bounded", False)),  # which files of earlier versions do not say
            **auxiliary,
        )
        network.load_state_dict(tensors)
        network.label = described["label"]
    except InputError as problem:
        raise InputError(f"model {str(path)!r}: {problem}") from problem
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, RuntimeError) as problem:
        said = " ".join(str(problem).split())
        raise InputError(f"model {str(path)!r}: not a network written by toyguide ({said})") from problem
    if not all(t.isfinite().all() for t in tensors.values()):
        raise InputError(f"model {str(path)!r}: has weights that are not finite: expected a network that trained well")
    network.metadata = described
    return network.eval().requires_grad_(False)
