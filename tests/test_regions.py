"""Regions against the closed form of two Gaussians, and against each of their two conditions by itself."""

import math

import torch

from toyguide import load_dataset, load_model
from toyguide.geometry.curvature import top_eigenpair
from toyguide.geometry.regions import Region, regions
from toyguide.metrics import hdr_threshold

F64 = torch.float64


def test_the_saddle_region_of_two_gaussians_ends_where_the_posterior_says():
    """lambda = -1/V + p (1 - p) |dmu|^2 / V^2 > 0, with p(1 - p) = 1 / (4 cosh^2(x / V)) for means at ±1: the region is
    the strip |x_1| < V arcosh(1 / sqrt V)."""
    field, sigma = load_dataset("two-gaussians").field(), 0.6
    v = sigma**2 + 0.05
    border = v * math.acosh(1 / math.sqrt(v))
    x = torch.stack([torch.tensor([0.0, border - 1e-6, border + 1e-6, -border + 1e-6, -border - 1e-6], dtype=F64)] * 3)
    points = torch.stack([x, torch.tensor([-1.0, 0.0, 2.0], dtype=F64)[:, None].expand(x.shape)], -1)
    found = regions(field, points, sigma, -math.inf)
    inside = [Region.SADDLE, Region.SADDLE, Region.MODE, Region.SADDLE, Region.MODE]
    assert found.tolist() == [inside] * 3


def test_above_the_merging_level_there_is_no_saddle():
    field = load_dataset("two-gaussians").field()
    x = 2 * torch.randn(500, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    assert (regions(field, x, 0.99, -3.0) != Region.SADDLE).all()
    assert (regions(field, x, 0.9, -3.0) == Region.SADDLE).any()


def test_one_percent_of_the_exact_samples_of_one_gaussian_are_tail():
    """Within four standard errors of the count, and four of the threshold's own."""
    data, n = load_dataset("two-gaussians"), 20_000
    x = data.field("left").sample(n, 0.3, torch.Generator().manual_seed(1))
    found = regions(data.field("left"), x, 0.3, hdr_threshold(data, "left", 0.3))
    share = (found == Region.TAIL).double().mean()
    assert abs(share - 0.01) < 4 * math.sqrt(0.01 * 0.99 / n) + 4 * math.sqrt(0.01 * 0.99 / 2**16)
    assert (found != Region.SADDLE).all()


def test_a_level_and_a_threshold_for_each_point_are_those_of_each_point_alone():
    field = load_dataset("fractal").field("A")
    g = torch.Generator().manual_seed(2)
    x = torch.cat([field.sample(15, 0.05, g), torch.randn(15, 2, dtype=F64, generator=g) * 0.5])
    sigma, threshold = torch.rand(30, dtype=F64, generator=g) + 0.02, torch.randn(30, dtype=F64, generator=g)
    found = regions(field, x, sigma, threshold)
    assert set(found.tolist()) == {0, 1, 2}
    alone = [int(regions(field, x[i], float(sigma[i]), float(threshold[i]))) for i in range(30)]
    assert found.tolist() == alone


def test_a_learned_field_is_cut_where_its_own_hessian_changes_sign():
    net = load_model("fractal/main")
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(3)) * 0.5
    threshold = float(net.log_density(x, 0.1).median())
    found = regions(net, x, 0.1, threshold)
    curved = top_eigenpair(net.hessian(x, 0.1))[0] > 0
    assert torch.equal(found == Region.SADDLE, curved)
    assert torch.equal(found == Region.MODE, ~curved & (net.log_density(x, 0.1) >= threshold))
    assert len(found.unique()) == 3


def test_what_is_not_finite_is_tail():
    field = load_dataset("two-gaussians").field()
    x = torch.tensor([[math.nan, 0.0], [math.inf, 0.0], [1.0, 0.0]])
    assert regions(field, x, 0.3, -5.0).tolist() == [Region.TAIL, Region.TAIL, Region.MODE]
