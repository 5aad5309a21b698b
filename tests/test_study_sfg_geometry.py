"""The studies of SFG's geometry against closed forms."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from helpers import seeded
from scipy import integrate, stats
from study_rows import ExactShop, measured

from toyguide.datasets import load_dataset
from toyguide.fields import Field
from toyguide.studies import Plan, study
from toyguide.studies.claims import sfg_curvature_is_the_classifier as classifier
from toyguide.studies.claims import sfg_warm_start as warm
from toyguide.studies.claims.shared.edges import edge_data, merging_sigma
from toyguide.training import TrainSettings

W = torch.float64
N = 1024
PAIR = {"data": "two-gaussians"}


class Everywhere(Field):
    """A field with one Hessian everywhere."""

    def __init__(self, matrix: torch.Tensor) -> None:
        self.matrix, self.dim = matrix, len(matrix)

    def log_density(self, x, sigma):
        return (x * self.score(x, sigma)).sum(-1) / 2

    def score(self, x, sigma):
        return x @ self.matrix

    def hessian(self, x, sigma):
        return self.matrix.expand(*x.shape[:-1], -1, -1)


def turned(degrees: float, *values: float) -> torch.Tensor:
    """A matrix with these eigenvalues, the first along an axis turned from the first coordinate's."""
    a = math.radians(degrees)
    turn = torch.tensor([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]], dtype=W)
    return turn @ torch.diag(torch.tensor(values, dtype=W)) @ turn.T


# --- points along edges -------------------------------------------------------------------------------------------


def test_edge_data_is_data_moved():
    """Around the middles of edges it has data's variance, ``d (c + sigma^2)``; a chi-square's mean within 5 errors."""
    data, sigma, n = load_dataset("simplex16"), 0.05, 2000
    means = torch.stack([data.field(label).mean for label in data.labels])
    middles = ((means[:, None] + means) / 2)[*torch.triu_indices(17, 17, 1)]
    for t, centres in ((0.0, means), (0.5, middles), (1.0, means)):
        distances = torch.cdist(edge_data(data, sigma, t, n, seeded()), centres)
        expected = 16 * (0.05**2 + sigma**2)
        assert float(distances.min(-1).values.square().mean()) == pytest.approx(expected, rel=5 * math.sqrt(2 / 16 / n))
        reached = distances.argmin(-1).unique()
        assert len(reached) == len(centres)


@pytest.mark.parametrize("name", ["two-gaussians", "simplex16"])
def test_modes_merge_where_the_middle_stops_to_curve_upward(name):
    data = load_dataset(name)
    a, b = (data.field(label).mean for label in data.labels[:2])
    alone = data.components.mixture.subset(data.mask(data.labels[0]) | data.mask(data.labels[1]))
    edge = (b - a) / (b - a).norm()
    for factor, upward in ((0.999, True), (1.001, False)):
        hessian = alone.hessian((a + b)[None] / 2, factor * merging_sigma(data))[0]
        assert bool(edge @ hessian @ edge > 0) == upward
    if name == "two-gaussians":
        assert merging_sigma(data) == pytest.approx(math.sqrt(0.95), rel=1e-12)


# --- curvature and the classifier ---------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.1, 0.5, 0.9, 1.1])
def test_two_gaussians_have_a_known_saddle_region(tmp_path, level):
    """``p (1 - p) 4 / V > 1`` is ``|x| < V arcosh(1 / sqrt V)``, and x is uniform noise plus normal; 5 errors."""
    found = measured("sfg-curvature-is-the-classifier", ExactShop(tmp_path, n=N), **PAIR, field="exact", level=level)
    v = 0.05 + (level * math.sqrt(0.95)) ** 2
    border = v * math.acosh(1 / math.sqrt(v)) if v < 1 else 0.0
    inside = stats.norm(scale=math.sqrt(v))
    share, _ = integrate.quad(lambda m: (inside.cdf(border - m) - inside.cdf(-border - m)) / 2, -1, 1)
    assert found["positive"] == pytest.approx(share, abs=5 * math.sqrt(share / N))
    assert found["same_sign"] == 1
    if level < 1:
        assert found["cosine"] == pytest.approx(1, abs=1e-12)
    else:
        assert math.isnan(found["cosine"])


@pytest.mark.parametrize("degrees", [0, 30, 75])
def test_a_turned_eigenvector_is_seen_to_be_turned(tmp_path, degrees):
    field = Everywhere(turned(degrees, 1.0, -2.0))
    found = measured(
        "sfg-curvature-is-the-classifier", ExactShop(tmp_path, field, N), **PAIR, field="network", level=0.5
    )
    assert found["cosine"] == pytest.approx(math.cos(math.radians(degrees)), abs=1e-12)
    assert found["positive"] == 1


def test_the_classifiers_gradient_is_that_of_its_log_odds():
    data, sigma = load_dataset("simplex16"), 0.3
    x = edge_data(data, sigma, 0.4, 32, seeded()).requires_grad_()
    best = data.posterior(x, sigma).topk(2).values
    odds = (best[:, 0] / best[:, 1]).log().sum()
    (expected,) = torch.autograd.grad(odds, x)
    torch.testing.assert_close(classifier.classifier_gradient(data, x.detach(), sigma), expected, rtol=1e-8, atol=1e-8)


def test_unequal_covariances_by_automatic_differentiation(tmp_path):
    """Against torch's normal distributions: the curvature of their mixture, and the gradient of their log-odds."""
    sigma, n = 0.25 * merging_sigma(load_dataset("two-gaussians")), 256
    left = 0.05 * torch.eye(2, dtype=W)
    noise = sigma**2 * torch.eye(2, dtype=W)
    normals = [
        torch.distributions.MultivariateNormal(torch.tensor([m, 0.0], dtype=W), c + noise)
        for m, c in ((-1.0, left), (1.0, turned(45, 0.2, 0.02)))
    ]

    def log_density(x):
        return torch.logaddexp(*(p.log_prob(x) for p in normals)) - math.log(2)

    def log_odds(x):
        return normals[0].log_prob(x) - normals[1].log_prob(x)

    x = edge_data(classifier._unequal(), sigma, torch.rand(n, generator=seeded()), n, seeded(1))
    hessian = torch.stack([torch.autograd.functional.hessian(log_density, each) for each in x])
    value, vector = torch.linalg.eigh(hessian)
    gradient = torch.stack([torch.autograd.functional.jacobian(log_odds, each) for each in x])
    cosine = torch.nn.functional.cosine_similarity(vector[..., -1], gradient, dim=-1).abs()
    on = value[:, -1] > 0
    found = classifier._compared(classifier._unequal().field(), classifier._unequal(), x, sigma)
    assert found["positive"] == float(on.double().mean())
    assert 0 < found["positive"] < 1
    assert found["cosine"] == pytest.approx(float(cosine[on].mean()), abs=1e-6)


# --- loss at saddles ----------------------------------------------------------------------------------------------


class Scaled(Field):
    """The exact score times a number."""

    def __init__(self, exact: Field, factor: float) -> None:
        self.exact, self.factor, self.dim = exact, factor, exact.dim

    def score(self, x, sigma):
        return self.factor * self.exact.score(x, sigma)

    def log_density(self, x, sigma):
        return self.factor * self.exact.log_density(x, sigma)

    def hessian(self, x, sigma):
        return self.factor * self.exact.hessian(x, sigma)


def test_losses_of_a_scaled_score_are_known(tmp_path):
    """The loss is ``e^2 sigma^2 |s|^2`` for the factor 1 + e.

    At a low level the vertices' Gaussians do not meet: ``|s|^2 = chi^2_16 / V`` at modes, cut at its 99 % quantile. In
    the middle of an edge two are seen: the share where the log-density curves upward is that of
    ``|y| < 2 V / L arcosh(L / (2 sqrt V))``, y normal with variance V and L the edge. Within 5 standard errors.
    """
    data, level, e, n = load_dataset("simplex16"), 1 / 8, 0.1, 2048
    sigma = level * merging_sigma(data)
    v = 0.05**2 + sigma**2
    shop = ExactShop(tmp_path, Scaled(data.field(), 1 + e), n)

    at_modes = measured("sfg-saddle-loss", shop, width=32, level=level, t=0.0)
    cut = stats.chi2.ppf(0.99, 16)
    square = 16 * stats.chi2.cdf(cut, 18) / 0.99
    assert at_modes["mode"] == pytest.approx(e**2 * sigma**2 * square / v, rel=5 * math.sqrt(2 / 16 / n))
    assert at_modes["mode_share"] == pytest.approx(0.99, abs=5 * math.sqrt(0.01 / n))
    assert at_modes["saddle_share"] == 0
    assert at_modes["all"] == pytest.approx(e**2 * sigma**2 * 16 / v, rel=5 * math.sqrt(2 / 16 / n))

    at_middles = measured("sfg-saddle-loss", shop, width=32, level=level, t=0.5)
    edge = math.sqrt(2 * 17 / 16)
    border = 2 * v / edge * math.acosh(edge / (2 * math.sqrt(v)))
    share = 2 * stats.norm.cdf(border / math.sqrt(v)) - 1
    assert at_middles["saddle_share"] == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / n))


# --- the warm start -----------------------------------------------------------------------------------------------


def test_what_one_iteration_makes_of_a_direction_is_known():
    """For ``sigma^2 J = diag(1/2, -1/2)`` and v at 60 degrees: the push is at -60, and ``push + v`` at 30."""
    steps, n, sigma = 3, 7, 0.5
    v = torch.tensor([math.cos(math.pi / 3), math.sin(math.pi / 3)]).expand(steps, n, 2)
    result = SimpleNamespace(
        x=torch.zeros(steps + 1, n, 2),
        sigma=torch.full((steps + 1,), sigma),
        trace={"v": v},
        experiment=SimpleNamespace(params={"alpha": 1.0}),
    )
    for degrees, before, push, after, noticed in (
        (0, 1 / 2, 1 / 2, math.sqrt(3) / 2, 0.0),
        (60, 1.0, 1.0, 1.0, 1.0),
        (150, 0.0, 0.0, 0.0, 0.0),
    ):
        found = warm._followed(result, Everywhere(turned(degrees, 0.5, -0.5) / sigma**2))
        expected = {"cosine": after, "cosine_before": before, "cosine_push": push, "noticed": noticed}
        for name, value in expected.items():
            torch.testing.assert_close(found[name], torch.full((steps,), value, dtype=W), rtol=0, atol=1e-6)
    nowhere = warm._followed(result, Everywhere(turned(0, -0.1, -0.5)))
    assert all(bool(means.isnan().all()) for means in nowhere.values())


def test_v_after_an_iteration_is_the_next_steps_v():
    """On one step's worth of the run itself: what is computed from the trace is what the rule carries on."""
    data = load_dataset("two-gaussians")
    experiment = warm.Experiment(
        "two-gaussians",
        main="exact",
        rule="sfg-iterated",
        params={"iterations": 1, "w": 0.0, "h": 1e-3},
        n=64,
        sampler="euler",
        sigma_max=0.6,
        steps=64,
    )
    result = experiment.run("cpu")
    found = warm._followed(result, data.field())
    carried = []
    for x, sigma, v in zip(result.x[:-2], result.sigma.tolist(), result.trace["v"][1:], strict=False):
        value, vector = warm.top_eigenpair(data.field().hessian(x.double(), sigma))
        carried.append((v.double() * vector).sum(-1).abs()[value > 0].mean())
    expected = torch.stack(carried)
    somewhere = expected.isfinite()
    assert int(somewhere.sum()) > 10
    torch.testing.assert_close(found["cosine"][:-1][somewhere], expected[somewhere], rtol=0, atol=0.01)


def test_more_iterations_and_a_warm_start_follow_better(tmp_path):
    """On the exact simplex ten warm iterations end where the eigensolver does; and each is paid for."""
    shop = ExactShop(tmp_path, n=32)

    def found(start: str, count: int) -> float:
        e = warm._experiment(shop.plan, "simplex16-exact", 0, {"start": start, "iterations": count, "w": 1.0})
        result = shop.run(e)
        assert result.nfe == 63 * (1 + count)
        return float(warm._followed(result, shop.fields(e)["main"])["cosine"].nanmean())

    assert found("random", 1) < found("random", 10) <= 1
    assert found("warm", 10) > 0.99


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_what_the_corrector_leaves_is_kept(tmp_path, solver):
    """v of the second step, by hand: Euler's is that of SFG; Heun makes one more iteration, at the predicted point."""
    shop, key = ExactShop(tmp_path, n=32), {"start": "kept", "iterations": 1, "w": 1.0}
    e = replace(warm._experiment(shop.plan, "simplex16-exact", 0, key), sampler=solver, sigma_max=0.5)
    kept = warm._run(shop, e, kept=True)
    usual = shop.run(e)
    assert kept.nfe == usual.nfe
    assert kept.x.equal(usual.x) == (solver == "euler")
    field, (high, low) = e.data.field(), e.levels()[:2].tolist()
    x, v, alpha = kept.x[0], kept.trace["v"][0], torch.ones(32, 1)
    h = 0.1
    for sigma in (high, low)[: 1 if solver == "euler" else 2]:
        denoised = field.denoise(x, sigma)
        u = (field.denoise(x + h * sigma * v, sigma) - denoised) / (h * sigma) - v
        lam = (u * v).sum(-1, keepdim=True)
        guided = denoised + sigma * torch.where(lam > 0, u, 0.0)
        x = x + (low - high) * (x - guided) / high
        alpha = torch.maximum(alpha, -lam)
        v = torch.nn.functional.normalize(u + alpha * v, dim=-1)
    torch.testing.assert_close(kept.trace["v"][1], v, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dim", [2, 16])
def test_chance_is_that_of_random_directions(dim):
    z = torch.randn(20_000, dim, generator=seeded(), dtype=W)
    place = "fractal" if dim == 2 else "simplex16"
    assert warm._chance(place) == pytest.approx(float((z[:, 0] / z.norm(dim=-1)).abs().mean()), abs=0.01)


def test_the_networks_are_the_ones_the_other_studies_train():
    plan = Plan(quick=False, seeds=1, first_seed=0)
    widths = {need.width: need for c in study("sfg-saddle-loss").cells(plan) for need in c.needs}
    (simplex,) = {
        need for c in study("sfg-warm-start").cells(plan) if c.key["place"] == "simplex16" for need in c.needs
    }
    assert widths[64] == simplex == TrainSettings("simplex16", None, width=64, iterations=1024, batch=1024)
