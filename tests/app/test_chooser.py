"""The list of rules: all of them, what is said of each, and which cannot run in the scene."""

import asyncio

import pytest

import toyguide as tg
from toyguide.errors import InputError
from toyguide.guidance import FAMILIES, Guided, Rule
from toyguide_apps.explorer_page.chooser import badges_of, families, obstacle
from toyguide_apps.explorer_page.controls import PanelCard
from toyguide_apps.explorer_page.costs import cost_of
from toyguide_apps.explorer_page.state import ExplorerState


@pytest.fixture
def state():
    return ExplorerState()


@pytest.fixture
def chooser(state, monkeypatch):
    """The list without a server: what opening it schedules is done at once."""
    monkeypatch.setattr("panel.state.execute", lambda act, **_: asyncio.run(act()))
    return PanelCard(state)._chooser


def test_every_rule_is_there_once_in_its_family():
    listed = families()
    assert [group["family"] for group in listed] == list(FAMILIES)
    assert {g["family"]: [r["key"] for r in g["rules"]] for g in listed} == {
        family: [key for key, cls in tg.rules().items() if cls.family == family] for family in FAMILIES
    }
    for entry in (entry for group in listed for entry in group["rules"]):
        assert entry["title"]
        assert entry["summary"].startswith(entry["what"])
        assert entry["find"] == entry["find"].lower()


def test_it_is_found_by_name_title_paper_and_summary():
    find = {entry["key"]: entry["find"] for group in families() for entry in group["rules"]}
    assert all(word in find["apg"] for word in ("apg", "adaptive projected guidance", "2410.02416", "denoised point"))


def test_badges_say_what_is_special():
    said = {key: badges_of(cls) for key, cls in tg.rules().items()}
    assert said["cfg"] == []
    assert said["cfg++"] == ["first order"]
    assert said["svdd"] == ["needs noise"]
    assert said["internal-guidance"] == ["needs a trained network"]
    assert said["s2-guidance"] == ["reconstruction", "needs a trained network"]
    assert all(("reconstruction" in said[key]) == ("(reconstruction)" in cls.title) for key, cls in tg.rules().items())


@pytest.mark.parametrize(
    ("key", "cost"),
    [
        ("none", "1 evaluation"),
        ("cfg", "2 evaluations"),
        ("sfg+autoguidance", "3 evaluations"),
        ("classifier", "1 evaluation, 1 gradient"),
    ],
)
def test_costs_are_counted(key, cost):
    assert cost_of(tg.rules()[key]) == cost


def test_choosing_sets_the_selected_panels_rule(state, chooser):
    chooser._hear({"kind": "choose", "key": "apg"})
    assert state.panels[1].rule == tg.rule("apg")
    assert chooser.model.chosen == {"key": "apg", "title": "Adaptive projected guidance"}
    state.set({"selected": 0})
    assert chooser.model.chosen["key"] == "none"


@pytest.mark.parametrize("message", [{"kind": "choose", "key": "cgf"}, {"kind": "choose"}, {"kind": 7}, "open", None])
def test_a_made_up_message_changes_nothing(message, state, chooser, monkeypatch):
    said = []
    monkeypatch.setattr("toyguide_apps.shared.notices.complain", said.append)
    before = state.panels
    chooser._hear(message)
    assert state.panels == before
    assert all("unknown rule" in line for line in said)


def test_what_cannot_run_in_the_scene_is_blocked_with_the_reason(state, chooser, monkeypatch):
    monkeypatch.setattr("toyguide_apps.explorer_page.chooser._costs", dict)
    chooser._hear({"kind": "open"})
    assert chooser.model.blocked == {}  # whatever needs another sampler gets one
    state.set({"label": "union"})
    chooser._hear({"kind": "open"})
    blocked = chooser.model.blocked
    assert set(blocked) == {
        *("agd", "classifier", "elucd", "gfcg", "internal-guidance", "linear-ag", "s2-guidance"),
    }
    assert "no coefficients" in blocked["linear-ag"]
    assert "one class" in blocked["classifier"]


@pytest.mark.parametrize("key", ["agd", "classifier", "elucd", "gfcg", "linear-ag", "s2-guidance", "cfg", "svdd"])
@pytest.mark.parametrize("label", ["A", "union"])
def test_an_obstacle_is_one_of_the_run(key, label, state):
    """A rule is greyed if and only if its run in the scene fails."""
    state.set({"label": label})
    told = obstacle(state, 1, tg.rule(key))
    try:
        settings = state.experiment(1, tg.rule(key)).settings() | {"n": 16, "steps": 2}
        tg.Experiment(**settings).run("cpu")
    except InputError:
        assert told
    else:
        assert not told


def test_a_rule_of_ones_own_is_listed_with_others_of_its_family(add_rule):
    class Odd(Rule):
        key = "odd"
        title = "Odd"
        family = "My family"

        def guide(self, at, memory):
            return Guided(at.denoised("main"))

    add_rule(Odd)
    assert families()[-1] == {
        "family": "My family",
        "rules": [{"key": "odd", "title": "Odd", "what": "", "summary": "", "badges": [], "find": "odd odd   "}],
    }
