"""One visitor's session without a browser: what is computed and shown for which change."""

import asyncio

import numpy as np
import panel_material_ui as pmui
import param
import pytest

import toyguide as tg
from toyguide.contract import allowed
from toyguide.guidance import Guided, Rule
from toyguide_apps.explorer_page.compute import picture as real
from toyguide_apps.explorer_page.controls import PanelCard, _control
from toyguide_apps.explorer_page.presets import presets
from toyguide_apps.explorer_page.session import Explorer
from toyguide_apps.explorer_page.state import ExplorerState


@pytest.fixture
def explorer(monkeypatch):
    """An explorer without a server: what a change schedules is left to the test."""
    monkeypatch.setattr("panel.state.execute", lambda *_, **__: None)
    made = Explorer()
    made.state.set({"n": 128, "steps": 8, "bands": "none"})
    return made


def refresh(explorer):
    asyncio.run(explorer.refresh())
    return explorer.picture


def test_the_newest_of_many_changes_is_what_is_shown(explorer):
    async def drag():
        running = asyncio.ensure_future(explorer.refresh())
        for w in (1.5, 2.0, 2.5):
            await asyncio.sleep(0.01)
            explorer.state.set({"rule": "cfg", "params": {"w": w}})
        await running
        await explorer.refresh()

    asyncio.run(drag())
    assert explorer.picture.request == explorer.state.request()
    assert explorer.picture.runs[1].experiment.params == {"w": 2.5}


def test_settings_that_do_not_fit_leave_the_last_picture(explorer, monkeypatch):
    good = refresh(explorer)
    said = []
    monkeypatch.setattr("toyguide_apps.explorer_page.session.complain", said.append)
    explorer.state.set({"interval": (0.2, 0.4)})
    explorer.state.interval = (1.0, 0.5)  # as a hand-made message could
    explorer.state.limited = True
    assert refresh(explorer) is good
    assert len(said) >= 1
    assert "interval" in said[0]


def test_a_failure_is_told_and_survived(explorer, monkeypatch):
    said = []
    monkeypatch.setattr("toyguide_apps.explorer_page.session.complain", said.append)
    monkeypatch.setattr("toyguide_apps.explorer_page.compute.run_paths", lambda *_: 1 / 0)
    explorer.state.set({"seed": 42})
    refresh(explorer)
    assert set(said) == {said[0]}
    assert "could not be computed" in said[0]
    monkeypatch.undo()
    assert refresh(explorer).request == explorer.state.request()


def test_a_closed_session_computes_nothing(explorer):
    last = refresh(explorer)
    explorer.close()
    explorer.state.set({"seed": 7})
    assert refresh(explorer) is last


@pytest.mark.parametrize("key", list(tg.rules()))
def test_every_parameter_of_every_rule_has_a_control_that_sets_it(key):
    state = ExplorerState()
    state.set({"rule": key, "sampler": allowed(tg.rules()[key]())})
    card = PanelCard(state)
    declared = {k: v for k, v in tg.rules()[key].declared().items() if not isinstance(v, param.String)}
    assert list(card._widgets) == list(declared)
    for name, parameter in declared.items():
        widget = card._widgets[name]
        if isinstance(parameter, param.Boolean):
            other = not parameter.default
        else:
            other = parameter.objects[-1] if hasattr(parameter, "objects") else parameter.get_soft_bounds()[1]
        widget.value = other
        assert getattr(state.panels[1].rule, name) == other
        assert state.request().runs[1].params[name] == other


def test_numbers_without_bounds_have_controls(add_rule):
    class Odd(Rule):
        key = "odd"
        title = "Odd"

        shift = param.Number(0.25, doc="Any number.")
        least = param.Number(2.0, bounds=(1.0, None), step=0.5, doc="Any number from 1.")
        count = param.Integer(3, doc="Any whole number.")
        level = param.Number(1.0, bounds=(0.0, None), softbounds=(0.0, 5.0), doc="From 0, usually up to 5.")

        def guide(self, at, memory):
            return Guided(at.denoised("main"))

    add_rule(Odd)
    state = ExplorerState()
    state.set({"rule": "odd"})
    card = PanelCard(state)
    kinds = {name: type(widget).__name__ for name, widget in card._widgets.items()}
    assert kinds == {
        "shift": "FloatInput",
        "least": "FloatInput",
        "count": "IntInput",
        "level": "LiveSlider",
    }
    assert card._widgets["least"].start == 1.0
    assert card._widgets["level"].fixed_end is None
    for name, value in {"shift": -1e4, "least": 30.0, "count": -7, "level": 9.0}.items():
        card._widgets[name].value = value
        assert getattr(state.panels[1].rule, name) == value
    state.set({"params": {"shift": 5.0}})
    assert card._widgets["shift"].value == 5.0


def test_a_yes_or_no_of_a_rule_is_a_switch():
    assert [_control("x", param.Boolean(value), value).value for value in (True, False)] == [True, False]
    assert isinstance(_control("x", param.Boolean(True), True), pmui.Switch)


def test_a_value_that_no_slider_offers_is_told_and_taken_back(monkeypatch):
    said = []
    monkeypatch.setattr("toyguide_apps.shared.notices.complain", said.append)
    state = ExplorerState()
    card = PanelCard(state)
    before = state.panels[1].rule
    card._change("w", 1e9)
    card._change("w", float("nan"))
    assert state.panels[1].rule == before
    assert card._widgets["w"].value == before.w
    assert [line.split(":")[0] for line in said] == ["autoguidance"] * 2


def test_controls_follow_the_settings():
    state = ExplorerState()
    card = PanelCard(state)
    state.set({"rule": "cfg", "params": {"w": 2.0}})
    assert card._widgets["w"].value == 2.0
    state.set({"params": {"w": 8.0}})
    assert card._widgets["w"].value == 8.0
    assert card._chooser.model.chosen["key"] == "cfg"
    state.set({"selected": 0, "ref": "cfg", "ref.params": {"w": 3.0}})
    assert card._letters.value == "A"
    assert card._widgets["w"].value == 3.0
    card._widgets["w"].value = 4.0
    assert [panel.rule.w for panel in state.panels] == [4.0, 8.0]
    state.set({"count": 1})
    assert not card._letters.visible
    assert card._chooser.model.chosen["key"] == "autoguidance"


def test_a_preset_sets_everything_and_ends_when_something_is_changed(explorer):
    explorer.state.set({"ref": "cfg", "seed": 9, "weak": "exact+noise:0.5", "limited": True, "sampler": "euler"})
    explorer.menu.value = "figure-2"
    fresh = ExplorerState()
    fresh.apply("figure-2")
    assert explorer.state.request() == fresh.request()
    assert explorer.state.step == 24
    refresh(explorer)
    assert explorer.stage.stage.headline["title"] == presets()["figure-2"].title
    assert explorer.stage.stage.headline["text"] == presets()["figure-2"].look
    assert explorer.stage.stage.board["step"] == 24

    explorer.state.set({"step": 20, "window": (0.0, 0.0, 0.5, 0.5)})  # looking around is not a change
    assert explorer.menu.value == "figure-2"
    explorer.state.set({"params": {"w": 2.0}})
    assert explorer.menu.value == ""
    refresh(explorer)
    assert explorer.stage.stage.headline["text"] != presets()["figure-2"].look
    assert explorer.state.panels[1].rule.w == 2.0

    explorer.state.set({"params": fresh.panels[1].rule.values(), "step": fresh.step, "window": fresh.window})
    refresh(explorer)
    assert explorer.stage.stage.headline["text"] != presets()["figure-2"].look
    explorer.menu.value = "figure-2"  # the picture that is shown already
    assert explorer.stage.stage.headline["text"] == presets()["figure-2"].look


def test_another_guide_is_another_picture_though_no_rule_uses_it(explorer):
    explorer.state.set({"rule": "sfg", "bands": "guide"})
    before = refresh(explorer).scenes[1].image
    explorer.state.set({"weak": "exact+noise:0.5"})
    after = refresh(explorer)
    assert after.request.guide[1] == "exact+noise:0.5"
    assert not np.array_equal(after.scenes[1].image, before)


def test_a_change_that_comes_while_another_fails_is_not_lost(explorer, monkeypatch):
    monkeypatch.setattr("toyguide_apps.explorer_page.session.complain", lambda _: None)

    async def change_and_fail():
        calls = []

        async def compute(ask):
            calls.append(ask().request)
            if len(calls) > 1:
                return real(calls[-1])
            explorer.state.param.update(seed=43)
            raise ZeroDivisionError

        monkeypatch.setattr("toyguide_apps.explorer_page.session.compute", compute)
        explorer.state.param.update(seed=42)
        await explorer.refresh()
        return calls

    calls = asyncio.run(change_and_fail())
    assert [c.runs[1].seed for c in calls] == [42, 43]
    assert explorer.picture.request.runs[1].seed == 43


def test_another_sampler_is_told_once(explorer, monkeypatch):
    said = []
    monkeypatch.setattr("toyguide_apps.explorer_page.session.notice", said.append)
    for w in (1.2, 1.5):
        explorer.state.set({"rule": "cfg++", "params": {"lam": w - 1}})
        refresh(explorer)
    assert [line for line in said if "sampler" in line] == [explorer.state.switched_sampler(1)]
