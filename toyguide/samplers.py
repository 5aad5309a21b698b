"""Samplers: solver steps from one noise level to the next, and the sampling loop.

The probability-flow ODE is ``dx = -sigma s dsigma``: its slope is ``(x - D)/sigma``. The reverse SDE has twice the
drift and adds noise: ``dx = -2 sigma s dsigma + sqrt(2 sigma) dW``. Without guidance both have the same marginal
distribution at every level; with guidance they differ. A sampler declares its order of convergence; a test measures it.

References:
    Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, 2022, arXiv 2206.00364,
    Algorithm 1 (Heun).
    Ho et al., Denoising Diffusion Probabilistic Models, 2020, arXiv 2006.11239, Eq. 6 and 7 (Ancestral).
    Xu et al., Restart Sampling for Improving Generative Processes, 2023, arXiv 2306.14878, Algorithm 2 (Restart).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from toyguide.errors import InputError, unknown
from toyguide.guidance import Arrival, Cost, Evaluation, Fields, Guided, Rule, Scene, Transition
from toyguide.guidance.evaluation import kept
from toyguide.noise import edm_schedule

__all__ = [
    "SAMPLERS",
    "Ancestral",
    "Euler",
    "Heun",
    "Restart",
    "Sampler",
    "Step",
    "fitting",
    "follow",
    "misfit",
    "noise_of",
    "sampler",
    "trajectory",
]

Slope = Callable[[Tensor, float], Tensor]
"""``(x, sigma) -> dx/dsigma`` at a later stage of the step; evaluates the rule."""

Noise = Callable[[], Tensor]
"""Fresh standard normal numbers, with shape ``(n, d)``."""


@dataclass(frozen=True)
class Step:
    """The state of a run after some number of steps.

    Attributes:
        index: The number of steps taken; 0 is the start.
        sigma: The current noise level; 0 after the last step.
        x: The points, with shape ``(n, d)``.
        cost: The evaluations made so far.
        push: The guided minus the main field's denoised points at the beginning of the last step, with shape
            ``(n, d)``; None at the start, and if the rule did not evaluate the main field.
        guided_at: The points at which the push was taken: those that the last step began from, unless the rule moved
            them first; with shape ``(n, d)``, None at the start.
        trace: The rule's trace at the beginning of the last step; empty at the start.
        ancestors: If the step resampled, the index that each point's ancestor had before, with shape ``(n,)``; None
            otherwise.
    """

    index: int
    sigma: float
    x: Tensor
    cost: Cost
    push: Tensor | None
    guided_at: Tensor | None
    trace: Mapping[str, Tensor]
    ancestors: Tensor | None

    @property
    def nfe(self) -> float:
        """Field evaluations so far, the mean over the points."""
        return self.cost.mean


class Sampler:
    """A solver. Subclasses define a key, a title and an order of convergence.

    The order is that of the points for a deterministic sampler, and the weak order (that of expectations) for a
    stochastic one.
    """

    key: ClassVar[str]
    title: ClassVar[str]
    order: ClassVar[int]
    stochastic: ClassVar[bool] = False
    """Whether it draws noise."""
    noisy_steps: ClassVar[bool] = False
    """Whether every step of it does, but for the last."""

    def aim(self, sigma: float, sigma_next: float) -> float:
        """The level that the first slope aims at; below ``sigma_next`` if the sampler adds noise afterwards."""
        return sigma_next

    def step(self, x: Tensor, sigma: float, sigma_next: float, first: Tensor, slope: Slope, noise: Noise) -> Tensor:
        """The points at ``sigma_next``.

        Args:
            x: The points, with shape ``(n, d)``.
            sigma: Their noise level, positive.
            sigma_next: The next level; 0 at the last step.
            first: The slope at ``x`` towards the level ``aim(sigma, sigma_next)``, already evaluated.
            slope: The slope at later stages of this step.
            noise: Draws noise.
        """
        raise TypeError(f"{type(self).__name__} does not say how it steps")


class Euler(Sampler):
    """``x' = x + (sigma' - sigma) slope``; one evaluation per step."""

    key, title, order = "euler", "Euler", 1

    def step(self, x: Tensor, sigma: float, sigma_next: float, first: Tensor, slope: Slope, noise: Noise) -> Tensor:
        return x + (sigma_next - sigma) * first


class Heun(Sampler):
    """EDM's deterministic Heun: an Euler step, then the mean slope of both ends; the last step, to 0, is Euler's."""

    key, title, order = "heun", "Heun (EDM)", 2

    def step(self, x: Tensor, sigma: float, sigma_next: float, first: Tensor, slope: Slope, noise: Noise) -> Tensor:
        ahead = x + (sigma_next - sigma) * first
        if sigma_next == 0:
            return ahead
        return x + (sigma_next - sigma) * 0.5 * (first + slope(ahead, sigma_next))


class Ancestral(Sampler):
    """DDPM's step: a draw from ``p(x' | x, x0 = D)``; one evaluation per step, and the reverse SDE in the limit.

    An Euler step down to ``sigma'^2/sigma``, then noise up to ``sigma'``:

        x' = D + (sigma'/sigma)^2 (x - D) + sigma_up z,   sigma_up^2 = sigma'^2 (sigma^2 - sigma'^2)/sigma^2

    With a renoiser R, ``x - R`` replaces ``x - D``.
    """

    key, title, order, stochastic, noisy_steps = "ancestral", "Ancestral (SDE)", 1, True, True

    def aim(self, sigma: float, sigma_next: float) -> float:
        return sigma_next**2 / sigma

    def step(self, x: Tensor, sigma: float, sigma_next: float, first: Tensor, slope: Slope, noise: Noise) -> Tensor:
        down = x + (self.aim(sigma, sigma_next) - sigma) * first
        return down + (sigma_next / sigma) * math.sqrt(sigma**2 - sigma_next**2) * noise()


class Restart(Heun):
    """Heun, which goes back up in the one step that crosses a low level: noise is added, and it is solved down again.

    What the first passage and the solver's errors did to the points is partly forgotten, and their density at that
    level is kept if the field is exact. A hop starts from the level ``sigma'`` that the step leads to:

        x <- x + sqrt(high^2 - sigma'^2) z,   then N Heun steps from ``high`` down to ``sigma'``;   K times

    K and the two levels are published for images, (N, K, low, high) = (3, 2, 0.06, 0.30), and hold here unchanged,
    because the datasets have those images' standard deviation of 0.5. N is twice as large: on data as thin as the
    datasets' branches the error of a hop is then about that of 32 Heun steps. The levels of a hop are spaced as EDM's.
    With N growing as the number of steps the order is Heun's.

    Args:
        N: Heun steps of a hop, at least 1.
        K: Hops; without any it is Heun.
        low: The level that the step crosses: it starts above, and ends there or below.
        high: The level that a hop leads up to.
    """

    key, title, stochastic = "restart", "Restart (Heun)", True

    def __init__(self, N: int = 6, K: int = 2, low: float = 0.06, high: float = 0.30) -> None:
        self.N, self.K, self.low, self.high = N, K, low, high

    def step(self, x: Tensor, sigma: float, sigma_next: float, first: Tensor, slope: Slope, noise: Noise) -> Tensor:
        x = super().step(x, sigma, sigma_next, first, slope, noise)
        if not 0 < sigma_next <= self.low < sigma:
            return x
        levels = edm_schedule(self.N + 1, sigma_next, self.high)[:-1].tolist()
        for _ in range(self.K):
            x = x + math.sqrt(self.high**2 - sigma_next**2) * noise()
            for above, below in itertools.pairwise(levels):
                x = super().step(x, above, below, slope(x, above), slope, noise)
        return x


SAMPLERS: dict[str, type[Sampler]] = {cls.key: cls for cls in (Heun, Euler, Ancestral, Restart)}


def sampler(key: str) -> Sampler:
    """A sampler by name.

    Raises:
        InputError: If there is none of that name.
    """
    if key not in SAMPLERS:
        raise unknown("sampler", key, SAMPLERS)
    return SAMPLERS[key]()


def misfit(rule: Rule, key: str) -> str:
    """What a rule needs of its sampler that this one has not, in words; empty if they fit."""
    chosen = sampler(key)
    if chosen.order > 1 and rule.first_order:
        return "a first-order one, like 'euler'"
    if rule.needs_noise and not chosen.noisy_steps:
        return "one with noise, like 'ancestral'"
    return ""


def fitting(rule: Rule, key: str) -> str:
    """A sampler's name, or the nearest one that a rule can run with."""
    return next(name for name in (key, "euler", "ancestral") if not misfit(rule, name))


@torch.no_grad()
def trajectory(
    rule: Rule,
    scene: Scene | Fields,
    sampler: Sampler,
    x: Tensor,
    levels: Tensor,
    generator: torch.Generator,
    count: int | None = None,
) -> Iterator[Step]:
    """Samples under a guidance rule: the only sampling loop, used by the app, the CLI and the tests.

    Args:
        rule: The guidance rule.
        scene: The fields by role; with a dataset and a label if the rule uses classes. Its levels are ignored.
        sampler: The sampler.
        x: The starting points at ``levels[0]``, with shape ``(n, d)``.
        levels: Falling noise levels, the last one 0, with shape ``(steps + 1,)``.
        generator: Random numbers for rules and samplers that need them, on the CPU.
        count: The number of points of the whole run, of which ``x`` are the first; None if ``x`` is all of them. The
            sampler draws noise for the whole run, so that the first points always get the same noise.

    Yields:
        The initial state, and the state after each step.
    """
    sigmas = tuple(float(s) for s in levels)
    scene = replace(scene, levels=sigmas) if isinstance(scene, Scene) else Scene(scene, sigmas)
    noise = noise_of(x, generator, len(x) if count is None else count)
    cost = Cost()
    x, memory = rule.begin(Evaluation(scene, x, sigmas[0], 0, cost), generator)
    yield Step(0, sigmas[0], x, cost.copy(), None, None, {}, None)

    for index, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas)):
        at = Evaluation(scene, x, sigma, index, cost)
        guided, start, arrival = _step(rule, sampler, at, memory, sigma_next, generator, noise)
        x, memory = arrival.x, arrival.memory
        push = guided.denoised - start.denoised() if start.has("main") else None
        yield Step(index + 1, sigma_next, x, cost.copy(), push, start.x, guided.trace, arrival.ancestors)


def _step(
    rule: Rule,
    sampler: Sampler,
    at: Evaluation,
    memory: Any,
    sigma_next: float,
    generator: torch.Generator,
    noise: Noise,
) -> tuple[Guided, Evaluation, Arrival]:
    """One solver step: the guided denoiser at its first evaluation, that evaluation, and the points it ends on."""
    x, memory = rule.before_step(at, memory)
    start = at if x is at.x else at.moved(x)
    guided = _checked(rule, sampler, rule.guide(start, memory), x)
    memory = kept(guided.memory, memory)

    def slope(x: Tensor, sigma: float) -> Tensor:
        return _checked(rule, sampler, rule.guide(at.moved(x, sigma), memory), x).slope(x, sigma, sigma_next)

    def draw() -> Tensor:
        first = guided.slope(x, at.sigma, sampler.aim(at.sigma, sigma_next))
        return sampler.step(x, at.sigma, sigma_next, first, slope, noise)

    def evaluate(x: Tensor) -> Evaluation:
        return at.moved(x, sigma_next, at.index + 1)

    transition = Transition(x, at.sigma, draw(), sigma_next, guided, draw, evaluate, noise)
    arrival = rule.after_step(transition, memory, generator)
    if not isinstance(arrival, Arrival):
        raise _wrong(rule, f"after_step returns a {type(arrival).__name__}, expected an Arrival")
    if arrival.ancestors is not None and not rule.interacts:
        raise _wrong(rule, "after_step resamples, expected interacts = True")
    return guided, start, replace(arrival, memory=kept(arrival.memory, memory))


def _checked(rule: Rule, sampler: Sampler, guided: Guided, x: Tensor) -> Guided:
    """What ``guide`` returned, after a check that the loop can use it."""
    if not isinstance(guided, Guided):
        raise _wrong(rule, f"guide returns a {type(guided).__name__}, expected a Guided")
    if guided.denoised.shape != x.shape:
        found, expected = tuple(guided.denoised.shape), tuple(x.shape)
        raise _wrong(rule, f"guide returns denoised points of shape {found}, expected {expected}")
    if guided.renoise is not None and sampler.order > 1:
        raise _wrong(rule, "guide returns a renoiser, expected first_order = True and such a sampler")
    return guided


def _wrong(rule: Rule, what: str) -> InputError:
    return InputError(f"rule {rule.key or type(rule).__name__!r}: {what}")


def follow(x: Tensor, ancestors: Sequence[Tensor | None]) -> Tensor:
    """The paths of the final points, traced back through resampling.

    Args:
        x: The points at every level, with shape ``(steps + 1, n, d)``.
        ancestors: The ancestors of each step, as in :class:`Step`.

    Returns:
        The position of each final point, or of its ancestor, at every level; with the shape of ``x``.
    """
    if all(a is None for a in ancestors):
        return x
    rows = torch.arange(x.shape[1], device=x.device)
    paths = [x[-1]]
    for points, origin in zip(x[:-1].flip(0), reversed(ancestors), strict=True):
        rows = rows if origin is None else origin.to(x.device)[rows]
        paths.append(points[rows])
    return torch.stack(paths[::-1])


def noise_of(x: Tensor, generator: torch.Generator, count: int) -> Noise:
    """The sampler's noise, from a separate stream, so that it does not depend on how many numbers a rule draws.

    A seed gives the same noise on every CPU, but other noise on a GPU.
    """
    stream = generator.clone_state()
    seed = int(torch.randint(2**62, (), generator=stream))
    where = x.device if x.is_cuda else torch.device("cpu")
    stream = torch.Generator(where).manual_seed(seed)

    def draw() -> Tensor:
        z = torch.randn(count, x.shape[-1], generator=stream, dtype=torch.float64, device=where)
        return z[: len(x)].to(x)

    return draw
