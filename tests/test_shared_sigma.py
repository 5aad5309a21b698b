"""The one-sigma fast path of mixtures against the float64 path, which never uses it."""

import pytest
import torch

from toyguide._speed import compiled
from toyguide._speed.shared_sigma import Quadratics
from toyguide.datasets import load_dataset


@pytest.fixture(autouse=True)
def without_compiled_loops():
    """Which would answer first."""
    with compiled.without():
        yield


CASES = [("fractal", None), ("fractal", "A"), ("two-gaussians", None), ("simplex16", None)]


def quadratics(field, sigma):
    log_weights, means, axes, variances = field._parts
    return Quadratics(log_weights, means, axes, variances + sigma**2, torch.device("cpu"))


@pytest.mark.parametrize(("name", "label"), CASES)
@pytest.mark.parametrize("sigma", [0.0, 0.002, 0.05, 0.7, 5.0, 80.0])
def test_agrees_with_float64_to_a_few_roundings(name, label, sigma):
    field = load_dataset(name).field(label)
    x = field.sample(500, sigma, torch.Generator().manual_seed(0)).float()
    q = quadratics(field, sigma)
    assert q.fits(x)

    log_density, responsibilities, score = q.log_density(x), q.explain(x)[:, 1:], q.score(x)
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    hessian, product = q.hessian(x), q.product(x, v)

    exact = field.score(x.double(), sigma)
    # Responsibilities are rounded to float32 (6e-8); their errors reach the score through gradients that may be some
    # dozen times longer than their mean.
    error = (score - exact).norm(dim=1) / exact.norm(dim=1).clamp(min=1e-3 * exact.norm(dim=1).max())
    assert error.max() < 2e-5
    assert (log_density - field.log_density(x.double(), sigma)).abs().max() < 1e-6
    assert (responsibilities - field.responsibilities(x.double(), sigma)).abs().max() < 1e-6

    # As above, but in units of the thinnest component's curvature: two gradients are multiplied.
    curvature = 1 / float(torch.linalg.eigvalsh(field.covariances).min() + sigma**2)
    exact = field.hessian(x.double(), sigma)
    assert (hessian - exact).abs().max() < 1e-5 * curvature
    assert (product - (exact @ v.double()[..., None])[..., 0]).abs().max() < 2e-5 * curvature


def test_mixtures_use_it_and_gain_accuracy():
    field = load_dataset("fractal").field("A")
    x = field.sample(500, 0.002, torch.Generator().manual_seed(0)).float()
    exact = field.score(x.double(), 0.002)
    shared = field.score(x, 0.002).double() - exact
    each = field.score(x, torch.full((500,), 0.002)).double() - exact  # a level per point: the other path
    assert shared.norm() < 0.1 * each.norm()
    assert torch.equal(field.denoise(x, 0.0), x)


def test_points_beyond_its_reach_are_left_to_the_other_path():
    field = load_dataset("fractal").field("A")
    q = quadratics(field, 0.002)
    assert not q.fits(torch.tensor([[1e4, 0.0]]))
    assert not q.fits(torch.tensor([[torch.nan, 0.0]]))

    mixed = torch.tensor([[0.3, 0.3], [1e20, -1e20], [torch.nan, 0.0]])
    score = field.score(mixed, 0.002)
    alone = field.score(mixed[:1].double(), 0.002)
    torch.testing.assert_close(score[:1].double(), alone, rtol=1e-3, atol=1e-3)
    assert score[1].isfinite().all()
    assert score[2].isnan().all()
