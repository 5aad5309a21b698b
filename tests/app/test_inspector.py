"""An inspected point against the fields it is inspected in, and what is drawn and written of it."""

import math

import numpy as np
import pytest
import torch

import toyguide as tg
from toyguide.guidance.probe import guided_at
from toyguide_apps.explorer_page.compute import picture
from toyguide_apps.explorer_page.layers import point as inspector
from toyguide_apps.explorer_page.layers.point import SETTLE
from toyguide_apps.explorer_page.layers.point_arrows import KINDS
from toyguide_apps.explorer_page.session import Explorer
from toyguide_apps.explorer_page.state import ExplorerState

PAIR = {"dataset": "two-gaussians", "label": "union", "n": 128, "steps": 12, "step": 6, "rule": "sfg"}


def shown(**settings):
    state = ExplorerState()
    state.set({**PAIR, **settings})
    return picture(state.request())


@pytest.fixture(scope="module")
def seen():
    return shown(point=(0.1, 0.3)).inspection


def closed_form(seen):
    """The two Gaussians' exact field by hand (RULES, section 4): V = 0.05 + sigma^2, p the posterior of the right."""
    v = 0.05 + seen.sigma**2
    p = 1 / (1 + math.exp(-2 * seen.uv[0] / v))
    return v, p


def test_the_exact_numbers_are_those_of_the_closed_form(seen):
    u, w = seen.uv
    v, p = closed_form(seen)
    density = 0.5 * sum(math.exp(-((u - m) ** 2 + w**2) / (2 * v)) for m in (-1, 1)) / (2 * math.pi * v)
    assert seen.exact.log_density == pytest.approx(math.log(density), rel=1e-9)
    np.testing.assert_allclose(seen.exact.score, [(2 * p - 1 - u) / v, -w / v], rtol=1e-9)
    np.testing.assert_allclose(seen.exact.eigenvalues, [-1 / v + 4 * p * (1 - p) / v**2, -1 / v], rtol=1e-9)
    np.testing.assert_allclose(np.abs(seen.exact.eigenvectors), np.eye(2), atol=1e-9)
    np.testing.assert_allclose(seen.posterior, [1 - p, p], rtol=1e-9)
    assert seen.region == ("saddle" if seen.exact.eigenvalues[0] > 0 else "mode") == "saddle"


def test_the_learned_numbers_are_the_networks(seen):
    net = tg.load_model("two-gaussians/main").with_label(None)
    x = torch.tensor(seen.x)
    # The network runs in float32 here and in float64 there.
    np.testing.assert_allclose(seen.main.score, net.score(x, seen.sigma).detach(), rtol=1e-4)
    hessian = torch.func.jacrev(lambda y: net.score(y, seen.sigma))(x)
    hessian = hessian.detach().numpy()
    values = np.linalg.eigvalsh(hessian)[::-1]
    np.testing.assert_allclose(seen.main.eigenvalues, values, rtol=1e-3)
    for value, vector in zip(seen.main.eigenvalues, seen.main.eigenvectors, strict=True):
        np.testing.assert_allclose(hessian @ vector, value * vector, atol=1e-3 * abs(values).max())


def test_an_unguided_rules_terms_are_its_score(seen):
    terms = seen.terms[0]
    np.testing.assert_allclose(terms.moves["main"], seen.sigma**2 * seen.main.score, rtol=1e-4)
    assert not terms.push.any()
    np.testing.assert_array_equal(terms.guided, terms.moves["main"])
    assert not terms.remembers


def test_a_linear_rules_terms_are_its_formula():
    seen = shown(dataset="fractal", label="A", rule="cfg", params={"w": 2.5}, point=(0.4, 0.2)).inspection
    x = torch.tensor(seen.x)[None].float()
    main, uncond = (tg.load_model(f"fractal/{name}").denoise(x, seen.sigma).detach() for name in ("main", "uncond"))
    np.testing.assert_allclose(seen.terms[1].moves["uncond"], (uncond - x)[0], atol=1e-6)
    np.testing.assert_allclose(seen.terms[1].push, 1.5 * (main - uncond)[0], atol=1e-6)
    np.testing.assert_allclose(seen.terms[1].guided, (main + 1.5 * (main - uncond) - x)[0], atol=1e-6)


def test_sfgs_push_at_a_settled_point_lies_along_the_upward_eigenvector(seen):
    """w sigma^3 lambda v with the exact product; h = 0.1 is off by about a tenth of that."""
    push, (value, *_), (v, *_) = seen.terms[1].push, seen.main.eigenvalues, seen.main.eigenvectors
    assert seen.terms[1].remembers
    assert abs(push @ v) / np.linalg.norm(push) > 0.99
    assert np.linalg.norm(push) == pytest.approx(4.0 * seen.sigma**3 * value, rel=0.15)
    e = seen.terms[1].experiment
    x = torch.tensor(seen.x)[None].float()
    found = guided_at(e.build_rule(), e.build_fields(), x, float(e.levels()[6]), e.seed, settle=SETTLE)
    np.testing.assert_allclose(push, found["push"][0], atol=1e-6)


def test_the_trajectory_goes_on_from_the_point_as_the_runs_own_do():
    """At a point of the run, with a rule without memory, it is the rest of that run's trajectory."""
    settings = {**PAIR, "rule": "autoguidance"}
    run = shown(**settings).runs[1]
    point = tuple(run.frames[6, 3].tolist())
    path = shown(**settings, point=point).inspection.terms[1].path
    # The run's points go through float32 as this one does; a batch of one is rounded differently.
    np.testing.assert_allclose(path, run.frames[6:, 3], atol=1e-4)


def test_after_the_last_step_the_last_level_above_zero_is_looked_at():
    seen = shown(step=12, point=(0.1, 0.3)).inspection
    assert seen.at_end
    assert seen.sigma == pytest.approx(0.002)
    assert len(seen.terms[0].path) == 2


def test_sixteen_dimensions_are_inspected_at_the_point_in_the_plane():
    p = shown(dataset="simplex16", point=(0.1, -0.2), plane=("v2", "v5", "v7"))
    seen = p.inspection
    data = tg.load_dataset("simplex16")
    v2, v5, v7 = (data.field(name).mean for name in ("v2", "v5", "v7"))
    # The axes by hand: along the side from v2 to v5, and from its middle to v7; the centroid is the origin.
    u, w = (v5 - v2) / (v5 - v2).norm(), v7 - (v2 + v5) / 2
    x = (v2 + v5 + v7) / 3 + 0.1 * u - 0.2 * w / w.norm()
    np.testing.assert_allclose(seen.x, x, atol=1e-9)
    np.testing.assert_allclose(seen.exact.score, data.field().score(x, seen.sigma), rtol=1e-6)
    assert len(seen.exact.eigenvalues) == 16
    assert (np.diff(seen.exact.eigenvalues) <= 1e-9).all()
    np.testing.assert_array_equal(p.terms[0].strokes[:2, 0], np.float32(seen.uv))


def test_arrows_start_at_the_point_and_end_where_they_say():
    p = shown(dataset="fractal", label="A", rule="autoguidance", point=(0.1, 0.55))
    seen, drawing = p.inspection, p.terms[1]
    shafts = {KINDS[int(k)]: drawing.strokes[:, i] for i, k in reversed(list(enumerate(drawing.strokes[4])))}
    point = np.array(seen.uv)
    for role, kind in (("main", "main"), ("weak", "guide")):
        start, end = shafts[kind][:2], shafts[kind][2:4]
        np.testing.assert_allclose(start, point, atol=1e-6)
        np.testing.assert_allclose(end - point, drawing.scale * seen.terms[1].moves[role], atol=1e-5)
    np.testing.assert_allclose(shafts["push"][:2], shafts["main"][2:4], atol=1e-6)
    np.testing.assert_allclose(shafts["push"][2:4], shafts["guided"][2:4], atol=1e-6)
    assert set(drawing.names) >= {"main", "weak", "push", "guided"}
    assert p.terms[0].scale == drawing.scale  # the two sides can be compared


@pytest.mark.parametrize("point", [(0.1, 0.55), (0.55, 0.6), (0.4, 0.2), (0.3, 0.9)])
def test_no_label_lies_on_another(point):
    p = shown(dataset="fractal", label="A", rule="sfg+autoguidance", point=point)
    for drawing in p.terms:
        for i, (x, y) in enumerate(drawing.at.T / 2.91):  # the window's width
            for j, (u, v) in enumerate(drawing.at.T / 2.91):
                letters = (len(drawing.names[i]) + len(drawing.names[j])) / 2
                assert i == j or abs(x - u) > 0.0219 * letters or abs(y - v) > 0.0499


def test_dragging_one_rules_slider_leaves_the_other_rules_terms(monkeypatch):
    first = shown(rule="cfg", params={"w": 2.0}, point=(0.2, 0.2)).inspection
    calls = []
    real = inspector.guided_at
    monkeypatch.setattr(inspector, "guided_at", lambda *a, **k: calls.append(a) or real(*a, **k))
    second = shown(rule="cfg", params={"w": 2.5}, point=(0.2, 0.2)).inspection
    assert second.terms[0] is first.terms[0]
    assert len(calls) == 1


def test_the_panel_opens_with_the_exact_numbers_and_closes():
    explorer = Explorer()
    explorer.state.set({**PAIR, "point": (0.1, 0.3)})
    explorer._show(picture(explorer.state.request()))
    panel = explorer._inspector
    seen = explorer.picture.inspection
    assert panel._panel.visible
    assert f"{seen.exact.score[0]:.3g}" in panel._body.object
    assert f"{seen.sigma**2 * seen.exact.eigenvalues[0]:+.3f}" in panel._body.object
    assert f"{seen.posterior[1]:.3f}" in panel._body.object
    assert "saddle" in panel._title.object
    sent = explorer.stage.stage
    assert sent.board["point"] == [0.1, 0.3]
    way = sent.marks["panels"][1]["way"]
    np.testing.assert_array_equal(np.stack([way["x"], way["y"]], -1), seen.terms[1].path)

    panel._v.value = 0.35  # typed
    assert explorer.state.point == (0.1, 0.35)
    explorer.stage._hear({"kind": "point", "value": None, "held": False})  # Escape
    assert explorer.state.point is None
    assert not panel._panel.visible
    explorer._show(picture(explorer.state.request()))
    assert sent.board["point"] is None
    assert sent.marks == {"panels": []}


def test_the_inspect_button_starts_in_the_middle_of_the_window():
    explorer = Explorer()
    explorer.state.set({**PAIR, "window": (0.0, 0.5, 1.0, 1.5)})
    press = {"kind": "open", "what": "point"}
    explorer.stage._hear({**press, "on": True})
    assert explorer.state.point == (0.5, 1.0)
    explorer.state.set({"point": (0.2, 0.2)})
    explorer.stage._hear({**press, "on": False})
    assert explorer.state.point is None
