"""The explorer served and driven over the websocket, without a browser: many visitors, one message per picture."""

import dataclasses
import json
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import panel as pn
import pytest

from toyguide_apps.bench import chromium, measure, measure_explorer, server
from toyguide_apps.bench.chromium import InChromium
from toyguide_apps.bench.measure import Spread
from toyguide_apps.bench.server import serving
from toyguide_apps.bench.visitor import Shown, Visitor, stale
from toyguide_apps.explorer_page.state import ExplorerState


@pytest.fixture(scope="module")
def address():
    pn.extension("katex", notifications=True)
    with serving() as (where, said):
        yield where
        assert not re.search(r"^Traceback|\bERROR\b", said(), re.MULTILINE), said()


def run_of(w):
    state = ExplorerState()
    state.set({"params": {"w": w}})
    return state.request().runs[1].run("cpu").x[-1].numpy()


def test_a_stale_picture_is_found_by_its_title_and_by_its_points():
    ends = run_of(2.5)
    assert not stale(Shown("Autoguidance  (w = 2.5)", ends), 2.5)
    assert not stale(Shown("Autoguidance  (w = 2.5)  ·  1 of 512 far away", ends + 1e-5), 2.5)
    assert stale(Shown("Autoguidance  (w = 2.4)", ends), 2.5)
    assert stale(Shown("Autoguidance  (w = 2.5)  ·  first 128 of 512", ends[:128]), 2.5)
    assert stale(Shown("Autoguidance  (w = 2.5)", run_of(2.6)), 2.5)
    assert stale(Shown("Autoguidance  (w = 2.5)", ends[:128]), 2.5)


def test_each_picture_is_one_message(address):
    """Counted where they arrive: patches that bring points, their titles, or anything else while a change is shown."""
    visitor = Visitor(address)
    visitor.last()
    patches = []
    stage = visitor._stage.id
    handle = visitor._session._handle_patch
    visitor._session._handle_patch = lambda message: (patches.append(message.content["events"]), handle(message))
    for w in (5.0, 5.5, 6.0):
        patches.clear()
        assert visitor.move(w) is not None
        visitor.last()
        brought = [{e["attr"] for e in p if e["kind"] == "ModelChanged" and e["model"]["id"] == stage} for p in patches]
        drawn = [parts for parts in brought if "run_2" in parts]
        # One for the whole picture, and at most one coarse one before it, where key and release came far apart.
        assert len(drawn) in (1, 2)
        assert all({"arrows_2", "board"} <= parts for parts in drawn)
        assert "headline" in drawn[-1]
        # Nothing on the left has changed, nor what does not depend on the rule.
        assert set().union(*brought) <= {"run_2", "arrows_2", "board", "headline", "status", "legend", "address"}
        assert len([parts for parts in brought if "headline" in parts]) == 1
    visitor.leave()


def test_ten_visitors_at_once_each_end_with_their_own_last_picture(address):
    def visit(index):
        visitor = Visitor(address)
        values = [round(2 + 0.1 * i + 0.01 * index, 2) for i in range(3)]
        times = [visitor.move(w, passing=2) for w in values]
        last = visitor.last()
        visitor.leave()
        seen = [float(w[1]) for t in visitor.titles if (w := re.search(r"\(w = ([\d.]+)\)", t))]
        return times, seen, stale(last, values[-1])

    with ThreadPoolExecutor(10) as pool:
        visits = list(pool.map(visit, range(10)))
    for times, seen, old in visits:
        assert None not in times  # every finished picture came
        assert seen == sorted(seen)
        assert not old


def test_a_spread_is_that_of_the_times():
    spread = Spread.of([0.001 * t for t in range(1, 102)])
    assert (spread.p50, spread.p95, spread.max) == pytest.approx((51, 96, 101))


def test_figures_are_consistent_and_no_process_is_left(monkeypatch):
    started = []
    popen = subprocess.Popen

    def start(*arguments, **settings):
        started.append(popen(*arguments, **settings))
        return started[-1]

    monkeypatch.setattr(server.subprocess, "Popen", start)
    monkeypatch.setattr(chromium, "chromium", lambda: None)
    figures = measure_explorer(sessions=2, changes=2)
    assert json.loads(json.dumps(dataclasses.asdict(figures)))["sessions"] == 2
    for spread in (figures.one, figures.many):
        assert 0 < spread.p50 <= spread.p95 <= spread.max
    assert (figures.errors, figures.stale) == (0, 0)
    assert figures.first_picture_s > 0
    assert figures.browser is None
    assert figures.browser_first_picture_s is None
    assert figures.browser_answer_ratio is None
    assert figures.browser_load_ratio is figures.browser_load_s is figures.browser_picture_ms is None
    assert all(p.poll() is not None for p in started)


def test_a_measurement_that_fails_leaves_no_process(monkeypatch):
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(server.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1])
    monkeypatch.setattr(measure, "Visitor", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        measure_explorer(sessions=1, changes=1)
    assert len(started) == 1
    assert started[0].poll() is not None


def test_lost_and_stale_pictures_are_counted(monkeypatch):
    """A visitor whose pictures never come, or come for the value before, counts as such."""

    class Late:
        titles = ("Autoguidance  (w = 3)", "Autoguidance  (w = 2)")

        def move(self, value, passing):
            return None if value == 3.0 else 0.1

        def last(self):
            return Shown("Autoguidance  (w = 2)", np.zeros((512, 2)))

        def leave(self):
            pass

    monkeypatch.setattr(measure, "_LOOK", 0)
    times, late = measure._visit(Late(), [2.0, 3.0])
    assert times == [0.1, None]
    assert late == 2


def test_the_ratios_are_those_of_the_medians_without_the_guided_runs():
    seen = InChromium([0.3, 0.5, 0.9], [0.1, 0.2, 0.3], [0.1, 0.2, 9.0], 1.0, [2.0, 3.0, 4.0], [1.0, 2.0, 3.0], [0.02])
    assert seen.answer_ratio == pytest.approx(0.3 / 0.2)
    assert seen.load_ratio == pytest.approx(3.0 / 2.0)
