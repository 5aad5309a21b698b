"""The files of a scene, read by other programs: the runs that are shown, in each format."""

import asyncio
import csv
import io
import json
from functools import partial

import numpy as np
import pytest
from PIL import Image

from toyguide import Experiment
from toyguide.errors import InputError
from toyguide_apps.explorer_page.compute import CancelledError, Job, compute
from toyguide_apps.explorer_page.files import FILES, make
from toyguide_apps.explorer_page.state import ExplorerState
from toyguide_apps.explorer_page.views.parts import Look

SCENE = {"dataset": "two-gaussians", "label": "left", "rule": "cfg", "params": {"w": 3.0}, "n": 128, "steps": 4}
LOOK = Look("A title", "What is to be seen.", ("outliers",))


@pytest.fixture
def state():
    state = ExplorerState()
    state.set(SCENE)
    return state


def made(kind, state, cancelled=lambda: False):
    return asyncio.run(make(kind, state, LOOK, cancelled))


def test_experiments_make_the_runs_again(state):
    found = json.loads(made("json", state))
    assert [Experiment(**settings) for settings in found.values()] == [state.experiment(0), state.experiment(1)]


def test_samples_are_those_of_the_runs(state):
    rows = list(csv.DictReader(io.StringIO(made("csv", state).decode())))
    arrays = np.load(io.BytesIO(made("npz", state)))
    for panel, i in (("A", 0), ("B", 1)):
        final = state.experiment(i).run("cpu").x[-1].numpy()
        table = np.array([[float(row["x0"]), float(row["x1"])] for row in rows if row["panel"] == panel])
        np.testing.assert_allclose(table, final, atol=1e-5)
        np.testing.assert_allclose(arrays["x"][arrays["panel"] == panel], final, atol=1e-5)


def test_pictures_are_drawn_at_any_step(state):
    assert Image.open(io.BytesIO(made("png", state))).width > 1500
    assert made("pdf", state).startswith(b"%PDF")
    state.set({"step": 2, "layers": ["samples", "score", "saddles"], "bands": "ratio"})
    assert b"<svg" in made("svg", state)


def test_a_film_moves(state):
    film = Image.open(io.BytesIO(made("gif", state)))
    assert film.n_frames > 10


def test_a_page_is_the_exported_file_with_a_slider(state):
    text = made("html", state).decode()
    assert "<title>A title</title>" in text
    assert 'id="recorded"' in text


def test_runs_of_different_steps_have_a_figure_at_their_end_only(state):
    state.set_own(0, {"steps": 6})
    assert made("pdf", state)
    state.set({"step": 2})
    with pytest.raises(InputError, match="at its end"):
        made("pdf", state)


def test_an_unknown_format_is_named(state):
    with pytest.raises(InputError, match="'bmp'"):
        made("bmp", state)
    assert set(FILES) == {"png", "svg", "pdf", "gif", "html", "csv", "npz", "json"}


def test_a_visitor_who_has_left_gets_no_file(state):
    state.set({"seed": 71})
    with pytest.raises(CancelledError):
        made("html", state, lambda: True)


def test_a_page_that_is_being_made_keeps_nobody_waiting(state):
    state.set({"seed": 72, "steps": 32})
    other = ExplorerState()
    other.set({**SCENE, "seed": 73})

    async def both():
        page = asyncio.create_task(make("html", state, LOOK, lambda: page.cancelled()))
        await asyncio.sleep(0.3)
        picture = await compute(partial(Job, other.request()))
        before = not page.done()
        page.cancel()
        return picture, before

    picture, before = asyncio.run(both())
    assert before
    assert picture.whole
