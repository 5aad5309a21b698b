"""Diffusion posterior sampling: each form against autograd, the conditional Gaussian, and the paper's algorithm."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import seeded
from torch import Tensor
from walks import W, X, gaussian, mixture

import toyguide as tg
from toyguide.fields.mixtures import GaussianMixture
from toyguide.fields.rewards import Reward
from toyguide.guidance import Evaluation
from toyguide.noise import edm_schedule
from toyguide.samplers import sampler, trajectory

FIELD, SIGMA = mixture(2), 0.7
Y = torch.tensor([0.4, -0.2], dtype=W)


def dps(form: str, **params):
    return tg.rule("dps", form=form, **{"y0": 0.4, "y1": -0.2, "R": 0.3, **params})


def guided(rule, field=FIELD, x: Tensor = X, sigma: float = SIGMA) -> Tensor:
    at = Evaluation({"main": field}, x, sigma)
    return rule.guide(at, rule.begin(at, seeded(1))[1]).denoised


def denoised_of(points: Tensor) -> Tensor:
    """The denoiser with a graph, from autograd of the log-density."""
    (score,) = torch.autograd.grad(FIELD.log_density(points, SIGMA).sum(), points, create_graph=True)
    return points + SIGMA**2 * score


def push_of(log_likelihood) -> Tensor:
    """``sigma^2 grad_x`` of a function of the denoised points, by autograd."""
    points = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(log_likelihood(denoised_of(points)).sum(), points)
    return SIGMA**2 * gradient


def test_one_gaussian_by_its_numbers():
    """x0 ~ N(0, 1), R = 0.3, sigma = 0.7, x = 1.3, y = 0.4: the posterior mean, and how far the likelihood at the
    posterior mean, which takes it for certain, shoots over."""
    x = torch.tensor([[1.3, 0.0]], dtype=W)
    precision = 1 + 1 / 0.7**2 + 1 / 0.3
    exact = (1.3 / 0.7**2 + 0.4 / 0.3) / precision
    assert exact == pytest.approx(0.62540, abs=5e-6)
    assert float(guided(dps("moment"), gaussian(1.0), x)[0, 0]) == pytest.approx(exact, rel=1e-12)
    assert float(guided(dps("lgd", s=0.0), gaussian(1.0), x)[0, 0]) == pytest.approx(0.3545, abs=5e-5)


@pytest.mark.parametrize(("observed", "rows"), [("first", [0]), ("second", [1]), ("both", [0, 1])])
def test_moments_are_exact_for_a_gaussian(observed, rows):
    """``E[x0 | x, y]`` from the joint precision, in three dimensions of which the last is never observed."""
    root = torch.randn(3, 3, generator=seeded(1), dtype=W)
    covariance, mean = root @ root.T + 0.1 * torch.eye(3, dtype=W), torch.tensor([0.3, -0.5, 1.0], dtype=W)
    field = GaussianMixture(torch.ones(1), mean[None], covariance[None])
    x = torch.randn(16, 3, generator=seeded(2), dtype=W)
    prior, a = torch.linalg.inv(covariance), torch.eye(3, dtype=W)[rows]
    precision = prior + torch.eye(3, dtype=W) / SIGMA**2 + a.T @ a / 0.3
    exact = torch.linalg.solve(precision, (prior @ mean + x / SIGMA**2 + Y[rows] @ a / 0.3).T).T
    torch.testing.assert_close(guided(dps("moment", observed=observed), field, x), exact, rtol=1e-9, atol=1e-9)


def test_moments_are_the_gaussian_with_the_denoisers_jacobian():
    """For a mixture ``C = sigma^2 J`` by autograd, row by row; at half the strength half the update."""
    points = X.clone().requires_grad_()
    denoised = denoised_of(points)
    rows = [torch.autograd.grad(denoised[:, i].sum(), points, retain_graph=True)[0] for i in range(2)]
    c = SIGMA**2 * torch.stack(rows, 1)
    gain = c @ torch.linalg.inv(c + 0.3 * torch.eye(2, dtype=W))
    update = (gain @ (Y - denoised.detach())[..., None])[..., 0]
    expected = denoised.detach() + 0.5 * update
    torch.testing.assert_close(guided(dps("moment", observed="both", zeta=0.5)), expected, rtol=1e-8, atol=1e-8)


def test_dps_divides_by_the_residual():
    """The gradient of ``-|y - A D| / sqrt(R)``."""
    push = push_of(lambda d: -(d - Y).norm(dim=-1) / math.sqrt(0.3))
    found = guided(dps("dps", observed="both", zeta=2.0)) - FIELD.denoise(X, SIGMA)
    torch.testing.assert_close(found, 2.0 * push, rtol=1e-8, atol=1e-8)


def test_dps_is_the_papers_algorithm_with_its_step_sizes():
    """An ancestral step without guidance, then down ``zeta_i grad_x |y - A D|^2``."""
    s, t, zeta = SIGMA, 0.4, 1.5
    levels = torch.tensor([s, t, 0.0], dtype=W)
    ends = [
        list(trajectory(rule, {"main": FIELD}, sampler("ancestral"), X, levels, seeded(3)))[1].x
        for rule in (dps("dps", zeta=zeta), tg.rule("none"))
    ]
    squares = push_of(lambda d: (d[:, 0] - Y[0]).square()) / s**2
    residual = (FIELD.denoise(X, s)[:, :1] - Y[0]).abs()
    step_sizes = zeta * (s**2 - t**2) / (2 * math.sqrt(0.3) * residual)
    torch.testing.assert_close(ends[0], ends[1] - step_sizes * squares, rtol=1e-8, atol=1e-8)


def test_dps_at_the_observation_is_unguided():
    """Nothing is divided by a residual of 0: one Gaussian around the observation."""
    rule = tg.rule("dps", form="dps", y0=0.0)
    assert guided(rule, gaussian(0.25), torch.zeros(4, 2, dtype=W)).abs().max() == 0


@pytest.mark.parametrize("s", [0.0, 0.8])
def test_lgd_is_the_gradient_of_the_mean_over_its_samples(s):
    rule = dps("lgd", observed="both", s=s, samples=5)
    at = Evaluation({"main": FIELD}, X, SIGMA)
    noise = rule.begin(at, seeded(1))[1]
    assert noise.shape == (len(X), 5, 2)
    spread = s * math.sqrt(SIGMA**2 * 0.25 / (SIGMA**2 + 0.25))

    def likelihood(denoised: Tensor) -> Tensor:
        clean = denoised[:, None] + spread * noise
        return (-(Y - clean).square().sum(-1) / (2 * 0.3)).logsumexp(1) - math.log(5)

    found = rule.guide(at, noise).denoised - FIELD.denoise(X, SIGMA)
    torch.testing.assert_close(found, push_of(likelihood), rtol=1e-8, atol=1e-8)


def test_lgd_with_many_samples_is_exact_for_the_gaussian_that_it_takes_the_data_for():
    """Its spread is the posterior's of N(0, 0.25): the moments' update, to the error of 50,000 samples."""
    field, x = gaussian(0.25), X[:4]
    exact = guided(dps("moment"), field, x)
    torch.testing.assert_close(guided(dps("lgd", samples=10_000), field, x), exact, rtol=0, atol=0.01)
    assert (guided(dps("lgd", s=0.0), field, x) - exact).abs().max() > 0.05


def test_mpgd_moves_the_denoised_point_onto_the_observation():
    at = Evaluation({"main": FIELD}, X, SIGMA)
    found, plain = dps("mpgd").guide(at, None).denoised, FIELD.denoise(X, SIGMA)
    torch.testing.assert_close(found[:, 0], Y[0].expand(len(X)), rtol=0, atol=1e-12)
    assert torch.equal(found[:, 1], plain[:, 1])
    assert at.cost.gradients == 0
    half = dps("mpgd", zeta=0.5).guide(at, None).denoised
    torch.testing.assert_close(half, (found + plain) / 2)


def test_moments_sample_the_posterior_of_a_gaussian():
    """In 64 Heun steps: mean and variance of the exactly tilted mixture, to four standard errors of 4096 points and
    what is missing at the first level, ``v/(v + 25)``."""
    field = gaussian(0.25)
    target = Reward.near(Y, torch.eye(2, dtype=W)[:1], scale=math.sqrt(0.3)).tilted(field)
    levels = edm_schedule(64, 0.002, 5.0)
    start = field.sample(4096, 5.0, seeded(1))
    end = list(trajectory(dps("moment"), {"main": field}, sampler("heun"), start, levels, seeded(2)))[-1].x
    variance = torch.diagonal(target.covariances[0])
    error = 4 * math.sqrt(0.25 / 4096) + 0.01
    assert (end.mean(0) - target.mean).abs().max() < error
    assert (end.var(0) / variance - 1).abs().max() < 4 * math.sqrt(2 / 4096) + 0.01
