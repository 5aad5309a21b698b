"""PCG against the closed form of CFG's reverse SDE, and against the density that its corrections draw from.

On ``p_c = N(0, 1)`` and ``p_u = N(0, 2)`` everything is linear: the variance of a run follows without random numbers
from points of which each gets a unit of noise in a correction of its own, and whose squares are summed.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from helpers import seeded
from torch import Tensor

import toyguide as tg
from toyguide import samplers
from toyguide.guidance import Interval, Schedule
from toyguide.noise import edm_schedule
from toyguide.samplers import sampler, trajectory

W = torch.float64
DATA = tg.load_dataset("two-variances")
FIELDS = {"main": DATA.field("narrow"), "uncond": DATA.field("wide")}


def variance(monkeypatch, levels: Tensor, method: str = "euler", **params) -> float:
    """The variance of the final points of a run that starts from ``N(0, 1 + sigma_max^2)``."""
    rule = tg.rule("pcg", **params)
    x = torch.zeros(1 + rule.K * len(levels), 2, dtype=W)
    x[0] = math.sqrt(1 + float(levels[0]) ** 2)
    turns = itertools.count(1)

    def unit() -> Tensor:
        z = torch.zeros_like(x)
        z[next(turns)] = 1.0
        return z

    monkeypatch.setattr(samplers, "noise_of", lambda *_: unit)
    (*_, last) = trajectory(rule, FIELDS, sampler(method), x, levels, seeded())
    return float(last.x[:, 0].square().sum())


def sde_limit(w: float) -> float:
    """The final variance of CFG's reverse SDE from infinity: Bradley and Nakkiran 2024."""
    return (2 - 2 ** (2 - 2 * w)) / (2 * w - 1)


@pytest.mark.parametrize("w", [0.0, 1.0, 2.0, 3.0, 5.0])
def test_one_correction_is_the_reverse_sde_of_cfg(w, monkeypatch):
    """Its error in the number of steps is of first order; what is left of sigma_max is 2/80^2."""
    errors = [variance(monkeypatch, edm_schedule(n, 1e-5, 80.0), w=w) - sde_limit(w) for n in (256, 512, 1024)]
    assert errors[2] == pytest.approx(0.0, abs=0.02 * sde_limit(w))
    # What is left of the next order's term halves with each doubling.
    assert errors[1] / errors[2] == pytest.approx(2.0, abs=0.25)


def test_it_is_neither_the_tilt_nor_the_ode(monkeypatch):
    """At w = 3 the SDE ends at 0.3875, the tilted density has 0.5 and the ODE ends at 0.25."""
    found = variance(monkeypatch, edm_schedule(512, 1e-5, 80.0), "heun", w=3.0)
    assert sde_limit(3.0) == 0.3875
    assert found == pytest.approx(0.3875, rel=0.03)


def test_a_run_has_that_mean_and_variance():
    """8192 points in two dimensions, to four standard errors of a variance and a mean; 1.5 % are the steps' own."""
    e = tg.Experiment("two-variances", "narrow", "exact", "exact@wide", rule="pcg", params={"w": 3.0}, steps=512,
                      n=8192, seed=1, sampler="euler")  # fmt: skip
    end = e.run("cpu").x[-1].double()
    assert float(end.square().mean()) == pytest.approx(0.3875, rel=0.015 + 4 * math.sqrt(2 / end.numel()))
    assert end.mean(0).abs().max() < 4 * math.sqrt(0.3875 / len(end))


def test_many_corrections_reach_the_sharper_density(monkeypatch):
    """Where steps are many, each level's corrections draw from ``p_u^(1 - gamma) p_c^gamma``, gamma = 2 w - 1: at
    w = 2 of variance 1/(3 - 2/2) = 1/2, and not of CFG's 2/3 at w = 2."""
    levels = edm_schedule(256, 1e-5, 80.0)
    found = [abs(variance(monkeypatch, levels, w=2.0, K=K) - 1 / 2) for K in (1, 2, 4, 8, 16)]
    assert found == sorted(found, reverse=True)
    assert found[-1] < 0.02


def test_at_weight_1_the_conditional_density_is_kept(monkeypatch):
    """By the corrections as by the predictor: what they lack is of the order of a step."""
    errors = [abs(variance(monkeypatch, edm_schedule(n, 1e-5, 80.0), "heun", w=1.0, K=3) - 1) for n in (128, 256)]
    assert errors[1] < 0.02
    assert errors[1] < 0.6 * errors[0]


def test_no_correction_reads_the_field_at_0_or_outside_an_interval():
    """Heun's 2 N - 1 evaluations, and two for each correction of the steps that are guided."""
    x, levels = torch.randn(8, 2, generator=seeded(1), dtype=W), edm_schedule(9, 0.01, 5.0)
    for rule, corrections in ((tg.rule("pcg", K=2), 16), (Interval(tg.rule("pcg", K=2), 0.1, 1.0), 0)):
        if corrections == 0:
            corrections = 2 * int(((levels > 0.1) & (levels <= 1.0)).sum())
            assert 0 < corrections < 16
        (*_, last) = trajectory(rule, FIELDS, sampler("heun"), x, levels, seeded())
        assert last.nfe == 17 + 2 * corrections


def test_the_first_points_have_the_noise_of_the_whole_run():
    e = tg.Experiment("two-gaussians", "left", "exact", rule="pcg", steps=8, n=37)
    whole = torch.stack([s.x for s in e.walk()])
    for first in (1, 5, 36):
        torch.testing.assert_close(torch.stack([s.x for s in e.walk(first=first)]), whole[:, :first])


def test_a_schedule_moves_the_density_of_the_corrections():
    """Late guidance alone corrects early at w = 1: towards the conditional density."""
    levels, x = edm_schedule(8, 0.01, 5.0), torch.randn(8, 2, generator=seeded(1), dtype=W)
    late = Schedule(tg.rule("pcg", w=3.0), "late:0.5", levels.tolist())
    walks = [
        list(trajectory(rule, FIELDS, sampler("heun"), x, levels, seeded()))
        for rule in (late, tg.rule("pcg", w=1.0), tg.rule("pcg", w=5.0))
    ]
    for step in range(5):
        torch.testing.assert_close(walks[0][step].x, walks[1][step].x, rtol=0, atol=1e-12)
    assert (walks[0][5].x - walks[1][5].x).abs().max() > 1e-3
