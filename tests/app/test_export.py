"""A recorded scene, read back by other means: the same points to a quarter of a pixel, the same numbers, once each."""

import base64
import json
import math
import zlib

import numpy as np
import pytest

import toyguide as tg
from toyguide.cli import main
from toyguide.errors import InputError
from toyguide.metrics import METRICS
from toyguide_apps.explorer_page.compute import picture
from toyguide_apps.explorer_page.export import html, linked_scene, preset_scene, recorded
from toyguide_apps.explorer_page.packing import Packer, quantised
from toyguide_apps.explorer_page.recording import parse_slider, usual_slider
from toyguide_apps.explorer_page.state import ExplorerState
from toyguide_apps.explorer_page.views.parts import Look

SIDE = 700  # pixels of a panel
SCENE = "?dataset=two-gaussians&label=left&n=128&steps=6&seed=3&rule=cfg&w=4&bands=ratio&layers=samples,score&step=4"
ARRAYS = {"u8": np.uint8, "i16": np.int16, "f32": np.float32, "u16": np.uint16}


def unpacked(text):
    """The contents of a packed text, with a function that gives one of its parts."""
    raw = zlib.decompress(base64.b64decode(text), wbits=-15)
    length = int.from_bytes(raw[:4], "little")
    found, arrays = json.loads(raw[4 : 4 + length]), raw[4 + length :]

    def part(index):
        return revived(found["parts"][index], arrays)

    return found["said"], part


def revived(value, arrays):
    if isinstance(value, list):
        return [revived(v, arrays) for v in value]
    if not isinstance(value, dict):
        return value
    if "kind" not in value:
        return {k: revived(v, arrays) for k, v in value.items()}
    numbers = np.frombuffer(arrays, ARRAYS[value["kind"]], value["length"], value["at"])
    if "bounds" not in value:
        return numbers
    pieces = zip(np.split(numbers, len(value["bounds"])), value["bounds"], strict=True)
    return np.concatenate([np.where(q == 65535, math.nan, a + (b - a) * (q / 65534)) for q, (a, b) in pieces])


@pytest.fixture(scope="module")
def recording():
    state, look = linked_scene(SCENE)
    return recorded(state, [parse_slider("w=2:6:3", state)], look)


@pytest.fixture(scope="module")
def contents(recording):
    return unpacked(recording.packed()[1])


def scene(w):
    """The scene as the explorer computes it."""
    state, _ = linked_scene(SCENE)
    state.set_rule(1, tg.rule("cfg", w=w))
    return state


def assert_close(found, exact, window):
    """Equal to a quarter of a pixel of a panel that shows a window; NaN at the same places."""
    np.testing.assert_array_equal(np.isnan(found), np.isnan(exact))
    assert np.nanmax(np.abs(found - exact), initial=0.0) < (window[2] - window[0]) / SIDE / 4


def test_frames_are_right_to_a_quarter_of_a_pixel_at_every_noise_level(contents):
    said, part = contents
    assert said["sliders"][0]["values"] == [2, 4, 6]
    for w, shots in zip((2.0, 4.0, 6.0), said["shots"], strict=True):
        state = scene(w)
        for i, paths in enumerate(picture(state.request()).runs, 1):
            run = part(shots[0][f"run_{i}"])
            assert (run["n"], len(run["sigma"])) == (128, 7)
            for k, sigma in enumerate(run["sigma"]):
                for axis, name in enumerate("xy"):
                    found = run[name][k * 128 : (k + 1) * 128]
                    assert_close(found, paths.frames[k, :, axis].astype(float), state.view_at(sigma))
            np.testing.assert_array_equal(run["outlier"], paths.outlier)
            np.testing.assert_array_equal(run["branch"], paths.branch)
            np.testing.assert_array_equal(run["logp"], paths.log_density)


def test_layers_of_every_step_are_those_of_the_explorer(contents):
    said, part = contents
    state = scene(6.0)
    state.set({"layers": ["samples", "score", "guidance", "main-lines", "saddles"]})
    for step in range(7):
        state.set({"step": step})
        made = picture(state.request())
        window = made.request.window
        shot = said["shots"][2][step]
        found = part(shot["scene_1"])
        np.testing.assert_array_equal(found["image"], made.scenes[0].image.ravel())
        assert found["window"] == pytest.approx(window)
        assert_close(found["curves"]["main-lines"]["x"], made.scenes[0].curves["main-lines"].x, window)
        for name in ("x0", "y0", "x1", "y1"):
            assert_close(found["score"][name], getattr(made.scenes[0].score, name), window)
            assert_close(part(shot["arrows_2"])[name], getattr(made.guidance[1], name), window)


def test_what_is_equal_is_there_once(contents):
    said, _ = contents
    shots = said["shots"]
    assert len(shots) == 3
    assert all(len(steps) == 7 for steps in shots)
    assert len({shot["run_1"] for steps in shots for shot in steps}) == 1
    assert len({shot["run_2"] for steps in shots for shot in steps}) == 3
    for step in range(7):
        assert len({steps[step]["scene_1"] for steps in shots}) == 1
        assert len({steps[step]["arrows_1"] for steps in shots}) == 1
    assert len({shot["scene_1"] for shot in shots[0]}) == 6  # that of the last positive level is shown at 0 as well


def test_the_headline_of_every_value_is_that_of_its_run(contents):
    said, part = contents
    for w, steps in zip((2.0, 4.0, 6.0), said["shots"], strict=True):
        fields = {"rule": "cfg", "params": {"w": w}, "n": 128, "steps": 6, "seed": 3}
        metrics = tg.Experiment("two-gaussians", "left", **fields).run("cpu").metrics()
        numbers = {n["label"]: n["values"][1]["text"] for n in part(steps[0]["headline"])["numbers"]}
        assert numbers["Outliers"] == f"{100 * metrics['outliers']:.1f} %"
        assert numbers["Coverage"] == f"{100 * metrics['coverage']:.1f} %"
        assert len({shot["headline"] for shot in steps}) == 1


def test_the_code_of_every_value_describes_its_run(contents):
    said, _ = contents
    for w, codes in zip((2.0, 4.0, 6.0), said["codes"], strict=True):
        found = {}
        exec(codes["Python"][: codes["Python"].index("for name")], found)
        assert found["runs"]["B"] == scene(w).experiment(1)
        assert "--seed=3" in codes["Command line"]


def test_it_starts_where_the_scene_is(contents):
    said, _ = contents
    assert said["start"]["step"] == 4
    assert said["start"]["layers"] == ["samples", "score"]
    assert said["sliders"][0]["start"] == 1
    assert said["sliders"][0]["label"] == "w of B"


def test_a_legend_offers_what_was_recorded(contents):
    said, part = contents
    legend = part(said["shots"][0][0]["legend"])
    keys = {row["key"] for group in legend["groups"] for row in group["rows"]}
    assert "critical" not in keys  # needs a long search
    assert {"samples", "score", "guidance", "saddles"} <= keys
    assert [key for key, _ in legend["bands"]["options"]] == ["none", "ratio"]


def test_critical_points_are_searched_for_where_the_scene_shows_them():
    state, look = linked_scene("?dataset=two-gaussians&label=union&n=128&steps=2&bands=none&layers=critical&main=exact")
    said, part = unpacked(recorded(state, [], look).packed()[1])
    found = part(said["shots"][0][1]["scene_1"])["critical"]
    assert len(found["modes"]["x"]) == 2
    rows = [row for group in part(said["shots"][0][1]["legend"])["groups"] for row in group["rows"]]
    assert "critical" in {row["key"] for row in rows}


def test_a_preset_speaks_for_itself_and_not_for_other_values():
    state = ExplorerState()
    state.set({"n": 128, "steps": 2, "rule": "cfg", "ref": "none"})
    look = Look("A title", "A sentence.", ("outliers",))
    said, part = unpacked(recorded(state, [parse_slider("w=1:5:2", state)], look).packed()[1])
    own = said["sliders"][0]["start"]
    for i, shots in enumerate(said["shots"]):
        headline = part(shots[0]["headline"])
        assert (headline["title"] == "A title") == (i == own)
        assert (headline["text"] == "A sentence.") == (i == own)
        assert headline["numbers"][0]["label"] == METRICS["outliers"].title


@pytest.mark.parametrize("seed", range(3))
def test_quantised_numbers_are_within_half_a_unit(seed):
    g = np.random.default_rng(seed)
    values = np.concatenate([g.normal(size=500) * 10 ** g.uniform(-3, 2), [math.nan, 1e9, -1e9]])
    numbers, (a, b) = quantised(values, -40.0, 40.0)
    assert numbers.dtype == np.uint16
    assert (numbers == 65535).tolist() == np.isnan(values).tolist()
    known = ~np.isnan(values)
    back = a + (b - a) * (numbers[known] / 65534)
    assert np.abs(back - np.clip(values[known], -40, 40)).max() <= (b - a) / 131068 * (1 + 1e-9)


def test_quantising_one_value_or_none():
    assert quantised(np.array([2.5, 2.5]), 0, 5)[1] == (2.5, 2.5)
    assert quantised(np.array([math.nan]), 0, 5) == (np.array([65535]), (0.0, 0.0))


def test_a_far_point_does_not_blur_the_others():
    """Bounds end some windows away, so a diverging trajectory costs no precision."""
    packer = Packer()
    x = np.array([0.1, 0.2, 1e6], np.float32)
    number = packer.add({"x": x}, [(-1.0, -1.0, 1.0, 1.0)])
    _, part = unpacked(packer.packed({}))
    found = part(number)["x"]
    assert_close(found[:2], x[:2].astype(float), (-1, -1, 1, 1))
    assert found[2] > 10


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("w", "expected NAME=FROM:TO:COUNT"),
        ("w=1:4", "expected NAME=FROM:TO:COUNT"),
        ("w=a:4:3", "expected NAME=FROM:TO:COUNT"),
        ("w=4:1:3", "FROM below TO"),
        ("w=1:4:1", "COUNT from 2"),
        ("w=nan:4:3", "FROM below TO"),
        ("v=1:4:3", "number of autoguidance 'v'"),
        ("C.w=1:4:3", "panel of a slider 'C'"),
        ("A.w=1:4:3", "number of none 'w'"),
        ("w=1:4000:3", "4000"),
    ],
)
def test_a_wrong_slider_is_named(text, says):
    with pytest.raises(InputError, match=says):
        parse_slider(text, ExplorerState())


def test_a_slider_of_whole_numbers_and_of_another_panel():
    state = ExplorerState(3)
    state.set({"selected": 2})
    assert parse_slider("B.w=1:2:3", state).panel == 1
    assert parse_slider("w=1:2:3", state).panel == 2
    assert parse_slider("w=1:5:2", state).values == (1.0, state.panels[2].rule.w, 5.0)


def test_the_usual_slider_spans_the_first_number_of_the_chosen_rule():
    (slider,) = usual_slider(ExplorerState())
    assert (slider.panel, slider.name) == (1, "w")
    assert slider.values[0] == tg.rule("autoguidance").declared()["w"].get_soft_bounds()[0]
    assert len(slider.values) in (9, 10)
    state = ExplorerState()
    state.set({"rule": "none"})
    assert usual_slider(state) == []


def test_the_page_asks_for_nothing(recording):
    text = html(recording)
    assert text.count("<script") == 2
    assert "src=" not in text.split('id="recorded"')[0]
    assert "default-src 'none'" in text
    assert f"made with toyguide {tg.__version__}" in text
    assert f"<title>{recording.packed()[0]}</title>" in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["scene.html", "--preset", "figure-9"], "figure-9"),
        (["scene.htm", "--preset", "figure-1e"], "ends in .html"),
        (["no/such/scene.html", "--preset", "figure-1e"], "does not exist"),
        (["scene.html", "--link", "?rule=cgf"], "cgf"),
        (["scene.html", "--preset", "figure-1e", "--slider", "w=3"], "FROM:TO:COUNT"),
        (["scene.html"], "required"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(arguments, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", *arguments]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_sliders_are_at_most_two_different_ones():
    state, look = preset_scene("figure-1e")
    for sliders in (["w=1:2:2", "w=1:3:2"], ["w=1:4:80", "A.w=1:4:80"]):
        with pytest.raises(InputError):
            recorded(state, [parse_slider(text, state) for text in sliders], look)
