"""Critical points: closed forms, the Euler characteristic of the plane, and a network beside the exact field."""

import math

import pytest
import torch

from toyguide import load_dataset, load_model
from toyguide.errors import InputError
from toyguide.fields.mixtures import GaussianMixture
from toyguide.geometry.critical import critical_points, follow, merging_sigma, starting_points

F64 = torch.float64

# At an accepted point |sigma s| < 1e-8, so it is off by less than 1e-8 over the least |eigenvalue| of sigma^2 H, which
# is above 1e-2 in the cases below that compare positions.
EXACT = 1e-6


def pair():
    return load_dataset("two-gaussians")


def starts_for(data, label, sigma, n=20):
    return starting_points(data, label, sigma, n)


def euler(points):
    return sum((-1) ** int(i) for i in points.index)


# ---- two Gaussians, in closed form


def mode_of_pair(sigma):
    """On the axis the score is (tanh(x / V) - x) / V: the right mode is at the largest root of x = tanh(x / V)."""
    v = sigma**2 + 0.05
    if v >= 1:
        return 0.0
    root = 1.0
    for _ in range(10_000):  # a contraction
        root = math.tanh(root / v)
    return root


def test_below_the_merging_level_there_are_two_modes_and_a_saddle_in_the_middle():
    data = pair()
    for sigma in (0.3, 0.9, 0.97):
        v = sigma**2 + 0.05
        points = critical_points(data.field(), sigma, starts_for(data, None, sigma, 10))
        assert points.index.tolist() == [0, 0, 1]
        root = mode_of_pair(sigma)
        assert sorted(points.x[:2, 0].tolist()) == pytest.approx([-root, root], abs=EXACT)
        assert points.x[:2, 1].abs().max() < EXACT
        assert points.x[2].abs().max() < EXACT
        # In the middle p = 1/2 and |dmu|^2 = 4: lambda = -1/V + 1/V^2 along the axis, -1/V across it.
        torch.testing.assert_close(points.eigenvalues[2], torch.tensor([1 / v**2 - 1 / v, -1 / v], dtype=F64))
        assert points.eigenvectors[2, 0].abs().tolist() == pytest.approx([1, 0], abs=EXACT)


def test_two_gaussians_merge_where_the_variance_is_a_quarter_of_the_squared_distance():
    """sigma*^2 + 0.05 = 1. At a relative distance e below, the modes are 2 sqrt(6 e) sigma apart: told apart down to a
    thousandth of sigma from e = 4e-8 on, which is below the bisection's 1e-6."""
    starts = torch.tensor([[-0.5, 0.1], [0.5, 0.0]], dtype=F64)
    found = merging_sigma(pair().field(), 0.9, 1.1, starts)
    assert found == pytest.approx(math.sqrt(0.95), abs=5e-6)


def test_no_change_is_refused():
    with pytest.raises(InputError, match=r"as many modes at both ends \(2\), expected a change"):
        merging_sigma(pair().field(), 0.2, 0.4, starts_for(pair(), None, 0.3, 4))


def test_one_start_beside_a_mode_finds_the_saddle_and_the_mode_behind_it():
    start = torch.tensor([[0.9, 0.1]], dtype=F64)
    assert critical_points(pair().field(), 0.7, start).index.tolist() == [0, 0, 1]


def test_a_mode_is_followed_from_level_to_level_until_it_merges():
    """From a single start, far from where the mode is at the later levels."""
    field, start = pair().field(), torch.tensor([[0.99, 0.01]], dtype=F64)
    sigmas = [0.5, 0.7, 0.9, 0.96, 1.0, 2.0]
    for sigma, points in zip(sigmas, follow(field, sigmas, start), strict=True):
        expected = mode_of_pair(sigma)
        assert (points.x[points.index == 0] - torch.tensor([expected, 0.0])).norm(dim=-1).min() < EXACT
        if expected == 0:
            assert points.index.tolist() == [0]


# ---- other shapes


def triangle(sigma):
    angle = torch.tensor([90.0, 210.0, 330.0], dtype=F64).deg2rad()
    means = torch.stack([angle.cos(), angle.sin()], -1)
    field = GaussianMixture(torch.ones(3), means, 0.01 * torch.eye(2, dtype=F64).expand(3, 2, 2))
    middles = (means + means.roll(1, 0)) / 2
    return critical_points(field, sigma, torch.cat([means, middles, torch.zeros(1, 2)]) + 0.02), means, middles


def test_three_gaussians_have_three_saddles_and_a_minimum_between_them():
    points, means, middles = triangle(0.3)
    assert points.index.tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert euler(points) == 1
    assert torch.cdist(points.x[:3], means).amin(0).max() < 0.01
    # Between two, the third is 1.5 away: its share there is exp(-(2.25 - 0.75) / (2 * 0.1)) = 5e-4, times 1.5.
    assert torch.cdist(points.x[3:6], middles).amin(0).max() < 0.01
    assert points.x[6].abs().max() < EXACT  # by symmetry


def test_turning_and_scaling_turns_and_scales_the_points():
    """Everything is in units of sigma: the same picture, eight orders of magnitude smaller."""
    scale, angle = 1e-8, 0.7
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=F64)
    data = pair()
    field, starts = data.field(), starts_for(data, None, 0.6, 8)
    small = GaussianMixture(field.weights, scale * field.means @ turn.T, scale**2 * turn @ field.covariances @ turn.T)
    plain = critical_points(field, 0.6, starts)
    turned = critical_points(small, 0.6 * scale, scale * starts @ turn.T)
    assert turned.index.tolist() == plain.index.tolist()
    distance = torch.cdist(turned.x / scale, plain.x @ turn.T).amin(0)
    assert distance.max() < EXACT
    torch.testing.assert_close(turned.eigenvalues * scale**2, plain.eigenvalues, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("label", "sigma"), [("A", 0.1), ("A", 0.3), (None, 0.1)])
def test_no_point_of_the_fractal_is_missed_at_large_sigma(label, sigma):
    """modes - saddles + minima = 1; and each is one by an independent look: finite differences of the log-density."""
    data = load_dataset("fractal")
    field = data.field(label)
    points = critical_points(field, sigma, starting_points(data, label, sigma, 80))
    assert euler(points) == 1
    e = 1e-3 * sigma
    for i in range(2):
        step = e * torch.eye(2, dtype=F64)[i]
        slope = (field.log_density(points.x + step, sigma) - field.log_density(points.x - step, sigma)) / (2 * e)
        # The error of central differences: a sixth of e^2 times the third derivative, of order 1 / sigma^3.
        assert (slope * sigma).abs().max() < 1e-5
    assert (points.index[:-1] <= points.index[1:]).all()
    modes = points.log_density[points.index == 0]
    assert (modes[:-1] >= modes[1:]).all()


def test_the_simplex_has_a_mode_near_each_vertex_and_a_saddle_on_each_edge():
    """At an edge's middle the top eigenvalue -1/V + |dmu|^2 / 4V^2 is positive up to sigma 0.73; the other 15 vertices
    pull it inwards, all alike."""
    data, sigma = load_dataset("simplex16"), 0.2
    points = critical_points(data.field(), sigma, starts_for(data, None, sigma, 0))
    means = torch.stack([data.field(name).mean for name in data.labels])
    assert points.count(0) == 17
    assert torch.cdist(means, points.x[points.index == 0]).amin(-1).max() < 0.01
    saddles = points.x[points.index == 1]
    assert points.count(1) == 136
    normal = saddles / saddles.norm(dim=-1, keepdim=True)
    two = (normal @ means.T).topk(2, -1)
    edges = {tuple(sorted(pair)) for pair in two.indices.tolist()}
    assert len(edges) == 136
    middle = (means[two.indices[:, 0]] + means[two.indices[:, 1]]) / 2
    along = torch.nn.functional.cosine_similarity(saddles, middle)
    assert along.min() > 1 - 1e-9  # by symmetry, on the line from the centre through the middle of the edge
    up = points.eigenvectors[points.index == 1][:, 0]
    edge = means[two.indices[:, 0]] - means[two.indices[:, 1]]
    assert torch.nn.functional.cosine_similarity(up, edge).abs().min() > 1 - 1e-9


def test_before_the_simplex_merges_a_mode_in_its_centre_is_fenced_off_by_a_saddle_towards_each_vertex():
    """At sigma 0.35 nothing else is left, which the Euler characteristic of the space confirms: 18 - 17 = 1. By
    symmetry each saddle lies between the centre and its vertex."""
    data, sigma = load_dataset("simplex16"), 0.35
    points = critical_points(data.field(), sigma, starts_for(data, None, sigma, 0))
    assert [points.count(0), points.count(1), len(points)] == [18, 17, 35]
    means = torch.stack([data.field(name).mean for name in data.labels])
    saddles = points.x[points.index == 1]
    along = saddles @ means.T
    assert along.argmax(-1).unique().numel() == 17
    assert (along.amax(-1) / saddles.norm(dim=-1)).min() > 1 - 1e-9
    assert points.x[points.index == 0].norm(dim=-1).min() < EXACT


# ---- learned fields


def test_a_network_has_the_saddle_where_the_exact_field_has_it():
    """To first order the saddle moves by H^-1 times the network's error of the score there; twice that, and a
    hundredth of sigma for the second order, bound it."""
    data, net, sigma = pair(), load_model("two-gaussians/main@union"), 0.3
    starts = starts_for(data, None, sigma)
    exact, learned = (critical_points(f, sigma, starts) for f in (data.field(), net))
    assert learned.index.tolist()[:2] == [0, 0]
    assert learned.count(1) == 1
    saddle, found = exact.x[exact.index == 1], learned.x[learned.index == 1]
    error = net.score(saddle, sigma) - data.field().score(saddle, sigma)
    shift = torch.linalg.solve(data.field().hessian(saddle, sigma), -error)
    assert (found - saddle).norm() < 2 * shift.norm() + 0.01 * sigma
    assert (net.score(learned.x, sigma) * sigma).norm(dim=-1).max() < 1e-8


# ---- starts and bad input


def test_starting_points_are_the_same_each_time_and_hold_what_they_say():
    data = load_dataset("fractal")
    x = starting_points(data, None, 0.1, 60)
    assert torch.equal(x, starting_points(data, None, 0.1, 60))
    a, b = (data.field(name).mean for name in data.labels)
    assert torch.cdist(torch.stack([a, b, (a + b) / 2]), x).amin(-1).max() == 0
    branch = data.components.component_branch
    weights, means = data.field().weights, data.field().means
    for name in branch.unique():  # the heaviest branches' centres: those of the trunks among them
        inside = branch == name
        if weights[inside].sum() > 0.05:
            centre = (weights[inside, None] * means[inside]).sum(0) / weights[inside].sum()
            assert (x - centre).norm(dim=-1).min() < 1e-12
    assert not torch.equal(x[-1], starting_points(data, None, 0.1, 60, seed=1)[-1])


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf])
def test_a_level_without_noise_is_refused(sigma):
    with pytest.raises(InputError, match="expected a positive number"):
        critical_points(pair().field(), sigma, torch.zeros(1, 2))


def test_starts_of_another_dimension_are_refused():
    with pytest.raises(InputError, match=r"starts of shape \(1, 3\): expected \(n, 2\)"):
        critical_points(pair().field(), 0.3, torch.zeros(1, 3))


def test_no_starts_find_nothing_and_points_that_are_not_finite_do_not_spoil_the_others():
    field = pair().field()
    assert len(critical_points(field, 0.3, torch.zeros(0, 2))) == 0
    starts = torch.tensor([[math.nan, 0.0], [1.0, 0.1], [1e30, 0.0], [math.inf, 1.0]])
    assert 0 in critical_points(field, 0.3, starts).index
