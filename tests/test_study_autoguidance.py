"""The studies of autoguidance's degradations, and of its guide's capacity, training and averages."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from study_rows import SmallPlan, cell_of, rows_like, values, verdicts

from toyguide.datasets import load_dataset
from toyguide.datasets.checkpoints import save_model
from toyguide.experiment import Experiment
from toyguide.fields.networks import EnergyMLP
from toyguide.metrics import measure
from toyguide.studies import Plan, study
from toyguide.studies.base import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from toyguide.studies.claims import autoguidance_capacity_and_time as ablation
from toyguide.studies.claims import autoguidance_degradations as degraded
from toyguide.studies.claims.shared import raised_noise as raised
from toyguide.studies.rows import Rows, at_best
from toyguide.studies.workshop import Workshop

N = 128


class ExactShop(Workshop):
    """A workshop whose networks are all perfect, and need no training; it notes which were asked for."""

    asked: list

    def reference(self, settings, sigma_rel=None):
        self.asked.append((settings, sigma_rel))
        return "exact" if settings.width == 64 and settings.iterations > 128 else "exact+noise:0.2"


@pytest.fixture
def shop(tmp_path):
    made = ExactShop(SmallPlan(quick=True, seeds=1, device="cpu"), tmp_path)
    made.asked = []
    return made


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
    x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
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
    exact, generator = e.data.field("A"), torch.Generator().manual_seed(3)
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


def degradation_rows(fall: dict[tuple[str, str], float], spread: float = 0.0, exact: float = 1.91) -> Rows:
    """Damage 0.1 unguided, less by the pair's share at w = 1.5, and rising elsewhere."""

    def numbers(key, noise):
        if "main_share" in key:
            return {"best_w": raised.closed_form(key["main_share"], key["weak_share"]) * 1.01 + 1e-4 * noise}
        if key["base"] == "exact":
            return {"damage": 0.03 * math.hypot(key["w"] - exact, 0.1)}
        pair = (key["main"], key["weak"])
        share = 0.0 if key["w"] == 1 else fall.get(pair, 0.0) - abs(key["w"] - 1.5) / 2 + spread * noise
        return {"damage": 0.1 * (1 - share) if share > 0 else 0.1 / (1 + share)}

    return rows_like("autoguidance-degradations", numbers)


SAME = {("noise", "noise"): 0.8, ("dropout", "dropout"): 0.7, ("noise", "dropout"): -0.2, ("dropout", "noise"): -0.1}


def test_degradations_are_judged_by_what_is_undone():
    claimed = degradation_rows(SAME)
    assert set(verdicts("autoguidance-degradations", claimed).values()) == {SUPPORTED}
    found = values("autoguidance-degradations", claimed)
    for pair, share in SAME.items():
        assert found["undone_" + "_".join(pair)] == pytest.approx([share] * 5)

    mixed = verdicts("autoguidance-degradations", degradation_rows({**SAME, ("dropout", "noise"): 0.1}))
    assert {name for name, verdict in mixed.items() if verdict == NOT_SUPPORTED} == {"undone_dropout_noise"}
    little = verdicts("autoguidance-degradations", degradation_rows({**SAME, ("noise", "noise"): 0.3}))
    assert {name for name, verdict in little.items() if verdict == NOT_SUPPORTED} == {"undone_noise_noise"}
    unclear = verdicts("autoguidance-degradations", degradation_rows({**SAME, ("noise", "noise"): 0.5}, spread=0.1))
    assert unclear["undone_noise_noise"] == INCONCLUSIVE
    elsewhere = verdicts("autoguidance-degradations", degradation_rows(SAME, exact=2.3))
    assert {name for name, verdict in elsewhere.items() if verdict == NOT_SUPPORTED} == {"weight_by_samples"}


def test_what_is_not_degraded_is_not_damaged(shop):
    cell = cell_of("autoguidance-degradations", shop, base="exact", main="nothing", seed=0)
    plain = Experiment("fractal", "A", main="exact", n=N)
    found = cell.work(shop)
    assert found["damage"] == 0
    assert found["sliced_w2"] == shop.measure(plain)["sliced_w2"]


def test_a_raised_level_is_mended_where_the_closed_form_says(shop):
    damage = {
        w: cell_of("autoguidance-degradations", shop, base="exact", main="level", w=w, seed=0).work(shop)["damage"]
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
    network = EnergyMLP(2, 16, 2, torch.tensor([0.5, 0.5]), (), torch.Generator().manual_seed(0))
    network.label = "A"
    network.gain.data.fill_(0.1)
    save_model(network, tmp_path / "small.safetensors", {})
    monkeypatch.setattr(shop, "reference", lambda settings: str(tmp_path / "small.safetensors"))
    x, untouched = degraded._sampled(shop, "network", ("dropout", "noise"), 1.5, 0)
    other, same = degraded._sampled(shop, "network", ("noise", "dropout"), 1.5, 0)
    assert untouched.equal(same)
    assert not x.equal(untouched)
    assert not x.equal(other)
    found = degraded._measured(shop, "network", ("dropout", "noise"), 1.5, 0)
    assert found["damage"] == degraded.distance(x, untouched)
    assert found["outliers"] == measure(x, load_dataset("fractal"), "A", resamples=0)["outliers"]


# --- capacity and time --------------------------------------------------------------------------------------------


def ablation_rows(gains: dict[str, float], separate: float, spread: float = 0.01) -> Rows:
    """Unguided 0.3; each guide gains its share at w = 1.5 and length 0.05, and different lengths gain one more."""

    def numbers(key, noise):
        base = 0.3 * (1 + 0.1 * noise)
        share = 0.0
        if key["guide"] != "none":
            share = gains[key["guide"]] - 0.1 * abs(key["w"] - 1.5) - 0.1 * (key["ema_guide"] != 0.05)
            share += separate * (key["ema_main"] != key["ema_guide"]) + 0.3 * spread * noise
        return {"misplaced": base * (1 - share)}

    return rows_like("autoguidance-capacity-and-time", numbers)


PAPER = {"both": 0.3, "time": 0.2, "capacity": 0.1}


def test_guides_are_judged_by_what_they_gain():
    claimed = ablation_rows(PAPER, 0.1)
    assert set(verdicts("autoguidance-capacity-and-time", claimed).values()) == {SUPPORTED}
    found = values("autoguidance-capacity-and-time", claimed)
    # Beside the main network's 0.01, the best length is another one, and gains by that too.
    assert found["gain_both"] == pytest.approx([0.4] * 5, abs=0.01)
    assert found["training_over_capacity"] == pytest.approx([0.1] * 5)
    assert found["both_over_capacity"] == pytest.approx([0.2] * 5)
    assert found["separate_lengths"] == pytest.approx([1 - 0.6 / 0.7] * 5, abs=0.01)

    swapped = verdicts("autoguidance-capacity-and-time", ablation_rows({**PAPER, "time": 0.1, "capacity": 0.2}, 0.1))
    assert {name for name, v in swapped.items() if v == NOT_SUPPORTED} == {"training_over_capacity"}
    worse = verdicts("autoguidance-capacity-and-time", ablation_rows({**PAPER, "both": 0.15}, 0.1))
    assert {name for name, v in worse.items() if v == NOT_SUPPORTED} == {"both_over_training"}
    harmful = verdicts("autoguidance-capacity-and-time", ablation_rows({k: g - 0.5 for k, g in PAPER.items()}, 0.1))
    assert {name for name, v in harmful.items() if v == NOT_SUPPORTED} == {"gain_both"}
    alike = verdicts("autoguidance-capacity-and-time", ablation_rows(PAPER, -0.1))
    assert {name for name, v in alike.items() if v == NOT_SUPPORTED} == {"separate_lengths"}
    unclear = verdicts("autoguidance-capacity-and-time", ablation_rows(PAPER, 0.0, spread=10))
    assert unclear["gain_both"] == INCONCLUSIVE


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
    found = cell_of("autoguidance-capacity-and-time", shop, **key).work(shop)
    assert {(s.width, average) for s, average in shop.asked} == {(64, 0.05), (32, 0.1)}
    plain = Experiment(
        "fractal", "A", main="exact", weak="exact+noise:0.2", rule="autoguidance", params={"w": 1.5}, n=N
    )
    expected = shop.measure(plain)
    assert found["misplaced"] == pytest.approx(expected["outliers"] + 1 - expected["coverage"])
    unguided = cell_of("autoguidance-capacity-and-time", shop, guide="none", ema_main=0.01, seed=0).work(shop)
    assert unguided["coverage"] == shop.measure(Experiment("fractal", "A", main="exact", n=N))["coverage"]


def test_settings_are_all_there_and_once():
    keys = [tuple(c.key.values()) for c in study("autoguidance-capacity-and-time").cells(Plan(seeds=1))]
    assert len(set(keys)) == len(keys)
    rows = rows_like("autoguidance-capacity-and-time", lambda key, noise: {})
    assert {s[1:3] for s in ablation._lengths(rows, same=True)} == {(x, x) for x in ablation._LENGTHS}
    assert len({s[1:3] for s in ablation._lengths(rows, same=False)}) == 6
    for guide in ablation._GUIDES:
        assert {s[1:3] for s in ablation._guided_by(rows, guide)} == {(0.01, x) for x in ablation._LENGTHS}
