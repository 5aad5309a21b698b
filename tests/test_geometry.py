"""Planes, windows, curvature and highest-density levels, against constructions and closed forms in float64."""

import math

import pytest
import torch

from toyguide import load_dataset, load_model
from toyguide.errors import InputError
from toyguide.fields.mixtures import GaussianMixture
from toyguide.geometry.contours import in_chunks, log_density_levels, region_levels
from toyguide.geometry.curvature import (
    align,
    align_grid,
    align_path,
    curl,
    divergence,
    eigenpairs,
    top_eigenpair,
)
from toyguide.geometry.planes import Plane, Window, plane_of, window_of
from toyguide.geometry.profiles import edge_profile
from toyguide.metrics import hdr_threshold

F64 = torch.float64


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=F64, generator=generator(seed))


def flat():
    return Plane(torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64))


def isotropic(means, variance, weights=None):
    means = torch.as_tensor(means, dtype=F64)
    count, dim = means.shape
    covariances = (variance * torch.eye(dim, dtype=F64)).expand(count, dim, dim)
    return GaussianMixture(torch.ones(count) if weights is None else weights, means, covariances)


# ---- planes


@pytest.mark.parametrize("dim", [2, 3, 16])
def test_a_plane_keeps_distances_and_inverts_its_projection(dim):
    plane = Plane.through(*randn(3, dim))
    torch.testing.assert_close(plane.axes @ plane.axes.T, torch.eye(2, dtype=F64), rtol=0, atol=1e-12)

    uv = randn(5, 7, 2, seed=1)
    x = plane.embed(uv)
    torch.testing.assert_close(plane.project(x), uv, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.cdist(x[0], x[1]), torch.cdist(uv[0], uv[1]), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(plane.project_vectors(x[0] - x[1]), uv[0] - uv[1], rtol=0, atol=1e-12)


def test_a_projection_is_the_nearest_point_of_the_plane():
    plane, x = Plane.through(*randn(3, 5)), randn(5, seed=2)
    uv = plane.project(x)
    apart = x - plane.embed(uv)
    torch.testing.assert_close(plane.axes @ apart, torch.zeros(2, dtype=F64), rtol=0, atol=1e-12)


def test_a_plane_goes_through_its_points_the_first_two_level_and_the_third_above():
    a, b, c = randn(3, 6, seed=3)
    plane = Plane.through(a, b, c)
    points = torch.stack([a, b, c])
    uv = plane.project(points)
    torch.testing.assert_close(plane.embed(uv), points, rtol=0, atol=1e-12)
    torch.testing.assert_close(uv.mean(0), torch.zeros(2, dtype=F64), rtol=0, atol=1e-12)
    assert uv[0, 1] == pytest.approx(float(uv[1, 1]), abs=1e-12)
    assert uv[0, 0] < uv[1, 0]
    assert uv[2, 1] > uv[0, 1]


def test_three_vertices_of_the_simplex_are_an_upright_regular_triangle():
    data = load_dataset("simplex16")
    plane = plane_of(data)
    uv = torch.stack([plane.project(data.field(label).mean) for label in ("v1", "v2", "v3")])
    side = math.sqrt(2 * 17 / 16)  # |m_i - m_j|^2 = 2 - 2 (-1/16) for unit vertices
    r = side / math.sqrt(3)
    expected = torch.tensor([[-side / 2, -r / 2], [side / 2, -r / 2], [0, r]], dtype=F64)
    torch.testing.assert_close(uv, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "points", [[[0.0, 0, 0], [1, 1, 1], [3, 3, 3]], [[1.0, 2, 3], [1, 2, 3], [0, 0, 1]], [[1.0, 2, 3]] * 3]
)
def test_a_plane_through_points_on_a_line_is_refused(points):
    with pytest.raises(InputError, match="on one line"):
        Plane.through(*torch.tensor(points))


def test_two_dimensional_data_is_its_own_plane_to_the_bit():
    plane = plane_of(load_dataset("fractal"))
    x = torch.randn(100, 2, generator=generator())
    assert torch.equal(plane.project(x), x)
    assert torch.equal(plane.embed(x), x)
    assert plane.embed(x).dtype == torch.float32


def written_dataset(folder, means, covariance, labels):
    count = len(means)
    (folder / "dataset.toml").write_text(
        'family = "mixture"\n[mixture]\n'
        f"weights = {[1.0] * count}\nmeans = {means}\ncovariances = {[covariance] * count}\nlabels = {labels}\n"
    )
    return load_dataset(folder)


def test_without_three_classes_the_plane_is_that_of_the_widest_axes(tmp_path):
    widths = torch.tensor([0.01, 4.0, 0.02, 1.0], dtype=F64)
    data = written_dataset(tmp_path, [[1.0, 2.0, 3.0, 4.0]], torch.diag(widths).tolist(), ["a"])
    plane = plane_of(data)
    torch.testing.assert_close(plane.axes, torch.eye(4, dtype=F64)[[1, 3]], rtol=0, atol=1e-9)
    torch.testing.assert_close(plane.origin, torch.tensor([1.0, 2, 3, 4], dtype=F64))


def test_classes_in_a_row_are_shown_along_that_row(tmp_path):
    means = [[0.0, 0.0, 0.0], [1.0, 1.0, 0.0], [5.0, 5.0, 0.0]]
    data = written_dataset(tmp_path, means, torch.diag(torch.tensor([0.01, 0.01, 0.001])).tolist(), ["a", "b", "c"])
    plane = plane_of(data)
    torch.testing.assert_close(
        plane.axes[0].abs(), torch.tensor([1, 1, 0], dtype=F64) / math.sqrt(2), rtol=0, atol=1e-6
    )


def test_data_on_a_line_has_no_plane(tmp_path):
    data = written_dataset(tmp_path, [[0.0], [1.0]], [[0.1]], ["a", "b"])
    with pytest.raises(InputError, match="dimension 1, expected at least 2"):
        plane_of(data)


@pytest.mark.parametrize("sigma", [0.0, 0.7])
def test_the_marginal_is_the_law_of_projected_points(sigma):
    """Against the integral over the third axis, for the plane of the first two turned axes."""
    root = randn(2, 3, 3, seed=4)
    field = GaussianMixture(
        torch.tensor([0.3, 0.7], dtype=F64), randn(2, 3, seed=5), root @ root.mT + 0.2 * torch.eye(3, dtype=F64)
    )
    axes = torch.linalg.qr(randn(3, 3, seed=6))[0].T
    plane = Plane(randn(3, seed=7), axes[:2])

    uv, h = randn(4, 2, seed=8), torch.linspace(-30, 30, 6001, dtype=F64)
    x = plane.embed(uv)[:, None] + h[:, None] * axes[2]
    integral = torch.trapezoid(field.log_density(x, sigma).exp(), h)
    torch.testing.assert_close(plane.marginal(field).log_density(uv, sigma).exp(), integral, rtol=1e-9, atol=0)


# ---- windows


def test_a_grid_has_rows_that_rise_and_columns_that_go_right():
    grid = Window((-1.0, 2.0), (1.0, 3.0)).grid(5, dtype=F64)
    for row in range(5):
        for column in range(5):
            assert grid[row, column].tolist() == pytest.approx([-1 + column / 2, 2 + row / 4])
    assert Window((-1.0, 2.0), (1.0, 3.0)).aspect == 2.0
    assert Window((0.0, 0.0), (1.0, 1.0)).grown(0.5) == Window((-0.5, -0.5), (1.5, 1.5))


@pytest.mark.parametrize(("low", "high"), [((0.0, 0.0), (0.0, 1.0)), ((0.0, 2.0), (1.0, 1.0)), ((0, math.nan), (1, 1))])
def test_an_empty_window_is_refused(low, high):
    with pytest.raises(InputError, match="expected the upper right corner above"):
        Window(low, high)


@pytest.mark.parametrize("name", ["fractal", "two-gaussians", "simplex16"])
def test_a_window_is_square_and_holds_the_data(name):
    """98 % on each axis by construction; the margin leaves well under 1 % outside."""
    data = load_dataset(name)
    plane = plane_of(data)
    window = window_of(data, plane)
    uv = plane.project(data.field().sample(20_000, generator=generator(9)))
    outside = (uv < torch.tensor(window.low)) | (uv > torch.tensor(window.high))
    assert window.aspect == pytest.approx(1)
    assert outside.any(-1).double().mean() < 0.01
    if data.view.low is not None:
        assert (window.low, window.high) == (data.view.low, data.view.high)


# ---- curvature


def symmetric(kind, dim):
    if kind == "random":
        m = randn(200, dim, dim, seed=dim)
        return m + m.mT
    if kind == "nearly degenerate":
        m = randn(200, dim, dim, seed=dim)
        return 3.0 * torch.eye(dim, dtype=F64) + 1e-9 * (m + m.mT)
    if kind == "diagonal":
        return torch.diag_embed(randn(200, dim, seed=dim))
    return -1e6 * torch.eye(dim, dtype=F64) + symmetric("random", dim)  # "far below zero"


@pytest.mark.parametrize("dim", [2, 3, 16])
@pytest.mark.parametrize("kind", ["random", "nearly degenerate", "diagonal", "far below zero"])
def test_the_top_eigenpair_is_that_of_eigh(kind, dim):
    h = symmetric(kind, dim)
    value, vector = top_eigenpair(h)
    values, vectors = torch.linalg.eigh(h)
    scale = float(h.abs().max())
    torch.testing.assert_close(value, values[:, -1], rtol=0, atol=1e-14 * dim * scale)
    torch.testing.assert_close(vector.norm(dim=-1), torch.ones(200, dtype=F64))
    residual = (h @ vector[..., None])[..., 0] - value[:, None] * vector
    assert residual.abs().max() <= 1e-14 * dim * scale
    # Where a gap separates it, the vector itself, as far as rounding over the gap allows.
    gap = values[:, -1] - values[:, -2]
    tilt = 1 - (vector * vectors[..., -1]).sum(-1).abs()
    assert (tilt <= 10 * (1e-14 * dim * scale / gap).square() + 1e-14).all()


@pytest.mark.parametrize("dim", [1, 2, 3, 16])
@pytest.mark.parametrize("kind", ["random", "nearly degenerate", "diagonal"])
def test_the_eigenpairs_fall_and_put_the_matrix_together_again(kind, dim):
    h = symmetric(kind, dim)
    values, vectors = eigenpairs(h)
    assert (values.diff() <= 0).all()
    scale = 1e-14 * dim * float(h.abs().max())  # rounding of eigh and of the product
    torch.testing.assert_close(values, torch.linalg.eigvalsh(h).flip(-1), rtol=0, atol=scale)
    torch.testing.assert_close(vectors.mT @ (values[..., None] * vectors), h, rtol=0, atol=scale)
    identity = torch.eye(dim, dtype=F64).expand_as(h)
    torch.testing.assert_close(vectors @ vectors.mT, identity, rtol=0, atol=1e-14 * dim)


def test_a_multiple_of_the_identity_has_a_unit_eigenvector():
    value, vector = top_eigenpair(torch.stack([torch.zeros(2, 2), 5 * torch.eye(2), -1e30 * torch.eye(2)]))
    assert value.tolist() == [0, 5, pytest.approx(-1e30)]
    torch.testing.assert_close(vector.norm(dim=-1), torch.ones(3))


@pytest.mark.parametrize("dim", [2, 4])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_bad_matrix_spoils_only_its_own_row(dim, bad):
    h = symmetric("random", dim)[:6].reshape(2, 3, dim, dim).clone()
    clean_value, clean_vector = top_eigenpair(h)
    h[1, 2, 0, -1] = bad
    value, vector = top_eigenpair(h)
    assert value[1, 2].isnan()
    assert vector[1, 2].isnan().all()
    value[1, 2], vector[1, 2] = clean_value[1, 2], clean_vector[1, 2]
    torch.testing.assert_close(value, clean_value)
    torch.testing.assert_close(vector, clean_vector)


@pytest.mark.parametrize("sigma", [0.2, 0.6, 1.5])
def test_two_gaussians_curve_upward_along_the_line_of_their_means(sigma):
    """lambda = max(-1/V + p (1 - p) |dm|^2 / V^2, -1/V), along the difference of the means."""
    a, b = torch.tensor([-0.8, 0.3], dtype=F64), torch.tensor([0.7, -0.4], dtype=F64)
    field = isotropic(torch.stack([a, b]), 0.3, torch.tensor([0.4, 0.6], dtype=F64))
    x = randn(500, 2, seed=11)
    v = 0.3 + sigma**2
    gap = b - a
    logit = math.log(0.6 / 0.4) + ((x - a).square().sum(-1) - (x - b).square().sum(-1)) / (2 * v)
    p = logit.sigmoid()
    expected = -1 / v + p * (1 - p) * gap.square().sum() / v**2

    value, vector = top_eigenpair(field.hessian(x, sigma))
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)
    clear = p * (1 - p) > 1e-5
    assert clear.sum() > 100
    along = (vector @ gap).abs() / gap.norm()
    torch.testing.assert_close(along[clear], torch.ones(int(clear.sum()), dtype=F64), rtol=0, atol=1e-9)
    assert (value > 0).any() == (sigma < 1)  # |dm|^2 / 4 = 0.685: two modes below V = 0.685, one above


def test_aligned_vectors_agree_with_the_reference_and_are_the_same_up_to_sign():
    vectors, reference = randn(50, 3, seed=12), randn(50, 3, seed=13)
    turned = align(vectors, reference)
    assert ((turned * reference).sum(-1) >= 0).all()
    torch.testing.assert_close(turned[:, :, None] * turned[:, None], vectors[:, :, None] * vectors[:, None])
    assert (align(vectors, torch.tensor([0.0, 0, 1], dtype=F64))[:, 2] >= 0).all()


def test_an_aligned_path_turns_smoothly_whatever_signs_it_came_with():
    angle = torch.linspace(0, 2 * math.pi, 40, dtype=F64)[:, None] + torch.tensor([0.0, 1.0, 2.0], dtype=F64)
    path = torch.stack([angle.cos(), angle.sin()], -1)  # (40, 3, 2)
    signs = torch.randint(2, (40, 3, 1), generator=generator(14)).double() * 2 - 1
    torch.testing.assert_close(align_path(path * signs), path * signs[:1])
    assert torch.equal(align_path(path[:1]), path[:1])
    assert align_path(path[:0]).shape == (0, 3, 2)


def test_an_aligned_grid_is_one_smooth_field_whatever_signs_it_came_with():
    """Also across a gap, where signs go around it."""
    u = torch.linspace(-1, 1, 21, dtype=F64)
    angle = 3 * u[:, None] + 2 * u**2  # turns by less than 90 degrees from cell to cell, by several turns in all
    field = torch.stack([angle.cos(), angle.sin()], -1)
    signs = torch.randint(2, (21, 21, 1), generator=generator(19)).double() * 2 - 1
    torch.testing.assert_close(align_grid(field * signs), field * signs[0, 0], rtol=0, atol=0)
    field[5, :15] = math.nan
    torch.testing.assert_close(align_grid(field * signs), field * signs[0, 0], rtol=0, atol=0, equal_nan=True)
    assert align_grid(field[:1, :1]).shape == (1, 1, 2)
    assert align_grid(field[:0]).shape == (0, 21, 2)


def test_around_half_a_turn_there_is_one_seam():
    """The top eigenvector of [[x, y], [y, -x]] is at half the angle of (x, y): around 0 it comes back turned. Every
    loop around 0 has an odd number of neighbours that disagree, every other loop an even one."""
    u = torch.arange(-5, 6, dtype=F64) + 0.5
    y, x = torch.meshgrid(u, u, indexing="ij")
    aligned = align_grid(top_eigenpair(torch.stack([x, y, y, -x], -1).reshape(11, 11, 2, 2))[1])
    down, right = ((a * b).sum(-1) < 0 for a, b in ((aligned[1:], aligned[:-1]), (aligned[:, 1:], aligned[:, :-1])))
    around = down[:, 1:] ^ down[:, :-1] ^ right[1:] ^ right[:-1]  # of each cell between four neighbours
    expected = torch.zeros(10, 10, dtype=torch.bool)
    expected[4, 4] = True  # between -0.5 and 0.5
    assert torch.equal(around, expected)


def test_the_curl_is_that_of_a_rotation_and_none_for_a_score():
    """f = (-w y, w x) has curl 2w, in any frame; in 3D the antisymmetric part's norm is w sqrt 2."""
    m, w = randn(2, 2, seed=20), 1.7
    symmetric_part, spin = m + m.T, torch.tensor([[0.0, -w], [w, 0.0]], dtype=F64)
    assert float(curl(symmetric_part + spin)) == pytest.approx(2 * w)
    axes = torch.linalg.qr(randn(3, 3, seed=21))[0]
    solid = torch.zeros(3, 3, dtype=F64)
    solid[:2, :2] = spin
    assert float(curl(axes @ (solid + torch.eye(3, dtype=F64)) @ axes.T)) == pytest.approx(w * math.sqrt(2))
    field, x, e = load_dataset("fractal").field("A"), randn(20, 2, seed=22), 1e-5
    steps = e * torch.eye(2, dtype=F64)
    jacobian = torch.stack([(field.score(x + s, 0.3) - field.score(x - s, 0.3)) / (2 * e) for s in steps], -1)
    assert curl(jacobian).abs().max() < 1e-6  # rounding: 1e-15 of a score of order 10, over e


def test_the_divergence_of_a_score_is_that_of_its_differences():
    field, x, e = load_dataset("fractal").field("A"), randn(20, 2, seed=15), 1e-5
    steps = e * torch.eye(2, dtype=F64)
    differences = sum((field.score(x + s, 0.3) - field.score(x - s, 0.3))[:, i] / (2 * e) for i, s in enumerate(steps))
    torch.testing.assert_close(divergence(field.hessian(x, 0.3)), differences, rtol=1e-6, atol=1e-5)


# ---- edges


@pytest.mark.parametrize("sigma", [0.05, 0.2, 0.6])
def test_along_an_edge_of_the_simplex_all_is_known_in_closed_form(sigma):
    """From squared distances alone: p_k ~ exp(-|x - m_k|^2 / 2V), and J = Cov_p(m) / V^2 - 1/V."""
    data = load_dataset("simplex16")
    profile = edge_profile(data, "v3", "v11", sigma)
    means = torch.stack([data.field(label).mean for label in data.labels])
    a, b, v = means[2], means[10], 0.05**2 + sigma**2
    torch.testing.assert_close(profile.t, torch.linspace(-0.25, 1.25, 201, dtype=F64))
    x = (1 - profile.t[:, None]) * a + profile.t[:, None] * b
    torch.testing.assert_close(profile.x, x)
    logits = -torch.cdist(x, means).square() / (2 * v)
    p = logits.softmax(-1)
    torch.testing.assert_close(profile.posterior, p, rtol=1e-9, atol=1e-12)
    norm = math.log(17) + 8 * math.log(2 * math.pi * v)
    torch.testing.assert_close(profile.log_density, logits.logsumexp(-1) - norm, rtol=1e-12, atol=1e-9)
    second = torch.einsum("nk,kd,ke->nde", p, means, means)
    covariance = second - (p @ means)[:, :, None] * (p @ means)[:, None]
    values, vectors = torch.linalg.eigh(covariance)
    torch.testing.assert_close(profile.top_eigenvalue, values[:, -1] / v**2 - 1 / v, rtol=1e-9, atol=1e-9 / v)
    clear = values[:, -1] - values[:, -2] > 1e-6  # elsewhere the eigenvector is anyone's
    cosine = (vectors[..., -1] @ ((b - a) / (b - a).norm())).abs()
    torch.testing.assert_close(profile.direction[clear], cosine[clear], rtol=0, atol=1e-8)


def test_the_saddle_of_an_edge_lies_in_its_middle():
    """At t = 1/2: p = 1/2 each but for the others' exp(-|dmu|^2 / 4V), 2e-6 each at sigma 0.2, so the top eigenvalue is
    -1/V + |dmu|^2 / 4V^2 along the edge, and between the ends the density is lowest there."""
    data, sigma = load_dataset("simplex16"), 0.2
    profile = edge_profile(data, "v1", "v2", sigma)
    v, gap = 0.05**2 + sigma**2, 17 / 8
    assert profile.t[100] == 0.5
    assert float(profile.top_eigenvalue[100]) == pytest.approx(-1 / v + gap / (4 * v**2), rel=1e-3)
    assert float(profile.direction[100]) == pytest.approx(1, abs=1e-6)
    inside = (profile.t > 0) & (profile.t < 1)
    assert int(profile.log_density.where(inside, math.inf).argmin()) == 100
    assert int(profile.top_eigenvalue.argmax()) == 100


def test_a_profile_of_a_learned_field_is_the_networks_own():
    data, net = load_dataset("two-gaussians"), load_model("two-gaussians/main@union")
    profile = edge_profile(data, "right", "left", 0.4, field=net, n=11, overshoot=0.0)
    x = torch.stack([torch.linspace(1, -1, 11, dtype=F64), torch.zeros(11, dtype=F64)], -1)
    torch.testing.assert_close(profile.x, x)
    torch.testing.assert_close(profile.log_density, net.log_density(x, 0.4))
    torch.testing.assert_close(profile.top_eigenvalue, torch.linalg.eigvalsh(net.hessian(x, 0.4))[:, -1])
    torch.testing.assert_close(profile.posterior, data.posterior(x, 0.4))  # of the exact field


def test_an_edge_needs_two_different_classes():
    data = load_dataset("two-gaussians")
    with pytest.raises(InputError, match="their means are the same"):
        edge_profile(data, "left", "left", 0.3)
    with pytest.raises(InputError, match="did you mean 'right'"):
        edge_profile(data, "left", "rigth", 0.3)


# ---- levels


@pytest.mark.parametrize("sigma", [0.0, 0.5, 3.0])
def test_levels_of_one_gaussian_are_those_of_the_closed_form(sigma):
    """The mass inside a level line of a 2D Gaussian is 1 - level/peak. A share is one of grid cells: the border is off
    by less than a ring of one cell, a relative error of a few cells over the area within."""
    field, shares = isotropic([[0.2, -0.1]], 0.25), (0.5, 0.9, 0.99)
    window = Window((-2.0, -2.2), (2.4, 2.0))
    levels = log_density_levels(field, sigma, shares, flat(), window, n=400)
    peak = -math.log(2 * math.pi * (0.25 + sigma**2))
    expected = [peak + math.log(1 - q) for q in shares]
    assert levels.tolist() == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("sigma", [0.03, 0.5])
def test_levels_of_the_fractal_hold_their_shares_of_its_samples(sigma):
    """Within four standard errors of the count, and 0.003 for the grid of 100 cells across thin branches."""
    data, shares, n = load_dataset("fractal"), (0.5, 0.9, 0.99), 8192
    plane, field = plane_of(data), data.field("A")
    levels = log_density_levels(field, sigma, shares, plane, window_of(data, plane), n=100)
    reached = field.log_density(field.sample(n, sigma, generator(18)).float(), sigma)[:, None] > levels
    for share, found in zip(shares, reached.double().mean(0).tolist(), strict=True):
        assert found == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / n) + 0.003)


def test_the_drawn_border_of_the_fractal_is_that_of_its_outliers():
    """The quantile over 65,536 samples has a standard error of 0.0004 in share, 0.04 nats; the grid adds as much."""
    data = load_dataset("fractal")
    plane = plane_of(data)
    level = log_density_levels(data.field("A"), 0.0, [0.99], plane, window_of(data, plane), n=100)
    assert float(level) == pytest.approx(hdr_threshold(data, "A"), abs=0.15)


def test_a_constant_added_to_a_log_density_moves_its_levels_by_it():
    grid = Window((-3.0, -3.0), (3.0, 3.0)).grid(60)
    values = isotropic([[0, 0], [1, 1]], 0.2).log_density(grid, 0.0)
    torch.testing.assert_close(region_levels(values + 500, [0.5, 0.9]), region_levels(values, [0.5, 0.9]) + 500)


def test_levels_hold_their_share_of_any_grid_and_of_no_more():
    """Brute force over the sorted cells of a rough density, with cells that are not finite."""
    values = torch.randn(30, 30, dtype=F64, generator=generator(16)) * 2
    values[3], values[4, :7] = -math.inf, math.nan
    cells = sorted((v for v in values.flatten().tolist() if math.isfinite(v)), reverse=True)
    for share in (0.1, 0.5, 0.97):
        total, inside, level = sum(map(math.exp, cells)), 0.0, math.nan
        for cell in cells:
            inside, level = inside + math.exp(cell), cell
            if inside >= share * total:
                break
        assert region_levels(values, [share]).item() == level


def test_levels_of_nothing_are_nan_and_shares_are_checked():
    assert region_levels(torch.full((3, 3), math.nan), [0.5]).isnan().all()
    with pytest.raises(InputError, match=r"share 1.0: expected more than 0 and less than 1"):
        region_levels(torch.zeros(3), [1.0])


def test_chunks_change_nothing():
    x = torch.randn(150, 151, 2, generator=generator(17))  # more than one chunk, not a whole number of them
    torch.testing.assert_close(in_chunks(lambda p: p.prod(-1), x), x.prod(-1), rtol=0, atol=0)
    assert torch.equal(in_chunks(lambda p: p[..., None] * p[..., None, :], x), x[..., None] * x[..., None, :])
