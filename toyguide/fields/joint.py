"""Several fields at the same points: networks with compiled loops are evaluated on all threads at once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor

from toyguide._speed import compiled
from toyguide.fields.base import Field, checked, denoised_from_score
from toyguide.fields.networks import EnergyMLP

__all__ = ["denoise_together"]


def denoise_together(fields: Sequence[Field], x: Tensor, sigma: float) -> list[Tensor]:
    """The denoised points of each field, as its ``denoise`` gives them.

    Args:
        fields: The fields.
        x: Points, with shape ``(n, d)``.
        sigma: Their noise level, positive.
    """
    networks = [f for f in fields if isinstance(f, EnergyMLP)]
    if len(fields) < 2 or len(networks) < len(fields):
        return [f.denoise(x, sigma) for f in fields]
    prepared = [network.prepare(*checked(x, sigma, network.dim, positive=True)) for network in networks]
    ready = [p for p in prepared if p is not None]
    if len(ready) < len(fields):
        return [f.denoise(x, sigma) for f in fields]

    n = len(x)
    costs = [network.cost for network in networks]
    ends = [n * total for total in itertools.accumulate(costs, initial=0)]

    def work(begin: int, end: int) -> None:
        """Processes ``[begin:end]`` of all networks' points, concatenated, each as long as its cost."""
        for (own, _), cost, before in zip(ready, costs, ends, strict=False):
            low, high = (min(max(at - before, 0) // cost, n) for at in (begin, end))
            if low < high:
                own(low, high)

    smallest = min(network.smallest_chunk * network.cost for network in networks)
    compiled.run_parallel(work, ends[-1], smallest)
    return [denoised_from_score(score, x, sigma) for _, score in ready]
