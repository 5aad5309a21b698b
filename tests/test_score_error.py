"""The score-matching error by region, against a field whose error is known in closed form."""

import math
from itertools import combinations

import pytest
import torch

from toyguide import load_dataset, load_model
from toyguide.errors import InputError
from toyguide.fields import NoisierField
from toyguide.geometry.regions import Region, regions
from toyguide.metrics import hdr_threshold
from toyguide.metrics.score_error import edge_points, error_at, score_error

F64 = torch.float64


def test_the_error_of_a_noisier_gaussian_is_known_in_closed_form():
    """One round Gaussian: s = -(x - m)/V, seen at V' it is smaller by V/V' everywhere, so the relative error is
    1 - V/V' in every region, to rounding. The mean of sigma^2 |ds|^2 over n points is sigma^2 d V (1/V - 1/V')^2, with
    a relative standard error of sqrt(2 / (n d))."""
    data, n, sigmas = load_dataset("two-gaussians"), 20_000, [0.05, 0.3, 1.0]
    rows = score_error(NoisierField(data.field("left"), 0.2), data, "left", sigmas, n)
    assert [(r.sigma, r.region) for r in rows] == [(s, region) for s in sigmas for region in Region]
    for sigma in sigmas:
        v, raised = sigma**2 + 0.05, 1.44 * sigma**2 + 0.05
        mode, saddle, tail = (r for r in rows if r.sigma == sigma)
        for row in (mode, tail):
            assert row.relative == pytest.approx(1 - v / raised, rel=1e-9)
        assert (saddle.points, saddle.share) == (0, 0)
        assert math.isnan(saddle.loss)
        assert math.isnan(saddle.relative)
        loss = sum(r.loss * r.share for r in (mode, tail))
        expected = sigma**2 * 2 * v * (1 / v - 1 / raised) ** 2
        assert loss == pytest.approx(expected, rel=4 * math.sqrt(2 / (2 * n)))
        assert mode.points + tail.points == n
        # 1 % of the mass is tail, give or take the count's and the threshold's standard errors; there chi^2_2 > 9.21,
        # whose mean beyond is 9.21 + 2 against 2 overall.
        assert tail.share == pytest.approx(0.01, abs=4 * math.sqrt(0.01 / n) + 4 * math.sqrt(0.01 / 2**16))
        assert tail.loss == pytest.approx(expected * (2 * math.log(100) + 2) / 2, rel=0.15)


def test_the_whole_is_the_mean_over_all_points_whatever_the_regions():
    """Against the plain mean, with points of each region; an exact field has no error."""
    data, net, sigma = load_dataset("two-gaussians"), load_model("two-gaussians/main@union"), 0.6
    x = data.field().sample(4000, sigma, torch.Generator().manual_seed(0))
    rows = error_at(net, data, None, x, sigma)
    assert all(r.points > 10 for r in rows)
    squared = (net.score(x, sigma) - data.field().score(x, sigma)).square().sum(-1)
    assert sum(r.loss * r.share for r in rows) == pytest.approx(float(sigma**2 * squared.mean()), rel=1e-12)
    where = regions(data.field(), x, sigma, hdr_threshold(data, None, sigma))
    for r in rows:
        here = where == r.region
        assert r.points == int(here.sum())
        assert r.loss == pytest.approx(float(sigma**2 * squared[here].mean()), rel=1e-12)
    assert all(r.loss == 0 and r.relative == 0 for r in error_at(data.field(), data, None, x, sigma))


def test_the_same_seed_gives_the_same_rows_and_levels_have_points_of_their_own():
    data, net = load_dataset("fractal"), load_model("fractal/weak")
    rows = score_error(net, data, "A", [0.1, 0.1], 200, seed=5)
    assert rows == score_error(net, data, "A", [0.1, 0.1], 200, seed=5)
    assert rows[0].loss != rows[3].loss
    assert rows != score_error(net, data, "A", [0.1, 0.1], 200, seed=6)


@pytest.mark.parametrize("corners", [2, 3])
def test_edge_points_lie_around_the_middles_of_edges_and_triangles(corners):
    """What is left after taking the nearest middle away is noise of sigma in each of 16 dimensions."""
    data, sigma, n = load_dataset("simplex16"), 0.02, 2000
    x = edge_points(data, sigma, n, corners=corners)
    means = torch.stack([data.field(label).mean for label in data.labels])
    middles = torch.stack([means[list(c)].mean(0) for c in combinations(range(17), corners)])
    near = torch.cdist(x, middles).argmin(-1)
    noise = (x - middles[near]) / sigma
    assert noise.square().mean() == pytest.approx(1, abs=4 * math.sqrt(2 / (16 * n)))
    # Each middle is as likely: chi^2 over the counts, within five standard deviations.
    counts = torch.bincount(near, minlength=len(middles)).double()
    chi2 = ((counts - n / len(middles)) ** 2 / (n / len(middles))).sum()
    assert abs(chi2 - (len(middles) - 1)) < 5 * math.sqrt(2 * len(middles))
    assert torch.equal(x, edge_points(data, sigma, n, corners=corners))


def test_edge_points_fall_into_the_saddle_region_where_samples_do_not():
    """At low sigma: 2 V arcosh(1/sqrt V) wide against noise of sigma; at sigma 0.1 that is 0.127 to each side."""
    data, sigma = load_dataset("two-gaussians"), 0.1
    sampled, placed = (
        error_at(data.field(), data, None, x, sigma)[Region.SADDLE].share
        for x in (data.field().sample(4000, sigma, torch.Generator().manual_seed(0)), edge_points(data, sigma, 4000))
    )
    v = sigma**2 + 0.05
    border = v * math.acosh(1 / math.sqrt(v))
    expected = math.erf(border / sigma / math.sqrt(2))
    assert placed == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 4000))
    assert sampled < 0.001


def test_more_corners_than_classes_are_refused():
    data = load_dataset("two-gaussians")
    for corners in (1, 3):
        with pytest.raises(InputError, match="expected from 2 to the 2 classes of two-gaussians"):
            edge_points(data, 0.1, 10, corners=corners)
