"""Temporal score rescaling, power-law CFG, angle-domain and negative guidance, against closed forms in float64."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import seeded
from walks import FIELDS, W, X, gaussian, walk

import toyguide as tg
from toyguide.fields.mixtures import GaussianMixture
from toyguide.guidance import Evaluation
from toyguide.noise import edm_schedule


def line(weights: list[float], means: list[float], variance: float) -> GaussianMixture:
    """A mixture in one dimension."""
    covariances = torch.full((len(means), 1, 1), variance, dtype=W)
    return GaussianMixture(torch.tensor(weights, dtype=W), torch.tensor(means, dtype=W)[:, None], covariances)


# Temporal score rescaling


@pytest.mark.parametrize("sigma", [0.01, 0.3, 2.0, 40.0])
@pytest.mark.parametrize("k", [0.5, 2.0, 7.0])
def test_tsr_is_the_field_of_a_sharper_gaussian(k, sigma):
    t = 0.7
    guided = tg.rule("tsr", k=k, t=t).guide(Evaluation({"main": gaussian(t**2)}, X, sigma), None).denoised
    torch.testing.assert_close(guided, gaussian(t**2 / k).denoise(X, sigma), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("key", "weight", "variance"), [("tsr", 0.700, 0.131), ("score-scaling", 1.0, 0.0003)])
def test_tsr_keeps_the_weights_of_parts_that_lie_apart(key, weight, variance):
    """0.3 at -2 and 0.7 at 2, of variance 0.25, k = 2 from sigma 40: near 0.25 / 2, where score scaling collapses."""
    field = line([0.3, 0.7], [-2.0, 2.0], 0.25)
    share = (torch.arange(2000, dtype=W) + 0.5) / 2000  # quantiles of the first level's distribution, close to normal
    start = 0.8 + math.sqrt(0.25 + 3.36 + 1600) * torch.special.ndtri(share)[:, None]
    params = {"k": 2.0} | ({"t": 0.5} if key == "tsr" else {})
    x = walk(tg.rule(key, **params), start, edm_schedule(400, 0.002, 40.0, 7.0), {"main": field})[-1].x
    right = x[x > 0]
    assert len(right) / len(x) == pytest.approx(weight, abs=0.01)
    assert float(right.var()) == pytest.approx(variance, abs=0.002)


# Power-law CFG


def test_power_law_cfg_raises_the_weight_with_the_score_gap():
    """``D = D_c + (w - 1) |s_c - s_u|^a g`` by its own scores; nothing is added where both fields agree."""
    at = Evaluation(FIELDS, X, 0.4)
    gap = FIELDS["main"].score(X, 0.4) - FIELDS["uncond"].score(X, 0.4)
    for a in (0.5, 0.9, 2.0):
        guided = tg.rule("power-law-cfg", w=3.0, a=a).guide(at, None).denoised
        expected = FIELDS["main"].denoise(X, 0.4) + 2 * 0.4**2 * gap.square().sum(-1, keepdim=True) ** (a / 2) * gap
        torch.testing.assert_close(guided, expected, rtol=1e-12, atol=1e-12)
    same = {"main": FIELDS["main"], "uncond": FIELDS["main"]}
    guided = tg.rule("power-law-cfg", w=9.0).guide(Evaluation(same, X, 0.4), None).denoised
    assert torch.equal(guided, FIELDS["main"].denoise(X, 0.4))


# Angle-domain guidance


def test_adg_turns_by_a_factor_of_the_angle():
    """In the plane by complex numbers: ``D_c (cos + i sin cos(theta) + sin sin(theta))`` on the side away from D_u."""
    at = Evaluation(FIELDS, X, 0.8)
    main, uncond = (torch.view_as_complex(d) for d in at.denoised_each("main", "uncond"))
    for w in (0.4, 1.7, 4.0):
        angle = torch.angle(main / uncond)
        turn = ((w - 1) * angle.abs()).clamp(-math.pi / 3, math.pi / 3)
        aside = uncond / uncond.abs() * 1j * angle.sign()  # across D_u, on the side of D_c
        expected = turn.cos() * main + turn.sin() * main.abs() * aside
        guided = tg.rule("adg", w=w).guide(at, None).denoised
        torch.testing.assert_close(torch.view_as_complex(guided), expected, rtol=1e-9, atol=1e-9)
        norm = 1 + torch.sin(2 * turn) * angle.abs().sin()
        torch.testing.assert_close(guided.square().sum(-1), norm * main.abs() ** 2)


def test_adg_bounds_its_turn_and_keeps_parallel_points():
    far = tg.rule("adg", w=30.0).guide(Evaluation(FIELDS, X, 0.8), None)
    assert float(far.trace["turn"].max()) == pytest.approx(math.pi / 3)
    assert (far.denoised.norm(dim=-1) <= math.sqrt(2) * FIELDS["main"].denoise(X, 0.8).norm(dim=-1) + 1e-12).all()
    both = {"main": gaussian(1.0), "uncond": gaussian(2.0)}  # parallel denoised points: no angle, no guidance
    guided = tg.rule("adg", w=5.0).guide(Evaluation(both, X, 0.8), None).denoised
    torch.testing.assert_close(guided, both["main"].denoise(X, 0.8), rtol=1e-7, atol=1e-7)


# Negative guidance


def mixture_without(data: tg.Dataset, label: str) -> GaussianMixture:
    """The exact field of all classes but one."""
    return data.components.mixture.subset(~data.mask(label))


@pytest.mark.parametrize("name", ["fractal", "two-gaussians", "simplex16"])
@pytest.mark.parametrize("sigma", [0.03, 0.3, 1.0, 5.0])
def test_the_exact_posterior_removes_a_class(name, sigma):
    """``D + p/(1-p) (D - D_n)`` is the field of everything else, where p is not clipped."""
    data = tg.load_dataset(name)
    label = data.labels[0]
    share = float(data.components.mixture.weights[data.mask(label)].sum())
    fields = {"main": data.field(None), "negative": data.field(label)}
    x = data.field(None).sample(200, sigma, seeded(3))
    # Where p is close to 1 the rounding of 1 - p is magnified.
    kept = data.posterior(x, sigma)[:, 0] < 0.9
    assert kept.sum() > 50
    at = Evaluation(fields, x[kept], sigma)
    rule = tg.rule("negative", posterior="exact", prior=share, lam=1.0)
    guided = rule.guide(at, rule.begin(at, seeded())[1]).denoised
    expected = mixture_without(data, label).denoise(x[kept], sigma)
    torch.testing.assert_close(guided, expected, rtol=0, atol=1e-10)


def test_the_running_posterior_follows_the_exact_one():
    """Along unguided paths of many ancestral steps, where a step is a draw from Bayes' own transition."""
    data = tg.load_dataset("two-gaussians")
    fields = {"main": data.field(None), "negative": data.field("left")}
    rule = tg.rule("negative", lam=1e-9, p_max=0.999)
    start = data.field(None).sample(300, 20.0, seeded(5))  # where the posterior is near the prior
    steps = walk(rule, start, edm_schedule(400, 0.3, 20.0, 7.0), fields, "ancestral")
    before, last = steps[-3], steps[-2]  # a trace is of the start of its step
    exact = data.posterior(before.x, before.sigma)[:, 0]
    assert float(exact.std()) > 0.4, "the paths have decided"
    assert float((last.trace["posterior"] - exact).abs().mean()) < 0.03


def test_dynamic_negative_guidance_avoids_the_class():
    e = tg.Experiment(
        "two-gaussians", None, "exact", rule="negative", params={"posterior": "exact", "p_max": 0.999}, n=400,
        fields={"negative": "exact@left"},
    )  # fmt: skip
    x = e.run("cpu").x[-1]
    assert float((x[:, 0] > 0).float().mean()) > 0.99
    # N(1, 0.05), not beyond it.
    assert float(x[:, 0].mean()) == pytest.approx(1.0, abs=0.05)
