"""A rule that is typed in the explorer: its box and mistakes, its sliders, its link, its code and its file."""

from __future__ import annotations

import subprocess
import sys
from urllib.parse import parse_qs, urlsplit

import pytest

import toyguide as tg
from toyguide.errors import InputError
from toyguide.experiment import Result
from toyguide.guidance.formula import FUNCTIONS, LONGEST, VARIABLES, as_rule_file, parse
from toyguide_apps.explorer_page.code import python_code, shell_code
from toyguide_apps.explorer_page.controls import PanelCard
from toyguide_apps.explorer_page.formula_card import EXAMPLES
from toyguide_apps.explorer_page.layers.responses import parameters, plan, question
from toyguide_apps.explorer_page.permalink import query_of, read, search_of
from toyguide_apps.explorer_page.recording import parse_slider, usual_slider
from toyguide_apps.explorer_page.state import ExplorerState

GATED = "w = 3 [0, 10]; s = 1 [0.1, 5];\nD_main + (w - 1) * (D_main - D_weak) * (sigma < s)"


@pytest.fixture
def state() -> ExplorerState:
    found = ExplorerState()
    found.set({"rule": "formula"})
    return found


@pytest.fixture
def card(state) -> PanelCard:
    return PanelCard(state)


def chosen(state) -> tg.Rule:
    return state.panels[state.selected].rule


def test_the_box_is_there_for_a_typed_rule_alone(state, card):
    body, box = card._typed._body, card._typed._box
    assert body.visible
    assert box.value == chosen(state).expression
    assert box.max_length == LONGEST
    state.set({"rule": "cfg"})
    assert not body.visible
    state.set({"selected": 0})
    assert not body.visible
    state.set({"rule": tg.rule("formula", expression=GATED), "selected": 1})
    assert body.visible
    assert box.value == GATED


def test_what_is_typed_is_the_rule_and_its_parameters_have_sliders(state, card):
    card._typed._box.value = GATED
    assert chosen(state).expression == GATED
    assert {name: (w.start, w.end) for name, w in card._widgets.items()} == {"w": (0, 10), "s": (0.1, 5)}
    card._widgets["s"].value = 2.0
    assert state.request().runs[1].params == {"expression": GATED, "w": 3.0, "s": 2.0}
    assert state.request().runs[1].roles().keys() == {"main", "weak"}


def test_values_that_were_chosen_stay_where_they_fit(state, card):
    card._typed._box.value = GATED
    card._widgets["s"].value = 2.0
    card._widgets["w"].value = 8.0
    card._typed._box.value = "w = 1 [0, 5]; s = 1 [0, 9]; D_main + w * s * (D_main - D_weak)"
    assert (chosen(state).w, chosen(state).s) == (1.0, 2.0)


def test_a_mistake_is_marked_while_the_rule_stays(state, card):
    card._typed._box.value = GATED
    before = state.request()
    card._typed._box.value = GATED.replace("D_weak", "D_w<k")
    typed = card._typed
    assert state.request() == before
    assert typed._box.value == GATED.replace("D_weak", "D_w<k")
    assert typed._box.error_state
    assert typed._mistake.visible
    line = "D_main + (w - 1) * (D_main - <mark>D_w</mark>&lt;k) * (sigma &lt; s)"
    assert f"<code>{line}</code>" in typed._mistake.object
    assert "did you mean" in typed._mistake.object
    card._widgets["w"].value = 4.0
    assert typed._box.value.count("D_w<k"), "what is being typed stays while a slider moves"
    typed._box.value = GATED
    assert not typed._mistake.visible
    assert not typed._box.error_state
    assert chosen(state).w == 4.0


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run(name, state, card):
    (button,) = (b for b in card._typed._body.select() if getattr(b, "label", "") == name)
    button.clicks += 1
    assert card._typed._box.value == chosen(state).expression == EXAMPLES[name]
    experiment = state.experiment(1)
    settings = experiment.settings() | {"n": 16, "steps": 3}
    assert tg.Experiment(**settings).run("cpu").diverged == 0


def test_the_help_names_everything(card):
    text = next(p.object for p in card._typed._body.select() if "What can I write" in str(getattr(p, "object", "")))
    for name in (*FUNCTIONS, *VARIABLES, "D_ROLE", "eps_ROLE", "s_ROLE", "v_ROLE", "uncond", "weak"):
        assert f"{name}(" in text or f">{name}<" in text or f" {name}" in text, name


def test_the_file_is_the_rule(state, card):
    card._typed._box.value = GATED
    assert card._typed._file().read() == as_rule_file(GATED, "my-rule")


LONG = "w = 3;\n" + " + ".join(["D_main + (w - 1) * (D_main - D_uncond) / 9"] * 20)


@pytest.mark.parametrize(
    "settings",
    [
        {"rule": tg.rule("formula")},
        {"rule": tg.rule("formula", w=2)},
        {"rule": tg.rule("formula", expression=GATED, s=2.5)},
        {"rule": tg.rule("formula", expression=LONG, w=2.5), "ref": tg.rule("formula", expression=GATED, w=9)},
        {"rule": tg.rule("formula", expression="n = 3; seed = 2; window = 1; n * seed * window * x", n=4, window=2)},
        {"rule": tg.rule("formula", expression=GATED), "curve": ("coverage", "s")},
    ],
)
def test_the_link_has_the_formula(settings):
    state, again = ExplorerState(), ExplorerState()
    state.set({**settings, "n": 128})
    assert 900 < len(LONG) <= LONGEST
    query = {k: v[0] for k, v in parse_qs(urlsplit("http://host/explorer" + search_of(state)).query).items()}
    assert query == query_of(state)
    assert read(again, query) == []
    assert again.panels == state.panels
    assert (again.n, again.curve) == (state.n, state.curve)


def test_a_wrong_formula_in_a_link_is_named_and_left_out():
    state = ExplorerState()
    problems = read(state, {"rule": "formula", "expression": "D_main + D_wek", "w": "2.5"})
    assert problems == ["URL: formula, character 10: unknown name 'D_wek', did you mean 'D_weak'?: D_main + →D_wek←"]
    assert state.panels[1].rule == tg.rule("formula", w=2.5)
    (problem,) = read(state, {"rule": "formula", "expression": "x" * (LONGEST + 1)})
    assert problem == f"URL: expression of {LONGEST + 1} characters: expected at most {LONGEST}"
    (problem,) = read(state, {"rule": "formula", "expression": "D_main", "s": "1"})
    assert problem.startswith("URL: unknown setting 's'")
    assert state.panels[1].rule == tg.rule("formula", expression="D_main")


def test_the_code_repeats_the_run(tmp_path):
    params = {"expression": GATED, "w": 4.0}
    run = tg.Experiment("fractal", "A", "exact", rule="formula", params=params, n=24, steps=3)
    text = python_code([run])
    assert repr(GATED) in text
    assert eval(text[text.index("tg.Experiment") : text.index(",\n}")], {"tg": tg}) == run
    command = shell_code([run]).partition(" && ")[0].replace("toyguide ", f"{sys.executable} -m toyguide ", 1)
    subprocess.run(command, shell=True, check=True, cwd=tmp_path, capture_output=True)
    assert Result.load(tmp_path / "A.npz").experiment == run


def test_sliders_of_files_and_curves_know_what_a_formula_declares(state):
    state.set({"rule": tg.rule("formula", expression=GATED)})
    assert parse_slider("s=0.5:4:8", state).values[0] == 0.5
    assert usual_slider(state)[0].name == "w"
    with pytest.raises(InputError, match="unknown number of formula 'q': expected one of w, s"):
        parse_slider("q=0.5:4:8", state)
    runs = state.request().runs
    assert parameters(runs)[:2] == ["w", "s"]
    made = plan(question(runs, ["s"], 1))
    assert {e.params["s"] for (e,) in made.cells[1].values()} == set(made.axes[0].values)
    state.set({"curve": ("coverage", "s")})
    with pytest.raises(InputError, match="unknown parameter 'q'"):
        state.set({"curve": ("coverage", "q")})


def test_examples_are_formulas():
    assert [p.name for p in parse(EXAMPLES["APG-like"]).parameters] == ["w", "eta", "r"]
