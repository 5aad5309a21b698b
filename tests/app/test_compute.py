"""Pictures against the fields they show."""

import numpy as np
import pytest
import torch

import toyguide as tg
from toyguide.guidance import Guided
from toyguide.metrics import hdr_threshold
from toyguide_apps.explorer_page.compute import CancelledError, picture
from toyguide_apps.explorer_page.layers import densities as layers
from toyguide_apps.explorer_page.layers.densities import BAND_SHARES, Spot
from toyguide_apps.explorer_page.planes import home_window, plane
from toyguide_apps.explorer_page.runs import run_paths
from toyguide_apps.explorer_page.state import LAYERS, ExplorerState
from toyguide_apps.explorer_page.views.parts import title


def shown(**settings):
    state = ExplorerState()
    state.set({"n": 128, "steps": 12, **settings})
    return picture(state.request())


@pytest.fixture(scope="module")
def everything():
    return shown(layers=list(LAYERS), step=8, rule="cfg", bands="main")


def test_the_points_are_the_experiments(everything):
    run = everything.request.runs[1].run("cpu")
    np.testing.assert_allclose(everything.runs[1].frames, run.x.numpy(), rtol=1e-5, atol=1e-6)
    assert everything.runs[1].metrics["coverage"] == pytest.approx(run.metrics(0)["coverage"])
    data = run.experiment.data
    outside = data.field("A").log_density(run.x[-1].double(), 0.0) < hdr_threshold(data, "A")
    assert (everything.runs[1].outlier == outside.numpy()).mean() > 0.99  # up to points on the border, in float32
    np.testing.assert_array_equal(everything.runs[0].frames[0], everything.runs[1].frames[0])


def test_bands_hold_the_shares_of_the_mass_that_they_say():
    spot = Spot("fractal", "A", 0.1, home_window("fractal"))
    bands = layers.bands(spot, "exact", "main")
    x = tg.load_dataset("fractal").field("A").sample(20_000, 0.1, torch.Generator().manual_seed(0)).numpy()
    left, bottom, right, top = spot.window
    n = len(bands) - 1
    column = ((x[:, 0] - left) / (right - left) * n).round().astype(int).clip(0, n)
    row = ((x[:, 1] - bottom) / (top - bottom) * n).round().astype(int).clip(0, n)
    of_sample = bands[row, column]
    for i, share in enumerate(BAND_SHARES, 1):
        # 20,000 samples: three standard errors are at most 0.011; the grids' spacing adds about as much.
        assert (of_sample >= i).mean() == pytest.approx(share, abs=0.02), share


def test_lines_and_bands_do_not_depend_on_the_window():
    wide = Spot("fractal", "A", 0.1, home_window("fractal"))
    near = Spot("fractal", "A", 0.1, (0.0, 0.0, 0.5, 0.5))
    grid = near.grid(layers.PIXELS).numpy()
    left, bottom, right, top = wide.window
    n = layers.PIXELS - 1
    column = ((grid[..., 0] - left) / (right - left) * n).round().astype(int)
    row = ((grid[..., 1] - bottom) / (top - bottom) * n).round().astype(int)
    same = layers.bands(wide, "exact", "main")[row, column] == layers.bands(near, "exact", "main")
    assert same.mean() > 0.95  # all but pixels on a border


def test_score_arrows_point_along_the_score(everything):
    spot = Spot("fractal", "A", everything.request.sigma, everything.request.window)
    net = tg.load_model("fractal/main")
    a = everything.scenes[1].score
    shafts = len(a.x0) // 3
    start = torch.from_numpy(np.stack([a.x0[:shafts], a.y0[:shafts]], -1))
    drawn = torch.from_numpy(np.stack([a.x1[:shafts], a.y1[:shafts]], -1)) - start
    score = net.score(start, spot.sigma)
    assert torch.nn.functional.cosine_similarity(drawn, score).min() > 0.999
    assert drawn.norm(dim=1).max() <= spot.size / layers._ARROWS


def test_guidance_arrows_are_the_rules_term(everything):
    a = everything.guidance[1]
    shafts = len(a.x0) // 3
    start = torch.from_numpy(np.stack([a.x0[:shafts], a.y0[:shafts]], -1))
    drawn = torch.from_numpy(np.stack([a.x1[:shafts], a.y1[:shafts]], -1)) - start
    main, uncond = tg.load_model("fractal/main"), tg.load_model("fractal/uncond")
    gap = main.denoise(start, everything.request.sigma) - uncond.denoise(start, everything.request.sigma)
    assert torch.nn.functional.cosine_similarity(drawn, gap).median() > 0.999
    assert everything.guidance[0] is None or len(everything.guidance[0].x0) == 0  # unguided: nothing is added


def test_the_push_of_a_rule_with_memory_is_drawn_at_its_own_points():
    p = shown(dataset="two-gaussians", label="union", rule="sfg", layers=["guidance", "samples"], step=5)
    a = p.guidance[1]
    starts = {tuple(np.round(v, 5)) for v in p.runs[1].frames[5]}
    assert len(a.x0) > 0
    shafts = len(a.x0) // 3
    assert {tuple(np.round(v, 5)) for v in np.stack([a.x0[:shafts], a.y0[:shafts]], -1)} <= starts


def test_saddles_are_where_the_closed_form_says():
    """Two Gaussians: lambda_max(J) = -1/V + p(1-p)|dm|^2/V^2 along the line that joins the means (RULES, section 4)."""
    sigma = 0.5
    spot = Spot("two-gaussians", None, sigma, home_window("two-gaussians"))
    a = layers.saddles(spot, "exact")
    v = 0.05 + sigma**2
    middle = (a.x0 + a.x1) / 2
    p = 1 / (1 + np.exp(-2 * middle / v))
    expected = sigma**2 * (-1 / v + 4 * p * (1 - p) / v**2)
    np.testing.assert_allclose(a.value, expected, rtol=1e-3, atol=1e-4)
    assert (np.abs(a.y1 - a.y0) < 1e-4 * np.abs(a.x1 - a.x0)).all()
    grid = spot.grid(layers._SADDLES).numpy()
    q = 1 / (1 + np.exp(-2 * grid[..., 0] / v))
    assert len(a.value) == (-1 / v + 4 * q * (1 - q) / v**2 > 0).sum()


def test_the_boundary_of_two_gaussians_is_the_middle():
    c = layers.boundary(Spot("two-gaussians", None, 0.3, home_window("two-gaussians")))
    x = c.x[np.isfinite(c.x)]
    assert len(x) > 10
    np.testing.assert_allclose(x, 0, atol=1e-3)


def test_the_outline_lies_on_the_99_percent_level(everything):
    c = everything.scenes[1].curves["region"]
    data = tg.load_dataset("fractal")
    x = torch.from_numpy(np.stack([c.x, c.y], -1)).double()
    x = x[x.isfinite().all(-1)]
    level = data.field("A").log_density(x, 0.0)
    # Contours are straight between grid points some standard deviations apart: most vertices are near the level.
    assert (level - hdr_threshold(data, "A")).abs().median() < 0.5


def test_the_ratio_is_that_of_normalised_densities():
    """Exact class against exact union: p_A / p = P(A | x) / P(A), so its sign changes where the posterior does."""
    spot = Spot("two-gaussians", "left", 0.4, home_window("two-gaussians"))
    image = layers.ratio(spot, "exact", "exact@union", "uncond")
    data = tg.load_dataset("two-gaussians")
    posterior = data.posterior(spot.grid(layers.PIXELS), 0.4)[..., 0].numpy()
    expected = np.digitize(np.log(posterior / 0.5), layers.RATIO_LEVELS)
    drawn = image != len(layers.RATIO_LEVELS) // 2
    assert drawn.mean() > 0.3
    assert (image[drawn] == expected[drawn]).mean() > 0.97


def test_sixteen_dimensions_are_shown_in_the_plane_of_three_vertices():
    p = shown(dataset="simplex16", label="union", rule="none", main="exact", layers=["samples"], bands="exact")
    means = tg.load_dataset("simplex16").components.mixture.means[:3]
    corners = plane("simplex16").project(means)
    sides = [float((corners[i] - corners[i - 1]).norm()) for i in range(3)]
    assert sides == pytest.approx([(2 * 17 / 16) ** 0.5] * 3)
    assert p.runs[1].frames.shape[-1] == 2


def test_a_cancelled_run_stops_and_leaves_nothing():
    state = ExplorerState(n=128, seed=77)
    asked = []

    def cancelled():
        asked.append(1)
        return len(asked) > 3

    with pytest.raises(CancelledError):
        picture(state.request(), cancelled)
    assert len(asked) == 4
    assert run_paths(state.request().runs[1], "cpu", lambda: False).frames.shape[0] == 33


def test_a_diverging_run_is_counted_and_not_drawn_as_numbers(monkeypatch):
    def explode(self, at, memory):
        return Guided(torch.where(at.x[:, :1] > 0, torch.inf, at.denoised("main")))

    monkeypatch.setattr(tg.rules()["score-scaling"], "guide", explode)
    wild = tg.Experiment(dataset="two-gaussians", rule="score-scaling", main="exact", steps=9, n=64, seed=5)
    paths = run_paths(wild, "cpu", lambda: False)
    lost = ~np.isfinite(paths.frames[-1]).all(-1)
    assert 0 < lost.sum() < 64
    assert paths.diverged == lost.sum()
    assert paths.outlier[lost].all()
    assert paths.metrics["outliers"] >= lost.mean()
    assert f"{paths.diverged} of 64 diverged" in title(paths)
