"""The schedule's card: whom it applies to, what it draws, and where it is greyed."""

import re

import numpy as np
import pytest

from toyguide import Experiment
from toyguide.guidance.schedules import SHAPES, checked_schedule, shares
from toyguide_apps.explorer_page.controls import OwnCard
from toyguide_apps.explorer_page.links import address_of_experiment
from toyguide_apps.explorer_page.permalink import query_of, read
from toyguide_apps.explorer_page.schedules import ScheduleCard, offered_schedules, picture_of
from toyguide_apps.explorer_page.state import ExplorerState
from toyguide_apps.explorer_page.views.parts import note


@pytest.fixture
def state():
    state = ExplorerState(3)
    state.set({"dataset": "two-gaussians", "rule": "cfg", "rule3": "sfg", "n": 128, "steps": 12})
    return state


def schedules(state):
    return [run.schedule for run in state.request().runs]


def test_it_is_of_all_panels_whose_rule_has_a_weight(state):
    state.set({"schedule": "linear"})
    assert schedules(state) == [None, "linear", "linear"]
    state.set_own(2, {"schedule": "constant"})
    assert schedules(state) == [None, "linear", None]
    state.set({"schedule": "constant"})
    state.set_own(1, {"schedule": "early"})
    assert schedules(state) == [None, "early:0.5", None]


def test_a_panels_own_one_is_in_the_link(state):
    state.set({"schedule": "late:0.25"})
    state.set_own(2, {"schedule": "triangle"})
    again = ExplorerState(3)
    assert read(again, query_of(state)) == []
    assert again.request() == state.request()
    assert (query_of(state)["schedule"], query_of(state)["rule3:schedule"]) == ("late:0.25", "triangle")


def test_every_shape_is_offered_and_known():
    offered = offered_schedules("constant")
    assert {checked_schedule(text) or "constant" for text in offered.values()} == {*SHAPES, "early:0.5", "late:0.5"}
    assert list(offered.values()) == [checked_schedule(text) or "constant" for text in offered.values()]
    assert offered_schedules("early:0.7")["early:0.7"] == "early:0.7"


def test_the_menu_sets_and_follows(state):
    card = ScheduleCard(state)
    assert card._menu.value == "constant"
    assert not card._picture.visible
    card._menu.value = "cosine"
    assert state.schedule == "cosine"
    assert card._picture.visible
    state.set({"schedule": "early:0.3"})  # as a link or a step back does
    assert card._menu.value == "early:0.3"
    state.set({"schedule": "linear"})
    assert card._menu.value == "linear"
    assert state.schedule == "linear"


def test_it_is_greyed_with_the_reason_where_the_rule_has_no_weight(state):
    card = ScheduleCard(state)
    assert not card._menu.disabled
    state.set({"selected": 0})
    assert card._menu.disabled
    assert "it has no weight with an unguided value." in card._picture.object
    assert card._picture.visible
    assert "schedule" not in OwnCard(state)._menus
    state.set({"selected": 2})
    assert not card._menu.disabled
    assert not card._picture.visible


def test_a_panels_own_menu(state):
    state.set({"selected": 1, "schedule": "v"})
    card, shared = OwnCard(state), ScheduleCard(state)
    menu = card._menus["schedule"]
    before = shared._picture.object
    menu.value = "linear"
    assert schedules(state) == [None, "linear", "v"]
    assert shared._picture.object != before, "the picture is the selected panel's"
    menu.value = ""
    assert schedules(state) == [None, "v", "v"]


def test_the_picture_has_the_weights_of_the_run():
    """Read back from the drawing: over log sigma, from the lowest weight to the highest; unguided outside an
    interval."""
    e = Experiment("two-gaussians", "left", rule="cfg", params={"w": 3.0}, schedule="triangle", steps=12)
    for interval in (None, (0.1, 1.0)):
        e = Experiment(**{**e.settings(), "interval": interval})
        levels = e.levels()[:-1].numpy()
        low, high = interval or (0.0, 1e9)
        guided = (low < levels) & (levels <= high)
        weights = np.where(guided, 1 + 2 * np.array(shares("triangle", 12)), 1.0)
        drawn = picture_of(e)
        points = np.array([p.split(",") for p in re.search(r"points='(.*?)'", drawn)[1].split()], float)
        assert np.corrcoef(points[:, 0], np.log(levels))[0, 1] == pytest.approx(-1, abs=1e-6)
        assert np.corrcoef(points[:, 1], weights)[0, 1] == pytest.approx(-1, abs=1e-3)
        assert f"w from 1 to {weights.max():.3g}, over σ from {levels[0]:.3g} to {levels[-1]:.3g}" in drawn
    assert picture_of(Experiment("two-gaussians", "left", rule="cfg")) == ""
    assert "k from" in picture_of(Experiment("two-gaussians", rule="score-scaling", schedule="linear"))


def test_a_weight_that_would_leave_its_bounds_draws_nothing(state):
    """The run itself says what is wrong."""
    state.set({"selected": 1, "schedule": "linear", "params": {"w": 0.0}})
    assert not ScheduleCard(state)._picture.visible


def test_a_run_with_a_schedule_has_an_address_and_a_note():
    e = Experiment("two-gaussians", "left", rule="cfg", schedule="beta", n=512)
    assert "schedule=beta" in address_of_experiment(e)
    assert "schedule of the weight: beta" in note(e)


def test_a_preset_ends_it(state):
    state.set({"schedule": "beta"})
    state.apply("figure-2")
    assert state.schedule == "constant"
