"""One sample followed through its run, against closed forms on two Gaussians and against evaluations one by one."""

import asyncio
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import toyguide as tg
from toyguide import Experiment
from toyguide.probes import probe
from toyguide_apps.explorer_page.compute import picture
from toyguide_apps.explorer_page.layers import trail as layer
from toyguide_apps.explorer_page.layers.trail import trail
from toyguide_apps.explorer_page.permalink import query_of, read
from toyguide_apps.explorer_page.runs import finished
from toyguide_apps.explorer_page.session import Explorer
from toyguide_apps.explorer_page.state import ExplorerState

SCENE = {"dataset": "two-gaussians", "label": "union", "n": 128, "steps": 8, "bands": "none", "layers": ["samples"]}
EXAMPLES = Path(__file__).parents[1] / "example_rules"
V0 = 0.05  # the variance of each of the Gaussians, whose means are (-1, 0) and (1, 0)


def never():
    return False


def close(found, expected, tolerance=1e-9):
    np.testing.assert_allclose(found, np.asarray(expected), rtol=tolerance, atol=tolerance)


def test_the_terms_are_those_of_the_closed_form():
    """CFG on exact fields: a Gaussian about (1, 0) guided away from both."""
    w = 3.0
    data = tg.load_dataset("two-gaussians")
    right = max(data.labels, key=lambda label: float(data.field(label).mean[0]))
    e = Experiment("two-gaussians", right, "exact", "exact@union", rule="cfg", params={"w": w}, n=64, steps=12)
    found = trail(e, 5, "cpu", never)
    x = e.run("cpu").x[:, 5].double()
    sigma = e.levels()
    v = sigma**2 + V0
    share = torch.sigmoid(2 * x[:, 0] / v)  # of the right one
    close(found.posterior[:, found.labels.index(right)], share)
    assert found.label == right
    square = (x[:, 0] - 1) ** 2 + x[:, 1] ** 2
    close(found.log_density, -square / (2 * v) - torch.log(2 * math.pi * v))

    x, v, sigma, share = x[:-1], v[:-1], sigma[:-1], share[:-1]
    towards = (sigma**2 / v)[:, None]
    axis = torch.tensor([1.0, 0.0], dtype=torch.float64)
    main, uncond = towards * (axis - x), towards * ((2 * share - 1)[:, None] * axis - x)
    close(found.moves["main"], main.norm(dim=-1))
    close(found.moves["uncond"], uncond.norm(dim=-1))
    push = (w - 1) * (main - uncond)
    # The run is in float32: of D to 1e-7, of a difference of two of them to about as much.
    close(found.push, push.norm(dim=-1), 1e-5)
    far = push.norm(dim=-1).numpy() > 1e-3
    assert far.sum() > 3
    close(found.to_main[far], torch.cosine_similarity(push, main)[far], 1e-3)
    assert np.isnan(found.to_truth).all()  # main is exact
    close(found.curvature, -(sigma**2) / v)
    assert found.quotient is None


@pytest.mark.parametrize(("dataset", "label"), [("fractal", "A"), ("simplex16", None)])
def test_each_step_is_as_if_evaluated_alone(dataset, label):
    w, index = 2.0, 9
    e = Experiment(
        dataset, label, f"{dataset}/main", weak=f"{dataset}/weak", rule="autoguidance", params={"w": w}, n=32, steps=10
    )
    found = trail(e, index, "cpu", never)
    x = e.run("cpu").x[:, index].double()
    exact = e.data.field(e.label)
    main, weak = (tg.load_model(f"{dataset}/{name}") for name in ("main", "weak"))
    for k, sigma in enumerate(e.levels()[:-1].tolist()):
        with torch.no_grad():
            d1, d0, d = (f.denoise(x[k : k + 1], sigma)[0] for f in (main, weak, exact))
            hessian = main.hessian(x[k : k + 1], sigma)[0]
        close(found.moves["main"][k], (d1 - x[k]).norm(), 1e-8)
        close(found.moves["weak"][k], (d0 - x[k]).norm(), 1e-8)
        push, lacking = (w - 1) * (d1 - d0), d - d1
        close(found.push[k], push.norm(), 2e-5)
        if push.norm() > 1e-3:
            close(found.to_main[k], push @ (d1 - x[k]) / push.norm() / (d1 - x[k]).norm(), 2e-3)
            close(found.to_truth[k], push @ lacking / push.norm() / lacking.norm(), 2e-3)
        close(found.curvature[k], sigma**2 * torch.linalg.eigvalsh(hessian)[-1], 1e-7)
        close(found.log_density[k], exact.log_density(x[k], sigma))
        close(found.posterior[k], e.data.posterior(x[k], sigma))
    assert np.isfinite(found.to_truth).all()


def test_what_sfg_carries_is_that_of_the_run():
    """lambda is v' (sigma^2 H) v up to the finite difference, and v's angle is that to eigh's vector."""
    e = Experiment("two-gaussians", None, "two-gaussians/main", rule="sfg", params={"h": 1e-3}, n=16, steps=12)
    found, run, index = trail(e, 3, "cpu", never), e.run("cpu"), 3
    main = tg.load_model("two-gaussians/main")
    for k, sigma in enumerate(e.levels()[:-1].tolist()):
        v, x = run.trace["v"][k, index].double(), run.x[k, index].double()
        with torch.no_grad():
            matrix = sigma**2 * main.hessian(x, sigma)
        vector = torch.linalg.eigh(matrix).eigenvectors[:, -1]
        close(found.alignment[k], (v @ vector).abs(), 1e-6)
        close(found.quotient[k], v @ matrix @ v, 0.02)
    pushed = found.quotient > 0
    assert ((found.push > 0) == pushed).all()


def test_a_resampled_sample_is_followed_through_its_ancestors(monkeypatch):
    monkeypatch.setenv("TOYGUIDE_RULES", str(EXAMPLES))
    e = Experiment("two-gaussians", None, "exact", rule="tilted", n=32, steps=6, sampler="ancestral")
    found, run = trail(e, 7, "cpu", never), e.run("cpu")
    assert run.ancestors is not None
    x = run.paths()[:, 7].double()
    assert (x != run.x[:, 7].double()).any()
    close(found.log_density, [e.data.field().log_density(x[k], float(s)) for k, s in enumerate(e.levels())])


def test_a_run_that_does_not_guide_has_no_direction():
    e = Experiment("fractal", "A", rule="autoguidance", interval=(0.05, 0.5), n=32, steps=16)
    found = trail(e, 0, "cpu", never)
    guided = (found.sigma[:-1] > 0.05) & (found.sigma[:-1] <= 0.5)
    assert guided.any()
    assert not guided.all()
    assert ((found.push > 0) == guided).all()
    assert (np.isfinite(found.to_main) == guided).all()
    assert (np.isfinite(found.to_truth) == guided).all()
    assert np.isfinite(found.moves["weak"]).all()
    assert trail(e, 32, "cpu", never) is None


def test_a_diverged_sample_is_followed_as_far_as_it_goes():
    e = Experiment("fractal", "A", rule="sfg", n=16, steps=6)
    run, pushes = finished(e, "cpu", never)
    x, lost = run.x.clone(), pushes.clone()
    x[4:, 2], lost[3:, 2] = torch.inf, torch.nan
    found, whole = layer._trail(2, replace(run, x=x), lost), layer._trail(2, run, pushes)
    for name in ("push", "to_main", "to_truth", "curvature", "log_density", "alignment"):
        np.testing.assert_array_equal(getattr(found, name)[:3], getattr(whole, name)[:3])
        assert not np.isfinite(getattr(found, name)[4:]).any()


def test_the_panel_follows_a_sample_and_closes(monkeypatch):
    monkeypatch.setattr("panel.state.execute", lambda *_, **__: None)
    explorer = Explorer()
    explorer.state.set({**SCENE, "rule": "autoguidance", "weak": "exact+noise:0.2"})
    assert picture(explorer.state.request()).trails is None
    view = explorer._trail
    assert not len(view._panel)
    explorer.state.set({"sample": 17})
    asyncio.run(explorer.refresh())
    assert len(view._plots) == 2
    first, second = explorer.picture.trails
    np.testing.assert_array_equal(view._sources[1].data["to_main"], second.to_main)
    np.testing.assert_array_equal(view._sources[0].data["log_density"], first.log_density[:-1])
    assert np.isnan(view._sources[0].data["size"]).all()  # unguided: no length on a logarithmic axis
    assert len(view._moves[1].data["ys"]) == 2
    assert "Sample 17" in view._text.object
    assert "trail-alignment" not in str(view._plots)
    explorer.state.set({"rule": "sfg", "step": 3})
    asyncio.run(explorer.refresh())
    assert {span.location for span in view._here} == {explorer.state.levels()[3]}
    assert explorer.picture.trails[0] is first  # not computed again
    assert len(view._plots[0]) + len(view._plots[1]) == 9
    view._head[1].clicks += 1
    assert explorer.state.sample is None
    assert not len(view._panel)


def test_a_rule_is_compared_with_cfg_at_its_nearest_weight():
    """Of the combined rule: CFG's own weight is its nearest if the weak field is the unconditional one."""
    given = {"dataset": "two-gaussians", "label": "left", "main": "exact", "n": 8, "steps": 6}
    guided = tg.Experiment(**given, rule="cfg", params={"w": 2.5})
    found = trail(guided, 3, "cpu", lambda: False)
    known = np.isfinite(found.scale)
    assert known[0]
    np.testing.assert_allclose(found.scale[known], 2.5, atol=0.02)
    assert found.beyond[known].max() < 0.01
    weaker = tg.Experiment(**given, rule="autoguidance", weak="exact+noise:0.3")
    away = trail(weaker, 3, "cpu", lambda: False)
    np.testing.assert_allclose(away.scale[0], probe(weaker).scale[0, 3], rtol=1e-3)
    assert 0 < away.beyond[0] < 1


def test_a_link_keeps_the_sample():
    state = ExplorerState()
    assert read(state, {"sample": "17"}) == []
    assert state.sample == 17
    assert query_of(state)["sample"] == "17"
    assert len(read(state, {"sample": "-3"})) == 1
    assert len(read(state, {"sample": "some"})) == 1
    assert state.sample == 17
    state.apply("figure-1e")
    assert state.sample is None
