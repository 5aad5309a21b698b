"""Rules that look at a whole step: terminal-fitted CFG, Rectified-CFG++, CFG-MP and foresight guidance."""

from __future__ import annotations

import itertools

import pytest
import torch
from walks import FIELDS, LEVELS, Linear, W, X, gaussian, walk

import toyguide as tg
from toyguide.fields import velocity_from_denoised
from toyguide.guidance import Evaluation, Scene
from toyguide.noise import edm_schedule

# Terminal-fitted CFG


def test_terminal_fitted_lands_where_the_paper_says():
    """``x' = D_c + r (x - D_c) + (r^w - r)(D_u - D_c)`` in each step; w = 0 is the other field."""
    w = 2.7
    steps = walk(tg.rule("terminal-fitted", w=w), method="euler")
    for before, after in itertools.pairwise(steps):
        main, uncond = (FIELDS[role].denoise(before.x, before.sigma) for role in ("main", "uncond"))
        r = after.sigma / before.sigma
        expected = main + r * (before.x - main) + (r**w - r) * (uncond - main)
        torch.testing.assert_close(after.x, expected, rtol=0, atol=1e-12)
    other = walk(tg.rule("none"), fields={"main": FIELDS["uncond"]}, method="euler")
    for a, b in zip(walk(tg.rule("terminal-fitted", w=0.0), method="euler"), other, strict=True):
        torch.testing.assert_close(a.x, b.x)


def test_a_large_weight_renoises_with_the_other_field():
    """``x' = D_c + r (x - D_u)``: the step of CFG++ with its weight 1."""
    steps = walk(tg.rule("terminal-fitted", w=1000.0), method="euler")
    for before, after in itertools.pairwise(steps):
        main, uncond = (FIELDS[role].denoise(before.x, before.sigma) for role in ("main", "uncond"))
        expected = main + after.sigma / before.sigma * (before.x - uncond)
        torch.testing.assert_close(after.x, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("key", "w", "steps", "variance"),
    [
        ("terminal-fitted", 3.0, 8, 0.395),
        ("cfg", 3.0, 8, 0.079),
        ("terminal-fitted", 3.0, 512, 0.257),
        ("cfg", 3.0, 512, 0.247),
        ("terminal-fitted", 30.0, 8, 0.388),
        ("cfg", 30.0, 8, 3.46),
    ],
)
def test_terminal_fitted_is_stable_with_few_steps(key, w, steps, variance):
    """N(0, 1) guided away from N(0, 2): final variances, of linear maps; the exact one for w = 3 is 0.25."""
    fields = {"main": gaussian(1.0), "uncond": gaussian(2.0)}
    start = torch.ones(1, 2, dtype=W)
    end = walk(tg.rule(key, w=w), start, edm_schedule(steps, 0.002, 50.0, 7.0), fields, "euler")[-1].x
    assert float(end[0, 0]) ** 2 * (1 + 50.0**2) == pytest.approx(variance, rel=0.03)


# Rectified-CFG++


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_rectified_guides_with_the_gap_ahead(share):
    """In flow coordinates: Euler's unguided step of z = x / (1 + sigma) in t, and the velocity gap where it ends."""
    sigma, ahead, w = 1.5, 0.7, 3.2
    at = Evaluation(Scene(FIELDS, (sigma, ahead, 0.0)), X, sigma)
    guided = tg.rule("rectified-cfg++", w=w, share=share).guide(at, None).denoised

    def velocity(role, z, level):
        x = z * (1 + level)
        return velocity_from_denoised(FIELDS[role].denoise(x, level), x, level)

    level = sigma + share * (ahead - sigma)
    h = level / (1 + level) - sigma / (1 + sigma)
    z = X / (1 + sigma)
    there = z + h * velocity("main", z, sigma)
    expected = velocity("main", z, sigma) + (w - 1) * (
        velocity("main", there, level) - velocity("uncond", there, level)
    )
    torch.testing.assert_close(velocity_from_denoised(guided, X, sigma), expected, rtol=0, atol=1e-11)
    assert at.cost.evaluations == 3


def test_rectified_is_not_guided_a_whole_step_ahead_of_the_data():
    at = Evaluation(Scene(FIELDS, (0.3, 0.0)), X, 0.3)
    guided = tg.rule("rectified-cfg++").guide(at, None).denoised
    assert torch.equal(guided, FIELDS["main"].denoise(X, 0.3))


# CFG-MP


def of_velocity(factor: float, sigma: float) -> Linear:
    """A field whose velocity is a multiple of z: ``D = z - sigma/(1 + sigma) v``."""
    return Linear(torch.eye(2, dtype=W) * (1 - sigma / (1 + sigma) * factor) / (1 + sigma))


def projected(fields: dict, sigma: float, sigma_next: float, x: torch.Tensor = X, **params) -> torch.Tensor:
    at = Evaluation(Scene(fields, (sigma, sigma_next, 0.0)), x, sigma)
    return tg.rule("cfg-mp", **params).before_step(at, None)[0]


def test_the_projection_of_equal_fields_still_moves():
    """Both velocities 2 z and h = -0.1: ``G(z) = 0.96 z``, so it is no projection."""
    sigma = 1.0  # t = 0.5; a level at t = 0.3 makes h half of -0.2
    field = of_velocity(2.0, sigma)
    moved = projected({"main": field, "uncond": field}, sigma, 0.3 / 0.7, K=1)
    torch.testing.assert_close(moved, 0.96 * X, rtol=1e-12, atol=1e-12)


def test_acceleration_solves_a_linear_field_in_two_iterations():
    sigma = 1.0
    fields = {"main": of_velocity(2.0, sigma), "uncond": of_velocity(1.0, sigma)}
    plain, fast = (projected(fields, sigma, 0.3 / 0.7, K=2, anderson=a) for a in (False, True))
    factor = (1 + 0.1) * (1 - 0.2)  # of G: up along z, down along 2 z
    torch.testing.assert_close(plain, factor**2 * X, rtol=1e-12, atol=1e-12)
    assert float(fast.abs().max()) < 1e-3, "the fixed point is 0"
    assert torch.equal(
        projected(fields, sigma, 0.3 / 0.7, K=1), projected(fields, sigma, 0.3 / 0.7, K=1, anderson=True)
    )


def test_the_projection_climbs_the_probability_of_the_class():
    """To first order by ``|dsigma| / 2`` times the gap of the slopes, ``(D_c - D_u) / sigma``, for each iteration."""
    sigma, step = 1.5, 1e-4
    moved = projected(FIELDS, sigma, sigma - step, K=3, threshold=0.0) - X
    gap = FIELDS["main"].denoise(X, sigma) - FIELDS["uncond"].denoise(X, sigma)
    torch.testing.assert_close(moved, 3 * step / 2 * gap / sigma, rtol=0, atol=1e-6)
    assert float(moved.abs().max()) > 1e-4


def test_the_projection_costs_two_evaluations_an_iteration_above_its_threshold():
    steps = walk(tg.rule("cfg-mp", K=3, threshold=1.0), method="euler")
    assert steps[-1].nfe == 2 * 5 + 2 * 3 * 2  # the levels 3 and 1.5 are above
    assert projected(FIELDS, 0.7, 0.3, threshold=0.7) is X


# Foresight guidance


def test_without_calibration_it_is_cfg_plus_plus():
    """``x' = D_lam + (sigma'/sigma)(x - D_u)``."""
    steps = walk(tg.rule("fsg", K=0, lam=0.6), method="euler")
    for before, after in itertools.pairwise(steps):
        main, uncond = (FIELDS[role].denoise(before.x, before.sigma) for role in ("main", "uncond"))
        expected = uncond + 0.6 * (main - uncond) + after.sigma / before.sigma * (before.x - uncond)
        torch.testing.assert_close(after.x, expected, rtol=0, atol=1e-12)


def calibrated(fields: dict, levels: tuple[float, ...], **params) -> torch.Tensor:
    at = Evaluation(Scene(fields, levels), X, levels[0])
    return tg.rule("fsg", **params).before_step(at, None)[0]


def test_a_calibration_goes_down_with_one_weight_and_up_with_the_other():
    def slope(x, sigma, w):
        main, uncond = (FIELDS[role].denoise(x, sigma) for role in ("main", "uncond"))
        return (x - w * main - (1 - w) * uncond) / sigma

    there = X + (0.7 - 3.0) * slope(X, 3.0, 5.5)
    back = there + (3.0 - 0.7) * slope(there, 0.7, 0.4)
    found = calibrated(FIELDS, (3.0, 1.5, 0.7, 0.3, 0.0), m=2, K=1, w_f=5.5, w_b=0.4)
    torch.testing.assert_close(found, back, rtol=0, atol=1e-12)


def test_a_short_calibration_shifts_by_the_gap():
    sigma, step = 0.8, 1e-5
    shift = (calibrated(FIELDS, (sigma, sigma - step, 0.0), m=1, K=1) - X) / step
    gap = FIELDS["main"].denoise(X, sigma) - FIELDS["uncond"].denoise(X, sigma)
    torch.testing.assert_close(shift, 5.5 * gap / sigma, rtol=0, atol=1e-2)


def test_calibrations_are_every_so_many_steps_above_the_threshold():
    """One from each of the levels 3 and 0.7, three evaluations each; none from where nothing lies below but 0."""
    assert walk(tg.rule("fsg", m=2, K=1, threshold=0.0), method="euler")[-1].nfe == 2 * 5 + 2 * 3
    assert walk(tg.rule("fsg", m=2, K=1, threshold=1.0), method="euler")[-1].nfe == 2 * 5 + 3
    lowest = Evaluation(Scene(FIELDS, tuple(LEVELS.tolist())), X, 0.1, 4)
    assert tg.rule("fsg", m=1, threshold=0.0).before_step(lowest, None)[0] is X


def test_weak_to_strong_goes_down_with_the_strong_field_and_up_with_the_weak():
    zigzag = {"m": 1, "K": 1, "threshold": 0.0, "step": "cfg"}
    fields = {"main": FIELDS["main"], "uncond": FIELDS["weak"]}
    steps = walk(tg.rule("fsg", w_f=1.0, w_b=0.0, **zigzag), fields=fields, method="euler")
    x, (a, b) = steps[0].x, (3.0, 1.5)
    down = FIELDS["main"].denoise(x, a) + b / a * (x - FIELDS["main"].denoise(x, a))
    up = FIELDS["weak"].denoise(down, b) + a / b * (down - FIELDS["weak"].denoise(down, b))
    expected = FIELDS["main"].denoise(up, a) + b / a * (up - FIELDS["main"].denoise(up, a))
    torch.testing.assert_close(steps[1].x, expected, rtol=0, atol=1e-12)
    assert steps[-1].nfe == 5 + 2 * 4
