"""Noise levels against the formula, its limits and its closed-form moments."""

import math

import pytest
import torch

from toyguide.errors import InputError
from toyguide.noise import LogNormalNoise, edm_schedule


@pytest.mark.parametrize("rho", [1.0, 2.0, 7.0, 50.0])
@pytest.mark.parametrize("steps", [2, 5, 32])
def test_edm_formula(steps, rho):
    levels = edm_schedule(steps, 0.002, 80.0, rho)
    for i in range(steps):
        hi, lo = 80.0 ** (1 / rho), 0.002 ** (1 / rho)
        assert float(levels[i]) == pytest.approx((hi + i / (steps - 1) * (lo - hi)) ** rho, rel=1e-11)
    assert float(levels[0]) == pytest.approx(80, rel=1e-12)
    assert float(levels[-2]) == pytest.approx(0.002, rel=1e-9)
    assert levels.shape == (steps + 1,)
    assert levels[-1] == 0
    assert (levels.diff() < 0).all()
    assert levels.dtype == torch.float64


def test_published_levels():
    """sigma at indices 17, 22, 16 and 23 of the 32 EDM levels, as worked out for the guidance-interval paper."""
    levels = edm_schedule(32, 0.002, 80.0)
    assert [round(float(levels[i]), 2) for i in (16, 17, 22, 23)] == [2.17, 1.61, 0.28, 0.19]


def test_rho_1_is_linear_and_large_rho_geometric():
    assert edm_schedule(5, 1.0, 9.0, 1.0).tolist() == pytest.approx([9, 7, 5, 3, 1, 0])
    geometric = edm_schedule(5, 1.0, 16.0, 1e3).tolist()
    assert geometric == pytest.approx([16, 8, 4, 2, 1, 0], rel=5e-3)


@pytest.mark.parametrize("rho", [0.1, 1000.0])
def test_the_extremes_are_still_a_schedule(rho):
    levels = edm_schedule(100, 1e-9, 1e9, rho)
    assert levels.isfinite().all()
    assert (levels.diff() < 0).all()
    assert float(levels[-2]) == pytest.approx(1e-9, rel=1e-9)


def test_one_step_goes_from_the_top_to_zero():
    assert edm_schedule(1, 0.002, 5.0).tolist() == pytest.approx([5.0, 0.0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0.002, 5.0), "steps 0"),
        ((4, 0.0, 5.0), "sigma range 0.0"),
        ((4, 5.0, 5.0), "expected 0 < sigma_min < sigma_max, both from 1e-9 to 1e9"),
        ((4, 0.1, math.inf), "sigma range 0.1 … inf"),
        ((4, 1e-300, 5.0, 0.1), "sigma range 1e-300"),
        ((4, 0.1, 1e300, 0.1), "sigma range 0.1 … 1e\\+300"),
        ((4, 0.1, math.nan), "sigma range 0.1 … nan"),
        ((4, 0.1, 5.0, 0.0), "rho 0.0: expected a number from 0.1 to 1000"),
        ((4, 0.1, 5.0, math.nan), "rho nan"),
        ((4, 0.1, 5.0, math.inf), "rho inf"),
        ((4, 0.1, 5.0, 1e-3), "rho 0.001"),
        ((4, 0.1, 5.0, 1e9), "rho 1000000000.0"),
    ],
)
def test_bad_numbers_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        edm_schedule(*arguments)


def test_training_noise_is_log_normal():
    """Mean, spread (5 standard errors) and Kolmogorov-Smirnov distance (its 0.1 % point) of log sigma."""
    n = 100_000
    log = LogNormalNoise(-2.3, 1.5).sample(n, torch.Generator().manual_seed(0)).double().log()
    assert abs(float(log.mean()) + 2.3) < 5 * 1.5 / n**0.5
    assert abs(float(log.std()) - 1.5) < 5 * 1.5 / (2 * n) ** 0.5
    exact = torch.special.ndtr((log.sort().values + 2.3) / 1.5)
    assert float((exact - (torch.arange(n) + 0.5) / n).abs().max()) < 1.95 / n**0.5


def test_training_noise_is_repeatable_in_float32():
    noise = LogNormalNoise(0.0, 1.0)
    a, b = (noise.sample(10, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(a, b)
    assert a.dtype == torch.float32
