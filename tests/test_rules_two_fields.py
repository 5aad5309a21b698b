"""The nonlinear rules on two fields, and self-guidance, against their papers' own coordinates, linear algebra by other
means, closed forms, and runs stepped by hand, in float64."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from helpers import seeded
from torch import Tensor
from walks import FIELDS, W, X, gaussian, mixture, walk

import toyguide as tg
from toyguide.fields import NoisierField
from toyguide.fields.mixtures import GaussianMixture
from toyguide.guidance import Evaluation, Interval, Transition
from toyguide.guidance.rules.fbg import Feedback
from toyguide.samplers import Step, noise_of

MAIN, UNCOND = FIELDS["main"], FIELDS["uncond"]


def guided(key: str, sigma: float = 0.8, x: Tensor = X, fields: dict | None = None, **params) -> Tensor:
    """A rule's denoised points in a first step at this level."""
    rule, at = tg.rule(key, **params), Evaluation(fields or FIELDS, x, sigma)
    return rule.guide(at, rule.begin(at, seeded())[1]).denoised


def euler_steps(steps: list[Step]) -> list[tuple[Step, Step]]:
    return list(itertools.pairwise(steps))


def dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1, keepdim=True)


# CFG++


def test_cfg_plus_plus_is_the_papers_ddim_step():
    """In a variance-preserving process, z = x / sqrt(1 + sigma^2) and abar = 1 / (1 + sigma^2)."""
    lam = 0.7
    for before, after in euler_steps(walk(tg.rule("cfg++", lam=lam), method="euler")):
        s, abar, abar_next = before.sigma, 1 / (1 + before.sigma**2), 1 / (1 + after.sigma**2)
        z = before.x * math.sqrt(abar)
        eps_c, eps_u = ((before.x - f.denoise(before.x, s)) / s for f in (MAIN, UNCOND))
        clean = (z - math.sqrt(1 - abar) * (eps_u + lam * (eps_c - eps_u))) / math.sqrt(abar)
        z_next = math.sqrt(abar_next) * clean + math.sqrt(1 - abar_next) * eps_u
        torch.testing.assert_close(after.x, z_next / math.sqrt(abar_next))


def test_a_step_of_cfg_plus_plus_is_one_of_cfg_with_a_weight_of_the_step():
    weights = []
    for before, after in euler_steps(walk(tg.rule("cfg++", lam=0.6), method="euler")):
        weights.append(0.6 * before.sigma / (before.sigma - after.sigma))
        two = torch.tensor([before.sigma, after.sigma], dtype=W)
        torch.testing.assert_close(walk(tg.rule("cfg", w=weights[-1]), before.x, two, method="euler")[-1].x, after.x)
    assert weights[-1] == pytest.approx(0.6), "lambda itself in the last step"


@pytest.mark.parametrize("method", ["euler", "ancestral"])
def test_cfg_plus_plus_at_0_samples_the_unconditional_field(method):
    plain = walk(tg.rule("none"), fields={"main": UNCOND}, method=method)
    torch.testing.assert_close(walk(tg.rule("cfg++", lam=0.0), method=method)[-1].x, plain[-1].x)


def test_cfg_plus_plus_with_noise_steps_down_and_back_up():
    """To sigma_down = sigma'^2 / sigma with the renoised field, then sigma_up z up to sigma'."""
    draw = noise_of(X, seeded(), len(X))
    for before, after in euler_steps(walk(tg.rule("cfg++", lam=0.6), method="ancestral")):
        s, t = before.sigma, after.sigma
        main, uncond = MAIN.denoise(before.x, s), UNCOND.denoise(before.x, s)
        down = t**2 / s
        expected = uncond + 0.6 * (main - uncond) + down / s * (before.x - uncond)
        torch.testing.assert_close(after.x, expected + math.sqrt(t**2 - down**2) * draw())


# APG


def test_apg_is_its_algorithm_point_by_point():
    """Momentum, then a clip of a copy, then the projection; the momentum itself stays unclipped."""
    w, eta, beta, r = 5.0, 0.3, -0.7, 0.4
    momentum, clips = np.zeros((len(X), 2)), 0
    for before, after in euler_steps(walk(tg.rule("apg", w=w, eta=eta, beta=beta, r=r), method="euler")):
        main, uncond = (f.denoise(before.x, before.sigma).numpy() for f in (MAIN, UNCOND))
        for i, x in enumerate(before.x.numpy()):
            momentum[i] = main[i] - uncond[i] + beta * momentum[i]
            size = np.linalg.norm(momentum[i])
            clips += size > r
            g = momentum[i] * min(1.0, r / size)
            unit = main[i] / np.linalg.norm(main[i])
            parallel = g @ unit * unit
            d = main[i] + (w - 1) * (g - parallel + eta * parallel)
            np.testing.assert_allclose(after.x[i].numpy(), d + after.sigma / before.sigma * (x - d), atol=1e-12)
    assert 10 < clips < 150, "the clip acts on some and not on all"


def test_apg_without_the_parallel_part_adds_up_by_pythagoras():
    """eta = 0: |D|^2 = |D_main|^2 + (w - 1)^2 |g_perp|^2, the latter by the cross product in the plane."""
    w = 6.0
    main, uncond = MAIN.denoise(X, 0.8), UNCOND.denoise(X, 0.8)
    gap = main - uncond
    cross = (main[:, 0] * gap[:, 1] - main[:, 1] * gap[:, 0]) / main.norm(dim=-1)
    found = guided("apg", w=w, eta=0.0, beta=0.0, r=math.inf)
    torch.testing.assert_close(found.square().sum(-1), main.square().sum(-1) + (w - 1) ** 2 * cross**2)


def test_apg_pushes_no_further_than_r():
    push = guided("apg", w=3.0, r=0.2, eta=1.0, beta=0.0) - MAIN.denoise(X, 0.8)
    torch.testing.assert_close(push.norm(dim=-1).max(), torch.tensor(0.4, dtype=W))


def test_apgs_momentum_is_that_of_the_step_before_in_every_evaluation_of_a_step():
    rule, levels = tg.rule("apg", r=math.inf), (1.0, 0.5, 0.0)
    steps = walk(rule, levels=torch.tensor(levels, dtype=W), method="heun")
    before, w = torch.zeros_like(X), rule.w
    for (here, there), s, t in zip(itertools.pairwise(steps), levels, levels[1:], strict=False):

        def slope(x, sigma, before=before):
            main, uncond = MAIN.denoise(x, sigma), UNCOND.denoise(x, sigma)
            m = main - uncond + rule.beta * before
            across = m - dot(m, main) / dot(main, main) * main
            return (x - main - (w - 1) * across) / sigma, m

        first, before = slope(here.x, s)
        ahead = here.x + (t - s) * first
        x = ahead if t == 0 else here.x + (t - s) * (first + slope(ahead, t)[0]) / 2
        torch.testing.assert_close(there.x, x)


# CFG-Zero*


def velocities(x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    main, uncond = ((x - f.denoise(x, sigma)) / sigma - f.denoise(x, sigma) for f in (MAIN, UNCOND))
    return main, uncond


@pytest.mark.parametrize("K", [0, 1, 2])
def test_cfg_zero_star_is_an_euler_step_of_flow_matching(K):
    """In z = x / (1 + sigma) and t = sigma / (1 + sigma), the scale by least squares."""
    w = 3.0
    for before, after in euler_steps(walk(tg.rule("cfg-zero-star", w=w, K=K), method="euler")):
        t, t_next = (s / (1 + s) for s in (before.sigma, after.sigma))
        main, uncond = velocities(before.x, before.sigma)
        s = torch.linalg.lstsq(uncond[..., None], main[..., None]).solution[..., 0]
        v = s * uncond + w * (main - s * uncond)
        if before.index < K:
            v = torch.zeros_like(v)
        torch.testing.assert_close(after.x / (1 + after.sigma), before.x / (1 + before.sigma) + (t_next - t) * v)


def test_cfg_zero_star_extrapolates_what_is_orthogonal():
    """``P v_main + w (1 - P) v_main`` with the projection P onto v_uncond."""
    w = 3.0
    main, uncond = velocities(X, 0.8)
    onto = uncond[:, :, None] @ uncond[:, None, :] / dot(uncond, uncond)[..., None]
    v = ((onto + w * (torch.eye(2, dtype=W) - onto)) @ main[..., None])[..., 0]
    torch.testing.assert_close(guided("cfg-zero-star", w=w, K=0), (X - 0.8 * v) / 1.8)


@pytest.mark.parametrize("w", [0.0, 5.0, 30.0])
def test_cfg_zero_star_does_not_guide_along_a_parallel_velocity(w):
    fields = {"main": gaussian(0.3), "uncond": gaussian(2.0)}
    found = guided("cfg-zero-star", fields=fields, w=w, K=0)
    torch.testing.assert_close(found, fields["main"].denoise(X, 0.8))


@pytest.mark.parametrize("method", ["euler", "heun"])
def test_a_step_without_velocity_costs_nothing_and_scales(method):
    steps = walk(tg.rule("cfg-zero-star", K=2), method=method)
    assert [s.nfe for s in steps[:3]] == [0, 0, 0]
    torch.testing.assert_close(steps[2].x, X * (1 + 0.7) / (1 + 3.0))
    assert walk(tg.rule("cfg-zero-star", K=100), method=method)[-1].nfe == 2, "the last step is never skipped"


# RAAG


def test_raags_weight_is_that_of_the_ratio_of_velocities():
    """rho = (1 + 1 / sigma) |D_main - D_uncond| / |eps_uncond - D_uncond|."""
    w, alpha, sigma = 9.0, 2.5, 0.8
    main, uncond = MAIN.denoise(X, sigma), UNCOND.denoise(X, sigma)
    rho = (1 + 1 / sigma) * (main - uncond).norm(dim=-1) / ((X - uncond) / sigma - uncond).norm(dim=-1)
    weight = 1 + (w - 1) * (-alpha * rho).exp()
    torch.testing.assert_close(
        guided("raag", sigma, w=w, alpha=alpha), weight[:, None] * main + (1 - weight[:, None]) * uncond
    )
    trace = walk(tg.rule("raag", w=w, alpha=alpha), levels=torch.tensor([sigma, 0.0], dtype=W))[-1].trace
    torch.testing.assert_close(trace["w"], weight)


# TCFG


@pytest.mark.parametrize("dim", [2, 5])
@pytest.mark.parametrize("space", ["eps", "score"])
def test_tcfg_is_the_singular_value_decomposition(dim, space):
    w, sigma = 3.5, 0.8
    x = torch.randn(64, dim, generator=seeded(1), dtype=W)
    fields = {"main": mixture(1, dim), "uncond": mixture(2, dim)}
    factor = -1 / sigma if space == "eps" else 1 / sigma**2
    main, uncond = (factor * (f.denoise(x, sigma) - x) for f in fields.values())
    top = torch.linalg.svd(torch.stack([main, uncond], 1)).Vh[:, 0]
    combined = main + (w - 1) * (main - dot(uncond, top) * top)
    torch.testing.assert_close(guided("tcfg", sigma, x, fields, w=w), x + combined / factor)


def test_tcfg_is_cfg_where_both_predict_parallel_noises():
    fields = {"main": gaussian(0.3), "uncond": gaussian(2.0)}
    torch.testing.assert_close(guided("tcfg", fields=fields, w=4.0), guided("cfg", fields=fields, w=4.0))


# Adaptive guidance


@pytest.mark.parametrize("method", ["euler", "heun"])
def test_adaptive_guidance_is_cfg_up_to_a_step_of_each_point(method):
    """Point by point, with CFG's own runs and the main field's: in a step all evaluations are guided, or none."""
    threshold, below, w = 0.97, 1.0, 3.0
    steps = walk(tg.rule("adaptive-guidance", w=w, threshold=threshold, below=below), method=method)
    stopped, evaluations = torch.zeros(len(X), dtype=torch.bool), torch.zeros(len(X), dtype=torch.int64)
    for before, after in euler_steps(steps):
        two = torch.tensor([before.sigma, after.sigma], dtype=W)
        each = [walk(rule, before.x, two, method=method)[-1] for rule in (tg.rule("cfg", w=w), tg.rule("none"))]
        torch.testing.assert_close(after.x, torch.where(stopped[:, None], each[1].x, each[0].x))
        evaluations += torch.where(stopped, int(each[1].nfe), int(each[0].nfe))
        assert torch.equal(after.cost.per_trajectory(len(X)), evaluations)
        eps = [f.denoise(before.x, before.sigma) - before.x for f in (MAIN, UNCOND)]
        cosine = dot(*eps)[:, 0] / (eps[0].norm(dim=-1) * eps[1].norm(dim=-1))
        stopped |= (cosine > threshold) & (before.sigma <= below)
    assert 0 < int(stopped.sum()) < len(X)


def test_high_noise_stops_adaptive_guidance_at_once_unless_it_is_kept_from_it():
    """The trap: from a high level both predictions are nearly the noise itself."""
    x, levels = 20 * X, torch.tensor([20.0, 5.0, 1.0, 0.0], dtype=W)
    as_published = walk(tg.rule("adaptive-guidance", below=math.inf), x, levels, method="euler")
    kept = walk(tg.rule("adaptive-guidance"), x, levels, method="euler")
    assert as_published[1].nfe == kept[1].nfe == 2
    assert as_published[2].nfe < 2 + 1.2, "nearly all have stopped"
    assert kept[-1].nfe == 6


def test_a_point_that_has_stopped_stays_so_where_its_field_is_known():
    """As when a probe has evaluated the unconditional field at every point."""
    at = Evaluation({"main": MAIN, "uncond": MAIN}, X, 0.3, index=0)
    at.denoised_each("main", "uncond")
    stopped = torch.full((len(X), 1), -1.0, dtype=W)
    assert torch.equal(tg.rule("adaptive-guidance").guide(at, stopped).memory, stopped)


# Dynamic CFG


def test_dynamic_cfg_takes_the_candidate_that_its_evaluators_like():
    """On a dataset's exact fields, with the posterior over the prior in the place of the ratio of densities."""
    data, w, K = tg.load_dataset("two-gaussians"), 6.0, 3
    fields = {"main": data.field("left"), "uncond": data.field(None)}
    prior = math.log(0.5)

    def evaluators(x, sigma):
        of_class = data.posterior(x, sigma)[:, data.labels.index("left")].log() - prior
        return torch.stack([of_class, data.field(None).log_density(x, sigma)])

    steps = walk(tg.rule("dynamic-cfg", w=w, K=K), fields=fields, method="euler")
    last, chosen = None, set()
    for before, after in euler_steps(steps):
        s, t = before.sigma, after.sigma
        main, uncond = (f.denoise(before.x, s) for f in fields.values())
        if t > 0:
            ends = {}
            for candidate in (6.0, 3.5, 1.0):
                d = uncond + candidate * (main - uncond)
                ends[candidate] = d + t / s * (before.x - d)
            found = {candidate: evaluators(x, t) for candidate, x in ends.items()}
            mean = sum(found.values()) / K
            alpha = torch.ones_like(mean) if last is None else (mean - last).abs() / last.abs().clamp(min=1)
            total = torch.stack([(alpha * e).sum(0) for e in found.values()])
            best = total.argmax(0)
            weights = torch.tensor(list(found), dtype=W)[best]
            last = torch.stack(list(found.values()))[best, :, torch.arange(len(X))].T
        torch.testing.assert_close(after.trace["w"], weights)
        d = uncond + weights[:, None] * (main - uncond)
        torch.testing.assert_close(after.x, d + t / s * (before.x - d))
        chosen |= set(weights.tolist())
    assert chosen == {1.0, 3.5, 6.0}


def test_dynamic_cfgs_evaluations():
    """Heun: both fields twice a step and once in the last, and two densities for each of 4 candidates in all but it."""
    assert walk(tg.rule("dynamic-cfg", K=4))[-1].nfe == 2 * 9 + 4 * 2 * 4


# Feedback guidance


def contaminated(share: float) -> tuple[GaussianMixture, GaussianMixture, GaussianMixture]:
    """A class, the union, and their mixture with this share of the class."""
    a, b = mixture(5), mixture(6)
    both = GaussianMixture(
        torch.cat([share * a.weights / a.weights.sum(), (1 - share) * b.weights / b.weights.sum()]),
        torch.cat([a.means, b.means]),
        torch.cat([a.covariances, b.covariances]),
    )
    return a, b, both


@pytest.mark.parametrize("sigma", [0.05, 0.4, 3.0])
def test_feedback_with_the_exact_ratio_undoes_contamination(sigma):
    """Contamination commutes with diffusion; no weight of CFG, the same for all points, does it."""
    share = 0.7
    clean, union, dirty = contaminated(share)
    at = Evaluation({"main": dirty, "uncond": union}, X, sigma)
    log_r = (dirty.log_density(X, sigma) - union.log_density(X, sigma))[:, None]
    found = tg.rule("fbg", pi=share).guide(at, Feedback(log_r)).denoised
    wanted = clean.denoise(X, sigma)
    # The class's share of the main field comes from a difference of densities, which loses digits where it is small.
    own = share * (clean.log_density(X, sigma) - dirty.log_density(X, sigma)).exp()
    assert ((found - wanted).norm(dim=-1) <= 1e-11 / own.clamp(min=1e-30))[own > 1e-8].all()
    assert (own > 1e-8).sum() > 10
    gap = at.denoised("main") - at.denoised("uncond")
    best = ((wanted - at.denoised("uncond")) * gap).sum() / gap.square().sum()
    assert (at.denoised("uncond") + best * gap - wanted).norm(dim=-1).max() > 1e-3


def point_masses() -> dict[str, GaussianMixture]:
    """Data at one point each: there a step's probability is exactly the Gaussian that the rule takes it for."""
    at = {"main": [[0.2, -0.1]], "uncond": [[-0.1, 0.1]]}
    tiny = 1e-14 * torch.eye(2, dtype=W)[None]
    return {k: GaussianMixture(torch.ones(1, dtype=W), torch.tensor(m, dtype=W), tiny) for k, m in at.items()}


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_feedback_is_bayes_rule(tau):
    """With tau = 1 log r is that of the densities, less what it was at the start; tau scales it; delta adds up."""
    fields, levels = point_masses(), torch.tensor([3.0, 2.4, 2.0, 1.7, 0.0], dtype=W)
    ratio = lambda x, s: fields["main"].log_density(x, s) - fields["uncond"].log_density(x, s)  # noqa: E731
    rule = tg.rule("fbg", pi=0.5, tau=tau, delta=-0.01, lam_max=100.0)
    steps = walk(rule, levels=levels, fields=fields, method="ancestral")
    for step, following in euler_steps(steps):
        log_r = tau * (ratio(step.x, step.sigma) - ratio(X, 3.0)) - 0.01 * step.index
        assert log_r.min() > math.log(0.5 * 100 / 99), "within the limits"
        torch.testing.assert_close(following.trace["w"], log_r.exp() / (log_r.exp() - 0.5), rtol=1e-9, atol=1e-9)


def test_feedback_keeps_lambda_between_its_limits():
    """Steps far towards one field and far towards the other; lambda starts from 1 / pi."""
    rule, fields = tg.rule("fbg", pi=0.8, lam_max=6.0), point_masses()
    at = Evaluation(fields, X, 3.0)
    memory = rule.begin(at, seeded())[1]
    first = rule.guide(at, memory)
    torch.testing.assert_close(first.trace["w"], torch.full((len(X),), 1 / 0.8, dtype=W))
    for far, expected in ((50.0, 1 / (1 - 0.2 * math.exp(-3))), (-50.0, 6.0)):
        x_next = X + far * torch.tensor([0.3, -0.2], dtype=W)
        step = Transition(X, 3.0, x_next, 1.0, first, lambda: X, lambda x: at.moved(x, 1.0), lambda: X)
        end = rule.after_step(step, first.memory, seeded())
        found = rule.guide(at.moved(x_next, 1.0), end.memory).trace["w"]
        torch.testing.assert_close(found, torch.full_like(found, expected))


def test_feedback_alone_reaches_weight_3_when_the_authors_say():
    """delta = ln(3 (1 - pi) / 2) / ((1 - t0) N) without feedback: lambda is 3 after (1 - t0) N steps."""
    pi, t0, n = 0.85, 0.5, 32
    delta = math.log(1.5 * (1 - pi)) / ((1 - t0) * n)
    assert tg.rule("fbg").delta == pytest.approx(delta, abs=0.005)
    levels = torch.linspace(3.0, 0.0, n + 1, dtype=W)
    steps = walk(tg.rule("fbg", pi=pi, tau=0.0, delta=delta), levels=levels, method="euler")
    assert float(steps[17].trace["w"][0]) == pytest.approx(3.0)


# SMC-CFG


class Velocity:
    """A field whose velocity is the same everywhere, one for each level."""

    evaluations = 1

    def __init__(self, values: dict[float, list[float]]) -> None:
        self.values = values

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        return (x - sigma * torch.tensor(self.values[sigma], dtype=x.dtype)) / (1 + sigma)


@pytest.mark.parametrize("lam", [0.05, 1.0])
def test_smc_cfg_gives_the_published_numbers(lam):
    """v_uncond = 0, w = 2, K = 0.3: differences of 1, 0.7, 0.6 give velocities of 1.4, 0.8, 0.6."""
    differences, expected = (1.0, 0.7, 0.6), (1.4, 0.8, 0.6)
    levels = (3.0, 2.0, 1.0, 0.0)
    fields = {
        "main": Velocity({s: [e, -e] for s, e in zip(levels, differences, strict=False)}),
        "uncond": Velocity({s: [0.0, 0.0] for s in levels}),
    }
    steps = walk(tg.rule("smc-cfg", w=2.0, lam=lam, K=0.3), X, torch.tensor(levels, dtype=W), fields, "euler")
    for (before, after), v in zip(euler_steps(steps), expected, strict=True):
        move = after.x / (1 + after.sigma) - before.x / (1 + before.sigma)
        change = after.sigma / (1 + after.sigma) - before.sigma / (1 + before.sigma)
        torch.testing.assert_close(move / change, torch.tensor([v, -v], dtype=W).expand_as(X))


def test_the_slope_of_the_surface_decides_the_sign():
    """e = 1, then -0.5: s = (e - e_before) + lam e_before changes its sign between lam = 1 and 3."""
    levels = (2.0, 1.0, 0.0)
    fields = {
        "main": Velocity({2.0: [1.0, 1.0], 1.0: [-0.5, -0.5]}),
        "uncond": Velocity({s: [0.0, 0.0] for s in levels}),
    }
    ends = [
        walk(tg.rule("smc-cfg", w=1.0, lam=lam, K=0.2), X, torch.tensor(levels, dtype=W), fields, "euler")[-1].x
        for lam in (1.0, 3.0)
    ]
    # x at 0 is x / 2 - sigma / (1 + sigma) v at sigma = 1, where v differs by 2 K.
    torch.testing.assert_close(ends[0] - ends[1], torch.full_like(X, -0.5 * 2 * 0.2))


def test_smc_cfgs_history_is_that_of_the_step_before_in_every_evaluation_of_a_step():
    """Heun's second evaluation at 1 refers to nothing before, as the first at 2 does; the next step's to the first."""
    levels = (2.0, 1.0, 0.0)
    fields = {
        "main": Velocity({2.0: [1.0, 1.0], 1.0: [-0.5, -0.5]}),
        "uncond": Velocity({s: [0.0, 0.0] for s in levels}),
    }
    w, K, lam = 2.0, 0.2, 3.0
    steps = walk(tg.rule("smc-cfg", w=w, lam=lam, K=K), X, torch.tensor(levels, dtype=W), fields, "heun")

    def slope(x, sigma, e):
        return (x - (x - sigma * w * e) / (1 + sigma)) / sigma

    first = slope(X, 2.0, 1 - K)
    second = slope(X - first, 1.0, -0.5 + K)
    torch.testing.assert_close(steps[1].x, X - (first + second) / 2)
    e = -0.5 - K * math.copysign(1, (-0.5 - 0.8) + lam * 0.8)
    torch.testing.assert_close(steps[2].x, steps[1].x - slope(steps[1].x, 1.0, e))


def test_smc_cfg_starts_alike_in_an_interval():
    """Where guidance begins, e_before is e itself whatever the positive lam."""
    ends = [walk(Interval(tg.rule("smc-cfg", lam=lam), 0.5, 1.0))[-1].x for lam in (0.01, 1.0, 90.0)]
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])


@pytest.mark.parametrize(("degrees", "alike"), [(90, True), (30, False)])
def test_smc_cfg_depends_on_the_axes(degrees, alike):
    angle = math.radians(degrees)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=W)

    def turned(f: GaussianMixture) -> GaussianMixture:
        return GaussianMixture(f.weights, f.means @ turn.T, turn @ f.covariances @ turn.T)

    here = walk(tg.rule("smc-cfg"))[-1].x @ turn.T
    there = walk(tg.rule("smc-cfg"), X @ turn.T, fields={k: turned(f) for k, f in FIELDS.items()})[-1].x
    assert ((here - there).abs().max() < 1e-9) == alike


# Self-guidance


@pytest.mark.parametrize("sigma", [0.1, 0.8, 4.0])
def test_self_guidance_on_one_gaussian(sigma):
    """s = -x / (a + sigma^2) at every level, so both terms are known."""
    a, w, d = 0.3, 4.0, 0.25
    score = -X / (a + sigma**2)
    noisier = -X / (a + (sigma * (1 + d)) ** 2)
    found = guided("self-guidance", sigma, fields={"main": gaussian(a)}, w=w, d=d)
    torch.testing.assert_close(found, X + sigma**2 * (score + (w - 1) * (score - noisier)))


def test_self_guidance_is_autoguidance_by_a_noisier_field():
    noisier = {"main": MAIN, "weak": NoisierField(MAIN, 0.3)}
    mine = walk(tg.rule("self-guidance", w=2.5, d=0.3), fields={"main": MAIN})[-1]
    theirs = walk(tg.rule("autoguidance", w=2.5), fields=noisier)[-1]
    assert torch.equal(mine.x, theirs.x)
    assert mine.nfe == theirs.nfe == 18


def test_self_guidance_with_little_more_noise_follows_the_scores_change_with_it():
    """To first order the push is ``-(w - 1) d sigma^3 ds/dsigma``, the derivative by autograd."""
    sigma = torch.full((len(X),), 0.8, dtype=W)
    _, change = torch.func.jvp(lambda s: MAIN.score(X, s), (sigma,), (torch.ones_like(sigma),))
    push = guided("self-guidance", 0.8, w=3.0, d=1e-6) - MAIN.denoise(X, 0.8)
    torch.testing.assert_close(push / 1e-6, -2 * 0.8**3 * change, rtol=1e-4, atol=1e-5)
