"""Curl and divergence of the guided field, against closed forms, autograd and the fields' Hessians."""

import numpy as np
import pytest
import torch

from toyguide import Experiment, load_dataset
from toyguide_apps.explorer_page.compute import picture
from toyguide_apps.explorer_page.layers import twist
from toyguide_apps.explorer_page.layers.densities import Spot, far_from_data
from toyguide_apps.explorer_page.layers.twist import CURL_LEVELS, DIVERGENCE_LEVELS, curl_and_divergence, twist_map
from toyguide_apps.explorer_page.planes import home_window
from toyguide_apps.explorer_page.state import ExplorerState
from toyguide_apps.explorer_page.views.legend import legend

SIGMA = 0.5


def spot_in(dataset, label=None, sigma=SIGMA):
    return Spot(dataset, label, sigma, home_window(dataset))


@pytest.mark.parametrize(("rule", "w"), [("none", None), ("cfg", 3.0), ("autoguidance", 2.0)])
def test_a_linear_rule_has_no_curl_and_the_divergence_of_its_hessians(rule, w):
    params = {} if w is None else {"w": w}
    e = Experiment("two-gaussians", "right", "exact", rule=rule, params=params)
    spot = spot_in("two-gaussians", "right")
    curl, divergence = curl_and_divergence(spot, e)
    assert float(curl.abs().max()) < 1e-5  # rounding: 1e-16 / 1e-4 of D, over sigma^2
    x = spot.plane.embed(spot.grid(len(curl))).double()
    fields = e.build_fields()
    trace = {k: SIGMA**2 * f.hessian(x, SIGMA).diagonal(dim1=-2, dim2=-1).sum(-1) / 2 for k, f in fields.items()}
    expected = trace["main"]
    for name in fields.keys() - {"main"}:
        expected = expected + (w - 1) * (trace["main"] - trace[name])
    torch.testing.assert_close(divergence, expected, atol=1e-5, rtol=1e-5)
    if rule == "none":  # a Gaussian: -sigma^2 / (sigma^2 + 0.05)
        torch.testing.assert_close(divergence, torch.full_like(divergence, -(SIGMA**2) / (SIGMA**2 + 0.05)))
    image, empty = twist_map(spot, e, "curl")
    assert not empty
    assert (image == 4).all()  # the middle band


def test_saddle_free_guidance_has_curl_that_turns_where_the_eigenvector_does():
    """Its push is sigma w sigma^2 lambda v where lambda > 0: with lambda and v of the exact Hessian by eigh, its
    curl by differences of another step. The settled v is the eigenvector up to its sign."""
    e = Experiment("fractal", "A", "exact", rule="sfg", params={"w": 4.0, "h": 1e-3})
    spot = spot_in("fractal", "A", 0.2)
    curl, _ = curl_and_divergence(spot, e)
    field, w = load_dataset("fractal").field("A"), 4.0
    x = spot.plane.embed(spot.grid(len(curl))).double()

    def push(x, like):
        values, vectors = torch.linalg.eigh(spot.sigma**2 * field.hessian(x, spot.sigma))
        v = vectors[..., -1]
        v = v * (v * like).sum(-1, keepdim=True).sign()
        return spot.sigma * w * values[..., -1:].clamp(min=0) * v

    values, vectors = torch.linalg.eigh(spot.sigma**2 * field.hessian(x, spot.sigma))
    d, v = 1e-3 * spot.sigma, vectors[..., -1]
    right, up = (torch.tensor(axis, dtype=torch.float64) * d for axis in ([1.0, 0.0], [0.0, 1.0]))
    along_x = (push(x + right, v) - push(x - right, v))[..., 1] / (2 * d)
    along_y = (push(x + up, v) - push(x - up, v))[..., 0] / (2 * d)
    expected = along_x - along_y
    # Where the eigenvalues lie apart, v settles; where lambda changes its sign, a difference has a jump in it.
    clear = (values[..., -1] > 0.1) & (values[..., -1] - values[..., 0] > 0.6)
    assert clear.sum() > 50
    assert float(expected[clear].abs().median()) > 0.02
    ratio = curl[clear].abs() / expected[clear].abs()
    assert float(ratio.median()) == pytest.approx(1.0, abs=0.05)
    image, _ = twist_map(spot, e, "curl")
    assert len(np.unique(image)) > 4


@pytest.mark.parametrize(("kind", "levels"), [("curl", CURL_LEVELS), ("divergence", DIVERGENCE_LEVELS)])
def test_the_image_is_in_the_step_of_the_value_there(kind, levels):
    e = Experiment("fractal", "A", "exact", rule="sfg", params={"w": 4.0})
    spot = spot_in("fractal", "A", 0.2)
    known = curl_and_divergence(spot, e)[kind == "divergence"]
    image, _ = twist_map(spot, e, kind)
    pixels = np.linspace(0, len(image) - 1, len(known)).round().astype(int)
    near = ~far_from_data(spot)[np.ix_(pixels, pixels)]
    found, expected = image[np.ix_(pixels, pixels)][near], np.digitize(known.numpy(), levels)[near]
    assert len(np.unique(expected)) > 3
    assert (np.abs(found.astype(int) - expected) <= 1).mean() > 0.9  # a pixel is up to half of one from its point
    assert (image[far_from_data(spot)] == 4).all()


def test_a_field_of_many_dimensions_has_a_length_for_a_curl(monkeypatch):
    monkeypatch.setattr(twist, "_GRID_BEYOND", 6)
    e = Experiment("simplex16", None, "exact", rule="autoguidance", params={"w": 2.0})
    curl, divergence = curl_and_divergence(spot_in("simplex16"), e)
    assert curl.shape == (6, 6)
    assert float(curl.abs().max()) < 1e-5
    assert float(divergence.min()) >= -1.5


def test_a_line_says_why_there_is_none(monkeypatch):
    e = Experiment("simplex16", None, "exact", rule="sfg")
    image, why = twist_map(spot_in("simplex16"), e, "curl")
    assert image is None
    assert "memory" in why
    state = ExplorerState()
    state.set({"dataset": "simplex16", "label": "union", "rule": "sfg", "n": 128, "steps": 4, "bands": "curl"})
    state.set({"main": "exact", "layers": ["samples"]})
    monkeypatch.setattr(twist, "_GRID_BEYOND", 6)
    made = picture(state.request())
    assert made.scenes[1].empty == why
    assert made.scenes[0].image is not None  # unguided: none of its own memory
    assert made.scenes[-1].empty == why  # which the stage says in the panel


def test_each_panel_has_its_own_and_a_legend():
    state = ExplorerState()
    state.set({"rule": "autoguidance", "bands": "divergence", "n": 128, "steps": 8, "step": 4, "layers": ["samples"]})
    made = picture(state.request())
    assert (made.scenes[0].image != made.scenes[1].image).any()
    assert "divergence of the guided score" in legend(made, state)["bands"]["note"]
    state.set({"bands": "curl"})
    assert "curl of the guided score" in legend(picture(state.request()), state)["bands"]["note"]
