"""The rules against closed forms, autograd and each other, in float64; what holds for all is asked of every rule."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import param
import pytest
import torch
from helpers import seeded
from torch import Tensor
from walks import FIELDS, LEVELS, RULES, W, X, allowed, gaussian, mapped, mixture, walk

import toyguide as tg
from toyguide.datasets.classifiers import ExactClassifier
from toyguide.errors import InputError
from toyguide.fields import (
    Field,
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
    FAMILIES,
    ROLES,
    Evaluation,
    Rule,
    Scene,
    Wrapper,
    rules,
)
from toyguide.guidance.registry import rules_in_files
from toyguide.samplers import Step, sampler, trajectory

# What holds for every rule, published or an example, on whole walks


EXAMPLES = Path(__file__).parent / "example_rules"
EVERY = {**rules(), **{key: cls for key, cls in rules_in_files(str(EXAMPLES)).items() if key not in RULES}}


def network(seed: int) -> EnergyMLP:
    """An untrained network in float64 whose score is of the size of a mixture's."""
    net = EnergyMLP(2, 16, 2, torch.tensor([0.5, 0.5]), generator=seeded(seed)).double().requires_grad_(False)
    net.gain.fill_(-0.5)
    return net


def fields_for(cls: type[Rule], turn: Tensor | None = None, shift: Tensor | float = 0.0) -> dict[str, Any]:
    """A field for each role of a rule; turned and shifted if it is a mixture."""
    turn = torch.eye(2, dtype=W) if turn is None else turn

    def placed(seed: int) -> GaussianMixture:
        f = mixture(seed)
        return GaussianMixture(f.weights, f.means @ turn.T + shift, turn @ f.covariances @ turn.T)

    found: dict[str, Any] = {}
    for seed, (name, role) in enumerate({"main": ROLES["main"], **cls.roles()}.items()):
        found[name] = network(seed) if role.kind == "network" else placed(seed)
        if role.kind == "classifier":
            found[name] = ExactClassifier({"A": placed(0), "B": placed(9)}, {"A": 0.3, "B": 0.7})
    return found


def scene(fields: dict[str, Any]) -> Scene:
    return Scene(fields, tuple(LEVELS.tolist()), label="A")


class Counted(Field):
    """A field that counts the points at which it is evaluated, and at which it is differentiated."""

    def __init__(self, field: Field) -> None:
        self.field, self.dim, self.points, self.products = field, field.dim, 0, 0

    def log_density(self, x, sigma):
        self.points += len(x)
        return self.field.log_density(x, sigma)

    def score(self, x, sigma):
        self.points += len(x)
        return self.field.score(x, sigma)

    def hessian(self, x, sigma):
        self.products += len(x) * self.dim
        return self.field.hessian(x, sigma)

    def jvp(self, x, sigma, v):
        self.products += len(x)
        return self.field.jvp(x, sigma, v)


class Turned(Wrapper):
    """A rule that begins with its directions turned."""

    def __init__(self, rule: Rule, turn: Tensor) -> None:
        super().__init__(rule)
        self.turn = turn

    def begin(self, at, generator):
        x, memory = super().begin(at, generator)
        return x, mapped(memory, lambda m: m @ self.turn.T if m.shape == at.x.shape else m)


def every_walk(
    rule: Rule, fields: dict, x: Tensor = X, count: int | None = None, method: str | None = None
) -> list[Step]:
    return list(trajectory(rule, scene(fields), sampler(method or allowed(rule)), x, LEVELS, seeded(2), count))


@pytest.mark.parametrize("key", [k for k, cls in EVERY.items() if cls.unguided is not None])
def test_unguided_values_give_the_main_field(key):
    cls = EVERY[key]
    rule, fields = cls(**cls.unguided), fields_for(cls)
    steps = every_walk(rule, fields)
    plain = trajectory(tg.rule("none"), scene(fields), sampler(allowed(rule)), X, LEVELS, seeded(2))
    # Not bit by bit: score scaling's x + 1 (D - x) rounds.
    for a, b in zip(steps, plain, strict=True):
        torch.testing.assert_close(a.x, b.x, rtol=0, atol=1e-12)


LIMITS = [(key, limit) for key, cls in EVERY.items() for limit in cls.limits]


@pytest.mark.parametrize(
    ("key", "limit"), LIMITS, ids=[f"{k}-{limit.rule}-{dict(limit.params)}" for k, limit in LIMITS]
)
def test_a_rule_has_the_limits_that_it_says(key, limit):
    """At the limit's values it leads where the other rule leads, whatever the parameters that both share."""
    cls, other = EVERY[key], EVERY[limit.rule]
    fields = {**fields_for(other), **fields_for(cls)}
    fields |= {role: fields[instead] for role, instead in limit.fields.items()}
    for share in (0.25, 0.6):
        shared = {name: _inside(cls.declared()[name], share) for name in limit.same}
        mine, theirs = cls(**shared, **limit.params), other(**shared, **limit.of)
        method = limit.sampler or allowed(mine, theirs)
        for a, b in zip(
            every_walk(mine, fields, method=method), every_walk(theirs, fields, method=method), strict=True
        ):
            torch.testing.assert_close(a.x, b.x, rtol=0, atol=1e-10)


def _inside(declared: param.Parameter, share: float) -> Any:
    """A value of a parameter, so far from its lower end."""
    if not isinstance(declared, param.Number):
        return declared.default
    low, high = declared.get_soft_bounds()
    value = low + share * (high - low)
    return round(value) if isinstance(declared, param.Integer) else value


@pytest.mark.parametrize("key", [k for k in EVERY if k != "none"])
def test_default_values_guide(key):
    cls = EVERY[key]
    fields, plain = fields_for(cls), tg.rule("none")
    ends = [
        list(trajectory(rule, scene(fields), sampler(allowed(cls())), X, LEVELS, seeded(2)))[-1].x
        for rule in (cls(), plain)
    ]
    assert (ends[0] - ends[1]).abs().max() > 1e-3


@pytest.mark.parametrize("key", [k for k, cls in EVERY.items() if not cls.interacts])
def test_each_point_is_guided_by_itself(key):
    """The first points alone go where they go among all: 16, a multiple of which a generator draws alike."""
    cls = EVERY[key]
    fields = fields_for(cls)
    for alone, all_of_them in zip(every_walk(cls(), fields, X[:16], len(X)), every_walk(cls(), fields), strict=True):
        torch.testing.assert_close(alone.x, all_of_them.x[:16], rtol=0, atol=1e-11)


@pytest.mark.parametrize(("key", "change"), [(key, change) for key, cls in EVERY.items() for change in cls.equivariant])
def test_a_moved_world_is_guided_alike(key, change):
    """Turning or shifting fields and points turns or shifts where a rule leads, if it says so."""
    cls = EVERY[key]
    turn = torch.linalg.qr(torch.randn(2, 2, generator=seeded(3), dtype=W)).Q
    turn, shift = (turn, 0.0) if change == "rotation" else (torch.eye(2, dtype=W), torch.tensor([0.7, -1.1], dtype=W))
    here = every_walk(cls(), fields_for(cls))
    moved = every_walk(Turned(cls(), turn), fields_for(cls, turn, shift), X @ turn.T + shift)
    for a, b in zip(here, moved, strict=True):
        torch.testing.assert_close(b.x, a.x @ turn.T + shift, rtol=0, atol=1e-9)


def test_what_is_not_declared_does_not_hold():
    """The check above sees a rule that minds where the origin is."""
    cls, shift = EVERY["pull"], torch.tensor([0.7, -1.1], dtype=W)
    here, moved = every_walk(cls(), fields_for(cls)), every_walk(cls(), fields_for(cls, None, shift), X + shift)
    assert (moved[-1].x - here[-1].x - shift).abs().max() > 0.1


@pytest.mark.parametrize("key", EVERY)
def test_evaluations_are_counted_as_they_are_made(key, monkeypatch):
    """Whatever a rule asks of the fields, in every hook; a network that is thinned is counted by its denoiser."""
    cls = EVERY[key]
    fields = fields_for(cls)
    if key == "ideal":
        return  # evaluates a field of its own, not the ones that can be wrapped here: see test_ideal.py
    if any(role.kind == "network" for role in cls.roles().values()):
        calls = []
        for name in ("score", "log_density"):
            method = getattr(EnergyMLP, name)
            monkeypatch.setattr(EnergyMLP, name, lambda self, *a, f=method: calls.append(len(a[0])) or f(self, *a))
        assert every_walk(cls(), fields)[-1].nfe == sum(calls) / len(X)
        return
    counted = {name: f if isinstance(f, ExactClassifier) else Counted(f) for name, f in fields.items()}
    last = every_walk(cls(), counted)[-1]
    made = [f for f in counted.values() if isinstance(f, Counted)]
    assert last.nfe == sum(f.points for f in made) / len(X)
    if "classifier" not in counted:
        assert last.cost.gradients == sum(f.products for f in made) / len(X)


@pytest.mark.parametrize("key", EVERY)
def test_needs_are_what_is_evaluated(key):
    """A rule with only the fields it declares runs, and without one of them does not."""
    cls = EVERY[key]
    every_walk(cls(), {name: f for name, f in fields_for(cls).items() if name in cls.needs})
    for missing in cls.needs:
        with pytest.raises(InputError, match=f"field '{missing}'|posterior: this run has no dataset"):
            every_walk(cls(), {name: f for name, f in fields_for(cls).items() if name != missing})


@pytest.mark.parametrize("key", EVERY)
def test_an_experiment_with_it_is_written_and_read(key, monkeypatch):
    monkeypatch.setenv("TOYGUIDE_RULES", str(EXAMPLES))
    cls = EVERY[key]
    halved = {k: cls.declared()[k].default / 2 + 0.5 for k in cls.per_trajectory()}
    numbers = {k: v for k, v in halved.items() if v <= cls.declared()[k].bounds[1]}
    e = tg.Experiment(label="A", rule=key, params=numbers, sampler="ancestral" if cls.needs_noise else "euler")
    assert tg.Experiment.from_json(e.to_json()) == e
    assert set(e.fields) >= {"main", *cls.needs}
    assert all(e.params[name] == value for name, value in numbers.items())
    assert hash(e) == hash(tg.Experiment.from_json(e.to_json()))


@pytest.mark.parametrize("key", EVERY)
def test_a_rule_is_a_described_value(key):
    cls = EVERY[key]
    rule = cls()
    assert rule == cls(**rule.values())
    assert hash(rule) == hash(cls(**rule.values()))
    assert all([cls.title, cls.formula, cls.source, cls.summary]), "what the help text shows"
    assert cls.family in FAMILIES
    assert all(role.doc for role in cls.roles().values())
    assert set(cls.unguided or {}) | set(cls.off) <= set(cls.declared())
    for name, declared in cls.declared().items():
        assert declared.doc, name
        yes_or_no = isinstance(declared, param.Boolean)
        if name in cls.off:
            assert getattr(cls(**{name: cls.off[name]}), name) == cls.off[name]
        for wrong in (math.nan, math.inf, 1 if yes_or_no else True, None, "much", -1e9):
            if wrong == math.inf == cls.off.get(name):
                continue
            expected = rf"{name} = .*: expected (a number|a whole number|one of|true or false)"
            with pytest.raises(InputError, match=expected) as caught:
                cls(**{name: wrong})
            assert "\n" not in str(caught.value)


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
