"""A classifier that is a small network, trained on noisy points: ``p(c | x; sigma) = softmax(g F(x; sigma) / T)``.

F is a network of magnitude-preserving layers (``toyguide.fields.layers``) with an output for each class, g a learned
number that makes it as sure as it may be, and T a temperature, 1 as trained.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from toyguide.datasets.classifiers import Classifier
from toyguide.fields.base import Sigma, checked
from toyguide.fields.layers import UnitMLP, noise_inputs

__all__ = ["TrainedClassifier"]


class TrainedClassifier(nn.Module, Classifier):
    """See the module's docstring.

    Args:
        dim: The dimension of the data.
        labels: The classes.
        width: The features of each hidden layer.
        layers: The number of hidden layers.
        sigma_data: The data's per-axis standard deviation, with shape ``(dim,)``.
        generator: The random numbers of the initial weights.
    """

    def __init__(
        self,
        dim: int,
        labels: tuple[str, ...],
        width: int,
        layers: int,
        sigma_data: Tensor,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.sigma_data: Tensor
        self.dim, self.labels, self.width, self.layers = dim, tuple(labels), width, layers
        self.body = UnitMLP([dim + 2, *[width] * layers, len(labels)], generator)
        self.gain = nn.Parameter(torch.ones((), dtype=torch.float32))
        self.register_buffer("sigma_data", torch.as_tensor(sigma_data, dtype=torch.float32).clone())
        self.temperature = 1.0
        self.metadata: dict[str, object] = {}

    def logits(self, x: Tensor, sigma: Sigma) -> Tensor:
        """``g F / T``, with shape ``(..., labels)``."""
        x, sigma = checked(x, sigma, self.dim, positive=True)
        return self.gain.to(x.dtype) / self.temperature * self.body(noise_inputs(x, sigma, self.sigma_data))

    def log_posterior(self, x: Tensor, sigma: Sigma) -> Tensor:
        return torch.log_softmax(self.logits(x, sigma), -1)

    @torch.enable_grad()
    def gradient(self, x: Tensor, sigma: Sigma, label: str) -> Tensor:
        at = x.detach().requires_grad_()
        return torch.autograd.grad(self.log_posterior(at, sigma)[..., self.index(label)].sum(), at)[0]

    @torch.enable_grad()
    def logits_vjp(self, x: Tensor, sigma: Sigma, v: Tensor) -> Tensor:
        at = x.detach().requires_grad_()
        return torch.autograd.grad((self.logits(at, sigma) * v.detach()).sum(), at)[0]

    def tempered(self, temperature: float) -> TrainedClassifier:
        """The classifier with its logits divided by a temperature more: above 1 it is less confident."""
        view = copy.copy(self)
        view.temperature = self.temperature * temperature
        return view

    def normalize(self) -> None:
        """Scale every weight row to norm sqrt(inputs)."""
        self.body.normalize()
