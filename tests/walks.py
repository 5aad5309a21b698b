"""Walks of rules over small mixtures in float64: what the tests of guidance share."""

from __future__ import annotations

from typing import Any

import torch
from helpers import seeded
from torch import Tensor

from toyguide.fields.mixtures import GaussianMixture
from toyguide.guidance import (
    Evaluation,
    Rule,
    rules,
)
from toyguide.samplers import Step, sampler, trajectory

RULES = list(rules())
W = torch.float64


def mixture(seed: int, dim: int = 2, components: int = 4) -> GaussianMixture:
    """A mixture of random Gaussians with eigenvalues well away from 0."""
    g = seeded(seed)
    means = torch.randn(components, dim, generator=g, dtype=W)
    roots = torch.randn(components, dim, dim, generator=g, dtype=W) * 0.3
    return GaussianMixture(
        torch.rand(components, generator=g, dtype=W) + 0.2, means, roots @ roots.mT + 0.05 * torch.eye(dim, dtype=W)
    )


def gaussian(variance: float, dim: int = 2) -> GaussianMixture:
    return GaussianMixture(
        torch.ones(1, dtype=W), torch.zeros(1, dim, dtype=W), variance * torch.eye(dim, dtype=W)[None]
    )


FIELDS = {role: mixture(seed) for seed, role in enumerate(("main", "uncond", "weak"))}
X = torch.randn(32, 2, generator=seeded(7), dtype=W) * 1.5
LEVELS = torch.tensor([3.0, 1.5, 0.7, 0.3, 0.1, 0.0], dtype=W)


def walk(
    rule: Rule, x: Tensor = X, levels: Tensor = LEVELS, fields: dict | None = None, method: str = "heun", seed: int = 0
) -> list[Step]:
    return list(trajectory(rule, fields or FIELDS, sampler(method), x, levels, seeded(seed)))


def begun(rule: Rule, x: Tensor, sigma: float, generator: torch.Generator) -> Any:
    """A rule's memory at the start of a run."""
    return rule.begin(Evaluation(FIELDS, x, sigma), generator)[1]


class Linear:
    """A denoiser ``D = x M``; ``sigma^2 J = M - 1``, which no exact field's is below -1."""

    evaluations = 1

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        return x @ self.matrix
