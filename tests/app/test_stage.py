"""What the stage is sent, and what becomes of what it says; its drawing is tested in the browser."""

import asyncio
import time
from urllib.parse import parse_qsl

import numpy as np
import pytest

from toyguide_apps.explorer_page import compute as computing
from toyguide_apps.explorer_page.panels import following
from toyguide_apps.explorer_page.planes import home_window
from toyguide_apps.explorer_page.presets import OPENING
from toyguide_apps.explorer_page.session import Explorer
from toyguide_apps.explorer_page.state import LAYERS, ExplorerState

SCENE = {"dataset": "two-gaussians", "label": "union", "n": 128, "steps": 8, "bands": "none", "layers": ["samples"]}


@pytest.fixture
def explorer(monkeypatch):
    """An explorer without a server: what a change schedules is left to the test."""
    monkeypatch.setattr("panel.state.execute", lambda *_, **__: None)
    made = Explorer()
    made.state.set(SCENE)
    return made


@pytest.fixture
def complaints(monkeypatch):
    said = []
    monkeypatch.setattr("toyguide_apps.explorer_page.views.stage.complain", said.append)
    monkeypatch.setattr("toyguide_apps.explorer_page.session.complain", said.append)
    return said


def refresh(explorer):
    asyncio.run(explorer.refresh())
    return explorer.picture


def steps_of(parts, name="scene_1"):
    return [value["step"] for key, value in parts if key == name]


# What is sent


def test_a_run_and_layers_that_did_not_change_are_not_sent_again(explorer, sent):
    explorer.state.set({"bands": "exact", "step": 4})
    refresh(explorer)
    parts = sent(explorer)
    explorer.state.set({"params": {"w": 1.7}})
    refresh(explorer)
    names = {name for name, _ in parts}
    assert {"run_2", "board", "headline"} <= names
    assert not names & {"run_1", "scene_1", "arrows_1", "looks"}
    parts.clear()
    refresh(explorer)
    explorer.state.set({"selected": 0})
    refresh(explorer)
    assert {name for name, _ in parts} == {"board"}


def test_the_time_line_moves_samples_without_the_server(explorer, sent):
    """Nothing that depends on sigma is drawn: no picture, and no part but what says where the time line is."""
    refresh(explorer)
    parts = sent(explorer)
    picture = explorer.picture
    for said, step in enumerate((5, 2, 8), 1):
        explorer.stage._hear({"kind": "step", "value": step, "playing": False, "said": said})
        assert refresh(explorer) is picture
    assert explorer.state.step == 8
    assert {name for name, _ in parts} == {"board", "address"}


def test_layers_of_neighbouring_levels_are_sent_ahead_nearest_first_and_each_once(explorer, sent):
    explorer.state.set({"bands": "exact", "step": 4})
    parts = sent(explorer)
    refresh(explorer)
    assert steps_of(parts) == [4, 5, 3, 6, 2]
    levels = explorer.state.levels()
    for _, value in (part for part in parts if part[0] == "scene_1"):
        request = explorer.state.request_at(value["step"])
        assert value["window"] == list(request.window)
        assert request.sigma == levels[value["step"]]
        np.testing.assert_array_equal(value["image"], np.ravel(computing.picture(request).scenes[0].image))
    assert len({value["key"] for name, value in parts if name == "scene_1"}) == 1
    parts.clear()
    explorer.stage._hear({"kind": "step", "value": 5, "playing": False, "said": 1})
    refresh(explorer)
    assert steps_of(parts) == [7]  # the one neighbour that was not there yet
    parts.clear()
    explorer.stage._hear({"kind": "step", "value": 1, "playing": True, "said": 2})
    refresh(explorer)
    assert steps_of(parts) == [1, 0]  # 8 has no layers of its own; while it plays, all others are there


@pytest.mark.parametrize("change", [{"steps": 6}, {"following": False}, {"bands": "main"}, {"dataset": "fractal"}])
def test_layers_of_another_time_line_or_look_are_not_taken_for_these(explorer, sent, change):
    explorer.state.set({"bands": "exact", "step": 3})
    parts = sent(explorer)
    refresh(explorer)
    before = explorer.stage.stage.scene_1["key"]
    parts.clear()
    explorer.state.set(change)
    refresh(explorer)
    keys = {value["key"] for name, value in parts if name == "scene_1"}
    assert len(keys) == 1
    assert before not in keys
    here = explorer.state.step
    reach = {k for k in range(here - 2, here + 3) if k < explorer.state.steps}
    assert set(steps_of(parts)) == {min(here, explorer.state.steps - 1)} | reach


def test_no_picture_waits_for_layers_of_other_levels(explorer, monkeypatch):
    """A change while layers are computed ahead: they are given up, and nothing of them is sent after it."""
    explorer.state.set({"bands": "exact", "step": 4})
    order, real = [], computing.picture

    def slowly(request, cancelled=lambda: False, first=None):
        order.append(request)
        if len(order) == 2:  # the first level ahead
            loop.call_soon_threadsafe(turn)
            for _ in range(400):
                if cancelled():
                    given_up.append(request)
                    raise computing.CancelledError
                time.sleep(0.01)
        return real(request, cancelled, first)

    again, given_up = [], []

    def turn():
        explorer.state.set({"seed": 77})
        again.append(asyncio.ensure_future(explorer.refresh()))

    async def visit():
        nonlocal loop
        loop = asyncio.get_running_loop()
        await explorer.refresh()
        await asyncio.gather(*again)

    loop = None
    monkeypatch.setattr(computing, "picture", slowly)
    monkeypatch.setattr(computing, "_pictures", type(computing._pictures)(32))
    asyncio.run(visit())
    assert given_up == [order[1]] != [order[2]]
    assert order[2] == explorer.state.request()
    assert explorer.picture.request.runs[1].seed == 77


def test_the_view_that_follows_the_noise_is_the_base_at_the_data_and_wide_at_the_noise():
    base, home = (0.2, 0.1, 0.6, 0.5), (-1.0, -1.2, 1.0, 0.8)
    assert following(base, home, 0.0) == pytest.approx(base)
    for sigma in (0.01, 0.3, 5.0):
        left, bottom, right, top = following(base, home, sigma)
        assert (right - left, top - bottom) == pytest.approx([2 * (0.2**2 + (2.6 * sigma) ** 2) ** 0.5] * 2)
    left, bottom, right, top = following(base, home, 1e4)
    assert ((left + right) / 2, (bottom + top) / 2) == pytest.approx((0.0, -0.2), abs=1e-4)


def test_the_layers_windows_follow_the_noise_until_that_is_switched_off(explorer):
    explorer.state.set({"bands": "exact", "step": 2})
    request = explorer.state.request()
    home = home_window("two-gaussians")
    assert request.window == following(home, home, request.sigma)
    assert request.still_window == home
    explorer.stage._hear({"kind": "window", "value": [0, 0, 1, 1], "following": False, "said": 1})
    assert explorer.state.request().window == (0, 0, 1, 1)
    assert explorer.state.request().still_window == home  # the data's outlines, wherever the visitor looks
    explorer.state.set({"window": (0.0, 0.0, 0.1, 0.1)})
    assert explorer.state.request().still_window == pytest.approx((-0.03, -0.03, 0.13, 0.13))  # but finer in a close-up
    explorer.stage._hear({"kind": "home", "said": 2})
    assert explorer.state.request() == request


# What it says


def test_what_a_visitor_does_on_the_stage_is_set(explorer):
    state, hear = explorer.state, explorer.stage._hear
    refresh(explorer)
    hear({"kind": "select", "panel": 0})
    hear({"kind": "layer", "layer": "paths", "on": True})
    hear({"kind": "layer", "layer": "samples", "on": False})
    hear({"kind": "bands", "value": "main"})
    hear({"kind": "source", "value": "exact"})
    hear({"kind": "opacity", "value": {"paths": 0.5, "bands": 1}})
    hear({"kind": "sample", "value": 17})
    assert (state.selected, state.layers, state.bands, state.source) == (0, ["paths"], "main", "exact")
    assert (state.opacity, state.sample) == ({"paths": 0.5}, 17)
    hear({"kind": "point", "value": [0.5, -0.25], "held": True})
    assert (state.point, state.held) == ((0.5, -0.25), True)
    hear({"kind": "point", "value": None, "held": False})
    assert (state.point, state.held) == (None, False)
    state.set({"limited": True})
    hear({"kind": "interval", "value": [0.125, 2], "held": False})
    assert state.request().runs[1].interval == (0.125, 2)
    for what, read in {
        "table": lambda: state.table,
        "point": lambda: state.point is not None,
        "curve": lambda: state.curve is not None,
        "errors": lambda: state.errors,
        "edge": lambda: state.profile,
    }.items():
        hear({"kind": "open", "what": what, "on": True})
        assert read(), what
        assert explorer.stage.stage.board["open"][what] is True
        hear({"kind": "open", "what": what, "on": False})
        assert not read(), what
    hear({"kind": "copy", "panel": 1})
    assert len(state.panels) == 3
    hear({"kind": "swap", "panel": 0})
    hear({"kind": "remove", "panel": 0})
    assert [panel.rule.key for panel in state.panels] == ["none", "autoguidance"]


BAD = [
    None,
    [],
    "step",
    {},
    {"kind": "shout"},
    {"kind": "_hear"},
    {"kind": "step"},
    {"kind": "step", "value": 1e9},
    {"kind": "step", "value": "3"},
    {"kind": "step", "value": [3]},
    {"kind": "window", "value": [0, 0, 0, 0], "following": True},
    {"kind": "window", "value": [0, 0, float("nan"), 1], "following": True},
    {"kind": "window", "value": 7, "following": True},
    {"kind": "window", "value": [0, 0, 1, 1]},
    {"kind": "point", "value": [1], "held": True},
    {"kind": "point", "value": ["a", "b"], "held": True},
    {"kind": "point", "value": {"u": 1}, "held": True},
    {"kind": "interval", "value": [2, 1], "held": True},
    {"kind": "interval", "value": None, "held": False},
    {"kind": "sample", "value": -1},
    {"kind": "sample", "value": 10**9},
    {"kind": "bands", "value": "rainbow"},
    {"kind": "bands", "value": ["exact"]},
    {"kind": "source", "value": None},
    {"kind": "opacity", "value": {"samples": 7}},
    {"kind": "opacity", "value": {"<script>": 0.5}},
    {"kind": "opacity", "value": 0.5},
    {"kind": "layer", "layer": "lazers", "on": True},
    {"kind": "layer", "layer": {}, "on": True},
    {"kind": "layer"},
    {"kind": "select", "panel": 9},
    {"kind": "select", "panel": "1"},
    {"kind": "copy", "panel": 7},
    {"kind": "copy", "panel": 0.5},
    {"kind": "remove", "panel": -1},
    {"kind": "remove", "panel": None},
    {"kind": "swap", "panel": 1},
    {"kind": "swap", "panel": -1},
    {"kind": "open", "what": "sesame", "on": True},
    {"kind": "open"},
]


@pytest.mark.parametrize("message", BAD, ids=str)
def test_a_hand_made_message_is_refused_in_one_line_and_changes_nothing(explorer, complaints, message):
    before = explorer.state.param.values()
    explorer.stage._hear(message)
    assert len(complaints) == 1
    assert 0 < len(complaints[0]) < 400
    assert "\n" not in complaints[0]
    assert explorer.state.param.values() == before
    explorer.stage._hear({"kind": "step", "value": 3, "playing": False, "said": "x" * 10**6})
    assert (explorer.state.step, explorer.stage._said) == (3, 0)


def test_the_board_says_which_message_it_has_heard(explorer):
    """The browser takes over where it is only from a board that knows of all that the visitor has done since."""
    refresh(explorer)
    stage = explorer.stage.stage
    explorer.stage._hear({"kind": "step", "value": 3, "playing": True, "said": 41})
    assert (stage.board["said"], stage.board["step"]) == (41, 3)
    explorer.state.set({"seed": 5})
    refresh(explorer)
    assert stage.board["said"] == 41
    explorer.stage._hear({"kind": "window", "value": [0, 0, 1, 1], "following": False, "said": 42})
    assert (stage.board["said"], stage.board["window"], stage.board["following"]) == (42, [0, 0, 1, 1], False)


def test_each_layer_has_an_opacity(explorer):
    for layer in (*LAYERS, "bands"):
        explorer.state.set({"opacity": {layer: 0.25}})
        assert explorer.state.opacity == {layer: 0.25}
    refresh(explorer)
    assert explorer.stage.stage.board["opacity"] == {"bands": 0.25}


# Back and forward


def travel(explorer, search):
    explorer.stage._hear({"kind": "travel", "value": search, "said": 0})


def test_back_and_forward_apply_what_the_address_says(explorer, complaints):
    state = explorer.state
    first = "?v=1&dataset=two-gaussians&label=union&n=128&steps=8&bands=none&rule=cfg&w=2&panels=3&ref:seed=4"
    travel(explorer, first)
    there = ExplorerState()
    there.apply(OPENING)
    assert [panel.rule.key for panel in state.panels] == ["none", "cfg", "autoguidance"]
    assert state.panels[0].own["seed"] == 4
    was = state.request()
    travel(explorer, "")
    assert state.request() == there.request()
    assert (state.panels, state.selected, state.layers) == (there.panels, there.selected, there.layers)
    travel(explorer, first)
    assert state.request() == was
    assert complaints == []


def test_an_address_is_written_once_for_many_changes_and_not_where_the_visitor_went(explorer, monkeypatch):
    written = []
    monkeypatch.setattr("toyguide_apps.explorer_page.session._PAUSE", 0.05)
    monkeypatch.setattr(explorer.stage, "write_address", written.append)

    async def visit():
        for seed in (1, 2, 3):  # a drag
            explorer.state.set({"seed": seed})
            moves.append(asyncio.ensure_future(explorer.refresh()))
            await asyncio.sleep(0.01)
        await asyncio.gather(*moves)
        travel(explorer, "?seed=9&v=1&n=128")
        await explorer.refresh()
        explorer.state.set({"seed": 10})
        await explorer.refresh()

    moves = []
    asyncio.run(visit())
    assert [dict(parse_qsl(search[1:]))["seed"] for search in written] == ["3", "10"]


def test_what_is_wrong_in_a_link_is_told_in_one_notice(explorer, monkeypatch):
    told = []
    monkeypatch.setattr("toyguide_apps.shared.notices.complain", told.append)
    monkeypatch.setattr("toyguide_apps.explorer_page.session._send_at_once", lambda: None)
    query = {"steps": "-4", "seed": "x", "label": "Q", "colour": "<b>red</b>", "n": "7"} | {
        f"z{i}": "1" for i in range(9)
    }
    problems = explorer.enter(query)
    explorer.open(problems)
    (notice,) = told
    assert notice.startswith("14 settings of this link were left out: ")
    assert "'Q'" in notice
    assert notice.endswith(" • and 8 more")
