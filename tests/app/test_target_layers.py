"""The target's density and the distance from the ideal, against closed forms."""

import numpy as np
import pytest
import torch

from toyguide import Experiment
from toyguide.fields.mixtures import GaussianMixture
from toyguide_apps.explorer_page.compute import picture
from toyguide_apps.explorer_page.layers.densities import Spot
from toyguide_apps.explorer_page.layers.target import IDEAL_LEVELS, _distance, target_map
from toyguide_apps.explorer_page.planes import home_window
from toyguide_apps.explorer_page.state import ExplorerState
from toyguide_apps.explorer_page.views.legend import legend

SIGMA = 0.8
SPOT = Spot("two-variances", "narrow", SIGMA, home_window("two-variances"))


def run(rule, w, **params):
    return Experiment("two-variances", "narrow", "exact", "exact@wide", rule=rule, params={"w": w, **params})


def test_the_bands_of_a_gaussian_hold_their_shares():
    """The target of w = 3 is N(0, 1/2): a disc holds the share s within ``sqrt(-2 v log(1 - s))``."""
    image, empty = target_map(SPOT, run("cfg", 3.0), "target")
    assert not empty
    width = SPOT.size / (len(image) - 1)
    inner = (image == image.max()).sum() * width**2 / np.pi
    assert image.max() == 7
    assert inner == pytest.approx(-2 * (0.5 + SIGMA**2) * np.log(1 - 0.25), rel=0.1)


def test_the_distance_of_cfg_from_the_ideal_is_known():
    """Both denoisers are linear in x."""
    w, s = 3.0, SIGMA**2
    exact = 0.5 / (0.5 + s)
    cfg = w * 1 / (1 + s) + (1 - w) * 2 / (2 + s)
    target = GaussianMixture(torch.ones(1), torch.zeros(1, 2), 0.5 * torch.eye(2)[None])
    found = _distance(SPOT, run("cfg", w), target)
    expected = abs(cfg - exact) * SPOT.grid(len(found)).norm(dim=-1) / SIGMA
    torch.testing.assert_close(found, expected.to(found).clamp(min=1e-9 / SIGMA), atol=1e-5, rtol=1e-4)


def test_the_ideal_is_at_no_distance():
    image, empty = target_map(SPOT, run("ideal", 3.0, aim="tilt"), "ideal-error")
    assert not empty
    assert image.max() == 0
    cfg, _ = target_map(SPOT, run("cfg", 3.0), "ideal-error")
    assert cfg.max() >= len(IDEAL_LEVELS) - 2


def test_why_there_is_nothing_is_said():
    e = Experiment("two-gaussians", "left", "exact", rule="sfg")
    spot = Spot("two-gaussians", "left", 0.5, home_window("two-gaussians"))
    assert target_map(spot, e, "target") == (None, "nobody says which density this rule samples")
    weak = Experiment("two-gaussians", "left", "exact", rule="autoguidance")
    image, empty = target_map(spot, weak, "target")
    assert image is None
    assert "'weak' is of type NoisierField" in empty
    simplex = Experiment("simplex16", "v1", "exact", rule="cfg", params={"w": 2.0})
    image, empty = target_map(Spot("simplex16", "v1", 0.5, home_window("simplex16")), simplex, "target")
    assert image is None
    assert "of dimension 16" in empty


def test_panels_of_one_field_have_their_own_targets_and_a_legend():
    state = ExplorerState()
    state.set({"dataset": "two-variances", "label": "narrow", "n": 128, "steps": 4, "step": 2, "layers": ["samples"]})
    state.set({"main": "exact", "ref": "cfg", "ref.params": {"w": 1.0}, "rule": "cfg", "params": {"w": 4.0}})
    state.set({"bands": "target"})
    made = picture(state.request())
    first, second = made.scenes
    assert not np.array_equal(first.image, second.image)
    assert "said to sample" in legend(made, state)["bands"]["note"]
