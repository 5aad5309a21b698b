"""The page of the league without a browser: what it is sent, and that it is served."""

import json
import subprocess
import sys
import textwrap

import pytest
from bokeh.document import Document

from toyguide_apps.explorer_page.permalink import read
from toyguide_apps.explorer_page.state import ExplorerState
from toyguide_apps.league_page import results
from toyguide_apps.league_page.page import League, LeagueModel
from toyguide_apps.league_page.results import league_folder, shown


def standing(family="Several fields", **numbers):
    three = {name: [v, v - 0.01, v + 0.01] for name, v in ({"outliers": 0.1, "coverage": 0.8} | numbers).items()}
    return {
        "title": "A rule",
        "family": family,
        "sampler": "heun",
        "steps": 32,
        "exact": [],
        "params": {"w": 2.5},
        "numbers": three,
        "seeds": {},
    }


LEAGUE = {
    **{"quick": False, "seeds": 10, "first_seed": 100, "n": 1024, "budget": 12, "tuning_seeds": 2},
    **{"equal_evaluations": False, "coverage": 0.8},
    "arenas": {
        "fractal-A": {
            "title": "Fractal, class A",
            "dataset": "fractal",
            "label": "A",
            "branched": True,
            "front": ["cfg"],
            "rules": {
                "cfg": standing(),
                "autoguidance": standing(coverage=0.7),
                "unheard-of": standing("Mine", outliers=0.3),
            },
            "absent": {"formula": "is whatever is typed"},
        }
    },
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "league.json").write_text(json.dumps(LEAGUE))
    monkeypatch.setenv("TOYGUIDE_LEAGUE", str(tmp_path))
    return tmp_path


def test_a_point_has_its_numbers_and_leads_to_its_setting_in_the_explorer(folder):
    (arena,) = shown(league_folder())["arenas"]
    rules = {r["rule"]: r for r in arena["rules"]}
    assert rules["cfg"]["y"] == pytest.approx([0.1, 0.09, 0.11])
    assert rules["cfg"]["setting"] == "w=2.5"
    for key in ("cfg", "autoguidance"):
        query = dict(pair.split("=") for pair in rules[key]["address"].partition("?")[2].split("&"))
        state = ExplorerState()
        assert read(state, {k: v.replace("%2F", "/").replace("%2C", ",") for k, v in query.items()}) == []
        assert (state.dataset, state.label) == ("fractal", "A")
        assert {panel.rule.key: panel.rule for panel in state.panels}[key].w == 2.5
    assert rules["unheard-of"]["address"] is None
    assert arena["absent"] == [("formula", "is whatever is typed")]


def test_families_keep_their_order_and_own_ones_come_last(folder):
    families = shown(league_folder())["families"]
    assert [f["name"] for f in families] == ["Several fields", "Mine"]
    assert len({f["colour"] for f in families}) == 2


def test_the_page_draws_it_and_a_new_file_is_read(folder):
    page = League()
    (model,) = page.__panel__().select(LeagueModel)
    assert model.league == shown(folder)
    other = json.loads(json.dumps(LEAGUE))
    del other["arenas"]["fractal-A"]["rules"]["unheard-of"]
    (folder / "league.json").write_text(json.dumps(other))
    assert len(shown(folder)["arenas"][0]["rules"]) == 2


def test_without_a_league_and_with_a_damaged_one_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("TOYGUIDE_LEAGUE", str(tmp_path))
    monkeypatch.setattr(results, "bundled", lambda name: None)
    assert "toyguide league" in League().__panel__().object
    (tmp_path / "league.json").write_text('{"arenas": 3}')
    assert "not the standings of a league" in League().__panel__().object


def test_it_is_served_with_links_between_the_pages(folder):
    code = """
        import threading, asyncio, urllib.request
        from bokeh.client import pull_session
        from panel.io.server import get_server
        import panel as pn
        from toyguide_apps.serve import LEAGUE

        ready = threading.Event()

        def serve():
            asyncio.set_event_loop(asyncio.new_event_loop())
            global server
            server = get_server({"league": str(LEAGUE)}, port=0, address="127.0.0.1")
            server.start()
            ready.set()
            server.io_loop.start()

        threading.Thread(target=serve, daemon=True).start()
        ready.wait()
        session = pull_session(url=f"http://127.0.0.1:{server.port}/league")
        models = [type(m).__name__ for m in session.document.models]
        texts = " ".join(str(getattr(m, "text", "")) for m in session.document.models)
        assert "league" in texts and "studies" in texts and "explorer" in texts, texts[:500]
        assert any(getattr(getattr(m, "data", None), "league", None) for m in session.document.models), models
        print("served")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip().endswith("served"), done.stderr


def test_the_script_is_plain_javascript():
    model = LeagueModel(league={})
    assert "export function render" in model._render_esm(Document())
