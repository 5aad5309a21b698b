"""The rules against closed forms, autograd and each other, in float64; what holds for all is asked of every rule."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import seeded
from walks import FIELDS, RULES, W, X, gaussian, walk

import toyguide as tg
from toyguide.contract import CHECKS, NETWORKS, Counted, fields_for, points, run
from toyguide.errors import InputError
from toyguide.fields import (
    NoisierField,
    denoised_from_eps,
    denoised_from_score,
    denoised_from_velocity,
    eps_from_denoised,
    score_from_denoised,
    velocity_from_denoised,
)
from toyguide.fields.mixtures import GaussianMixture
from toyguide.fields.networks import EnergyMLP
from toyguide.guidance import (
    Evaluation,
    Rule,
    rules,
)
from toyguide.guidance.registry import rules_in_files

# What holds for every rule, published or an example, on whole walks


EXAMPLES = Path(__file__).parent / "example_rules"
EVERY = {**rules(), **{key: cls for key, cls in rules_in_files(str(EXAMPLES)).items() if key not in RULES}}
INSIDE = [key for key, cls in EVERY.items() if any(role.kind in NETWORKS for role in cls.roles().values())]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.title.replace(" ", "-"))
@pytest.mark.parametrize("key", EVERY)
def test_what_every_rule_must_keep_to(key, check, monkeypatch):
    monkeypatch.setenv("TOYGUIDE_RULES", str(EXAMPLES))
    finding = check(EVERY[key])
    assert finding.verdict != "fails", finding.said


@pytest.mark.parametrize("key", INSIDE)
def test_evaluations_inside_a_network_are_counted_as_they_are_made(key, monkeypatch):
    """A network that a rule changes is counted by what is asked of the class; an auxiliary read-out, which has fewer
    layers, is part of its network's evaluation."""
    cls = EVERY[key]
    fields, calls = fields_for(cls), []
    for name in ("score", "log_density"):
        method = getattr(EnergyMLP, name)

        def noted(self, x, *others, f=method):
            calls.extend([len(x)] if self.layers == 2 else [])
            return f(self, x, *others)

        monkeypatch.setattr(EnergyMLP, name, noted)
    counted = {name: Counted(f) if isinstance(f, GaussianMixture) else f for name, f in fields.items()}
    nfe = run(cls(), counted)[-1].nfe
    made = sum(calls) + sum(f.points for f in counted.values() if isinstance(f, Counted))
    assert nfe == made / len(points())


@pytest.mark.parametrize("key", [k for k, c in EVERY.items() if any(r.kind == "exact" for r in c.roles().values())])
def test_evaluations_of_derived_mixtures_are_counted_as_they_are_made(key, monkeypatch):
    cls, calls = EVERY[key], []
    for name in ("denoise", "log_density"):
        method = getattr(GaussianMixture, name)
        monkeypatch.setattr(GaussianMixture, name, lambda self, x, *a, f=method: calls.append(len(x)) or f(self, x, *a))
    assert run(cls(), fields_for(cls))[-1].nfe == sum(calls) / len(points())


def test_equal_numbers_make_equal_rules():
    assert tg.rule("cfg", w=3) == tg.rule("cfg", w=3.0) != tg.rule("autoguidance", w=3.0)
    assert len({tg.rule("cfg", w=3), tg.rule("cfg", w=3.0), tg.rule("cfg", w=3.5)}) == 2
    assert repr(tg.rule("cfg", w=3)) == "cfg(w=3.0)"


def test_wrong_names_are_told_the_nearest():
    with pytest.raises(InputError, match=r"unknown rule 'autoguidence': .*did you mean 'autoguidance'\?"):
        tg.rule("autoguidence")
    with pytest.raises(InputError, match=r"unknown parameter of sfg 'alpa': .*did you mean 'alpha'\?"):
        tg.rule("sfg", alpa=1.0)
    with pytest.raises(InputError, match=r"cfg: w = 31: expected a number from 0\.0 to 30\.0"):
        tg.rule("cfg", w=31)


# Extrapolating rules

WEIGHTS = {
    "cfg": ({"w": 2.7}, {"main": 2.7, "uncond": -1.7}),
    "autoguidance": ({"w": 2.7}, {"main": 2.7, "weak": -1.7}),
    "cfg+autoguidance": ({"w": 3.0, "mix": 0.25}, {"main": 3.0, "uncond": -1.5, "weak": -0.5}),
}
SPACES = {
    "score": (score_from_denoised, denoised_from_score),
    "eps": (eps_from_denoised, denoised_from_eps),
    "velocity": (velocity_from_denoised, denoised_from_velocity),
}


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("key", WEIGHTS)
def test_linear_rules_are_the_same_in_every_space(key, space):
    params, weights = WEIGHTS[key]
    there, back = SPACES[space]
    combined = sum(w * there(FIELDS[role].denoise(X, 0.8), X, 0.8) for role, w in weights.items())
    guided = tg.rule(key, **params).guide(Evaluation(FIELDS, X, 0.8), None).denoised
    torch.testing.assert_close(guided, back(combined, X, 0.8), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["two-gaussians", "fractal"])
def test_cfg_is_classifier_guidance_on_exact_fields(name):
    """``s_c + (w - 1) grad log p(c | x)``, the gradient by autograd."""
    data = tg.load_dataset(name)
    label, sigma, w = data.labels[1], 0.6, 3.5
    x = torch.randn(24, 2, generator=seeded(5), dtype=W, requires_grad=True)
    (ascent,) = torch.autograd.grad(data.posterior(x, sigma)[:, 1].log().sum(), x)
    fields = {"main": data.field(label), "uncond": data.field(None)}
    at = Evaluation(fields, x.detach(), sigma)
    guided = score_from_denoised(tg.rule("cfg", w=w).guide(at, None).denoised, at.x, sigma)
    torch.testing.assert_close(guided, at.score("main") + (w - 1) * ascent, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("w", [0.0, 2.0, 17.0])
def test_autoguidance_by_itself_is_unguided(w):
    same = {"main": FIELDS["main"], "weak": FIELDS["main"]}
    guided, plain = walk(tg.rule("autoguidance", w=w), fields=same), walk(tg.rule("none"), fields=same)
    assert torch.equal(guided[-1].x, plain[-1].x)


def test_weight_0_is_the_guiding_field():
    for key, role in (("cfg", "uncond"), ("autoguidance", "weak")):
        guided = walk(tg.rule(key, w=0.0))[-1].x
        torch.testing.assert_close(guided, walk(tg.rule("none"), fields={"main": FIELDS[role]})[-1].x)


def test_mixtures_of_rules_have_their_limits():
    def end(key, **params):
        return walk(tg.rule(key, **params))[-1].x

    torch.testing.assert_close(end("cfg+autoguidance", w=2.5, mix=0.0), end("cfg", w=2.5))
    torch.testing.assert_close(end("cfg+autoguidance", w=2.5, mix=1.0), end("autoguidance", w=2.5))
    torch.testing.assert_close(end("sfg+autoguidance", w=0.0, w_auto=2.5), end("autoguidance", w=2.5))
    torch.testing.assert_close(end("sfg+autoguidance", w=3.0, w_auto=1.0), end("sfg", w=3.0))


def test_cfg_and_autoguidance_share_their_weight_as_in_eq_6():
    """Karras et al. 2024, Eq. 6: ``w_u = (1 - a)(w - 1) + 1``, ``w_c = a (w - 1) + 1``."""
    a, w = 0.3, 2.5
    w_u, w_c = (1 - a) * (w - 1) + 1, a * (w - 1) + 1
    main, uncond, weak = (FIELDS[r].denoise(X, 0.8) for r in FIELDS)
    expected = main + (w_u - 1) * (main - uncond) + (w_c - 1) * (main - weak)
    guided = tg.rule("cfg+autoguidance", w=w, mix=a).guide(Evaluation(FIELDS, X, 0.8), None).denoised
    torch.testing.assert_close(guided, expected, rtol=0, atol=1e-12)


def best_weight(relative: float, variance: float = 0.25, sigma: float = 0.5) -> float:
    """The w at which autoguidance's D is nearest to the exact one; D is affine in w, so from its values at 0 and 1."""
    field = gaussian(variance)
    fields = {"main": NoisierField(field, relative), "weak": NoisierField(field, 2 * relative)}
    zero, one = (tg.rule("autoguidance", w=w).guide(Evaluation(fields, X, sigma), None).denoised for w in (0.0, 1.0))
    gap = one - zero
    return float(((field.denoise(X, sigma) - zero) * gap).sum() / gap.square().sum())


def test_autoguidance_undoes_a_known_degradation():
    """With scores of ``p(x; sigma^2 + d_i)`` the best w tends to ``d_0 / (d_0 - d_1)`` for small d.

    On one Gaussian of variance a it is that times ``1 + d_1 / (a + sigma^2)`` for any d. Degradations of 10 and 20 %
    are those of Karras et al. 2024, section 4, where d_0 / (d_0 - d_1) = 1.91.
    """
    for relative in (0.1, 0.01, 0.001):
        d1, d0 = (0.25 * ((1 + r) ** 2 - 1) for r in (relative, 2 * relative))
        assert best_weight(relative) == pytest.approx(d0 / (d0 - d1) * (1 + d1 / 0.5), rel=1e-9)
        assert best_weight(relative) == pytest.approx(d0 / (d0 - d1), rel=1.5 * relative)


# Closed forms through the real sampler. Both ODEs are linear, so the final variance is that of the start times the
# squared shrinkage of one path; 256 Heun steps leave an error of a few 1e-4 (test_samplers measures the order).

FINE = tg.Experiment(main="exact", label="A", steps=256, sigma_max=5.0, sigma_min=0.002).levels()


def final_variance(rule: Rule, fields: dict, start_variance: float) -> float:
    start = torch.tensor([[1.0, -2.0]], dtype=W)
    shrinkage = walk(rule, start, FINE, fields)[-1].x / start
    torch.testing.assert_close(shrinkage[0, 0], shrinkage[0, 1])
    return start_variance * float(shrinkage[0, 0]) ** 2


@pytest.mark.parametrize("k", [0.8, 1.0, 1.4, 2.0])
def test_score_scaling_on_one_gaussian(k):
    a, s = 0.25, 25.0
    expected = (a + s) * (a / (a + s)) ** k
    assert final_variance(tg.rule("score-scaling", k=k), {"main": gaussian(a)}, a + s) == pytest.approx(
        expected, rel=2e-3
    )
    if k == 1.4:  # not the tempered law, whose variance is a / k
        assert expected == pytest.approx(0.0395, abs=5e-5)
        assert a / k == pytest.approx(0.1786, abs=5e-5)


@pytest.mark.parametrize("w", [0.0, 1.0, 2.0, 3.0])
def test_cfg_on_two_gaussians_is_not_the_tilt(w):
    """p_c = N(0, a), p_u = N(0, b): Bradley and Nakkiran 2024, with a finite first level."""
    a, b, s = 1.0, 2.0, 25.0
    expected = (a + s) * (a / (a + s)) ** w * (b / (b + s)) ** (1 - w)
    fields = {"main": gaussian(a), "uncond": gaussian(b)}
    assert final_variance(tg.rule("cfg", w=w), fields, a + s) == pytest.approx(expected, rel=1e-3)
    if w == 3.0:  # 2^(1-w) as the first level grows; the tilt has 2 / (w + 1)
        assert expected == pytest.approx(0.25, rel=0.1) != pytest.approx(0.5, rel=0.1)
