"""What is compared with the textbook, on the fractal: each case makes its inputs and gives two functions to time."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from toyguide._speed import compiled
from toyguide.bench import textbook
from toyguide.datasets import Dataset, load_dataset
from toyguide.datasets.checkpoints import load_model
from toyguide.experiment import Experiment
from toyguide.fields.networks import EnergyMLP
from toyguide.geometry.planes import plane_of, window_of
from toyguide.metrics import measure
from toyguide.samplers import sampler, trajectory
from toyguide.sweeps.batch import walk_batch
from toyguide.training import TrainSettings, ema_exponent, train

__all__ = ["CASES", "Aim", "Case", "guided", "sampling"]

_BATCH = TrainSettings.batch
_TRAINING = TrainSettings(label="A")


@dataclass(frozen=True)
class Aim:
    """A target.

    Attributes:
        ratio: At least so many times as fast as the textbook.
        at_most: An upper bound, in the unit of the measured value; seconds for a case.
    """

    ratio: float | None = None
    at_most: float | None = None

    def met(self, value: float, ratio: float | None = None) -> bool:
        fast = self.ratio is None or (ratio is not None and ratio >= self.ratio)
        return fast and (self.at_most is None or value <= self.at_most)


@dataclass(frozen=True)
class Case:
    """Two functions that do the same.

    Attributes:
        name: What they do.
        toyguide: The library's way.
        textbook: The textbook's; None where there is none to compare with.
        share: How much of the work the textbook's function does, where all of it would take too long.
    """

    name: str
    toyguide: Callable[[], Any]
    textbook: Callable[[], Any] | None = None
    share: float = 1.0


def exact_score(device: torch.device, n: int = _BATCH) -> Case:
    field, (x, sigma) = _data().field("A"), next(_batches(device, n))
    reference = textbook.Mixture(field, x)
    return Case(
        f"exact score, {len(x)} points, own sigma each, {len(field)} components",
        partial(field.score, x, sigma),
        partial(reference.score, x, sigma),
    )


def exact_score_without_compiler(device: torch.device, n: int = _BATCH) -> Case:
    case = exact_score(device, n)
    return Case(f"{case.name}, no compiler", compiled.without()(case.toyguide), case.textbook)


def log_density(device: torch.device, sigma: float, side: int = 400, part: int = 40) -> Case:
    """On a grid; the textbook takes every ``part``-th point of it."""
    data = _data()
    field, grid = data.field("A"), window_of(data, plane_of(data)).grid(side, device=device)
    x = grid.reshape(-1, 2)[::part]
    reference = textbook.Mixture(field, x)
    return Case(
        f"exact log-density, {side} × {side} grid, sigma {sigma:g} (textbook: {len(x)} of the points)",
        partial(field.log_density, grid, sigma),
        partial(reference.log_density, x, torch.full_like(x[:, 0], sigma)),
        len(x) / side**2,
    )


def training_step(device: torch.device) -> Case:
    # Without an end: a fast machine makes more steps here than the network's training has.
    steps, reference = train(dataclasses.replace(_TRAINING, iterations=10**8), device.type), _textbook_training(device)
    return Case(
        f"one training step of the main network, batch {_TRAINING.batch}",
        partial(next, steps),
        partial(next, reference),
    )


def whole_training(device: torch.device) -> Case:
    n = _TRAINING.iterations
    return Case(
        f"the whole training of the main network, {n} steps (textbook: one step)",
        lambda: _last(train(_TRAINING, device.type)),
        partial(next, _textbook_training(device)),
        1 / n,
    )


def guided(device: torch.device, n: int, part: int = 1, steps: int = 32) -> Case:
    """Under classifier-free guidance with two networks; the textbook takes every ``part``-th trajectory."""
    run = Experiment(label="A", rule="cfg", params={"w": 4.0}, n=n, steps=steps)
    some = f" (textbook: {len(range(0, n, part)):,} of the points)" if part > 1 else ""
    return Case(
        f"guided sampling (CFG, two networks), {n:,} points, {steps} Heun steps{some}",
        sampling(run, device),
        _textbook_sampling(run, device, part),
        1 / part,
    )


def sweep(device: torch.device, weights: int = 64, n: int = 16_384) -> Case:
    """All weights in one batch; the textbook has one weight."""
    runs = [Experiment(label="A", rule="cfg", params={"w": 1 + i / 10}, n=n) for i in range(weights)]
    fields = runs[0].build_fields(device.type)
    return Case(
        f"a sweep of {weights} weights × {n:,} samples, {runs[0].steps} Heun steps (textbook: one weight)",
        lambda: _last(walk_batch(runs, device.type, fields)).x[-n:],
        _textbook_sampling(runs[0], device),
        1 / weights,
    )


def network_score(device: torch.device) -> Case:
    return _of_network(device, "score", "score")


def network_hessian(device: torch.device) -> Case:
    return _of_network(device, "Hessian", "hessian")


def metrics(device: torch.device) -> Case:
    data = _data()
    x = data.field("A").sample(_BATCH, generator=torch.Generator().manual_seed(0)).float()
    return Case(f"metrics of {len(x)} samples, 200 resamples", partial(measure, x, data, "A"))


# On each kind of device, with what is to be reached: the ratios of the measured textbook to the time aimed at.
CASES: dict[str, list[tuple[Callable[[torch.device], Case], Aim | None]]] = {
    "cpu": [
        (exact_score, Aim(ratio=70)),
        (exact_score_without_compiler, Aim(ratio=10)),
        *((partial(log_density, sigma=sigma), Aim(ratio=150)) for sigma in (5.0, 0.1, 0.002)),
        (training_step, Aim(ratio=30)),
        (partial(guided, n=4096), Aim(ratio=946 / 300)),
        (partial(guided, n=512), Aim(ratio=400 / 60)),
        (network_score, None),
        (network_hessian, None),
        (metrics, None),
    ],
    "cuda": [
        (exact_score, None),
        *((partial(log_density, sigma=sigma), None) for sigma in (5.0, 0.1, 0.002)),
        (training_step, None),
        (whole_training, Aim(ratio=10, at_most=2.0)),
        (partial(guided, n=4096), None),
        (partial(guided, n=512), None),
        (partial(guided, n=1_000_000, part=8), Aim(at_most=1.0)),
        (sweep, None),
        (network_score, None),
        (network_hessian, None),
        (metrics, None),
    ],
}


def _data() -> Dataset:
    return load_dataset("fractal")


def _of_network(device: torch.device, name: str, method: str) -> Case:
    network, (x, sigma) = load_model("fractal/main").to(device), next(_batches(device))
    return Case(
        f"{name} of the main network, {len(x)} points",
        torch.no_grad()(partial(getattr(network, method), x, sigma)),
        partial(getattr(textbook.Network(network), method), x, sigma),
    )


def _batches(device: torch.device, n: int = _BATCH) -> Iterator[tuple[Tensor, Tensor]]:
    """Points and noise levels as in training, without end, from the textbook's own draws."""
    data, generator = _data(), torch.Generator(device).manual_seed(0)
    clean = textbook.Mixture(data.field("A"), torch.empty(0, dtype=torch.float32, device=device))
    while True:
        sigma = data.noise.sample(n, generator, device.type)
        noise = torch.randn(n, data.dim, generator=generator, dtype=torch.float32, device=device)
        yield clean.sample(n, generator) + sigma[:, None] * noise, sigma


def sampling(run: Experiment, device: torch.device) -> Callable[[], Tensor]:
    """A function that makes a run and returns its final points."""
    fields, start, levels, heun = run.build_fields(device.type), run.start().to(device), run.levels(), sampler("heun")
    return lambda: _last(trajectory(run.build_rule(), fields, heun, start, levels, torch.Generator())).x


def _textbook_sampling(run: Experiment, device: torch.device, part: int = 1) -> Callable[[], Tensor]:
    main, guide = (textbook.Network(load_model(f"fractal/{role}").to(device)) for role in ("main", "uncond"))
    start = run.start()[::part].to(device)
    return partial(textbook.sample_guided, main, guide, run.params["w"], start, run.levels())


def _textbook_training(device: torch.device) -> Iterator[Tensor]:
    data, s = _data(), _TRAINING
    start = EnergyMLP(data.dim, s.width, s.layers, data.sigma_data).to(device)
    exact = textbook.Mixture(data.field("A"), torch.empty(0, dtype=torch.float32, device=device))
    network = textbook.Network(start, trainable=True)
    return textbook.train(network, _batches(device), exact, s.learning_rate, ema_exponent(s.ema[0]))


def _last(steps: Iterable[Any]) -> Any:
    """Take every step and keep the last one."""
    return deque(steps, maxlen=1).pop()
