"""Targets against closed forms, the mixtures' own algebra, finite differences and weighted samples, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import seeded
from walks import FIELDS, W, X, gaussian, mixture

import toyguide as tg
from toyguide.errors import InputError
from toyguide.fields import NoisierField
from toyguide.fields.mixtures import GaussianMixture
from toyguide.fields.rewards import Reward
from toyguide.targets import Target, ideal_field, samples_of, weighted_samples
from toyguide.targets.algebra import as_mixture
from toyguide.targets.grid import GridField
from toyguide.targets.product import Product

SIGMAS = [0.004, 0.05, 0.3, 1.0, 5.0]


def grid(target: Target, fields: dict) -> GridField:
    return GridField(Product(target, fields))


def line(means: list[float], variances: list[float]) -> GaussianMixture:
    """Equal Gaussians on the first axis, of variance 1 on the second."""
    covariances = torch.stack([torch.diag(torch.tensor([v, 1.0], dtype=W)) for v in variances])
    places = torch.tensor([[m, 0.0] for m in means], dtype=W)
    return GaussianMixture(torch.ones(len(means), dtype=W), places, covariances)


# By algebra


@pytest.mark.parametrize("w", [0.0, 0.5, 1.0, 2.0, 3.0, 8.0])
def test_the_tilt_of_nested_gaussians(w):
    """``1 / (w/a + (1-w)/b)``, on each axis."""
    a, b = 1.0, 2.0
    found = ideal_field(Target({"main": w, "uncond": 1 - w}), {"main": gaussian(a), "uncond": gaussian(b)})
    assert isinstance(found, GaussianMixture)
    torch.testing.assert_close(found.covariances[0], torch.eye(2, dtype=W) / (w / a + (1 - w) / b))


def test_a_tilt_that_grows_is_refused():
    """N(0, 2) guided away from N(0, 1): the precision w/2 + 1 - w is 0 at w = 2."""
    fields = {"main": gaussian(2.0), "uncond": gaussian(1.0)}
    ideal_field(Target({"main": 1.9, "uncond": -0.9}), fields)
    for w in (2.0, 3.0):
        with pytest.raises(InputError, match="grows without bound"):
            ideal_field(Target({"main": w, "uncond": 1 - w}), fields)


def test_a_tilt_of_mixtures_that_grows_is_refused():
    """The widest component rules the tails: on one axis only, and whichever is in the middle."""
    wide, narrow = line([-1.0, 1.0], [1.0, 2.0]), line([-1.0, 1.0], [1.0, 1.0])
    ideal_field(Target({"main": 1.9, "uncond": -0.9}), {"main": wide, "uncond": narrow})
    with pytest.raises(InputError, match="grows without bound"):
        ideal_field(Target({"main": 2.1, "uncond": -1.1}), {"main": wide, "uncond": narrow})


PRODUCTS = {
    "two fields": Target({"main": 1.0, "uncond": 1.0}),
    "three fields": Target({"main": 1.0, "uncond": 1.0, "weak": 1.0}),
    "square": Target({"main": 2.0}),
    "cube and a reward": Target({"main": 3.0}, Reward.near(torch.tensor([0.3, -0.2], dtype=W), scale=0.7)),
    "reward": Target({"main": 1.0}, Reward.linear(torch.tensor([1.0, -2.0], dtype=W))),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_the_algebra_multiplies_densities(name):
    """The log-density differs from the sum of the fields' by one constant, everywhere."""
    target = PRODUCTS[name]
    made = as_mixture(target, FIELDS)
    difference = made.log_density(X, 0.0) - Product(target, FIELDS).log_density(X)
    torch.testing.assert_close(difference, difference[:1].expand(len(X)), rtol=0, atol=1e-10)


def test_the_algebra_holds_in_many_dimensions():
    data = tg.load_dataset("simplex16")
    fields = {"main": data.field("v1"), "uncond": data.field(None)}
    made = ideal_field(Target({"main": 2.0}), fields)
    torch.testing.assert_close(made.covariances, data.field("v1").covariances / 2)
    with pytest.raises(InputError, match="of dimension 16, expected 2"):
        ideal_field(Target({"main": 2.0, "uncond": -1.0}), fields)


# On the lattice


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("name", PRODUCTS)
def test_the_lattice_is_the_algebra(name, sigma):
    """Density, score and Hessian, below the lattice's spacing and up to where all is one Gaussian."""
    target = PRODUCTS[name]
    exact, found = as_mixture(target, FIELDS), grid(target, FIELDS)
    x = exact.sample(256, sigma, seeded(1))
    torch.testing.assert_close(found.log_density(x, sigma), exact.log_density(x, sigma), rtol=0, atol=2e-5)
    torch.testing.assert_close(sigma * found.score(x, sigma), sigma * exact.score(x, sigma), rtol=0, atol=2e-5)
    size = sigma**2
    torch.testing.assert_close(size * found.hessian(x, sigma), size * exact.hessian(x, sigma), rtol=0, atol=1e-4)


@pytest.mark.parametrize("sigma", [0.02, 0.3, 2.0])
@pytest.mark.parametrize("w", [2.0, 6.0])
def test_the_lattice_is_the_tilt_of_nested_gaussians(w, sigma):
    found = grid(Target({"main": w, "uncond": 1 - w}), {"main": gaussian(1.0), "uncond": gaussian(2.0)})
    exact = gaussian(1 / (w - (w - 1) / 2))
    x = exact.sample(128, sigma, seeded(1))
    torch.testing.assert_close(found.log_density(x, sigma), exact.log_density(x, sigma), rtol=0, atol=1e-7)
    torch.testing.assert_close(found.denoise(x, sigma), exact.denoise(x, sigma), rtol=0, atol=1e-7)


@pytest.mark.parametrize("k", [0.4, 1.7])
def test_a_tempered_gaussian(k):
    found, exact = grid(Target({"main": k}), {"main": gaussian(0.3)}), gaussian(0.3 / k)
    for sigma in (0.01, 0.5):
        x = exact.sample(128, sigma, seeded(1))
        torch.testing.assert_close(found.score(x, sigma), exact.score(x, sigma), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.05, 0.2, 1.0])
def test_far_from_all_mass_it_is_right_too(sigma):
    """At 40 sigma and more the density is 0 in any floating point; its logarithm and its denoised point are not."""
    exact = mixture(0)
    found = grid(Target({"main": 1.0}), {"main": exact})
    x = torch.tensor([[9.0, 2.0], [-8.0, -11.0], [3.0, 15.0], [4.0, -4.0]], dtype=W)
    torch.testing.assert_close(found.log_density(x, sigma), exact.log_density(x, sigma), rtol=1e-3, atol=0)
    torch.testing.assert_close(found.denoise(x, sigma), exact.denoise(x, sigma), rtol=1e-2, atol=0.02)
    torch.testing.assert_close(found.hessian(x, sigma), exact.hessian(x, sigma), rtol=1e-2, atol=0.02)


FRACTAL = tg.load_dataset("fractal")
TILT = Target({"main": 3.0, "uncond": -2.0})


@pytest.fixture(scope="module")
def fractal_tilt():
    return ideal_field(TILT, {"main": FRACTAL.field("A"), "uncond": FRACTAL.field(None)})


@pytest.mark.parametrize("sigma", [0.002, 0.01, 0.1, 1.0])
def test_the_fractal_on_the_lattice_is_the_fractal(sigma):
    """Its thinnest component is two points wide, its largest logarithms are computed in float32."""
    exact = FRACTAL.field("A")
    found = ideal_field(Target({"main": 1.0}), {"main": exact})
    assert found is exact
    x = exact.sample(1024, sigma, seeded(1))
    lattice = fractal_alone()
    torch.testing.assert_close(lattice.log_density(x, sigma), exact.log_density(x, sigma), rtol=0, atol=1e-4)
    torch.testing.assert_close(lattice.denoise(x, sigma), exact.denoise(x, sigma), rtol=0, atol=1e-5 * sigma)


def fractal_alone(kept=[]):  # noqa: B006, made once
    if not kept:
        kept.append(grid(Target({"main": 1.0}), {"main": FRACTAL.field("A")}))
    return kept[0]


@pytest.mark.parametrize("sigma", [0.0005, 0.002, 0.03, 0.5])
def test_derivatives_are_those_of_the_log_density(fractal_tilt, sigma):
    """By central differences, where there is no closed form."""
    x = fractal_tilt.sample(64, sigma, seeded(2))
    step = 1e-4 * min(sigma, 0.02)
    moves = step * torch.eye(2, dtype=W)
    rise = [fractal_tilt.log_density(x + m, sigma) - fractal_tilt.log_density(x - m, sigma) for m in moves]
    slope = torch.stack(rise, -1) / (2 * step)
    torch.testing.assert_close(fractal_tilt.score(x, sigma), slope, rtol=1e-4, atol=1e-4 / sigma)
    bend = [fractal_tilt.score(x + m, sigma) - fractal_tilt.score(x - m, sigma) for m in moves]
    torch.testing.assert_close(
        fractal_tilt.hessian(x, sigma), torch.stack(bend, -1) / (2 * step), rtol=1e-4, atol=1e-3 / sigma**2
    )


def test_the_noised_tilt_by_simulation(fractal_tilt):
    """``D(x; sigma)`` as the weighted mean of exact samples of main, which knows no lattice."""
    sigma, main, uncond = 0.3, FRACTAL.field("A"), FRACTAL.field(None)
    clean = main.sample(100_000, generator=seeded(3))
    tilt = 2 * (main.log_density(clean, 0.0) - uncond.log_density(clean, 0.0))
    x = fractal_tilt.sample(8, sigma, seeded(4))
    logs = tilt - (x[:, None] - clean).square().sum(-1) / (2 * sigma**2)
    share = logs.softmax(1)
    mean = share @ clean
    error = (share.square()[..., None] * (clean - mean[:, None]).square()).sum(1).sqrt()
    assert float(((fractal_tilt.denoise(x, sigma) - mean) / error).abs().max()) < 4.5


def test_as_the_noise_falls_the_scores_add(fractal_tilt):
    """At sigma = 0 the tilt's score is CFG's; at sigma = 0.3 it is not."""
    x = fractal_tilt.sample(64, 0.0, seeded(5))
    main, uncond = FRACTAL.field("A"), FRACTAL.field(None)

    def gap(sigma):
        cfg = 3 * main.denoise(x, sigma) - 2 * uncond.denoise(x, sigma)
        return float((fractal_tilt.denoise(x, sigma) - cfg).norm(dim=-1).mean()) / sigma

    assert gap(0.0002) < 1e-3 < 0.02 < gap(0.3)


# Samples


def test_samples_of_a_lattice_are_exact():
    """No cell of the lattice shows in the variance of a Gaussian that is two points wide."""
    exact = line([0.0], [1e-2])
    x = grid(Target({"main": 1.0}), {"main": exact}).sample(200_000, generator=seeded(6))
    variance = x.var(0)
    error = math.sqrt(2 / len(x))
    torch.testing.assert_close(variance, torch.tensor([1e-2, 1.0], dtype=W), rtol=4 * error, atol=0)
    assert float((x.mean(0).abs() / (variance / len(x)).sqrt()).max()) < 4


def test_the_tilt_of_two_gaussians_on_a_line():
    """Half N(-1, 1), half N(1, 1), guided to the right: the moments that quadrature in one dimension gives."""
    fields = {"main": line([1.0], [1.0]), "uncond": line([-1.0, 1.0], [1.0, 1.0])}
    for w, mean, std in ((2.0, 1.290, 0.863), (3.0, 1.440, 0.803), (8.0, 1.770, 0.699)):
        x = ideal_field(Target({"main": w, "uncond": 1 - w}), fields).sample(100_000, generator=seeded(7))[:, 0]
        assert float(x.mean()) == pytest.approx(mean, abs=0.012)
        assert float(x.std()) == pytest.approx(std, abs=0.01)


def test_weighted_samples_agree_with_the_lattice(fractal_tilt):
    """The two share neither a lattice nor a proposal."""
    fields = {"main": FRACTAL.field("A"), "uncond": FRACTAL.field(None)}
    weighted = weighted_samples(TILT, fields, 40_000, seeded(8))
    drawn = fractal_tilt.sample(30_000, generator=seeded(9))
    for f in (lambda x: x[:, 0], lambda x: x[:, 1], lambda x: x.square().sum(1), lambda x: (x[:, 0] > 0.3).double()):
        mean = weighted.log_weights.exp() @ f(weighted.x)
        error = math.sqrt(float(f(drawn).var()) * (1 / len(drawn) + 1 / weighted.effective))
        assert float((f(drawn).mean() - mean).abs()) < 4 * error
    assert 8_000 < weighted.effective < 40_000


def test_the_effective_sample_size():
    """Equal weights are worth all; N(0, a) weighted to N(0, a/k) what the ratio of the moments says."""
    assert weighted_samples(Target({"main": 1.0}), FIELDS, 1000, seeded(0)).effective == pytest.approx(1000)
    k, n = 1.5, 200_000  # (E_p w)^2 / E_p w^2 for w = p^(k-1), in two dimensions
    expected = (2 * k - 1) / k**2
    found = weighted_samples(Target({"main": k}), {"main": gaussian(0.3)}, n, seeded(0)).effective / n
    assert found == pytest.approx(expected, rel=0.02)


def test_samples_in_many_dimensions_are_weighted_ones():
    data = tg.load_dataset("simplex16")
    fields = {"main": data.field("v1"), "uncond": data.field(None)}
    x, worth = samples_of(Target({"main": 2.0, "uncond": -1.0}), fields, 4000, seeded(0))
    assert x.shape == (4000, 16)
    assert worth == 4000  # the classes hardly overlap: nothing to weigh
    x, worth = samples_of(Target({"main": 2.0}), fields, 4000, seeded(0))
    assert worth == 4000
    assert float((x - data.field("v1").means[0]).var()) == pytest.approx(0.05**2 / 2, rel=0.02)


# What has no target


@pytest.mark.parametrize(
    ("field", "said"),
    [(NoisierField(gaussian(1.0), 0.2), "'uncond' is of type NoisierField"), (None, "'uncond' is missing")],
)
def test_fields_that_no_diffusion_leads_to_are_refused_by_name(field, said):
    fields = {"main": gaussian(1.0), "uncond": field}
    with pytest.raises(InputError, match=f"the field {said}, expected an exact one"):
        ideal_field(Target({"main": 2.0, "uncond": -1.0}), fields)
    assert ideal_field(Target({"main": 1.0, "uncond": 0.0}), fields) is fields["main"]


def test_targets_that_no_lattice_holds_are_refused():
    with pytest.raises(InputError, match="positive power"):
        grid(Target({"main": -1.0}, Reward.near(torch.zeros(2, dtype=W), scale=0.1)), {"main": mixture(0)})
    needles = line([-50.0, 50.0], [1e-8, 1e-8])
    with pytest.raises(InputError, match=r"too (wide|thin)"):
        grid(Target({"main": 1.5}), {"main": needles})


def test_equal_targets_are_made_once():
    def target():
        return Target({"main": 2.0}, Reward.linear(torch.tensor([0.5, 0.0], dtype=W)))

    assert target() == target() != Target({"main": 2.0})
    assert ideal_field(target(), FIELDS) is ideal_field(target(), FIELDS)


def test_rules_say_what_they_sample():
    powers = {
        "none": {"main": 1.0},
        "cfg": {"main": 3.0, "uncond": -2.0},
        "autoguidance": {"main": 3.0, "weak": -2.0},
        "cfg+autoguidance": {"main": 3.0, "uncond": -1.0, "weak": -1.0},
    }
    for key, expected in powers.items():
        params = {} if key == "none" else {"w": 3.0}
        assert tg.rule(key, **params).target() == Target(expected)
    assert tg.rule("score-scaling", k=1.5).target() == Target({"main": 1.5})
    assert tg.rule("sfg").target() is None
    assert tg.Experiment(label="A", rule="cfg", interval=(0.1, 1.0)).build_rule().target() is None
