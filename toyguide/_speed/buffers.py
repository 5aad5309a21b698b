"""Room for the intermediate results of work that goes through its points block by block.

Results as large as these are given new pages of memory by the system each time, which costs more than computing them.
So each thread keeps the room that it once needed on the CPU; on a GPU torch does.
"""

from __future__ import annotations

import math
import threading

import torch
from torch import Tensor

__all__ = ["Scratch", "differentiated", "room"]


def differentiated(x: Tensor) -> bool:
    """Whether autograd, or a transform of torch.func like vmap, looks at what is done with a tensor."""
    if torch._C._functorch.is_functorch_wrapped_tensor(x):
        return True
    return torch.is_grad_enabled() and x.requires_grad


class Scratch:
    """Planes of ``(n, columns)`` that every block writes over, for the ``out`` of torch's functions.

    They are a thread's one room: what is in them is lost with the next block, of whatever work.

    Args:
        count: How many planes a block needs.
        columns: Of a plane.
        like: Gives dtype and device.
        reused: Whether to write over at all: where autograd or vmap needs a tensor of its own for each result there
            are no planes, and ``out=None`` is what torch's functions take for that.
        stacked: How many planes of ``(n, columns)`` make one of ``(stacked, n, columns)``.
    """

    def __init__(self, count: int, columns: int, like: Tensor, reused: bool, stacked: int | None = None) -> None:
        self.reused = reused
        self._count, self._columns, self._like = count, columns, like
        self._before = () if stacked is None else (stacked,)

    def planes(self, n: int) -> list[Tensor | None]:
        """The planes of a block of n points."""
        if not self.reused:
            return [None] * self._count
        shape = (self._count, *self._before, n, self._columns)
        return list(room(math.prod(shape), self._like, self._like.dtype).view(shape))

    def over(self, plane: Tensor) -> Tensor | None:
        """Where a result goes that may take the place of ``plane``."""
        return plane if self.reused else None


class _Rooms(threading.local):
    def __init__(self) -> None:
        self.by_dtype: dict[torch.dtype, Tensor] = {}


_rooms = _Rooms()


def room(size: int, beside: Tensor, dtype: torch.dtype) -> Tensor:
    """Numbers that nobody needs any more, with shape ``(size,)``, on the device of ``beside``."""
    if not beside.is_cpu:
        return beside.new_empty(size, dtype=dtype)
    found = _rooms.by_dtype.get(dtype)
    if found is None or len(found) < size:
        with torch.inference_mode(False):  # what is made in that mode cannot be written to outside of it
            found = _rooms.by_dtype[dtype] = torch.empty(size, dtype=dtype)
    return found[:size]
