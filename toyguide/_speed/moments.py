"""Second moments of a few coordinates over many components."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["second_moments"]

_FEW = 3  # coordinates up to which sums over their pairs are faster than batched matrix products


def second_moments(spread: list[Tensor], free: Tensor | None = None) -> Tensor:
    """``sum_k spread_ik spread_jk``.

    Args:
        spread: d coordinates, each with shape ``(n, K)``.
        free: A buffer with shape ``(n, K)``, or None.

    Returns:
        With shape ``(n, d, d)``.
    """
    if len(spread) > _FEW:
        both = torch.stack(spread, 1)
        return both @ both.mT
    rows = [[torch.mul(a, b, out=free).sum(-1) for b in spread[: i + 1]] for i, a in enumerate(spread)]
    full = [[rows[max(i, j)][min(i, j)] for j in range(len(spread))] for i in range(len(spread))]
    return torch.stack([torch.stack(row, -1) for row in full], -2)
