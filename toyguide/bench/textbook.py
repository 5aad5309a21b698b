"""The textbook formulation: what the maths says, in the order it says it, and nothing for speed.

    mixture   log p(x; sigma) = logsumexp_k [log w_k - ((x - m_k)' S_k^-1 (x - m_k) + log det S_k + d log 2 pi) / 2]
              with S_k = C_k + sigma^2 I for each point and component; its score by automatic differentiation
    network   G of ``toyguide.fields.networks``, weights normalised at every call; its score by automatic
              differentiation, through which training differentiates once more
    sampling  Heun's method on dx = -sigma s dsigma, with s = s_main + (w - 1) (s_main - s_guide)
    training  Adam on the mean of sigma^2 |s_theta - s|^2, unit rows and power-function averages after each step

It follows the dtype and device of what it is given, and is what ``toyguide bench`` compares the library with.

References:
    Karras et al., Guiding a Diffusion Model with a Bad Version of Itself, 2024, arXiv 2406.02507, Appendix C.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from toyguide.fields.mixtures import GaussianMixture
from toyguide.fields.networks import EnergyMLP

__all__ = ["Mixture", "Network", "sample_guided", "train"]


class Scored(Protocol):
    def score(self, x: Tensor, sigma: Tensor) -> Tensor:
        """``grad log p(x; sigma)`` at points (n, d) with noise levels (n,), with shape (n, d)."""


class Mixture:
    """A Gaussian mixture.

    Args:
        mixture: Whose weights, means and covariances it takes.
        like: A tensor with the dtype and device to compute in.
    """

    def __init__(self, mixture: GaussianMixture, like: Tensor) -> None:
        self.log_weights = mixture.weights.log().to(like)
        self.means = mixture.means.to(like)
        self.covariances = mixture.covariances.to(like)

    def log_density(self, x: Tensor, sigma: Tensor) -> Tensor:
        """``log p(x; sigma)`` at points (n, d) with noise levels (n,), with shape (n,)."""
        d = x.shape[1]
        noise = sigma.square()[:, None, None, None] * torch.eye(d, dtype=x.dtype, device=x.device)
        covariances = self.covariances + noise  # (n, K, d, d)
        precisions = torch.linalg.inv(covariances)
        log_volumes = torch.linalg.slogdet(covariances).logabsdet  # (n, K)
        offsets = x[:, None] - self.means  # (n, K, d)
        distances = torch.einsum("nki,nkij,nkj->nk", offsets, precisions, offsets)
        logits = self.log_weights - 0.5 * (distances + log_volumes + d * math.log(2 * math.pi))
        return logits.logsumexp(1)

    def score(self, x: Tensor, sigma: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (score,) = torch.autograd.grad(self.log_density(x, sigma).sum(), x)
        return score

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """``n`` points of the data, with shape ``(n, d)``."""
        m = self.means
        k = torch.multinomial(self.log_weights.exp(), n, replacement=True, generator=generator)
        z = torch.randn(n, m.shape[1], generator=generator, dtype=m.dtype, device=m.device)
        return m[k] + torch.einsum("nij,nj->ni", torch.linalg.cholesky(self.covariances)[k], z)


class Network:
    """The energy network, unconditional or at no label.

    Args:
        network: Whose weights it takes a copy of.
        trainable: Whether they are to be learned.
    """

    def __init__(self, network: EnergyMLP, trainable: bool = False) -> None:
        self.weights = [w.detach().clone().requires_grad_(trainable) for w in network.weights]
        self.gain = network.gain.detach().clone().requires_grad_(trainable)
        self.bounded = network.bounded
        self.sigma_data = network.sigma_data

    @property
    def parameters(self) -> list[Tensor]:
        return [*self.weights, self.gain]

    def log_density(self, x: Tensor, sigma: Tensor) -> Tensor:
        """G at points (n, d) with noise levels (n,), with shape (n,)."""
        sigma = sigma[:, None]
        x_star = x / (sigma.square() + self.sigma_data.square()).sqrt()
        h = torch.cat([x_star, sigma.log() / 4, torch.ones_like(sigma)], 1)
        for i, weight in enumerate(self.weights):
            h = functional.linear(h if i == 0 else functional.silu(h) / 0.596, functional.normalize(weight, dim=1))
        energy = h.square().sum(1, keepdim=True) / (sigma * h.shape[1])
        g = -torch.abs(self.gain) if self.bounded else self.gain
        return (g * energy)[:, 0] - 0.5 * x_star.square().sum(1)

    def score(self, x: Tensor, sigma: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            trainable = self.gain.requires_grad
            (score,) = torch.autograd.grad(self.log_density(x, sigma).sum(), x, create_graph=trainable)
        return score

    def hessian(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The score's Jacobian, a row at a time, with shape (n, d, d)."""
        x = x.detach().requires_grad_()
        (score,) = torch.autograd.grad(self.log_density(x, sigma).sum(), x, create_graph=True)
        rows = [torch.autograd.grad(s.sum(), x, retain_graph=True)[0] for s in score.unbind(1)]
        return torch.stack(rows, 1)


def sample_guided(main: Scored, guide: Scored, w: float, x: Tensor, levels: Tensor) -> Tensor:
    """Walk points (n, d) down the noise levels, the last one 0, under classifier-free guidance."""

    def slope(x: Tensor, level: Tensor) -> Tensor:
        sigma = level.to(x).expand(len(x))
        score = main.score(x, sigma)
        score = score + (w - 1) * (score - guide.score(x, sigma))
        return -level * score

    for level, lower in itertools.pairwise(levels):
        first = slope(x, level)
        ahead = x + (lower - level) * first
        x = x + (lower - level) * (first + slope(ahead, lower)) / 2 if lower > 0 else ahead
    return x


def train(
    network: Network, batches: Iterator[tuple[Tensor, Tensor]], exact: Scored, rate: float, ema_exponent: float
) -> Iterator[Tensor]:
    """Train a network on points (n, d) with noise levels (n,); yields the loss of each step, once it is done."""
    optimizer = torch.optim.Adam(network.parameters, betas=(0.9, 0.99), lr=rate)
    average = copy.deepcopy(network)
    for iteration, (x, sigma) in enumerate(batches, 1):
        error = network.score(x, sigma) - exact.score(x, sigma)
        loss = (sigma.square() * error.square().sum(1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for w in network.weights:
                w.copy_(functional.normalize(w, dim=1) * math.sqrt(w.shape[1]))
            beta = (1 - 1 / iteration) ** (ema_exponent + 1)
            for mean, now in zip(average.parameters, network.parameters, strict=True):
                mean.lerp_(now, 1 - beta)
        yield loss.detach()
