"""What presets and rules say in words, against the numbers of the runs that they describe."""

import pytest

from toyguide_apps.explorer_page.presets import Shown, presets
from toyguide_apps.explorer_page.state import ExplorerState


def numbers(experiment):
    return experiment.run("cpu").metrics(resamples=0)


@pytest.mark.parametrize("key", list(presets()))
def test_a_preset_shows_what_its_sentence_says(key):
    """The runs that the explorer makes of it, with its own number of samples, and of other starting points."""
    state = ExplorerState()
    state.apply(key)
    assert presets()[key].shows
    for seed in (state.seed, 1, 2):
        state.set({"seed": seed})
        unguided, guided = (numbers(run) for run in state.request().runs)
        assert state.panels[0].rule.key == "none"
        for shown in presets()[key].shows:
            assert shown.holds(guided, unguided), (shown, guided[shown.metric], unguided[shown.metric])


def test_a_condition_can_fail():
    shown = Shown.parse("outliers <= 0.5 unguided")
    assert shown.holds({"outliers": 0.04}, {"outliers": 0.1})
    assert not shown.holds({"outliers": 0.06}, {"outliers": 0.1})
    shown = Shown.parse("dropped_mass >= 0.3")
    assert shown.holds({"dropped_mass": 0.4}, {"dropped_mass": 0.5})
    assert not shown.holds({"dropped_mass": 0.2}, {"dropped_mass": 0.0})
