"""Several fields at the same points: networks with compiled loops are evaluated on all threads at once."""

from __future__ import annotations

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
    prepared = [network.prepare(*checked(x, sigma, network.dim, positive=True)) for network in networks]
    ready = [p for p in prepared if p is not None]
    if len(fields) < 2 or len(ready) < len(fields):
        return [f.denoise(x, sigma) for f in fields]

    n = len(x)

    def work(begin: int, end: int) -> None:
        """Processes ``[begin:end]`` of all networks' points, concatenated."""
        for i, (own, _) in enumerate(ready):
            low, high = max(begin - i * n, 0), min(end - i * n, n)
            if low < high:
                own(low, high)

    compiled.run_parallel(work, n * len(ready), min(network.smallest_chunk for network in networks))
    return [denoised_from_score(score, x, sigma) for _, score in ready]
