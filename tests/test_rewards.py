"""Quadratic rewards against autograd and against the densities that they tilt."""

from __future__ import annotations

import pytest
import torch
from helpers import seeded
from walks import W, X, gaussian, mixture

from toyguide.errors import InputError
from toyguide.fields.rewards import Reward

Y = torch.tensor([0.7, -0.4], dtype=W)
REWARDS = {
    "linear": Reward.linear(Y),
    "near": Reward.near(Y, scale=0.5),
    "one coordinate": Reward.near(Y, torch.eye(2, dtype=W)[:1], scale=0.3),
    "scaled": Reward.near(Y) * 2.5,
}


@pytest.mark.parametrize("name", REWARDS)
def test_the_gradient_is_autograds(name):
    x = X.clone().requires_grad_()
    (expected,) = torch.autograd.grad(REWARDS[name].value(x).sum(), x)
    torch.testing.assert_close(REWARDS[name].gradient(X), expected, rtol=0, atol=1e-12)


def test_values_are_those_of_the_formulas():
    torch.testing.assert_close(REWARDS["linear"].value(X), X @ Y)
    torch.testing.assert_close(REWARDS["near"].value(X), -(X - Y).square().sum(-1) / (2 * 0.5**2))
    torch.testing.assert_close(REWARDS["one coordinate"].value(X), -(X - Y)[:, 0].square() / (2 * 0.3**2))
    torch.testing.assert_close(REWARDS["scaled"].value(X), -2.5 * (X - Y).square().sum(-1) / 2)


@pytest.mark.parametrize("name", REWARDS)
def test_a_tilted_mixture_is_the_density_times_the_exponential(name):
    """Up to a constant, which is the same everywhere."""
    p, r = mixture(3), REWARDS[name]
    ratio = r.tilted(p).log_density(X, 0.0) - p.log_density(X, 0.0) - r.value(X)
    torch.testing.assert_close(ratio, ratio.mean().expand(len(X)), rtol=0, atol=1e-10)


def test_a_tilted_mixture_integrates_to_the_rewards_mean():
    """The constant above is ``-log E[e^r]``, here by 200,000 samples; four times their error is allowed."""
    p, r = mixture(3), REWARDS["linear"]
    constant = float((r.tilted(p).log_density(Y, 0.0) - p.log_density(Y, 0.0) - r.value(Y)).exp())
    gains = r.value(p.sample(200_000, 0.0, seeded(0))).exp()
    error = float(gains.std() / len(gains) ** 0.5 / gains.mean())
    assert constant * float(gains.mean()) == pytest.approx(1.0, abs=4 * error)


def test_a_reward_without_bound_is_refused():
    with pytest.raises(InputError, match="reward: grows faster than the density falls"):
        (Reward.near(Y) * -8.0).tilted(gaussian(0.25))
