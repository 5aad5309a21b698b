"""Saddle-free guidance against its closed forms and the exact Hessian."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from helpers import seeded
from walks import FIELDS, Linear, W, X, begun, mixture, walk

import toyguide as tg
from toyguide.fields import (
    denoised_from_eps,
)
from toyguide.guidance import (
    Evaluation,
)
from toyguide.guidance.rules.sfg import Direction

# Saddle-free guidance

SADDLE = {"main": tg.load_dataset("two-gaussians").field(None)}  # modes at (±1, 0), variance 0.05


def test_sfg_leaves_one_gaussian_alone():
    """The log-density of one Gaussian curves upward nowhere, whatever its shape."""
    field = {"main": mixture(11, components=1)}
    assert torch.equal(walk(tg.rule("sfg", w=30.0), fields=field)[-1].x, walk(tg.rule("none"), fields=field)[-1].x)


@pytest.mark.parametrize("h", [1e-3, 0.1, 1.0])
def test_sfg_is_the_papers_form_in_eps(h):
    """``eps - w H(lambda) u`` with ``u = (eps(x) - eps(x + h sigma v)) / h``, at any h."""
    sigma, w, field = 0.5, 3.0, FIELDS["main"]
    rule = tg.rule("sfg", w=w, h=h)
    memory = begun(rule, X, sigma, seeded(1))

    def eps(x):
        return -sigma * field.score(x, sigma)

    u = (eps(X) - eps(X + h * sigma * memory.v)) / h
    on = (u * memory.v).sum(-1, keepdim=True) > 0
    assert on.any()
    assert not on.all()
    guided = rule.guide(Evaluation(FIELDS, X, sigma), memory).denoised
    torch.testing.assert_close(guided, denoised_from_eps(eps(X) - w * on * u, X, sigma), rtol=1e-8, atol=1e-8)


def test_sfg_push_tends_to_the_hessians_product():
    """The push over sigma w tends to ``sigma^2 J v`` in the first order of h, a forward difference's."""
    sigma = 0.5
    x = torch.randn(256, 2, generator=seeded(2), dtype=W) * torch.tensor([0.3, 1.0], dtype=W)
    v = torch.nn.functional.normalize(torch.randn(256, 2, generator=seeded(3), dtype=W), dim=-1)
    exact = sigma**2 * (SADDLE["main"].hessian(x, sigma) @ v[..., None])[..., 0]
    curved_up = (exact * v).sum(-1) > 0.05
    assert curved_up.sum() > 20

    steps = [0.2 / 2**i for i in range(6)]
    errors = []
    for h in steps:
        rule = tg.rule("sfg", w=2.0, h=h)
        at = Evaluation(SADDLE, x, sigma)
        push, _, _ = rule.correction(at, at.denoised("main"), Direction(v, torch.ones(256, 1, dtype=W)))
        errors.append(float((push / (sigma * 2.0) - exact)[curved_up].norm()))
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert orders[-1] == pytest.approx(1, abs=0.03)


def test_sfg_finds_the_top_eigenpair():
    """Many steps at one level are a power iteration: v and lambda become the top eigenpair of ``sigma^2 J``."""
    sigma = 0.6
    value, vector = (t[..., -1] for t in torch.linalg.eigh(sigma**2 * FIELDS["main"].hessian(X, sigma)))
    gap = torch.linalg.eigvalsh(sigma**2 * FIELDS["main"].hessian(X, sigma)).diff()[:, 0]
    clear = gap > 0.1  # the error shrinks by (1 - gap / (1 + value)) per step
    assert clear.sum() > 15

    rule = tg.rule("sfg", h=1e-4)
    memory = begun(rule, X, sigma, seeded())
    for _ in range(400):
        guided = rule.guide(Evaluation(FIELDS, X, sigma), memory)
        memory = guided.memory
    along = (guided.trace["v"] * vector).sum(-1).abs()
    torch.testing.assert_close(along[clear], torch.ones_like(along[clear]), rtol=0, atol=1e-6)
    torch.testing.assert_close(guided.trace["lambda"][clear], value[clear], rtol=0, atol=1e-3)


def test_sfg_between_two_gaussians():
    """v lies along the means' difference, lambda is ``sigma^2 (-1/V + p (1-p) |dmu|^2 / V^2)``, V = c + sigma^2."""
    sigma, c = 0.4, 0.05
    variance = c + sigma**2
    x = torch.tensor([[0.0, 0.3], [0.05, -0.8], [-0.1, 0.0]], dtype=W)
    p = torch.sigmoid(2 * x[:, 0] / variance)
    expected = sigma**2 * (-1 / variance + p * (1 - p) * 4 / variance**2)
    rule = tg.rule("sfg", h=1e-4)
    memory = begun(rule, x, sigma, seeded())
    for _ in range(60):
        guided = rule.guide(Evaluation(SADDLE, x, sigma), memory)
        memory = guided.memory
    torch.testing.assert_close(guided.trace["v"][:, 1], torch.zeros(3, dtype=W), rtol=0, atol=1e-6)
    torch.testing.assert_close(guided.trace["lambda"], expected, rtol=0, atol=2e-3)


def test_sfg_shift_grows_and_never_shrinks():
    field = Linear(torch.tensor([[-3.0, 0.5], [0.5, -1.0]], dtype=W))
    rule = tg.rule("sfg", alpha=1.5)
    memory = begun(rule, X, 1.0, seeded())
    expected = torch.full((len(X),), 1.5, dtype=W)
    seen = []
    for sigma in (2.0, 1.0, 0.5, 0.2):
        guided = rule.guide(Evaluation({"main": field}, X, sigma), memory)
        expected = torch.maximum(expected, -guided.trace["lambda"])
        memory = guided.memory
        torch.testing.assert_close(memory.alpha[:, 0], expected)
        seen.append(memory.alpha)
    assert (seen[0] > 1.5).any()
    assert all((b >= a).all() for a, b in itertools.pairwise(seen))


def test_sfg_keeps_its_direction_where_the_product_vanishes():
    """``u + alpha v = 0`` where D turns nothing: an eigenvalue of -1 with alpha 1."""
    rule = tg.rule("sfg", alpha=1.0)
    memory = begun(rule, X, 1.0, seeded())
    after = rule.guide(Evaluation({"main": Linear(torch.zeros(2, 2, dtype=W))}, X, 1.0), memory).memory
    torch.testing.assert_close(after.v, memory.v)


def test_sfg_signs():
    """``score``: v never points against the score and its start does not matter. ``persistent``: it does."""
    sigma, on = 0.4, torch.tensor([[0.02, 0.5], [-0.03, -0.2]], dtype=W)
    v = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=W)
    alpha = torch.ones(2, 1, dtype=W)

    def push(sign, v):
        at = Evaluation(SADDLE, on, sigma)
        rule = tg.rule("sfg", sign=sign, h=1e-4)
        return rule.correction(at, at.denoised("main"), Direction(v, alpha))[0]

    assert torch.equal(push("score", v), push("score", -v))
    assert ((push("score", v) * SADDLE["main"].score(on, sigma)).sum(-1) > 0).all(), "with the flow, from the saddle"
    torch.testing.assert_close(push("persistent", v), -push("persistent", -v), rtol=1e-2, atol=1e-9)
    assert (push("persistent", v)[:, 0] > 0).all()

    steps = walk(tg.rule("sfg", sign="score"), fields=SADDLE)
    for before, after in itertools.pairwise(steps):
        assert ((SADDLE["main"].score(before.x, before.sigma) * after.trace["v"]).sum(-1) >= 0).all()
