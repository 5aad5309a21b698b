"""The functions of formulas that are more than one of torch's. An exported rule gets those that it uses as they stand.

Vectors have shape ``(n, d)``, numbers ``(n, 1)`` or none; a number may also be a Python float.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["clip", "dot", "norm", "number", "perp", "unit", "where"]


def number(a: Tensor | float) -> Tensor:
    """A number as a tensor, on which dividing by zero gives an infinity, and not an error."""
    return a if isinstance(a, Tensor) else torch.tensor(a, dtype=torch.float64, device="cpu")


def norm(a: Tensor) -> Tensor:
    """The length of vectors."""
    return torch.linalg.vector_norm(a, dim=-1, keepdim=True)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of vectors."""
    return (a * b).sum(-1, keepdim=True)


def unit(a: Tensor) -> Tensor:
    """Vectors of length 1; a vector of length 0 stays."""
    return a / norm(a).clamp_min(1e-12)


def perp(a: Tensor, b: Tensor) -> Tensor:
    """``a`` without its part along ``b``."""
    along = unit(b)
    return a - dot(a, along) * along


def where(condition: Tensor | bool, a: Any, b: Any) -> Any:
    """``a`` where the condition holds, ``b`` elsewhere."""
    if not isinstance(condition, Tensor) or condition.ndim == 0:
        return a if condition else b
    return torch.where(condition, number(a), number(b))


def clip(a: Tensor | float, low: Tensor | float, high: Tensor | float) -> Tensor:
    """``a``, but at least ``low`` and at most ``high``."""
    return torch.minimum(torch.maximum(number(a), number(low)), number(high))
