"""Presets and studies know each other: verdicts in the explorer, and ways from the studies into it."""

import json
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from toyguide import Experiment
from toyguide.studies import studies
from toyguide_apps.explorer_page.judged import judged
from toyguide_apps.explorer_page.links import address_of_experiment, address_of_preset
from toyguide_apps.explorer_page.permalink import query_of, read
from toyguide_apps.explorer_page.presets import presets
from toyguide_apps.explorer_page.state import ExplorerState
from toyguide_apps.studies_page import html
from toyguide_apps.studies_page.scenes import Scene, scenes

STUDIES = Path(__file__).parents[2] / "studies"


@pytest.fixture(autouse=True)
def no_own_results(monkeypatch, tmp_path):
    monkeypatch.setenv("TOYGUIDE_STUDIES", str(tmp_path))


def opened(address):
    """The explorer's state at an address."""
    parts = urlsplit(address)
    assert parts.path == "explorer"
    state = ExplorerState()
    assert read(state, dict(parse_qsl(parts.query))) == []
    return state


@pytest.mark.parametrize("key", list(presets()))
def test_a_presets_study_exists_and_its_verdict_is_told(key):
    name = presets()[key].study
    if not name:
        assert judged(key) == ""
        return
    assert name in studies()
    summary = json.loads((STUDIES / name / "summary.json").read_text(encoding="utf-8"))
    assert judged(key) == f"The claim of the study “{summary['title']}”: {summary['verdict']}."


def test_some_presets_are_judged():
    assert sum(bool(p.study) for p in presets().values()) >= 9


@pytest.mark.parametrize("name", list(studies()))
def test_each_study_can_be_seen_in_the_explorer(name):
    found = scenes(studies()[name])
    assert found
    assert len({s.address for s in found}) == len(found)
    for scene in found:
        assert opened(scene.address).request().runs


def test_a_preset_can_be_linked_to():
    state, applied = opened(address_of_preset("sfg-simplex")), ExplorerState()
    applied.apply("sfg-simplex")
    assert state.request() == applied.request()
    assert query_of(state) == query_of(applied)
    state = ExplorerState()
    assert read(state, {"preset": "figure-1c", "w": "2"}) == []
    assert state.panels[1].rule.w == 2.0
    assert "figure-1c" in read(ExplorerState(), {"preset": "figure-1x"})[0]


@pytest.mark.parametrize(
    "experiment",
    [
        Experiment("fractal", "A", "exact", "exact@union", rule="cfg", params={"w": 8.0}, n=1024, seed=101),
        Experiment("two-gaussians", None, rule="sfg", params={"w": 2.0, "sign": "score"}, n=256, steps=12),
        Experiment("simplex16", None, rule="autoguidance", interval=(0.1, 1.5), n=512, sampler="euler"),
        Experiment("fractal", "B", rule="none", n=4096, sampler="ancestral"),
    ],
)
def test_an_experiments_address_shows_that_experiment(experiment):
    assert opened(address_of_experiment(experiment)).experiment(1) == experiment


def test_what_the_explorer_does_not_offer_is_left_to_it_or_not_shown():
    own = Experiment("fractal", "A", "networks/own.safetensors", rule="cfg", n=300)
    shown = opened(address_of_experiment(own)).experiment(1)
    assert str(shown.main) == "fractal/main"
    assert shown.n == 512
    assert address_of_experiment(Experiment("fractal", "A", steps=500)) is None
    assert address_of_experiment(Experiment("fractal", "A", sigma_max=3.0)) is None
    assert address_of_experiment(Experiment("simplex16?vertices=4", None, "exact")) is None


def test_links_on_the_page_are_safe():
    assert html.in_explorer(()) == ""
    shown = html.in_explorer([Scene("<b>", "explorer?a=1&b='2'")])
    assert "<b>" not in shown
    assert "href='explorer?a=1&amp;b=&#x27;2&#x27;'" in shown
