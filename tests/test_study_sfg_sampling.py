"""The studies of SFG's parameters, cost and sum with autoguidance, and of the guidance interval."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from study_rows import SmallPlan, cell_of, rows_like, values, verdicts

from toyguide.experiment import Experiment, Result
from toyguide.noise import edm_schedule
from toyguide.studies import Plan, study
from toyguide.studies.base import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from toyguide.studies.claims import guidance_interval as limited
from toyguide.studies.claims import sfg_cost as cost
from toyguide.studies.claims import sfg_step_and_shift as parameters
from toyguide.studies.claims import sfg_with_autoguidance as added
from toyguide.studies.rows import Rows
from toyguide.studies.workshop import Workshop


class ExactShop(Workshop):
    """A workshop whose networks are all perfect, and need no training."""

    def reference(self, settings, sigma_rel=None):
        return "exact"


@pytest.fixture
def shop(tmp_path):
    return ExactShop(SmallPlan(quick=True, seeds=1, device="cpu"), tmp_path)


# --- step, shift and weight ---------------------------------------------------------------------------------------


def parameter_rows(step: float, fall: float, paid: float) -> Rows:
    """Outliers fall by a share from w = 0 to 30 and coverage by ``paid``; log10 h moves both by ``step`` of that."""

    def numbers(key, noise):
        far = key["w"] / 30
        decades = (np.log10(key["h"]) + 1) / 3  # 0 at the paper's step, a whole from 0.001 to 1
        outliers = 0.2 * (1 - fall * far) + 0.2 * fall * (29 / 30) * step * decades
        coverage = 0.9 - paid * far + paid * (29 / 30) * step * decades
        return {"outliers": outliers * (1 + 0.001 * noise), "coverage": coverage + 0.001 * noise}

    return rows_like("sfg-step-and-shift", numbers)


def test_step_and_weight_are_judged_by_their_spans():
    claimed = parameter_rows(step=0.1, fall=0.5, paid=0.2)
    assert set(verdicts("sfg-step-and-shift", claimed).values()) == {SUPPORTED}
    found = values("sfg-step-and-shift", claimed)
    # The effects are what they were made of.
    assert found["step_outliers"] == pytest.approx([0.1] * 5, rel=1e-9)
    assert found["step_coverage"] == pytest.approx([0.1] * 5, rel=1e-9)
    assert found["outliers_removed_simplex"] == pytest.approx([0.5] * 5, rel=1e-9)
    assert found["coverage_paid"] == pytest.approx([0.2 * 29 / 30] * 5, rel=1e-9)

    steep = verdicts("sfg-step-and-shift", parameter_rows(step=0.5, fall=0.5, paid=0.2))
    assert (steep["step_outliers"], steep["step_coverage"]) == (NOT_SUPPORTED, NOT_SUPPORTED)
    rising = verdicts("sfg-step-and-shift", parameter_rows(step=0.1, fall=-0.5, paid=-0.2))
    assert rising["outliers_removed_fractal"] == rising["coverage_paid"] == NOT_SUPPORTED


def test_the_worse_of_both_places_decides_on_the_step():
    def numbers(key, noise):
        decades = np.log10(key["h"]) + 1
        steep = 0.1 if key["place"] == "simplex16" else 0.0
        return {"outliers": 0.2 + 0.001 * key["w"] + steep * decades, "coverage": 0.9 - 0.01 * key["w"]}

    found = verdicts("sfg-step-and-shift", rows_like("sfg-step-and-shift", numbers))
    assert found["step_outliers"] == NOT_SUPPORTED
    assert found["step_coverage"] == SUPPORTED


@pytest.mark.parametrize("place", ["fractal", "fractal-union", "simplex16"])
def test_a_weight_of_zero_is_no_guidance(shop, place):
    dataset, label = ("simplex16", None) if place == "simplex16" else ("fractal", None if "union" in place else "A")
    plain = shop.measure(Experiment(dataset, label, main="exact", n=shop.plan.n))
    cell = cell_of("sfg-step-and-shift", shop, place=place, w=0.0, seed=0)
    assert cell.work(shop) == plain
    assert cell_of("sfg-step-and-shift", shop, place=place, w=30.0, seed=0).work(shop) != plain


def test_each_parameter_is_varied_alone():
    keys = [c.key for c in study("sfg-step-and-shift").cells(Plan(seeds=1))]
    usual = {"w": parameters._W, "h": parameters._H, "alpha": parameters._ALPHA}
    assert all(sum(key[k] != v for k, v in usual.items()) <= 1 for key in keys)
    assert {key["alpha"] for key in keys} == {1.0, 3.0, 10.0}


# --- cost ---------------------------------------------------------------------------------------------------------


def fake_turns(shop, monkeypatch, seconds):
    """Runs that take no time: the n-th run of a rule says that it took ``seconds(rule, n)``."""
    counts: dict[str, int] = {}
    real = Workshop.run

    def run(self, experiment):
        turn = counts[experiment.rule] = counts.get(experiment.rule, -1) + 1
        return replace(real(self, replace(experiment, n=2)), seconds=seconds(experiment.rule, turn))

    monkeypatch.setattr(ExactShop, "run", run)
    return counts


@pytest.mark.parametrize(("sampler", "points"), [("heun", 2 * 32 - 1), ("euler", 32)])
def test_evaluations_are_counted_and_ratios_do_not_drift(shop, monkeypatch, sampler, points):
    # A machine that slows down tenfold meanwhile, and a first run that takes for ever.
    share = {"none": 1.0, "cfg": 2.0, "sfg": 2.6}
    counts = fake_turns(shop, monkeypatch, lambda rule, turn: share[rule] * (1e6 if turn == 0 else turn**2))
    found = cost._measure({"fields": "pair", "sampler": sampler, "n": 2, "seed": 0}, shop)
    assert (found["nfe_none"], found["nfe_cfg"], found["nfe_sfg"]) == (points, 2 * points, 2 * points)
    assert found["sfg_over_cfg"] == pytest.approx(1.3)
    assert found["sfg_over_two_unguided"] == pytest.approx(1.3)
    assert found["cfg_over_two_unguided"] == pytest.approx(1.0)
    assert len(set(counts.values())) == 1


def test_both_of_cfgs_fields_are_as_large_as_sfgs(tmp_path):
    shop = Workshop(SmallPlan(quick=True, seeds=1, device="cpu"), tmp_path)
    tiny = replace(cost._conditional(0), iterations=1, batch=16)
    shop.train(tiny)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "_conditional", lambda seed: tiny)
        run = cost._experiment(shop, {"fields": "conditional", "sampler": "heun", "n": 2, "seed": 0}, "cfg")
    fields = run.build_fields()
    sizes = [sum(p.numel() for p in fields[role].parameters()) for role in ("main", "uncond")]
    assert sizes[0] == sizes[1]
    x = run.start()
    # The same weights at another label: what is guided away from is another field.
    assert not fields["main"].score(x, 1.0).equal(fields["uncond"].score(x, 1.0))


def cost_rows(ratio: float, spread: float = 0.01, more: int = 0) -> Rows:
    def numbers(key, noise):
        extra = more if key["sampler"] == "euler" else 0
        return {"nfe_cfg": 126, "nfe_sfg": 126 + extra, "sfg_over_cfg": ratio + spread * noise}

    return rows_like("sfg-cost", numbers)


def test_equal_cost_is_judged_from_both_sides():
    assert set(verdicts("sfg-cost", cost_rows(1.05)).values()) == {SUPPORTED}
    slow, fast = verdicts("sfg-cost", cost_rows(1.5)), verdicts("sfg-cost", cost_rows(0.6))
    assert (slow["seconds_at_most"], slow["seconds_at_least"]) == (NOT_SUPPORTED, SUPPORTED)
    assert (fast["seconds_at_most"], fast["seconds_at_least"]) == (SUPPORTED, NOT_SUPPORTED)
    assert verdicts("sfg-cost", cost_rows(1.2, spread=0.5))["seconds_at_most"] == INCONCLUSIVE
    # One evaluation more or fewer is not as many, in one setting alone.
    assert verdicts("sfg-cost", cost_rows(1.0, more=1))["evaluations"] == NOT_SUPPORTED
    assert verdicts("sfg-cost", cost_rows(1.0, more=-1))["evaluations"] == NOT_SUPPORTED


# --- with autoguidance --------------------------------------------------------------------------------------------


def added_rows(number, seeds: int = 5, coverage=lambda w, auto: 0.9) -> Rows:
    def numbers(key, noise):
        value = number(key["w"], key["w_auto"])
        wobble = 1 + 0.01 * noise
        return {"sliced_w2": value * wobble, "outliers": value * wobble, "coverage": coverage(key["w"], key["w_auto"])}

    return rows_like("sfg-with-autoguidance", numbers, seeds)


def test_adding_up_is_doing_better_than_the_better_one_alone():
    # Each alone removes up to 30 % and 20 %; then together 50 %, or no more than the better one.
    sfg, auto = {0.0: 0.0, 1.0: 0.1, 3.0: 0.3, 10.0: 0.0}, {1.0: 0.0, 1.25: 0.1, 1.5: 0.2, 2.0: 0.1}
    sum_of_both = added_rows(lambda w, a: 1 - sfg[w] - auto[a])
    assert set(verdicts("sfg-with-autoguidance", sum_of_both).values()) == {SUPPORTED}
    found = values("sfg-with-autoguidance", sum_of_both)
    assert found["distance_gained_fractal"] == pytest.approx([1 - 0.5 / 0.7] * 5)
    better_of_both = added_rows(lambda w, a: 1 - max(sfg[w], auto[a]))
    assert set(verdicts("sfg-with-autoguidance", better_of_both).values()) == {NOT_SUPPORTED}


def test_outliers_are_not_removed_by_paying_with_coverage():
    # Both together remove all but a tenth, at a coverage of 0.5; at what is left of the weights they gain nothing.
    def outliers(w, a):
        return 1.0 if w == 0 or a == 1 or (w, a) == (1.0, 1.25) else 0.1

    rows = added_rows(outliers, coverage=lambda w, a: 0.5 if outliers(w, a) < 1 else 0.9)
    found = values("sfg-with-autoguidance", rows)
    assert found["outliers_gained_fractal"] == pytest.approx([0.0] * 5)
    assert found["distance_gained_fractal"] == pytest.approx([0.9] * 5)  # the distance sees what was lost by itself


def test_noise_alone_is_no_gain():
    seeds, draw = 80, np.random.default_rng(1)
    cells = [
        c.key for c in study("sfg-with-autoguidance").cells(Plan(quick=True, seeds=1)) if c.key["place"] == "fractal"
    ]
    rows = Rows(
        {**key, "seed": seed, "sliced_w2": 1 + 0.01 * draw.normal(), "coverage": 0.9}
        for seed in range(seeds)
        for key in cells
    )
    gained = np.array(added._gained(rows, "fractal", "sliced_w2"))
    # Two independent numbers of deviation 0.01, and no choice among many: four standard errors about no gain.
    assert abs(gained.mean()) < 4 * 0.01 * np.sqrt(2 / seeds)
    assert gained.std() == pytest.approx(0.01 * np.sqrt(2), rel=4 / np.sqrt(2 * seeds))
    # The least of nine or more such numbers in place of one lies 1.5 deviations lower.
    least = stats.norm.ppf(1 / 10) * 0.01
    assert gained.mean() < -least / 2


def test_a_single_seed_chooses_for_itself():
    rows = added_rows(lambda w, a: 1 - 0.01 * w * (a - 1), seeds=1)
    assert added._gained(rows, "fractal", "sliced_w2") == pytest.approx([0.1])


def test_a_known_error_is_mended_at_its_closed_form(shop):
    """Fields at sigma (1 + e) are right again at ``w = d0 / (d0 - d1)``, d = (1 + e)^2 - 1, to first order in d."""
    d1, d0 = 1.05**2 - 1, 1.1**2 - 1
    best = d0 / (d0 - d1)

    def log_density(w_auto):
        cell = cell_of("sfg-with-autoguidance", shop, place="simplex16-noisy", w=0.0, w_auto=w_auto, seed=0)
        return cell.work(shop)["log_density"]

    exact = shop.measure(Experiment("simplex16", main="exact", n=shop.plan.n // 4))["log_density"]
    away = {w: abs(log_density(w) - exact) for w in (1.0, 1.25, 1.5, 2.0)}
    assert min(away, key=away.get) == min(away, key=lambda w: abs(w - best)) == 2.0
    # What is left is the distance from the best w, to first order, and a second order of size d beside the first.
    assert away[2.0] / away[1.0] < abs(2 * d1 - d0) / d1 + d0


def test_no_sfg_and_no_autoguidance_are_no_guidance(shop):
    for place, dataset, label in (("fractal", "fractal", "A"), ("simplex16", "simplex16", None)):
        found = cell_of("sfg-with-autoguidance", shop, place=place, w=0.0, w_auto=1.0, seed=0).work(shop)
        assert found == shop.measure(Experiment(dataset, label, main="exact", n=shop.plan.n))


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
        found: Result = shop.run(limited._experiment(shop, "exact", low, high, 0))
        plain = shop.run(Experiment("fractal", "A", main="exact", n=shop.plan.n, **settings))
        assert found.x.equal(plain.x)
        assert found.nfe == plain.nfe


# What is lost by guiding in each part, in coverage and in outliers (negative: gained), as the paper has it.
CLAIMED = {"above": (0.3, 0.0), "middle": (0.1, -0.1), "below": (0.0, 0.0)}


def interval_rows(effects) -> Rows:
    """Coverage 0.9 and outliers 0.2, and what each guided part adds; an interval's parts by its ends."""

    def numbers(key, noise):
        parts = {
            "above": key["high"] > 1.61,
            "middle": key["low"] <= 0.19 and key["high"] >= 1.61,
            "below": key["low"] < 0.1,
        }
        on = [effects[p] for p, guided in parts.items() if guided and key["low"] < key["high"]]
        lost, more = (sum(e[i] for e in on) for i in (0, 1))
        return {"coverage": 0.9 - lost + 0.001 * noise, "outliers": (0.2 + more) * (1 + 0.001 * noise)}

    return rows_like("guidance-interval", numbers)


def test_the_interval_is_judged_by_what_each_part_does():
    claimed = interval_rows(CLAIMED)
    assert set(verdicts("guidance-interval", claimed).values()) == {SUPPORTED}
    found = values("guidance-interval", claimed)
    assert found["coverage_lost_above"] == pytest.approx([0.3] * 5)
    assert found["outliers_removed_middle"] == pytest.approx([0.5] * 5)
    assert found["outliers_removed_below"] == pytest.approx([0.0] * 5, abs=1e-12)
    assert found["coverage_back_networks"] == found["coverage_back_exact"] == pytest.approx([0.75] * 5)


@pytest.mark.parametrize(
    ("part", "effect", "fails"),
    [
        ("above", (0.0, 0.0), {"coverage_lost_above", "coverage_back_networks", "coverage_back_exact"}),
        ("middle", (0.1, 0.0), {"outliers_removed_middle"}),
        ("middle", (0.5, -0.1), {"coverage_back_networks", "coverage_back_exact"}),
        ("below", (0.0, -0.05), {"outliers_removed_below"}),
    ],
)
def test_a_part_that_does_otherwise_contradicts_its_criterion(part, effect, fails):
    found = verdicts("guidance-interval", interval_rows({**CLAIMED, part: effect}))
    assert {name for name, verdict in found.items() if verdict == NOT_SUPPORTED} == fails
