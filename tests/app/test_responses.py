"""Metrics against parameters, over seeds: against runs one by one, and beside the pictures."""

import asyncio
import threading

import numpy as np
import pytest
from scipy import stats

from toyguide import Experiment
from toyguide.errors import InputError
from toyguide_apps.explorer_page.layers import responses as layer
from toyguide_apps.explorer_page.layers.responses import (
    MEASURED,
    checked_curve,
    measure,
    parameters,
    plan,
    question,
    responses,
    value_of,
    varied,
)
from toyguide_apps.explorer_page.permalink import query_of, read
from toyguide_apps.explorer_page.precedence import PICTURES
from toyguide_apps.explorer_page.runs import CancelledError
from toyguide_apps.explorer_page.session import Explorer
from toyguide_apps.explorer_page.state import ExplorerState

PAIR = {"dataset": "two-gaussians", "main": "exact", "weak": "exact+noise:0.2", "n": 64, "steps": 6}
SCENE = {**PAIR, "label": "union", "n": 128, "bands": "none", "layers": ["samples"], "rule": "autoguidance"}


def unguided(**settings):
    return Experiment(**{**PAIR, "weak": None, **settings})


def guided(w=2.0, **settings):
    return Experiment(**{**PAIR, "rule": "autoguidance", "params": {"w": w}, **settings})


@pytest.fixture(autouse=True)
def forgotten():
    layer._measured.clear()


def measured(of):
    """All of a plan's runs made; how many there were after each batch."""

    async def go():
        return [of.progress()[0] async for _ in measure(of, "cpu", lambda: False)]

    return asyncio.run(go())


def test_a_curve_is_that_of_runs_one_by_one(monkeypatch):
    monkeypatch.setitem(layer._COUNT, 1, 3)
    of = plan(question((unguided(), guided()), ("w",), seeds=3))
    (axis,) = of.axes
    assert axis.values == (0.0, 5.0, 10.0)
    measured(of)
    for metric in ("log_density", "coverage", "nfe"):
        flat, curve = responses(of, metric)
        assert flat.mean.shape == ()
        assert curve.mean.shape == (3,)
        for response, at, e in [(flat, (), unguided()), *((curve, (i,), guided(w)) for i, w in enumerate(axis.values))]:
            settings = e.settings()
            values = [Experiment(**{**settings, "seed": s}).run("cpu").metrics(resamples=0)[metric] for s in range(3)]
            low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values)) if np.ptp(values) else values[:2]
            # A run in a batch differs from one alone by its rounding.
            for found, expected in ((response.mean, np.mean(values)), (response.low, low), (response.high, high)):
                np.testing.assert_allclose(found[at], expected, rtol=1e-3, atol=1e-4)


def test_moving_along_a_curve_asks_the_same_and_another_change_does_not():
    runs = (unguided(), guided(2.0))
    asked = question(runs, ("w",), 5)
    assert question((unguided(), guided(3.7)), ("w",), 5) == asked
    assert plan(question((unguided(), guided(3.7)), ("w",), 5)) is plan(asked)
    for other in (
        question((unguided(), guided(2.0, steps=7)), ("w",), 5),
        question((unguided(), guided(2.0, seed=1)), ("w",), 5),
        question(runs, ("w",), 6),
        question(runs, ("steps",), 5),
        question(runs, ("w", "steps"), 5),
    ):
        assert other != asked
    assert question((guided(25.0),), ("w",), 5).axes[0].values[-1] == 25.0  # as far as the present value


def test_the_first_values_lie_far_apart_and_the_next_between_them(monkeypatch):
    monkeypatch.setattr(layer, "batches", lambda runs, *_: [[e] for e in runs])
    of = plan(question((unguided(n=8), guided(n=8)), ("w",), 2))

    def known():
        return np.isfinite(responses(of, "outliers")[1].mean).nonzero()[0].tolist()

    async def go():
        return [known() async for _ in measure(of, "cpu", lambda: False)]

    seen = asyncio.run(go())
    assert len(seen) == 36
    assert seen[11] == [0, 4, 8, 12, 16]
    assert seen[19] == list(range(0, 17, 2))
    assert seen[-1] == list(range(17))
    assert of.progress() == (36, 36)
    assert measured(of) == []  # nothing is made twice, whatever metric is asked


def test_the_runs_are_made_in_the_sweeps_batches():
    of = plan(question((guided(),), ("w",), 5))
    assert measured(of) == [25, 45, 77, 85]  # all of a round, but of at most 2048 points


def test_a_map_has_a_place_for_each_pair_and_for_panels_with_both(monkeypatch):
    monkeypatch.setitem(layer._COUNT, 2, 3)
    of = plan(question((unguided(n=16), guided(n=16, interval=(0.1, 1.0))), ("w", "interval.low"), 2))
    measured(of)
    none, found = responses(of, "log_density")
    assert np.isnan(none.mean).all()
    low = of.axes[1].values
    assert low[0] == 0.002
    assert found.mean.shape == (3, 3)
    fits = np.array([value < 1.0 for value in low])
    assert 0 < fits.sum() < 3
    assert (np.isfinite(found.mean) == fits).all()  # an interval from above its upper end is none
    i, j = 2, 1
    e = guided(of.axes[0].values[i], n=16, interval=(low[j], 1.0))
    values = [Experiment(**{**e.settings(), "seed": s}).run("cpu").metrics(resamples=0)["log_density"] for s in (0, 1)]
    assert found.mean[i, j] == pytest.approx(np.mean(values), rel=1e-3)


def test_every_parameter_has_its_value_and_takes_another():
    sfg = Experiment("two-gaussians", rule="sfg", interval=(0.1, 1.0), steps=8)
    assert parameters([unguided(), sfg]) == ["w", "alpha", "h", "steps", "interval.low", "interval.high"]
    assert parameters([unguided()]) == ["steps"]
    for name, value, now in (("w", 3.0, 4.0), ("h", 0.5, 0.1), ("steps", 12, 8), ("interval.low", 0.2, 0.1)):
        assert value_of(sfg, name) == now
        moved = varied(sfg, name, value)
        assert value_of(moved, name) == value
        assert varied(moved, name, now) == sfg
    assert varied(sfg, "interval.low", 1.0) is None
    assert value_of(unguided(), "w") is None
    assert value_of(unguided(interval=(0.1, 1.0)), "interval.low") is None  # where nothing is guided it changes nothing
    axis = question((sfg,), ("h",), 2).axes[0]
    assert axis.logarithmic
    np.testing.assert_allclose(np.diff(np.log(axis.values)), np.log(1e4) / 16, rtol=0.01)


def test_it_waits_while_a_picture_is_computed_and_ends_when_it_is_no_longer_wanted(monkeypatch):
    of = plan(question((guided(n=8),), ("w",), 2))
    steps, wanted, at_rest = [], threading.Event(), threading.Event()
    wanted.set()
    wait = PICTURES.wait

    def counted():
        steps.append(None)
        at_rest.set()
        wait()

    monkeypatch.setattr(PICTURES, "wait", counted)

    async def go():
        async for _ in measure(of, "cpu", lambda: not wanted.is_set()):
            pass

    failed = []

    def job():
        try:
            asyncio.run(go())
        except CancelledError as problem:
            failed.append(problem)

    with PICTURES.first():
        thread = threading.Thread(target=job)
        thread.start()
        assert at_rest.wait(20)
        thread.join(0.3)
        assert len(steps) == 1
        wanted.clear()
    thread.join(20)
    assert len(failed) == 1
    assert len(steps) == 1
    assert of.progress()[0] == 0


def test_what_does_not_exist_is_said():
    assert checked_curve(("coverage", "w", "steps")) == ("coverage", "w", "steps")
    assert checked_curve(None) is None
    for wrong, nearest in ((("cover", "w"), "coverage"), (("coverage", "step"), "steps"), (("coverage",), "metric")):
        with pytest.raises(InputError, match=nearest):
            checked_curve(wrong)
    with pytest.raises(InputError, match="different"):
        checked_curve(("coverage", "w", "w"))
    assert "seconds" not in MEASURED


def test_a_link_keeps_the_curve():
    state = ExplorerState()
    assert read(state, {"curve": "coverage,w,steps", "seeds": "3"}) == []
    assert (state.curve, state.seeds) == (("coverage", "w", "steps"), 3)
    assert query_of(state)["curve"] == "coverage,w,steps"
    assert query_of(state)["seeds"] == "3"
    assert len(read(state, {"curve": "coverage,wrong"})) == 1
    assert state.curve == ("coverage", "w", "steps")
    state.apply("figure-1e")
    assert state.curve is None


@pytest.fixture
def explorer(monkeypatch):
    monkeypatch.setattr("panel.state.execute", lambda *_, **__: None)
    monkeypatch.setitem(layer._COUNT, 1, 5)
    monkeypatch.setitem(layer._COUNT, 2, 3)
    explorer = Explorer()
    explorer.state.set({**SCENE, "seeds": 2})
    return explorer


def test_the_panel_draws_the_curve_and_its_mark_sets_the_parameter(explorer):
    state, view = explorer.state, explorer._responses
    assert not len(view._panel)
    explorer.stage._hear({"kind": "open", "what": "curve", "on": True})
    assert state.curve == ("outliers", "w")
    assert len(view._panel)
    asyncio.run(view.refresh())
    flat, curve = responses(view._plan, "outliers")
    np.testing.assert_array_equal(view._sources[1]["line"].data["mean"], curve.mean)
    np.testing.assert_array_equal(view._sources[0]["line"].data["mean"], [flat.mean, flat.mean])
    assert view._sources[0]["line"].data["x"].tolist() == [0.0, 10.0]
    assert "of" not in view._text.object.rsplit("·", 1)[-1]  # nothing is missing
    (mark,) = view._marks[1, "w"]
    assert (0, "w") not in view._marks
    assert mark.location == state.panels[1].rule.w == 3.0
    asked = view._question
    mark.location = 4.567
    assert state.panels[1].rule.w == 4.57
    assert view._question is asked
    state.set({"params": {"w": 2.0}})
    assert mark.location == 2.0

    view._metric.value = "coverage"
    assert state.curve == ("coverage", "w")
    np.testing.assert_array_equal(view._sources[1]["line"].data["mean"], responses(view._plan, "coverage")[1].mean)
    view._metric.value = "tips"
    assert "no such number" in view._text.object
    view._metric.value = "coverage"
    view._first.value = "steps"
    asyncio.run(view.refresh())
    assert state.curve == ("coverage", "steps")
    (mark,) = view._marks[0, "steps"]
    mark.location = 9.3
    assert state.steps == 9
    state.set({"rule": "none", "curve": ("coverage", "w")})
    assert "No panel has the parameter w" in view._text.object
    view._content[0][-1].clicks += 1
    assert state.curve is None
    assert not len(view._panel)
    assert not len(view._panel)


def test_the_panel_draws_a_map_for_each_panel_that_has_both(explorer):
    state, view = explorer.state, explorer._responses
    state.set({"curve": ("coverage", "w")})
    view._second.value = "steps"
    assert state.curve == ("coverage", "w", "steps")
    asyncio.run(view.refresh())
    assert len(view._plots[0]) == 1
    found = responses(view._plan, "coverage")[1]
    cells = view._sources[1]["cells"].data
    assert len(cells["mean"]) == 9
    across, up = view._plan.axes
    columns = (cells[k] for k in ("left", "right", "bottom", "top", "mean"))
    for left, right, bottom, top, mean in zip(*columns, strict=True):
        i = next(i for i, v in enumerate(across.values) if left <= v <= right)
        j = next(j for j, v in enumerate(up.values) if bottom <= v <= top)
        assert mean == found.mean[i, j]
    assert {name for _, name in view._marks} == {"w", "steps"}


def test_a_held_slider_waits_and_a_visitor_who_left_ends_it(explorer):
    state, view = explorer.state, explorer._responses
    state.set({"curve": ("coverage", "w"), "held": True})
    asyncio.run(view.refresh())
    assert view._plan is None
    state.set({"held": False})
    explorer.close()
    asyncio.run(view.refresh())
    assert view._plan is None
