"""Films: every picture shows the points of its time, the window follows the noise, and the file is whole."""

import argparse

import matplotlib.animation
import numpy as np
import pytest
from PIL import Image

from toyguide import Experiment
from toyguide.commands import animate as command
from toyguide.errors import InputError
from toyguide.palette import LIGHT
from toyguide.plots import animate, animation, compare

pytestmark = pytest.mark.usefixtures("coarse_grids")


@pytest.fixture(scope="module")
def runs():
    settings = {"dataset": "two-gaussians", "label": "left", "main": "exact", "steps": 6, "n": 40}
    return [Experiment(**settings, rule=rule).run("cpu") for rule in ("none", "cfg")]


@pytest.fixture
def actors(runs):
    figure = compare(runs, ("region", "samples"))
    return [animation._Actor(axes, result) for axes, result in zip(figure.axes, runs, strict=True)]


def points(axes):
    shown = [np.asarray(c.get_offsets()) for c in axes.collections if c.get_label() in ("samples", "outside")]
    together = np.concatenate(shown)
    return together[np.lexsort(together.T)]


@pytest.mark.parametrize(
    ("time", "weights"), [(0.0, {0: 1.0}), (0.5, {3: 1.0}), (0.75, {4: 0.5, 5: 0.5}), (1.0, {6: 1.0})]
)
def test_points_are_where_they_are_at_a_time(runs, actors, time, weights):
    animation._show(actors, time)
    for actor, result in zip(actors, runs, strict=True):
        expected = sum(w * result.x[step] for step, w in weights.items()).double().numpy()
        np.testing.assert_allclose(points(actor.axes), expected[np.lexsort(expected.T)], atol=1e-5)


def test_the_window_follows_the_noise_to_the_data(runs, actors):
    animation._show(actors, 0.0)
    low, high = actors[0].axes.get_xlim()
    start = runs[0].x[0]
    assert ((start > low) & (start < high)).all(-1).float().mean() > 0.95
    assert high - low < 2.5 * float(start.abs().max())
    widths = []
    for time in np.linspace(0, 1, 13):
        animation._show(actors, time)
        widths.append(np.ptp(actors[0].axes.get_xlim()))
        assert actors[0].axes.get_xlim() == actors[1].axes.get_xlim()
    assert widths == sorted(widths, reverse=True)
    assert actors[0].axes.get_xlim() == pytest.approx((-2.2, 2.2))
    assert [t.get_text() for t in actors[0].axes.texts] == ["σ = 0"]


def test_a_gif_has_all_pictures_and_the_colours_of_the_figure(runs, tmp_path):
    animate(runs, tmp_path / "a.gif", seconds=1.0, rate=6, dpi=60)
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames == 6
        assert film.info["loop"] == 0
        times = []
        for i in range(film.n_frames):
            film.seek(i)
            times.append(film.info["duration"])
            picture = np.asarray(film.convert("RGB"))
            assert tuple(picture[1, 1]) == (255, 255, 255)
            ink, outlier = (np.array([int(c[k : k + 2], 16) for k in (1, 3, 5)]) for c in (LIGHT.sample, LIGHT.outlier))
            for colour in (ink, outlier):
                assert np.abs(picture.astype(int) - colour).sum(-1).min() < 40
        assert times[-1] > 1500
        assert sum(times[:-1]) == pytest.approx(5 / 6 * 1000, abs=40)
    assert [p.name for p in tmp_path.iterdir()] == ["a.gif"]


def test_an_mp4_is_written_where_there_is_an_encoder(runs, tmp_path, monkeypatch):
    if matplotlib.animation.FFMpegWriter.isAvailable():
        animate(runs[:1], tmp_path / "a.mp4", seconds=0.5, rate=6, dpi=60)
        assert (tmp_path / "a.mp4").read_bytes()[4:8] == b"ftyp"
    monkeypatch.setattr(matplotlib.animation.FFMpegWriter, "isAvailable", classmethod(lambda cls: False))
    with pytest.raises(InputError, match=r"there is no ffmpeg, expected a name that ends in \.gif"):
        animate(runs, tmp_path / "b.mp4")


def test_the_command_makes_a_film_of_saved_runs(runs, tmp_path, capsys):
    files = [tmp_path / f"{i}.npz" for i in range(2)]
    for result, file in zip(runs, files, strict=True):
        result.save(file)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    flags = ["--seconds", "0.5", "--rate", "4", "--dpi", "50", "--title", "a", "--title", "b"]
    command.run(parser.parse_args([*map(str, files), "-o", str(tmp_path / "a.gif"), *flags]))
    assert capsys.readouterr().out.strip() == str(tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames == 2


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("a.png", {}, r"unknown format of film 'a.png' '.png': .*\.gif"),
        ("a.gif", {"seconds": 0.0}, "expected at most 60 seconds"),
        ("a.gif", {"rate": 51}, "a rate from 1 to 50"),
        ("a.gif", {"dpi": 5}, "dpi = 5: expected"),
        ("nowhere/a.gif", {}, "the folder 'nowhere' does not exist"),
        ("a.gif", {"titles": ["a"]}, "1 titles: expected one for each of the 2 runs"),
    ],
)
def test_wrong_input_is_refused_and_nothing_written(runs, tmp_path, monkeypatch, name, settings, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        animate(runs, name, **settings)
    assert not list(tmp_path.iterdir())
