"""The samplers: their measured order of convergence, and what the loop counts and yields."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import seeded
from scipy.integrate import solve_ivp
from torch import Tensor

import toyguide as tg
from toyguide.errors import InputError
from toyguide.fields.mixtures import GaussianMixture
from toyguide.noise import edm_schedule
from toyguide.samplers import SAMPLERS, Step, sampler, trajectory

W = torch.float64
START = torch.tensor([[3.0, -4.0], [0.5, 5.0], [-6.0, 1.0], [2.0, 2.5]], dtype=W)
GAUSSIAN = GaussianMixture(
    torch.ones(1, dtype=W), torch.zeros(1, 2, dtype=W), torch.diag(torch.tensor([0.3, 1.2], dtype=W))[None]
)
MIXTURE = GaussianMixture(
    torch.tensor([0.3, 0.7], dtype=W),
    torch.tensor([[-1.0, 0.2], [0.8, -0.4]], dtype=W),
    torch.tensor([[[0.3, 0.1], [0.1, 0.2]], [[0.2, -0.05], [-0.05, 0.5]]], dtype=W),
)
HIGH, LOW = 5.0, 0.1


def walk(key: str, field: GaussianMixture, levels: Tensor, rule: str = "none", x: Tensor = START) -> list[Step]:
    return list(trajectory(tg.rule(rule), {"main": field, "uncond": MIXTURE}, sampler(key), x, levels, seeded(0)))


def exact_gaussian() -> Tensor:
    """``dx/dsigma = sigma x / (v + sigma^2)`` has the solution ``x sqrt((v + low^2) / (v + high^2))``."""
    v = torch.tensor([0.3, 1.2], dtype=W)
    return START * ((v + LOW**2) / (v + HIGH**2)).sqrt()


def exact_mixture() -> Tensor:
    """By an independent solver of order 8."""

    def slope(sigma: float, x: np.ndarray) -> np.ndarray:
        return -sigma * MIXTURE.score(torch.from_numpy(x).reshape(-1, 2), sigma).numpy().ravel()

    solved = solve_ivp(slope, (HIGH, LOW), START.numpy().ravel(), method="DOP853", rtol=1e-12, atol=1e-13)
    return torch.from_numpy(solved.y[:, -1]).reshape(-1, 2)


@pytest.mark.parametrize(
    ("field", "exact"), [(GAUSSIAN, exact_gaussian), (MIXTURE, exact_mixture)], ids=["one", "mixture"]
)
@pytest.mark.parametrize("key", [key for key, cls in SAMPLERS.items() if not cls.stochastic])
def test_measured_order_is_the_declared_one(key, field, exact):
    """Errors at the last level before 0, for N and 2N intervals; the step to 0 is always Euler's."""
    truth = exact()
    errors = []
    for intervals in (128, 256, 512):
        end = walk(key, field, edm_schedule(intervals + 1, LOW, HIGH))[-2]
        assert end.sigma == pytest.approx(LOW)
        errors.append(float((end.x - truth).norm()))
    orders = [math.log2(errors[0] / errors[1]), math.log2(errors[1] / errors[2])]
    # What is left of the next order's term halves with each doubling.
    assert orders[1] == pytest.approx(sampler(key).order, abs=0.05), orders


def test_a_step_by_hand():
    levels = torch.tensor([2.0, 1.0, 0.0], dtype=W)
    d = [-2.0 * MIXTURE.score(START, 2.0)]
    euler = START + (1.0 - 2.0) * d[0]
    d.append(-1.0 * MIXTURE.score(euler, 1.0))
    heun = START + (1.0 - 2.0) * (d[0] + d[1]) / 2
    torch.testing.assert_close(walk("euler", MIXTURE, levels)[1].x, euler)
    torch.testing.assert_close(walk("heun", MIXTURE, levels)[1].x, heun)
    # The last step of either lands on the denoised point.
    torch.testing.assert_close(walk("heun", MIXTURE, levels)[2].x, MIXTURE.denoise(heun, 1.0))


@pytest.mark.parametrize(
    ("key", "rule", "nfe"), [("heun", "none", 63), ("heun", "cfg", 126), ("euler", "cfg", 64), ("ancestral", "cfg", 64)]
)
def test_evaluations_of_32_steps(key, rule, nfe):
    steps = walk(key, MIXTURE, edm_schedule(32, 0.002, 5.0), rule)
    assert steps[-1].nfe == nfe
    assert [s.index for s in steps] == list(range(33))
    assert [s.sigma for s in steps] == edm_schedule(32, 0.002, 5.0).tolist()
    assert torch.equal(steps[0].x, START)
    assert steps[0].nfe == 0


class Counted:
    """A field that knows how often it was asked."""

    evaluations = 1

    def __init__(self) -> None:
        self.calls = 0

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        self.calls += 1
        return MIXTURE.denoise(x, sigma)


def test_a_walk_that_is_left_computes_nothing_more():
    field = Counted()
    steps = trajectory(
        tg.rule("none"), {"main": field}, sampler("heun"), START, edm_schedule(32, 0.002, 5.0), torch.Generator()
    )
    assert next(steps).index == field.calls == 0
    for _ in range(3):
        step = next(steps)
    assert step.nfe == field.calls == 6
    steps.close()
    assert field.calls == 6


def test_counted_evaluations_are_the_ones_made():
    field = Counted()
    steps = list(
        trajectory(
            tg.rule("sfg"), {"main": field}, sampler("heun"), START, edm_schedule(8, 0.01, 5.0), torch.Generator()
        )
    )
    assert steps[-1].nfe == field.calls == 2 * 15


def test_a_step_carries_what_the_rule_added():
    steps = walk("heun", GAUSSIAN, edm_schedule(4, 0.1, 5.0), "cfg")
    assert steps[0].push is None
    before = steps[1]
    gap = GAUSSIAN.denoise(before.x, before.sigma) - MIXTURE.denoise(before.x, before.sigma)
    torch.testing.assert_close(steps[2].push, (tg.rule("cfg").w - 1) * gap)


def test_no_gradients_are_kept():
    assert not walk("heun", MIXTURE, edm_schedule(4, 0.1, 5.0), x=START.clone().requires_grad_())[-1].x.requires_grad


def test_an_unknown_sampler_is_told_the_nearest():
    with pytest.raises(
        InputError,
        match=r"unknown sampler 'huen': expected one of heun, euler, ancestral, restart; did you mean 'heun'\?",
    ):
        sampler("huen")
