"""Restart sampling: Heun with hops back up in one of its steps, whose density is kept by an exact field."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from helpers import seeded
from torch import Tensor
from walks import FIELDS, gaussian, mixture, walk

import toyguide as tg
from toyguide.errors import InputError
from toyguide.guidance import Guided, Rule
from toyguide.noise import edm_schedule
from toyguide.samplers import Restart, sampler, trajectory

W = torch.float64
X = torch.randn(16, 2, generator=seeded(7), dtype=W) * 5
LEVELS = edm_schedule(12, 0.002, 5.0)
CROSSING = next(i for i, (s, t) in enumerate(itertools.pairwise(LEVELS.tolist())) if s > 0.06 >= t)


def steps_of(method, rule: str = "cfg", levels: Tensor = LEVELS) -> list:
    return list(trajectory(tg.rule(rule), FIELDS, method, X, levels, seeded(0)))


def test_without_hops_it_is_heun():
    for a, b in zip(steps_of(Restart(K=0)), steps_of(sampler("heun")), strict=True):
        assert torch.equal(a.x, b.x)
        assert a.nfe == b.nfe


def test_only_the_step_that_crosses_hops():
    """Two evaluations of each field in each of six Heun steps, twice; the levels of the run are Heun's."""
    hopping, plain = steps_of(sampler("restart")), steps_of(sampler("heun"))
    more = [a.nfe - b.nfe for a, b in zip(hopping, plain, strict=True)]
    assert more == [0.0] * (CROSSING + 1) + [2 * 6 * 2 * 2.0] * (12 - CROSSING)
    assert [s.sigma for s in hopping] == LEVELS.tolist()
    assert torch.equal(hopping[CROSSING].x, plain[CROSSING].x)
    assert not torch.equal(hopping[CROSSING + 1].x, plain[CROSSING + 1].x)


def test_a_hop_by_hand():
    field, method = mixture(0), Restart(N=2, K=1, low=0.5, high=1.5)
    s, t, z = 0.8, 0.4, torch.randn(X.shape, generator=seeded(3), dtype=W)

    def slope(x, sigma):
        return -sigma * field.score(x, sigma)

    def heun(x, s, t):
        ahead = x + (t - s) * slope(x, s)
        return x + (t - s) * (slope(x, s) + slope(ahead, t)) / 2

    up = heun(X, s, t) + math.sqrt(1.5**2 - 0.4**2) * z
    middle = ((1.5 ** (1 / 7) + 0.4 ** (1 / 7)) / 2) ** 7
    expected = heun(heun(up, 1.5, middle), middle, t)
    found = method.step(X, s, t, slope(X, s), slope, lambda: z)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def variance(method: Restart, levels: Tensor, data: float) -> float:
    """The final variance from ``N(0, data + sigma_max^2)``, without a random number: on a Gaussian all is linear, so
    that points with a unit of noise in one hop each end on the responses, whose squares add up."""
    field = gaussian(data)
    x = torch.zeros(1 + method.K, 2, dtype=W)
    x[0] = math.sqrt(data + float(levels[0]) ** 2)
    turns = itertools.count(1)

    def slope(x: Tensor, sigma: float) -> Tensor:
        return -sigma * field.score(x, sigma)

    def unit() -> Tensor:
        z = torch.zeros_like(x)
        z[next(turns)] = 1.0
        return z

    for s, t in itertools.pairwise(levels.tolist()):
        x = method.step(x, s, t, slope(x, s), slope, unit)
    assert next(turns) == 1 + method.K
    return float(x[:, 0].square().sum())


@pytest.mark.parametrize("data", [0.25, 0.01])
def test_an_exact_field_keeps_the_density_at_the_declared_order(data):
    """Errors for N and 2N steps, of the run and of its hops alike; the last level is too low to count."""
    errors = [
        abs(variance(Restart(N=steps // 8), edm_schedule(steps, 1e-6, 5.0), data) / data - 1)
        for steps in (128, 256, 512)
    ]
    orders = [math.log2(errors[0] / errors[1]), math.log2(errors[1] / errors[2])]
    assert orders[1] == pytest.approx(Restart.order, abs=0.05), orders


def test_hops_forget_what_happened_above():
    """A shift of the points at the crossing shrinks in each hop by ``sqrt((a + low^2)/(a + high^2))``."""
    a, s, t = 0.25, 0.07, 0.06
    field = gaussian(a)

    def slope(x, sigma):
        return -sigma * field.score(x, sigma)

    def shift(method):
        ends = [method.step(x, s, t, slope(x, s), slope, lambda: torch.zeros_like(X)) for x in (X, X + 0.1)]
        return ends[1] - ends[0]

    shrinkage = math.sqrt((a + t**2) / (a + 0.3**2))
    ratio = shift(Restart(N=50, K=3)) / shift(Restart(K=0))
    torch.testing.assert_close(ratio, torch.full_like(ratio, shrinkage**3), rtol=1e-4, atol=0)


def test_samples_have_the_mean_and_the_covariance_of_the_data():
    """8192 samples of two Gaussians from an exact field, to four standard errors of each moment; the steps and those of
    the hops are so many that their error is small beside them."""
    e = tg.Experiment("two-gaussians", main="exact", sampler="restart", steps=96, n=8192, seed=2)
    method = Restart(N=16)
    (*_, last) = trajectory(e.build_rule(), e.build_fields(), method, e.start(), e.levels(), e.generator())
    end = last.x.double()
    truth = e.data.field(None).sample(400_000, 0.0, seeded(1)).double()
    for power in (lambda x: x, lambda x: x.square(), lambda x: x.prod(-1, keepdim=True)):
        found, expected = power(end), power(truth)
        bound = 4 * expected.std(0) * math.sqrt(1 / len(end) + 1 / len(truth))
        assert ((found.mean(0) - expected.mean(0)).abs() < bound).all()
    (*_, plain) = trajectory(e.build_rule(), e.build_fields(), Restart(K=0), e.start(), e.levels(), e.generator())
    assert (last.x - plain.x).norm(dim=-1).mean() > 0.05, "the hops move the points"


class Counting(Rule):
    """Memory: how often it was handed on."""

    def begin(self, at, generator):
        return at.x, 0

    def guide(self, at, memory):
        return Guided(at.denoised(), memory=memory + 1, trace={"count": at.x.new_full((len(at.x),), memory)})


def test_a_rules_memory_is_updated_once_per_step():
    steps = walk(Counting(), levels=LEVELS, method="restart")
    assert [int(s.trace["count"][0]) for s in steps[1:]] == list(range(12))


def test_a_rule_that_needs_a_first_order_sampler_or_noise_in_every_step_is_refused(monkeypatch):
    demands = {"first_order": "a first-order one, like 'euler'", "needs_noise": "one with noise, like 'ancestral'"}
    for demand, said in demands.items():
        with monkeypatch.context() as patch:
            patch.setattr(tg.rules()["cfg"], demand, True)
            with pytest.raises(InputError, match=f"sampler 'restart': the rule 'cfg' needs {said}"):
                tg.Experiment("two-gaussians", "left", rule="cfg", sampler="restart")


def test_the_first_points_have_the_noise_of_the_whole_run():
    e = tg.Experiment("two-gaussians", "left", "exact", rule="cfg", sampler="restart", steps=12, n=37)
    whole = torch.stack([s.x for s in e.walk()])
    for first in (1, 36):
        torch.testing.assert_close(torch.stack([s.x for s in e.walk(first=first)]), whole[:, :first])
