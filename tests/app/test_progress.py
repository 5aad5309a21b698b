"""Pictures while a slider is dragged: few samples first, then all of them, and no old picture for a new value."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
import torch

import toyguide as tg
from toyguide.contract import allowed
from toyguide_apps.explorer_page import compute as computing
from toyguide_apps.explorer_page import runs as running
from toyguide_apps.explorer_page import scene
from toyguide_apps.explorer_page.compute import FIRST, CancelledError, picture
from toyguide_apps.explorer_page.controls import LiveSlider
from toyguide_apps.explorer_page.runs import run_paths
from toyguide_apps.explorer_page.session import Explorer
from toyguide_apps.explorer_page.state import LAYERS, ExplorerState

SCENE = {"dataset": "two-gaussians", "label": "union", "n": 256, "steps": 8, "bands": "none"}


@pytest.fixture
def explorer(monkeypatch):
    """An explorer without a server and with nothing computed: what a change schedules is left to the test."""
    monkeypatch.setattr(running, "_runs", type(running._runs)(4))
    monkeypatch.setattr(running, "_paths", type(running._paths)(64))
    monkeypatch.setattr(computing, "_pictures", type(computing._pictures)(32))
    monkeypatch.setattr("panel.state.execute", lambda *_, **__: None)
    made = Explorer()
    made.state.set(SCENE)
    return made


@pytest.fixture
def shown(explorer, monkeypatch):
    """What the explorer's stage was told to show, picture by picture."""
    pictures = []
    show = explorer.stage.show

    def note(drawn, look):
        pictures.append(drawn)
        show(drawn, look)

    monkeypatch.setattr(explorer.stage, "show", note)
    return pictures


def drag(explorer, w, held=True):
    reference, chosen = explorer.state.panels
    panels = (reference, replace(chosen, rule=tg.rule("cfg", w=w)))
    explorer.state.param.update(panels=panels, held=held)


@pytest.mark.parametrize("key", [key for key, cls in tg.rules().items() if not cls.interacts])
def test_the_first_trajectories_are_those_of_the_whole_run(key):
    """Rounding alone may differ (the matrix products' blocks do), and grows along the trajectories: hence the 1e-3."""
    sampler = allowed(tg.rule(key))
    e = tg.Experiment(dataset="fractal", label="A", rule=key, sampler=sampler, steps=12, n=300, seed=3)
    whole = torch.stack([s.x for s in e.walk()])
    first = torch.stack([s.x for s in e.walk(first=FIRST)])
    assert torch.equal(first[0], whole[0, :FIRST])
    torch.testing.assert_close(first, whole[:, :FIRST], atol=1e-3, rtol=1e-3)


def test_dragging_gives_few_samples_and_letting_go_all_of_them(explorer, shown):
    async def visit():
        await explorer.refresh()
        for w in (2.0, 3.0):
            drag(explorer, w)
            running = asyncio.ensure_future(explorer.refresh())
            await until(lambda w=w: shown[-1].request.runs[1].params == {"w": w})
            drag(explorer, w, held=w < 3.0)
            await asyncio.sleep(0)
        await running

    asyncio.run(visit())
    assert [p.coarse for p in shown] == [False, True, True, False]
    assert [p.runs[1].frames.shape[1] for p in shown] == [256, FIRST, FIRST, 256]
    assert all(len(p.runs[0].outlier) == 256 for p in shown)  # nothing on the left has changed
    np.testing.assert_allclose(shown[-2].runs[1].frames, shown[-1].runs[1].frames[:, :FIRST], atol=1e-4)


def test_numbers_and_titles_do_not_pass_a_coarse_picture_off_as_a_whole_one(explorer, shown):
    explorer.state.set({"table": True})

    def title(index):
        return explorer.stage.stage.board["panels"][index]["title"]

    async def visit():
        await explorer.refresh()
        table, headline = explorer._table._pane.object, explorer.stage.stage.headline
        drag(explorer, 2.0)
        running = asyncio.ensure_future(explorer.refresh())
        await until(lambda: shown[-1].coarse)
        assert explorer._table._pane.object == table
        assert explorer.stage.stage.headline == headline
        assert explorer.stage.stage.status["coarse"] == 1
        assert f"first {FIRST} of 256" in title(1)
        assert "first" not in title(0)
        assert shown[-1].runs[1].metrics == {}
        await running
        assert explorer._table._pane.object != table
        assert explorer.stage.stage.headline != headline
        assert explorer.stage.stage.status == {"busy": 0, "coarse": 0}
        assert "first" not in title(1)

    asyncio.run(visit())


def test_a_slider_that_is_held_still_gets_its_whole_picture(explorer, shown):
    drag(explorer, 2.0)
    asyncio.run(explorer.refresh())
    assert [p.coarse for p in shown] == [True, False]
    assert explorer.state.held


def test_a_storm_of_changes_ends_in_the_last_ones_picture(explorer, shown):
    """Single changes, each given up for the next: something is shown all the time, and at last the last one, whole."""
    values = [round(1 + 0.1 * i, 1) for i in range(40)]

    async def storm():
        running = asyncio.ensure_future(explorer.refresh())
        for w in values:
            drag(explorer, w, held=False)
            await asyncio.sleep(0.004)
        await running

    asyncio.run(storm())
    order = [values.index(p.request.runs[1].params["w"]) for p in shown if p.request.runs[1].rule == "cfg"]
    assert order == sorted(order)  # never back
    assert any(p.coarse for p in shown)
    assert shown[-1].request == explorer.state.request()
    assert not shown[-1].coarse
    assert explorer.stage.stage.board["panels"][1]["title"].endswith("(w = 4.9)")
    frames = explorer.stage.stage.run_2["x"].reshape(9, 256)
    expected = explorer.state.request().runs[1].run("cpu").x[..., 0]
    np.testing.assert_allclose(frames, expected, atol=1e-4)


def test_a_run_given_up_makes_no_further_step(monkeypatch):
    """A field that counts: after the question is answered with yes, at most the step that was begun is finished."""

    class Counting:
        evaluations = 1

        def __init__(self, field):
            self.field, self.count = field, 0

        def denoise(self, x, sigma):
            self.count += 1
            return self.field.denoise(x, sigma)

    e = tg.Experiment(dataset="two-gaussians", main="exact", steps=20, n=64, seed=901)
    counting = Counting(e.build_field())
    monkeypatch.setattr(running, "scene_of", lambda *_: e.scene("cpu", {"main": counting}))
    at_stop = []

    def cancelled():
        if counting.count >= 10:
            at_stop.append(counting.count)
        return bool(at_stop)

    with pytest.raises(CancelledError):
        run_paths(e, "cpu", cancelled)
    assert len(at_stop) == 1  # asked no more
    assert counting.count == at_stop[0] <= 11  # Heun evaluates twice a step


@pytest.mark.parametrize("allowed", range(6))
def test_no_layer_is_begun_after_a_picture_is_given_up(allowed, monkeypatch):
    state = ExplorerState()
    state.set({**SCENE, "layers": list(LAYERS), "bands": "ratio", "step": 4, "rule": "cfg"})
    request = state.request()
    picture(request)  # so that the runs are there and only the layers are asked about
    made = []
    for name in ("ratio", "lines", "boundary", "region", "other_regions", "score_arrows", "saddles"):
        monkeypatch.setattr(scene.densities, name, lambda *_, name=name: made.append(name))
    asked = []

    def cancelled():
        asked.append(1)
        return len(asked) > allowed

    with pytest.raises(CancelledError):
        picture(request, cancelled)
    assert len(made) == allowed


def test_what_was_computed_whole_is_not_computed_coarse():
    e = tg.Experiment(dataset="two-gaussians", steps=6, n=256, seed=902)
    whole = run_paths(e, "cpu", lambda: False)
    assert run_paths(e, "cpu", lambda: False, first=FIRST) is whole
    other = tg.Experiment(dataset="two-gaussians", steps=6, n=256, seed=903)
    coarse = run_paths(other, "cpu", lambda: False, first=FIRST)
    assert coarse.coarse
    assert not run_paths(other, "cpu", lambda: False).coarse
    assert not whole.coarse


def test_sessions_share_runs_and_layers():
    first, second = ExplorerState(), ExplorerState()
    for state in (first, second):
        state.set({**SCENE, "seed": 904, "bands": "exact", "step": 4, "layers": ["score", "samples"]})
    a, b = picture(first.request()), picture(second.request())
    assert a.runs[1] is b.runs[1]
    assert a.runs[0] is b.runs[0]
    assert a.scenes[1].image is b.scenes[1].image
    assert a.scenes[1].score is b.scenes[1].score


def test_the_kept_runs_are_bounded(monkeypatch):
    monkeypatch.setattr(running, "_paths", type(running._paths)(3))
    for seed in range(5):
        run_paths(tg.Experiment(dataset="two-gaussians", steps=2, n=8, seed=seed), "cpu", lambda: False)
    assert len(running._paths) == 3


def test_a_slider_is_held_from_its_first_change_to_its_release():
    """What the browser sends: while dragging values alone, then the throttled one; a key sends both."""
    slider = LiveSlider(start=0, end=10, value=1.0)
    assert not slider.held
    slider._process_events({"value": 2.0})
    assert slider.held
    slider._process_events({"value": 3.0})
    slider._process_events({"value_throttled": 3.0})
    assert not slider.held
    slider._process_events({"value": 4.0, "value_throttled": 4.0})
    assert not slider.held
    slider.value = 7.0  # by a preset
    assert not slider.held


async def until(true, patience=30.0):
    async with asyncio.timeout(patience):
        while not true():
            await asyncio.sleep(0.005)
