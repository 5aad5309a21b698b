"""The studies of autoguidance: its second figure, degradations, capacity and training, hyperparameters, targets."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import seeded
from study_rows import ExactShop, measured, metrics, rows_like

from toyguide.datasets import load_dataset
from toyguide.datasets.checkpoints import save_model
from toyguide.experiment import Experiment
from toyguide.fields.mixtures import GaussianMixture
from toyguide.fields.networks import EnergyMLP
from toyguide.metrics import measure
from toyguide.studies import Plan, study
from toyguide.studies.claims import autoguidance_capacity_and_time as ablation
from toyguide.studies.claims import autoguidance_degradations as degraded
from toyguide.studies.claims import autoguidance_denoising as targets
from toyguide.studies.claims import autoguidance_hyperparameters as hyper
from toyguide.studies.claims import autoguidance_narrows as narrows
from toyguide.studies.claims.shared import raised_noise as raised
from toyguide.studies.rows import Rows, at_best
from toyguide.studies.workshop import trained
from toyguide.training import train

N = 128


@pytest.fixture
def shop(tmp_path):
    return ExactShop(tmp_path)


def test_a_seed_has_no_part_in_the_choice_of_its_setting():
    # The second setting is the better one for the first two seeds, and worse on average wherever the third counts.
    assert at_best({"a": [1.0, 1.0, 1.0], "b": [0.5, 0.5, 9.0]}) == [1.0, 1.0, 9.0]
    assert at_best({"a": [2.0], "b": [1.0]}) == [1.0]


# --- degradations -------------------------------------------------------------------------------------------------


def test_the_closed_form():
    assert raised.closed_form(0.1, 0.2) == pytest.approx(0.44 / 0.23)
    assert raised.closed_form(1e-6, 2e-6) == pytest.approx(2, rel=1e-5)  # off by about the share
    # What it says: the errors, linear in d, cancel.
    w, d1, d0 = raised.closed_form(0.05, 0.2), 1.05**2 - 1, 1.2**2 - 1
    assert w * d1 + (1 - w) * d0 == pytest.approx(0)


def test_the_distance_of_a_shift_and_of_a_stretch():
    x = torch.randn(500, 2, generator=seeded(), dtype=torch.float64)
    # Over all directions u the mean of (t.u)^2 is |t|^2 / 2; of x's own projections, E |x|^2 / 2.
    assert degraded.distance(x + torch.tensor([0.3, 0.4]), x[torch.randperm(500)]) == pytest.approx(0.5 / math.sqrt(2))
    assert degraded.distance(1.5 * x, x) == pytest.approx(0.5 * math.sqrt(float(x.square().sum(-1).mean()) / 2))
    assert degraded.distance(x, x.flip(0)) == 0


def test_the_weight_of_the_least_score_error():
    """To first order the closed form. Across a thin support the score is ``-n / (sigma (1 + r))``, which makes the best
    weight (1 + r1)^2 times as large, with no further order; along it the error is smaller, so it lies between."""
    small = raised.score_error_weight(1e-3, 2e-3, 64, 0)
    assert small == pytest.approx(raised.closed_form(1e-3, 2e-3), rel=2.5e-3)  # (1 + r1)^2 - 1 and rounding
    first = raised.closed_form(0.1, 0.2)
    large = raised.score_error_weight(0.1, 0.2, 64, 0)
    assert first * 1.15 < large < first * 1.21


def test_the_least_squares_weight_is_where_the_error_is_least():
    e = Experiment("fractal", "A", main="exact")
    exact, generator = e.data.field("A"), seeded(3)
    error = dict.fromkeys((2.2, 2.25, 2.3, 2.35), 0.0)
    for sigma in e.levels()[:-1].tolist():
        x = exact.sample(64, sigma, generator).double()
        s, s1, s0 = (exact.score(x, sigma * (1 + r)) for r in (0, 0.1, 0.2))
        for w in error:
            error[w] += sigma**2 * float((w * s1 + (1 - w) * s0 - s).square().sum())
    a, b, _ = np.polyfit(list(error), list(error.values()), 2)  # exactly a parabola
    assert raised.score_error_weight(0.1, 0.2, 64, 3) == pytest.approx(-b / (2 * a), rel=1e-5)


def test_the_best_weight_of_a_parabola_is_its_vertex():
    rows = rows_like(
        "autoguidance-degradations", lambda key, z: {"damage": math.hypot(key.get("w", 0) - 1.9 - 0.1 * z, 0.3)}
    )
    noise = np.random.default_rng(0).normal(0, 1, 5)
    assert degraded._best_weights(rows, "level") == pytest.approx(list(1.9 + 0.1 * noise))


def test_what_is_not_degraded_is_not_damaged(shop):
    found = measured("autoguidance-degradations", shop, base="exact", main="nothing")
    assert found["damage"] == 0
    assert found["sliced_w2"] == metrics(Experiment("fractal", "A", main="exact", n=N))["sliced_w2"]


def test_a_raised_level_is_mended_where_the_closed_form_says(shop):
    damage = {
        w: measured("autoguidance-degradations", shop, base="exact", main="level", w=w)["damage"]
        for w in degraded._WEIGHTS["exact"]
    }
    rows = Rows(
        {"base": "exact", "main": "level", "weak": "level", "w": w, "seed": 0, "damage": d} for w, d in damage.items()
    )
    assert degraded._best_weights(rows, "level") == pytest.approx(
        [raised.score_error_weight(0.1, 0.2, 64, 0)], rel=0.03
    )
    # Unguided it is what the field of that reference gives, from the same points.
    runs = [Experiment("fractal", "A", main=m, n=N).run("cpu").x[-1] for m in ("exact+noise:0.1", "exact")]
    assert damage[1.0] == pytest.approx(degraded.distance(*runs), rel=1e-6)


def test_networks_are_degraded_by_role(shop, tmp_path, monkeypatch):
    """Dropout guided by noise is another run than noise guided by dropout, and the same when it is measured."""
    network = EnergyMLP(2, 16, 2, torch.tensor([0.5, 0.5]), (), seeded())
    network.label = "A"
    network.gain.data.fill_(0.1)
    save_model(network, tmp_path / "small.safetensors", {})
    monkeypatch.setattr(shop, "exact", lambda name: str(tmp_path / "small.safetensors"))
    x, untouched = degraded._sampled(shop, "network", ("dropout", "noise"), 1.5, 0)
    other, same = degraded._sampled(shop, "network", ("noise", "dropout"), 1.5, 0)
    assert untouched.equal(same)
    assert not x.equal(untouched)
    assert not x.equal(other)
    found = measured("autoguidance-degradations", shop, base="network", main="dropout", weak="noise", w=1.5)
    assert found["damage"] == degraded.distance(x, untouched)
    assert found["outliers"] == measure(x, load_dataset("fractal"), "A", resamples=0)["outliers"]


# --- capacity and time --------------------------------------------------------------------------------------------


def test_each_guide_lacks_what_it_is_called_by():
    plan = Plan()
    own = ablation._network(plan, 3)
    sizes = {
        g: (s.width / own.width, s.iterations / own.iterations)
        for g in ablation._GUIDES
        for s in [ablation._network(plan, 3, g)]
    }
    assert sizes == {"both": (0.5, 0.125), "time": (1.0, 0.125), "capacity": (0.5, 1.0)}
    # The main network and the guide of both are the other studies', with more averages.
    for mine, theirs in (
        (own, ablation.fractal_networks.main(plan, 3)),
        (ablation._network(plan, 3, "both"), ablation.fractal_networks.weak(plan, 3)),
    ):
        assert replace(mine, ema=theirs.ema) == theirs
        assert set(theirs.ema) <= set(mine.ema)


def test_every_run_takes_its_own_averages(shop):
    key = {"guide": "both", "ema_main": 0.05, "ema_guide": 0.1, "w": 1.5, "seed": 0}
    (cell,) = [c for c in study("autoguidance-capacity-and-time").cells(shop.plan) if c.key == key]
    own, guide = ablation._network(shop.plan, 0), ablation._network(shop.plan, 0, "both")
    assert cell.run.fields == {"main": trained(own, 0.05), "weak": trained(guide, 0.1)}
    assert cell.needs == (own, guide)
    found = measured("autoguidance-capacity-and-time", shop, **key)
    plain = {"main": "exact", "weak": "exact+noise:0.2", "rule": "autoguidance", "params": {"w": 1.5}}
    expected = metrics(Experiment("fractal", "A", n=N, **plain))
    assert found["misplaced"] == pytest.approx(expected["outliers"] + 1 - expected["coverage"])
    unguided = measured("autoguidance-capacity-and-time", shop, guide="none", ema_main=0.01)
    assert unguided["coverage"] == metrics(Experiment("fractal", "A", main="exact", n=N))["coverage"]


def test_settings_are_all_there_and_once():
    keys = [tuple(c.key.values()) for c in study("autoguidance-capacity-and-time").cells(Plan(seeds=1))]
    assert len(set(keys)) == len(keys)
    rows = rows_like("autoguidance-capacity-and-time", lambda key, noise: {})
    assert {s[1:3] for s in ablation._lengths(rows, same=True)} == {(x, x) for x in ablation._LENGTHS}
    assert len({s[1:3] for s in ablation._lengths(rows, same=False)}) == 6
    for guide in ablation._GUIDES:
        assert {s[1:3] for s in ablation._guided_by(rows, guide)} == {(0.01, x) for x in ablation._LENGTHS}


# --- the ratio of two densities -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("variances", "share"), [((1.0, 1.2), 1.0), ((1.2, 1.0), 0.0), ((1.0, 1.0), 0.0)])
def test_a_closer_fit_pushes_inward(variances, share):
    """Of centred normals the log-ratio is ``(1/V0 - 1/V1) |x|^2 / 2`` and a constant: it falls outward if V1 < V0."""
    main, weak, exact = (
        GaussianMixture(torch.ones(1), torch.zeros(1, 2), v * torch.eye(2)[None]) for v in (*variances, 1.0)
    )
    noise = torch.randn(N, 2, generator=seeded(), dtype=torch.float64)
    found = narrows.away_from_data(main, weak, exact, torch.zeros(N, 2, dtype=torch.float64), noise)
    assert set(found.values()) == {share}


def test_two_classes_push_across_their_border_alone():
    """Equal round normals, and both: the gradient is along the line between the means, away from the other one, and
    inward where that is. A point at ``mean + away noise`` with noise of deviation s lies beyond the mean for half of
    all noise; five standard errors."""
    n, means = 4096, torch.tensor([[-1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    both = GaussianMixture(torch.ones(2), means, 0.05 * torch.eye(2, dtype=torch.float64).expand(2, 2, 2))
    left = both.subset(torch.tensor([True, False]))
    noise = 0.01 * torch.randn(n, 2, generator=seeded(), dtype=torch.float64)
    found = narrows.away_from_data(left, both, left, means[:1].expand(n, 2), noise)
    for away in (1, 2, 3, 4):
        assert found[f"inward_{away}"] == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(n))


def test_guidance_from_the_middle_narrows(shop):
    """The networks of a shop without training are the exact field, and that at 20 % more noise."""
    raised, learned = (measured("autoguidance-narrows", shop, fields=f) for f in ("raised", "cfg"))
    assert learned == raised
    assert raised["narrower_unguided"] == 0
    assert raised["narrower"] > 0
    # Half of them lie where the exact samples from the same points are denser than their median.
    e = Experiment("fractal", "A", main="exact", n=N, sigma_max=0.03)
    guided = Experiment(
        "fractal", "A", "exact", weak="exact+noise:0.2", rule="autoguidance", params={"w": 4.0}, n=N, sigma_max=0.03
    )
    exact = e.data.field("A")
    medians = [float(exact.log_density(r.run("cpu").x[-1].double(), 0.0).median()) for r in (guided, e)]
    assert raised["narrower"] == pytest.approx(medians[0] - medians[1], abs=1e-6)


# --- hyperparameters and targets ----------------------------------------------------------------------------------


def test_each_setup_differs_in_one_thing():
    plan = Plan()
    paper = hyper._SETUPS[hyper._PAPER]
    for name, setup in hyper._SETUPS.items():
        main, weak = setup.main(plan, 3), setup.weak(plan, 3)
        changed = [f for f in ("guide", "short", "average", "steps") if getattr(setup, f) != getattr(paper, f)]
        assert len(changed) == (name != hyper._PAPER)
        assert len(set(setup.guide) - {"ema"}) == (changed == ["guide"])
        run = hyper._experiment(plan, name, "autoguidance", 2.0, 3)
        assert run.fields["main"] == trained(main, setup.average)
        assert run.fields["weak"] == trained(weak)
        assert (run.steps == 32) == (changed != ["steps"])
    # Shared with other studies, so that they are trained once.
    assert hyper._SETUPS["guide: twice the width"].weak(plan, 3) == ablation._network(plan, 3, "time")
    assert hyper._SETUPS["main: a quarter of the training"].main(plan, 3) == targets._networks(plan, "exact", 3)[0]


def test_both_targets_start_from_the_same_weights():
    exact, denoising = (replace(targets._networks(Plan(), loss, 3)[0], batch=8) for loss in ("exact", "denoising"))
    assert replace(exact, loss="denoising") == denoising
    start = [next(iter(train(replace(s, learning_rate=1e-9), "cpu"))).averages[s.ema[0]] for s in (exact, denoising)]
    points = torch.randn(16, 2, generator=seeded())
    torch.testing.assert_close(*(network.log_density(points, 0.3) for network in start), rtol=1e-4, atol=1e-4)


def test_every_run_takes_its_own_target():
    plan = Plan(seeds=1)
    for cell in study("autoguidance-denoising").cells(plan):
        main, weak = cell.needs
        assert main.loss == weak.loss == cell.key["loss"]
        assert cell.run.fields["main"] == trained(main)
        assert cell.run.fields["weak"] == trained(weak)
