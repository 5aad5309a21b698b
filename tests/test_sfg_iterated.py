"""SFG with more iterations, or restarted, against SFG itself, the eigensolver and the count of evaluations."""

from __future__ import annotations

import itertools

import pytest
import torch
from helpers import seeded

import toyguide as tg
from toyguide.guidance.base import Evaluation
from toyguide.guidance.rules.sfg import Direction, power_step
from toyguide.samplers import sampler, trajectory

W = torch.float64
LEVELS = torch.tensor([3.0, 1.5, 0.7, 0.3, 0.1, 0.0], dtype=W)


@pytest.fixture
def fields(random_mixture):
    return {"main": random_mixture(2, seed=5)}


X = torch.randn(64, 2, generator=seeded(1), dtype=W) * 3


def walk(rule, fields, x=X, method="heun", n=None):
    return list(trajectory(rule, fields, sampler(method), x, LEVELS, seeded(3), n))


@pytest.mark.parametrize("method", ["heun", "ancestral"])
def test_one_iteration_from_a_warm_start_is_sfg(fields, method):
    """Bit by bit, with the sampler's noise unlike the first directions: v comes from the run's own numbers."""
    plain, same = (walk(tg.rule(key, **p), fields) for key, p in (("sfg", {}), ("sfg-iterated", {"iterations": 1})))
    for a, b in zip(plain, same, strict=True):
        assert torch.equal(a.x, b.x)
        assert a.nfe == b.nfe


@pytest.mark.parametrize("count", [1, 2, 5])
def test_each_iteration_is_an_evaluation(fields, count):
    """Heun: two evaluations a step, one at the last; each of the denoiser once and of a product for each iteration."""
    end = walk(tg.rule("sfg-iterated", iterations=count), fields)[-1]
    assert end.nfe == (2 * (len(LEVELS) - 1) - 1) * (1 + count)


def test_iterations_are_those_of_the_matrix(fields):
    """At a small h v is what as many iterations with the exact ``sigma^2 J`` make of it, and the push their product.

    A forward difference is off by its step in each product, 1e-4 here, and iterations do not add up to more than ten
    times that.
    """
    sigma, count, w = 0.6, 4, 2.0
    rule = tg.rule("sfg-iterated", iterations=count, h=1e-4, w=w)
    memory = rule.begin(Evaluation(fields, X, sigma), seeded())[1]
    matrix = sigma**2 * fields["main"].hessian(X, sigma)
    v, alpha = memory.v, memory.alpha
    for _ in range(count):
        used, u = v, (matrix @ v[..., None])[..., 0]
        lam, v, alpha = power_step(u, v, alpha)
    at = Evaluation(fields, X, sigma)
    guided = rule.guide(at, memory)
    clear = lam[:, 0].abs() > 1e-2  # else the Heaviside may be on in one and off in the other
    torch.testing.assert_close(guided.trace["v"], used, rtol=0, atol=1e-3)
    torch.testing.assert_close(guided.memory.v, v, rtol=0, atol=1e-3)
    push = sigma * w * torch.where(lam > 0, u, 0.0)
    assert (lam[clear] > 0).any()
    torch.testing.assert_close((guided.denoised - at.denoised("main"))[clear], push[clear], rtol=0, atol=1e-3)


def test_a_warm_start_is_where_the_last_step_ended_and_a_random_one_is_not(fields):
    """A random direction's mean cosine with any other is 2 / pi in the plane; 0.04 is five standard errors of it."""
    x = torch.randn(1500, 2, generator=seeded(1), dtype=W)
    for start in ("warm", "random"):
        rule = tg.rule("sfg-iterated", iterations=1, start=start, w=0.0)
        steps = walk(rule, fields, x, method="euler")
        carried = rule.begin(Evaluation(fields, x, float(LEVELS[0])), seeded(3))[1]
        for before, step in itertools.pairwise(steps):
            cosine = (step.trace["v"] * carried.v).sum(-1).abs()
            if start == "warm" or step.index == 1:
                torch.testing.assert_close(cosine, torch.ones_like(cosine))
            else:
                assert float(cosine.mean()) == pytest.approx(2 / torch.pi, abs=0.04)
            here = Direction(step.trace["v"], carried.alpha)
            carried = rule.guide(Evaluation(fields, before.x, before.sigma), here).memory


@pytest.mark.parametrize("method", ["heun", "ancestral"])
def test_the_first_points_of_a_restarted_run_are_the_same_alone(fields, method):
    """Of as many as the explorer shows: a multiple of 16 numbers, which is how the generator makes normal ones."""
    rule = tg.rule("sfg-iterated", start="random")
    whole, part = walk(rule, fields, method=method), walk(rule, fields, X[:16], method, len(X))
    torch.testing.assert_close(part[-1].x, whole[-1].x[:16], rtol=1e-12, atol=1e-12)
