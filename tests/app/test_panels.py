"""Any number of panels, each a whole experiment, in plots, table and links; and fields for roles of any name."""

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import toyguide as tg
from toyguide.errors import InputError
from toyguide.guidance import Cost, Guided, Role, Rule
from toyguide.metrics import hdr_threshold
from toyguide.samplers import Step
from toyguide_apps.explorer_page import runs as running
from toyguide_apps.explorer_page.compute import FIRST, picture
from toyguide_apps.explorer_page.controls import PanelCard, SceneCard
from toyguide_apps.explorer_page.panels import nearest, panel_names
from toyguide_apps.explorer_page.permalink import query_of, read
from toyguide_apps.explorer_page.roles import AUTO
from toyguide_apps.explorer_page.runs import run_paths
from toyguide_apps.explorer_page.session import Explorer
from toyguide_apps.explorer_page.state import ExplorerState
from toyguide_apps.explorer_page.views.parts import named

SCENE = {"dataset": "two-gaussians", "label": "left", "n": 128, "steps": 8, "layers": ["samples", "region", "critical"]}


def own(state, index, **settings):
    """Give a panel settings of its own."""
    panels = list(state.panels)
    panels[index] = replace(panels[index], own={**panels[index].own, **settings})
    state.set({"panels": tuple(panels)})


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_every_panel_shows_its_own_run(count, monkeypatch):
    monkeypatch.setattr("panel.state.execute", lambda *_, **__: None)
    explorer = Explorer(ExplorerState(count))
    explorer.state.set({**SCENE, "step": 5, "table": True})
    for i in range(count):
        explorer.state.set_rule(i, tg.rule("cfg", w=1.0 + i))
    asyncio.run(explorer.refresh())
    stage = explorer.stage.stage
    starts = []
    for i in range(count):
        e = tg.Experiment("two-gaussians", "left", rule="cfg", params={"w": 1.0 + i}, n=128, steps=8)
        result = e.run("cpu")
        run = getattr(stage, f"run_{i + 1}")
        drawn = np.stack([run["x"], run["y"]], -1).reshape(9, 128, 2)
        # The network's matrix products are rounded differently from batch to batch.
        np.testing.assert_allclose(drawn, result.x, atol=1e-4)
        starts.append(drawn[0])
        exact = e.data.field("left")
        np.testing.assert_allclose(run["logp"], exact.log_density(result.x[-1], 0.0), atol=1e-2)
        threshold = hdr_threshold(e.data, "left")
        sure = (exact.log_density(result.x[-1], 0.0) - threshold).abs().numpy() > 1e-2
        np.testing.assert_array_equal((run["logp"] < threshold)[sure], run["outlier"].astype(bool)[sure])
        assert f"(w = {1 + i})" in stage.board["panels"][i]["title"]
    assert all((start == starts[0]).all() for start in starts)  # one noise
    assert len(stage.board["panels"]) == count
    assert [len(number["values"]) for number in stage.headline["numbers"]] == [count] * 3
    table = explorer._table._pane.object
    assert table.count('class="difference"') == count - 1
    assert table.count('class="truth"') == 1


def test_a_panels_own_settings_are_its_experiments_and_the_others_are_shared():
    state = ExplorerState(3)
    state.set(SCENE)
    own(state, 0, label="right", steps=5, seed=7, sampler="euler", fields={"main": "exact"})
    own(state, 2, interval=(0.1, 0.5))
    first, second, third = state.request().runs
    assert (first.label, first.steps, first.seed, first.sampler) == ("right", 5, 7, "euler")
    assert first.main == "exact"
    assert (second.label, second.steps, second.seed, second.sampler) == ("left", 8, 0, "heun")
    assert (second.interval, third.interval) == (None, (0.1, 0.5))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"steps": 10**6}, "steps"),
        ({"label": "Q"}, "Q"),
        ({"interval": (1.0, 0.5)}, "interval"),
        ({"colour": 1}, "colour"),
        ({"fields": {"wake": "exact"}}, "wake"),
        ({"fields": {"weak": "/etc/passwd"}}, "passwd"),
    ],
)
def test_a_wrong_setting_of_a_panel_is_named_and_nothing_changes(settings, named):
    state = ExplorerState()
    before = state.panels
    with pytest.raises(InputError, match=named):
        own(state, 0, **settings)
    assert state.panels == before


def test_the_nearest_level_is_that_on_a_logarithmic_scale_and_zero_is_nearest_to_zero():
    levels = [10.0, 1.0, 0.1, 0.0]
    assert [nearest(levels, s) for s in (99.0, 4.0, 3.0, 0.2, 0.001, 0.0)] == [0, 0, 1, 2, 2, 3]


def test_panels_of_one_class_share_their_layers_and_another_class_has_its_own(monkeypatch, sent):
    monkeypatch.setattr("panel.state.execute", lambda *_, **__: None)
    explorer = Explorer(ExplorerState(3))
    explorer.state.set({**SCENE, "main": "exact", "step": 6})
    parts = sent(explorer)

    def drawn():
        return [panel["scene"] for panel in explorer.stage.stage.board["panels"]]

    def layers(index):
        """The last ones sent for the time line's step."""
        return [v for k, v in parts if k == f"scene_{index}" and v["step"] == 6][-1]

    asyncio.run(explorer.refresh())
    assert drawn() == [1, 1, 1]
    own(explorer.state, 1, label="right")
    asyncio.run(explorer.refresh())
    assert explorer.picture.scenes[0] is explorer.picture.scenes[2] is not explorer.picture.scenes[1]
    assert drawn() == [1, 2, 1]
    shared, other = layers(1), layers(2)
    assert [float(np.sign(s["critical"]["modes"]["x"].mean())) for s in (shared, other)] == [-1, 1]  # its own mode
    assert shared["key"] != other["key"]
    own(explorer.state, 1, label="left")
    asyncio.run(explorer.refresh())
    assert drawn() == [1, 1, 1]


def test_panels_are_copied_removed_and_swapped():
    state = ExplorerState()
    state.set({**SCENE, "ref": "cfg", "ref.params": {"w": 2.0}})
    left, right = state.panels
    state.copy_panel(0)
    assert (state.panels, state.selected) == ((left, left, right), 1)
    state.swap_panels(1)
    assert state.panels == (left, right, left)
    state.copy_panel(2)
    assert (len(state.panels), state.selected) == (4, 3)
    assert state.names == ("ref", "rule", "rule3", "rule4")
    full = state.panels
    for wrong in (lambda: state.copy_panel(0), lambda: state.swap_panels(3), lambda: state.remove_panel(4)):
        with pytest.raises(InputError):
            wrong()
    assert (state.panels, state.selected) == (full, 3)
    state.remove_panel(0)
    assert (state.panels, state.selected) == ((right, left, left), 2)
    state.set({"selected": 0})
    state.remove_panel(2)
    assert (state.panels, state.selected) == ((right, left), 0)
    state.remove_panel(1)
    assert (state.panels, state.selected) == ((right,), 0)
    with pytest.raises(InputError, match="expected 1 to 4"):
        state.remove_panel(0)
    assert state.panels == (right,)


def test_a_count_of_panels_keeps_those_that_there_are():
    state = ExplorerState()
    state.set({**SCENE, "rule": "cfg", "params": {"w": 2.0}})
    two = state.panels
    state.set({"count": 4})
    assert state.panels == (*two, two[1], two[1])
    state.set({"count": 3, "selected": 2})
    state.set({"count": 2})
    assert (state.panels, state.selected) == (two, 1)
    for wrong in (0, 5, 2.5, 3.0, True, "2", None):
        with pytest.raises(InputError, match="panels"):
            state.set({"count": wrong})
    assert state.panels == two


def test_a_link_brings_back_panels_with_settings_of_their_own():
    state, again = ExplorerState(3), ExplorerState(3)
    assert state.names == panel_names(3) == ("ref", "rule", "rule3")
    query = {
        "dataset": "two-gaussians",
        "ref": "cfg",
        "ref.w": "2",
        "ref:steps": "20",
        "ref:field.uncond": "exact@union",
        "rule:label": "right",
        "rule:interval": "0.1,0.5",
        "rule3": "sfg",
        "rule3.w": "5",
    }
    assert read(state, query) == []
    assert [e.rule for e in state.request().runs] == ["cfg", "autoguidance", "sfg"]
    assert state.request().runs[0].fields["uncond"] == "exact@union"
    assert state.request().runs[1].interval == (0.1, 0.5)
    assert read(again, query_of(state)) == []
    assert again.request() == state.request()


@pytest.fixture
def two_weak(add_rule):
    """A rule with a role that nothing in the apps knows."""

    class TwoWeak(Rule):
        key = "two-weak"
        title = "Two weak fields"
        needs = ("main", "weak", Role("weak2", "weaker", "another weak field"))

        def guide(self, at, memory):
            return Guided(at.denoised("main"))

    return add_rule(TwoWeak)


def test_a_role_of_any_name_has_a_menu_and_is_in_the_link(two_weak):
    state = ExplorerState()
    card = SceneCard(state)
    usual = [role.name for role in card._field_menus]
    state.set({"rule": "two-weak"})
    assert [role.name for role in card._field_menus] == [*usual, "weak2"]
    menu = list(card._field_menus.values())[-1]
    assert menu in list(card._fields.select())
    menu.value = "exact+noise:0.5"
    assert state.chosen("weak2") == "exact+noise:0.5"
    query = query_of(state)
    assert query["field.weak2"] == "exact+noise:0.5"
    for key in ("field.weak2", "weak2"):
        again = ExplorerState()
        assert read(again, {"rule": "two-weak", key: "exact+noise:0.5"}) == []
        assert again.fields == state.fields
    assert "nowhere" in read(ExplorerState(), {"field.weak2": "nowhere"})[0]
    menu.value = AUTO
    assert "weak2" not in state.fields
    state.set({"rule": "none"})
    assert [role.name for role in card._field_menus] == usual


def test_existing_links_name_fields_by_their_roles_alone():
    state = ExplorerState()
    query = {"rule": "cfg+autoguidance", "main": "exact", "uncond": "exact@B", "weak": "exact+noise:0.5"}
    assert read(state, query) == []
    run = state.request().runs[1]
    assert run.fields == {"main": "exact", "uncond": "exact@B", "weak": "exact+noise:0.5"}


def test_drawn_paths_follow_their_ancestors(monkeypatch):
    """Points walk to the right; after the second step all are copies of the last one. Nothing may jump on a path."""
    x = torch.stack([torch.zeros(4), torch.arange(4.0)], -1)
    push = torch.arange(4.0)[:, None].expand(4, 2)
    chosen = torch.tensor([3, 3, 3, 3])
    cost = Cost()
    steps = [
        Step(0, 4.0, x, cost, None, None, {}, None),
        Step(1, 2.0, x + torch.tensor([1.0, 0.0]), cost, push, x, {}, None),
    ]
    steps += [Step(2, 1.0, (x + torch.tensor([2.0, 0.0]))[chosen], cost, push, x, {}, chosen)]
    steps += [Step(3, 0.0, (x + torch.tensor([3.0, 0.0]))[chosen], cost, push, x, {}, None)]
    e = tg.Experiment("two-gaussians", main="exact", steps=3, n=4, seed=905)
    monkeypatch.setattr(tg.Experiment, "walk", lambda *_: iter(steps))
    paths = run_paths(e, "cpu", lambda: False)
    np.testing.assert_array_equal(paths.frames[:, :, 1], np.full((4, 4), 3.0))
    np.testing.assert_array_equal(np.diff(paths.frames[:, :, 0], axis=0), np.ones((3, 4)))
    np.testing.assert_array_equal(paths.pushes[..., 0], [[3, 3, 3, 3], [3, 3, 3, 3], [0, 1, 2, 3]])


def test_a_rule_whose_points_interact_is_never_previewed(monkeypatch):
    monkeypatch.setattr(tg.rules()["score-scaling"], "interacts", True, raising=False)
    e = tg.Experiment("two-gaussians", main="exact", rule="score-scaling", steps=2, n=2 * FIRST, seed=906)
    assert not run_paths(e, "cpu", lambda: False, first=FIRST).coarse
    monkeypatch.undo()
    assert run_paths(replace(e, seed=907), "cpu", lambda: False, first=FIRST).coarse


def test_what_the_library_warns_of_is_told_once(monkeypatch):
    told = []
    monkeypatch.setattr(running, "_paths", type(running._paths)(8))
    monkeypatch.setattr("panel.state.execute", lambda *_, **__: None)
    monkeypatch.setattr("toyguide_apps.explorer_page.session.notice", told.append)
    line = "cfg: both are one field"
    monkeypatch.setattr(tg.Experiment, "warnings", lambda self: [line] * (self.rule == "cfg"), raising=False)
    explorer = Explorer()
    explorer.state.set({**SCENE, "rule": "cfg"})
    for w in (2.0, 3.0):
        explorer.state.set({"params": {"w": w}})
        asyncio.run(explorer.refresh())
    assert told == [line]
    explorer.state.set({"rule": "none"})
    asyncio.run(explorer.refresh())
    explorer.state.set({"rule": "cfg"})
    asyncio.run(explorer.refresh())
    assert len(told) == 2


def test_a_picture_of_one_panel_has_no_reference():
    state = ExplorerState(1)
    state.set(SCENE)
    made = picture(state.request())
    assert len(made.runs) == len(made.scenes) == len(made.truth) == 1


EXAMPLES = Path(__file__).resolve().parents[1] / "example_rules"
KINDS = {
    "two-weak": {"weak2": "exact+noise:0.4"},
    "ascent": {"classifier": "posterior"},
    "pull": {},
    "tilted": {},
    "thinned": {},
}


@pytest.mark.parametrize("key", KINDS)
def test_rules_of_every_kind_are_drawn(key, monkeypatch):
    """What is drawn is the library's own run; a preview is of part of it only if no point sees another."""
    monkeypatch.setenv("TOYGUIDE_RULES", str(EXAMPLES))
    monkeypatch.setattr("panel.state.execute", lambda *_, **__: None)
    explorer = Explorer()
    sampler = "ancestral" if key == "tilted" else "heun"
    explorer.state.set({"label": "A", "sampler": sampler, "steps": 6, "n": 128, "step": 3, "rule": key, "seed": 17})
    explorer.state.set({"layers": ["samples", "paths", "guidance"], "point": (0.1, 0.2)})
    card = PanelCard(explorer.state)
    assert list(card._widgets) == list(tg.rules()[key].declared())
    assert set(KINDS[key]) <= {role.name for role in SceneCard(explorer.state)._field_menus}
    request = explorer.state.request()
    preview = picture(request, first=16).runs[1]
    assert preview.frames.shape[1] == (128 if key == "tilted" else 16)
    asyncio.run(explorer.refresh())
    run = explorer.picture.runs[1]
    e = request.runs[1]
    assert {k: e.fields[k] for k in KINDS[key]} == KINDS[key]
    np.testing.assert_allclose(run.frames, e.run("cpu").paths().numpy(), atol=1e-4)
    assert set(explorer.picture.inspection.terms[1].moves) == {k for k in e.references() if k != "classifier"}
    again = ExplorerState()
    assert read(again, query_of(explorer.state)) == []
    assert again.request() == request


def test_a_switch_is_in_the_link_and_the_title(monkeypatch):
    monkeypatch.setenv("TOYGUIDE_RULES", str(EXAMPLES))
    state, again = ExplorerState(), ExplorerState()
    state.set({"rule": "tilted", "params": {"resample": False}, "sampler": "ancestral"})
    assert read(again, query_of(state)) == []
    assert again.request().runs[1].params == {"lam": 2.0, "resample": False}
    assert named(again.request().runs[1]) == "Particles tilted to the right  (lam = 2, resample off)"


def test_two_roles_with_one_field_are_noticed():
    state = ExplorerState()
    state.set({"label": "union", "main": "exact", "rule": "cfg"})
    said = "cfg: main and uncond are the same field, exact@union"
    assert run_paths(state.request().runs[1], "cpu", lambda: False).warnings == (said,)
