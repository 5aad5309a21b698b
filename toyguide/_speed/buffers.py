"""Reusable buffers for intermediate results of block-wise computations.

The system hands out new memory pages for every large tensor, which costs more than filling them. So on the CPU each
thread keeps the largest buffer that it has needed; on a GPU torch's allocator does the same.
"""

from __future__ import annotations

import math
import threading

import torch
from torch import Tensor
from torch.autograd import forward_ad

__all__ = ["Scratch", "block_size", "buffer", "differentiated", "transformed"]

_CPU_BLOCK, _GPU_BLOCK = 1 << 22, 1 << 29  # bytes; the first stay in a processor's cache


def transformed(x: object) -> bool:
    """Whether forward-mode differentiation or a transform of torch.func, like vmap, looks at a tensor."""
    if not isinstance(x, Tensor):
        return False
    return torch._C._functorch.is_functorch_wrapped_tensor(x) or forward_ad._current_level >= 0


def differentiated(x: object) -> bool:
    """Whether autograd or a transform of torch.func looks at a tensor; False for numbers and None."""
    return transformed(x) or (isinstance(x, Tensor) and x.requires_grad and torch.is_grad_enabled())


def block_size(x: Tensor, columns: int) -> int:
    """How many points to process at a time, at least 1.

    Args:
        x: The points.
        columns: How many numbers of the dtype of ``x`` the intermediate results have for each point.
    """
    return max(1, (_CPU_BLOCK if x.is_cpu else _GPU_BLOCK) // (x.element_size() * columns))


class Scratch:
    """Planes of ``(n, columns)`` that every block overwrites, for the ``out`` argument of torch's functions.

    All of a thread's planes share one buffer: its content is lost with the next block, of any computation.

    Args:
        count: The number of planes that a block needs.
        columns: Of a plane.
        like: Gives dtype and device.
        reused: False where autograd or vmap needs a new tensor for each result: then every plane is None.
        stacked: If given, planes have the shape ``(stacked, n, columns)``.
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
        return list(buffer(math.prod(shape), self._like, self._like.dtype).view(shape))

    def into(self, plane: Tensor) -> Tensor | None:
        """The ``out`` argument for a result that may overwrite ``plane``."""
        return plane if self.reused else None


class _Buffers(threading.local):
    def __init__(self) -> None:
        self.by_dtype: dict[torch.dtype, Tensor] = {}


_buffers = _Buffers()


def buffer(size: int, like: Tensor, dtype: torch.dtype) -> Tensor:
    """A reusable uninitialised buffer, with shape ``(size,)``, on the device of ``like``."""
    if not like.is_cpu:
        return like.new_empty(size, dtype=dtype)
    found = _buffers.by_dtype.get(dtype)
    if found is None or len(found) < size:
        with torch.inference_mode(False):  # a tensor made in inference mode cannot be written outside of it
            found = _buffers.by_dtype[dtype] = torch.empty(size, dtype=dtype, device="cpu")
    return found[:size]
