"""Runs side by side: each panel shows its own run, on shared axes, and what is drawn is what was computed."""

import dataclasses
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.path import Path

import toyguide as tg
from toyguide.errors import InputError
from toyguide.metrics import hdr_threshold
from toyguide.palette import LIGHT
from toyguide.plots import compare, draw, save, stage

pytestmark = pytest.mark.usefixtures("coarse_grids")


def run(rule="none", n=40, **settings):
    return tg.Experiment(
        **{"dataset": "two-gaussians", "label": "left", "main": "exact", "rule": rule, "steps": 6, "n": n, **settings}
    ).run("cpu")


@pytest.fixture(scope="module")
def runs():
    return [run(), run("cfg", params={"w": 3.0}, interval=(0.1, 2.0)), run("sfg")]


def axes_of(result, layers, **settings):
    axes = Figure().add_axes((0, 0, 1, 1))
    keys = draw(axes, result, layers, **settings)
    return axes, [key.get_label() for key in keys]


def points(axes):
    found = {c.get_label(): np.asarray(c.get_offsets()) for c in axes.collections if hasattr(c, "get_offsets")}
    together = np.concatenate([found["samples"], found["outside"]])
    return found, together[np.lexsort(together.T)]


def ordered(x):
    x = x.double().numpy()
    return x[np.lexsort(x.T)]


def contours(axes):
    return [c for c in axes.collections if isinstance(c, matplotlib.contour.ContourSet)]


def test_every_panel_shows_its_own_run_on_the_same_axes(runs):
    figure = compare(runs)
    assert len(figure.axes) == 3
    for axes, result in zip(figure.axes, runs, strict=True):
        np.testing.assert_allclose(points(axes)[1], ordered(result.x[-1]), atol=1e-6)
        assert (axes.get_xlim(), axes.get_ylim()) == ((-2.2, 2.2), (-2.2, 2.2))
    titles = [axes.get_title().replace("\n", " ") for axes in figure.axes]
    assert titles[0] == "Unguided"
    assert titles[1] == "Classifier-free guidance, w = 3, 0.1 < σ ≤ 2"
    assert "w = 4" in titles[2]
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(texts) == len(set(texts)) == 5  # two of samples


def test_points_are_those_of_the_step_and_marked_by_how_they_end(runs):
    result = runs[1]
    border = hdr_threshold(result.experiment.data, "left")
    inside = result.experiment.data.field("left").log_density(result.x[-1], 0.0) >= border
    found, _ = points(axes_of(result, ["samples"], step=3)[0])
    for name, kept in (("samples", inside), ("outside", ~inside)):
        assert kept.any()
        np.testing.assert_allclose(ordered(torch.from_numpy(found[name])), ordered(result.x[3, kept]), atol=1e-6)
    assert to_hex(axes_of(result, ["samples"])[0].collections[-1].get_facecolor()[0]) == LIGHT.outlier


def test_paths_end_at_the_step(runs):
    (paths,) = axes_of(runs[0], ["paths"], step=4)[0].collections
    np.testing.assert_allclose(np.array(paths.get_segments()), runs[0].x[:5].transpose(0, 1), atol=1e-6)


def test_what_is_not_finite_is_not_drawn(runs):
    x = runs[0].x.clone()
    x[-1, :3] = torch.nan
    axes, _ = axes_of(dataclasses.replace(runs[0], x=x), ["samples", "paths"])
    assert len(points(axes)[1]) == 37
    np.testing.assert_allclose(points(axes)[1], ordered(x[-1, 3:]), atol=1e-6)


@pytest.mark.parametrize(("sigma", "step", "level"), [(0.7, None, 0.7), (None, None, 0.0), (None, 3, None)])
def test_lines_hold_their_shares_of_the_density_at_the_noise_level(runs, sigma, step, level):
    """Of fresh samples at the level, so many lie inside each line: 99, 80 and 50 %."""
    level = float(runs[0].sigma[step]) if level is None else level
    axes, _ = axes_of(runs[0], ["exact-lines"], sigma=sigma, step=step, window=stage.Window((-9, -9), (9, 9)))
    (drawn,) = contours(axes)
    x = runs[0].experiment.data.field("left").sample(20_000, level, torch.Generator().manual_seed(0))
    for path, share in zip(drawn.get_paths(), (0.99, 0.8, 0.5), strict=True):
        inside = Path(path.vertices, path.codes).contains_points(x.numpy()).mean()
        assert inside == pytest.approx(share, abs=0.04)


def test_the_guiding_field_is_the_rules_and_missing_without_one(runs):
    assert axes_of(runs[0], ["guide", "guide-lines", "ratio"])[1] == []
    axes, labels = axes_of(runs[1], ["guide", "ratio"], sigma=0.5)
    assert labels == ["guide density", "guide likelier", "main likelier"]
    _, ratio = contours(axes)
    data = runs[1].experiment.data
    grid = stage.fine_grid(stage.Window((-2.1, -2.1), (2.1, 2.1))).reshape(-1, 2)
    exact = (data.field("left").log_density(grid, 0.5) - data.field(None).log_density(grid, 0.5)).numpy()
    band = ratio.get_paths()[list(ratio.levels).index(0.5) + 1]  # from 0.5 to 1.5; one is below the lowest level
    inside = band.contains_points(grid.numpy())
    assert inside[(exact > 0.55) & (exact < 1.45)].all()
    assert not inside[exact < 0.45].any()


def test_arrows_are_the_score(runs):
    axes, _ = axes_of(runs[0], ["score"], sigma=0.8)
    (quiver,) = axes.collections
    at = torch.from_numpy(np.asarray(quiver.get_offsets())).float()
    score = runs[0].experiment.data.field("left").score(at, 0.8).numpy()
    arrows = np.stack([quiver.U, quiver.V], -1)
    size, length = np.linalg.norm(score, axis=-1), np.linalg.norm(arrows, axis=-1)
    np.testing.assert_allclose(arrows / length[:, None], score / size[:, None], atol=1e-4)
    np.testing.assert_allclose((length / length.max()) ** 2, size / size.max(), atol=1e-4)


def test_the_boundary_lies_where_both_classes_are_as_likely(runs):
    axes, labels = axes_of(runs[0], ["boundary"])
    assert labels == ["class boundary"]
    (drawn,) = contours(axes)
    on_it = torch.from_numpy(drawn.get_paths()[0].vertices).float()
    posterior = runs[0].experiment.data.posterior(on_it, 0.3)
    assert (posterior[:, 0] - 0.5).abs().max() < 0.1


def test_layers_of_learned_fields_in_16_dimensions_can_be_drawn():
    result = run(dataset="simplex16", label=None, main=None, rule="autoguidance")
    figure = compare([result], list(stage.LAYERS))
    expected = stage.plane_of(result.experiment.data).project(result.x[-1])
    np.testing.assert_allclose(points(figure.axes[0])[1], ordered(expected), atol=1e-5)


def test_the_stage_has_its_heading_sentence_and_numbers_inside_the_canvas(runs, tmp_path):
    words = {
        "heading": "What CFG does",
        "sentence": "A long sentence of what is to be seen. " * 6,
        "numbers": ["1 → 2", "3 → 4"],
    }
    figure = compare(runs[:2], **words, titles=["a", "b"])
    texts = [text.get_text() for text in figure.texts]
    assert texts[0] == "What CFG does"
    assert " ".join(texts[1:-1]) == words["sentence"].strip()
    assert all(number in texts[-1] for number in words["numbers"])
    assert [axes.get_title() for axes in figure.axes] == ["a", "b"]
    for name in ("a.png", "a.svg", "a.pdf"):
        save(figure, tmp_path / name, dpi=60)
        assert (tmp_path / name).stat().st_size > 5000
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # places the legend
    renderer = canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in figure.texts]
    boxes += [axes.title.get_window_extent(renderer) for axes in figure.axes]
    boxes += [
        figure.legends[0].get_window_extent(renderer),
        *(axes.get_window_extent(renderer) for axes in figure.axes),
    ]
    for i, a in enumerate(boxes):
        assert a.x0 >= 0
        assert a.y0 >= 0
        assert a.x1 <= figure.bbox.width
        assert a.y1 <= figure.bbox.height
        assert not any(a.x0 < b.x1 and b.x0 < a.x1 and a.y0 < b.y1 and b.y0 < a.y1 for b in boxes[:i]), i


@pytest.mark.parametrize("dpi", [72, 300])
def test_many_numbers_are_written_smaller_and_not_cut_off(runs, dpi):
    numbers = [f"{name} 10.5 % → 14.5 % → 6.1 %" for name in ("Outliers", "Dropped mass", "Coverage")]
    figure = compare(runs[:2], numbers=numbers)
    figure.set_dpi(dpi)
    (row,) = [text for text in figure.texts if "Dropped mass" in text.get_text()]
    assert all(number in row.get_text() for number in numbers)
    assert row.get_window_extent(FigureCanvasAgg(figure).get_renderer()).x1 <= figure.bbox.x1


def test_wrong_input_is_refused_in_one_line(runs):
    for call, message in (
        (lambda: compare([]), "0 runs of 0 datasets: expected 1 to 4"),
        (lambda: compare([runs[0]] * 5), "5 runs of 1 datasets"),
        (lambda: compare([runs[0], run(dataset="two-variances", label="narrow")]), "2 runs of 2 datasets"),
        (lambda: compare(runs, titles=["a"]), "1 titles: expected one for each of the 3"),
        (lambda: compare(runs, ["sample"]), "unknown layer 'sample'.*did you mean 'samples'"),
        (lambda: compare(runs, "samples"), "expected a sequence of names"),
        (lambda: compare(runs, step=7), "step = 7: expected a whole number from 0 to 6"),
        (lambda: compare(runs, sigma=-1.0), "sigma = -1.0: expected a noise level"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_matplotlib_is_imported_with_the_first_figure():
    seen = "print('matplotlib' in sys.modules)"
    code = f"import sys, toyguide as tg; {seen}; tg.plot.draw; {seen}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
    with pytest.raises(AttributeError, match="no attribute 'plots_'"):
        tg.plots_  # noqa: B018
