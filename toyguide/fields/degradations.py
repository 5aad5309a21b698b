"""Fields made worse on purpose, as the autoguidance paper does to a trained network: by input noise and by dropout.

Both are random. A field has to be a function, so the random numbers are one of the seed and the noise level: new ones
at every level of a schedule, a point's own by its place among the points, and the same whenever the same is asked. (The
paper draws anew at every evaluation; here the two evaluations that Heun's method makes at a level, one at the end of a
step and one at the beginning of the next, share theirs.)

References:
    Karras et al., Guiding a Diffusion Model with a Bad Version of Itself, 2024, arXiv 2406.02507, Sec. 4.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from toyguide.fields.base import Field, Sigma, as_sigma
from toyguide.fields.networks import EnergyMLP

__all__ = ["DropoutField", "NoisyInputField"]


class NoisyInputField(Field):
    """A field that is shown its points with more noise, and told of it.

        D(x; sigma) = D_field(x + e; sigma (1 + r)),   e = sigma sqrt((1 + r)^2 - 1) n

    The other way, :class:`toyguide.fields.NoisierField`, is told of noise that is not there.

    Args:
        field: The field to degrade.
        relative: The share r by which the noise level is raised, not negative.
        seed: Of the noise.
    """

    def __init__(self, field: Field, relative: float, seed: int) -> None:
        self.field, self.relative, self.seed, self.dim = field, relative, seed, field.dim

    @property
    def evaluations(self) -> int:
        return self.field.evaluations

    def log_density(self, x: Tensor, sigma: Sigma) -> Tensor:
        """What the score is the gradient of, unnormalised."""
        e = self._noise(x, sigma)
        return (
            self._factor * self.field.log_density(x + e, self._raised(sigma))
            + (e * x).sum(-1) / as_sigma(sigma, x).squeeze(-1).square()
        )

    def score(self, x: Tensor, sigma: Sigma) -> Tensor:
        e = self._noise(x, sigma)
        return self._factor * self.field.score(x + e, self._raised(sigma)) + e / as_sigma(sigma, x).square()

    def hessian(self, x: Tensor, sigma: Sigma) -> Tensor:
        return self._factor * self.field.hessian(x + self._noise(x, sigma), self._raised(sigma))

    @property
    def _factor(self) -> float:
        """Of the raised level's square over the level's."""
        return (1 + self.relative) ** 2

    def _raised(self, sigma: Sigma) -> Sigma:
        return sigma * (1 + self.relative)

    def _noise(self, x: Tensor, sigma: Sigma) -> Tensor:
        n = torch.randn(x.shape, generator=_generator(self.seed, sigma), dtype=torch.float64).to(x)
        return as_sigma(sigma, x) * math.sqrt(self._factor - 1) * n


class DropoutField(Field):
    """A network whose hidden units are dropped at random, each point's by themselves; those left are made larger.

    Every unit behind a SiLU is 0 with probability ``rate``, and else ``1 / (1 - rate)`` times itself.

    Args:
        network: The network to degrade.
        rate: The probability, from 0 to below 1.
        seed: Of the units that are dropped.
    """

    def __init__(self, network: EnergyMLP, rate: float, seed: int) -> None:
        self.network, self.rate, self.seed, self.dim = network, rate, seed, network.dim

    def kept(self, x: Tensor, sigma: Sigma) -> Tensor:
        """What each unit is multiplied by, with shape ``(..., layers, width)``."""
        shape = (*x.shape[:-1], self.network.layers, self.network.width)
        kept = torch.rand(shape, generator=_generator(self.seed, sigma)) >= self.rate
        return kept.to(x) / (1 - self.rate)

    def log_density(self, x: Tensor, sigma: Sigma) -> Tensor:
        """The unnormalised log-density of the network that is left at each point."""
        return self.network.log_density(x, sigma, self.kept(x, sigma))

    def score(self, x: Tensor, sigma: Sigma) -> Tensor:
        return self._score(x.detach(), sigma).detach()

    def hessian(self, x: Tensor, sigma: Sigma) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            score = self._score(x, sigma)
            rows = [torch.autograd.grad(s.sum(), x, retain_graph=True)[0] for s in score.unbind(-1)]
        return torch.stack(rows, -2)

    @torch.enable_grad()
    def _score(self, x: Tensor, sigma: Sigma) -> Tensor:
        further = x.requires_grad
        x = x if further else x.requires_grad_()
        return torch.autograd.grad(self.log_density(x, sigma).sum(), x, create_graph=further)[0]


def _generator(seed: int, sigma: Sigma) -> torch.Generator:
    """The random numbers of a seed at a noise level."""
    level = torch.as_tensor(sigma, dtype=torch.float64).detach().cpu().numpy().tobytes()
    mixed = np.random.SeedSequence([seed, *level]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed >> np.uint64(1)))
