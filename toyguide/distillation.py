"""Distilling classifier-free guidance into an adapter: one evaluation in place of two.

Trajectories of the main field under CFG are run and stored, each at a weight of its own, ``w ~ U(1, 6)``. At every
point x of them, sigma its noise level, the adapter (``toyguide/fields/adapters.py``) learns what CFG adds: with
``D_w = D_main + (w - 1)(D_main - D_uncond)`` the loss is the mean over a batch of

    |D_adapted(x; sigma, w) - D_w(x; sigma)|^2 / sigma^2

the squared error of the noise that is predicted. Both fields are frozen. The points of unguided trajectories are not
those that a guided run passes; the paper's claim is that an adapter learns less from them. Optimiser, averages and
seeds are those of ``toyguide.training``.

References:
    Adapter Guidance Distillation, 2025, arXiv 2503.07274.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from toyguide.devices import resolve_device
from toyguide.errors import InputError
from toyguide.experiment import Experiment
from toyguide.fields.adapters import Adapter
from toyguide.guidance import Evaluation, rule
from toyguide.samplers import sampler, trajectory
from toyguide.training import Learning, TrainStep, optimize

__all__ = ["DistillSettings", "Targets", "distill", "guided_targets"]

_WEIGHTS = (1.0, 6.0)


@dataclass(frozen=True)
class DistillSettings(Learning):
    """Everything but the device that determines an adapter's weights; validated at construction.

    Args:
        dataset: A dataset's name or path.
        label: The class to sample.
        main: The reference of the frozen main field; None for its natural partner.
        uncond: The reference of CFG's unconditional field; None for its natural partner.
        guided: Store guided trajectories; False for unguided ones.
        trajectories: How many are stored.
        steps: The Euler steps of each.
        width: The features of each hidden layer.
        layers: The number of hidden layers.
        iterations: Optimizer steps.
        batch: Points in each step.
        learning_rate: The rate of the first ``t_ref`` steps.
        t_ref: The step after which the rate falls as ``1 / sqrt(t)``.
        ema: The lengths of the averages, as sigma_rel.
        seed: Of the trajectories, the initial weights and the batches.

    Raises:
        InputError: If a value is out of range or names something that does not exist.
    """

    dataset: str = "fractal"
    label: str | None = None
    main: str | None = None
    uncond: str | None = None
    guided: bool = True
    trajectories: int = 4096
    steps: int = 32
    width: int = 16
    layers: int = 2
    iterations: int = 4096
    batch: int = 1024
    learning_rate: float = 0.01
    t_ref: float = 512
    ema: tuple[float, ...] = (0.010,)
    seed: int = 0

    def __post_init__(self) -> None:
        self.check()
        if self.trajectories < 1:
            raise InputError(f"trajectories = {self.trajectories}: expected at least 1")
        self.experiment().build_fields()

    def experiment(self) -> Experiment:
        """The run whose guidance is distilled."""
        return Experiment(
            self.dataset,
            self.label,
            self.main,
            self.uncond,
            rule="cfg",
            sampler="euler",
            steps=self.steps,
            n=self.trajectories,
            seed=self.seed,
        )


@dataclass(frozen=True)
class Targets:
    """Points of stored trajectories, and what CFG does there.

    Attributes:
        x: The points, with shape ``(n, d)``.
        sigma: Their noise levels, with shape ``(n,)``.
        w: Their weights, with shape ``(n, 1)``.
        added: What CFG adds to the denoised points, with shape ``(n, d)``.
    """

    x: Tensor
    sigma: Tensor
    w: Tensor
    added: Tensor

    def at(self, rows: Tensor) -> Targets:
        """Some of them."""
        return Targets(self.x[rows], self.sigma[rows], self.w[rows], self.added[rows])

    def error(self, adapter: Adapter) -> Tensor:
        """The error of what the adapter adds to the noise that is predicted, with shape ``(n, d)``."""
        sigma = self.sigma[:, None]
        return (sigma.square() * adapter.at_weight(self.w).score(self.x, self.sigma) - self.added) / sigma


@torch.no_grad()
def guided_targets(settings: DistillSettings, device: str = "cpu") -> Targets:
    """The stored trajectories: ``trajectories`` times ``steps`` points."""
    experiment = settings.experiment()
    scene, generator = experiment.scene(device), experiment.generator()
    low, high = _WEIGHTS
    x = experiment.start().to(resolve_device(device))
    w = (low + (high - low) * torch.rand(len(x), 1, generator=generator, dtype=torch.float32)).to(x)
    cfg = rule("cfg", w=w)
    walked = cfg if settings.guided else rule("cfg", w=1.0)
    parts = []
    steps = trajectory(walked, scene, sampler("euler"), x, experiment.levels(), generator)
    for step, _ in itertools.pairwise(steps):
        at = Evaluation(scene, step.x, step.sigma, step.index)
        added = cfg.guide(at, None).denoised - at.denoised()
        parts.append((step.x, torch.full_like(step.x[:, 0], step.sigma), w, added))
    return Targets(*(torch.cat(part) for part in zip(*parts, strict=True)))


def distill(settings: DistillSettings, device: str = "auto") -> Iterator[TrainStep[Adapter]]:
    """Train an adapter, step by step; the same settings on the same device give the same weights.

    Args:
        settings: What to distill.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        InputError: If there is no such device.
    """
    where, data = resolve_device(device), settings.data
    targets = guided_targets(settings, where.type)
    generator = torch.Generator().manual_seed(settings.seed)
    adapter = Adapter(data.dim, settings.width, settings.layers, data.sigma_data, generator).to(where)
    adapter.label = settings.label
    if where.type == "cuda":
        generator = torch.Generator(where).manual_seed(settings.seed)

    def descend() -> Tensor:
        rows = torch.randint(len(targets.x), (settings.batch,), generator=generator, device=where)
        loss = targets.at(rows).error(adapter).square().sum(-1).mean()
        adapter.zero_grad()
        loss.backward()
        return loss.detach()

    yield from optimize(settings, adapter, adapter.normalize, descend, generator)
