"""What derivatives of an exact field cost, as multiples of its score in the same run."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch

from toyguide._speed import compiled
from toyguide.bench.cases import Aim
from toyguide.bench.growth import random_mixture
from toyguide.bench.timing import Spread, alternate, pairwise_ratio
from toyguide.datasets import load_dataset

__all__ = ["multiples"]

_POINTS, _SIGMA = 512, 0.1
_DIM, _COMPONENTS = 16, 128

Completed = Callable[[Callable[[], Any]], Callable[[], Any]]


def multiples(device: torch.device, done: Completed) -> list[tuple[str, Spread, Aim]]:
    """The cost of the Hessian, of its product with a vector and of autograd through the log-density over the score's.

    Args:
        device: Where the tensors live.
        done: Wraps a function so that it returns only when the device has finished.

    Returns:
        A name, the ratio and what is to be reached: for the fractal and for a mixture in 16 dimensions, at one sigma
        for all points and one for each, and on a CPU with and without the compiled loops.
    """
    fields = [
        ("the fractal's class A", load_dataset("fractal").field("A"), 8.0),
        (f"{_COMPONENTS} components in {_DIM} dimensions", random_mixture(_COMPONENTS, _DIM), 2.0 * _DIM),
    ]
    ways: list[tuple[str, Callable[[], Any]]] = [("", nullcontext), (", no compiler", compiled.without)]
    levels = ("one sigma", "own sigma each")
    found = []
    for (what, field, most), (way, context), level in itertools.product(
        fields, ways if device.type == "cpu" else ways[:1], levels
    ):
        x = field.sample(_POINTS, _SIGMA, torch.Generator().manual_seed(0)).float().to(device)
        sigma = _SIGMA if level == levels[0] else x.new_full((len(x),), _SIGMA)
        watched = x.clone().requires_grad_()

        def gradient(field: Any = field, x: Any = watched, sigma: Any = sigma) -> torch.Tensor:
            return torch.autograd.grad(field.log_density(x, sigma).sum(), x)[0]

        functions: list[Callable[[], Any]] = [partial(field.score, x, sigma), partial(field.hessian, x, sigma)]
        functions += [partial(field.jvp, x, sigma, x), gradient]
        with context():
            score, *others = alternate(list(map(done, functions)))
        names = (("Hessian", most), ("Hessian times vector", 4.0), ("autograd through the log-density", 4.0))
        for (name, bound), turns in zip(names, others, strict=True):
            title = f"{name} over score, {what}, {_POINTS} points, {level}{way}"
            found.append((title, pairwise_ratio(turns, score), Aim(at_most=bound)))
    return found
