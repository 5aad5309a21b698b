"""What a rule does to the error, in the plane and over the noise levels, against the rules' formulas by hand."""

import asyncio

import numpy as np
import pytest
import torch

import toyguide as tg
from toyguide import Experiment
from toyguide_apps.explorer_page.compute import picture
from toyguide_apps.explorer_page.layers import errors
from toyguide_apps.explorer_page.layers.densities import Spot, far_from_data
from toyguide_apps.explorer_page.layers.errors import RATIO_LEVELS, error_curves, error_map
from toyguide_apps.explorer_page.planes import home_window
from toyguide_apps.explorer_page.session import Explorer
from toyguide_apps.explorer_page.state import ExplorerState
from toyguide_apps.explorer_page.views.legend import legend
from toyguide_apps.explorer_page.views.parts import Look
from toyguide_apps.explorer_page.views.stage import StageView

W = 1.5
PLACES = {
    "fractal": ("A", "fractal/main", "fractal/weak", 0.1),
    "simplex16": (None, "simplex16/main", "simplex16/weak", 0.3),
}
SCENE = {"dataset": "two-gaussians", "label": "union", "n": 128, "steps": 8, "step": 4, "layers": ["samples"]}


def by_hand(x, label, main, weak, sigma, dataset):
    """Autoguidance's error and main's, in float64."""
    data = tg.load_dataset(dataset)
    x = x.double()
    with torch.no_grad():
        exact, d1, d0 = (
            f.denoise(x, sigma) for f in (data.field(label), *(tg.load_model(name) for name in (main, weak)))
        )
    return W * d1 + (1 - W) * d0 - exact, d1 - exact


@pytest.mark.parametrize("dataset", list(PLACES))
def test_the_map_is_the_ratio_of_the_errors_by_hand(dataset):
    label, main, weak, sigma = PLACES[dataset]
    spot = Spot(dataset, label, sigma, home_window(dataset))
    e = Experiment(dataset, label, main, weak=weak, rule="autoguidance", params={"w": W})
    found = error_map(spot, e)
    assert not found.empty
    n = errors._GRID.get(e.data.dim, errors._GRID_BEYOND)
    guided, own = by_hand(spot.plane.embed(spot.grid(n)), label, main, weak, sigma, dataset)
    expected = 1 + np.digitize((guided.norm(dim=-1) / own.norm(dim=-1)).numpy(), RATIO_LEVELS)
    pixels = np.linspace(0, len(found.image) - 1, n).round().astype(int)
    image = found.image[np.ix_(pixels, pixels)]
    near = image > 0
    assert near.mean() > 0.1
    assert len(np.unique(image[near])) > 4
    # A pixel is up to half a pixel from its point of the grid, and may lie in the next band.
    assert (image[near] == expected[near]).mean() > 0.85
    assert (np.abs(image[near].astype(int) - expected[near]) <= 1).mean() > 0.98


def test_nothing_is_said_far_from_the_data():
    """Nearly all diffused data lie where the map says something, and the map ends about them."""
    sigma = 0.05
    spot = Spot("fractal", "A", sigma, home_window("fractal"))
    far = far_from_data(spot)
    x = tg.load_dataset("fractal").field("A").sample(4000, sigma, torch.Generator().manual_seed(3))
    left, bottom, right, top = spot.window
    column, row = (
        ((x[:, i] - low) / (high - low) * (len(far) - 1)).round().long().clamp(0, len(far) - 1).numpy()
        for i, (low, high) in enumerate(((left, right), (bottom, top)))
    )
    assert far[row, column].mean() < 1e-3
    assert far.mean() > 0.5
    e = Experiment("fractal", "A", "fractal/main", rule="autoguidance")
    assert (error_map(spot, e).image[far] == 0).all()
    assert (error_map(spot, e).image[~far] > 0).all()


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"main": "exact", "rule": "autoguidance"}, "exact"),
        ({"rule": "none"}, "adds nothing"),
        ({"rule": "autoguidance", "params": {"w": 1.0}}, "adds nothing"),
        ({"rule": "autoguidance", "limited": True, "interval": (0.001, 0.002)}, "adds nothing"),
    ],
)
def test_a_line_says_why_there_is_nothing_to_see(settings, why):
    state = ExplorerState()
    state.set({**SCENE, "bands": "error-ratio", "errors": True, **settings})
    made = picture(state.request())
    assert made.scenes[1].image is None
    assert why in made.scenes[1].empty
    stage = StageView(state)
    stage.show(made, Look())
    assert stage.stage.board["panels"][1]["empty"] == made.scenes[1].empty


def test_each_panel_has_its_own_rules_background():
    state = ExplorerState()
    state.set({**SCENE, "bands": "error-ratio", "rule": "autoguidance", "weak": "exact+noise:0.2"})
    first = picture(state.request())
    assert first.scenes[0].image is None  # unguided
    state.set({"params": {"w": 1.2}})
    second = picture(state.request())
    assert (first.scenes[1].image != second.scenes[1].image).any()
    assert "Length of the guided error" in legend(second, state)["bands"]["note"]
    state.set({"bands": "exact"})
    assert len(set(picture(state.request()).scenes)) == 1


def test_the_curves_are_those_of_the_formula():
    label, main, weak, _ = PLACES["fractal"]
    e = Experiment("fractal", label, main, weak=weak, rule="autoguidance", params={"w": W})
    found = error_curves(e, "cpu")
    assert (found.sigma[0], found.sigma[-1]) == pytest.approx((0.002, 5.0))
    for i in (4, 8, 12):
        sigma, n = float(found.sigma[i]), 4000
        x = e.data.field(label).sample(n, sigma, torch.Generator().manual_seed(50 + i))
        guided, own = by_hand(x, label, main, weak, sigma, "fractal")
        push = guided - own
        cosines = torch.cosine_similarity(push, -own)
        some = errors._POINTS[2]
        assert found.values["cosine"][i] == pytest.approx(
            float(cosines.mean()), abs=4 * float(cosines.std()) / some**0.5
        )
        share = float((guided.norm(dim=-1) < own.norm(dim=-1)).double().mean())
        assert found.values["shortened"][i] == pytest.approx(share, abs=4 * (share * (1 - share) / some) ** 0.5 + 0.01)
        sizes = [a.square().sum(-1) for a in (push, own)]
        # The ratio of two means, each with its standard error.
        off = sum(float(a.std() / a.mean()) / some**0.5 for a in sizes)
        ratio = float((sizes[0].mean() / sizes[1].mean()).sqrt())
        assert found.values["size"][i] == pytest.approx(ratio, rel=4 * off / 2)


def test_a_rule_with_a_memory_has_curves_where_it_pushes():
    e = Experiment("two-gaussians", None, "two-gaussians/main", rule="sfg")
    found = error_curves(e, "cpu")
    pushed = np.isfinite(found.values["best_multiple"])
    assert 0 < pushed.sum() < len(pushed)  # above the merging level there is no saddle to push at
    assert not pushed[found.sigma > 1].any()
    assert (found.values["shortened"][pushed] >= 0).all()


def test_the_panel_shows_the_curves_and_closes(monkeypatch):
    monkeypatch.setattr("panel.state.execute", lambda *_, **__: None)
    explorer = Explorer()
    explorer.state.set({**SCENE, "bands": "none", "rule": "autoguidance", "weak": "exact+noise:0.2"})
    assert picture(explorer.state.request()).errors is None
    assert not len(explorer._errors._panel)
    explorer.stage._hear({"kind": "open", "what": "errors", "on": True})
    assert explorer.state.errors
    asyncio.run(explorer.refresh())
    assert explorer.stage.stage.board["open"]["errors"]
    first, second, *others = explorer._errors._sources
    assert all(np.isnan(source.data["cosine"]).all() for source in others)
    assert np.isnan(first.data["cosine"]).all()
    np.testing.assert_array_equal(second.data["size"], explorer.picture.errors[1].values["size"])
    assert "Autoguidance" in explorer._errors._text.object
    assert "best multiple" in explorer._errors._text.object
    assert {span.location for span in explorer._errors._here} == {explorer.state.request().sigma}
    explorer.state.set({"main": "exact"})
    asyncio.run(explorer.refresh())
    assert not explorer._errors._plots.visible
    assert "has no error" in explorer._errors._text.object
    explorer.stage._hear({"kind": "open", "what": "errors", "on": False})
    assert not explorer.state.errors
    assert not len(explorer._errors._panel)
