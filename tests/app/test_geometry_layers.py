"""The layers of curvature, the critical points, planes and edges against the library's exact values."""

import asyncio
import threading

import numpy as np
import pytest
import torch

import toyguide as tg
from toyguide.errors import InputError
from toyguide.geometry.regions import regions
from toyguide.metrics import hdr_threshold
from toyguide_apps.explorer_page import compute as computing
from toyguide_apps.explorer_page.compute import picture
from toyguide_apps.explorer_page.layers import critical as searching
from toyguide_apps.explorer_page.layers import curvature
from toyguide_apps.explorer_page.layers.critical import STARTS, find_critical
from toyguide_apps.explorer_page.layers.densities import Spot
from toyguide_apps.explorer_page.layers.edge import profile
from toyguide_apps.explorer_page.planes import checked_anchors, home_window, plane
from toyguide_apps.explorer_page.runs import CancelledError
from toyguide_apps.explorer_page.session import Explorer
from toyguide_apps.explorer_page.state import ExplorerState

SIGMA = 0.5
PAIR = Spot("two-gaussians", None, SIGMA, home_window("two-gaussians"))
SCENE = {"dataset": "two-gaussians", "label": "union", "n": 128, "steps": 8, "step": 4, "bands": "none"}


def top_by_hand(x):
    """sigma^2 times the top eigenvalue of the two Gaussians (RULES, section 4)."""
    v = 0.05 + SIGMA**2
    p = 1 / (1 + np.exp(-2 * x / v))
    return SIGMA**2 * (-1 / v + 4 * p * (1 - p) / v**2)


def test_curvature_is_the_closed_form_at_every_pixel():
    found = curvature.top_curvature(PAIR, "exact")
    x = PAIR.grid(len(found)).numpy()[..., 0]
    # A cubic spline through points h = 4.4 / 95 apart is off by h^4 / 384 times the fourth derivative, 1e-8 times 1e4,
    # and the Hessian by float32's rounding.
    np.testing.assert_allclose(found, top_by_hand(x), atol=1e-3)
    image = curvature.curvature(PAIR, "exact")
    inside = np.abs(top_by_hand(x)[..., None] - np.array(curvature.CURVATURE_LEVELS)).min(-1) > 1e-3
    np.testing.assert_array_equal(image[inside], np.digitize(top_by_hand(x), curvature.CURVATURE_LEVELS)[inside])


@pytest.mark.parametrize("label", [None, "left"])
def test_region_maps_are_the_librarys_regions(label):
    spot = Spot("two-gaussians", label, SIGMA, home_window("two-gaussians"))
    data = tg.load_dataset("two-gaussians")
    image = curvature.region_map(spot, "exact")
    exact = regions(data.field(label), spot.grid(len(image)).double(), SIGMA, hdr_threshold(data, label, SIGMA))
    assert set(np.unique(exact)) == ({0, 1, 2} if label is None else {0, 2})
    assert (image == exact.numpy()).mean() > 0.99  # all but pixels on a border


def test_a_learned_tail_begins_where_one_percent_of_the_exact_samples_lie_beyond():
    level = curvature.tail_level(PAIR, "two-gaussians/main")
    x = tg.load_dataset("two-gaussians").field().sample(20_000, SIGMA, torch.Generator().manual_seed(9)).float()
    beyond = (PAIR.field("two-gaussians/main").log_density(x, SIGMA) < level).float().mean()
    # The level comes from 16,384 samples, the share here from 20,000: four standard errors of the difference.
    assert float(beyond) == pytest.approx(0.01, abs=4 * (0.01 * 0.99 * (1 / 16_384 + 1 / 20_000)) ** 0.5)


def test_the_h_error_is_that_of_a_difference_by_hand():
    h = 0.1
    image = curvature.product_errors(PAIR, "exact", h)
    field = tg.load_dataset("two-gaussians").field()
    x = PAIR.grid(len(image)).double()
    v = torch.tensor([1.0, 0.0], dtype=torch.float64)  # the top eigenvector wherever the posterior is not certain
    difference = (field.denoise(x + h * SIGMA * v, SIGMA) - field.denoise(x, SIGMA)) / (h * SIGMA) - v
    product = torch.from_numpy(top_by_hand(x[..., :1].numpy())) * v
    error = ((difference - product).norm(dim=-1) / product.norm(dim=-1)).numpy()
    clear = (np.abs(x[..., 0].numpy()) < 0.9) & (np.abs(product[..., 0].numpy()) > 0.1)
    expected = np.digitize(error, curvature.ERROR_LEVELS)
    assert clear.mean() > 0.3
    assert (image[clear] == expected[clear]).mean() > 0.95  # all but pixels on a border of the bands
    assert len(np.unique(expected[clear])) > 2


def test_a_larger_step_is_more_wrong_and_the_rule_that_has_one_gives_it():
    state = ExplorerState()
    state.set({**SCENE, "bands": "step-error", "rule": "sfg", "params": {"h": 0.02}})
    assert state.request().product_step == 0.02
    small = picture(state.request()).scenes[1].image
    state.set({"params": {"h": 0.5}})
    assert picture(state.request()).scenes[1].image.mean() > small.mean() + 1
    state.set({"rule": "cfg"})
    assert state.request().product_step == tg.rule("sfg").h
    state.set({"ref": "sfg", "ref.params": {"h": 0.3}})
    assert state.request().product_step == 0.3
    state.set({"bands": "none"})
    assert state.request().product_step == 0.0  # the same picture whatever the step


def test_the_two_gaussians_have_two_modes_and_a_saddle_between_them():
    found = find_critical(PAIR, "exact")
    assert sorted(found.index.tolist()) == [0, 0, 1]
    saddle = found.index == 1
    np.testing.assert_allclose([found.x[saddle], found.y[saddle]], 0, atol=1e-6)
    m = np.sort(found.x[~saddle])
    v = 0.05 + SIGMA**2
    np.testing.assert_allclose(m, np.tanh(m / v), atol=1e-6)  # where the score vanishes
    # The unstable direction is along the line of the means, on both sides of the saddle.
    assert found.strokes.shape == (4, 2)
    np.testing.assert_allclose(found.strokes[[1, 3]], 0, atol=1e-6)
    assert sorted(np.sign(found.strokes[2])) == [-1, 1]


def test_above_the_merging_level_there_is_one_mode():
    found = find_critical(Spot("two-gaussians", None, 1.0, PAIR.window), "exact")  # 1^2 + 0.05 > 1
    assert found.index.tolist() == [0]


def test_critical_points_of_a_plane_in_sixteen_dimensions_are_those_in_it():
    sigma = 0.25
    spot = Spot("simplex16", None, sigma, home_window("simplex16", ("v2", "v5", "v7")), anchors=("v2", "v5", "v7"))
    found = find_critical(spot, "exact")
    assert (found.index == 0).sum() == 3
    assert (found.index == 1).sum() == 3
    data = tg.load_dataset("simplex16")
    corners = plane("simplex16", spot.anchors).project(torch.stack([data.field(x).mean for x in spot.anchors]))
    middles = ((corners + corners.roll(1, 0)) / 2).numpy()
    passes = np.stack([found.x, found.y], -1)[found.index == 1]
    # Symmetry puts each pass on the edge's bisector; the other fourteen vertices pull it towards the middle of all.
    nearest = np.linalg.norm(passes[:, None] - middles, axis=-1)
    assert sorted(nearest.argmin(1)) == [0, 1, 2]
    assert nearest.min(1).max() < 0.05


def test_a_search_on_the_fractal_is_bounded_and_begins_in_the_window():
    spot = Spot("fractal", "A", 0.03, (0.26, 0.70, 0.80, 1.24))
    starts = searching._starts(spot)
    assert STARTS < len(starts) <= STARTS + 16
    assert ((starts >= torch.tensor([0.26, 0.70])) & (starts <= torch.tensor([0.80, 1.24]))).all()


def test_a_search_stops_when_its_result_is_no_longer_wanted():
    spot = Spot("two-gaussians", None, 0.41, PAIR.window)
    asked = []
    with pytest.raises(CancelledError):
        find_critical(spot, "exact", lambda: asked.append(1) or len(asked) > 3)
    assert len(asked) == 4
    assert searching.critical_at_hand(spot, "exact") is None


def test_a_picture_comes_without_its_critical_points_and_then_with_them(monkeypatch):
    monkeypatch.setattr(searching, "_found", type(searching._found)(8))
    monkeypatch.setattr(computing, "_pictures", type(computing._pictures)(8))
    monkeypatch.setattr("panel.state.execute", lambda *_, **__: None)
    explorer = Explorer()
    explorer.state.set({**SCENE, "layers": ["critical"]})
    shown, threads = [], []
    real_show, real_find = explorer.stage.show, computing.find_critical
    monkeypatch.setattr(explorer.stage, "show", lambda p, look: shown.append(p) or real_show(p, look))
    monkeypatch.setattr(
        computing, "find_critical", lambda *a: threads.append(threading.current_thread().name) or real_find(*a)
    )
    asyncio.run(explorer.refresh())
    assert [p.scenes[1].critical is None for p in shown] == [True, False]
    assert [p.whole for p in shown] == [False, True]
    assert "search" in threads[0]  # not the thread that draws
    sent = explorer.stage.stage
    found = sent.scene_1["critical"]
    assert (len(found["modes"]["x"]), len(found["passes"]["x"])) == (2, 1)
    (row,) = (r for group in sent.legend["groups"] for r in group["rows"] if r["key"] == "critical")
    assert "2 modes, 1 saddle point" in row["note"]

    explorer.state.set({"layers": []})
    asyncio.run(explorer.refresh())
    assert "critical" not in sent.scene_1


def test_a_search_is_given_up_when_something_else_is_wanted(monkeypatch):
    monkeypatch.setattr(searching, "_found", type(searching._found)(8))
    monkeypatch.setattr(computing, "_pictures", type(computing._pictures)(8))
    monkeypatch.setattr("panel.state.execute", lambda *_, **__: None)
    explorer = Explorer()
    explorer.state.set({**SCENE, "layers": ["critical"]})
    ends = []

    def endless(spot, reference, cancelled):
        while not cancelled():
            threading.Event().wait(0.005)
        ends.append(spot.sigma)
        raise CancelledError

    monkeypatch.setattr(computing, "find_critical", endless)

    async def visit():
        running = asyncio.ensure_future(explorer.refresh())
        while explorer.picture is None:
            await asyncio.sleep(0.01)
        explorer.state.set({"layers": ["samples"]})
        await running

    asyncio.run(visit())
    assert len(ends) == 1
    assert explorer.picture.request == explorer.state.request()
    assert explorer.picture.whole


def test_the_edge_of_the_two_gaussians_is_the_closed_form():
    found = profile(PAIR, ("left", "right"), "two-gaussians/main", "main")
    x = 2 * found.t - 1  # the means are at -1 and 1
    np.testing.assert_allclose(found.curvature["exact"], top_by_hand(x), atol=1e-4)
    v = 0.05 + SIGMA**2
    expected = np.logaddexp(-((x - 1) ** 2) / (2 * v), -((x + 1) ** 2) / (2 * v))
    np.testing.assert_allclose(found.log_density["exact"], expected - expected.max(), atol=1e-5)
    np.testing.assert_allclose(found.posterior[1], 1 / (1 + np.exp(-2 * x / v)), atol=1e-5)
    assert found.saddle == 0.5
    assert found.log_density["learned"].max() == 0
    assert profile(Spot("two-gaussians", None, 1.0, PAIR.window), ("left", "right"), "", "").saddle is None


@pytest.mark.parametrize(
    ("settings", "learned"),
    [
        ({"dataset": "two-gaussians", "label": "union"}, "two-gaussians/main"),
        ({"dataset": "two-gaussians", "label": "left"}, "two-gaussians/main@union"),
        ({"dataset": "fractal", "label": "A"}, "fractal/uncond"),
        ({"dataset": "fractal", "label": "A", "main": "exact"}, ""),
    ],
)
def test_an_edges_learned_field_is_one_of_the_union(settings, learned):
    state = ExplorerState()
    state.set({"n": 128, "steps": 8, "step": 4, "bands": "none", "profile": True, **settings})
    assert picture(state.request()).profile.learned == learned


def test_a_plane_goes_through_its_anchors_and_holds_them_in_its_window():
    data = tg.load_dataset("simplex16")
    numbers = " ".join(["0.5", "-0.25", *["0"] * 14])
    anchors = checked_anchors("simplex16", ["v4", " v4 + v9", numbers.replace(" ", ", ")])
    assert anchors == ("v4", "v4 + v9", numbers)
    points = torch.stack([data.field("v4").mean, (data.field("v4").mean + data.field("v9").mean) / 2, torch.zeros(16)])
    points[2, :2] = torch.tensor([0.5, -0.25])
    surface = plane("simplex16", anchors)
    at = surface.project(points)
    np.testing.assert_allclose(surface.embed(at), points, atol=1e-9)
    left, bottom, right, top = home_window("simplex16", anchors)
    assert ((at > torch.tensor([left, bottom])) & (at < torch.tensor([right, top]))).all()


def test_a_numbered_sample_is_an_exact_one():
    through = plane("simplex16", checked_anchors("simplex16", ("v1", "v2", "#7")))
    x = tg.load_dataset("simplex16").field().sample(1000, generator=torch.Generator().manual_seed(0))[7].double()
    np.testing.assert_allclose(through.embed(through.project(x)), x, atol=1e-6)


def test_the_datasets_own_plane_needs_no_anchors():
    assert checked_anchors("simplex16", ("v1", "v2", "v3")) == ()
    assert checked_anchors("simplex16", ()) == ()


def test_a_plus_that_a_url_turned_into_a_space_is_one():
    one, other = (plane("simplex16", checked_anchors("simplex16", ("v1", "v2", x))) for x in ("v3+v4", "v3 v4"))
    np.testing.assert_array_equal(one.axes, other.axes)


@pytest.mark.parametrize(
    ("dataset", "anchors", "named"),
    [
        ("simplex16", ("v1", "v2"), "three points"),
        ("simplex16", ("v1", "v2", "v2"), "line"),
        ("simplex16", ("v1", "v2", "v1+v2"), "line"),
        ("simplex16", ("v1", "v2", "w3"), "w3"),
        ("simplex16", ("v1", "v2", "v3+w3"), "w3"),
        ("simplex16", ("v1", "v2", "1 2 3"), "16 numbers"),
        ("simplex16", ("v1", "v2", " ".join(["1e30"] * 16)), "16 numbers"),
        ("simplex16", ("v1", "v2", " ".join(["nan"] * 16)), "nan"),
        ("simplex16", ("v1", "v2", "#1000"), "#1000"),
        ("simplex16", ("v1", "v2", "#-1"), "#-1"),
        ("simplex16", ("v1", "v2", ""), "plane"),
        ("simplex16", ("v1", "v2", None), "None"),
        ("simplex16", ("v1", "v2", "v" * 5000), "400"),
        ("simplex16", "v1,v2,v3", "three points"),
        ("fractal", ("A", "B", "#1"), "2 dimensions"),
    ],
)
def test_a_wrong_anchor_is_named_in_one_line(dataset, anchors, named):
    with pytest.raises(InputError, match=named) as caught:
        checked_anchors(dataset, anchors)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_another_plane_shows_the_same_samples_without_running_them_again(monkeypatch):
    state = ExplorerState()
    state.set({"dataset": "simplex16", "n": 128, "steps": 8, "bands": "none", "seed": 17})
    first = picture(state.request())
    monkeypatch.setattr("toyguide.experiment.Experiment.walk", lambda *_: pytest.fail("run again"))
    state.set({"plane": ("v2", "v5", "v7"), "point": (0.0, 0.0)})
    second = picture(state.request())
    assert second.runs[1].metrics == first.runs[1].metrics
    run = second.request.runs[1]
    x = plane("simplex16", state.plane)
    monkeypatch.undo()
    np.testing.assert_allclose(second.runs[1].frames[-1], x.project(run.run("cpu").x[-1]), atol=1e-5)
    assert not np.allclose(second.runs[1].frames, first.runs[1].frames)
