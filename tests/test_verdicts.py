"""Every study's verdict, from a table of made-up rows: with what it claims, and with each part of it otherwise."""

from __future__ import annotations

import math

import pytest
from study_rows import rows_like, values

from toyguide.studies import studies, study
from toyguide.studies.base import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from toyguide.studies.claims.shared.raised_noise import closed_form

# For each study: made-up numbers of a run. `z` is standard normal noise, one value for each seed; the other arguments
# are what a case makes different.


def figure_1(key, z, outliers=0.05, mended=0.03, dropped=0.2, kept=0.05, tips=0.05):
    near = key["rule"] == "autoguidance"
    lost = {"cfg": dropped, "autoguidance": kept}.get(key["rule"], 0.0)
    return {
        "outliers": (mended if near else outliers) * (1 + 0.01 * z),
        "dropped_mass": lost * (1 + 0.01 * z),
        "tips": (tips if key["rule"] == "score-scaling" else 0.2) * (1 + 0.01 * z),
        "coverage": 0.9,
    }


UNDONE = {("noise", "noise"): 0.8, ("dropout", "dropout"): 0.7, ("noise", "dropout"): -0.2, ("dropout", "noise"): -0.1}


def degradations(key, z, undone=(), spread=0.0, exact=1.91, off=1.01):
    """Damage 0.1 unguided, less by the pair's share at w = 1.5, and rising elsewhere."""
    if "main_share" in key:
        return {"best_w": closed_form(key["main_share"], key["weak_share"]) * off + 1e-4 * z}
    if key["base"] == "exact":
        return {"damage": 0.03 * math.hypot(key["w"] - exact, 0.1)}
    pair = (key["main"], key["weak"])
    noise = spread * z * (pair in dict(undone))
    share = 0.0 if key["w"] == 1 else {**UNDONE, **dict(undone)}.get(pair, 0.0) - abs(key["w"] - 1.5) / 2 + noise
    return {"damage": 0.1 * (1 - share) if share > 0 else 0.1 / (1 + share)}


GAINS = {"both": 0.3, "time": 0.2, "capacity": 0.1}


def capacity_and_time(key, z, separate=0.1, spread=0.01, **gains):
    """Unguided 0.3; each guide gains its share at w = 1.5 and length 0.05, and different lengths gain one more."""
    share = 0.0
    if key["guide"] != "none":
        share = {**GAINS, **gains}[key["guide"]] - 0.1 * abs(key["w"] - 1.5) - 0.1 * (key["ema_guide"] != 0.05)
        share += separate * (key["ema_main"] != key["ema_guide"]) + 0.3 * spread * z
    return {"misplaced": 0.3 * (1 + 0.1 * z) * (1 - share)}


def alignment(key, z, similar=0.8, places=0.7, along=1.5, shortened=0.6, by_cfg=0.4):
    """At high noise and on visited points everything is worse."""
    less = 0.0 if key["place"] == "data" and key["step"] >= 15 else 0.5
    shares = {"uncond": by_cfg}
    return {
        "mean_cosine": similar + 0.01 * z - less,
        "places": places + 0.01 * z - less,
        "along": along + 0.01 * z - less,
        "shortened": shares.get(key["guide"], shortened) + 0.001 * z - less,
    }


def tilting(key, z, ode=0.25, sde=0.3875, tilted=0.5, networks=(0.25, 0.3875)):
    learned = key["place"] == "networks"
    variances = {"ode": networks[0] if learned else ode, "sde": networks[1] if learned else sde, "tilted": tilted}
    return {"variance_w3": variances[key["kind"]] + 0.001 * z}


def overshoots(key, z, power=0.5, peak=3.0, exact=0.0, error=1.0, learned=0.9, kept=0.1):
    if key["place"] == "gaussians":
        return {"mean": key["extra"] ** (power + 0.001 * z)}
    if key["place"] == "fractal":
        return {"outside": {"exact": kept, "networks": learned}[key["fields"]] + 0.001 * z}
    return {"peak": peak + 0.001 * z, "outside": exact if key["fields"] == "exact" else error + 0.001 * z}


PARTS = {"above": (0.3, 0.0), "middle": (0.1, -0.1), "below": (0.0, 0.0)}


def interval(key, z, **parts):
    """Coverage 0.9 and outliers 0.2; each guided part takes from the one and adds to the other."""
    guided = {
        "above": key["high"] > 1.61,
        "middle": key["low"] <= 0.19 and key["high"] >= 1.61,
        "below": key["low"] < 0.1,
    }
    effects = {**PARTS, **parts}
    on = [effects[part] for part, inside in guided.items() if inside and key["low"] < key["high"]]
    lost, more = (sum(e[i] for e in on) for i in (0, 1))
    return {"coverage": 0.9 - lost + 0.001 * z, "outliers": (0.2 + more) * (1 + 0.001 * z)}


def curvature(key, z, exact=1.0, network=0.99, worst=0.95, spread=0.0):
    """The networks' worst level is 0.25."""
    of_networks = worst if key["level"] == 0.25 else network
    return {"cosine": (exact if key["field"] == "exact" else of_networks) * (1 + spread * z)}


def saddle_loss(key, z, modes=10.0, saddles=1.3, ratio=5.0):
    """Levels differ, which their geometric mean does not mind."""
    octaves, scale = math.log(key["width"] / 32) / math.log(8), (1 + 0.01 * z) / key["level"]
    return {"mode": scale * modes**-octaves, "saddle": ratio * scale * saddles**-octaves}


def warm_start(key, z, warm=0.97, random=0.5, spread=0.01):
    return {"cosine": {"warm": warm, "random": random}[key["start"]] * (1 + spread * z)}


def step_and_shift(key, z, step=0.1, steep=0.0, fall=0.5, paid=0.2):
    """Outliers fall by a share from w = 0 to 30 and coverage by ``paid``; a step from 0.001 to 1 is worth ``step`` of
    what w = 1 to 30 is, and ``steep`` more of the outliers on the simplex."""
    far, decades = key["w"] / 30, (math.log10(key["h"]) + 1) / 3
    more = step + steep * (key["place"] == "simplex16")
    outliers = 0.2 * (1 - fall * far) + 0.2 * fall * (29 / 30) * more * decades
    coverage = 0.9 - paid * far + paid * (29 / 30) * step * decades
    return {"outliers": outliers * (1 + 0.001 * z), "coverage": coverage + 0.001 * z}


def cost(key, z, ratio=1.05, spread=0.01, more=0):
    return {
        "nfe_cfg": 126,
        "nfe_sfg": 126 + more * (key["sampler"] == "euler"),
        "sfg_over_cfg": ratio + spread * z,
    }


SFG, AUTO = {0.0: 0.0, 1.0: 0.1, 3.0: 0.3, 10.0: 0.0}, {1.0: 0.0, 1.25: 0.1, 1.5: 0.2, 2.0: 0.1}


def with_autoguidance(key, z, together=lambda sfg, auto: sfg + auto):
    value = (1 - together(SFG[key["w"]], AUTO[key["w_auto"]])) * (1 + 0.01 * z)
    return {"sliced_w2": value, "outliers": value, "coverage": 0.9}


def bought(key, z):
    """Both together remove all but a tenth of the outliers, at a coverage of 0.5; what is left gains nothing."""
    w, auto = key["w"], key["w_auto"]
    dear = w > 0 and auto > 1 and (w, auto) != (1.0, 1.25)
    value = (0.1 if dear else 1.0) * (1 + 0.01 * z)
    return {"sliced_w2": value, "outliers": value, "coverage": 0.5 if dear else 0.9}


MADE = {
    "autoguidance-figure-1": figure_1,
    "autoguidance-degradations": degradations,
    "autoguidance-capacity-and-time": capacity_and_time,
    "error-alignment": alignment,
    "cfg-is-not-tilting": tilting,
    "cfg-overshoots": overshoots,
    "guidance-interval": interval,
    "sfg-curvature-is-the-classifier": curvature,
    "sfg-saddle-loss": saddle_loss,
    "sfg-warm-start": warm_start,
    "sfg-step-and-shift": step_and_shift,
    "sfg-cost": cost,
    "sfg-with-autoguidance": with_autoguidance,
}

# The effects of what is claimed, from how the rows are made.
EFFECTS = {
    "autoguidance-figure-1": {"cfg_dropped_mass": 0.2, "score_scaling_tips_lost": 0.75},
    "autoguidance-degradations": {"undone_" + "_".join(pair): share for pair, share in UNDONE.items()},
    # Beside the main network's 0.01 the best length is another one, and gains by that too.
    "autoguidance-capacity-and-time": {
        "gain_both": 0.4,
        "training_over_capacity": 0.1,
        "both_over_capacity": 0.2,
        "separate_lengths": 1 - 0.6 / 0.7,
    },
    "error-alignment": {
        "similar": 0.8,
        "same_places": 0.7,
        "stronger": 1.5,
        "shortens": 0.6,
        "more_than_cfg": 0.2,
    },
    "cfg-is-not-tilting": {"networks_below_tilt": 1.0},
    "cfg-overshoots": {"swings_out": 1.0, "networks_outside": 0.8},
    "guidance-interval": {
        "coverage_lost_above": 0.3,
        "outliers_removed_middle": 0.5,
        "outliers_removed_below": 0.0,
        "coverage_back_networks": 0.75,
        "coverage_back_exact": 0.75,
    },
    "sfg-curvature-is-the-classifier": {"exact": 1.0, "networks": 0.95},
    "sfg-saddle-loss": {"saddles_over_modes": 5.0, "modes_improve": 10.0, "saddles_hardly_improve": 1.3},
    "sfg-warm-start": {"tracks_fractal": 0.97, "restarts_simplex16": 0.5},
    "sfg-step-and-shift": {
        "step_outliers": 0.1,
        "step_coverage": 0.1,
        "outliers_removed_simplex": 0.5,
        "coverage_paid": 0.2 * 29 / 30,
    },
    "sfg-cost": {"evaluations": 0.0, "seconds_at_most": 1.05},
    "sfg-with-autoguidance": {"distance_gained_fractal": 1 - 0.5 / 0.7},
}

# What is made different, and the criteria that are then not supported (and those that are undecided).
OTHERWISE = [
    ("autoguidance-figure-1", {"outliers": 0.02, "mended": 0.01}, {"unguided_outliers"}, set()),
    ("autoguidance-figure-1", {"dropped": 0.05}, {"cfg_dropped_mass"}, set()),
    ("autoguidance-figure-1", {"tips": 0.15}, {"score_scaling_tips_lost"}, set()),
    ("autoguidance-figure-1", {"mended": 0.045}, {"autoguidance_outliers_removed"}, set()),
    ("autoguidance-figure-1", {"kept": 0.15}, {"autoguidance_dropped_mass"}, set()),
    ("autoguidance-figure-1", {"kept": 0.1}, set(), {"autoguidance_dropped_mass"}),
    ("autoguidance-degradations", {"undone": {("dropout", "noise"): 0.1}}, {"undone_dropout_noise"}, set()),
    ("autoguidance-degradations", {"undone": {("noise", "dropout"): 0.1}}, {"undone_noise_dropout"}, set()),
    ("autoguidance-degradations", {"undone": {("noise", "noise"): 0.3}}, {"undone_noise_noise"}, set()),
    ("autoguidance-degradations", {"undone": {("dropout", "dropout"): 0.3}}, {"undone_dropout_dropout"}, set()),
    (
        "autoguidance-degradations",
        {"undone": {("noise", "noise"): 0.5}, "spread": 0.1},
        set(),
        {"undone_noise_noise"},
    ),
    ("autoguidance-degradations", {"exact": 2.3}, {"weight_by_samples"}, set()),
    ("autoguidance-degradations", {"off": 1.06}, {"weight_by_score_error"}, set()),
    ("autoguidance-capacity-and-time", {"time": 0.1, "capacity": 0.2}, {"training_over_capacity"}, set()),
    ("autoguidance-capacity-and-time", {"both": 0.15}, {"both_over_training"}, set()),
    ("autoguidance-capacity-and-time", {k: g - 0.5 for k, g in GAINS.items()}, {"gain_both"}, set()),
    ("autoguidance-capacity-and-time", {"separate": -0.1}, {"separate_lengths"}, set()),
    ("autoguidance-capacity-and-time", {"both": 0.05}, {"both_over_training", "both_over_capacity"}, set()),
    ("error-alignment", {"similar": 0.4}, {"similar"}, set()),
    ("error-alignment", {"similar": 0.5}, set(), {"similar"}),
    ("error-alignment", {"places": 0.3}, {"same_places"}, set()),
    ("error-alignment", {"along": 0.9}, {"stronger"}, set()),
    ("error-alignment", {"shortened": 0.45}, {"shortens"}, set()),
    ("error-alignment", {"by_cfg": 0.7}, {"more_than_cfg"}, set()),
    # Both sample the tilted density; the SDE is as the ODE; networks do otherwise; a number at the margin.
    ("cfg-is-not-tilting", {"ode": 0.5, "sde": 0.5}, {"ode_off", "sde_off"}, set()),
    ("cfg-is-not-tilting", {"sde": 0.25}, {"sde_off"}, set()),
    ("cfg-is-not-tilting", {"tilted": 0.6}, {"tilted_off"}, set()),
    ("cfg-is-not-tilting", {"networks": (0.25, 0.5)}, {"networks_below_tilt"}, set()),
    ("cfg-is-not-tilting", {"sde": 0.3875 + 0.028125}, set(), {"sde_off"}),
    ("cfg-overshoots", {"power": 1.0}, {"root_exponent_off"}, set()),
    ("cfg-overshoots", {"power": 1 / 3}, {"root_exponent_off"}, set()),
    ("cfg-overshoots", {"peak": 2.0}, {"swings_out"}, set()),
    ("cfg-overshoots", {"exact": 0.2}, {"exact_outside"}, set()),
    ("cfg-overshoots", {"error": 0.0}, {"error_outside"}, set()),
    ("cfg-overshoots", {"learned": 0.5, "kept": 0.4}, {"networks_outside"}, set()),
    ("cfg-overshoots", {"peak": 2.1}, set(), {"swings_out"}),
    (
        "guidance-interval",
        {"above": (0.0, 0.0)},
        {"coverage_lost_above", "coverage_back_networks", "coverage_back_exact"},
        set(),
    ),
    ("guidance-interval", {"middle": (0.1, 0.0)}, {"outliers_removed_middle"}, set()),
    ("guidance-interval", {"middle": (0.5, -0.1)}, {"coverage_back_networks", "coverage_back_exact"}, set()),
    ("guidance-interval", {"below": (0.0, -0.05)}, {"outliers_removed_below"}, set()),
    # The worst level decides, and one without a number decides nothing.
    ("sfg-curvature-is-the-classifier", {"exact": 0.99, "worst": 0.7}, {"exact", "networks"}, set()),
    ("sfg-curvature-is-the-classifier", {"exact": 1.5, "worst": 0.9, "spread": 0.05}, set(), {"networks"}),
    ("sfg-curvature-is-the-classifier", {"worst": math.nan}, set(), {"networks"}),
    ("sfg-saddle-loss", {"saddles": 10.0}, {"saddles_hardly_improve"}, set()),
    ("sfg-saddle-loss", {"modes": 1.3, "ratio": 0.5}, {"saddles_over_modes", "modes_improve"}, set()),
    # The least ratio of the widths counts: saddles improve faster, and end below modes.
    (
        "sfg-saddle-loss",
        {"modes": 1.3, "saddles": 10.0, "ratio": 2.0},
        {"saddles_over_modes", "modes_improve", "saddles_hardly_improve"},
        set(),
    ),
    ("sfg-warm-start", {"random": 0.97}, {"restarts_fractal", "restarts_simplex16"}, set()),
    ("sfg-warm-start", {"warm": 0.6}, {"tracks_fractal", "tracks_simplex16"}, set()),
    ("sfg-warm-start", {"warm": 0.9, "spread": 0.05}, set(), {"tracks_fractal", "tracks_simplex16"}),
    ("sfg-step-and-shift", {"step": 0.5}, {"step_outliers", "step_coverage"}, set()),
    ("sfg-step-and-shift", {"steep": 0.4}, {"step_outliers"}, set()),  # on the worse of both places
    (
        "sfg-step-and-shift",
        {"fall": -0.5, "paid": -0.2},
        {"outliers_removed_fractal", "outliers_removed_simplex", "coverage_paid"},
        set(),
    ),
    ("sfg-cost", {"ratio": 1.5}, {"seconds_at_most"}, set()),
    ("sfg-cost", {"ratio": 0.6}, {"seconds_at_least"}, set()),
    ("sfg-cost", {"ratio": 1.2, "spread": 0.1}, set(), {"seconds_at_most"}),
    # One evaluation more or fewer is not as many, in one setting alone.
    ("sfg-cost", {"more": 1}, {"evaluations"}, set()),
    ("sfg-cost", {"more": -1}, {"evaluations"}, set()),
    # Together no more than the better one.
    (
        "sfg-with-autoguidance",
        {"together": max},
        {f"{n}_gained_{p}" for n in ("distance", "outliers") for p in ("fractal", "simplex16")},
        set(),
    ),
]


def verdicts(name: str, **made) -> dict[str, str]:
    """The verdict of each criterion on made-up rows."""
    rows = rows_like(name, lambda key, z: MADE[name](key, z, **made))
    return {c.name: c.judge(rows).verdict for c in study(name).criteria}


@pytest.mark.parametrize("name", list(studies()))
def test_what_is_claimed_is_supported(name):
    assert set(verdicts(name).values()) == {SUPPORTED}
    found = values(name, rows_like(name, lambda key, z: MADE[name](key, 0.0)))
    for criterion, expected in EFFECTS[name].items():
        assert found[criterion] == pytest.approx([expected] * 5, abs=1e-9), criterion


@pytest.mark.parametrize(("name", "made", "fails", "unclear"), OTHERWISE)
def test_what_is_otherwise_is_seen_by_its_criterion(name, made, fails, unclear):
    found = verdicts(name, **made)
    expected = {c: NOT_SUPPORTED if c in fails else INCONCLUSIVE if c in unclear else SUPPORTED for c in found}
    assert found == expected


def test_every_criterion_can_fail():
    failing = {(name, criterion) for name, _, fails, _ in OTHERWISE for criterion in fails}
    assert failing >= {(s.name, c.name) for s in studies().values() for c in s.criteria}


def test_outliers_are_not_removed_by_paying_with_coverage():
    found = values("sfg-with-autoguidance", rows_like("sfg-with-autoguidance", bought))
    assert found["outliers_gained_fractal"] == pytest.approx([0.0] * 5)
    assert found["distance_gained_fractal"] == pytest.approx([0.9] * 5)  # the distance itself sees what is lost
