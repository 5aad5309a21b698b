"""Every study's verdict, from a table of made-up rows: with what it claims, and with each part of it otherwise."""

from __future__ import annotations

import math

import pytest
from study_rows import rows_like, values

from toyguide.studies import studies, study
from toyguide.studies.base import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED, judge
from toyguide.studies.claims.shared.raised_noise import closed_form

# For each study: made-up numbers of a run. `z` is standard normal noise, one value for each seed; the other arguments
# are what a case makes different.


def figure_1(key, z, outliers=0.05, mended=0.03, cut=0.02, dropped=0.2, kept=0.05, tips=0.05, late=0.0):
    """``late`` outliers are there at the rule's larger judged weight only."""
    late *= key["w"] == {"cfg": 4.0, "autoguidance": 3.0}.get(key["rule"])
    left = {"cfg": cut + late, "autoguidance": mended + late}.get(key["rule"], outliers)
    lost = {"cfg": dropped, "autoguidance": kept}.get(key["rule"], 0.0)
    return {
        "outliers": left * (1 + 0.01 * z),
        "dropped_mass": lost * (1 + 0.01 * z),
        "tips": (tips if key["rule"] == "score-scaling" else 0.2) * (1 + 0.01 * z),
        "coverage": 0.9,
    }


def narrows(key, z, fall=0.8, push=0.9, narrow=0.1, classes=0.5, only=None):
    """``only`` the named fields are otherwise, at three times the distance alone."""
    mine = only in (None, key["fields"])
    inward = classes if key["fields"] == "classes" else push if mine else 0.9
    return {
        "falls_2": 0.9,
        "falls_3": (fall if mine else 0.8) + 0.001 * z,
        "inward_2": 0.9,
        "inward_3": inward + 0.001 * z,
        "narrower": (narrow if mine else 0.1) + 0.001 * z,
    }


def hyperparameters(key, z, outliers=0.1, dropped=0.3, removed=0.2, lost=0.05, where=None):
    """Otherwise only ``where``; outliers vary from seed to seed, and what is removed of them does not."""
    here = key["setup"] == where
    of_all = 0.1 * (1 + 0.1 * z) * (outliers / 0.1 if here else 1)
    if key["rule"] == "autoguidance":
        return {"outliers": of_all * (1 - (removed if here else 0.2)), "dropped_mass": lost if here else 0.05}
    mass = (dropped if here else 0.3) + 0.001 * z
    return {"outliers": of_all, "dropped_mass": mass if key["rule"] == "cfg" else 0.0}


def denoising(key, z, unguided=0.0, guided=0.0, coverage=0.0, spread=0.001):
    """What the denoising target adds; seeds differ by more than the targets do."""
    on, alone = key["loss"] == "denoising", key["rule"] == "none"
    return {
        "outliers": 0.2 + 0.1 * z + on * ((unguided if alone else guided) + spread * z),
        "coverage": 0.8 + 0.1 * z + on * (coverage * (not alone) + spread * z),
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


# What guidance does at noise levels from the first number to the second: it costs coverage, and adds outliers.
PARTS = {"low": (0.001, 0.02, 0.0, 0.0), "middle": (0.05, 0.1, 0.02, -0.1), "high": (0.8, 10.0, 0.5, 0.0)}


def interval(key, z, **parts):
    """Coverage 0.9 and outliers 0.2; each part that lies within the guided levels takes from the one and adds to the
    other."""
    effects = {name: (*part[:2], *parts.get(name, part[2:])) for name, part in PARTS.items()}
    on = [e[2:] for e in effects.values() if key["low"] <= e[0] and key["high"] >= e[1]]
    lost, more = (sum(e[i] for e in on) for i in (0, 1))
    return {"coverage": 0.9 - lost + 0.001 * z, "outliers": (0.2 + more) * (1 + 0.001 * z)}


def frequency(key, z, left=0.004, kept=0.0, cfg=0.7, seldom=0.005, low=0.015, high=0.05):
    """Unguided 2 % of the samples are of the other class; ``high`` is the coverage that the threshold 1 costs."""
    way = key["way"]
    if way == "unguided":
        return {"class_leak": 0.02, "coverage": 0.85}
    if way == "cfg":
        return {"class_leak": 0.004, "coverage": cfg + 0.001 * z}
    leak = seldom if key["period"] == 8 else low if key["value"] == 0.1 else left
    return {"class_leak": leak * (1 + 0.01 * z), "coverage": 0.85 - kept - high * (key["value"] == 1) + 0.001 * z}


def samples_the_tilt(key, z, off=0.02, misplaced=0.1, w2=0.04, weights=0.2, ode=3.0):
    """CFG's ODE is ``ode`` times as far off as its SDE; chance alone misplaces 0.05."""
    factor = 1 + 0.01 * z
    cfg = {"sde": 1.0, "ode": ode}.get(key["way"])
    if key["place"] == "line":
        return {"off": (off if cfg is None else 0.2 * cfg) * factor}
    mass = {"tilt": 0.05, "weights": weights}.get(key["way"], misplaced) if cfg is None else 0.05 + 0.2 * cfg
    return {"misplaced": mass + 0.0005 * z, "w2": (w2 if cfg is None else 0.15 * cfg) * factor}


def rescales(key, z, gaussian=1.0, modes=1.05, fractal=1.05, missed=0.02):
    """The factors of the effective weight by the ODE; by the SDE it is as claimed."""
    factor = {"gaussian": gaussian, "modes": modes, "fractal": fractal}[key["place"]] if key["by"] == "heun" else 1.0
    return {"effective": key["w"] * factor + 0.001 * z, "missed": missed + 0.001 * z}


def undoes(key, z, leak=0.001, coverage=0.9, distance=0.03, constant=0.06):
    """The constant weight is best at 1.4. Feedback that assumes another share, or runs by the ODE, is worse."""
    if key["way"] == "cfg":
        return {"class_leak": 0.02, "coverage": 0.85, "sliced_w2": constant + (key["value"] - 1.4) ** 2 + 0.0001 * z}
    if key["way"] == "clean":
        return {"class_leak": 0.001, "coverage": 0.9, "sliced_w2": 0.02}
    if (key["way"], key["by"], key["value"]) == ("feedback", "ancestral", 0.85):
        return {"class_leak": leak + 1e-5 * z, "coverage": coverage + 0.001 * z, "sliced_w2": distance + 0.0001 * z}
    return {"class_leak": 0.07, "coverage": 0.8, "sliced_w2": 0.1}


def curvature(key, z, network=0.99, worst=0.95, unequal=0.96, fractal=0.97, spread=0.0):
    """The networks' worst level is 0.25."""
    if key["field"] == "network":
        return {"cosine": (worst if key["level"] == 0.25 else network) * (1 + spread * z)}
    return {"cosine": {"unequal": unequal, "fractal": fractal}.get(key["data"], 1.0) * (1 + spread * z)}


def saddle_loss(key, z, modes=10.0, saddles=1.3, ratio=5.0):
    """Levels differ, which their geometric mean does not mind."""
    octaves, scale = math.log(key["width"] / 32) / math.log(8), (1 + 0.01 * z) / key["level"]
    return {"mode": scale * modes**-octaves, "saddle": ratio * scale * saddles**-octaves}


def warm_start(key, z, warm=0.97, random=0.5, more=0.01, spread=0.01):
    return {"cosine": {"warm": warm, "random": random, "kept": warm + more}[key["start"]] * (1 + spread * z)}


def step_and_shift(key, z, step=0.1, steep=0.0, fall=0.5, paid=0.2, beyond=0.0):
    """Outliers fall by a share from w = 0 to 30 and coverage by ``paid``; a step from 0.001 to 0.3 is worth ``step`` of
    what w = 1 to 30 is, and ``steep`` more of the outliers on the simplex; a step of 1 adds ``beyond``."""
    far, decades = key["w"] / 30, (math.log10(key["h"]) + 1) / (math.log10(0.3) + 3)
    more = step + steep * (key["place"] == "simplex16")
    outliers = 0.2 * (1 - fall * far) + 0.2 * fall * (29 / 30) * more * decades + beyond * (key["h"] == 1)
    coverage = 0.9 - paid * far + paid * (29 / 30) * step * decades - beyond * (key["h"] == 1)
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
    return {"sliced_w2": value, "trimmed_w2": value, "outliers": value, "coverage": 0.9}


def bought(key, z):
    """Both together remove all but a tenth of the outliers, at a coverage of 0.5; what is left gains nothing."""
    w, auto = key["w"], key["w_auto"]
    dear = w > 0 and auto > 1 and (w, auto) != (1.0, 1.25)
    value = (0.1 if dear else 1.0) * (1 + 0.01 * z)
    return {"sliced_w2": value, "trimmed_w2": value, "outliers": value, "coverage": 0.5 if dear else 0.9}


def two_basins(key, z, positive=0.5, worse=0.3, better=0.1, strays=0.0005, simplex_strays=0.1):
    """Half of the kinds end positive with a free gain; the loss of a bounded one is 0.1."""
    kinds = ["main", "weak", "uncond", "simplex"]
    rises = key["form"] == "free" and kinds.index(key["kind"]) < positive * len(kinds)
    more = 0.0 if key["form"] == "bounded" else worse if rises else better
    return {
        "gain": 0.3 if rises else -0.3,
        "loss": 0.1 * (1 + more + 0.001 * z),
        "outliers": 0.1,
        "strays": (simplex_strays if key["kind"] == "simplex" else strays) * (1 + 0.01 * z),
        "farthest": 1.5,
    }


def random_and_systematic(key, z, one=0.05, mean=0.02, kept=0.03, limited=0.6, lost=0.05, scaled=0.03):
    """Unguided 0.12 and 0.93. At w = 3 a guide costs its ``one`` or ``mean`` of coverage beyond ``kept``."""
    share = (key.get("w", 1.0) - 1) / 2
    outliers, coverage = 0.12, 0.93
    if key["kind"] == "scaling":
        share = (key["w"] - 1) / 0.2
        outliers, coverage = 0.12 - scaled * share, 0.93 - 0.3 * share
    elif key["kind"] == "guided" and key["low"] > 0.005 and key["guide"] == "mean":
        outliers, coverage = 0.12 * (1 - limited * share / 1.5), 0.93 - lost * share / 1.5
    elif key["kind"] == "guided":
        own = mean if key["guide"] == "mean" else one
        outliers, coverage = 0.12 - 0.04 * share, 0.93 - (kept + own) * share
    return {"outliers": outliers * (1 + 0.001 * z), "coverage": coverage + 0.0001 * z}


def way_back(key, z, pair=0.3, same=0.6, lost=0.3, spread=0.01):
    """CFG's distance is 1 at w = 7.5, and that of the same coverage at w = 5; CFG++ loses coverage with the steps."""
    if key["rule"] == "cfg":
        return {"distance": (pair / same) ** ((7.5 - key["value"]) / 2.5), "coverage": 1 - 0.1 * key["value"]}
    later = {25: -0.5, 100: 0.5}.get(key["steps"], 0.0)
    return {"distance": pair * (1 + spread * z), "coverage": 0.5 - lost * later}


def oversaturation(key, z, cfg=1.5, apg=1.0, projected=0.9, late=0.0, cut=0.4, kept=0.05, weaker=0.08, spread=0.01):
    """Unguided 0.1 of outliers; CFG at w = 1.5 covers as much as APG at w = 4. ``late`` is at the weight 16 alone."""
    rule, w = key["rule"], key["w"]
    radius = {"cfg": cfg, "apg": apg, "projected": projected}.get(rule, 1.0) + late * (w == 16.0)
    if rule == "cfg":
        outliers, coverage = (weaker if w == 1.5 else 0.2), 1 - 0.1 * w
    elif rule == "apg":
        outliers, coverage = (kept if w == 4.0 else 0.2 * cut), 0.85
    else:
        outliers, coverage = 0.1, 0.9
    return {"radius": 0.6 * radius * (1 + spread * z), "outliers": outliers * (1 + 0.001 * z), "coverage": coverage}


def quarter(key, z, fields="both", w=2.0, evaluations=0.7, more=0.0, off=0.0, spread=0.0001):
    """What is otherwise is so at one weight alone, and ``fields`` says where."""
    if "sigma" in key:
        return {"noise": 0.9, "denoised": 0.5}
    here = key["w"] == w and fields in ("both", key["fields"])
    return {
        "nfe_cfg": 126.0,
        "nfe_adaptive": 126.0 * (evaluations if here else 0.7) + spread * z,
        "outliers_cfg": 0.1,
        "outliers_adaptive": 0.1 + here * more + spread * z,
        "coverage_cfg": 0.4,
        "coverage_adaptive": 0.4 + here * off + spread * z,
    }


def few_steps(key, z, first=2.0, same=0.4, less=0.8, best=0.7, steps=8, spread=0.001):
    """What is otherwise is so at ``steps`` alone. The best constant weight is 1.2."""
    if "sigma" in key:
        return {"ratio": first * (1 + spread * z) if key["sigma"] == 20.0 else 1.0}
    here, w = key["steps"] == steps, key["value"]
    if key["rule"] == "cfg":
        outliers = {10.0: 0.1 * (less / same if here else 2.0), 1.0: 0.1}.get(w, 0.05)
        return {"outliers": outliers, "trimmed_w2": 0.1 + abs(w - 1.2) / 10}
    outliers, distance = (less, best) if here else (0.8, 0.7)
    return {"outliers": 0.1 * outliers * (1 + spread * z), "trimmed_w2": 0.1 * distance * (1 + spread * z)}


def schedules(key, z, gained=0.1, removed=0.3, mild=0.1, lost=0.1):
    """Coverage falls with the constant weight, from w = 2 to 3 by 0.2; outliers are 0.1, and ``mild`` up to w = 2."""
    shape, w = key["schedule"], key["w"]
    rising, falling = shape in ("linear", "cosine"), shape.endswith("down")
    coverage = 0.9 - 0.2 * (w - 1) + gained * rising - lost * falling
    outliers = mild if w <= 2 else 0.1
    return {"coverage": coverage + 0.0001 * z, "outliers": outliers * (1 - removed * rising) * (1 + 0.001 * z)}


def step_count(key, z, pushes=0.1, rescaled=0.004, cfg_limit=0.001, from_cfg=0.005, **fields):
    """What the last doubling moves samples by, 0.003 unless given; EluCD's by 0.1 more than those of CFG++."""
    rule = key["rule"]
    moved = {"cfg++": pushes, "elucd": pushes + 0.1, "cfg++/N": rescaled, "elucd/N": 0.002}
    found = (moved | fields).get(rule, 0.003)
    return {
        "moved_256": found * (1 + 0.01 * z),
        "from_cfg_256": from_cfg + 0.0001 * z,
        "from_cfg-limit_256": cfg_limit + 0.0001 * z,
    }


def tsr(key, z, sharp=4.0, moved=0.0, emptied=0.1, at_sharp=0.1, at_clean=0.05, closer=0.5):
    """At k = 1.25 score scaling is as sharp on the modes as TSR at 4 should be. On the fractal it is linear in k, and
    at k = 1.1 as sharp as TSR at 1.5, with as many outliers as TSR at 2."""
    k, naive = key["k"], key["rule"] == "score-scaling"
    if key["place"] == "modes":
        factor = 4 ** ((k - 1) / 0.25) if naive else sharp if k == 4 else k
        share = 0.3 - emptied * (k - 1) / 0.25 if naive else 0.3 + moved * (k == 4)
        return {"log_variance": math.log(0.05 / factor), "share": share + 0.0001 * z}
    of = (k - 1) / 0.4 if naive else 0.25
    return {
        "outliers": 0.12 * (1 - of),
        "median_log_density": 1 + of,
        "coverage": 0.9 - 0.4 * of + (0 if naive else at_sharp if k == 1.5 else at_clean) + 0.0001 * z,
        "trimmed_w2": (0.1 + of) * (1 if naive else 1 - closer) * (1 + 0.001 * z),
        "tips": 0.1,
    }


def internal(key, z, removed=0.3, auto=0.3, paper=0.4, dropped=0.05):
    """Within 0.05 of coverage are w = 1.4 of internal guidance, with ``removed``, and 1.75 of autoguidance."""
    rule, w = key["rule"], key["w"]
    own = rule == "internal-guidance"
    share = paper if own and w == 1.7 else (removed / 0.4 if own else auto / 0.75) * (w - 1)
    return {
        "outliers": 0.15 * (1 + 0.1 * z) * (1 - share - 0.001 * z * (w > 1)),
        "coverage": 0.9 - (0.12 if own else 0.06) * (w - 1),
        "dropped_mass": (dropped if own and w == 1.7 else 0.0) + 0.001 * z,
        "strays_05": 0.01,
        "trimmed_w2": 0.02,
    }


MADE = {
    "cfg++-invertibility": way_back,
    "apg-oversaturation": oversaturation,
    "adaptive-guidance-saves-a-quarter": quarter,
    "raag-few-steps": few_steps,
    "training-two-basins": two_basins,
    "autoguidance-random-and-systematic": random_and_systematic,
    "autoguidance-figure-1": figure_1,
    "autoguidance-narrows": narrows,
    "autoguidance-hyperparameters": hyperparameters,
    "autoguidance-denoising": denoising,
    "autoguidance-degradations": degradations,
    "autoguidance-capacity-and-time": capacity_and_time,
    "error-alignment": alignment,
    "cfg-is-not-tilting": tilting,
    "cfg-overshoots": overshoots,
    "guidance-interval": interval,
    "gfcg-frequency-and-threshold": frequency,
    "fkc-samples-the-tilt": samples_the_tilt,
    "rlg-rescales-kl": rescales,
    "fbg-undoes-contamination": undoes,
    "sfg-curvature-is-the-classifier": curvature,
    "sfg-saddle-loss": saddle_loss,
    "sfg-warm-start": warm_start,
    "sfg-step-and-shift": step_and_shift,
    "sfg-cost": cost,
    "sfg-with-autoguidance": with_autoguidance,
    "schedules-against-constant": schedules,
    "step-count-dependence": step_count,
    "tsr-against-scaling": tsr,
    "internal-guidance-replaces-the-weak-model": internal,
}

# The effects of what is claimed, from how the rows are made.
EFFECTS = {
    "cfg++-invertibility": {"ratio_of_the_pair": 0.3, "ratio_at_equal_coverage": 0.6, "coverage_lost_by_steps": 0.3},
    "apg-oversaturation": {
        "growth_by_cfg": 1.5,
        "growth_by_apg": 1.0,
        "growth_by_projection": 0.9,
        "outliers_of_cfgs": 0.4,
        "outliers_of_unguided": 0.5,
        "outliers_of_weaker_cfg": 5 / 8,
    },
    "adaptive-guidance-saves-a-quarter": {
        "evaluations_networks": 0.7,
        "more_outliers_networks": 0.0,
        "coverage_off_networks": 0.0,
    },
    "raag-few-steps": {
        "ratio_first_over_later": 2.0,
        "outliers_of_cfgs": 0.4,
        "outliers_of_unguided": 0.8,
        "distance_of_best_weight": 0.7,
    },
    "training-two-basins": {
        "free_positive": 0.5,
        "loss_if_positive": 0.3,
        "loss_if_negative": 0.1,
        "bounded_strays": 0.0005,
    },
    "autoguidance-random-and-systematic": {
        "coverage_kept_by_the_mean": 0.03,
        # At 5/8 and at 1 of what w = 3 does.
        "fewer_outliers_matched": 0.04 * (1 - 5 / 8),
        "limited_removed": 0.6,
        "limited_coverage_lost": 0.05,
        "fewer_than_score_scaling": 0.6 * 0.12 - 0.03 / 6,
    },
    "autoguidance-figure-1": {
        "cfg_outliers_removed_w2": 0.6,
        "cfg_dropped_mass": 0.2,
        "score_scaling_tips_lost": 0.75,
        "autoguidance_outliers_removed_w3": 0.4,
    },
    "autoguidance-narrows": {"falls_cfg": 0.8, "inward_autoguidance": 0.9, "narrower_raised": 0.1},
    "autoguidance-hyperparameters": {
        "unguided_outliers": 0.1,
        "cfg_dropped_mass": 0.3,
        "autoguidance_outliers_removed": 0.2,
        "autoguidance_dropped_mass": 0.05,
    },
    "autoguidance-denoising": {"outliers_unguided_no_higher": 0.0, "coverage_autoguidance_no_lower": 0.0},
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
    # From 0.05 to 0.1, or as far down as one likes.
    "guidance-interval": {
        "coverage_lost_above": 0.5,
        "outliers_removed": 0.5,
        "outliers_removed_below": 0.0,
        "coverage_back": 0.5 / 0.52,
    },
    "gfcg-frequency-and-threshold": {
        "leak_removed": 0.8,
        "coverage_lost": 0.0,
        "more_coverage_than_cfg": 0.15,
        "asking_seldom": 0.75 / 0.8,
        "low_threshold": 0.25 / 0.8,
        "high_threshold": 0.05,
    },
    "fkc-samples-the-tilt": {
        "moments": 0.1,
        "branches": 0.05 / 0.2,
        "distance": 0.04 / 0.15,
        "resampling": 1 - 0.05 / 0.15,
    },
    "rlg-rescales-kl": {"weight_off_gaussian": 0.0, "missed_gaussian": 0.02, "weight_off_modes": 0.05},
    "fbg-undoes-contamination": {"leak_removed": 1.0, "coverage_lost": 0.0, "closer": 0.5},
    "sfg-curvature-is-the-classifier": {"networks": 0.95, "unequal": 0.96, "fractal": 0.97},
    "sfg-saddle-loss": {
        "saddles_over_modes": 5.0,
        "saddles_improve_less": 10 / 1.3,
        "factor_at_saddles_off": 1.0,
        "factor_at_modes_off": 1.0,
    },
    "sfg-warm-start": {"tracks_fractal": 0.97, "restarts_simplex16": 0.5, "kept_fractal": 0.01},
    "sfg-step-and-shift": {
        "step_outliers": 0.1,
        "step_coverage": 0.1,
        "outliers_removed_simplex": 0.5,
        "coverage_paid": 0.2 * 29 / 30,
    },
    "sfg-cost": {"evaluations": 0.0, "seconds_at_most": 1.05},
    "sfg-with-autoguidance": {"distance_gained_fractal": 1 - 0.5 / 0.7},
    "schedules-against-constant": {
        "coverage_gained_rising": 0.1,
        "outliers_removed_rising": 0.3,
        "outliers_removed_at_equal_coverage": 0.3,
        "coverage_lost_falling": 0.1,
    },
    "step-count-dependence": {
        "settled_moved": 0.003,
        "terminal_fitted_from_cfg": 0.005,
        "momentum_from_weaker_cfg": 0.001,
        "pushes_moved": 0.1,
        "rescaled_moved": 0.004,
    },
    "tsr-against-scaling": {
        "variance_off": 0.0,
        "share_moved": 0.0,
        "share_kept": 0.1,
        "coverage_gained_equally_sharp": 0.1,
        "coverage_gained_equal_outliers": 0.05,
        "closer_equal_outliers": 0.5,
    },
    "internal-guidance-replaces-the-weak-model": {
        "outliers_removed": 0.3,
        "removed_beside_autoguidance": 0.0,
        "outliers_removed_paper": 0.4,
        "dropped_mass_paper": 0.05,
    },
}

# What is made different, and the criteria that are then not supported (and those that are undecided).
OTHERWISE = [
    ("training-two-basins", {"positive": 0.0}, {"free_positive"}, {"loss_if_positive"}),  # which no seed has
    ("training-two-basins", {"simplex_strays": 0.5}, set(), set()),  # are not judged
    ("training-two-basins", {"worse": 0.05}, {"loss_if_positive"}, set()),
    ("training-two-basins", {"better": -0.1}, {"loss_if_negative"}, set()),
    ("training-two-basins", {"strays": 0.02}, {"bounded_strays"}, set()),
    ("autoguidance-random-and-systematic", {"mean": 0.04}, {"coverage_kept_by_the_mean"}, set()),
    (
        "autoguidance-random-and-systematic",
        {"mean": 0.06},
        {"coverage_kept_by_the_mean", "fewer_outliers_matched"},
        set(),
    ),
    ("autoguidance-random-and-systematic", {"limited": 0.4}, {"limited_removed"}, set()),
    ("autoguidance-random-and-systematic", {"lost": 0.12}, {"limited_coverage_lost"}, set()),
    ("autoguidance-random-and-systematic", {"scaled": 0.5}, {"fewer_than_score_scaling"}, set()),
    ("autoguidance-figure-1", {"outliers": 0.02, "mended": 0.01, "cut": 0.01}, {"unguided_outliers"}, set()),
    (
        "autoguidance-figure-1",
        {"cut": 0.06},
        {"cfg_outliers_removed_w2", "cfg_outliers_removed_w4"},
        set(),
    ),
    (
        "autoguidance-figure-1",
        {"late": 0.03},
        {"cfg_outliers_removed_w4", "autoguidance_outliers_removed_w3"},
        set(),
    ),
    ("autoguidance-figure-1", {"dropped": 0.05}, {"cfg_dropped_mass"}, set()),
    ("autoguidance-figure-1", {"tips": 0.15}, {"score_scaling_tips_lost"}, set()),
    (
        "autoguidance-figure-1",
        {"mended": 0.045},
        {"autoguidance_outliers_removed_w2", "autoguidance_outliers_removed_w3"},
        set(),
    ),
    (
        "autoguidance-figure-1",
        {"kept": 0.15},
        {"autoguidance_dropped_mass_w2", "autoguidance_dropped_mass_w3"},
        set(),
    ),
    (
        "autoguidance-figure-1",
        {"kept": 0.1},
        set(),
        {"autoguidance_dropped_mass_w2", "autoguidance_dropped_mass_w3"},
    ),
    *(
        ("autoguidance-narrows", {made: 0.5, "only": fields}, {f"{criterion}_{fields}"}, set())
        for made, criterion in (("fall", "falls"), ("push", "inward"))
        for fields in ("cfg", "autoguidance", "raised")
    ),
    ("autoguidance-narrows", {"narrow": -0.1}, {f"narrower_{f}" for f in ("cfg", "autoguidance", "raised")}, set()),
    ("autoguidance-narrows", {"classes": 0.8}, {"inward_classes"}, set()),
    # One setup is enough, whatever the average of all.
    ("autoguidance-hyperparameters", {"outliers": 0.01, "where": "half the steps"}, {"unguided_outliers"}, set()),
    (
        "autoguidance-hyperparameters",
        {"dropped": 0.05, "where": "main: a quarter of the training"},
        {"cfg_dropped_mass"},
        set(),
    ),
    (
        "autoguidance-hyperparameters",
        {"removed": -0.1, "lost": 0.2, "where": "guide: twice the rate"},
        {"autoguidance_outliers_removed", "autoguidance_dropped_mass"},
        set(),
    ),
    ("autoguidance-denoising", {"unguided": 0.1}, {"outliers_unguided_no_higher"}, set()),
    ("autoguidance-denoising", {"unguided": -0.1}, {"outliers_unguided_no_lower"}, set()),
    ("autoguidance-denoising", {"guided": 0.1}, {"outliers_autoguidance_no_higher"}, set()),
    ("autoguidance-denoising", {"guided": -0.1}, {"outliers_autoguidance_no_lower"}, set()),
    ("autoguidance-denoising", {"coverage": 0.1}, {"coverage_autoguidance_no_higher"}, set()),
    ("autoguidance-denoising", {"coverage": -0.1}, {"coverage_autoguidance_no_lower"}, set()),
    (
        "autoguidance-denoising",
        {"spread": 0.3},
        set(),
        {
            f"{n}_no_{way}"
            for n in ("outliers_unguided", "outliers_autoguidance", "coverage_autoguidance")
            for way in ("higher", "lower")
        },
    ),
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
    ("guidance-interval", {"high": (0.0, 0.0)}, {"coverage_lost_above", "coverage_back"}, set()),
    ("guidance-interval", {"middle": (0.02, 0.0)}, {"outliers_removed"}, set()),
    ("guidance-interval", {"low": (0.0, -0.05)}, {"outliers_removed_below"}, set()),
    # Where the benefit is, coverage is lost: chosen is an interval without either.
    ("guidance-interval", {"middle": (0.3, -0.1)}, {"outliers_removed"}, set()),
    ("gfcg-frequency-and-threshold", {"left": 0.015, "low": 0.02}, {"leak_removed"}, set()),
    ("gfcg-frequency-and-threshold", {"kept": 0.05}, {"coverage_lost"}, set()),
    ("gfcg-frequency-and-threshold", {"cfg": 0.84}, {"more_coverage_than_cfg"}, set()),
    ("gfcg-frequency-and-threshold", {"seldom": 0.015}, {"asking_seldom"}, set()),
    ("gfcg-frequency-and-threshold", {"low": 0.005}, {"low_threshold"}, set()),
    ("gfcg-frequency-and-threshold", {"high": 0.0}, {"high_threshold"}, set()),
    ("fkc-samples-the-tilt", {"off": 0.1}, {"moments"}, set()),
    ("fkc-samples-the-tilt", {"misplaced": 0.2, "weights": 0.4}, {"branches"}, set()),
    ("fkc-samples-the-tilt", {"w2": 0.1}, {"distance"}, set()),
    ("fkc-samples-the-tilt", {"weights": 0.1}, {"resampling"}, set()),
    # The nearer of CFG's samplers counts.
    ("fkc-samples-the-tilt", {"ode": 0.3}, {"moments", "branches", "distance"}, set()),
    ("rlg-rescales-kl", {"gaussian": 1.05}, {"weight_off_gaussian"}, set()),
    ("rlg-rescales-kl", {"missed": 0.1}, {"missed_gaussian"}, set()),
    ("rlg-rescales-kl", {"modes": 1.5}, {"weight_off_modes"}, set()),
    ("rlg-rescales-kl", {"fractal": 0.8}, {"weight_off_fractal"}, set()),
    ("fbg-undoes-contamination", {"leak": 0.02}, {"leak_removed"}, set()),
    ("fbg-undoes-contamination", {"coverage": 0.85}, {"coverage_lost"}, set()),
    ("fbg-undoes-contamination", {"distance": 0.055}, {"closer"}, set()),
    # Against the best of the constant weights, and only at the true share.
    ("fbg-undoes-contamination", {"constant": 0.035}, {"closer"}, set()),
    # The worst level decides, and one without a number decides nothing.
    ("sfg-curvature-is-the-classifier", {"worst": 0.7}, {"networks"}, set()),
    ("sfg-curvature-is-the-classifier", {"unequal": 0.8, "fractal": 0.7}, {"unequal", "fractal"}, set()),
    (
        "sfg-curvature-is-the-classifier",
        {"unequal": 2, "fractal": 2, "worst": 0.9, "spread": 0.1},
        set(),
        {"networks"},
    ),
    ("sfg-curvature-is-the-classifier", {"worst": math.nan}, set(), {"networks"}),
    ("sfg-saddle-loss", {"saddles": 3.0}, {"factor_at_saddles_off"}, set()),
    ("sfg-saddle-loss", {"modes": 20.0}, {"factor_at_modes_off"}, set()),
    ("sfg-saddle-loss", {"saddles": 0.5}, {"factor_at_saddles_off"}, set()),
    (
        "sfg-saddle-loss",
        {"modes": 1.2, "ratio": 0.5},
        {"saddles_over_modes", "saddles_improve_less", "factor_at_modes_off"},
        set(),
    ),
    # The least ratio of the widths counts: saddles improve faster, and end below modes.
    (
        "sfg-saddle-loss",
        {"modes": 1.3, "saddles": 10.0, "ratio": 2.0},
        {"saddles_over_modes", "saddles_improve_less", "factor_at_modes_off", "factor_at_saddles_off"},
        set(),
    ),
    ("sfg-warm-start", {"more": -0.01}, {"kept_fractal", "kept_simplex16"}, set()),
    ("sfg-warm-start", {"random": 0.97}, {"restarts_fractal", "restarts_simplex16"}, set()),
    ("sfg-warm-start", {"warm": 0.6}, {"tracks_fractal", "tracks_simplex16"}, set()),
    ("sfg-warm-start", {"warm": 0.9, "spread": 0.05}, set(), {"tracks_fractal", "tracks_simplex16"}),
    ("sfg-step-and-shift", {"beyond": 0.5}, set(), set()),  # is not judged
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
    ("cfg++-invertibility", {"pair": 0.7}, {"ratio_of_the_pair"}, set()),
    ("cfg++-invertibility", {"same": 1.1}, {"ratio_at_equal_coverage"}, set()),
    ("cfg++-invertibility", {"lost": 0.05}, {"coverage_lost_by_steps"}, set()),
    ("cfg++-invertibility", {"pair": 0.5, "spread": 0.1}, set(), {"ratio_of_the_pair"}),
    ("apg-oversaturation", {"cfg": 1.1}, {"growth_by_cfg"}, set()),
    ("apg-oversaturation", {"apg": 1.2}, {"growth_by_apg"}, set()),
    ("apg-oversaturation", {"projected": 1.2}, {"growth_by_projection"}, set()),
    # At the largest weight alone.
    ("apg-oversaturation", {"late": 0.3}, {"growth_by_apg", "growth_by_projection"}, set()),
    ("apg-oversaturation", {"cut": 0.6}, {"outliers_of_cfgs"}, set()),
    ("apg-oversaturation", {"kept": 0.095, "weaker": 0.1}, {"outliers_of_unguided"}, set()),
    ("apg-oversaturation", {"weaker": 0.04}, {"outliers_of_weaker_cfg"}, set()),
    ("apg-oversaturation", {"cfg": 1.25, "spread": 0.1}, set(), {"growth_by_cfg"}),
    *(
        ("adaptive-guidance-saves-a-quarter", {"fields": fields, "w": w, **made}, {f"{criterion}_{fields}"}, set())
        for fields in ("networks", "exact")
        for w in (2.0, 4.0)
        for made, criterion in (
            ({"evaluations": 0.8}, "evaluations"),
            ({"more": 0.03}, "more_outliers"),
            ({"off": 0.05}, "coverage_off"),
            ({"off": -0.05}, "coverage_off"),
        )
    ),
    ("raag-few-steps", {"first": 0.5}, {"ratio_first_over_later"}, set()),
    *(
        ("raag-few-steps", {made: value, "steps": steps}, {criterion}, set())
        for made, value, criterion in (
            ("same", 0.7, "outliers_of_cfgs"),
            ("less", 1.2, "outliers_of_unguided"),
            ("best", 1.1, "distance_of_best_weight"),
        )
        for steps in (5, 8, 10)
    ),
    ("schedules-against-constant", {"gained": 0.0}, {"coverage_gained_rising"}, set()),
    # At equal coverage the constant weight lies halfway between 2 and 3.
    ("schedules-against-constant", {"mild": 0.05}, {"outliers_removed_at_equal_coverage"}, set()),
    ("schedules-against-constant", {"mild": 0.2, "removed": 0.0}, {"outliers_removed_rising"}, set()),
    ("schedules-against-constant", {"lost": 0.0}, {"coverage_lost_falling"}, set()),
    *(("step-count-dependence", {rule: 0.02}, {"settled_moved"}, set()) for rule in ("cfg", "terminal-fitted", "apg")),
    ("step-count-dependence", {"smc-cfg": 0.02}, set(), set()),  # is not judged
    ("step-count-dependence", {"from_cfg": 0.05}, {"terminal_fitted_from_cfg"}, set()),
    ("step-count-dependence", {"cfg_limit": 0.05}, {"momentum_from_weaker_cfg"}, set()),
    ("step-count-dependence", {"pushes": 0.02}, {"pushes_moved"}, set()),  # one that settles is enough
    ("step-count-dependence", {"rescaled": 0.02}, {"rescaled_moved"}, set()),
    ("tsr-against-scaling", {"sharp": 5.0}, {"variance_off"}, set()),
    ("tsr-against-scaling", {"moved": -0.03}, {"share_moved"}, set()),
    ("tsr-against-scaling", {"emptied": 0.0}, {"share_kept"}, set()),
    ("tsr-against-scaling", {"at_sharp": 0.0}, {"coverage_gained_equally_sharp"}, set()),
    ("tsr-against-scaling", {"at_clean": 0.0}, {"coverage_gained_equal_outliers"}, set()),
    ("tsr-against-scaling", {"closer": 0.0}, {"closer_equal_outliers"}, set()),
    ("internal-guidance-replaces-the-weak-model", {"removed": 0.05, "auto": 0.05}, {"outliers_removed"}, set()),
    ("internal-guidance-replaces-the-weak-model", {"auto": 0.4}, {"removed_beside_autoguidance"}, set()),
    ("internal-guidance-replaces-the-weak-model", {"paper": 0.05}, {"outliers_removed_paper"}, set()),
    ("internal-guidance-replaces-the-weak-model", {"dropped": 0.2}, {"dropped_mass_paper"}, set()),
]


def verdicts(name: str, **made) -> dict[str, str]:
    """The verdict of each criterion on made-up rows."""
    rows = rows_like(name, lambda key, z: MADE[name](key, z, **made))
    return {j.criterion.name: j.verdict for j in judge(study(name).criteria, rows)}


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
