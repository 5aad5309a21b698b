"""Figures: what is drawn is what was computed, nothing lies outside the canvas, and every format is a whole file."""

import argparse
import dataclasses
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import matplotlib.image
import matplotlib.text
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from toyguide import Experiment, load_dataset
from toyguide.commands import plot as command
from toyguide.errors import InputError
from toyguide.metrics import hdr_threshold, measure

plots = pytest.importorskip("toyguide.plots")
parts = pytest.importorskip("toyguide.plots.parts")
figures = pytest.importorskip("toyguide.plots.figures")


pytestmark = pytest.mark.usefixtures("coarse_grids")


@pytest.fixture(scope="module")
def figure_1():
    return plots.figure_1(n=100, seed=3)


@pytest.fixture(scope="module")
def figure_2():
    return plots.figure_2(n=600, seed=3)


@pytest.fixture(scope="module")
def run():
    return Experiment("two-gaussians", "left", main="exact", rule="cfg", params={"w": 3.0}, steps=6, n=40, seed=1).run()


def drawn(axes, label):
    """The points of the scatter that is called so, with shape (n, 2)."""
    (found,) = [c for c in axes.collections if c.get_label() == label]
    return np.asarray(found.get_offsets())


def all_samples(axes):
    points = np.concatenate([drawn(axes, "samples"), drawn(axes, "outside")])
    return points[np.lexsort(points.T)]


def in_order(x):
    x = x.double().numpy()
    return x[np.lexsort(x.T)]


def assert_text_is_inside(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # places the legend
    renderer = canvas.get_renderer()
    width, height = canvas.get_width_height()
    texts = [t for t in figure.findobj(matplotlib.text.Text) if t.get_text() and t.get_visible()]
    assert len(texts) >= 4
    for text in texts:
        box = text.get_window_extent(renderer)
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= width, text
        assert box.y1 <= height, text
    return [t.get_window_extent(renderer) for t in texts]


def assert_no_overlap(boxes):
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert not (a.x0 < b.x1 and b.x0 < a.x1 and a.y0 < b.y1 and b.y0 < a.y1)


def test_figure_1_draws_the_points_of_its_experiments(figure_1):
    data = load_dataset("fractal")
    assert [a.get_title()[:3] for a in figure_1.axes] == ["(a)", "(b)", "(c)", "(d)", "(e)"]
    rules = [("none", {}), ("cfg", {"w": 4.0}), ("score-scaling", {"k": 1.4}), ("autoguidance", {"w": 3.0})]
    for axes, (rule, params) in zip(figure_1.axes[1:], rules, strict=True):
        x = Experiment("fractal", "A", main="fractal/main", rule=rule, params=params, n=100, seed=3).run().x[-1]
        np.testing.assert_allclose(all_samples(axes), in_order(x), atol=1e-6)

        found = measure(x, data, "A", resamples=0, seed=3)
        (caption,) = [t.get_text() for t in axes.texts if "outliers" in t.get_text()]
        assert [float(v) for v in re.findall(r"([\d.]+)%", caption)] == pytest.approx(
            [100 * found["outliers"], 100 * found["coverage"]], abs=0.5
        )
    truth = data.field("A").sample(100, generator=torch.Generator().manual_seed(3))
    np.testing.assert_allclose(all_samples(figure_1.axes[0]), in_order(truth), atol=1e-6)


def test_figure_1_shows_what_lies_outside_the_exact_region(figure_1):
    field, border = load_dataset("fractal").field("A"), hdr_threshold(load_dataset("fractal"), "A")
    for name, above in (("samples", True), ("outside", False)):
        x = torch.from_numpy(drawn(figure_1.axes[1], name)).float()
        assert len(x)
        assert ((field.log_density(x, 0.0) >= border) == above).all()


def test_figure_1_frames_all_panels_alike_and_marks_the_close_up(figure_1, figure_2):
    for axes in figure_1.axes:
        assert axes.get_aspect() == 1
        assert axes.get_xlim() == figure_1.axes[0].get_xlim()
        assert axes.get_ylim() == figure_1.axes[0].get_ylim()
    (mark,) = figure_1.axes[2].patches
    (u0, u1), (v0, v1) = figure_2.axes[0].get_xlim(), figure_2.axes[0].get_ylim()
    assert mark.get_bbox().extents == pytest.approx([u0, v0, u1, v1])


def test_figure_2_draws_score_arrows_and_their_difference(figure_2):
    quivers = [next(c for c in a.collections if type(c).__name__ == "Quiver") for a in figure_2.axes[:3]]
    at = torch.from_numpy(np.asarray(quivers[0].get_offsets())).float()
    assert len(at) > 10
    moved = [np.stack([q.U, q.V], -1) for q in quivers]
    np.testing.assert_allclose(moved[2], moved[0] - moved[1], atol=1e-6)
    main = Experiment("fractal", "A", main="fractal/main").build_fields()["main"]
    np.testing.assert_allclose(moved[0], (main.denoise(at, 0.03) - at).numpy(), atol=1e-6)


@pytest.mark.parametrize(("panel", "rule", "params"), [(3, "none", {}), (4, "cfg", {"w": 4.0})])
def test_figure_2_draws_trajectories_from_the_middle_level(figure_2, panel, rule, params):
    e = Experiment("fractal", "A", main="fractal/main", rule=rule, params=params, sigma_max=0.03, n=600, seed=3)
    x = e.run().x.numpy()
    axes = figure_2.axes[panel]
    (paths,) = [c for c in axes.collections if type(c).__name__ == "LineCollection"]
    segments = paths.get_segments()
    assert len(segments) > 20
    for path in segments:
        index = int(np.abs(x[0] - path[0]).sum(-1).argmin())
        np.testing.assert_allclose(path, x[:, index], atol=1e-6)
    np.testing.assert_allclose(
        all_samples(axes), in_order(torch.tensor(np.array([p[-1] for p in segments]))), atol=1e-6
    )


def test_figure_2_shows_points_that_keep_their_distance():
    x = torch.rand(500, 2, generator=torch.Generator().manual_seed(0))
    window = figures.Window((0.2, 0.2), (0.8, 0.7))
    chosen = x[figures._spread(x, window, 0.1)]
    assert torch.pdist(chosen).min() >= 0.1
    inside = x[((x > 0.2) & (x < torch.tensor([0.8, 0.7]))).all(-1)]
    assert (torch.cdist(inside, chosen).min(1).values < 0.1).all()  # and no room is left
    assert len(chosen) < len(inside)


@pytest.mark.parametrize("name", ["figure_1", "figure_2"])
def test_no_text_leaves_the_canvas_or_covers_another(request, name):
    assert_no_overlap(assert_text_is_inside(request.getfixturevalue(name)))


def test_regions_are_evaluated_where_their_borders_are():
    """The sparse fine grid equals the full one near the border, and lies below it elsewhere."""
    field, window = load_dataset("fractal").field("A"), figures._CLASS_A
    level = hdr_threshold(load_dataset("fractal"), "A")
    sparse = parts._near(field, window, level)
    full = field.log_density(window.grid(parts._FINE), 0.0)
    assert torch.equal((sparse >= level), (full >= level))
    near = full > level - 10
    torch.testing.assert_close(sparse[near], full[near])
    assert (sparse == level - 50).any()


def test_a_run_is_drawn_with_its_points_paths_and_facts(run):
    figure = plots.plot_run(run)
    (axes,) = figure.axes
    np.testing.assert_allclose(all_samples(axes), in_order(run.x[-1]), atol=1e-6)
    (paths,) = [c for c in axes.collections if type(c).__name__ == "LineCollection"]
    np.testing.assert_allclose(np.array(paths.get_segments()), run.x.transpose(0, 1).numpy(), atol=1e-6)
    assert (axes.get_xlim(), axes.get_ylim()) == ((-2.2, 2.2), (-2.2, 2.2))
    assert axes.get_title() == "Two Gaussians: left, cfg"
    caption = axes.texts[0].get_text()
    assert "w = 3" in caption
    assert "uncond exact@union" in caption
    assert_no_overlap(assert_text_is_inside(figure))


def test_diverged_trajectories_are_counted_and_never_drawn(run):
    x = run.x.clone()
    x[-1, :3], x[2, 3] = torch.nan, torch.inf
    x[-1, 4] = 50.0
    spoilt = dataclasses.replace(run, x=x)
    figure = plots.plot_run(spoilt)
    caption = figure.axes[0].texts[0].get_text()
    assert "3 diverged" in caption
    assert "1 beyond the frame" in caption
    np.testing.assert_allclose(all_samples(figure.axes[0]), in_order(x[-1, 4:]), atol=1e-6)


def test_a_run_in_16_dimensions_is_drawn_in_projection():
    result = Experiment("simplex16", None, main="exact", steps=4, n=30).run()
    figure = plots.plot_run(result)
    expected = figures.plane_of(result.experiment.data).project(result.x[-1])
    np.testing.assert_allclose(all_samples(figure.axes[0]), in_order(expected), atol=1e-5)
    assert_no_overlap(assert_text_is_inside(figure))


# ---- files


def test_each_format_is_a_whole_file_and_the_same_again(run, tmp_path):
    figure = plots.plot_run(run)
    for name in ("a.png", "a.svg", "a.pdf"):
        plots.save(figure, tmp_path / name, dpi=50)
        first = (tmp_path / name).read_bytes()
        plots.save(figure, tmp_path / name, dpi=50)
        assert (tmp_path / name).read_bytes() == first
    width, height = figure.get_size_inches()
    assert matplotlib.image.imread(tmp_path / "a.png").shape[:2] == (int(height * 50), int(width * 50))
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    root = ElementTree.parse(tmp_path / "a.svg").getroot()
    assert root.tag.endswith("svg")
    pdf = (tmp_path / "a.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert pdf.rstrip().endswith(b"%%EOF")
    assert {p.name for p in tmp_path.iterdir()} == {"a.png", "a.svg", "a.pdf"}


def plot(*arguments):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    command.run(parser.parse_args([str(a) for a in arguments]))


def test_the_command_draws_a_run_into_every_named_file(run, tmp_path, capsys):
    run.save(tmp_path / "run.npz")
    outputs = [tmp_path / "a.png", tmp_path / "b.svg", tmp_path / "c.pdf"]
    plot(tmp_path / "run.npz", "-o", *outputs[:2], "-o", outputs[2], "--dpi", 40)
    assert capsys.readouterr().out.split() == [str(o) for o in outputs]
    assert all(o.stat().st_size > 1000 for o in outputs)


@pytest.mark.parametrize("name", ["figure-1", "figure-2"])
def test_the_command_hands_on_what_a_figure_is_made_of(name, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(plots, name.replace("-", "_"), lambda *a, **k: asked.append((a, k)) or figures.Figure((1, 1)))
    plot(name, "-o", tmp_path / "a.png", "--n", 7, "--seed", 5, "--device", "cpu")
    plot(name, "-o", tmp_path / "a.png")
    assert asked == [(("cpu",), {"n": 7, "seed": 5}), (("auto",), {})]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["figure-3", "-o", "a.png"], r"unknown figure 'figure-3': .*did you mean 'figure-[12]'"),
        (["figure-1", "-o", "a.pgn"], r"unknown format of 'a.pgn' '.pgn': .*did you mean '.png'"),
        (["figure-1", "-o", "a"], r"expected one of .png, .svg, .pdf"),
        (["figure-1", "-o", "nowhere/a.png"], r"the folder 'nowhere' does not exist"),
        (["figure-1", "-o", "a.png", "--dpi", "3"], r"--dpi 3: expected a whole number from 30"),
        (["figure-1", "-o", "a.png", "--n", "0"], r"n = 0: expected a whole number from 1"),
        (["figure-2", "-o", "a.png", "--seed", "-1"], r"seed = -1: expected"),
        (["no.npz", "-o", "a.png"], r"run 'no.npz': no such file"),
        (["no.npz", "-o", "a.png", "--n", "4"], r"--n: belongs to figure-1 and figure-2"),
    ],
)
def test_the_command_refuses_what_is_wrong_in_one_line_and_writes_nothing(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message) as refused:
        plot(*arguments)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_the_library_works_and_the_figures_say_what_to_install():
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import toyguide\n"
        "try:\n    import toyguide.plots\n"
        "except toyguide.errors.InputError as problem:\n    print(problem)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("expected pip install 'toyguide[plot]'")
