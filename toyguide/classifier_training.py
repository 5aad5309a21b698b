"""Training a classifier of noisy points: cross entropy at random noise levels.

A batch is points ``x = x0 + sigma n`` of the union with the classes of their ``x0``, ``log sigma`` from the dataset's
normal distribution. With label noise, a share r of the classes is replaced by one drawn uniformly from all K, so that
what there is to learn is

    q(c | x; sigma) = (1 - r) p(c | x; sigma) + r / K

with the exact posterior p: a classifier of flawed labels that is never sure. Optimiser, averages and seeds are those of
``toyguide.training``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from toyguide.datasets.trained_classifier import TrainedClassifier
from toyguide.devices import resolve_device
from toyguide.errors import InputError
from toyguide.training import Learning, TrainStep, optimize

__all__ = ["ClassifierSettings", "draw_labelled", "train_classifier"]


@dataclass(frozen=True)
class ClassifierSettings(Learning):
    """Everything but the device that determines a classifier's weights; validated at construction.

    Args:
        dataset: A dataset's name or path, of at least two classes.
        label_noise: The share of labels that are replaced by a random one, from 0 to below 1.
        width: The features of each hidden layer.
        layers: The number of hidden layers.
        iterations: Optimizer steps.
        batch: Points in each step.
        learning_rate: The rate of the first ``t_ref`` steps.
        t_ref: The step after which the rate falls as ``1 / sqrt(t)``.
        ema: The lengths of the averages, as sigma_rel.
        seed: Of the initial weights and the batches.

    Raises:
        InputError: If a value is out of range or names something that does not exist.
    """

    dataset: str = "fractal"
    label_noise: float = 0.0
    width: int = 64
    layers: int = 4
    iterations: int = 4096
    batch: int = 4096
    learning_rate: float = 0.01
    t_ref: float = 512
    ema: tuple[float, ...] = (0.010,)
    seed: int = 0

    def __post_init__(self) -> None:
        self.check()
        r = self.label_noise
        if not isinstance(r, int | float) or isinstance(r, bool) or not 0 <= r < 1:
            raise InputError(f"label noise {r!r}: expected a share from 0 to below 1")
        if len(self.data.labels) < 2:
            raise InputError(f"dataset {self.dataset!r}: has one class, expected at least two to tell apart")


def draw_labelled(settings: ClassifierSettings, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A random batch, on the generator's device.

    Returns:
        The noisy points, with shape ``(n, d)``, their noise levels, with shape ``(n,)``, and the indices of their
        classes, flawed ones for the share ``label_noise``, with shape ``(n,)``.
    """
    data, n, device = settings.data, settings.batch, generator.device
    clean, component = data.field().sample_with_components(n, generator=generator)
    noise = torch.randn(clean.shape, generator=generator, dtype=torch.float32, device=device)
    sigma = data.noise.sample(n, generator, device)
    label = data.components.component_label.to(device)[component]
    flawed = torch.rand(n, generator=generator, dtype=torch.float32, device=device) < settings.label_noise
    other = torch.randint(len(data.labels), (n,), generator=generator, device=device)
    return clean.float() + sigma[:, None] * noise, sigma, torch.where(flawed, other, label)


def train_classifier(settings: ClassifierSettings, device: str = "auto") -> Iterator[TrainStep[TrainedClassifier]]:
    """Train a classifier, step by step; the same settings on the same device give the same weights.

    Args:
        settings: What to train.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        InputError: If there is no such device.
    """
    where, data = resolve_device(device), settings.data
    generator = torch.Generator().manual_seed(settings.seed)
    network = TrainedClassifier(data.dim, data.labels, settings.width, settings.layers, data.sigma_data, generator).to(
        where
    )
    if where.type == "cuda":
        generator = torch.Generator(where).manual_seed(settings.seed)

    def descend() -> Tensor:
        x, sigma, label = draw_labelled(settings, generator)
        loss = functional.nll_loss(network.log_posterior(x, sigma), label)
        network.zero_grad()
        loss.backward()
        return loss.detach()

    yield from optimize(settings, network, network.normalize, descend, generator)
