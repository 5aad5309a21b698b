"""The study of Feynman-Kac correctors: the tilts it compares with are the integral's, and runs come near them."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import integrate

from toyguide.datasets import load_dataset
from toyguide.studies import Plan
from toyguide.studies.claims import fkc_samples_the_tilt as study
from toyguide.studies.claims.shared.line import gaussians
from toyguide.studies.workshop import Workshop
from toyguide.targets import Target, ideal_field


@pytest.mark.parametrize("w", [1.0, 3.0, 5.0])
def test_the_moments_on_the_line_are_those_of_the_fields_integral(w):
    fields = gaussians()

    def moment(power):
        def at(x):
            point = torch.tensor([[x]], dtype=torch.float64)
            own, union = (float(fields[role].log_density(point, 0.0)) for role in ("main", "uncond"))
            return x**power * math.exp(w * own + (1 - w) * union)

        return integrate.quad(at, -8, 12, epsabs=1e-9, points=[0, 1, 2])[0]

    whole, first, second = (moment(k) for k in range(3))
    mean = first / whole
    assert study.tilt_moments(w) == pytest.approx((mean, math.sqrt(second / whole - mean**2)), rel=1e-6)


def test_the_weighted_tilt_of_the_fractal_has_the_lattices_branches():
    """Shares from 65536 weighted samples and from 16384 of another method's: to four errors of a share of 0.1, and
    together as near as that many samples of 127 branches are."""
    data = load_dataset("fractal")
    target = Target({"main": 3.0, "uncond": -2.0})
    field = ideal_field(target, {"main": data.field("A"), "uncond": data.field(None)})
    n = 1 << 14
    other = study._shares(field.sample(n, generator=torch.Generator().manual_seed(1)), torch.full((n,), 1 / n))
    _, shares = study._tilted(3.0, 0)
    assert float(shares.sum()) == pytest.approx(1.0, abs=1e-5)
    assert float((shares - other).abs().max()) < 4 * math.sqrt(0.1 / n)
    assert float((shares - other).abs().sum()) / 2 < math.sqrt(127 / n) / 2


def test_a_small_run_on_the_line_is_nearer_to_the_tilt_than_cfg(tmp_path):
    shop = Workshop(Plan(quick=True, device="cpu"), tmp_path)
    off = {way: study._measure(shop, "line", way, 3.0, 0)["off"] for way in ("ode", "sde", "fkc")}
    assert off["fkc"] < off["sde"] / 2 < off["ode"] / 2
    # Other code found mean and deviation 1.754 and 0.760 by the SDE, 1.98 and 0.647 by the ODE, 1.440 and 0.803 of the
    # tilt; the mean of 2048 points has a standard error of 0.018.
    assert study.tilt_moments(3.0) == pytest.approx((1.440, 0.803), abs=0.001)
    assert off["sde"] == pytest.approx(math.hypot(0.314, 0.043), abs=4 * 0.018)
    assert off["ode"] == pytest.approx(math.hypot(0.540, 0.156), abs=4 * 0.018)
