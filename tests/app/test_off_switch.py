"""Parameters that can be switched off: the button, and infinite values in all that leaves the page."""

import math
import subprocess
import sys

import numpy as np
import pytest

import toyguide as tg
from toyguide.contract import allowed
from toyguide.experiment import Result
from toyguide_apps.explorer_page.code import python_code, shell_code
from toyguide_apps.explorer_page.compute import picture
from toyguide_apps.explorer_page.controls import PanelCard
from toyguide_apps.explorer_page.export import html
from toyguide_apps.explorer_page.layers.responses import parameters, plan, question
from toyguide_apps.explorer_page.links import address_of_experiment
from toyguide_apps.explorer_page.permalink import query_of, read
from toyguide_apps.explorer_page.recording import Recording, parse_slider, usual_slider
from toyguide_apps.explorer_page.state import ExplorerState
from toyguide_apps.explorer_page.views.parts import Look, named
from toyguide_apps.explorer_page.views.responses import ResponsesPanel

CFG = {"eta": 1.0, "beta": 0.0, "r": math.inf}
"""What makes APG plain CFG."""


@pytest.fixture
def state() -> ExplorerState:
    found = ExplorerState()
    found.set({"dataset": "two-gaussians", "rule": "apg", "n": 128, "steps": 4, "bands": "none"})
    return found


@pytest.fixture
def off(state) -> ExplorerState:
    state.set({"params": {**CFG, "w": 3.0}})
    return state


@pytest.mark.parametrize("key", [key for key, cls in tg.rules().items() if cls.off])
def test_each_parameter_goes_off_and_comes_back(key):
    state = ExplorerState()
    state.set({"rule": key, "sampler": allowed(tg.rules()[key]())})
    card = PanelCard(state)
    for name, value in tg.rules()[key].off.items():
        switch, before = card._switches[name], getattr(state.panels[1].rule, name)
        if before == value:  # as some are by default
            switch.button.value = False
            before = getattr(state.panels[1].rule, name)
            assert before != value
        switch.button.value = True
        assert getattr(state.panels[1].rule, name) == value
        switch.button.value = False
        assert getattr(state.panels[1].rule, name) == before
        assert card._widgets[name].value == before
    assert not set(card._switches) - set(tg.rules()[key].off)


def test_the_slider_rests_while_its_value_is_infinite(state):
    card = PanelCard(state)
    slider, switch = card._widgets["r"], card._switches["r"]
    slider.value = 0.3
    state.set({"params": {**state.panels[1].rule.values(), "r": math.inf}})  # as a link or a limit does
    assert switch.button.value
    assert slider.disabled
    assert slider.label == "r is off"
    assert slider.value == 0.3
    switch.button.value = False
    assert (state.panels[1].rule.r, slider.disabled, slider.label) == (0.3, False, "r")
    eta = card._widgets["eta"]
    card._switches["eta"].button.value = True  # a finite value is on the slider
    assert (eta.value, eta.disabled) == (1.0, False)
    eta.value = 0.5
    assert not card._switches["eta"].button.value


def test_a_card_can_open_with_an_infinite_value(off):
    card = PanelCard(off)
    slider = card._widgets["r"]
    assert (slider.value, slider.end, slider.fixed_end) == (0.05, 1.0, None)
    assert card._switches["r"].button.value


def test_a_link_and_an_address_bring_it_back(off):
    again = ExplorerState()
    assert query_of(off)["r"] == "inf"
    assert read(again, query_of(off)) == []
    assert again.request() == off.request()
    assert "r=inf" in address_of_experiment(off.experiment(1))


def test_the_code_repeats_the_run(off, tmp_path):
    run = off.experiment(1)
    text = python_code([run])
    found = {"__name__": "program"}
    exec(text.partition("for name")[0], found)
    assert found["runs"] == {"A": run}
    command = shell_code([run]).partition(" && ")[0].replace("toyguide ", f"{sys.executable} -m toyguide ", 1)
    subprocess.run(command, shell=True, check=True, cwd=tmp_path, capture_output=True)
    assert Result.load(tmp_path / "A.npz").experiment == run
    assert "math" not in python_code([tg.Experiment("two-gaussians", "left", rule="cfg")])


def test_a_picture_and_an_exported_page(off):
    made = picture(off.request())
    cfg = tg.Experiment(**{**off.experiment(1).settings(), "rule": "cfg", "params": {"w": 3.0}}).run("cpu")
    assert np.allclose(made.runs[1].frames[-1], cfg.x[-1].numpy(), atol=1e-4)
    assert named(off.experiment(1)) == "APG  (w = 3, eta = 1, beta = 0, r = inf)"
    recording = Recording(off, [parse_slider("r=0.1:0.5:2", off)], Look())
    for request in recording.requests():
        recording.add(picture(request))
    html(recording)  # which refuses numbers that JSON has not
    assert usual_slider(off)[0].name == "w"


def test_curves_over_a_parameter_that_is_off(off):
    runs = off.request().runs
    assert "r" in parameters(runs)
    made = plan(question(runs, ["r"], 1))
    assert np.isfinite(made.axes[0].values).all()
    assert {e.params["r"] for (e,) in made.cells[1].values()} == set(made.axes[0].values)
    over_w = plan(question(runs, ["w"], 1))
    assert {e.params["r"] for (e,) in over_w.cells[1].values()} == {math.inf}
    off.set({"curve": ("coverage", "r")})
    curves = ResponsesPanel(off)
    curves._plan = made  # nothing of it is measured
    curves._draw(curves._question)
    (mark,) = curves._marks[1, "r"]
    assert not mark.visible
    off.set({"params": {**off.panels[1].rule.values(), "r": 0.25}})
    assert (mark.visible, mark.location) == (True, 0.25)


def test_parameters_that_mean_nothing_with_the_choice_are_hidden():
    state = ExplorerState()
    card = PanelCard(state)
    state.set_rule(state.selected, tg.rule("dps", form="lgd", observed="first"))
    shown = {key for key, row in card._rows.items() if row.visible}
    assert {"s", "samples", "y0"} <= shown
    assert "y1" not in shown
    state.set_rule(state.selected, tg.rule("dps", form="moment", observed="second"))
    shown = {key for key, row in card._rows.items() if row.visible}
    assert "y1" in shown
    assert not {"s", "samples", "y0"} & shown
