"""The studies of rules of two fields: what their cells measure, beside closed forms and the rules' own runs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from helpers import seeded
from study_rows import ExactShop, measured

from toyguide.experiment import Experiment
from toyguide.fields.mixtures import GaussianMixture
from toyguide.guidance import rule
from toyguide.noise import edm_schedule
from toyguide.studies.claims.cfg_plus_plus_invertibility import round_trip
from toyguide.studies.claims.shared.matching import at_coverage
from toyguide.studies.rows import Rows

LEVELS = edm_schedule(12, 0.01, 5.0)[:-1]


def gaussian(variance: float) -> GaussianMixture:
    return GaussianMixture(torch.ones(1), torch.zeros(1, 2), variance * torch.eye(2, dtype=torch.float64)[None])


@pytest.mark.parametrize(("key", "value"), [("cfg", 3.0), ("cfg++", 0.6), ("cfg++", 0.0), ("cfg++", 1.0)])
def test_a_round_trip_between_gaussians_multiplies_by_what_its_steps_do(key, value):
    """Both denoisers are ``v/(v + sigma^2) x``, so that every step multiplies: written out for the noise of each."""
    fields = {"main": gaussian(0.3), "uncond": gaussian(1.0)}
    x = torch.randn(16, 2, generator=seeded(), dtype=torch.float64)
    levels, factor = LEVELS.tolist(), 1.0
    for low, high in itertools.pairwise(levels[::-1]):  # inverted: x + (high - low) noise
        main, uncond = 0.3 / (0.3 + low**2), 1 / (1 + low**2)
        guided = uncond + value * (main - uncond)
        denoised = uncond if key == "cfg++" else guided
        factor *= denoised + high * (1 - guided) / low
    for high, low in itertools.pairwise(levels):
        main, uncond = 0.3 / (0.3 + high**2), 1 / (1 + high**2)
        guided = uncond + value * (main - uncond)
        noise = (1 - (uncond if key == "cfg++" else guided)) / high
        factor *= guided + low * noise
    params = {"lam": value} if key == "cfg++" else {"w": value}
    torch.testing.assert_close(round_trip(rule(key, **params), fields, x, LEVELS), factor * x, rtol=1e-9, atol=0)


def test_the_round_trip_of_cfg_closes_with_finer_steps_and_that_of_cfg_plus_plus_does_not():
    fields = {"main": gaussian(0.3), "uncond": gaussian(1.0)}
    x = torch.ones(1, 2, dtype=torch.float64)

    def off(chosen, steps):
        back = round_trip(chosen, fields, x, edm_schedule(steps, 0.01, 5.0)[:-1])
        return float((back - x).norm())

    plain, plus = rule("cfg", w=3.0), rule("cfg++", lam=0.6)
    assert off(plain, 400) == pytest.approx(off(plain, 200) / 2, rel=0.1)  # Euler's first order
    assert off(plus, 400) > 0.9 * off(plus, 200)


def test_a_column_is_read_where_coverage_is_as_wanted():
    table = [(1.0, 0.9, 0.10), (2.0, 0.7, 0.30), (4.0, 0.3, 0.50)]
    rows = Rows(
        {"w": w, "seed": seed, "coverage": c - 0.1 * seed, "outliers": o + seed}
        for w, c, o in table
        for seed in range(3)
    )
    keys = [{"w": w} for w, _, _ in table]
    # Half-way between two settings; at one of them; beyond all.
    assert at_coverage(rows, "outliers", keys, [0.5, 0.6, 1.0]) == pytest.approx([0.4, 1.3, 2.1])
    assert at_coverage(rows, "w", keys[::-1], [0.5, 0.6, 0.0]) == pytest.approx([3.0, 2.0, 4.0])
    logs = at_coverage(rows, lambda row: math.log(row["outliers"]), keys, [0.8, 0.6, 0.0])
    assert np.exp(logs) == pytest.approx([math.sqrt(0.1 * 0.3), 1.3, 2.5])


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return ExactShop(tmp_path_factory.mktemp("networks"))


def test_adaptive_guidance_is_compared_on_the_same_noise(shop):
    found = measured("adaptive-guidance-saves-a-quarter", shop, fields="exact", w=4.0)
    assert found["nfe_cfg"] == 2 * 63
    assert found["nfe_shorter"] == 2 * 47
    assert 63 < found["nfe_adaptive"] < found["nfe_cfg"]
    assert found["moved_cfg"] == 0.0
    assert found["moved_adaptive"] < 0.01 < found["moved_published"]  # which stops where CFG does most


def test_the_noises_are_alike_where_the_denoised_points_are_not(shop):
    """At high noise: the noise is ``(x - D)/sigma``, and the denoised points are the means of class and union."""
    high, low = (
        measured("adaptive-guidance-saves-a-quarter", shop, fields="exact", sigma=sigma) for sigma in (20.0, 0.01)
    )
    assert high["noise"] > 0.99 > 0.5 > high["denoised"]
    assert low["noise"] > 0.99
    assert low["denoised"] > 0.99


def test_the_ratio_of_raag_is_that_of_its_trace(shop):
    """Which says w, and so the ratio, at the points that a run starts from: exact ones at sigma 5."""
    e = Experiment(
        "fractal", "A", main="exact", rule="raag", params={"w": 10.0, "alpha": 8.0}, sampler="euler", steps=5, n=2048
    )
    traced = (9 / (e.run("cpu").trace["w"][0] - 1)).log() / 8
    found = measured("raag-few-steps", shop, fields="exact", sigma=5.0)["ratio"]
    assert found == pytest.approx(float(traced.median()), rel=0.05)


def test_the_radius_is_the_median_distance_from_the_origin(shop):
    found = measured("apg-oversaturation", shop, fields="exact", rule="none")
    x = Experiment("fractal", "A", main="exact", n=1024).run("cpu").x[-1]
    assert found["radius"] == pytest.approx(float(np.median(np.hypot(*x.double().T.numpy()))), abs=1e-3)
