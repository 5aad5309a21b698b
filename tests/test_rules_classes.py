"""Rules that look at classes, compose them or lead to a point: each against a closed form, autograd or another rule."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import seeded
from walks import LEVELS, W, X, gaussian, mixture, walk

import toyguide as tg
from toyguide.datasets.classifiers import Classifier, ExactClassifier
from toyguide.datasets.references import resolve
from toyguide.errors import InputError
from toyguide.fields import NoisierField, eps_from_denoised, score_from_denoised
from toyguide.fields.mixtures import GaussianMixture
from toyguide.guidance import Evaluation, Scene
from toyguide.samplers import sampler, trajectory

PAIR, TREE, MANY = (tg.load_dataset(name) for name in ("two-gaussians", "fractal", "simplex16"))
LINE = tuple(LEVELS.tolist())


def scene(data, label, **fields) -> Scene:
    """The exact fields of a run of a class, and others by role."""
    found = {"main": data.field(label), "uncond": data.field(None), "guide": data.field(label), **fields}
    return Scene({"classifier": ExactClassifier.of(data), **found}, LINE, data, label)


def points(data, label, sigma: float, n: int = 64) -> torch.Tensor:
    """Noisy points between the classes: of the union, so that the class is doubtful at some."""
    return data.field(None).sample(n, sigma, seeded(4))


def ends(key: str, where: Scene, x: torch.Tensor, method: str = "heun", levels=LEVELS, **params):
    return list(trajectory(tg.rule(key, **params), where, sampler(method), x, levels, seeded(5)))


# What all of them do in an experiment


@pytest.mark.parametrize("dataset", ["fractal", "two-gaussians", "simplex16"])
@pytest.mark.parametrize("key", ["classifier", "elucd", "gfcg", "compose", "rlg", "h-transform"])
def test_it_runs_with_the_natural_partners_of_a_trained_or_exact_main(key, dataset):
    label = tg.load_dataset(dataset).labels[0]
    result = tg.Experiment(dataset, label, rule=key, n=8, steps=3).run("cpu")
    assert result.x.isfinite().all()
    assert result.experiment.warnings() == []


@pytest.mark.parametrize("key", ["classifier", "elucd", "gfcg"])
def test_a_classifier_needs_a_class_to_lead_to(key):
    with pytest.raises(InputError, match=r"label: this rule .*, expected a run of one class"):
        tg.Experiment("two-gaussians", None, "exact", rule=key, n=8, steps=2).run("cpu")


# Classifier guidance


@pytest.mark.parametrize("data", [PAIR, TREE, MANY], ids=lambda d: d.name)
@pytest.mark.parametrize("w", [0.0, 1.0, 3.5])
def test_an_exact_classifier_is_cfg(data, w):
    label = data.labels[1]
    x, where = points(data, label, LINE[0]), scene(data, label)
    for base in ("uncond", "main"):
        mine, theirs = ends("classifier", where, x, w=w, base=base), ends("cfg", where, x, w=w)
        for a, b in zip(mine, theirs, strict=True):
            torch.testing.assert_close(a.x, b.x, rtol=0, atol=1e-8)
        assert (mine[-1].nfe, mine[-1].cost.gradients) == (9, 9)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_a_miscalibrated_classifier_climbs_its_own_probability(temperature):
    """``posterior+temperature:T`` is softmax(log p / T): its gradient by autograd."""
    x, sigma, w = points(TREE, "A", 0.3).requires_grad_(), 0.3, 2.0
    tempered = torch.softmax(TREE.posterior(x, sigma).log() / temperature, -1)
    (ascent,) = torch.autograd.grad(tempered[:, 0].log().sum(), x)
    classifier = resolve(f"posterior+temperature:{temperature:g}", TREE, "A", "classifier")
    at = Evaluation(scene(TREE, "A", classifier=classifier), x.detach(), sigma)
    push = tg.rule("classifier", w=w).guide(at, None).denoised - TREE.field(None).denoise(at.x, sigma)
    torch.testing.assert_close(push, w * sigma**2 * ascent, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("key", "params"),
    [
        ("classifier", {"w": 1.7}),
        ("compose", {"w": 1.7, "w_other": 0.6}),
        ("compose", {"operation": "not", "w": 1.7, "w_other": 0.6}),
        ("rlg", {"w": 1.7, "beta": 0.4, "reward": "near", "y0": 0.5, "y1": -0.3}),
    ],
)
def test_the_target_has_the_guided_score_where_the_noise_ends(key, params):
    """There, and only there, the score of a product is the sum of the scores."""
    data, sigma = {name: mixture(seed) for seed, name in enumerate(("A", "B"))}, 1e-4
    union = GaussianMixture(*(torch.cat([getattr(f, part) for f in data.values()]) for part in (
        "weights", "means", "covariances")))  # fmt: skip
    priors = {name: float(f.weights.sum()) for name, f in data.items()}
    total = sum(float(mixture(seed).weights.sum()) for seed in (0, 1))
    fields = {"main": data["A"], "other": data["B"], "uncond": union}
    classifier = ExactClassifier(data, {name: share / total for name, share in priors.items()})
    at = Evaluation(Scene({**fields, "classifier": classifier}, LINE, label="A"), X, sigma)
    rule = tg.rule(key, **params)
    target = rule.target()
    expected = sum(power * fields[role].score(X, sigma) for role, power in target.powers.items())
    if target.reward:
        expected = expected + target.reward.gradient(X)
    found = score_from_denoised(rule.guide(at, None).denoised, X, sigma)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


def test_runs_are_measured_against_their_rules_targets():
    """On one Gaussian RLG samples its target and a classifier, which is CFG, does not: both measured by 512 samples."""

    def measured(key):
        e = tg.Experiment("two-gaussians", "left", "exact", rule=key, params={"w": 2.0}, n=512)
        found = e.run("cpu").target_metrics()
        return found["target_kl"] / found["target_kl_reference"]

    assert measured("rlg") < 2
    assert measured("classifier") > 5


# Elucidated classifier guidance


class Plain(Classifier):
    """A classifier that says its probabilities only."""

    def __init__(self, of: Classifier) -> None:
        self.of, self.labels = of, of.labels

    def log_posterior(self, x, sigma):
        return self.of.log_posterior(x, sigma)

    def gradient(self, x, sigma, label):
        return self.of.gradient(x, sigma, label)

    def tempered(self, temperature):
        return Plain(self.of.tempered(temperature))


def logits(classifier: Classifier, x: torch.Tensor, sigma: float) -> torch.Tensor:
    """The logits from the exact densities of three classes: joint log-densities, or log-posteriors of a plain one."""
    joint = [f.log_density(x, sigma) + math.log(p) for f, p in zip(THREE.values(), PRIORS.values(), strict=True)]
    f = torch.stack(joint, -1) / 1.5
    return f.log_softmax(-1) if isinstance(classifier, Plain) else f


THREE = {name: mixture(seed) for seed, name in enumerate("abc")}
PRIORS = {"a": 0.2, "b": 0.5, "c": 0.3}
EXACT = ExactClassifier(THREE, PRIORS, temperature=1.5)


@pytest.mark.parametrize("classifier", [EXACT, Plain(EXACT)], ids=["logits", "posterior only"])
@pytest.mark.parametrize(("t1", "t2"), [(1.0, 0.0), (1.0, 1.0), (1.0, 0.5), (0.7, 1.8)])
def test_the_push_climbs_the_tempered_logits(classifier, t1, t2):
    x = X.clone().requires_grad_()
    f = logits(classifier, x, 0.6)
    (expected,) = torch.autograd.grad((t1 * f[:, 1] - torch.logsumexp(t2 * f, -1)).sum(), x)
    at = Evaluation(Scene({"main": THREE["a"], "classifier": classifier}, LINE, label="b"), X, 0.6)
    torch.testing.assert_close(tg.rule("elucd", t1=t1, t2=t2).gradient(at), expected, rtol=1e-9, atol=1e-11)
    assert (at.cost.evaluations, at.cost.gradients) == (int(t2 > 0), 1)


def test_the_push_has_its_length_and_comes_before_each_step():
    """The authors' settings: 0.004 and 0.3, with 11 noise levels."""
    rule = tg.rule("elucd", gmax=0.004, a=0.3)
    assert rule.gamma(0, 11) == 0.004
    assert rule.gamma(5, 11) == pytest.approx(0.004 * (6 / 11 + 0.3))
    assert rule.gamma(10, 11) == pytest.approx(0.004 / 11)
    where, levels = scene(PAIR, "left"), torch.linspace(3.0, 0.0, 11, dtype=W)
    at = Evaluation(where, X, 1.0)
    push = rule.before_step(at, None)[0] - X
    torch.testing.assert_close(push.norm(dim=-1), 0.004 * X.norm(dim=-1))
    assert ((push * PAIR.field("left").score(X, 1.0)).sum(-1) > 0).all()
    last = ends("elucd", where, X, levels=levels, gmax=0.004)[-1]
    assert (last.nfe, last.cost.gradients) == (19, 10), "once a step, also of Heun's"
    last = ends("elucd", where, X, levels=levels, gmax=0.004, point="denoised", t2=1.0)[-1]
    assert (last.nfe, last.cost.gradients) == (19 + 2 * 10, 10), "D before the push, and the logits"


def test_a_classifier_of_clean_points_is_asked_at_the_denoised_ones():
    at = Evaluation(scene(TREE, "A"), points(TREE, "A", 0.4), 0.4)
    clean = TREE.field("A").denoise(at.x, 0.4).requires_grad_()
    (g,) = torch.autograd.grad(TREE.posterior(clean, 0.002)[:, 0].log().sum(), clean)
    push = tg.rule("elucd", point="denoised", t2=1.0).before_step(at, None)[0] - at.x
    sure = g.norm(dim=-1) > 1e-6  # elsewhere the direction is rounding
    assert sure.any()
    normalize = torch.nn.functional.normalize
    torch.testing.assert_close(normalize(push[sure]), normalize(g[sure]))


def test_a_flat_classifier_pushes_no_further_than_a_steep_one():
    """In float32, where squares of the gradient underflow, and where the gradient is 0 itself."""
    x = torch.cat([torch.linspace(-1, -9, 33)[:, None], torch.full((33, 1), 0.5)], 1)
    at, rule = Evaluation(scene(PAIR, "left"), x, 0.3), tg.rule("elucd", t2=1.0)
    lengths = (rule.before_step(at, None)[0] - x).norm(dim=-1) / x.norm(dim=-1)
    assert lengths.max() <= 0.0041
    assert lengths[0] >= 0.0039
    small = rule.gradient(at).abs().amax(-1)
    assert ((small > 0) & (small < 1e-20)).any(), "what is to be seen"
    assert (small == 0).any()


# Gradient-free classifier guidance


def asked(data, label: str, x: torch.Tensor, sigma: float, guide=None, **params):
    """The rule's first evaluation, its memory after it, and the run's costs."""
    where = scene(data, label, **({} if guide is None else {"guide": guide}))
    at = Evaluation(Scene(where.fields, (sigma, 0.0), data, label), x, sigma)
    rule = tg.rule("gfcg", point="noisy", **params)
    guided = rule.guide(at, rule.begin(at, seeded(8))[1])
    return guided.denoised, guided.memory, at.cost


@pytest.mark.parametrize("data", [PAIR, TREE], ids=lambda d: d.name)
def test_two_classes_without_a_threshold_are_cfg(data):
    label = data.labels[0]
    x, where = points(data, label, LINE[0]), scene(data, label)
    mine = ends("gfcg", where, x, "euler", alpha=1.7, beta=1.0, threshold=1.0, point="noisy")
    for a, b in zip(mine, ends("cfg", where, x, "euler", w=2.7), strict=True):
        torch.testing.assert_close(a.x, b.x, rtol=0, atol=1e-8)


def test_two_classes_have_the_weight_of_cfg_that_the_confusion_gives():
    """``D_c - D_u = p_other (D_c - D_other)``, so that ``w - 1 = (omega - 1) / p_other``."""
    x, sigma = points(PAIR, "left", 0.8), 0.8
    p_other = PAIR.posterior(x, sigma)[:, [1]]
    main, uncond = PAIR.field("left").denoise(x, sigma), PAIR.field(None).denoise(x, sigma)
    expected = main + 3.0 * p_other**2 / p_other * (main - uncond)
    found, _, _ = asked(PAIR, "left", x, sigma, alpha=3.0, beta=2.0, threshold=1.0)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("guide", [None, NoisierField(MANY.field("v3"), 0.3)], ids=["alone", "with a weak model"])
def test_doubtful_points_are_pushed_off_the_class_they_are_taken_for(guide):
    x, sigma = points(MANY, "v3", 0.35, 200), 0.35
    p = MANY.posterior(x, sigma)
    own, share = MANY.labels.index("v3"), 1.3 if guide else 1.0
    main = MANY.field("v3").denoise(x, sigma)
    expected, confused = main.clone(), p[:, own] < 0.8
    for i in confused.nonzero()[:, 0].tolist():
        other = max((k for k in range(17) if k != own), key=lambda k: float(p[i, k]))
        against = MANY.field(MANY.labels[other]).denoise(x[i], sigma * share)
        if guide:  # a field evaluated at a higher level: its score there, as a denoiser here
            against = x[i] + (against - x[i]) / share**2
        expected[i] += 2.0 * (1 - p[i, own]) ** 0.5 * (main[i] - against)
    found, _, cost = asked(MANY, "v3", x, sigma, guide, alpha=2.0, beta=0.5, threshold=0.8)
    assert 0 < confused.sum() < 200
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)
    assert torch.equal(found[~confused], main[~confused])
    assert cost.per_trajectory(200).tolist() == (2 + confused.long()).tolist()


def test_a_drawn_class_comes_as_often_as_it_is_probable():
    """40000 copies of one point: shares within 4 standard errors of ``p_i / (1 - p_c)``."""
    x, sigma, n = points(MANY, "v3", 0.6, 1).expand(40_000, -1), 0.6, 40_000
    p = MANY.posterior(x[:1], sigma)[0]
    own = MANY.labels.index("v3")
    expected = p / (1 - p[own])
    expected[own] = 0.0
    _, memory, _ = asked(MANY, "v3", x, sigma, threshold=1.0, reference="stochastic")
    share = torch.bincount(memory.reference, minlength=17) / n
    assert share[own] == 0
    assert ((share - expected).abs() <= 4 * (expected * (1 - expected) / n).sqrt()).all()
    assert (expected > 0.05).sum() > 2


def test_the_classifier_is_asked_in_some_steps_and_its_answer_kept():
    x, levels = points(MANY, "v3", 1.0), torch.linspace(1.0, 0.0, 9, dtype=W)
    where, params = scene(MANY, "v3"), {"threshold": 0.0}
    every = ends("gfcg", where, x, levels=levels, **params)[-1]
    third = ends("gfcg", where, x, levels=levels, s_cp=3, **params)[-1]
    late = ends("gfcg", where, x, levels=levels, t_s=0.5, s_cp=2, **params)[-1]
    assert (every.nfe, third.nfe, late.nfe) == (15 + 8, 15 + 3, 15 + 2)
    plain = list(trajectory(tg.rule("none"), where, sampler("heun"), x, levels, seeded()))
    guided = ends("gfcg", where, x, levels=levels, threshold=1.0, t_s=0.5, point="noisy")
    same = [torch.equal(a.x, b.x) for a, b in zip(plain, guided, strict=True)]
    assert same == [True] * 5 + [False] * 4
    rule = tg.rule("gfcg", threshold=1.0, s_cp=2)
    at = Evaluation(Scene(where.fields, tuple(levels.tolist()), MANY, "v3"), x, 1.0)
    memory = rule.guide(at, rule.begin(at, seeded())[1]).memory
    assert rule.guide(at.moved(x + 0.3, float(levels[1]), 1), memory).memory is memory


# Composition


@pytest.mark.parametrize(("w", "w_other"), [(1.0, 1.0), (2.0, 0.5), (0.0, 1.0), (0.0, 0.0)])
def test_or_is_the_mixture_of_both(w, w_other):
    """SuperDiff's with equal weights; the weights are those of the mixture."""
    a, b = THREE["a"], THREE["b"]
    shares = [max(share, 1e-30) / max(w + w_other, 1e-30) for share in (w, w_other)]
    weights = torch.cat([share * f.weights / f.weights.sum() for share, f in zip(shares, (a, b), strict=True)])
    both = GaussianMixture(weights, torch.cat([a.means, b.means]), torch.cat([a.covariances, b.covariances]))
    for sigma in (0.05, 0.5, 3.0):
        at = Evaluation({"main": a, "other": b}, X, sigma)
        found = tg.rule("compose", operation="or", w=w, w_other=w_other).guide(at, None).denoised
        torch.testing.assert_close(found, both.denoise(X, sigma), rtol=1e-9, atol=1e-9)
        assert at.cost.evaluations == 4


def test_or_of_all_classes_samples_the_union():
    fields = {"main": PAIR.field("left"), "other": PAIR.field("right")}
    either, union = walk(tg.rule("compose", operation="or"), fields=fields), walk(tg.rule("none"), fields={
        "main": PAIR.field(None)})  # fmt: skip
    torch.testing.assert_close(either[-1].x, union[-1].x, rtol=0, atol=1e-10)


def test_and_and_not_are_those_of_the_paper():
    """``D_u + sum w_i (D_i - D_u)`` and ``D_u + w (D_c - D_n)``."""
    fields = {"main": THREE["a"], "other": THREE["b"], "uncond": THREE["c"]}
    a, b, u = (f.denoise(X, 0.7) for f in THREE.values())
    for operation, expected in (("and", u + 1.4 * (a - u) + 0.6 * (b - u)), ("not", u + 1.4 * (a - b))):
        w_other = 0.6 if operation == "and" else 1.4
        at = Evaluation(fields, X, 0.7)
        found = tg.rule("compose", operation=operation, w=1.4, w_other=w_other).guide(at, None).denoised
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def normal(mean: float, variance: float) -> GaussianMixture:
    return GaussianMixture(torch.ones(1), torch.full((1, 2), mean), variance * torch.eye(2)[None])


THREE_NORMALS = {"main": normal(1.0, 0.25), "other": normal(-0.5, 0.6), "uncond": normal(0.0, 1.5)}


def product(sigma: float) -> tuple[float, float]:
    """Mean and variance of ``p_main p_other / p_uncond``, each noised by itself."""
    v1, v2, v0 = (v + sigma**2 for v in (0.25, 0.6, 1.5))
    precision = 1 / v1 + 1 / v2 - 1 / v0
    return (1 / v1 - 0.5 / v2) / precision, 1 / precision


def test_langevin_steps_sample_the_product_of_their_level():
    """All Gaussian, so that a step of length h is ``x <- m + r (x - m) + h sigma z``, ``r = 1 - (h sigma)^2 / (2 v)``.

    Mean and variance after 100 such steps within four standard errors of 16384 numbers.
    """
    sigma, h, count = 0.8, 0.3, 100
    mean, variance = product(sigma)
    r = 1 - (h * sigma) ** 2 / (2 * variance)
    levels, start = torch.tensor([1.0, sigma, 0.0], dtype=W), 3 * torch.randn(8192, 2, generator=seeded(1), dtype=W)
    before = walk(tg.rule("compose", K=0), start, levels, THREE_NORMALS)[1].x
    after = walk(tg.rule("compose", K=count), start, levels, THREE_NORMALS)[1].x
    last = r ** (2 * count) * float(before.var()) + (h * sigma) ** 2 * (1 - r ** (2 * count)) / (1 - r**2)
    expected = mean + r**count * (float(before.mean()) - mean)
    assert float(after.mean()) == pytest.approx(expected, abs=4 * (last / 16384) ** 0.5)
    assert float(after.var()) == pytest.approx(last, rel=4 * (2 / 16384) ** 0.5)
    assert last == pytest.approx(variance, rel=0.03), "the product, but for the length of the steps"
    assert abs(float(before.var()) / variance - 1) > 0.2, "where the steps began"


def test_whole_runs_come_nearer_to_the_product_with_langevin_steps():
    mean, variance = product(0.0)
    levels = tg.Experiment(main="exact", label="A", steps=24, sigma_max=5.0).levels()
    start = 5 * torch.randn(1024, 2, generator=seeded(1), dtype=W)
    without, corrected = (walk(tg.rule("compose", K=K), start, levels, THREE_NORMALS, "euler")[-1].x for K in (0, 20))
    assert abs(float(corrected.mean()) - mean) < abs(float(without.mean()) - mean) / 2
    assert abs(float(corrected.var()) - variance) < abs(float(without.var()) - variance) / 2


def test_langevin_steps_are_each_points_own_and_are_counted():
    fields = {"main": THREE["a"], "other": THREE["b"], "uncond": THREE["c"]}
    rule = tg.rule("compose", K=3)
    whole, alone = walk(rule, X, fields=fields), list(
        trajectory(rule, fields, sampler("heun"), X[:16], LEVELS, seeded(), len(X)))  # fmt: skip
    torch.testing.assert_close(alone[-1].x, whole[-1].x[:16], rtol=0, atol=1e-11)
    assert (whole[-1].x - walk(tg.rule("compose"), X, fields=fields)[-1].x).abs().max() > 1e-2
    assert whole[-1].nfe == 3 * (9 + 4 * 3), "none after the last step, to sigma = 0"


# Reinforcement-learning guidance

SLOPE = torch.tensor([0.8, -0.3], dtype=W)
NAMED = {"reward": "linear", "y0": 0.8, "y1": -0.3}


@pytest.mark.parametrize("sigma", [0.02, 0.5, 4.0])
@pytest.mark.parametrize("w", [0.5, 1.0, 3.0])
def test_on_one_gaussian_w_divides_the_coefficient(w, sigma):
    """``N(m, S) e^(a x w / beta)`` is ``N(m + S a w / beta, S)``; its denoiser in closed form."""
    m, s, beta = torch.tensor([0.3, -0.2], dtype=W), torch.tensor([[0.3, 0.1], [0.1, 0.2]], dtype=W), 0.4
    field = GaussianMixture(torch.ones(1, dtype=W), m[None], s[None])
    moved = m + s @ SLOPE * w / beta
    expected = moved + (X - moved) @ torch.linalg.solve(s + sigma**2 * torch.eye(2, dtype=W), s)
    at = Evaluation({"main": field}, X, sigma)
    found = tg.rule("rlg", w=w, beta=beta, **NAMED).guide(at, None).denoised
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert at.cost.evaluations == 2


def test_on_a_mixture_the_tuned_model_is_the_tilt_and_w_does_not_divide():
    """Means ``mu + S a / beta``, weights times ``exp(a mu / beta + a S a / (2 beta^2))``."""
    field, beta = mixture(3), 0.5
    push = field.covariances @ SLOPE
    weights = field.weights * (field.means @ SLOPE / beta + push @ SLOPE / (2 * beta**2)).exp()
    tilt = GaussianMixture(weights, field.means + push / beta, field.covariances)

    def end(w: float, coefficient: float) -> torch.Tensor:
        return walk(tg.rule("rlg", w=w, beta=coefficient, **NAMED), fields={"main": field})[-1].x

    torch.testing.assert_close(end(1.0, beta), walk(tg.rule("none"), fields={"main": tilt})[-1].x, rtol=0, atol=1e-9)
    assert (end(2.0, beta) - end(1.0, beta / 2)).abs().max() > 0.05


def test_nearness_on_one_gaussian_is_no_division_either():
    fields = {"main": gaussian(0.25)}
    ends = [
        walk(tg.rule("rlg", reward="near", y0=1.0, w=w, beta=beta), fields=fields)[-1].x
        for w, beta in ((2.0, 0.5), (1.0, 0.25))
    ]
    assert (ends[0] - ends[1]).abs().max() > 1e-2


@pytest.mark.parametrize("main", ["fractal/main", "exact+noise:0.2"])
def test_what_has_no_exact_tilt_is_refused(main):
    with pytest.raises(InputError, match=r"main '.*': expected an exact field, like exact"):
        tg.Experiment("fractal", "A", main, rule="rlg", n=8, steps=2).run("cpu")
    with pytest.raises(InputError, match="main: rlg tunes exact fields only, expected one, like exact"):
        walk(tg.rule("rlg"), fields={"main": NoisierField(gaussian(1.0), 0.1)})


# The weighted h-transform


@pytest.mark.parametrize("sigma", [0.01, 0.5, 3.0])
def test_the_h_transform_is_that_of_the_papers_coordinates(sigma):
    """``eps' = eps + s^a [(x_vp - sqrt(ab) y) / sqrt(1 - ab) - eps]`` for the data divided by 0.5."""
    y, a = torch.tensor([0.4, -0.7], dtype=W), 1.5
    at = Evaluation({"main": THREE["a"]}, X, sigma)
    ab = 1 / (1 + (sigma / 0.5) ** 2)
    x_vp, y_vp = math.sqrt(ab) * X / 0.5, y / 0.5
    eps = eps_from_denoised(THREE["a"].denoise(X, sigma), X, sigma)
    guided = eps + math.sqrt(1 - ab) ** a * ((x_vp - math.sqrt(ab) * y_vp) / math.sqrt(1 - ab) - eps)
    found = tg.rule("h-transform", alpha=a, y0=0.4, y1=-0.7).guide(at, None).denoised
    torch.testing.assert_close(found, X - sigma * guided, rtol=1e-10, atol=1e-10)


def test_without_fading_it_ends_on_the_point():
    x = walk(tg.rule("h-transform", alpha=0.0, y0=0.4, y1=-0.7))[-1].x
    torch.testing.assert_close(x, torch.tensor([[0.4, -0.7]], dtype=W).expand_as(x), rtol=0, atol=1e-12)


def test_the_point_may_be_the_mean_of_the_class():
    """Of an exact field its own; of a network the class's."""
    x, network = MANY.field(None).sample(16, 3.0, seeded(2)), tg.load_model("simplex16/main").with_label("v3").double()
    for main in (MANY.field("v3"), network):
        end = ends("h-transform", scene(MANY, "v3", main=main), x, alpha=0.0, y="mean of the class")[-1].x
        torch.testing.assert_close(end, MANY.field("v3").means.expand_as(x), rtol=0, atol=1e-12)
    with pytest.raises(InputError, match="y: the mean of this main field is not known without a dataset"):
        walk(tg.rule("h-transform", y="mean of the class"), fields={"main": NoisierField(gaussian(1.0), 0.1)})
