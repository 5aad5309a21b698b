"""What is drawn at an inspected point: each rule's terms as labelled arrows, and the axes of the curvature there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toyguide_apps.explorer_page.layers.point import Inspection, Terms
from toyguide_apps.explorer_page.roles import MAIN

__all__ = ["KINDS", "Drawing", "drawings", "kind_of"]

KINDS = ("main", "guide", "push", "guided", "up", "down")
"""What an arrow can be; ``guide`` is any field but main. Its index here gives its colour."""
_NAMES = {"up": "λ > 0", "down": "λ < 0"}

_SHORT, _LONG = 0.16, 0.30  # of the window's width: the longest arrow is drawn to scale if it is between these
_AXIS = 0.055  # of the window's width: half the length of an eigenvector
_HEAD = 0.018
_LINE, _LETTER = 0.05, 0.022  # of the window's width: a label's height, and the width of one of its letters
_LEAST = 0.006  # of the window's width: an arrow shorter than this is not drawn


@dataclass(frozen=True, eq=False)
class Drawing:
    """The arrows of one panel.

    Attributes:
        strokes: Start, end and kind of each stroke: ``x0, y0, x1, y1, kind``, with shape ``(5, k)``, float32.
        at: Where the labels are, with shape ``(2, m)``, float32.
        names: The labels.
        kinds: Their kinds, float32.
        scale: How many times longer than they are the arrows are drawn.
    """

    strokes: np.ndarray
    at: np.ndarray
    names: list[str]
    kinds: np.ndarray
    scale: float


_Arrow = tuple[str, str, np.ndarray, np.ndarray]  # kind, label, start and end


def drawings(seen: Inspection, size: float) -> tuple[Drawing, ...]:
    """The arrows of each panel, all to the same scale, in a window of width ``size``."""
    chains = [_chain(seen, terms) for terms in seen.terms]
    longest = max(float(np.linalg.norm(end - start)) for chain in chains for *_, start, end in chain)
    # To scale where that can be seen, so that an arrow's tip is where it says.
    scale = 1.0
    if np.isfinite(longest) and longest > 0:
        scale = float(np.clip(longest, _SHORT * size, _LONG * size)) / longest
    return tuple(_drawing(seen, chain, size, scale) for chain in chains)


def kind_of(role: str) -> str:
    """The kind of a field's arrow."""
    return "main" if role == MAIN else "guide"


def _chain(seen: Inspection, terms: Terms) -> list[_Arrow]:
    """The arrows from the point, in the plane, before scaling."""
    none = np.zeros(2)
    moves = {role: seen.axes @ move for role, move in terms.moves.items()}
    chain = [(kind_of(role), role, none, move) for role, move in moves.items()]
    if np.linalg.norm(terms.push) > 0:
        guided = seen.axes @ terms.guided
        chain += [("push", "push", moves[MAIN], guided), ("guided", "guided", none, guided)]
    return chain


def _drawing(seen: Inspection, chain: list[_Arrow], size: float, scale: float) -> Drawing:
    point = np.asarray(seen.uv)
    strokes, labels = [], []
    for kind, name, start, end in chain:
        a, b = point + scale * start, point + scale * end
        length = float(np.linalg.norm(b - a))
        if not _LEAST * size < length < np.inf:
            continue
        along = (b - a) / length
        side = np.array([-along[1], along[0]])
        head = min(_HEAD * size, 0.5 * length)
        for c, d in ((a, b), (b, b - head * (along + 0.5 * side)), (b, b - head * (along - 0.5 * side))):
            strokes.append([*c, *d, KINDS.index(kind)])
        at = (a + b) / 2 + 0.03 * size * side if kind == "push" else b + 0.03 * size * along
        labels.append((kind, name, at))
    for value, vector in _axes(seen):
        kind = "up" if value > 0 else "down"
        half = _AXIS * size * (seen.axes @ vector)
        strokes.append([*(point - half), *(point + half), KINDS.index(kind)])
        if kind == "up":
            labels.append((kind, _NAMES[kind], point - 1.5 * half))
    at = _apart(np.array([at for _, _, at in labels]).reshape(-1, 2), [name for _, name, _ in labels], size)
    return Drawing(
        strokes=np.array(strokes, np.float32).reshape(-1, 5).T,
        at=at.astype(np.float32).T,
        names=[name for _, name, _ in labels],
        kinds=np.array([KINDS.index(kind) for kind, _, _ in labels], np.float32),
        scale=scale,
    )


def _axes(seen: Inspection) -> list[tuple[float, np.ndarray]]:
    """The eigenpairs that are drawn: both in two dimensions, in more the upward ones that the plane shows."""
    pairs = list(zip(seen.shown.eigenvalues, seen.shown.eigenvectors, strict=True))
    if len(seen.x) == 2:
        return pairs
    return [(value, v) for value, v in pairs if value > 0 and np.linalg.norm(seen.axes @ v) > 0.3]


def _apart(at: np.ndarray, names: list[str], size: float) -> np.ndarray:
    """Labels moved up, from the lowest on, where they would lie on one another."""
    placed: list[int] = []
    at = at.copy()
    for i in np.argsort(at[:, 1], kind="stable"):
        below = sorted(placed, key=lambda j: at[j, 1])
        for j in below:
            wide = _LETTER * size * (len(names[i]) + len(names[j])) / 2
            if abs(at[i, 0] - at[j, 0]) < wide and abs(at[i, 1] - at[j, 1]) < _LINE * size:
                at[i, 1] = at[j, 1] + _LINE * size
        placed.append(i)
    return at
