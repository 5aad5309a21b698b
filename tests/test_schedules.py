"""Schedules of a weight: their shapes, the weight that each step has, and experiments that name one."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from helpers import seeded
from scipy import integrate, stats
from walks import FIELDS, LEVELS, W, X, walk

import toyguide as tg
from toyguide.contract import allowed, fields_for, run
from toyguide.errors import InputError
from toyguide.guidance import Batched, Evaluation, Guided, Interval, PerTrajectory, Rule, Scene, Schedule
from toyguide.guidance.probe import guided_at
from toyguide.guidance.schedules import SHAPES, checked_schedule, shares, weight_of
from toyguide.probes import probe
from toyguide.samplers import sampler, trajectory
from toyguide.sweeps.batch import batches, identity, walk_batch

ALL = [*SHAPES, "early:0.5", "early:0.3", "late:0.5", "late:1"]


def scheduled(rule: Rule, schedule: str | None, levels: torch.Tensor = LEVELS) -> Schedule:
    return Schedule(rule, schedule, levels.tolist())


# Shapes


@pytest.mark.parametrize("steps", [3, 4, 32, 501])
@pytest.mark.parametrize("schedule", ALL)
def test_the_mean_over_the_steps_is_the_constant_weights(schedule, steps):
    assert math.fsum(shares(schedule, steps)) / steps == pytest.approx(1.0, rel=1e-14)
    assert min(shares(schedule, steps)) >= 0


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_integrates_to_one(name):
    """So that dividing by the mean over the steps only undoes that they are few."""
    whole, _ = integrate.quad(lambda p: float(SHAPES[name](np.array([p]))[0]), 0, 1, points=[0.5])
    assert whole == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1, 1, 1, 1, 1]),
        ("linear", [0, 0.5, 1, 1.5, 2]),
        ("linear-down", [2, 1.5, 1, 0.5, 0]),
        ("cosine", [0, 1 - 0.5**0.5, 1, 1 + 0.5**0.5, 2]),
        ("cosine-down", [2, 1 + 0.5**0.5, 1, 1 - 0.5**0.5, 0]),
        ("v", [5 / 3, 5 / 6, 0, 5 / 6, 5 / 3]),
        ("triangle", [0, 1.25, 2.5, 1.25, 0]),
        ("early:0.5", [5 / 3, 5 / 3, 5 / 3, 0, 0]),
        ("late:0.25", [0, 0, 0, 2.5, 2.5]),
        ("early:0.01", [5, 0, 0, 0, 0]),
    ],
)
def test_five_steps_by_hand(schedule, expected):
    assert shares(schedule, 5) == pytest.approx(expected, abs=1e-14)


def test_beta_is_the_density():
    density = stats.beta(2, 2).pdf(np.linspace(0, 1, 101))
    assert shares("beta", 101) == pytest.approx(density / density.mean(), abs=1e-12)


def test_triangle_goes_from_1_to_2w_minus_1_and_back():
    """Once its mean is that of many steps."""
    weights = [1 + share * (4.0 - 1) for share in shares("triangle", 1001)]
    assert (weights[0], weights[500], weights[-1]) == pytest.approx((1.0, 2 * 4.0 - 1, 1.0), rel=1e-3)


@pytest.mark.parametrize(
    ("given", "found"),
    [(None, None), ("constant", None), ("linear", "linear"), ("early", "early:0.5"), ("late:0.50", "late:0.5")],
)
def test_a_schedule_is_written_in_one_way(given, found):
    assert checked_schedule(given) == checked_schedule(found) == found


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("liner", "unknown schedule 'liner': .*did you mean 'linear'"),
        ("linear:0.5", "unknown schedule"),
        ("early:0", "expected a share of the steps up to 1, like early:0.5"),
        ("late:nan", "expected a share"),
        ("late:", "expected a share"),
        ("early:1.5", "expected a share"),
        (3, "unknown schedule '3'"),
    ],
)
def test_a_wrong_schedule_is_refused(wrong, said):
    with pytest.raises(InputError, match=said):
        checked_schedule(wrong)


# Rules


def test_the_weight_of_a_rule_is_the_one_that_has_an_unguided_value():
    keys = ("cfg", "sfg", "sfg+autoguidance", "score-scaling", "negative", "none", "cfg++", "fkc")
    named = {key: weight_of(tg.rules()[key]) for key in keys}
    assert named == dict(zip(keys, ("w", "w", "w", "k", "lam", None, None, None), strict=True))
    assert weight_of(tg.rule("cfg", w=2.0)) == "w"


SCHEDULED = [key for key, cls in tg.rules().items() if weight_of(cls)]


def end(rule: Rule, fields: dict) -> torch.Tensor:
    """Where a run of a rule ends, as the checks of every rule run it."""
    return run(rule, fields)[-1].x


@pytest.mark.parametrize("key", SCHEDULED)
def test_a_constant_schedule_is_the_rule_itself(key):
    rule, fields = tg.rule(key), fields_for(tg.rules()[key])
    for schedule in ("constant", "early:1"):
        assert torch.equal(end(rule, fields), end(scheduled(rule, schedule), fields))


@pytest.mark.parametrize("key", SCHEDULED)
def test_a_schedule_of_the_unguided_weight_is_unguided(key):
    """Whatever the shape, and in the steps that a shape does not guide."""
    rule, fields = tg.rules()[key](**tg.rules()[key].unguided), fields_for(tg.rules()[key])
    plain = run(tg.rule("none"), fields, method=allowed(rule))[-1].x
    torch.testing.assert_close(end(scheduled(rule, "triangle"), fields), plain, rtol=0, atol=1e-12)


@pytest.mark.parametrize("key", [key for key in SCHEDULED if len(tg.rules()[key].unguided) == 1])
def test_early_guidance_is_an_interval_of_a_larger_weight(key):
    """Three of five steps: ``w`` becomes ``u + 5/3 (w - u)``, and only the levels above the fourth are guided."""
    cls = tg.rules()[key]
    name = weight_of(cls)
    unguided, weight = cls.unguided[name], cls().values()[name]
    larger = cls(**{name: unguided + 5 / 3 * (weight - unguided)})
    early, inside = scheduled(cls(**{name: weight}), "early:0.5"), Interval(larger, 0.5, 10.0)
    fields = fields_for(cls)
    torch.testing.assert_close(end(early, fields), end(inside, fields), rtol=0, atol=1e-11)


def test_a_heun_step_has_one_weight():
    """By hand: CFG in five Heun steps with the weights of a falling ramp."""
    x, weights = X, [1 + share * 2 for share in (2, 1.5, 1, 0.5, 0)]
    for w, s, t in zip(weights, LEVELS[:-1].tolist(), LEVELS[1:].tolist(), strict=True):

        def slope(x, at, w=w):
            return (x - (w * FIELDS["main"].denoise(x, at) + (1 - w) * FIELDS["uncond"].denoise(x, at))) / at

        first = slope(x, s)
        ahead = x + (t - s) * first
        x = ahead if t == 0 else x + (t - s) * (first + slope(ahead, t)) / 2
    torch.testing.assert_close(walk(scheduled(tg.rule("cfg", w=3.0), "linear-down"))[-1].x, x)


class Weighed(Rule):
    """Says which weight each of its methods sees."""

    unguided: dict[str, float] = {"w": 1.0}  # noqa: RUF012
    w = PerTrajectory(3.0, bounds=(0.0, 4.0), doc="A weight.")
    seen: list[tuple[str, float]] = []  # noqa: RUF012

    def before_step(self, at, memory):
        self.seen.append(("before", self.w))
        return super().before_step(at, memory)

    def guide(self, at, memory):
        self.seen.append(("guide", self.w))
        return Guided(at.denoised())

    def after_step(self, step, memory, generator):
        self.seen.append(("after", self.w))
        return super().after_step(step, memory, generator)


def test_every_method_sees_the_weight_of_its_step():
    """Beyond the bound of a constant weight too; a later object of the rule keeps its bounds."""
    Weighed.seen.clear()
    walk(scheduled(Weighed(w=3.0), "linear"))
    steps = [["before", "guide", "guide", "after"]] * 4 + [["before", "guide", "after"]]
    expected = [(name, w) for names, w in zip(steps, [1.0, 2.0, 3.0, 4.0, 5.0], strict=True) for name in names]
    assert Weighed.seen == expected
    with pytest.raises(InputError, match=r"w = 5\.0: expected a number from 0\.0 to 4\.0"):
        Weighed(w=5.0)


def test_a_probe_gets_the_weight_of_the_nearest_level():
    rule, x = scheduled(tg.rule("cfg", w=3.0), "linear"), X[:5]
    for sigma, w in ((3.0, 1.0), (2.9, 1.0), (0.7, 3.0), (0.75, 3.0), (0.02, 5.0)):
        found = guided_at(rule, Scene(FIELDS, (3.0, 0.0)), x, sigma)["guided"]
        expected = tg.rule("cfg", w=w).guide(Evaluation(FIELDS, x, sigma), None).denoised
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_a_run_has_the_weights_of_its_schedule():
    """By the effective scale of CFG, which is its weight, read off the run itself."""
    e = small(schedule="triangle", params={"w": 3.0}, steps=8)
    expected = [1 + share * 2.0 for share in shares("triangle", 8)]
    scale = probe(e).scale
    known = scale.isfinite()
    assert known.any(-1)[:4].all(), "the classes are apart at the lower levels"
    torch.testing.assert_close(scale[known], torch.tensor(expected, dtype=W)[:, None].expand_as(scale)[known],
                               rtol=0, atol=1e-2)  # fmt: skip


@pytest.mark.parametrize("interval", [None, (0.2, 2.0)])
def test_a_batch_is_its_runs(interval):
    """Each point has the weight of its own run, at every step."""
    weights = (0.8, 1.5, 8.0)
    x = X.repeat(3, 1)
    joint: Rule = scheduled(Batched([tg.rule("cfg", w=w) for w in weights], [seeded()] * 3, x), "triangle")
    singles: list[Rule] = [scheduled(tg.rule("cfg", w=w), "triangle") for w in weights]
    if interval:
        joint, singles = Interval(joint, *interval), [Interval(rule, *interval) for rule in singles]
    (*_, last) = trajectory(joint, FIELDS, sampler("heun"), x, LEVELS, seeded())
    for end, single in zip(last.x.chunk(3), singles, strict=True):
        torch.testing.assert_close(end, walk(single)[-1].x, rtol=0, atol=1e-11)


def test_what_cannot_be_scheduled_is_said_in_a_line():
    with pytest.raises(InputError, match="schedule 'linear' of 'none': it has no weight with an unguided value"):
        scheduled(tg.rule("none"), "linear")
    with pytest.raises(InputError, match="schedule 'v' of 'fkc': its points interact"):
        scheduled(tg.rule("fkc"), "v")
    with pytest.raises(InputError, match="schedule 'triangle': is unguided at each of 2 steps, expected more steps"):
        scheduled(tg.rule("cfg"), "triangle", LEVELS[-3:])
    with pytest.raises(InputError, match="schedule 'linear': takes w to -1, expected at least 0"):
        scheduled(tg.rule("cfg", w=0.0), "linear")
    too_low = Batched([tg.rule("cfg", w=w) for w in (3.0, 0.25)], [seeded()] * 2, X)
    with pytest.raises(InputError, match=r"takes w to -0\.5"):
        scheduled(too_low, "linear")


def test_schedules_compare_by_what_they_hold():
    one = scheduled(tg.rule("cfg"), "linear")
    assert one == scheduled(tg.rule("cfg"), "linear")
    assert one != scheduled(tg.rule("cfg"), "cosine")
    assert one != scheduled(tg.rule("cfg", w=2.0), "linear")
    assert one != scheduled(tg.rule("cfg"), "linear", LEVELS[1:])
    assert one.needs == ("main", "uncond")
    assert repr(one) == "Schedule(rule=cfg(w=4.0), schedule='linear')"


# Closed form


@pytest.mark.parametrize("schedule", ["linear", "linear-down", "triangle"])
def test_the_variance_of_a_scheduled_gaussian(schedule):
    """``dV/dt = V (w(t)/(a + t) + (1 - w(t))/(b + t))`` with the weight of each of many steps, by its integral.

    Of p_c = N(0, a) and p_u = N(0, b), where CFG's field is linear; each step's integral is a closed form.
    """
    a, b, w = 1.0, 2.0, 3.0
    e = tg.Experiment("two-variances", "narrow", "exact", "exact@wide", rule="cfg", params={"w": w},
                      schedule=schedule, steps=256, sigma_max=5.0)  # fmt: skip
    t = [s * s for s in e.levels().tolist()]
    log_variance = math.log(a + t[0])
    for share, high, low in zip(shares(schedule, 256), t[:-1], t[1:], strict=True):
        weight = 1 + share * (w - 1)
        log_variance -= weight * math.log((a + high) / (a + low)) + (1 - weight) * math.log((b + high) / (b + low))
    start = torch.tensor([[1.0, -2.0]], dtype=W)
    (*_, last) = trajectory(e.build_rule(), e.build_fields(), sampler("heun"), start, e.levels(), seeded())
    found = (a + t[0]) * float(last.x[0, 0] / start[0, 0]) ** 2
    assert found == pytest.approx(math.exp(log_variance), rel=1e-3)
    constant = (a + t[0]) * (a / (a + t[0])) ** w * (b / (b + t[0])) ** (1 - w)
    assert abs(found / constant - 1) > 0.05, "another variance than the constant weight's"


# Experiments


def small(**settings) -> tg.Experiment:
    plain = {"dataset": "two-gaussians", "label": "left", "main": "exact", "rule": "cfg", "n": 16, "steps": 6}
    return tg.Experiment(**{**plain, **settings})


def test_an_experiment_with_a_schedule_is_written_and_read(tmp_path):
    e = small(schedule="early", interval=(0.05, 1.0))
    assert e.schedule == "early:0.5"
    assert tg.Experiment.from_json(e.to_json()) == e
    assert hash(tg.Experiment.from_json(e.to_json())) == hash(e)
    e.run("cpu").save(tmp_path / "run.npz")
    assert tg.Result.load(tmp_path / "run.npz").experiment == e
    assert e != small(schedule="early:0.25", interval=(0.05, 1.0))
    assert identity(e) != identity(small(interval=(0.05, 1.0)))


def test_a_constant_weight_is_not_written():
    """So that files, and the identities of finished runs, are those from before there were schedules."""
    e = small(schedule="constant")
    assert e == small()
    assert e.schedule is None
    assert "schedule" not in json.loads(e.to_json())


def test_an_experiment_walks_by_its_schedule():
    e = small(schedule="v", interval=(0.05, 1.0), params={"w": 3.0})
    by_hand = Interval(Schedule(tg.rule("cfg", w=3.0), "v", e.levels().tolist()), 0.05, 1.0)
    assert e.build_rule() == by_hand
    steps = trajectory(by_hand, e.build_fields(), sampler("heun"), e.start(), e.levels(), e.generator())
    assert torch.equal(e.run("cpu").x[-1], list(steps)[-1].x)


def test_runs_of_one_schedule_are_batched():
    runs = [small(schedule="linear", params={"w": w}, seed=seed) for w in (1.5, 4.0) for seed in (0, 1)]
    other = small(schedule="cosine")
    assert batches([*runs, other]) == [runs, [other]]
    *_, last = walk_batch(runs)
    for part, e in zip(last.x.chunk(4), runs, strict=True):
        torch.testing.assert_close(part, e.run("cpu").x[-1], rtol=0, atol=1e-5)


def test_an_experiment_refuses_what_cannot_be_scheduled():
    for settings in ({"rule": "none"}, {"params": {"w": 0.0}}, {"steps": 2}, {"schedule": "up"}):
        with pytest.raises(InputError, match="schedule"):
            small(**{"schedule": "triangle", **settings})
    with pytest.raises(InputError, match="schedule"):
        dataclasses.replace(small(), schedule=0.5)
