"""CUDA graphs: many small kernels launched as one.

A training step of a toy network has hundreds of kernels of a few microseconds each; launching them one by one from
Python takes longer than running them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["Replayed"]

_WARM_UP = 3  # calls before the capture: they make what is made lazily, like the optimizer's state


class Replayed:
    """A function without arguments on one GPU, recorded at its fourth call and replayed from then on.

    It must use the same tensors at every call; what changes from call to call is read from tensors that the caller
    fills. The first three calls run the function itself.

    Args:
        function: The work; returns a scalar.
        generator: The CUDA random numbers that it draws from; each replay draws new ones.
        changed: The tensors that it changes in place. A replay does not change their versions by itself, by which
            autograd and caches notice changes.
    """

    def __init__(
        self, function: Callable[[], Tensor], generator: torch.Generator, changed: Sequence[Tensor] = ()
    ) -> None:
        self._function, self._generator, self._changed = function, generator, tuple(changed)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._result: Tensor | None = None
        self._calls = 0

    def __call__(self) -> Tensor:
        self._calls += 1
        if self._calls <= _WARM_UP:
            return self._aside()
        if self._graph is None:
            graph = torch.cuda.CUDAGraph()
            graph.register_generator_state(self._generator)
            # Other threads may use the GPU meanwhile.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._result = self._function()
            self._graph = graph  # only now: a capture that fails leaves nothing to replay
        self._graph.replay()
        torch.autograd.graph.increment_version(self._changed)
        assert self._result is not None
        return self._result.clone()  # the next replay overwrites it

    def _aside(self) -> Tensor:
        """Call the function on a stream of its own, as a capture requires of the first calls."""
        stream, here = torch.cuda.Stream(self._generator.device), torch.cuda.current_stream(self._generator.device)
        stream.wait_stream(here)
        with torch.cuda.stream(stream):
            result = self._function()
        here.wait_stream(stream)
        return result
