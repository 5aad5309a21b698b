"""Rules whose points are particles or candidates: weights and resampling by hand; Feynman-Kac correctors, FK steering
and SVDD against closed forms, quadrature and plain reweighting, in float64 with fixed seeds.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from helpers import seeded
from torch import Tensor
from torch.distributions import Normal
from walks import FIELDS, LEVELS, W, X, gaussian, mixture, walk

import toyguide as tg
from toyguide.fields.mixtures import GaussianMixture
from toyguide.fields.rewards import Reward
from toyguide.guidance import Evaluation, Guided, Interval, Rule, Scene, Transition
from toyguide.guidance.particles import effective_share, resampled, systematic, weights_trace
from toyguide.noise import edm_schedule
from toyguide.samplers import sampler, trajectory

THREE = {**FIELDS, "other": mixture(5)}
POWERS = {
    "cfg": {"main": 3.0, "uncond": -2.0},
    "tempering": {"main": 2.5},
    "product": {"main": 1.0, "other": 1.0},
}


def fkc(mode: str, **params) -> Rule:
    return tg.rule("fkc", mode=mode, w=3.0, beta=2.5, **params)


def ends(rule: Rule, fields: dict, levels: Tensor, n: int, seed: int) -> Tensor:
    """Where a run ends that starts from exact samples of main."""
    g = seeded(seed)
    start = fields["main"].sample(n, float(levels[0]), g)
    return list(trajectory(rule, fields, sampler("ancestral"), start, levels, g))[-1].x


def arrived(x: Tensor, sigma: float, landed: Tensor, below: float, guided: Guided, **asked) -> Transition:
    """A finished step; what is not given must not be asked for."""
    unasked = {f.name: None for f in dataclasses.fields(Transition)}
    known = {"x": x, "sigma": sigma, "x_next": landed, "sigma_next": below, "guided": guided}
    return Transition(**{**unasked, **known, **asked})


# Weights and resampling


def test_effective_shares_by_hand():
    weights = torch.tensor([2.0, 2.0, 0.0, 0.0], dtype=W).log()
    assert effective_share(weights) == pytest.approx(0.5)
    assert effective_share(weights + 1000) == pytest.approx(0.5), "the scale of weights does not count"
    assert effective_share(torch.tensor([3.0, 1.0], dtype=W).log()) == pytest.approx(16 / 10 / 2)
    assert effective_share(torch.tensor([0.0, math.nan, math.inf, 0.0])) == pytest.approx(0.5), "no number, no weight"
    assert effective_share(torch.full((4,), math.nan)) == 1.0
    trace = weights_trace(torch.tensor([3.0, 1.0], dtype=W).log(), 0.8)
    torch.testing.assert_close(trace["log_weight"].exp(), torch.tensor([1.5, 0.5], dtype=W))
    assert trace["ess"].tolist() == pytest.approx([0.8, 0.8])


def test_systematic_resampling_copies_each_point_as_often_as_its_share_says():
    """``n p`` times rounded up or down, on average exactly: over 400 draws, to four standard errors of a rounding."""
    log_weights = torch.randn(50, generator=seeded(1), dtype=W) * 2
    expected, g = 50 * torch.softmax(log_weights, 0), seeded(2)
    rows = [systematic(log_weights, g) for _ in range(400)]
    assert all((r.diff() >= 0).all() for r in rows)
    counts = torch.stack([r.bincount(minlength=50) for r in rows]).double()
    assert ((counts == expected.floor()) | (counts == expected.ceil())).all()
    assert (counts.mean(0) - expected).abs().max() < 4 * 0.5 / 20


def test_points_are_resampled_below_the_threshold_and_at_the_end():
    uneven, even, g = torch.tensor([0.0, 0.0, -50.0, -50.0]), torch.zeros(4), seeded(0)
    assert resampled(uneven, 0.51, False, g) is not None
    assert resampled(uneven, 0.49, False, g) is None
    assert resampled(uneven, 0.0, True, g).tolist() == [0, 0, 1, 1]
    assert resampled(even, 0.5, True, g) is None


# Feynman-Kac correctors


def growth(mode: str, sigma: float, below: float, landed: Tensor = X, **params) -> Tensor:
    """The rule's increments of the log-weights in a step from X."""
    rule, at = fkc(mode, **params), Evaluation(Scene(THREE, (sigma, below)), X, sigma)
    guided = rule.guide(at, None)
    return rule.growth(arrived(X, sigma, landed, below, guided), guided.memory)


@pytest.mark.parametrize("mode", POWERS)
def test_the_weights_make_up_for_what_the_reverse_sde_does_to_the_target(mode):
    """The target's log-density changes in -sigma by ``-sigma (div s + |s|^2)``, as that of points of the reverse SDE
    with its score does, and by the rate of the weights. Its change by central differences, the divergence exact. For a
    small step, which lands a standard deviation away in each coordinate, and up to a constant."""
    sigma, h = 0.8, 1e-4
    powers = POWERS[mode].items()

    def target(level: float) -> Tensor:
        return sum(a * THREE[r].log_density(X, level) for r, a in powers)

    change = (target(sigma - h) - target(sigma + h)) / (2 * h)
    score = sum(a * THREE[r].score(X, sigma) for r, a in powers)
    divergence = sum(a * THREE[r].hessian(X, sigma).diagonal(dim1=1, dim2=2).sum(-1) for r, a in powers)
    rate = change + sigma * (divergence + score.square().sum(-1))
    found = growth(mode, sigma, sigma - h, X + math.sqrt(2 * sigma * h)) / h
    torch.testing.assert_close(found - found.mean(), rate - rate.mean(), rtol=2e-3, atol=1e-2)


@pytest.mark.parametrize("mode", POWERS)
def test_the_weights_are_the_ratio_of_the_samplers_own_steps(mode):
    """Wherever the step lands, with the densities of DDPM's Gaussians and of the noising step."""
    s, t = 0.9, 0.6
    landed, deviation = X + torch.randn(X.shape, generator=seeded(9), dtype=W), t * math.sqrt(s**2 - t**2) / s

    def log_step(denoised: Tensor) -> Tensor:
        return Normal(denoised + (t / s) ** 2 * (X - denoised), deviation).log_prob(landed).sum(-1)

    each = {r: THREE[r].denoise(X, s) for r in POWERS[mode]}
    guided = X + sum(a * (each[r] - X) for r, a in POWERS[mode].items())
    flat = 1 - sum(POWERS[mode].values())
    expected = sum(a * log_step(each[r]) for r, a in POWERS[mode].items()) - log_step(guided)
    expected = expected + flat * Normal(landed, math.sqrt(s**2 - t**2)).log_prob(X).sum(-1)
    found = growth(mode, s, t, landed)
    torch.testing.assert_close(found - found.mean(), expected - expected.mean(), rtol=1e-9, atol=1e-9)
    if mode == "cfg":
        gap = (each["main"] - each["uncond"]).square().sum(-1)
        torch.testing.assert_close(found, 3.0 * 2.0 * gap * (1 / t**2 - 1 / s**2) / 2, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mode", POWERS)
def test_the_guided_score_is_that_of_the_target(mode):
    guided = fkc(mode).guide(Evaluation(THREE, X, 0.8), None).denoised
    score = sum(a * THREE[r].score(X, 0.8) for r, a in POWERS[mode].items())
    torch.testing.assert_close((guided - X) / 0.64, score, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("mode", POWERS)
def test_the_step_to_zero_holds_the_scores(mode):
    s, scores = 0.3, {r: THREE[r].score(X, 0.3) for r in POWERS[mode]}
    whole = sum(a * scores[r] for r, a in POWERS[mode].items()).square().sum(-1)
    parts = sum(a * scores[r].square().sum(-1) for r, a in POWERS[mode].items())
    found, expected = growth(mode, s, 0.0), s**2 / 2 * (whole - parts)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mode", POWERS)
def test_the_weighted_start_is_the_target_at_the_first_level(mode):
    """Of Gaussians, at a level where their means and widths still count: mean and variance from the precisions, each
    to four standard errors of 2^16 points that count as many as they do."""
    sigma, n = 1.5, 1 << 16
    spots = {"main": (0.8, 0.5), "uncond": (-0.4, 0.9), "other": (1.5, 0.3)}
    fields = {}
    for role, (mean, variance) in spots.items():
        fields[role] = GaussianMixture(
            torch.ones(1), torch.tensor([[mean, 0.0]], dtype=W), variance * torch.eye(2, dtype=W)[None]
        )
    start = fields["main"].sample(n, sigma, seeded(4))
    x, memory = fkc(mode).before_step(Evaluation(Scene(fields, (sigma, 0.0)), start, sigma), None)
    log_weights = memory.log_weights
    precision = sum(a / (spots[r][1] + sigma**2) for r, a in POWERS[mode].items())
    mean = sum(a * spots[r][0] / (spots[r][1] + sigma**2) for r, a in POWERS[mode].items()) / precision
    share = torch.softmax(log_weights, 0)
    found, spread = float(share @ x[:, 0]), float(share @ (x[:, 0] - mean).square())
    counted = n * effective_share(log_weights)
    assert counted > 0.3 * n, "few weights are lost"
    assert abs(found - mean) < 4 / math.sqrt(precision * counted)
    assert abs(spread * precision - 1) < 4 * math.sqrt(2 / counted)


def two_classes() -> dict[str, GaussianMixture]:
    """``N(1, 1)`` against the even mixture with ``N(-1, 1)``, and the same ``N(0, 1)`` in the other coordinate."""
    means, eye = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=W), torch.eye(2, dtype=W)
    union = GaussianMixture(torch.ones(2), means, eye.expand(2, 2, 2).clone())
    return {"main": GaussianMixture(torch.ones(1), means[:1], eye[None]), "uncond": union}


def tilt(w: float) -> tuple[float, float]:
    """Mean and standard deviation of ``p_main^w p_uncond^(1 - w)`` along the first axis, by quadrature."""
    fields, line = two_classes(), torch.linspace(-8, 12, 20001, dtype=W)
    x = torch.stack([line, torch.zeros_like(line)], -1)
    log = w * fields["main"].log_density(x, 0.0) + (1 - w) * fields["uncond"].log_density(x, 0.0)
    share = torch.softmax(log, 0)
    mean = float(share @ line)
    return mean, math.sqrt(float(share @ (line - mean).square()))


@pytest.mark.parametrize(
    ("w", "published", "error"),
    [
        (2.0, (1.290, 0.863), 0.02),
        (3.0, (1.440, 0.803), 0.03),
        (5.0, (1.615, 0.743), 0.05),
        (8.0, (1.770, 0.699), 0.15),
    ],
)
def test_correctors_sample_the_tilt_and_cfg_does_not(w, published, error):
    """What few ancestors leave of chance grows with w; the errors allowed are about 1.5 of those measured."""
    mean, deviation = tilt(w)
    assert (mean, deviation) == pytest.approx(published, abs=6e-4)
    levels = edm_schedule(96, 0.01, 20.0)
    found = torch.cat([ends(tg.rule("fkc", w=w), two_classes(), levels, 4096, seed) for seed in range(4)])[:, 0]
    plain = ends(tg.rule("cfg", w=w), two_classes(), levels, 4096, 0)[:, 0]
    assert float(found.mean()) == pytest.approx(mean, abs=error)
    assert float(found.std()) == pytest.approx(deviation, abs=error + 0.02)  # the sampler's own steps take 0.02
    assert float(plain.mean()) > mean + 0.15


def test_the_correctors_bias_falls_with_the_steps():
    """Of the standard deviation at w = 2, which the sampler's steps make too small: 0.13 with 16, 0.03 with 64."""
    errors = []
    for steps in (16, 64):
        levels = edm_schedule(steps, 0.01, 20.0)
        runs = torch.cat([ends(tg.rule("fkc", w=2.0), two_classes(), levels, 4096, seed) for seed in range(2)])
        errors.append(abs(float(runs[:, 0].std()) - tilt(2.0)[1]))
    assert errors[1] < errors[0] / 2


def own_variance(a: float, levels: Tensor) -> float:
    """The variance that the sampler's own steps leave of ``N(0, a)``, without guidance or chance."""
    v = a + float(levels[0]) ** 2
    for s, t in itertools.pairwise(levels.tolist()):
        gain = 1 - (s**2 - t**2) / (a + s**2)
        v = gain**2 * v + t**2 * (s**2 - t**2) / s**2
    return v


@pytest.mark.parametrize("beta", [0.5, 3.0])
def test_a_tempered_gaussian_is_narrower_by_the_root_of_beta(beta):
    """Over beta, the variance that the same steps have without guidance: the weights add nothing to their error, which
    is 9 % here. What they have to make up for is a factor of two and more."""
    levels, a = edm_schedule(64, 0.005, 5.0), 0.25
    fields, own = {"main": gaussian(a)}, own_variance(a, levels)
    assert own == pytest.approx(a, rel=0.1)
    runs = [ends(tg.rule("fkc", mode="tempering", beta=beta), fields, levels, 2048, s) for s in range(4)]
    assert float(torch.cat(runs).square().mean()) == pytest.approx(own / beta, rel=0.08)
    scaled = ends(tg.rule("score-scaling", k=beta), fields, levels, 2048, 0)
    assert abs(math.log(float(scaled.square().mean()) / (own / beta))) > math.log(1.5)


def test_tempering_keeps_both_modes():
    """``p^2`` of weights 0.3 and 0.7 has 0.09 / 0.58 of its mass on the left.

    Four standard errors of eight runs, in which resampling correlates the points.
    """
    means = torch.tensor([[-1.0, 0.0], [1.0, 0.0]], dtype=W)
    field = GaussianMixture(torch.tensor([0.3, 0.7]), means, (0.06 * torch.eye(2, dtype=W)).expand(2, 2, 2).clone())
    levels = edm_schedule(48, 0.005, 5.0)

    def left(rule: Rule, seed: int) -> float:
        return float((ends(rule, {"main": field}, levels, 2048, seed)[:, 0] < 0).double().mean())

    shares = torch.tensor([left(tg.rule("fkc", mode="tempering"), seed) for seed in range(8)], dtype=W)
    assert abs(float(shares.mean()) - 0.09 / 0.58) < 4 * float(shares.std()) / math.sqrt(8)
    assert float(shares.std()) < 0.08
    assert float((field.sample(4096, 0.0, seeded(0))[:, 0] < 0).double().mean()) > 0.28


def test_a_product_of_gaussians_is_one():
    """Precisions add: ``N(0.8, 0.25) N(-0.2, 0.5)`` is ``N(0.4667, 0.1667)``."""
    fields = {"main": gaussian(0.25), "other": gaussian(0.5)}
    shifts = {"main": 0.8, "other": -0.2}
    for role, field in fields.items():
        fields[role] = GaussianMixture(field.weights, field.means + shifts[role], field.covariances)
    levels = edm_schedule(64, 0.005, 5.0)
    found = torch.cat([ends(tg.rule("fkc", mode="product"), fields, levels, 2048, seed) for seed in range(4)])
    assert found.mean(0).tolist() == pytest.approx([0.4667, 0.4667], abs=0.03)
    own = [own_variance(a, levels) for a in (0.25, 0.5)]  # 9 and 6 % too small
    assert float(found.var(0).mean()) == pytest.approx(own[0] * own[1] / sum(own), rel=0.08)


def test_a_clamp_bounds_the_increments():
    free, held = growth("cfg", 0.8, 0.5), growth("cfg", 0.8, 0.5, clamp=0.3)
    torch.testing.assert_close(held, (free - free.mean()).clamp(-0.3, 0.3))
    assert float((free - free.mean()).abs().max()) > 0.3


def test_the_trace_shows_the_share_before_resampling():
    """In each step the share that the last one ended with; below the threshold the points were resampled."""
    rule = fkc("cfg", threshold=0.9)
    steps = walk(rule, fields=THREE, method="ancestral")
    shares = [float(step.trace["ess"][0]) for step in steps[1:]]
    assert min(shares) < 0.9
    for step, after in zip(steps[1:-1], shares[1:], strict=True):
        assert (step.ancestors is not None) == (after < 0.9)


def test_weights_begin_where_an_interval_does():
    steps = walk(Interval(fkc("cfg"), 0.2, 1.0), fields=THREE, method="ancestral")
    plain = walk(tg.rule("none"), fields=THREE, method="ancestral")
    assert [bool(step.trace) for step in steps] == [False, False, False, True, True, False]
    assert all(torch.equal(a.x, b.x) for a, b in zip(steps[:3], plain[:3], strict=True)), "nothing is moved above it"
    log_weights = sum(a * THREE[r].log_density(steps[2].x, 0.7) for r, a in POWERS["cfg"].items())
    log_weights = log_weights - THREE["main"].log_density(steps[2].x, 0.7)
    torch.testing.assert_close(steps[3].trace["log_weight"], weights_trace(log_weights, 1.0)["log_weight"])


def test_a_mode_evaluates_its_own_fields():
    modes = {"cfg": {"main", "uncond"}, "tempering": {"main"}, "product": {"main", "other"}}
    for mode, roles in modes.items():
        e = tg.Experiment(label="A", main="exact", rule="fkc", params={"mode": mode}, sampler="ancestral", n=8, steps=2)
        assert set(e.references()) == roles
        assert e.run("cpu").x.isfinite().all()
        assert tg.Experiment.from_json(e.to_json()) == e
    assert e.fields["other"] == "exact@B"


# FK steering


@pytest.mark.parametrize(("potential", "every"), [("diff", 1), ("diff", 2), ("max", 2), ("add", 2), ("rt", 3)])
def test_all_potentials_together_are_the_tilt(potential, every, monkeypatch):
    """Without resampling before the end, the last log-weights are ``lam r(x0)``, whatever the potential."""
    from toyguide.guidance.rules import fk_steering

    seen = []
    monkeypatch.setattr(fk_steering, "resampled", lambda weights, *_: seen.append(weights))
    rule = tg.rule("fk-steering", lam=1.7, potential=potential, every=every, reward="near", threshold=0.0)
    last = walk(rule, method="ancestral")[-1]
    torch.testing.assert_close(seen[-1], 1.7 * rule.reward_of(2).value(last.x), rtol=1e-10, atol=1e-10)


def test_differences_add_up_to_the_expected_reward():
    """At the beginning of each step the weights are ``e^(lam r(D))`` there."""
    rule = tg.rule("fk-steering", lam=1.7, threshold=0.0)
    steps = walk(rule, method="ancestral")
    for before, after in itertools.pairwise(steps):
        gain = 1.7 * FIELDS["main"].denoise(before.x, before.sigma)[:, 0]
        torch.testing.assert_close(after.trace["log_weight"], gain - gain.logsumexp(0) + math.log(len(X)))


def test_potentials_by_hand():
    """Three expected rewards of one point: what each potential makes of the last two."""
    from toyguide.guidance.rules.fk_steering import Particles

    rewards, zero = (0.5, 0.2, 0.9), torch.zeros(1, dtype=W)
    expected = {"diff": [0.5, -0.3, 0.7], "max": [0.5, 0.5, 0.9], "add": [0.5, 0.7, 1.6], "rt": [0.5, 0.2, 0.9]}
    for name, values in expected.items():
        rule = tg.rule("fk-steering", potential=name)
        memory, found = rule.begin(Evaluation(FIELDS, X[:1], 1.0), seeded(0))[1], []
        for reward in rewards:
            history, potential = rule._potential(zero + reward, memory)
            memory = Particles(zero, history, zero)
            found.append(float(potential))
        assert found == pytest.approx(values)


@pytest.mark.parametrize("potential", ["diff", "max"])
def test_steering_samples_the_tilted_density(potential):
    """Against 2^17 unguided samples of the same steps, reweighted; four standard errors of eight runs. And the steps'
    own error aside, against the exact tilt of the mixture."""
    field, lam, levels = mixture(3), 1.0, edm_schedule(32, 0.01, 8.0)
    rule = tg.rule("fk-steering", lam=lam, potential=potential, every=1 if potential == "diff" else 8)
    plain = ends(tg.rule("none"), {"main": field}, levels, 1 << 17, 99)
    expected = torch.softmax(lam * plain[:, 0], 0) @ plain
    means = torch.stack([ends(rule, {"main": field}, levels, 2048, seed).mean(0) for seed in range(8)])
    assert ((means.mean(0) - expected).abs() < 4 * means.std(0) / math.sqrt(8) + 0.01).all()
    exact = Reward.linear(torch.tensor([lam, 0.0], dtype=W)).tilted(field).mean
    assert (expected - exact).abs().max() < 0.08
    assert float(exact[0] - field.mean[0]) > 0.2, "the tilt is there to be seen"


# SVDD


class Denoised:
    """What SVDD asks of an evaluation: the points themselves as their posterior means."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def denoised(self) -> Tensor:
        return self.x


def test_candidates_are_chosen_in_proportion_to_their_values():
    """Three candidates for each of 40,000 points, the same for all: frequencies to four standard errors."""
    spots, n, alpha = torch.tensor([0.0, 0.6, -0.3], dtype=W), 40_000, 0.5
    draws = iter(spots[1:].tolist())

    def points(at: float) -> Tensor:
        return torch.tensor([[at, 0.0]], dtype=W).expand(n, 2)

    x = points(0.0)
    step = arrived(x, 1.0, x, 0.5, Guided(x), draw=lambda: points(next(draws)), evaluate=Denoised)
    landed = tg.rule("svdd", M=3, alpha=alpha).after_step(step, None, seeded(1)).x[:, 0]
    for spot, share in zip(spots.tolist(), torch.softmax(spots / alpha, 0).tolist(), strict=True):
        error = math.sqrt(share * (1 - share) / n)
        assert float((landed == spot).double().mean()) == pytest.approx(share, abs=4 * error)


def test_the_largest_value_is_the_limit_of_no_temperature():
    best, nearly = (walk(tg.rule("svdd", alpha=alpha), method="ancestral") for alpha in (0.0, 1e-9))
    assert all(torch.equal(a.x, b.x) for a, b in zip(best, nearly, strict=True))


def limit_of_svdd(v: float, alpha: float, levels: Tensor) -> float:
    """The mean that a Gaussian ends on where each step is tilted by ``e^(D(x')/alpha)`` exactly, as by infinitely many
    candidates: its Gaussian moves by its variance times the slope of the value."""
    mean = 0.0
    for s, t in itertools.pairwise(levels.tolist()):
        kept, noise = (t / s) ** 2, t**2 * (s**2 - t**2) / s**2
        mean = (kept + (1 - kept) * v / (v + s**2)) * mean + noise * v / (v + t**2) / alpha
    return mean


def test_svdd_reaches_the_tilted_gaussian_with_many_candidates():
    """A linear reward's value is exact for one Gaussian: ``N(0, v) e^(x/alpha)`` has the mean ``v/alpha``, in the limit
    of many steps and but for the start, which is not tilted. The mean grows with M and never gets further; what 64
    candidates lack of infinitely many is measured."""
    v, alpha, levels = 0.25, 0.5, edm_schedule(24, 0.01, 5.0)
    assert limit_of_svdd(v, alpha, edm_schedule(4096, 0.01, 80.0)) == pytest.approx(v / alpha, rel=5e-3)

    def mean(m: int) -> Tensor:
        return ends(tg.rule("svdd", M=m, alpha=alpha), {"main": gaussian(v)}, levels, 2048, 3).mean(0)

    few, more, many = mean(2), mean(8), mean(64)
    assert 0.05 < float(few[0]) < float(more[0]) < float(many[0])
    assert float(many[0]) == pytest.approx(limit_of_svdd(v, alpha, levels), abs=4 * math.sqrt(v / 2048))
    assert abs(float(many[1])) < 4 * math.sqrt(v / 2048)


def test_candidates_are_evaluated_and_counted():
    """``1 + M`` evaluations in each step but the last, whose candidates would all be the same."""
    steps = walk(tg.rule("svdd", M=3), method="ancestral")
    assert steps[-1].nfe == 4 * (len(LEVELS) - 2) + 1
