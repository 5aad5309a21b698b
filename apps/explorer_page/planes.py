"""The planes that data is looked at in. Two-dimensional data is its own; in more dimensions a visitor may choose one.

A plane is chosen by three points, its anchors, each written as

    v3                 the mean of a class
    v1+v2              the middle between the means of some classes
    #12                an exact sample of the data, by number
    0.5 0 -0.25 …      its coordinates

No anchors stand for the plane that the dataset's own view names.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from toyguide.datasets import Dataset, load_dataset
from toyguide.errors import InputError, unknown
from toyguide.geometry.planes import Plane, Window, plane_of, window_of

__all__ = ["SAMPLES", "Anchors", "anchor_names", "checked_anchors", "corners", "home_window", "plane"]

Anchors = tuple[str, ...]
"""Three points by what they are called, or none."""

SAMPLES = 1000
"""How many exact samples can be named."""
_LARGEST = 1e6  # coordinate


def anchor_names(dataset: str) -> Anchors:
    """The anchors of the dataset's own plane; none where no three classes span it."""
    data = load_dataset(dataset)
    named = data.view.plane
    return named if data.dim > 2 and named is not None and _spans(data, named) else ()


def checked_anchors(dataset: str, anchors: object) -> Anchors:
    """Anchors as they are kept: in one spelling, and none for the dataset's own plane.

    Raises:
        InputError: If one of them names no point, if they lie on one line, or if the data has no other plane.
    """
    if not isinstance(anchors, tuple | list) or len(anchors) not in (0, 3):
        raise InputError(f"plane = {anchors!r}: expected three points")
    data = load_dataset(dataset)
    if anchors and data.dim <= 2:
        raise InputError(f"plane = {anchors!r}: {data.name} has {data.dim} dimensions, expected more to choose from")
    kept = tuple(_spelling(data, anchor) for anchor in anchors)
    if kept == anchor_names(dataset):
        return ()
    if kept:
        plane(dataset, kept)
    return kept


@lru_cache(maxsize=64)
def plane(dataset: str, anchors: Anchors = ()) -> Plane:
    """The plane through three anchors, or the dataset's own.

    Raises:
        InputError: If they lie on one line.
    """
    data = load_dataset(dataset)
    return Plane.through(*(_point(data, anchor) for anchor in anchors)) if anchors else plane_of(data)


def corners(dataset: str, anchors: Anchors = ()) -> Tensor:
    """The anchors' points in space, with shape ``(3, d)``, float64; of the dataset's own plane, if no classes span it,
    three points in it around its origin."""
    named = anchors or anchor_names(dataset)
    if named:
        return torch.stack([_point(load_dataset(dataset), anchor) for anchor in named])
    around = torch.tensor([[-0.5, -0.3], [0.5, -0.3], [0.0, 0.6]], dtype=torch.float64)
    return plane(dataset).embed(around)


@lru_cache(maxsize=64)
def home_window(dataset: str, anchors: Anchors = ()) -> tuple[float, float, float, float]:
    """The window that a plane is shown in first: left, bottom, right and top."""
    data = load_dataset(dataset)
    surface = plane(dataset, anchors)
    if not anchors:
        window = window_of(data, surface)
        return (*window.low, *window.high)
    shown = surface.project(corners(dataset, anchors))
    low, high = shown.min(0).values, shown.max(0).values
    half = 0.85 * float((high - low).max())
    u, v = ((low + high) / 2).tolist()
    window = Window((u - half, v - half), (u + half, v + half))
    return (*window.low, *window.high)


def _spans(data: Dataset, labels: Anchors) -> bool:
    try:
        Plane.through(*(data.field(label).mean for label in labels))
    except InputError:
        return False
    return True


def _spelling(data: Dataset, anchor: object) -> str:
    """An anchor with one space between numbers and none around the rest.

    Raises:
        InputError: If it names no point.
    """
    if not isinstance(anchor, str) or len(anchor) > 400:
        raise InputError(f"plane: {str(anchor)[:40]!r}: expected a point's name of at most 400 characters")
    text = anchor.strip()
    if text not in data.labels:
        text = " ".join(text.replace(",", " ").split())
    _point(data, text)
    return text


def _point(data: Dataset, anchor: str) -> Tensor:
    """The point that an anchor names, with shape ``(d,)``, float64."""
    if anchor in data.labels:
        return data.field(anchor).mean
    if anchor.startswith("#"):
        number = anchor.removeprefix("#")
        if not number.isdecimal() or len(number) > 6 or int(number) >= SAMPLES:
            raise InputError(f"plane: {anchor[:40]!r}: expected a sample from #0 to #{SAMPLES - 1}")
        return _samples(data)[int(number)]
    parts = anchor.replace("+", " ").split()  # a bare + in a hand-written URL arrives as a space
    if len(parts) > 1 and set(parts) <= set(data.labels):
        return torch.stack([data.field(part).mean for part in parts]).mean(0)
    numbers = [_number(part) for part in anchor.split()]
    if not numbers or not all(math.isfinite(n) for n in numbers):
        wrong = next((part for part in parts if part not in data.labels), anchor)
        raise unknown("plane", wrong[:40], [*data.labels, "v1+v2" if "v1" in data.labels else "#0"])
    if len(numbers) != data.dim or max(map(abs, numbers)) > _LARGEST:
        raise InputError(f"plane: {anchor[:40]!r}: expected {data.dim} numbers up to {_LARGEST:g}")
    return torch.tensor(numbers, dtype=torch.float64)


@lru_cache(maxsize=8)
def _samples(data: Dataset) -> Tensor:
    return data.field().sample(SAMPLES, generator=torch.Generator().manual_seed(0)).double()


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
