"""The rules against closed forms, autograd and each other, in float64; what holds for all is asked of every rule."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import param
import pytest
import torch
from helpers import seeded
from torch import Tensor

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
    Arrival,
    Evaluation,
    Guided,
    Interval,
    Role,
    Rule,
    Scene,
    Wrapper,
    rules,
)
from toyguide.guidance.base import DEFINED
from toyguide.guidance.registry import _from_files as files
from toyguide.guidance.rules.sfg import Direction
from toyguide.samplers import Step, sampler, trajectory

RULES = list(rules())
W = torch.float64


def mixture(seed: int, dim: int = 2, components: int = 4) -> GaussianMixture:
    """A mixture of random Gaussians with eigenvalues well away from 0."""
    g = seeded(seed)
    means = torch.randn(components, dim, generator=g, dtype=W)
    roots = torch.randn(components, dim, dim, generator=g, dtype=W) * 0.3
    return GaussianMixture(
        torch.rand(components, generator=g, dtype=W) + 0.2, means, roots @ roots.mT + 0.05 * torch.eye(dim, dtype=W)
    )


def gaussian(variance: float, dim: int = 2) -> GaussianMixture:
    return GaussianMixture(
        torch.ones(1, dtype=W), torch.zeros(1, dim, dtype=W), variance * torch.eye(dim, dtype=W)[None]
    )


FIELDS = {role: mixture(seed) for seed, role in enumerate(("main", "uncond", "weak"))}
X = torch.randn(32, 2, generator=seeded(7), dtype=W) * 1.5
LEVELS = torch.tensor([3.0, 1.5, 0.7, 0.3, 0.1, 0.0], dtype=W)


def walk(
    rule: Rule, x: Tensor = X, levels: Tensor = LEVELS, fields: dict | None = None, method: str = "heun", seed: int = 0
) -> list[Step]:
    return list(trajectory(rule, fields or FIELDS, sampler(method), x, levels, seeded(seed)))


def allowed(rule: Rule) -> str:
    return "ancestral" if rule.needs_noise else "euler" if rule.first_order else "heun"


def begun(rule: Rule, x: Tensor, sigma: float, generator: torch.Generator) -> Any:
    """A rule's memory at the start of a run."""
    return rule.begin(Evaluation(FIELDS, x, sigma), generator)[1]


def mapped(memory: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A rule's memory with every tensor in it changed."""
    if isinstance(memory, Tensor):
        return change(memory)
    if dataclasses.is_dataclass(memory):
        found = {f.name: mapped(getattr(memory, f.name), change) for f in dataclasses.fields(memory)}
        return dataclasses.replace(memory, **found)
    if isinstance(memory, dict):
        return {k: mapped(v, change) for k, v in memory.items()}
    return type(memory)(mapped(m, change) for m in memory) if isinstance(memory, tuple | list) else memory


def two_steps(rule: Rule, fields: dict, x: Tensor, memory: Any) -> Tensor:
    """What a rule makes of points at two levels, one after the other with the memory handed on."""
    first = rule.guide(Evaluation(fields, x, 1.0), memory)
    second = rule.guide(Evaluation(fields, x, 0.4), first.memory)
    return torch.stack([first.denoised, second.denoised])


# What holds for every rule, published or an example, on whole walks


EXAMPLES = Path(__file__).parent / "example_rules"
EVERY = {**rules(), **{key: cls for key, cls in files(str(EXAMPLES)).items() if key not in RULES}}


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


def every_walk(rule: Rule, fields: dict, x: Tensor = X, count: int | None = None) -> list[Step]:
    return list(trajectory(rule, scene(fields), sampler(allowed(rule)), x, LEVELS, seeded(2), count))


@pytest.mark.parametrize("key", [k for k, cls in EVERY.items() if cls.unguided is not None])
def test_unguided_values_give_the_main_field(key):
    cls = EVERY[key]
    rule, fields = cls(**cls.unguided), fields_for(cls)
    steps = every_walk(rule, fields)
    plain = trajectory(tg.rule("none"), scene(fields), sampler(allowed(rule)), X, LEVELS, seeded(2))
    # Not bit by bit: score scaling's x + 1 (D - x) rounds.
    for a, b in zip(steps, plain, strict=True):
        torch.testing.assert_close(a.x, b.x, rtol=0, atol=1e-12)


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


@pytest.mark.parametrize("change", ["rotation", "translation"])
@pytest.mark.parametrize("key", EVERY)
def test_a_moved_world_is_guided_alike(key, change):
    """Turning or shifting fields and points turns or shifts where a rule leads, if it says so."""
    cls = EVERY[key]
    if change not in cls.equivariant:
        pytest.skip("not declared")
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
    assert set(cls.unguided or {}) <= set(cls.declared())
    for name, declared in cls.declared().items():
        assert declared.doc, name
        yes_or_no = isinstance(declared, param.Boolean)
        for wrong in (math.nan, math.inf, 1 if yes_or_no else True, None, "much", -1e9):
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


# Saddle-free guidance

SADDLE = {"main": tg.load_dataset("two-gaussians").field(None)}  # modes at (±1, 0), variance 0.05


def test_sfg_leaves_one_gaussian_alone():
    """The log-density of one Gaussian curves upward nowhere, whatever its shape."""
    field = {"main": mixture(11, components=1)}
    assert torch.equal(walk(tg.rule("sfg", w=30.0), fields=field)[-1].x, walk(tg.rule("none"), fields=field)[-1].x)


@pytest.mark.parametrize("h", [1e-3, 0.1, 1.0])
def test_sfg_is_the_papers_form_in_eps(h):
    """``eps - w H(lambda) u`` with ``u = (eps(x) - eps(x + h sigma v)) / h``, at any h."""
    sigma, w, field = 0.5, 3.0, FIELDS["main"]
    rule = tg.rule("sfg", w=w, h=h)
    memory = begun(rule, X, sigma, seeded(1))

    def eps(x):
        return -sigma * field.score(x, sigma)

    u = (eps(X) - eps(X + h * sigma * memory.v)) / h
    on = (u * memory.v).sum(-1, keepdim=True) > 0
    assert on.any()
    assert not on.all()
    guided = rule.guide(Evaluation(FIELDS, X, sigma), memory).denoised
    torch.testing.assert_close(guided, denoised_from_eps(eps(X) - w * on * u, X, sigma), rtol=1e-8, atol=1e-8)


def test_sfg_push_tends_to_the_hessians_product():
    """The push over sigma w tends to ``sigma^2 J v`` in the first order of h, a forward difference's."""
    sigma = 0.5
    x = torch.randn(256, 2, generator=seeded(2), dtype=W) * torch.tensor([0.3, 1.0], dtype=W)
    v = torch.nn.functional.normalize(torch.randn(256, 2, generator=seeded(3), dtype=W), dim=-1)
    exact = sigma**2 * (SADDLE["main"].hessian(x, sigma) @ v[..., None])[..., 0]
    curved_up = (exact * v).sum(-1) > 0.05
    assert curved_up.sum() > 20

    steps = [0.2 / 2**i for i in range(6)]
    errors = []
    for h in steps:
        rule = tg.rule("sfg", w=2.0, h=h)
        at = Evaluation(SADDLE, x, sigma)
        push, _, _ = rule.correction(at, at.denoised("main"), Direction(v, torch.ones(256, 1, dtype=W)))
        errors.append(float((push / (sigma * 2.0) - exact)[curved_up].norm()))
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert orders[-1] == pytest.approx(1, abs=0.03)


def test_sfg_finds_the_top_eigenpair():
    """Many steps at one level are a power iteration: v and lambda become the top eigenpair of ``sigma^2 J``."""
    sigma = 0.6
    value, vector = (t[..., -1] for t in torch.linalg.eigh(sigma**2 * FIELDS["main"].hessian(X, sigma)))
    gap = torch.linalg.eigvalsh(sigma**2 * FIELDS["main"].hessian(X, sigma)).diff()[:, 0]
    clear = gap > 0.1  # the error shrinks by (1 - gap / (1 + value)) per step
    assert clear.sum() > 15

    rule = tg.rule("sfg", h=1e-4)
    memory = begun(rule, X, sigma, seeded())
    for _ in range(400):
        guided = rule.guide(Evaluation(FIELDS, X, sigma), memory)
        memory = guided.memory
    along = (guided.trace["v"] * vector).sum(-1).abs()
    torch.testing.assert_close(along[clear], torch.ones_like(along[clear]), rtol=0, atol=1e-6)
    torch.testing.assert_close(guided.trace["lambda"][clear], value[clear], rtol=0, atol=1e-3)


def test_sfg_between_two_gaussians():
    """v lies along the means' difference, lambda is ``sigma^2 (-1/V + p (1-p) |dmu|^2 / V^2)``, V = c + sigma^2."""
    sigma, c = 0.4, 0.05
    variance = c + sigma**2
    x = torch.tensor([[0.0, 0.3], [0.05, -0.8], [-0.1, 0.0]], dtype=W)
    p = torch.sigmoid(2 * x[:, 0] / variance)
    expected = sigma**2 * (-1 / variance + p * (1 - p) * 4 / variance**2)
    rule = tg.rule("sfg", h=1e-4)
    memory = begun(rule, x, sigma, seeded())
    for _ in range(60):
        guided = rule.guide(Evaluation(SADDLE, x, sigma), memory)
        memory = guided.memory
    torch.testing.assert_close(guided.trace["v"][:, 1], torch.zeros(3, dtype=W), rtol=0, atol=1e-6)
    torch.testing.assert_close(guided.trace["lambda"], expected, rtol=0, atol=2e-3)


class Linear:
    """A denoiser ``D = x M``; ``sigma^2 J = M - 1``, which no exact field's is below -1."""

    evaluations = 1

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        return x @ self.matrix


def test_sfg_shift_grows_and_never_shrinks():
    field = Linear(torch.tensor([[-3.0, 0.5], [0.5, -1.0]], dtype=W))
    rule = tg.rule("sfg", alpha=1.5)
    memory = begun(rule, X, 1.0, seeded())
    expected = torch.full((len(X),), 1.5, dtype=W)
    seen = []
    for sigma in (2.0, 1.0, 0.5, 0.2):
        guided = rule.guide(Evaluation({"main": field}, X, sigma), memory)
        expected = torch.maximum(expected, -guided.trace["lambda"])
        memory = guided.memory
        torch.testing.assert_close(memory.alpha[:, 0], expected)
        seen.append(memory.alpha)
    assert (seen[0] > 1.5).any()
    assert all((b >= a).all() for a, b in itertools.pairwise(seen))


def test_sfg_keeps_its_direction_where_the_product_vanishes():
    """``u + alpha v = 0`` where D turns nothing: an eigenvalue of -1 with alpha 1."""
    rule = tg.rule("sfg", alpha=1.0)
    memory = begun(rule, X, 1.0, seeded())
    after = rule.guide(Evaluation({"main": Linear(torch.zeros(2, 2, dtype=W))}, X, 1.0), memory).memory
    torch.testing.assert_close(after.v, memory.v)


def test_sfg_signs():
    """``score``: v never points against the score and its start does not matter. ``persistent``: it does."""
    sigma, on = 0.4, torch.tensor([[0.02, 0.5], [-0.03, -0.2]], dtype=W)
    v = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=W)
    alpha = torch.ones(2, 1, dtype=W)

    def push(sign, v):
        at = Evaluation(SADDLE, on, sigma)
        rule = tg.rule("sfg", sign=sign, h=1e-4)
        return rule.correction(at, at.denoised("main"), Direction(v, alpha))[0]

    assert torch.equal(push("score", v), push("score", -v))
    assert ((push("score", v) * SADDLE["main"].score(on, sigma)).sum(-1) > 0).all(), "with the flow, from the saddle"
    torch.testing.assert_close(push("persistent", v), -push("persistent", -v), rtol=1e-2, atol=1e-9)
    assert (push("persistent", v)[:, 0] > 0).all()

    steps = walk(tg.rule("sfg", sign="score"), fields=SADDLE)
    for before, after in itertools.pairwise(steps):
        assert ((SADDLE["main"].score(before.x, before.sigma) * after.trace["v"]).sum(-1) >= 0).all()


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


# Files on the search path

RULE_FILE = """
from toyguide.guidance import Guided, Rule

class Mine(Rule):
    key = "{key}"

    def guide(self, at, memory):
        return Guided(at.denoised("main"))
"""


@pytest.fixture
def search_path(tmp_path, monkeypatch):
    """A folder in TOYGUIDE_RULES."""
    monkeypatch.setenv("TOYGUIDE_RULES", str(tmp_path))
    yield tmp_path
    monkeypatch.undo()
    assert list(rules()) == RULES


def test_a_file_on_the_search_path_is_a_rule(search_path):
    (search_path / "mine.py").write_text(RULE_FILE.format(key="mine"))
    assert set(rules()) == {*RULES, "mine"}
    assert torch.equal(walk(tg.rule("mine"))[-1].x, walk(tg.rule("none"))[-1].x)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (RULE_FILE.format(key="cfg"), "mine.py: the rule name 'cfg' is taken"),
        (RULE_FILE.format(key="a") + RULE_FILE.format(key="a").replace("Mine", "Other"), "rule name 'a' is taken"),
        (
            RULE_FILE.replace("    key", "    needs = ('main', 'wek')\n    key"),
            "needs 'wek': expected one of main, uncond",
        ),
        ("import nothing_of_that_name", "mine.py: cannot be imported .ModuleNotFoundError"),
        ("class:", "mine.py: cannot be imported .SyntaxError"),
    ],
)
def test_a_wrong_file_on_the_search_path_is_named(search_path, text, complaint):
    (search_path / "mine.py").write_text(text)
    with pytest.raises(InputError, match=complaint):
        rules()


def test_a_wrong_search_path_is_named(search_path, monkeypatch):
    monkeypatch.setenv("TOYGUIDE_RULES", "/no/such/folder")
    with pytest.raises(InputError, match="TOYGUIDE_RULES: '/no/such/folder': expected a folder"):
        rules()


# Classes of this process


@pytest.fixture
def own_rules():
    """What is defined in a test is forgotten after it."""
    before = dict(DEFINED)
    yield
    DEFINED.clear()
    DEFINED.update(before)
    assert list(rules()) == RULES


def constant(name: str, value: float) -> type[Rule]:
    class Constant(Rule):
        key = name

        def guide(self, at, memory):
            return Guided(torch.full_like(at.x, value))

    return Constant


def test_a_class_defined_later_replaces_the_earlier_one(own_rules):
    first = constant("mine", 1.0)
    assert walk(tg.rule("mine"))[-1].x.unique().tolist() == [1.0]
    constant("mine", 2.0)
    assert walk(tg.rule("mine"))[-1].x.unique().tolist() == [2.0]
    assert tg.register(first) is first
    assert walk(tg.rule("mine"))[-1].x.unique().tolist() == [1.0]
    constant("cfg", 3.0)
    assert walk(tg.rule("cfg"))[-1].x.unique().tolist() == [3.0], "also one of the package"


def test_only_rules_with_a_key_are_registered():
    for wrong in (Rule, int, "cfg", tg.rule("cfg")):
        with pytest.raises(InputError, match=r"register\(.*\): expected a subclass of Rule with a key"):
            tg.register(wrong)


def test_a_role_says_what_it_is():
    with pytest.raises(TypeError, match=r"needs 'weak2': expected one of main, .*Role\('weak2', kind, doc\)"):
        type("Mine", (Rule,), {"needs": ("main", "weak2")})
    with pytest.raises(ValueError, match="role 'weak2': kind 'weeker', expected one of sampled, "):
        Role("weak2", "weeker", "another")
    with pytest.raises(ValueError, match="role 'weak 2': expected letters, digits and underscores"):
        Role("weak 2", "weaker", "another")


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
