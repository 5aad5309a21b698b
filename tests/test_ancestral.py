"""The ancestral sampler: DDPM's posterior, its weak order, its noise, and CFG's closed forms on two variances.

With a main field ``N(0, a)`` and an unconditional one ``N(0, b)`` the guided score at the noise variance t is
``-c x``, ``c = w/(a + t) + (1 - w)/(b + t)``: the probability-flow ODE has ``dV/dt = c V``, the reverse SDE
``dV/dt = 2 c V - 1``.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from helpers import seeded
from scipy.integrate import solve_ivp
from torch import Tensor

import toyguide as tg
from toyguide.fields import Field
from toyguide.guidance import Arrival, Guided, Rule
from toyguide.noise import edm_schedule
from toyguide.samplers import SAMPLERS, sampler, trajectory

W = torch.float64
DATA = tg.load_dataset("two-variances")
NARROW, WIDE = DATA.field("narrow"), DATA.field("wide")
FIELDS: dict[str, Field] = {"main": NARROW, "uncond": WIDE}
X = torch.tensor([[3.0, -4.0], [0.5, 5.0], [-6.0, 1.0], [2.0, 2.5]], dtype=W)


# Closed forms


def ode_variance(w: float, high: float, a: float = 1.0, b: float = 2.0) -> float:
    """Where the ODE ends that starts from ``N(0, a + high^2)``; ``a^w b^(1 - w)`` from infinity."""
    t = high**2
    return (a + t) * (a / (a + t)) ** w * (b / (b + t)) ** (1 - w)


def sde_variance(w: float, high: float, a: float = 1.0, b: float = 2.0) -> float:
    """Where the reverse SDE ends that starts there; ``(2 - 2^(2 - 2w))/(2w - 1)`` from infinity.

    ``V/M`` with ``M = (a + t)^(2w) (b + t)^(2 - 2w)`` has the slope ``-1/M``, whose integral is a power of
    ``(b + t)/(a + t)``.
    """
    t, p = high**2, 2 * w - 1
    start = (a + t) / ((a + t) ** (2 * w) * (b + t) ** (2 - 2 * w))
    gained = ((b / a) ** p - ((b + t) / (a + t)) ** p) / ((b - a) * p)
    return a ** (2 * w) * b ** (2 - 2 * w) * (start + gained)


@pytest.mark.parametrize("w", [0.0, 1.0, 2.0, 3.0, 5.0])
def test_the_closed_forms_solve_the_equations_of_the_variance(w):
    """By an independent solver, from a level so low that where it starts matters."""
    high = 3.0
    c = lambda t: w / (1 + t) + (1 - w) / (2 + t)  # noqa: E731
    for form, slope in ((ode_variance, lambda t, v: c(t) * v), (sde_variance, lambda t, v: 2 * c(t) * v - 1)):
        solved = solve_ivp(slope, (high**2, 0.0), [1 + high**2], method="DOP853", rtol=1e-11, atol=1e-13)
        assert form(w, high) == pytest.approx(solved.y[0, -1], rel=1e-9)
    assert ode_variance(w, 1e4) == pytest.approx(2 ** (1 - w), rel=1e-6)
    assert sde_variance(w, 1e4) == pytest.approx((2 - 2 ** (2 - 2 * w)) / (2 * w - 1), rel=1e-6)


def test_unguided_both_end_on_the_data():
    assert ode_variance(1.0, 5.0) == pytest.approx(1.0, rel=1e-12)
    assert sde_variance(1.0, 5.0) == pytest.approx(1.0, rel=1e-12)


# One step


def test_a_step_is_a_draw_from_the_posterior_given_the_denoised_point():
    """``p(x' | x, x0)`` from its precision: of ``x | x'`` with variance s^2 - t^2 and of ``x' | x0`` with t^2."""
    s, t = 2.0, 0.7
    precision = 1 / (s**2 - t**2) + 1 / t**2
    denoised, z = NARROW.denoise(X, s), torch.randn(X.shape, generator=seeded(0), dtype=W)
    expected = (X / (s**2 - t**2) + denoised / t**2) / precision + z / math.sqrt(precision)
    method = sampler("ancestral")
    first = (X - denoised) / s
    torch.testing.assert_close(method.step(X, s, t, first, lambda *_: X, lambda: z), expected, rtol=1e-12, atol=1e-12)
    # The last step lands on the denoised point, and needs no noise for it.
    torch.testing.assert_close(method.step(X, s, 0.0, first, lambda *_: X, lambda: z), denoised, rtol=0, atol=1e-12)


class CfgPlusPlus(Rule):
    """Renoises along another direction than it denoises along (Chung et al. 2024, arXiv 2406.08070)."""

    lam = 0.6
    first_order = True

    def guide(self, at, memory):
        main, uncond = at.denoised_each("main", "uncond")
        return Guided(uncond + self.lam * (main - uncond), renoise=uncond)


def test_a_renoiser_turns_the_direction_and_not_the_noise():
    """CFG++ is ``D_lam + (t/s)^2 (x - D_uncond) + sigma_up z``, which is CFG with ``w = lam s^2/(s^2 - t^2)``."""
    levels = torch.tensor([3.0, 1.5, 0.7, 0.0], dtype=W)
    steps = list(trajectory(CfgPlusPlus(), FIELDS, sampler("ancestral"), X, levels, seeded(1)))
    for index, (before, after) in enumerate(itertools.pairwise(steps)):
        s, t = before.sigma, after.sigma
        uncond, main = WIDE.denoise(before.x, s), NARROW.denoise(before.x, s)
        landing = uncond + 0.6 * (main - uncond) + (t / s) ** 2 * (before.x - uncond)
        z = noise_of(seeded(1), len(X), index)
        torch.testing.assert_close(after.x, landing + t / s * math.sqrt(s**2 - t**2) * z, rtol=1e-10, atol=1e-12)
        w = 0.6 * s**2 / (s**2 - t**2)
        same = w * main + (1 - w) * uncond
        torch.testing.assert_close(landing, same + (t / s) ** 2 * (before.x - same), rtol=1e-10, atol=1e-12)


def noise_of(generator: torch.Generator, n: int, index: int) -> Tensor:
    """A run's noise at one of its steps: with a rule that leaves points where they are, what a step adds."""

    class Still(Rule):
        def guide(self, at, memory):
            return Guided(at.x)

    levels = torch.tensor([*(2.0 ** -torch.arange(index + 2)), 0.0], dtype=W)
    steps = list(
        trajectory(Still(), {"main": NARROW}, sampler("ancestral"), torch.zeros(n, 2, dtype=W), levels, generator)
    )
    s, t = steps[index].sigma, steps[index + 1].sigma
    return (steps[index + 1].x - steps[index].x) / (t / s * math.sqrt(s**2 - t**2))


# Order of convergence


def variance_of(method: str, w: float, levels: Tensor) -> float:
    """The variance that the steps make of ``N(0, 1 + high^2)``, without a random number.

    On Gaussians a step is linear: x times a gain, plus z times a scale. Points that start at 0 but for the first, each
    with a unit of noise at a step of its own, end on the responses, whose squares add up.
    """

    def slope(x: Tensor, s: float) -> Tensor:
        return (x - w * NARROW.denoise(x, s) - (1 - w) * WIDE.denoise(x, s)) / s

    x = torch.zeros(len(levels), 2, dtype=W)
    x[0] = math.sqrt(1 + float(levels[0]) ** 2)
    for index, (s, t) in enumerate(itertools.pairwise(levels.tolist()), 1):
        z = torch.zeros_like(x)
        z[index] = 1.0
        x = sampler(method).step(x, s, t, slope(x, s), slope, lambda z=z: z)
    return float(x[:, 0].square().sum())


FORMS = {"heun": ode_variance, "ancestral": sde_variance}


@pytest.mark.parametrize(("method", "w"), [("heun", 3.0), ("ancestral", 1.0), ("ancestral", 3.0)])
def test_the_variance_converges_to_the_closed_form_at_the_declared_order(method, w):
    """Errors for N and 2N steps; the last level is so low (1e-5) that the step from there to 0 does not count."""
    high = 80.0
    errors = [
        abs(variance_of(method, w, edm_schedule(steps, 1e-5, high)) - FORMS[method](w, high))
        for steps in (128, 256, 512)
    ]
    orders = [math.log2(errors[0] / errors[1]), math.log2(errors[1] / errors[2])]
    # What is left of the next order's term halves with each doubling.
    assert orders[1] == pytest.approx(SAMPLERS[method].order, abs=0.05), orders


# Runs


def guided(method: str, steps: int, **settings) -> tg.Experiment:
    scene = {"dataset": "two-variances", "label": "narrow", "uncond": "exact@wide", "rule": "cfg", "params": {"w": 3.0}}
    return tg.Experiment(**{**scene, "sampler": method, "steps": steps, "n": 8192, "seed": 1, **settings})


@pytest.mark.parametrize(
    ("method", "limit", "step_error"), [("heun", 0.25, 0.0007), ("ancestral", 0.3875, 0.054)], ids=["ode", "sde"]
)
def test_guidance_ends_where_the_closed_forms_say(method, limit, step_error):
    """CFG at w = 3 in 256 steps: of the samples, over both axes, to four standard errors of a variance; of the steps,
    to the relative error that they were measured to have; of the highest level, to its 2/80^2."""
    e = guided(method, 256)
    end = e.run("cpu").x[-1].double()
    stepped = variance_of(method, 3.0, e.levels())
    assert float(end.square().mean()) == pytest.approx(stepped, rel=4 * math.sqrt(2 / end.numel()))
    assert stepped == pytest.approx(FORMS[method](3.0, 80.0), rel=step_error)
    assert FORMS[method](3.0, 80.0) == pytest.approx(limit, rel=2.01 / 80**2)


def test_first_trajectories_have_the_noise_of_the_whole_run():
    e = guided("ancestral", 8, n=37)  # not a multiple of anything that random numbers are made in blocks of
    whole = torch.stack([s.x for s in e.walk()])
    for first in (1, 5, 36):
        torch.testing.assert_close(torch.stack([s.x for s in e.walk(first=first)]), whole[:, :first])


def test_a_rule_that_draws_does_not_shift_the_noise():
    """SFG at strength 0 draws its directions, for as many points as it sees, and adds nothing."""
    e = guided("ancestral", 8, rule="sfg", params={"w": 0.0}, n=32)
    plain = guided("ancestral", 8, rule="none", params={}, n=32)
    torch.testing.assert_close(e.run("cpu").x, plain.run("cpu").x)
    first = torch.stack([s.x for s in e.walk(first=8)])
    torch.testing.assert_close(first, plain.run("cpu").x[:, :8])


def test_noise_is_fresh_at_every_step_and_follows_the_seed():
    e = guided("ancestral", 4, n=64)
    runs = [dataclasses.replace(e, seed=seed).run("cpu").x for seed in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0][-1], runs[2][-1])
    z = torch.stack([noise_of(seeded(3), 4096, index) for index in range(3)])
    # Independent standard normal: correlations and mean within four standard errors, 1/sqrt(2 * 4096).
    bound = 4 / math.sqrt(2 * 4096)
    assert z.mean((1, 2)).abs().max() < bound
    products = torch.einsum("ind,jnd->ij", z, z) / (2 * 4096)
    assert (products - torch.eye(3)).abs().max() < math.sqrt(2) * bound  # a square's standard deviation is sqrt(2)


class Redrawing(Rule):
    """Takes the mean of several draws of its step."""

    def guide(self, at, memory):
        return Guided(at.denoised())

    def after_step(self, step, memory, generator):
        draws = torch.stack([step.x_next, *(step.draw() for _ in range(3999))])
        return Arrival(draws.mean(0), draws.var(0))


def test_a_step_drawn_again_has_fresh_noise():
    """4000 draws of one step: mean within four standard errors, variance within four of its own."""
    s, t = 2.0, 1.0
    levels = torch.tensor([s, t, 0.0], dtype=W)
    steps = trajectory(Redrawing(), FIELDS, sampler("ancestral"), X, levels, seeded(5))
    _, step = next(steps), next(steps)
    denoised, up = NARROW.denoise(X, s), t**2 * (s**2 - t**2) / s**2
    expected = denoised + (t / s) ** 2 * (X - denoised)
    assert (step.x - expected).abs().max() < 4 * math.sqrt(up / 4000)
    assert step.nfe == 1, "draws are made of the same evaluation"
