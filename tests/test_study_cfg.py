"""The studies of classifier-free guidance: closed forms come out of their runs."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from helpers import seeded
from scipy import integrate

from toyguide.fields.mixtures import GaussianMixture
from toyguide.studies import Plan
from toyguide.studies.claims import cfg_is_not_tilting, cfg_overshoots
from toyguide.studies.claims.shared import line
from toyguide.studies.rows import Rows
from toyguide.studies.workshop import Workshop

W = torch.float64
# --- cfg-is-not-tilting -------------------------------------------------------------------------------------------


def test_the_closed_forms_solve_the_moment_equations():
    """With ``v' = 2 v (1 - D/x)/sigma`` (the ODE) and ``v' = 4 v (1 - D/x)/sigma - 2 sigma`` (the SDE) down from noise
    of 1e4; the forms are those of infinite noise, from which it is off by at most ``w^2/1e8``."""
    high = 1e4
    for w in (1.0, 2.0, 3.0, 8.0):

        def growth(t, v, w=w):
            """Of both variances in ``t = log(high/sigma)``."""
            s = high * math.exp(-t)
            shrink = 1 - w / (1 + s * s) - (1 - w) * 2 / (2 + s * s)
            return [-2 * v[0] * shrink, -4 * v[1] * shrink + 2 * s * s]

        span = (0.0, math.log(high / 1e-4))
        end = integrate.solve_ivp(growth, span, [1 + high**2] * 2, method="LSODA", rtol=1e-10, atol=1e-12).y[:, -1]
        assert end[0] == pytest.approx(cfg_is_not_tilting.variance("ode", w), rel=1e-5), w
        assert end[1] == pytest.approx(cfg_is_not_tilting.variance("sde", w), rel=1e-5), w


def test_the_tilted_variance_is_that_of_the_integral():
    x = np.linspace(-30, 30, 200_001)
    for w in (2.0, 3.0, 8.0):
        density = np.exp(-0.5 * w * x**2 - 0.5 * (1 - w) * x**2 / 2)
        assert (density @ x**2) / density.sum() == pytest.approx(cfg_is_not_tilting.variance("tilted", w), rel=1e-9)


def test_importance_weights_find_the_tilted_variance():
    """To four standard errors of a weighted mean: with weights ``exp(-a r^2)``, from a normal of variance 1, the
    effective share of the n samples is ``((1 + 4a)^(1/2) / (1 + 2a))^2`` in two dimensions."""
    n, w = 1 << 15, 3.0
    narrow, wide = (GaussianMixture(torch.ones(1), torch.zeros(1, 2), v * torch.eye(2)[None]) for v in (1.0, 2.0))
    x = narrow.sample(n, generator=seeded())
    a = (w - 1) / 4
    effective = n * (1 + 4 * a) / (1 + 2 * a) ** 2
    error = cfg_is_not_tilting.variance("tilted", w) / math.sqrt(effective)  # of a mean over two axes
    found = cfg_is_not_tilting.tilted_variance(x, narrow, narrow, wide, 0.0, w)
    assert found == pytest.approx(cfg_is_not_tilting.variance("tilted", w), abs=4 * error)
    # Drawn from the other density, the weights make up for it: those of wide are exp(-(w/2 + (1-w)/4 - 1/4) r^2).
    y = wide.sample(n, generator=seeded(1))
    assert cfg_is_not_tilting.tilted_variance(y, wide, narrow, wide, 0.0, w) == pytest.approx(0.5, abs=4 * error)


def test_a_small_run_ends_at_its_closed_forms(tmp_path, monkeypatch):
    """To four standard errors of the variance of 1024 points on two axes, and what the steps are off by: without
    random numbers, 128 Heun steps by up to 2 % and 256 ancestral ones by up to 7 % at these weights."""
    shop, whole = Workshop(Plan(quick=True, device="cpu"), tmp_path), cfg_is_not_tilting._experiment
    for kind, steps, off in (("ode", 128, 0.02), ("sde", 256, 0.07)):
        monkeypatch.setattr(
            cfg_is_not_tilting,
            "_experiment",
            lambda *a, steps=steps: dataclasses.replace(whole(*a), n=1024, steps=steps),
        )
        found = cfg_is_not_tilting._measure(shop, "exact", kind, 0)
        for w in (3.0, 8.0):
            form = cfg_is_not_tilting.variance(kind, w)
            assert found[f"variance_w{w:g}"] == pytest.approx(form, rel=4 / math.sqrt(1024) + off), (kind, w)


# --- cfg-overshoots -----------------------------------------------------------------------------------------------

UNION = line.Segments((-2.0, -1.0), (1.0, 2.0))
POINTS = torch.tensor([[-2.3], [-1.5], [-0.2], [0.4], [1.01], [1.7], [2.2], [4.0]], dtype=W)


@pytest.mark.parametrize("sigma", [0.01, 0.3, 3.0, 300.0])
def test_the_segments_field_is_the_integral_over_its_data(sigma):
    """Gauss-Legendre with 300 nodes on each segment, three to a sigma at the smallest: its error is that of float64."""
    nodes, weights = np.polynomial.legendre.leggauss(300)
    data = np.concatenate([-1.5 + nodes / 2, 1.5 + nodes / 2])
    log_parts = -0.5 * ((POINTS.numpy() - data) / sigma) ** 2 - math.log(sigma * math.sqrt(2 * math.pi))
    top = log_parts.max(1, keepdims=True)
    parts = np.exp(log_parts - top) * np.concatenate([weights, weights]) / 4
    log_density = torch.from_numpy(top[:, 0] + np.log(parts.sum(1)))
    denoised = torch.from_numpy((parts * data).sum(1) / parts.sum(1))
    torch.testing.assert_close(UNION.log_density(POINTS, sigma), log_density, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(UNION.denoise(POINTS, sigma)[:, 0], denoised, rtol=1e-10, atol=1e-10)


def test_the_segments_hessian_is_the_scores_slope():
    step = 1e-5  # central differences: off by step^2 times a third derivative, and by rounding, 1e-16/step
    for sigma in (0.3, 3.0):
        slope = (UNION.score(POINTS + step, sigma) - UNION.score(POINTS - step, sigma)) / (2 * step)
        torch.testing.assert_close(UNION.hessian(POINTS, sigma)[..., 0], slope, rtol=1e-6, atol=1e-6)


def test_far_from_a_segment_its_nearer_end_is_what_is_left():
    """Outside by z in units of sigma the denoised point is ``sigma/z`` inside the end (Mills), to ``sigma (2/z^3)``."""
    segment = line.Segments((1.0, 2.0))
    for side, end in ((1, 2.0), (-1, 1.0)):
        for z in (1e2, 1e4, 1e8):
            sigma = 0.01
            x = torch.tensor([[end + side * sigma * z]], dtype=W)
            bound = 2 * sigma / z**3 + 1e-12 * z * sigma  # and rounding of x
            assert float(segment.denoise(x, sigma)) == pytest.approx(end - side * sigma / z, abs=bound + 1e-15)


def test_samples_of_segments_have_their_moments():
    """Variance of two segments: 1.5^2 + 1/12 + sigma^2; to four standard errors, at most ``sqrt(2/n)`` of it each."""
    n, sigma = 1 << 14, 0.5
    x = UNION.sample(n, sigma, seeded())
    variance = 1.5**2 + 1 / 12 + sigma**2
    assert float(x.square().mean()) == pytest.approx(variance, rel=4 * math.sqrt(2 / n))
    assert abs(float(x.mean())) < 4 * math.sqrt(variance / n)


def test_the_mean_grows_as_was_checked_before():
    """Means that were measured by other code when the theorem was read, 3.42 at 8 and 10.25 at 100, to four standard
    errors: samples spread by less than 0.5."""
    for extra, mean in ((8.0, 3.42), (100.0, 10.25)):
        _, x = line.guided_path("gaussians", (0.0, 0.0), extra, 256, 0)
        assert float(x[-1].std()) < 0.5
        assert float(x[-1].mean()) == pytest.approx(mean, abs=4 * 0.5 / math.sqrt(256))


def test_unguided_paths_keep_the_distribution():
    """At w - 1 = 0 the samples are uniform on [1, 2]: Kolmogorov's distance below its 1e-4 quantile, 2.23/sqrt(n)."""
    n = 512
    _, x = line.guided_path("segments", (0.0, 0.0), 0.0, n, 0)
    reached = x[-1].sort().values - 1
    grid = (torch.arange(n, dtype=W) + 0.5) / n
    assert float((reached - grid).abs().max()) < 2.23 / math.sqrt(n) + 0.5 / n


def test_an_error_drives_points_off_as_its_sign_says():
    """Outside the segment main at noise raised by the share e is guided as ``d(x - 2)/dlog sigma = (1 - 2e w)(x - 2)``
    to first order: out where ``2 e w > 1``. The same error in uncond drives points in."""
    outside = {}
    for name, errors in {"main": (0.05, 0.0), "uncond": (0.0, 0.05)}.items():
        levels, x = line.guided_path("segments", errors, 15.0, 64, 0)
        outside[name] = cfg_overshoots.describe(levels, x, 15.0)["outside"]
    assert outside["uncond"] == 0
    assert outside["main"] > 0.9


def test_a_walk_is_described():
    levels = torch.tensor([3.0, 1.0, 0.0], dtype=W)
    x = torch.tensor([[0.0, 0.0], [math.sqrt(2), 3 * math.sqrt(2)], [1.95, math.inf]], dtype=W)
    found = cfg_overshoots.describe(levels[:2], x[:2], 4.0)
    assert found["peak"] == pytest.approx(2.0)
    assert found["peak_unscaled"] == pytest.approx(2 * math.sqrt(2))
    assert found["beyond_root"] == 0.5  # one of 1.4 and 4.2 is at least 2
    end = cfg_overshoots.describe(levels, x, 1.0)
    assert (end["outside"], end["at_edge"]) == (0.5, 0.5)  # what is not finite is outside


def test_the_exponent_is_that_of_a_power_law():
    rows = [
        {"place": "gaussians", "extra": extra, "seed": seed, "mean": extra ** (0.7 + seed / 100)}
        for seed in range(3)
        for extra in (8.0, 100.0, 400.0)
    ]
    assert cfg_overshoots.root_exponents(Rows(rows)) == pytest.approx([0.7, 0.71, 0.72])
