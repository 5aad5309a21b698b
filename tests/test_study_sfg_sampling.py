"""The studies of SFG's parameters, cost and sum with autoguidance, and of the guidance interval."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from study_rows import ExactShop, SmallPlan, measured, metrics, rows_like

from toyguide.experiment import Experiment, Result
from toyguide.noise import edm_schedule
from toyguide.studies import Plan, study
from toyguide.studies.base import USUAL_METRICS
from toyguide.studies.claims import guidance_interval as limited
from toyguide.studies.claims import sfg_cost as cost
from toyguide.studies.claims import sfg_step_and_shift as parameters
from toyguide.studies.claims import sfg_with_autoguidance as added
from toyguide.studies.claims.shared.choices import fewest_outliers
from toyguide.studies.rows import Rows
from toyguide.studies.workshop import Workshop


@pytest.fixture
def shop(tmp_path):
    return ExactShop(tmp_path)


# --- step, shift and weight ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["fractal", "fractal-union", "simplex16"])
def test_a_weight_of_zero_is_no_guidance(shop, place):
    dataset, label = ("simplex16", None) if place == "simplex16" else ("fractal", None if "union" in place else "A")
    main = "exact+noise:0.2" if "union" in place else "exact"  # whose network is small
    plain = metrics(Experiment(dataset, label, main=main, n=shop.plan.n), *USUAL_METRICS)
    assert measured("sfg-step-and-shift", shop, place=place, w=0.0) == plain
    assert measured("sfg-step-and-shift", shop, place=place, w=30.0) != plain


def test_each_parameter_is_varied_alone():
    keys = [c.key for c in study("sfg-step-and-shift").cells(Plan(seeds=1))]
    usual = {"w": parameters._W, "h": parameters._H, "alpha": parameters._ALPHA}
    assert all(sum(key[k] != v for k, v in usual.items()) <= 1 for key in keys)
    assert {key["alpha"] for key in keys} == {1.0, 3.0, 10.0}


# --- cost ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sampler", "points"), [("heun", 2 * 32 - 1), ("euler", 32)])
def test_evaluations_are_counted_and_ratios_do_not_drift(shop, monkeypatch, sampler, points):
    """On a machine that slows down tenfold meanwhile, with a first run that takes for ever."""
    share, counts = {"none": 1.0, "cfg": 2.0, "sfg": 2.6}, {}
    real = shop.run

    def run(experiment):
        turn = counts[experiment.rule] = counts.get(experiment.rule, -1) + 1
        seconds = share[experiment.rule] * (1e6 if turn == 0 else turn**2)
        return replace(real(replace(experiment, n=2)), seconds=seconds)

    monkeypatch.setattr(shop, "run", run)
    found = cost._measure(shop, fields="pair", sampler=sampler, n=2, seed=0)
    assert (found["nfe_none"], found["nfe_cfg"], found["nfe_sfg"]) == (points, 2 * points, 2 * points)
    assert found["sfg_over_cfg"] == pytest.approx(1.3)
    assert found["sfg_over_two_unguided"] == pytest.approx(1.3)
    assert found["cfg_over_two_unguided"] == pytest.approx(1.0)
    assert len(set(counts.values())) == 1


def test_what_is_timed_is_run_alone():
    assert all(cell.timed for cell in study("sfg-cost").cells(Plan()))


def test_both_of_cfgs_fields_are_as_large_as_sfgs(tmp_path):
    shop = Workshop(SmallPlan(quick=True, seeds=1, device="cpu"), tmp_path)
    tiny = replace(cost._conditional(0), iterations=1, batch=16)
    shop.train(tiny)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "_conditional", lambda seed: tiny)
        run = cost._experiment(shop.plan, {"fields": "conditional", "sampler": "heun", "n": 2, "seed": 0}, "cfg")
    fields = shop.fields(run)
    sizes = [sum(p.numel() for p in fields[role].parameters()) for role in ("main", "uncond")]
    assert sizes[0] == sizes[1]
    x = run.start()
    # The same weights at another label: what is guided away from is another field.
    assert not fields["main"].score(x, 1.0).equal(fields["uncond"].score(x, 1.0))


# --- choices on the other seeds -----------------------------------------------------------------------------------


def test_outliers_are_fewest_on_the_other_seeds_at_a_bounded_loss():
    outliers = {"dear": [0.0, 0.0, 0.0], "good": [0.2, 0.2, 0.9], "fair": [0.3, 0.3, 0.3]}
    coverage = {"dear": [0.5, 0.5, 0.5], "good": [0.86, 0.86, 0.86], "fair": [0.9, 0.9, 0.9]}
    # "good" is the best for the first two seeds only, and the third, which makes it bad, counts for them alone.
    assert fewest_outliers(outliers, coverage, [0.9] * 3) == ["fair", "fair", "good"]
    # Every choice costs too much: the least loss counts, and not the outliers.
    assert fewest_outliers(outliers, coverage, [1.0] * 3) == ["fair"] * 3
    assert fewest_outliers({"a": [0.2], "b": [0.1]}, {"a": [0.9], "b": [0.9]}, [0.9]) == ["b"]


# --- with autoguidance --------------------------------------------------------------------------------------------


def test_noise_alone_is_no_gain():
    seeds, draw = 80, np.random.default_rng(1)
    cells = [
        c.key for c in study("sfg-with-autoguidance").cells(Plan(quick=True, seeds=1)) if c.key["place"] == "fractal"
    ]
    rows = Rows(
        {**key, "seed": seed, "trimmed_w2": 1 + 0.01 * draw.normal(), "coverage": 0.9}
        for seed in range(seeds)
        for key in cells
    )
    gained = np.array(added._gained(rows, "fractal", "trimmed_w2"))
    # Two independent numbers of deviation 0.01, and no choice among many: four standard errors about no gain.
    assert abs(gained.mean()) < 4 * 0.01 * np.sqrt(2 / seeds)
    assert gained.std() == pytest.approx(0.01 * np.sqrt(2), rel=4 / np.sqrt(2 * seeds))
    # The least of nine or more such numbers in place of one lies 1.5 deviations lower.
    least = stats.norm.ppf(1 / 10) * 0.01
    assert gained.mean() < -least / 2


def test_a_single_seed_chooses_for_itself():
    def numbers(key, z):
        return {"trimmed_w2": 1 - 0.01 * key["w"] * (key["w_auto"] - 1), "coverage": 0.9}

    rows = rows_like("sfg-with-autoguidance", numbers, seeds=1)
    assert added._gained(rows, "fractal", "trimmed_w2") == pytest.approx([0.1])


def test_a_known_error_is_mended_at_its_closed_form(shop):
    """Fields at sigma (1 + e) are right again at ``w = d0 / (d0 - d1)``, d = (1 + e)^2 - 1, to first order in d."""
    d1, d0 = 1.05**2 - 1, 1.1**2 - 1
    best = d0 / (d0 - d1)

    def log_density(w_auto):
        return measured("sfg-with-autoguidance", shop, place="simplex16-noisy", w=0.0, w_auto=w_auto)["log_density"]

    exact = metrics(Experiment("simplex16", main="exact", n=shop.plan.n // added._NOISY_FEWER))["log_density"]
    away = {w: abs(log_density(w) - exact) for w in (1.0, 1.25, 1.5, 2.0)}
    assert min(away, key=away.get) == min(away, key=lambda w: abs(w - best)) == 2.0
    # What is left is the distance from the best w, to first order, and a second order of size d beside the first.
    assert away[2.0] / away[1.0] < abs(2 * d1 - d0) / d1 + d0


def test_no_sfg_and_no_autoguidance_are_no_guidance(shop):
    for place, dataset, label in (("fractal", "fractal", "A"), ("simplex16", "simplex16", None)):
        found = measured("sfg-with-autoguidance", shop, place=place, w=0.0, w_auto=1.0)
        assert found == metrics(Experiment(dataset, label, main="exact", n=shop.plan.n), *USUAL_METRICS)


# --- the interval -------------------------------------------------------------------------------------------------


def test_the_regions_are_what_they_are_called():
    levels = [float(s) for s in edm_schedule(32, 0.002, 5.0, 7.0)[:-1]]

    def guided(region):
        low, high = limited._REGIONS[region]
        return {s for s in levels if low < s <= high}

    assert guided("nowhere") == set()
    assert guided("everywhere") == set(levels)
    assert guided("above") | guided("middle") | guided("below") == set(levels)
    assert sum(len(guided(r)) for r in ("above", "middle", "below")) == 32
    assert guided("middle and below") == guided("middle") | guided("below")
    assert guided("middle and above") == guided("middle") | guided("above")
    # The paper's: steps 17 to 22 of 32 from 80 to 0.002.
    paper = [float(s) for s in edm_schedule(32, 0.002, 80.0, 7.0)[:-1]]
    assert [s for s in paper if limited._LOW < s <= limited._HIGH] == paper[17:23]


def test_guiding_everywhere_is_cfg_and_nowhere_is_none(shop):
    regions = {"everywhere": {"rule": "cfg", "params": {"w": 4.0}}, "nowhere": {"rule": "none"}}
    for region, settings in regions.items():
        low, high = limited._REGIONS[region]
        found: Result = shop.run(limited._experiment(shop.plan, "exact", low, high, 0))
        plain = shop.run(Experiment("fractal", "A", main="exact", n=shop.plan.n, **settings))
        assert found.x.equal(plain.x)
        assert found.nfe == plain.nfe
