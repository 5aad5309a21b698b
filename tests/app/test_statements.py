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
        found = [numbers(run) for run in state.request().runs]
        for shown in presets()[key].shows:
            assert shown.holds(found), (shown, [metrics[shown.metric] for metrics in found])


# What a rule's summary says happens to samples: the words, the run, and the condition.
SAID = [
    ("cfg", "A little of it removes outliers", {"w": 1.4}, "outliers <= 0.9 A"),
    ("cfg", "more drops whole branches", {"w": 4.0}, "dropped_mass >= 0.35"),
    ("cfg", "adds outliers", {"w": 4.0}, "outliers >= 1.1 A"),
    ("autoguidance", "Removes outliers", {"w": 3.0}, "outliers <= 0.7 A"),
    ("autoguidance", "keeps most branches", {"w": 3.0}, "dropped_mass <= 0.1"),
    ("autoguidance", "coverage falls with the weight", {"w": 1.5}, "coverage <= 0.99 A"),
    ("autoguidance", "coverage falls with the weight", {"w": 3.0}, "coverage <= 0.9 A"),
    ("score-scaling", "Concentrates the samples", {"k": 1.2}, "median_log_density >= 1.2 A"),
    ("score-scaling", "in all directions alike and empties the outer branches", {"k": 1.4}, "tips <= 0.1 A"),
]


@pytest.mark.parametrize(("key", "words", "params", "condition"), SAID)
def test_a_rule_does_what_its_summary_says(key, words, params, condition):
    """On class A of the fractal with the bundled networks, from two sets of starting points."""
    assert words in rule(key).summary
    for seed in (0, 1):
        shared = {"dataset": "fractal", "label": "A", "n": 2048, "seed": seed}
        guided = numbers(Experiment(**shared, rule=key, params=params))
        unguided = numbers(Experiment(**shared, rule="none"))
        assert Shown.parse(condition).holds([unguided, guided]), (guided, unguided)


def test_a_condition_can_fail():
    shown = Shown.parse("outliers <= 0.5 A")
    assert shown.holds([{"outliers": 0.1}, {"outliers": 0.04}])
    assert not shown.holds([{"outliers": 0.1}, {"outliers": 0.06}])
    shown = Shown.parse("dropped_mass >= 0.3")
    assert shown.holds([{"dropped_mass": 0.5}, {"dropped_mass": 0.4}])
    assert not shown.holds([{"dropped_mass": 0.0}, {"dropped_mass": 0.2}])
    shown = Shown.parse("B outliers >= 0.05")
    assert shown.holds([{"outliers": 0.0}, {"outliers": 0.06}, {"outliers": 0.0}])
    assert not shown.holds([{"outliers": 0.1}, {"outliers": 0.04}, {"outliers": 0.1}])
