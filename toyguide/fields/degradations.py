"""Fields degraded on purpose, as the autoguidance paper degrades a trained network: by input noise and by dropout.

Both are random. A field has to be a function, so its random numbers are a function of the seed, the noise level and a
point's index: new ones at every level of a schedule, and the same for the same arguments. (The paper draws new ones at
every evaluation; here the two evaluations that Heun's method makes at one level, at the end of a step and at the
beginning of the next, share theirs.)

References:
    Karras et al., Guiding a Diffusion Model with a Bad Version of Itself, 2024, arXiv 2406.02507, Sec. 4.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from toyguide.fields.base import Field, Sigma, as_sigma, checked
from toyguide.fields.networks import EnergyMLP

__all__ = ["DropoutField", "NoisyInputField"]


class NoisyInputField(Field):
    """A field evaluated at points with more noise, and at their higher level.

        D(x; sigma) = D_field(x + e; sigma (1 + r)),   e = sigma sqrt((1 + r)^2 - 1) n

    :class:`toyguide.fields.NoisierField` raises only the level.

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
        """The function whose gradient the score is, unnormalised."""
        x, sigma = checked(x, sigma, self.dim, positive=True)
        e = self._noise(x, sigma)
        return (
            self._factor * self.field.log_density(x + e, self._raised(sigma))
            + (e * x).sum(-1) / as_sigma(sigma, x).squeeze(-1).square()
        )

    def score(self, x: Tensor, sigma: Sigma) -> Tensor:
        x, sigma = checked(x, sigma, self.dim, positive=True)
        e = self._noise(x, sigma)
        return self._factor * self.field.score(x + e, self._raised(sigma)) + e / as_sigma(sigma, x).square()

    def hessian(self, x: Tensor, sigma: Sigma) -> Tensor:
        x, sigma = checked(x, sigma, self.dim, positive=True)
        return self._factor * self.field.hessian(x + self._noise(x, sigma), self._raised(sigma))

    def jvp(self, x: Tensor, sigma: Sigma, v: Tensor) -> Tensor:
        x, sigma = checked(x, sigma, self.dim, positive=True)
        return self._factor * self.field.jvp(x + self._noise(x, sigma), self._raised(sigma), v)

    @property
    def _factor(self) -> float:
        """The raised level squared over the level squared."""
        return (1 + self.relative) ** 2

    def _raised(self, sigma: Sigma) -> Sigma:
        return sigma * (1 + self.relative)

    def _noise(self, x: Tensor, sigma: Sigma) -> Tensor:
        generator = _generator(self.seed, sigma, x.device)
        n = torch.randn(x.shape, generator=generator, dtype=torch.float64, device=generator.device).to(x)
        return as_sigma(sigma, x) * math.sqrt(self._factor - 1) * n


class DropoutField(Field):
    """A network whose hidden units are dropped at random, independently for each point.

    Every unit after a SiLU is 0 with probability ``rate``, and otherwise multiplied by ``1 / (1 - rate)``.

    Args:
        network: The network to degrade.
        rate: The probability, from 0 to below 1.
        seed: Of the choice of units.
    """

    def __init__(self, network: EnergyMLP, rate: float, seed: int) -> None:
        self.network, self.rate, self.seed, self.dim = network, rate, seed, network.dim

    def kept(self, x: Tensor, sigma: Sigma) -> Tensor:
        """What each unit is multiplied by, with shape ``(..., layers, width)``."""
        x, sigma = checked(x, sigma, self.dim, positive=True)
        shape = (*x.shape[:-1], self.network.layers, self.network.width)
        generator = _generator(self.seed, sigma, x.device)
        kept = torch.rand(shape, generator=generator, dtype=torch.float32, device=generator.device) >= self.rate
        return kept.to(x) / (1 - self.rate)

    def log_density(self, x: Tensor, sigma: Sigma) -> Tensor:
        """The unnormalised log-density of the network without the units dropped at each point."""
        x, sigma = checked(x, sigma, self.dim, positive=True)
        return self.network.log_density(x, sigma, self.kept(x, sigma))

    def score(self, x: Tensor, sigma: Sigma) -> Tensor:
        x, sigma = checked(x, sigma, self.dim, positive=True)
        return self._score(x.detach(), sigma).detach()

    def hessian(self, x: Tensor, sigma: Sigma) -> Tensor:
        x, sigma = checked(x, sigma, self.dim, positive=True)
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


def _generator(seed: int, sigma: Sigma, device: torch.device) -> torch.Generator:
    """The random numbers of a seed and a noise level, on a GPU drawn there."""
    level = torch.as_tensor(sigma, dtype=torch.float64).detach().cpu().numpy().tobytes()
    mixed = np.random.SeedSequence([seed, *level]).generate_state(1, np.uint64)[0]
    return torch.Generator(device if device.type == "cuda" else "cpu").manual_seed(int(mixed >> np.uint64(1)))
