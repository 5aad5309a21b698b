"""Room for the intermediate results of work that goes through its points block by block.

Results as large as these are given new pages of memory by the system each time, which costs more than computing them.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Scratch", "differentiated"]


def differentiated(x: Tensor) -> bool:
    """Whether autograd, or a transform of torch.func like vmap, looks at what is done with a tensor."""
    if torch._C._functorch.is_functorch_wrapped_tensor(x):
        return True
    return torch.is_grad_enabled() and x.requires_grad


class Scratch:
    """Planes of ``(n, columns)`` that every block writes over, for the ``out`` of torch's functions.

    Args:
        count: How many planes a block needs.
        columns: Of a plane.
        like: Gives dtype and device.
        reused: Whether to write over at all: where autograd or vmap needs a tensor of its own for each result there
            are no planes, and ``out=None`` is what torch's functions take for that.
    """

    def __init__(self, count: int, columns: int, like: Tensor, reused: bool) -> None:
        self.reused = reused
        self._room = like.new_empty(count, 0, columns)

    def planes(self, n: int) -> list[Tensor | None]:
        """The planes of a block of n points."""
        count, rows, columns = self._room.shape
        if not self.reused:
            return [None] * count
        if rows < n:
            self._room = self._room.new_empty(count, n, columns)
        return [plane[:n] for plane in self._room]

    def over(self, plane: Tensor) -> Tensor | None:
        """Where a result goes that may take the place of ``plane``."""
        return plane if self.reused else None
