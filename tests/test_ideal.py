"""The rule ``ideal``: any sampler with it reaches the target, which CFG misses."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from helpers import seeded
from walks import FIELDS, W, X, gaussian, walk

import toyguide as tg
from toyguide.errors import InputError
from toyguide.fields.mixtures import GaussianMixture
from toyguide.guidance import Evaluation
from toyguide.metrics.samples import branches_of
from toyguide.noise import edm_schedule
from toyguide.targets import ideal_field

LEVELS = edm_schedule(32, 0.02, 40.0, 7.0)


def pair() -> dict:
    """Half N(-1, 1) and half N(1, 1), and the right one alone; on the second axis both are N(0, 1)."""
    means = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=W)
    both = GaussianMixture(torch.ones(2, dtype=W), means, torch.eye(2, dtype=W).repeat(2, 1, 1))
    return {"main": both.subset(torch.tensor([True, False])), "uncond": both}


@pytest.mark.parametrize(("w", "mean", "std"), [(2.0, 1.290, 0.863), (3.0, 1.440, 0.803)])
def test_it_reaches_the_tilt_of_two_gaussians_and_cfg_does_not(w, mean, std):
    fields = pair()
    start = fields["main"].sample(3_000, float(LEVELS[0]), seeded(0))
    rules = tg.rule("ideal", aim="tilt", w=w), tg.rule("cfg", w=w)
    x, cfg = (walk(rule, start, LEVELS, fields)[-1].x[:, 0] for rule in rules)
    assert float(x.mean()) == pytest.approx(mean, abs=0.05)
    assert float(x.std()) == pytest.approx(std, abs=0.035)
    assert float(cfg.mean()) > mean + 0.2


@pytest.mark.parametrize("w", [2.0, 3.0])
def test_it_reaches_the_tilt_of_nested_gaussians(w):
    """Variance ``1 / (w/a + (1-w)/b)``."""
    fields = {"main": gaussian(1.0), "uncond": gaussian(2.0)}
    start = gaussian(1.0).sample(4_000, float(LEVELS[0]), seeded(1))
    x = walk(tg.rule("ideal", aim="tilt", w=w), start, LEVELS, fields)[-1].x
    assert float(x.var()) == pytest.approx(2 / (w + 1), rel=0.02)


def test_it_reaches_the_reward_tilt():
    """``p e^{y.x/alpha}`` of a Gaussian of variance a has the mean ``a y / alpha`` and the variance a."""
    rule = tg.rule("ideal", aim="reward", reward="linear", y0=1.5, y1=-0.5, alpha=0.5)
    field, start = gaussian(0.4), gaussian(0.4).sample(4_000, float(LEVELS[0]), seeded(2))
    x = walk(rule, start, LEVELS, {"main": field, "uncond": field})[-1].x
    torch.testing.assert_close(x.mean(0), torch.tensor([1.2, -0.4], dtype=W), rtol=0, atol=0.045)
    assert float(x.var(0).mean()) == pytest.approx(0.4, rel=0.06)


def test_it_fills_the_branches_of_the_fractal_as_the_target_does():
    """Tempered, the fractal's thick branches get more and its thin ones less."""
    e = tg.Experiment(
        "fractal", "A", main="exact", rule="ideal", params={"aim": "tempered", "k": 1.5}, n=1024, steps=24
    )
    target = ideal_field(e.build_rule().target(), e.build_fields())
    branches = branches_of(e.data, e.label)

    def shares(x):
        r = e.data.field("A").responsibilities(x, 0.0)
        return torch.zeros(len(branches.shares), dtype=W).index_add_(0, branches.index, r.double().mean(0))

    exact = shares(target.sample(1 << 14, generator=seeded(3)))
    drawn = shares(target.sample(e.n, generator=seeded(4)))
    reached = shares(e.run(device="cpu").x[-1])
    miss, by_chance = (float((s - exact).abs().sum() / 2) for s in (reached, drawn))
    assert miss < 1.25 * by_chance
    away = float((exact - branches.shares).abs().sum() / 2)
    assert away > 1.5 * by_chance, "the target is not main, or nothing would be tested"


def test_one_evaluation_is_counted():
    last = walk(tg.rule("ideal", aim="tilt", w=2.0), X, torch.tensor([1.0, 0.5, 0.0], dtype=W), FIELDS, "euler")[-1]
    assert last.nfe == 2


@pytest.mark.parametrize("aim", ["tilt", "tempered", "product", "reward"])
def test_its_denoiser_is_the_targets(aim):
    rule = tg.rule("ideal", aim=aim)
    at = Evaluation(FIELDS, X, 0.4)
    field = ideal_field(rule.target(), FIELDS)
    assert torch.equal(rule.guide(at, None).denoised, field.denoise(X, 0.4))


def test_a_turned_world_is_guided_alike_up_to_the_lattice():
    angle = torch.tensor(0.4, dtype=W)
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    shift = torch.tensor([0.7, -1.1], dtype=W)
    moved = {
        role: GaussianMixture(f.weights, f.means @ turn.T + shift, turn @ f.covariances @ turn.T)
        for role, f in FIELDS.items()
    }
    rule = tg.rule("ideal", aim="tilt", w=2.0)
    for sigma in (0.05, 0.4, 3.0):
        x = ideal_field(rule.target(), FIELDS).sample(64, sigma, seeded(5))
        here = rule.guide(Evaluation(FIELDS, x, sigma), None).denoised
        there = rule.guide(Evaluation(moved, x @ turn.T + shift, sigma), None).denoised
        torch.testing.assert_close(there, here @ turn.T + shift, rtol=0, atol=1e-4)


def test_fields_that_are_not_exact_are_refused_by_name():
    e = tg.Experiment("fractal", "A", rule="ideal", params={"aim": "tilt"}, n=4, steps=2)
    assert e.main == "exact", "also on a dataset with networks"
    with pytest.raises(InputError, match="main 'fractal/main': expected an exact field"):
        dataclasses.replace(e, fields={"main": "fractal/main"}).run(device="cpu")
    with pytest.raises(InputError, match="'uncond' is of type NoisierField, expected an exact one"):
        dataclasses.replace(e, fields={"main": "exact", "uncond": "exact@union+noise:0.1"}).run(device="cpu")
