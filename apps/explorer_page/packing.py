"""Parts of the stage as bytes: coordinates as 16-bit numbers, what is equal once, all of it deflated.

A packed file is a deflated container: the length of a JSON text as four bytes (little endian), the text, and from the
next multiple of four on the arrays that it refers to. ``stage/player.js`` reads it.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["Packer", "quantised"]

_COORDINATES = frozenset({"x", "y", "x0", "y0", "x1", "y1"})
_KINDS = {"uint8": "u8", "int16": "i16", "float32": "f32"}
_GAP = 65535
"""Stands for NaN: the gap between two lines, and a trajectory that diverged."""
_REACH = 16.0
"""How many windows away from the middle a point is kept apart from those beyond it."""

Window = tuple[float, float, float, float]


def quantised(values: np.ndarray, low: float, high: float) -> tuple[np.ndarray, tuple[float, float]]:
    """Coordinates as 16-bit numbers between their own bounds.

    Args:
        values: The coordinates, with shape ``(n,)``.
        low: What is below it is moved there,
        high: and what is above this, here.

    Returns:
        The numbers ``q``, uint16, and the bounds ``(a, b)``: a coordinate is ``a + (b - a) q / 65534``, NaN 65535. The
        error is at most ``(b - a) / 131068``.
    """
    kept = np.clip(values.astype(np.float64), low, high)
    known = np.isfinite(kept)
    if not known.any():
        return np.full(len(kept), _GAP, np.uint16), (0.0, 0.0)
    a, b = float(kept[known].min()), float(kept[known].max())
    numbers = np.rint((kept - a) * (65534 / (b - a) if b > a else 0.0))
    return np.where(known, numbers, _GAP).astype(np.uint16), (a, b)


class Packer:
    """Collects parts; equal ones get the same number, and equal arrays are kept once."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._numbers: dict[str, int] = {}
        self._arrays = bytearray()
        self._places: dict[bytes, int] = {}

    def add(self, part: dict[str, Any], windows: Sequence[Window]) -> int:
        """Pack a part.

        Args:
            part: The part, as the stage takes it.
            windows: What is shown where its coordinates are: one window, or as many as its arrays of coordinates
                have equal pieces, one behind the other. An error is below a quarter of a pixel where a panel of 700
                pixels shows the window.

        Returns:
            The part's number.
        """
        text = json.dumps(self._packed(part, windows), separators=(",", ":"), allow_nan=False)
        if text not in self._numbers:
            self._numbers[text] = len(self._parts)
            self._parts.append(text)
        return self._numbers[text]

    def packed(self, said: dict[str, Any]) -> str:
        """Everything as base64, with ``said`` beside the parts."""
        text = f'{{"parts":[{",".join(self._parts)}],"said":{json.dumps(said, allow_nan=False)}}}'
        head = text.encode()
        padding = b" " * (-len(head) % 4)
        whole = len(head + padding).to_bytes(4, "little") + head + padding + bytes(self._arrays)
        deflate = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
        return base64.b64encode(deflate.compress(whole) + deflate.flush()).decode()

    def _packed(self, value: Any, windows: Sequence[Window], name: str = "") -> Any:
        if isinstance(value, dict):
            return {k: self._packed(v, windows, k) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self._packed(v, windows) for v in value]
        if isinstance(value, float) and not math.isfinite(value):
            return None  # there is no such number in JSON
        if not isinstance(value, np.ndarray):
            return value
        if name in _COORDINATES:
            return self._coordinates(value, windows, name.startswith("y"))
        return {"kind": _KINDS[value.dtype.name], "at": self._place(value), "length": len(value)}

    def _coordinates(self, values: np.ndarray, windows: Sequence[Window], upward: bool) -> dict[str, Any]:
        pieces, bounds = [], []
        for window, piece in zip(windows, np.split(values, len(windows)), strict=True):
            low, high = window[int(upward)], window[int(upward) + 2]
            middle, reach = (low + high) / 2, _REACH * (high - low)
            numbers, between = quantised(piece, middle - reach, middle + reach)
            pieces.append(numbers)
            bounds.append(between)
        place = self._place(np.concatenate(pieces))
        return {"kind": "u16", "at": place, "length": len(values), "bounds": bounds}

    def _place(self, array: np.ndarray) -> int:
        """Where an array's bytes are."""
        data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()
        if data not in self._places:
            self._places[data] = len(self._arrays)
            self._arrays += data + bytes(-len(data) % 4)
        return self._places[data]
