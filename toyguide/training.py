"""Training a network to be a field: score matching at random noise levels.

A batch is points ``x = x0 + sigma n`` with ``log sigma`` from the dataset's normal distribution, each at its own
``sigma``. With the network's score ``s_theta``, the loss is the mean over the batch of

    exact      sigma^2 |s_theta(x; sigma) - s(x; sigma)|^2          with the exact score of the diffused class
    denoising  sigma^2 |s_theta(x; sigma) - (x0 - x) / sigma^2|^2   what one has without an exact score

The second target averaged over ``p(x0 | x)`` is the first: both losses have the same expected gradient, the second
with more variance. Adam at the rate ``lr / sqrt(max(t / t_ref, 1))``; after every step
each weight row is scaled to its norm (forced weight normalisation). A network with an auxiliary read-out is trained
with half of that read-out's own loss added, the weight in the code of Internal Guidance (2025, arXiv 2512.24176).

Samples come from averages of the weights theta(t) over training, with the power-function profile
``gamma + 1 over t times (tau / t)^gamma`` (Karras et al. 2023, Eqs. 121-127), whose length is given by its standard
deviation relative to the training so far, ``sigma_rel^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3))``:

    average(t) = beta average(t - 1) + (1 - beta) theta(t),   beta = (1 - 1/t)^(gamma + 1)

References:
    Karras et al., Guiding a Diffusion Model with a Bad Version of Itself, 2024, arXiv 2406.02507, Appendix C.
    Karras et al., Analyzing and Improving the Training Dynamics of Diffusion Models, 2023, arXiv 2312.02696, Sec. 3.
    Vincent, A Connection Between Score Matching and Denoising Autoencoders, 2011.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import starmap
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from toyguide._speed.cuda_graphs import Replayed
from toyguide.datasets import Dataset, load_dataset
from toyguide.devices import one_torch_thread, resolve_device
from toyguide.errors import InputError, unknown
from toyguide.fields.networks import EnergyMLP
from toyguide.fields.two_headed import TwoHeadedMLP

__all__ = ["LOSSES", "Learning", "PowerFunctionEMA", "TrainSettings", "TrainStep", "ema_exponent", "optimize", "train"]

LOSSES = ("exact", "denoising")
_BETAS = (0.9, 0.99)
_PARTS = 2  # of a batch, computed in parallel on a CPU
_AUXILIARY = 0.5  # the weight of an auxiliary read-out's loss
_LONGEST_EMA = 12**-0.5  # sigma_rel of the plain average over all of training, gamma = 0


class Learning:
    """What the settings of every training have: checks, the data, and the learning rate; subclasses are dataclasses."""

    dataset: str
    iterations: int
    learning_rate: float
    t_ref: float
    ema: tuple[float, ...]

    def check(self) -> None:
        """That the numbers that all trainings have are in range.

        Raises:
            InputError: If one is not.
        """
        for name, low, high in (
            ("width", 1, 65_536),
            ("layers", 0, 100),
            ("iterations", 1, 100_000_000),
            ("batch", 1, 100_000_000),
            ("seed", 0, 2**63 - 1),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise InputError(f"{name} = {value!r}: expected a whole number from {low} to {high}")
        for name in ("learning_rate", "t_ref"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
                raise InputError(f"{name} = {value!r}: expected a positive number")
        for sigma_rel in self.ema:
            ema_exponent(sigma_rel)
        if not self.ema or len(set(self.ema)) < len(self.ema):
            raise InputError(f"ema = {self.ema}: expected one or more different lengths")

    @property
    def data(self) -> Dataset:
        """The dataset."""
        return load_dataset(self.dataset)

    def learning_rate_at(self, iteration: int) -> float:
        """The learning rate of an iteration, counted from 1."""
        return self.learning_rate / math.sqrt(max(iteration / self.t_ref, 1))


@dataclass(frozen=True)
class TrainSettings(Learning):
    """Everything but the device that determines the trained weights; validated at construction.

    Args:
        dataset: A dataset's name or path.
        label: The class to model; None for the union.
        conditional: Model all classes and the union in one network with a label input.
        width: The features of each hidden layer.
        layers: The number of hidden layers after the input layer.
        iterations: Optimizer steps.
        batch: Points in each step.
        loss: ``exact`` or ``denoising``.
        learning_rate: The rate of the first ``t_ref`` steps.
        t_ref: The step after which the rate falls as ``1 / sqrt(t)``.
        ema: The lengths of the averages, as sigma_rel.
        seed: Of the initial weights and the batches.
        bounded: Keep the gain negative (see ``toyguide/fields/networks.py``); False for the paper's free gain.
        auxiliary: The hidden layer with an auxiliary read-out (see ``toyguide/fields/two_headed.py``); None without.

    Raises:
        InputError: If a value is out of range or names something that does not exist.
    """

    dataset: str = "fractal"
    label: str | None = None
    conditional: bool = False
    width: int = 64
    layers: int = 4
    iterations: int = 4096
    batch: int = 4096
    loss: str = "exact"
    learning_rate: float = 0.01
    t_ref: float = 512
    ema: tuple[float, ...] = (0.010,)
    seed: int = 0
    bounded: bool = True
    auxiliary: int | None = None

    def __post_init__(self) -> None:
        self.check()
        if self.auxiliary is not None and not (type(self.auxiliary) is int and 1 <= self.auxiliary < self.layers):
            layers = f"1 to {self.layers - 1}" if self.layers > 1 else "of which there is none"
            raise InputError(f"auxiliary = {self.auxiliary!r}: expected a hidden layer before the last, {layers}")
        if self.loss not in LOSSES:
            raise unknown("loss", self.loss, LOSSES)
        self.data.check_label(self.label)
        if self.conditional and self.label is not None:
            raise InputError(f"label {self.label!r}: a conditional network models every class; expected no label")


Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class TrainStep(Generic[Network]):
    """A finished optimizer step.

    Attributes:
        iteration: Which one, from 1.
        loss: The batch's loss, a scalar on the training's device: reading it waits for the device.
        learning_rate: The rate of this step.
        seconds: Since the beginning of the training.
        network: The network as it is now; the next step changes it.
        averages: The averaged networks by sigma_rel as they are now; the next step changes them.
    """

    iteration: int
    loss: Tensor
    learning_rate: float
    seconds: float
    network: Network
    averages: dict[float, Network]


class PowerFunctionEMA(Generic[Network]):
    """A network's average over its training.

    Args:
        network: The network before the first step.
        sigma_rel: The length of the average.
    """

    def __init__(self, network: Network, sigma_rel: float) -> None:
        self.exponent = ema_exponent(sigma_rel)
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    def weight(self, iteration: int) -> float:
        """``1 - beta``, the weight of the parameters after an iteration, counted from 1; 1 at the first."""
        return 1 - (1 - 1 / iteration) ** (self.exponent + 1)

    @torch.no_grad()
    def update(self, network: Network, weight: float | Tensor) -> None:
        """Add the parameters after an iteration to the average."""
        means: list[Tensor] = list(self.network.parameters())
        steps: list[Tensor] = list(torch._foreach_sub(list(network.parameters()), means))
        torch._foreach_mul_(steps, weight)
        torch._foreach_add_(means, steps)


def ema_exponent(sigma_rel: float) -> float:
    """The exponent gamma of the averaging profile with a relative standard deviation.

    Raises:
        InputError: If it is out of range.
    """
    if not 0 < sigma_rel < _LONGEST_EMA:
        raise InputError(f"ema {sigma_rel!r}: expected a length between 0 and {_LONGEST_EMA:.3f}")
    t = sigma_rel**-2
    return float(np.roots([1, 7, 16 - t, 12 - t]).real.max())


def train(settings: TrainSettings, device: str = "auto") -> Iterator[TrainStep[EnergyMLP]]:
    """Train a network, step by step; the same settings on the same device give the same weights.

    On a GPU the batches are drawn there and the whole step is one CUDA graph.

    Args:
        settings: What to train.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        InputError: If there is no such device.
    """
    where = resolve_device(device)
    generator = torch.Generator().manual_seed(settings.seed)
    network = _new_network(settings, generator).to(where)
    if recorded := where.type == "cuda":
        generator = torch.Generator(where).manual_seed(settings.seed)
    data = settings.data  # held, since a recorded step reads its constants where they are
    draw: Callable[[torch.Generator], Batch]
    if recorded and settings.conditional:
        draw = LabelledDraws(settings, data, network)
    else:
        draw = partial(draw_batch, settings, network)
    with ThreadPoolExecutor(_PARTS, "toyguide-train", torch.set_num_threads, (1,)) as pool:
        descend = partial(_descend, network) if recorded else partial(_descend_in_parts, network, pool)
        yield from optimize(settings, network, network.normalize, lambda: descend(draw(generator)), generator)


def optimize(
    settings: Learning,
    network: Network,
    normalize: Callable[[], None],
    descend: Callable[[], Tensor],
    generator: torch.Generator,
) -> Iterator[TrainStep[Network]]:
    """Adam's steps on a network, averaged.

    Args:
        settings: The learning rate, the iterations and the averages.
        network: What is trained.
        normalize: Called after every step.
        descend: Returns the loss of a new batch and leaves its gradient in the network's parameters.
        generator: What ``descend`` draws from, on the network's device; on a GPU the whole step is one CUDA graph.
    """
    averages = {sigma_rel: PowerFunctionEMA(network, sigma_rel) for sigma_rel in settings.ema}
    where = next(network.parameters()).device
    recorded = where.type == "cuda"
    # Tensors, so that a recorded step reads their new values.
    rate = torch.zeros((), dtype=torch.float32, device=where)
    weights = {sigma_rel: torch.zeros((), dtype=torch.float32, device=where) for sigma_rel in settings.ema}
    optimizer = torch.optim.Adam(network.parameters(), lr=rate, betas=_BETAS, fused=True, capturable=recorded)

    def step() -> Tensor:
        loss = descend()
        optimizer.step()
        normalize()
        for sigma_rel, average in averages.items():
            average.update(network, weights[sigma_rel])
        return loss

    changed = [p for n in (network, *(average.network for average in averages.values())) for p in n.parameters()]
    take = Replayed(step, generator, changed) if recorded else one_torch_thread()(step)
    began = time.perf_counter()
    for iteration in range(1, settings.iterations + 1):
        rate.fill_(settings.learning_rate_at(iteration))
        for sigma_rel, average in averages.items():
            weights[sigma_rel].fill_(average.weight(iteration))
        yield TrainStep(
            iteration,
            take(),
            settings.learning_rate_at(iteration),
            time.perf_counter() - began,
            network,
            {sigma_rel: average.network for sigma_rel, average in averages.items()},
        )


@dataclass(frozen=True)
class Batch:
    """Points to train on, n of them, on the training's device.

    Attributes:
        x: The noisy points, with shape ``(n, d)``.
        sigma: Their noise levels, with shape ``(n,)``.
        code: Their label inputs, with shape ``(n, label inputs)``.
        target: The scores to match, with shape ``(n, d)``.
    """

    x: Tensor
    sigma: Tensor
    code: Tensor
    target: Tensor


def draw_batch(settings: TrainSettings, network: EnergyMLP, generator: torch.Generator) -> Batch:
    """A random batch. Drawn on the CPU, one seed means one set of points whatever the network's device."""
    data = settings.data
    device, source = network.gain.device, generator.device
    parts = []
    for label, count in _counts(settings, generator):
        field = data.field(label)
        clean = field.sample(count, generator=generator).float()
        noise = torch.randn(clean.shape, generator=generator, dtype=torch.float32, device=source)
        sigma = data.noise.sample(count, generator, source)
        x = (clean + sigma[:, None] * noise).to(device)
        code = network.code(label if network.labels else None).expand(count, -1).to(device)
        if settings.loss == "exact":
            sigma = sigma.to(device)
            parts.append((x, sigma, code, field.score(x, sigma)))
        else:
            parts.append((x, sigma.to(device), code, (-noise / sigma[:, None]).to(device)))
    return Batch(*(torch.cat(p) for p in zip(*parts, strict=True)))


class LabelledDraws:
    """Random batches of a conditional training, of the distribution of ``draw_batch``, without waiting for the device.

    Each point draws its label by itself, so that no shape depends on what is drawn: a point of the union keeps the
    class of its component with probability 1/2.

    Args:
        settings: Of the training.
        data: Its dataset.
        network: A conditional network, on the training's device.
    """

    def __init__(self, settings: TrainSettings, data: Dataset, network: EnergyMLP) -> None:
        device = network.gain.device
        self._settings, self._noise, self._union = settings, data.noise, data.field()
        self._classes = data.components.component_label.to(device)  # (K,)
        self._codes = torch.stack([network.code(label) for label in data.labels]).to(device)  # (labels, label inputs)

    def __call__(self, generator: torch.Generator) -> Batch:
        """A batch; the generator's device is the network's."""
        n, device = self._settings.batch, generator.device
        clean, component = self._union.sample_with_components(n, generator=generator)
        noise = torch.randn(clean.shape, generator=generator, dtype=torch.float32, device=device)
        sigma = self._noise.sample(n, generator, device)
        unlabelled = torch.rand(n, 1, generator=generator, dtype=torch.float32, device=device) < 0.5
        x = clean.float() + sigma[:, None] * noise
        own = self._classes[component]
        code = self._codes[own].masked_fill(unlabelled, 0)
        if self._settings.loss == "exact":
            target = self._union.score_among(x, sigma, unlabelled | (own[:, None] == self._classes))
        else:
            target = -noise / sigma[:, None]
        return Batch(x, sigma, code, target)


def batch_loss(network: EnergyMLP, batch: Batch) -> Tensor:
    """The mean of ``sigma^2 |s_theta - target|^2``, a scalar; with half of that of an auxiliary read-out."""
    loss = _matching_loss(network, batch)
    return loss + _AUXILIARY * _matching_loss(network.middle, batch) if isinstance(network, TwoHeadedMLP) else loss


def _matching_loss(network: EnergyMLP, batch: Batch) -> Tensor:
    error = network.score(batch.x, batch.sigma, batch.code) - batch.target
    return (batch.sigma.square() * error.square().sum(-1)).mean()


def _descend(network: EnergyMLP, batch: Batch) -> Tensor:
    """The loss; its gradient is left in the parameters."""
    loss = batch_loss(network, batch)
    network.zero_grad()
    loss.backward()
    return loss.detach()


def _descend_in_parts(network: EnergyMLP, pool: ThreadPoolExecutor, batch: Batch) -> Tensor:
    """The same for parts of the batch in parallel, summed in their order, so that the number of processors changes
    nothing."""
    parameters = list(network.parameters())
    n = len(batch.x)

    def part(piece: Batch) -> tuple[Tensor, ...]:
        loss = batch_loss(network, piece) * (len(piece.x) / n)
        return loss.detach(), *torch.autograd.grad(loss, parameters)

    pieces = zip(*(t.chunk(_PARTS) for t in (batch.x, batch.sigma, batch.code, batch.target)), strict=True)
    loss, *gradients = (
        sum(values[1:], values[0]) for values in zip(*pool.map(part, starmap(Batch, pieces)), strict=True)
    )
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    return loss


def _new_network(settings: TrainSettings, generator: torch.Generator) -> EnergyMLP:
    data = settings.data
    labels = data.labels if settings.conditional else ()
    shape = (data.dim, settings.width, settings.layers, data.sigma_data, labels, generator, settings.bounded)
    network = EnergyMLP(*shape) if settings.auxiliary is None else TwoHeadedMLP(*shape, auxiliary=settings.auxiliary)
    network.label = settings.label
    return network


def _counts(settings: TrainSettings, generator: torch.Generator) -> list[tuple[str | None, int]]:
    """How many points of a batch are of which label. A conditional batch draws a label for each point: the union with
    probability 1/2, otherwise a class by its weight."""
    if not settings.conditional:
        return [(settings.label, settings.batch)]
    data = settings.data
    shares = [0.5, *(0.5 * float(data.components.mixture.weights[data.mask(label)].sum()) for label in data.labels)]
    drawn = torch.multinomial(
        torch.tensor(shares, dtype=torch.float32), settings.batch, replacement=True, generator=generator
    )
    counts = drawn.bincount(minlength=len(shares)).tolist()
    return [(label, count) for label, count in zip((None, *data.labels), counts, strict=True) if count]
