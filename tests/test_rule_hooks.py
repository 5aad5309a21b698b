"""The interval, and every hook of a rule, with rules of a few lines; and what their authors may get wrong."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from helpers import seeded
from walks import FIELDS, LEVELS, Linear, W, X, begun, walk

import toyguide as tg
from toyguide.errors import InputError
from toyguide.guidance import (
    Arrival,
    Evaluation,
    Guided,
    Interval,
    Rule,
)
from toyguide.samplers import Step

# Interval


def evaluations(steps: list[Step]) -> list[int]:
    return [b.nfe - a.nfe for a, b in itertools.pairwise(steps)]


def test_interval_limits_are_unguided_and_the_rule():
    rule, plain = tg.rule("cfg", w=3.0), walk(tg.rule("none"))
    never, always = walk(Interval(rule, 50.0, 60.0)), walk(Interval(rule, 0.0, 60.0))
    assert torch.equal(never[-1].x, plain[-1].x)
    assert never[-1].nfe == plain[-1].nfe == 9
    assert torch.equal(always[-1].x, walk(rule)[-1].x)
    assert always[-1].nfe == 18


def test_interval_ends_are_half_open():
    """Guided from the level 1.5 (the upper end) and 0.7, not from 0.3 (the lower end); Heun's two evaluations alike."""
    assert evaluations(walk(Interval(tg.rule("cfg"), 0.3, 1.5))) == [2, 4, 4, 2, 1]
    assert evaluations(walk(Interval(tg.rule("cfg"), 0.3, 1.5), method="euler")) == [1, 2, 2, 1, 1]


def test_interval_switches_whole_steps():
    """By hand: Heun with one denoiser for both of a step's evaluations."""
    rule, low, high = tg.rule("cfg", w=3.0), 0.3, 1.5
    x = X
    for s, t in zip(LEVELS[:-1].tolist(), LEVELS[1:].tolist(), strict=True):
        w = 3.0 if low < s <= high else 1.0

        def slope(x, at, w=w):
            return (x - (w * FIELDS["main"].denoise(x, at) + (1 - w) * FIELDS["uncond"].denoise(x, at))) / at

        first = slope(x, s)
        ahead = x + (t - s) * first
        x = ahead if t == 0 else x + (t - s) * (first + slope(ahead, t)) / 2
    torch.testing.assert_close(walk(Interval(rule, low, high))[-1].x, x)


def test_interval_keeps_the_rules_memory():
    rule = tg.rule("sfg")
    steps = walk(Interval(rule, 0.3, 1.5), seed=4)
    assert [bool(s.trace) for s in steps] == [False, False, True, True, False, False]
    assert torch.equal(steps[2].trace["v"], begun(rule, X, 3.0, seeded(4)).v), "v waits as it was drawn"


def test_intervals_compare_by_what_they_hold():
    assert Interval(tg.rule("cfg"), 0.1, 1.0) == Interval(tg.rule("cfg"), 0.1, 1.0)
    assert Interval(tg.rule("cfg"), 0.1, 1.0) != Interval(tg.rule("cfg", w=2.0), 0.1, 1.0)
    assert Interval(tg.rule("cfg"), 0.1, 1.0) != Interval(tg.rule("cfg"), 0.1, 2.0)
    assert Interval(tg.rule("cfg"), 0.1, 1.0).needs == ("main", "uncond")


# Every hook, with a rule of a few lines. Without a key they are in nobody's list.


class Counting(Rule):
    """Memory: how often it was handed on."""

    def begin(self, at, generator):
        return at.x, 0

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def guide(self, at, memory):
        self.seen.append(memory)
        return Guided(at.denoised(), memory=memory + 1, trace={"count": at.x.new_full((len(at.x),), memory)})


@pytest.mark.parametrize(
    ("method", "seen"), [("heun", [0, 1, 1, 2, 2, 3, 3, 4, 4]), ("euler", [0, 1, 2, 3, 4])], ids=["heun", "euler"]
)
def test_memory_is_updated_once_per_step(method, seen):
    """What the first evaluation of a step returns is what its second one and the next step get."""
    rule = Counting()
    steps = walk(rule, method=method)
    assert rule.seen == seen
    assert [int(s.trace["count"][0]) for s in steps[1:]] == [0, 1, 2, 3, 4]
    assert steps[-1].nfe == len(seen)


class Pushing(Rule):
    """Moves every point by its noise level before each step."""

    def before_step(self, at, memory):
        return at.x + at.sigma, memory

    def guide(self, at, memory):
        return Guided(at.denoised())


@pytest.mark.parametrize("method", ["heun", "euler"])
def test_before_step_moves_the_points(method):
    """By hand under ``D = x / 2``, whose slope is ``x / (2 sigma)``."""
    x = X
    steps = walk(Pushing(), fields={"main": Linear(0.5 * torch.eye(2, dtype=W))}, method=method)
    for step, s, t in zip(steps[1:], LEVELS[:-1].tolist(), LEVELS[1:].tolist(), strict=True):
        x = x + s
        ahead = x + (t - s) * x / (2 * s)
        x = x + (t - s) * (x / s + ahead / t) / 4 if method == "heun" and t else ahead
        torch.testing.assert_close(step.x, x)
    assert steps[-1].nfe == {"heun": 9, "euler": 5}[method], "a point that was moved away from costs nothing"


class CfgPlusPlus(Rule):
    """Renoises along another direction than it denoises along (Chung et al. 2024, arXiv 2406.08070)."""

    lam = 0.6

    def guide(self, at, memory):
        main, uncond = at.denoised("main"), at.denoised("uncond")
        return Guided(uncond + self.lam * (main - uncond), renoise=uncond)


def test_renoise_makes_cfg_plus_plus():
    """A step of it is an Euler step of CFG with ``w = lam sigma / (sigma - sigma')``; lam itself in the last."""
    steps = walk(CfgPlusPlus(), method="euler")
    for before, after in itertools.pairwise(steps):
        s, t = before.sigma, after.sigma
        landing = FIELDS["uncond"].denoise(before.x, s)
        main = FIELDS["main"].denoise(before.x, s)
        published = landing + 0.6 * (main - landing) + (t / s) * (before.x - landing)
        torch.testing.assert_close(after.x, published)
        w = 0.6 * s / (s - t)
        cfg = walk(tg.rule("cfg", w=w), before.x, torch.tensor([s, t], dtype=W), method="euler")
        torch.testing.assert_close(after.x, cfg[-1].x)


class Resampling(Rule):
    """Replaces the points by draws from among them, and remembers where each came from."""

    interacts = True

    def begin(self, at, generator):
        return at.x, torch.arange(len(at.x))

    def guide(self, at, memory):
        return Guided(at.denoised(), memory=memory, trace={"parent": memory.clone()})

    def after_step(self, step, memory, generator):
        assert torch.equal(step.draw(), step.x_next), "a deterministic sampler draws the same again"
        rows = torch.randint(len(step.x), (len(step.x),), generator=generator)
        return Arrival(step.x_next[rows], memory[rows], rows)


def test_after_step_resamples():
    """Points do not see each other otherwise, so each end is the unguided end of its first ancestor."""
    resampled, plain = walk(Resampling(), seed=3), walk(tg.rule("none"))
    rows, generator = torch.arange(len(X)), seeded(3)
    for a, b in zip(resampled[1:], plain[1:], strict=True):
        rows = rows[torch.randint(len(X), (len(X),), generator=generator)]
        torch.testing.assert_close(a.x, b.x[rows], rtol=0, atol=1e-12)
    assert torch.equal(walk(Resampling(), seed=3)[-1].x, resampled[-1].x)
    assert not torch.equal(walk(Resampling(), seed=4)[-1].x, resampled[-1].x)
    # `draw` evaluated the second half of Heun's step again: 2 + 1 a step, and 1 in the last.
    assert resampled[-1].nfe == 4 * 3 + 1


def test_an_evaluation_is_made_once_and_counted():
    at = Evaluation(FIELDS, X, 0.5)
    assert at.denoised("main") is at.denoised("main")
    at.score("weak"), at.eps("weak"), at.velocity("weak")
    assert at.cost.evaluations == 2
    at.denoised_at(X + 1, 0.5, "main")
    assert at.cost.evaluations == 3
    with pytest.raises(TypeError, match="does not say how it guides"):
        Rule().guide(at, None)


# What a rule's author may get wrong


def answering(name: str, **answers: Any) -> Rule:
    """A rule whose methods return what they are told to."""
    methods = {method: lambda self, *a, made=made: made(*a) for method, made in answers.items()}
    return type(name, (Rule,), {"guide": lambda self, at, memory: Guided(at.denoised()), **methods})()


@pytest.mark.parametrize(
    ("answers", "complaint"),
    [
        ({"guide": lambda at, m: at.denoised()}, "guide returns a Tensor, expected a Guided"),
        ({"guide": lambda at, m: Guided(at.x[:, :1])}, r"denoised points of shape \(32, 1\), expected \(32, 2\)"),
        ({"guide": lambda at, m: Guided(at.x, renoise=at.x)}, "returns a renoiser, expected first_order = True"),
        ({"after_step": lambda step, m, g: step.x_next}, "after_step returns a Tensor, expected an Arrival"),
        (
            {"after_step": lambda step, m, g: Arrival(step.x_next, m, torch.arange(32))},
            "after_step resamples, expected interacts = True",
        ),
        ({"guide": lambda at, m: Guided(at.denoised("weak2"))}, "field 'weak2': the rule was given main, uncond, weak"),
    ],
)
def test_what_a_rule_returns_is_checked(answers, complaint):
    with pytest.raises(InputError, match=complaint):
        walk(answering("Wrong", **answers))


def test_memory_that_is_not_given_stays():
    """Neither a Guided nor an Arrival that says nothing of it forgets it."""
    seen = []
    rule = answering(
        "Forgetful",
        begin=lambda at, g: (at.x, torch.ones(len(at.x), 1)),
        guide=lambda at, m: seen.append(float(m.sum())) or Guided(at.denoised()),
        after_step=lambda step, m, g: Arrival(step.x_next),
    )
    walk(rule)
    assert seen == [32.0] * 9


def test_the_first_evaluation_of_a_step_knows_that_it_is():
    seen = []
    walk(answering("Asking", guide=lambda at, m: seen.append(at.is_first) or Guided(at.denoised())))
    assert seen == [True, False] * 4 + [True]
