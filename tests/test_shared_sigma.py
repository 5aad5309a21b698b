"""The one-sigma fast path of mixtures against the float64 path, which never uses it."""

import pytest
import torch

from toyguide._speed import compiled
from toyguide._speed.shared_sigma import Quadratics, _along_a_curve
from toyguide.datasets import load_dataset
from toyguide.fields.mixtures import GaussianMixture


@pytest.fixture(autouse=True)
def without_compiled_loops():
    """Which would answer first."""
    with compiled.without():
        yield


CASES = [("fractal", None), ("fractal", "A"), ("two-gaussians", None), ("simplex16", None)]


def quadratics(field, sigma):
    log_weights, means, axes, variances = field._parts
    return Quadratics(log_weights, means, axes, variances + sigma**2)


@pytest.mark.parametrize(("name", "label"), CASES)
@pytest.mark.parametrize("sigma", [0.0, 0.002, 0.05, 0.7, 5.0, 80.0])
def test_agrees_with_float64_to_a_few_roundings(name, label, sigma):
    field = load_dataset(name).field(label)
    x = field.sample(500, sigma, torch.Generator().manual_seed(0)).float()
    q = quadratics(field, sigma)
    assert q.fits(x)

    log_density, responsibilities, score = q.log_density(x), q.explain(x)[:, 1:], q.score(x)

    exact = field.score(x.double(), sigma)
    # Responsibilities are rounded to float32 (6e-8); their errors reach the score through gradients that may be some
    # dozen times longer than their mean.
    error = (score - exact).norm(dim=1) / exact.norm(dim=1).clamp(min=1e-3 * exact.norm(dim=1).max())
    assert error.max() < 2e-5
    assert (log_density - field.log_density(x.double(), sigma)).abs().max() < 1e-6
    assert (responsibilities - field.responsibilities(x.double(), sigma)).abs().max() < 1e-6


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
    assert not q.fits(torch.zeros(1, 2, dtype=torch.float64))

    mixed = torch.tensor([[0.3, 0.3], [1e20, -1e20], [torch.nan, 0.0]])
    score = field.score(mixed, 0.002)
    alone = field.score(mixed[:1].double(), 0.002)
    torch.testing.assert_close(score[:1].double(), alone, rtol=1e-3, atol=1e-3)
    assert score[1].isfinite().all()
    assert score[2].isnan().all()


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("sigma", [0.0, 0.03, 0.3])
def test_what_is_left_out_of_a_box_weighs_nothing_in_it(dim, sigma):
    g = torch.Generator().manual_seed(dim)
    root = torch.randn(150, dim, dim, generator=g, dtype=torch.float64) * torch.logspace(-3, 0, 150)[:, None, None]
    field = GaussianMixture(
        torch.logspace(-6, 0, 150)[torch.randperm(150, generator=g)],
        3 * torch.randn(150, dim, generator=g),
        root @ root.mT + 1e-6 * torch.eye(dim),
    )
    x = torch.cat([field.sample(600, sigma, g), 6 * torch.randn(680, dim, generator=g)])
    x = x[_along_a_curve(x)]
    mask = quadratics(field, sigma)._kept(x, 64)

    outside = field.responsibilities(x, sigma).view(20, 64, 150) * ~mask[:, None]
    assert outside.sum(-1).max() < 2**-53
    if sigma < 0.1:
        assert mask.float().mean() < 0.9  # some are left out


@pytest.mark.parametrize("sigma", [0.0, 0.02, 0.1])
def test_leaving_components_out_changes_roundings_only(sigma, monkeypatch):
    field = load_dataset("fractal").field("A")
    across = torch.linspace(-1, 1, 70)
    grid = torch.stack(torch.meshgrid(across, across, indexing="ij"), -1)
    assert quadratics(field, sigma)._selective
    some = field.log_density(grid, sigma), field.score(grid, sigma)
    monkeypatch.setattr("toyguide._speed.shared_sigma._FEWEST", 10**9)
    every = field.log_density(grid, sigma), field.score(grid, sigma)
    torch.testing.assert_close(some[0], every[0], rtol=2e-7, atol=1e-6)
    torch.testing.assert_close(some[1], every[1], rtol=1e-5, atol=1e-5 * float(every[1].abs().max()))
    exact = field.score(grid[::9, ::9].double(), sigma)
    torch.testing.assert_close(some[1][::9, ::9].double(), exact, rtol=1e-5, atol=1e-5 * float(exact.abs().max()))


def test_nearly_every_component_is_left_out_where_the_noise_is_low():
    q = quadratics(load_dataset("fractal").field("A"), 0.0)
    x = load_dataset("fractal").field("A").sample(65536, 0.0, torch.Generator().manual_seed(0))
    assert q._kept(x[_along_a_curve(x)], 256).float().mean() < 0.1


def test_points_along_the_curve_are_a_permutation_of_small_boxes():
    x = torch.rand(4096, 2, generator=torch.Generator().manual_seed(0))
    order = _along_a_curve(x)
    assert torch.equal(order.sort().values, torch.arange(4096))
    boxes = x[order].view(64, 64, 2)
    # 64 points of an even spread fill a square of side 1/8; the curve's jumps make some boxes twice as long.
    assert (boxes.amax(1) - boxes.amin(1)).mean() < 2 / 8
