"""A density in the plane on a square lattice, as fine as the density needs and only where it is.

The lattice's spacing is a power of 2, so that its points are exact in floating point. The density is found by flooding:
from the lattice's blocks at the components' means, into every neighbouring block, until all blocks at the border hold
less than e^-32 of the highest density.

Sums over a lattice converge very fast: for a density, or a product of densities, that is a mixture of Gaussians of
standard deviation s at least, the error of ``h^2 sum f`` is about ``2 exp(-2 pi^2 s^2 / h^2)`` of it, which is 1e-8 at
h = s. So the lattice also says whether it is fine enough: the sums over every second point each way, with the spacing
2 h, are off by about the fourth root of that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from toyguide.errors import InputError

__all__ = ["Lattice", "flood"]

_BLOCK = 4  # points of a block, each way
_DEPTH = 32.0  # nats below the highest density that do not count
_MOST = 1 << 23  # points evaluated
_WIDEST = 4800  # points each way
_UNRESOLVED = 0.002  # how far the sums over every second point may be off
_OFFSET = 1 << 30


@dataclass(frozen=True, eq=False)
class Lattice:
    """A normalised density on a lattice.

    Attributes:
        spacing: The lattice's spacing h.
        low: The lattice indices ``(i, j)`` of the first point, along the first and the second coordinate.
        density: The density at ``((low_i + a) h, (low_j + b) h)``, with shape ``(a, b)``, float64.
        log_mass: The logarithm of the integral of the density that was given.
        resolved: Whether the lattice is fine enough.
    """

    spacing: float
    low: tuple[int, int]
    density: Tensor
    log_mass: float
    resolved: bool


def flood(log_density: Callable[[Tensor], Tensor], seeds: Tensor, spacing: float) -> Lattice:
    """The density on a lattice.

    Args:
        log_density: The logarithm, up to a constant, at points of shape ``(n, 2)``, float64.
        seeds: Points near every maximum that matters, with shape ``(k, 2)``.
        spacing: Of the lattice.

    Raises:
        InputError: If the density is too wide for it.
    """
    within = np.stack(np.meshgrid(np.arange(_BLOCK), np.arange(_BLOCK), indexing="ij"), -1).reshape(-1, 2)
    around = _codes(np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1], indexing="ij"), -1).reshape(-1, 2)) - _codes(
        np.zeros((1, 2), np.int64)
    )
    front = np.unique(_codes(np.floor(seeds.numpy() / (spacing * _BLOCK)).astype(np.int64)))
    seen, blocks, values, top, count = front, [], [], -math.inf, 0
    while len(front):
        count += len(front) * _BLOCK**2
        if count > _MOST:
            raise InputError("target: too wide and too thin for a lattice, expected one of fewer details")
        corners = _indices(front)
        points = torch.from_numpy((corners[:, None] * _BLOCK + within).reshape(-1, 2) * spacing)
        found = log_density(points).reshape(len(front), -1)
        blocks.append(corners)
        values.append(found)
        highest = found.amax(1)
        top = max(top, float(highest.max()))
        alive = front[(highest > top - _DEPTH).numpy()]
        front = np.setdiff1d(np.unique(alive[:, None] + around), seen, assume_unique=True)
        seen = np.union1d(seen, front)
    return _dense(np.concatenate(blocks), torch.cat(values), top, within, spacing)


def _dense(blocks: np.ndarray, values: Tensor, top: float, within: np.ndarray, spacing: float) -> Lattice:
    some = (values.amax(1) > top - _DEPTH).numpy()
    blocks, values = blocks[some], (values[torch.from_numpy(some)] - top).exp()
    low = blocks.min(0)
    sizes = (blocks.max(0) - low + 1) * _BLOCK
    if sizes.max() > _WIDEST:
        raise InputError("target: too wide for a lattice this fine, expected one of fewer details")
    density = torch.zeros(int(sizes[0]), int(sizes[1]), dtype=torch.float64)
    at = torch.from_numpy(((blocks - low)[:, None] * _BLOCK + within).reshape(-1, 2))
    density[at[:, 0], at[:, 1]] = values.flatten()
    parts = torch.stack([density[i::2, j::2].sum() for i in (0, 1) for j in (0, 1)])
    resolved = float((4 * parts / parts.sum() - 1).abs().max()) < _UNRESOLVED
    mass = float(density.sum()) * spacing**2
    first = low * _BLOCK
    return Lattice(spacing, (int(first[0]), int(first[1])), density / mass, math.log(mass) + top, resolved)


def _codes(indices: np.ndarray) -> np.ndarray:
    """One number for each pair of indices."""
    return (indices[:, 0] + _OFFSET) * (2 * _OFFSET) + indices[:, 1] + _OFFSET


def _indices(codes: np.ndarray) -> np.ndarray:
    return np.stack([codes // (2 * _OFFSET) - _OFFSET, codes % (2 * _OFFSET) - _OFFSET], -1)
