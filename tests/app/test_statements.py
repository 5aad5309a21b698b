"""What presets and rules say in words, against the numbers of the runs that they describe."""

import pytest

from toyguide import Experiment
from toyguide.guidance import rule
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


# What a rule's summary says happens to samples: the words, the run, and the condition.
SAID = [
    ("cfg", "A little of it removes outliers", {"w": 1.4}, "outliers <= 0.9 unguided"),
    ("cfg", "more drops whole branches", {"w": 4.0}, "dropped_mass >= 0.35"),
    ("cfg", "adds outliers", {"w": 4.0}, "outliers >= 1.1 unguided"),
    ("autoguidance", "Removes outliers", {"w": 3.0}, "outliers <= 0.7 unguided"),
    ("autoguidance", "keeps most branches", {"w": 3.0}, "dropped_mass <= 0.1"),
    ("autoguidance", "coverage falls with the weight", {"w": 1.5}, "coverage <= 0.99 unguided"),
    ("autoguidance", "coverage falls with the weight", {"w": 3.0}, "coverage <= 0.9 unguided"),
    ("score-scaling", "Concentrates the samples", {"k": 1.2}, "median_log_density >= 1.2 unguided"),
    ("score-scaling", "in all directions alike and empties the outer branches", {"k": 1.4}, "tips <= 0.1 unguided"),
]


@pytest.mark.parametrize(("key", "words", "params", "condition"), SAID)
def test_a_rule_does_what_its_summary_says(key, words, params, condition):
    """On class A of the fractal with the bundled networks, from two sets of starting points."""
    assert words in rule(key).summary
    for seed in (0, 1):
        shared = {"dataset": "fractal", "label": "A", "n": 2048, "seed": seed}
        guided = numbers(Experiment(**shared, rule=key, params=params))
        unguided = numbers(Experiment(**shared, rule="none"))
        assert Shown.parse(condition).holds(guided, unguided), (guided, unguided)


def test_a_condition_can_fail():
    shown = Shown.parse("outliers <= 0.5 unguided")
    assert shown.holds({"outliers": 0.04}, {"outliers": 0.1})
    assert not shown.holds({"outliers": 0.06}, {"outliers": 0.1})
    shown = Shown.parse("dropped_mass >= 0.3")
    assert shown.holds({"dropped_mass": 0.4}, {"dropped_mass": 0.5})
    assert not shown.holds({"dropped_mass": 0.2}, {"dropped_mass": 0.0})
