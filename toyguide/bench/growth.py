"""How the cost grows with the number of components, points, dimensions and steps: powers, as slopes between logarithms.

Everything else is held where the growth shows. Points are drawn as in training, so that each has a noise level of its
own for the score; the log-density is that of all points at one level.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from toyguide.bench.cases import guided
from toyguide.bench.timing import Clock, seconds_per_call
from toyguide.datasets import load_dataset
from toyguide.fields.mixtures import GaussianMixture

__all__ = ["GROWTH", "Series", "random_mixture", "slope"]

_MOST = 6  # turns, the first of which warms up
_ENOUGH = 3.0  # seconds after which there is no other turn
_LEVEL = 0.1  # the noise level that all points share


def _rising(low: int, high: int) -> tuple[int, ...]:
    """Two sizes for each power of ten, from ``10^low`` to ``10^high``."""
    return tuple(round(10 ** (i / 2)) for i in range(2 * low, 2 * high + 1))


Completed = Callable[[Callable[[], Any]], Callable[[], Any]]


@dataclass(frozen=True)
class Series:
    """The cost of one thing at several sizes.

    Attributes:
        what: What is computed.
        by: What grows.
        held: What does not.
        sizes: How large it was.
        seconds: What each size cost.
        slope: The power that it grows with, over the upper half of the sizes.
    """

    what: str
    by: str
    held: str
    sizes: list[int]
    seconds: list[float]
    slope: float

    @classmethod
    def of(cls, what: str, by: str, held: str, sizes: Sequence[int], seconds: Sequence[float]) -> Series:
        return cls(what, by, held, list(sizes), list(seconds), slope(sizes, seconds))


def slope(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The power of the size that the cost grows with: the slope of the logarithms over the upper half of the sizes."""
    half = (len(sizes) - 1) // 2
    return statistics.linear_regression([*map(math.log, sizes[half:])], [*map(math.log, seconds[half:])]).slope


def by_components(device: torch.device, done: Completed, sizes: Sequence[int] = _rising(2, 5)) -> list[Series]:
    n = 4096
    fields = [random_mixture(count, 2) for count in sizes]
    return _both([(f, *_points(f, n, device)) for f in fields], "components", f"{n} points, 2 dimensions", sizes, done)


def by_points(device: torch.device, done: Completed, sizes: Sequence[int] = _rising(3, 6)) -> list[Series]:
    field = load_dataset("fractal").field("A")
    held = f"the fractal, {len(field)} components"
    return _both([(field, *_points(field, n, device)) for n in sizes], "points", held, sizes, done)


def by_dimension(device: torch.device, done: Completed, sizes: Sequence[int] = (2, 4, 8, 16, 32, 64)) -> list[Series]:
    n, count = 1024, 128
    fields = [random_mixture(count, dim) for dim in sizes]
    held = f"{count} components, {n} points"
    return _both([(f, *_points(f, n, device)) for f in fields], "dimensions", held, sizes, done)


def by_steps(device: torch.device, done: Completed, sizes: Sequence[int] = (8, 16, 32, 64, 128, 256)) -> list[Series]:
    n = 512
    seconds = [_cost(done(guided(device, n, steps=steps).toyguide)) for steps in sizes]
    return [Series.of("guided sampling", "steps", f"{n} points, two networks", sizes, seconds)]


GROWTH = (by_components, by_points, by_dimension, by_steps)


def _both(
    inputs: Sequence[tuple[GaussianMixture, Tensor, Tensor]],
    by: str,
    held: str,
    sizes: Sequence[int],
    done: Completed,
) -> list[Series]:
    scores = [_cost(done(partial(field.score, x, sigma))) for field, x, sigma in inputs]
    densities = [_cost(done(partial(field.log_density, x, _LEVEL))) for field, x, _ in inputs]
    return [
        Series.of("score, own sigma each", by, held, sizes, scores),
        Series.of("log-density, one sigma", by, held, sizes, densities),
    ]


def _cost(function: Callable[[], Any], clock: Clock = time.perf_counter) -> float:
    """Seconds per call in the fastest of some turns, the one least disturbed by other work of the machine."""
    began = clock()
    turns: list[float] = []
    while not turns or (len(turns) < _MOST and clock() - began < _ENOUGH):
        turns.append(seconds_per_call(function, clock))
    return min(turns)


def random_mixture(components: int, dim: int) -> GaussianMixture:
    """Gaussians with random axes."""
    g = torch.Generator().manual_seed(components + dim)
    factor = torch.randn(components, dim, dim, generator=g, dtype=torch.float64) / math.sqrt(dim)
    covariances = 0.01 * (factor @ factor.mT + 0.1 * torch.eye(dim, dtype=torch.float64))
    means = torch.randn(components, dim, generator=g, dtype=torch.float64)
    return GaussianMixture(means.new_ones(components), means, (covariances + covariances.mT) / 2)


def _points(field: GaussianMixture, n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Noisy points (n, d) and their noise levels (n,)."""
    g = torch.Generator().manual_seed(0)
    sigma = load_dataset("fractal").noise.sample(n, g)
    x = field.sample(n, generator=g).float()
    return (x + sigma[:, None] * torch.randn(x.shape, generator=g, dtype=torch.float32)).to(device), sigma.to(device)
