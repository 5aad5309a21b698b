"""The study of RL guidance: its effective weight is that of exact tilts, and its runs end there on one Gaussian."""

from __future__ import annotations

import pytest
import torch

from toyguide.datasets import load_dataset
from toyguide.studies import Plan
from toyguide.studies.claims import rlg_rescales_kl as study
from toyguide.studies.workshop import Workshop


@pytest.mark.parametrize(("dataset", "label"), [("two-gaussians", None), ("fractal", "A")])
def test_the_mean_reward_is_that_of_the_tilted_mixture_and_of_weighted_samples(dataset, label):
    """The sum of weighted samples has a standard error of about ``std / sqrt(effective)``."""
    field = load_dataset(dataset).field(label)
    for strength in (-1.0, 0.0, 2.0):
        mean = study.mean_reward(field, strength)
        assert mean == pytest.approx(float(study.tilt(field, strength).mean[0]), abs=1e-9)
        x = field.sample(1 << 16, generator=torch.Generator().manual_seed(0))[:, 0]
        weights = torch.softmax(strength * x, 0)
        spread = float((weights**2 @ (x - mean) ** 2).sqrt())
        assert abs(float(weights @ x) - mean) < 4 * spread


def test_the_effective_weight_is_the_one_that_was_put_in():
    field = load_dataset("fractal").field("A")
    for w in (-2.0, 0.5, 3.0):
        assert study.effective_weight(field, 0.5, study.mean_reward(field, w / 0.5)) == pytest.approx(w, abs=1e-6)


def test_a_run_on_one_gaussian_has_its_weight_and_one_between_modes_has_not(tmp_path):
    """512 points: the mean reward 1.5 from the base has a standard error of 0.01, which is 0.02 in w."""
    shop = Workshop(Plan(quick=True, device="cpu"), tmp_path)
    found = study._measure(shop, "gaussian", "heun", 3.0, 0)
    assert found["effective"] == pytest.approx(3.0, abs=0.08)
    assert found["missed"] < 0.1
    assert study._measure(shop, "modes", "heun", 3.0, 0)["effective"] > 4.0
