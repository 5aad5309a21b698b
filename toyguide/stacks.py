"""Several fields at the same points: networks of one shape go through their layers side by side.

A network's layers are small; two of them in one product keep two cores busy, and cost one call instead of two.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from toyguide.fields import Field
from toyguide.networks import BLOCK, EnergyMLP, Kept, Level, Rows, gradient
from toyguide.scratch import Scratch, differentiated

__all__ = ["denoise_together"]

_LEVELS = 512


def denoise_together(fields: Sequence[Field], x: Tensor, sigma: float) -> list[Tensor]:
    """What ``denoise`` of each field gives, up to rounding.

    Args:
        fields: The fields.
        x: Points, with shape ``(n, d)``.
        sigma: Their noise level, positive.
    """
    shapes = {(f.dim, f.width, f.layers, len(f.label_code)) if isinstance(f, EnergyMLP) else None for f in fields}
    if len(fields) < 2 or len(shapes) > 1 or None in shapes or differentiated(x):
        return [f.denoise(x, sigma) for f in fields]
    networks = tuple(f for f in fields if isinstance(f, EnergyMLP))
    if any(differentiated(n.gain) for n in networks) or x.shape[-1] != networks[0].dim:
        return [f.denoise(x, sigma) for f in fields]
    return list(_stack(networks).denoise(x, sigma))


class _Stack:
    """M networks of one shape that are not being trained."""

    def __init__(self, networks: tuple[EnergyMLP, ...]) -> None:
        self._networks = networks
        self._kept: list[Kept] = []
        self._rows = Rows([], torch.empty(0))
        self._levels: dict[float, Level] = {}

    @torch.no_grad()
    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """The denoised points of each network, with shape ``(M, n, d)``."""
        self._refresh(x)
        level = self._level(sigma, x)
        first = self._networks[0]
        scratch = Scratch(first.layers + 2, first.width, x, reused=True, stacked=len(self._networks))
        size = max(1, BLOCK // (len(self._networks) * first.width)) if x.is_cpu else max(1, len(x))
        parts = [gradient(scratch, self._rows, block, level) for block in x.split(size)]
        return torch.add(x, torch.cat(parts, 1) if len(parts) > 1 else parts[0], alpha=sigma**2)

    def _refresh(self, x: Tensor) -> None:
        """Stack the rows again if a network's have changed."""
        kept = [network.keep(x) for network in self._networks]
        if len(kept) == len(self._kept) and all(a is b for a, b in zip(kept, self._kept, strict=True)):
            return
        hidden = [torch.stack(rows) for rows in zip(*(k.rows.hidden for k in kept), strict=True)]
        self._rows = Rows(hidden, torch.stack([k.rows.square for k in kept]))
        self._levels, self._kept = {}, kept

    def _level(self, sigma: float, x: Tensor) -> Level:
        if sigma not in self._levels:
            levels = [network.kept_level(sigma, x) for network in self._networks]
            scale, rest, strength = (
                torch.stack([getattr(v, k) for v in levels]) for k in ("scale", "rest", "strength")
            )
            self._levels[sigma] = Level(scale, rest, strength)
            if len(self._levels) > _LEVELS:
                self._levels.pop(next(iter(self._levels)))
        return self._levels[sigma]


@lru_cache(maxsize=16)
def _stack(networks: tuple[EnergyMLP, ...]) -> _Stack:
    return _Stack(networks)
