"""CUDA graphs: many small kernels launched as one.

A step of training on a toy network is a hundred kernels of a few microseconds each; launching them one by one from
Python takes longer than they do.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Replayed"]

_WARM_UP = 3  # calls before the capture: they make what is made lazily, like the optimizer's state


class Replayed:
    """A function of no arguments on one GPU, recorded at its fourth call and replayed from then on.

    It must do the same work on the same tensors at every call; what changes from call to call is read from tensors that
    the caller fills. Every call counts: the first three run as they are.

    Args:
        function: The work; returns a scalar.
        generator: The CUDA random numbers that it draws from; each replay draws new ones.
    """

    def __init__(self, function: Callable[[], Tensor], generator: torch.Generator) -> None:
        self._function, self._generator = function, generator
        self._graph: torch.cuda.CUDAGraph | None = None
        self._result: Tensor | None = None
        self._calls = 0

    def __call__(self) -> Tensor:
        self._calls += 1
        if self._calls <= _WARM_UP:
            return self._aside()
        if self._graph is None:
            self._graph = torch.cuda.CUDAGraph()
            self._graph.register_generator_state(self._generator)
            with torch.cuda.graph(self._graph):
                self._result = self._function()
        self._graph.replay()
        assert self._result is not None
        return self._result.clone()  # the next replay writes over it

    def _aside(self) -> Tensor:
        """The function on a stream of its own, as a capture needs its first calls to be."""
        stream, here = torch.cuda.Stream(self._generator.device), torch.cuda.current_stream(self._generator.device)
        stream.wait_stream(here)
        with torch.cuda.stream(stream):
            result = self._function()
        here.wait_stream(stream)
        return result
