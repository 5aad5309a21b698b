"""The study of feedback guidance: its field is contaminated at every level, and the exact ratio undoes that."""

from __future__ import annotations

import pytest
import torch
from helpers import seeded

from toyguide.datasets import load_dataset
from toyguide.studies import Plan
from toyguide.studies.claims import fbg_undoes_contamination as study
from toyguide.studies.workshop import Workshop

PI = 0.85


@pytest.fixture(scope="module")
def data():
    return load_dataset("fractal")


@pytest.mark.parametrize("sigma", [0.0, 0.1, 3.0])
def test_the_density_is_the_classs_and_the_unions_at_every_level(data, sigma):
    own, union, both = data.field("A"), data.field(None), study.contaminated(data, "A", PI)
    x = union.sample(256, sigma, seeded())
    density = PI * own.log_density(x, sigma).exp() + (1 - PI) * union.log_density(x, sigma).exp()
    torch.testing.assert_close(both.log_density(x, sigma), density.log(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sigma", [0.1, 3.0])
def test_the_exact_ratio_gives_back_the_clean_class(data, sigma):
    """``D = D_u + r / (r - (1 - pi)) (D_main - D_u)``, where r is ``p_main / p_u``, above ``1 - pi`` near the class."""
    own, union, both = data.field("A"), data.field(None), study.contaminated(data, "A", PI)
    x = own.sample(256, sigma, seeded())
    r = (both.log_density(x, sigma) - union.log_density(x, sigma)).exp()[:, None]
    guide = union.denoise(x, sigma)
    cleaned = guide + r / (r - (1 - PI)) * (both.denoise(x, sigma) - guide)
    torch.testing.assert_close(cleaned, own.denoise(x, sigma), rtol=1e-6, atol=1e-6)


def test_contamination_is_measured_as_leak(data, tmp_path):
    """Class B has half of the union, so that 7.5 % of the samples are its own: 512 of them, to four errors of 1.2 %,
    and by the ancestral sampler's 64 steps a little fewer."""
    shop = Workshop(Plan(quick=True, device="cpu"), tmp_path)
    leak = {way: study._measure(shop, way, "ancestral", 1.0, 0)["class_leak"] for way in ("clean", "contaminated")}
    assert leak["contaminated"] == pytest.approx(0.075, abs=0.048)
    assert leak["clean"] < 0.02
