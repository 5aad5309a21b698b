"""Guidance on a line at any weight, between two Gaussians or two segments, whose data have a bounded support.

Noise turns the indicator of a segment ``[a, b]`` into ``Phi(u) - Phi(v)`` with ``u = (x - a)/sigma`` and
``v = (x - b)/sigma``. Its logarithm is computed on the side where v is negative, which is accurate at any distance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import param
import torch
from torch import Tensor

from toyguide.devices import one_torch_thread
from toyguide.fields import Field, NoisierField, Sigma
from toyguide.fields.mixtures import GaussianMixture
from toyguide.guidance.rules.cfg import ClassifierFreeGuidance
from toyguide.noise import edm_schedule
from toyguide.samplers import sampler, trajectory

__all__ = ["LEFT", "RIGHT", "Segments", "gaussians", "guided_path", "segments"]

LEFT, RIGHT = 1.0, 2.0  # the sampled segment

_STEPS = 256  # an unconditional field with an error makes the path stiff: 128 are too few at the weight 100


class Segments(Field):
    """The field of data distributed uniformly on segments of equal length.

    Args:
        *ends: The left and the right end of each segment.
    """

    dim = 1

    def __init__(self, *ends: tuple[float, float]) -> None:
        self.ends = ends

    def log_density(self, x: Tensor, sigma: Sigma) -> Tensor:
        return self._parts(x, sigma)[0].logsumexp(-1) - math.log(len(self.ends))

    def score(self, x: Tensor, sigma: Sigma) -> Tensor:
        log_densities, scores = self._parts(x, sigma)
        return (log_densities.softmax(-1) * scores).sum(-1, keepdim=True)

    def hessian(self, x: Tensor, sigma: Sigma) -> Tensor:
        with torch.enable_grad():
            points = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.score(points, sigma).sum(), points)
        return slope[..., None]

    def sample(self, n: int, sigma: float, generator: torch.Generator) -> Tensor:
        """``n`` points of ``p(x; sigma)``, with shape ``(n, 1)``, float64."""
        ends = torch.tensor(self.ends, dtype=torch.float64)
        left, right = ends[torch.randint(len(ends), (n,), generator=generator)].T
        x = left + (right - left) * torch.rand(n, generator=generator, dtype=torch.float64)
        return (x + sigma * torch.randn(n, generator=generator, dtype=torch.float64))[:, None]

    def _parts(self, x: Tensor, sigma: Sigma) -> tuple[Tensor, Tensor]:
        """The log-density and the score of each segment, with shape ``(..., segments)``."""
        ends = torch.tensor(self.ends, dtype=x.dtype, device=x.device)
        noise = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(x.shape[:-1])[..., None]
        left, right = ends.T
        # Measured inwards from the nearer end: then u > v, and v is negative.
        side = torch.where(2 * x > left + right, -1.0, 1.0)
        near, far = torch.where(side < 0, right, left), torch.where(side < 0, left, right)
        u, v = side * (x - near) / noise, side * (x - far) / noise
        log_u = torch.special.log_ndtr(u)
        inside = -torch.expm1(torch.special.log_ndtr(v) - log_u)  # (Phi(u) - Phi(v)) / Phi(u)
        # phi(u) / Phi(u) by the scaled complementary error function, which avoids a quotient of tiny numbers.
        at_u = math.sqrt(2 / math.pi) / torch.special.erfcx(-u / math.sqrt(2)) / inside
        at_v = at_u * torch.exp(0.5 * (u - v) * (u + v))
        return log_u + inside.log() - (right - left).log(), side * (at_u - at_v) / noise


class _AnyWeight(ClassifierFreeGuidance):
    """CFG without an upper bound of the weight."""

    key = ""  # not listed

    w = param.Number(1.0, bounds=(0.0, None))


def gaussians() -> dict[str, GaussianMixture]:
    """N(1, 1), and its half-and-half mixture with N(-1, 1), on a line."""
    means = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    union = GaussianMixture(torch.ones(2), means, torch.ones(2, 1, 1))
    return {"main": union.subset(torch.tensor([True, False])), "uncond": union}


def segments() -> dict[str, Segments]:
    """Uniform on [1, 2], and its half-and-half mixture with the mirror image, on a line."""
    return {"main": Segments((LEFT, RIGHT)), "uncond": Segments((-RIGHT, -LEFT), (LEFT, RIGHT))}


def guided_path(place: str, errors: tuple[float, float], extra: float, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Solve the probability-flow ODE of guided points, in float64 and on the CPU: they are too few for a GPU.

    The first level is at least 20 times the weight: from less noise there is no overshoot.

    Args:
        place: ``gaussians`` or ``segments``.
        errors: The shares by which the noise levels of main and uncond are raised.
        extra: The paper's weight.
        n: The number of trajectories.
        seed: The seed of the starting points.

    Returns:
        The levels, with shape ``(steps + 1,)``, and the points, with shape ``(steps + 1, n)``.
    """
    exact: Mapping[str, Any] = gaussians() if place == "gaussians" else segments()
    raised: dict[str, Field] = {
        role: NoisierField(field, share) if share else field
        for (role, field), share in zip(exact.items(), errors, strict=True)
    }
    levels = edm_schedule(_STEPS, 0.001, max(80.0, 20 * extra), 7.0)
    start = exact["main"].sample(n, float(levels[0]), torch.Generator().manual_seed(seed))
    rule = _AnyWeight(w=1 + extra)
    with one_torch_thread():  # with so few points a second thread only waits
        steps = trajectory(rule, raised, sampler("heun"), start, levels, torch.Generator().manual_seed(seed))
        return levels, torch.stack([s.x[:, 0] for s in steps])
