"""SFG's iteration against exact eigenpairs: closed forms, orders in h, and the ratio of the shifted eigenvalues."""

import math

import pytest
import torch

from toyguide import Experiment, load_dataset, load_model
from toyguide.errors import InputError
from toyguide.geometry.curvature import eigenpairs
from toyguide.guidance.sfg_diagnostics import along, iterations, product_error

F64 = torch.float64


def directions(n, dim, seed=0):
    v = torch.randn(n, dim, dtype=F64, generator=torch.Generator().manual_seed(seed))
    return v / v.norm(dim=-1, keepdim=True)


def slope(hs, errors):
    """Of log error over log h, by least squares."""
    x, y = torch.tensor(hs, dtype=F64).log(), errors.log()
    x = x - x.mean()
    return float((x * (y - y.mean())).sum() / x.square().sum())


# ---- the finite-difference product


@pytest.mark.parametrize("reference", ["exact", "fractal/main"])
def test_the_products_bias_grows_as_h(reference):
    """float64: rounding, 1e-16 / h, stays a thousandth of the bias down to h = 1e-4. The next order bends the line by
    about h itself."""
    data, sigma = load_dataset("fractal"), 0.2
    field = data.field("A") if reference == "exact" else load_model(reference)
    x = data.field("A").sample(50, sigma, torch.Generator().manual_seed(0))
    hs = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2]
    errors = product_error(field, x, sigma, directions(50, 2), hs)
    assert errors.shape == (5, 50)
    assert slope(hs, errors.median(-1).values) == pytest.approx(1.0, abs=0.02)


def test_the_bias_is_that_of_the_third_derivative():
    """u = sigma^2 J v + h sigma^3 / 2 d/dt (J v) along v: two Gaussians along their axis, where all is a scalar. With
    V = sigma^2 + 0.05, q = sech^2(x/V): s' = q/V^2 - 1/V and s'' = -2 q tanh(x/V) / V^3."""
    field, sigma, h = load_dataset("two-gaussians").field(), 0.6, 1e-5
    v = sigma**2 + 0.05
    x = torch.linspace(0.1, 0.9, 9, dtype=F64)
    q = torch.cosh(x / v) ** -2
    first, second = q / v**2 - 1 / v, -2 * q * torch.tanh(x / v) / v**3
    axis = torch.tensor([1.0, 0.0], dtype=F64).expand(9, 2)
    errors = product_error(field, torch.stack([x, 0 * x + 0.3], -1), sigma, axis, [h])[0]
    # The next order is h sigma s'''/s'' / 3, a few times h; rounding is 1e-16 / h of D, over the error itself.
    torch.testing.assert_close(errors, (h * sigma / 2 * second / first).abs(), rtol=1e-3, atol=1e-10)


@pytest.mark.parametrize("reference", ["exact", "fractal/main"])
def test_the_products_rounding_grows_as_one_over_h(reference):
    """float32 at the h where the bias is far below: the median over 400 points of errors that are random by nature has
    a spread of a few per cent, over two decades of h."""
    data, sigma = load_dataset("fractal"), 0.2
    field = data.field("A") if reference == "exact" else load_model(reference)
    x = data.field("A").sample(400, sigma, torch.Generator().manual_seed(0)).float()
    v = directions(400, 2)
    hs = [1e-6, 1e-5, 1e-4]
    errors = product_error(field, x, sigma, v.float(), hs).median(-1).values
    assert slope(hs, errors) == pytest.approx(-1.0, abs=0.1)
    precise = product_error(field, x.double(), sigma, v, hs).median(-1).values
    assert (precise < errors / 10).all()


# ---- power iterations


@pytest.mark.parametrize("alpha", [1.0, 3.0, 10.0])
def test_in_two_dimensions_the_tangent_shrinks_by_the_ratio_of_the_shifted_eigenvalues(alpha):
    field, sigma, n = load_dataset("fractal").field(), 0.3, 50
    x = field.sample(n, sigma, torch.Generator().manual_seed(1))
    counts = [0, 1, 2, 5, 10, 20]
    found = iterations(field, x, sigma, directions(n, 2), alpha, counts)
    values, _ = eigenpairs(sigma**2 * field.hessian(x, sigma))
    ratio = (values[:, 1] + alpha) / (values[:, 0] + alpha)
    tangent = found.angle.deg2rad().tan()
    for row, count in zip(tangent[1:], counts[1:], strict=True):
        torch.testing.assert_close(row, tangent[0] * ratio**count, rtol=1e-9, atol=1e-13)
    # The Rayleigh quotient: lambda_1 cos^2 + lambda_2 sin^2.
    cos2 = found.angle.deg2rad().cos() ** 2
    torch.testing.assert_close(found.lam, values[:, 0] * cos2 + values[:, 1] * (1 - cos2))
    torch.testing.assert_close(found.top_eigenvalue, values[:, 0])


def test_a_larger_shift_is_slower_and_twenty_iterations_find_the_edge_of_a_simplex():
    """Near an edge's middle all other eigenvalues are close to -sigma^2 / V: the ratio is (1 - sigma^2/V + alpha - 1) /
    (lambda + alpha), lambda = sigma^2 (-1/V + |dmu|^2 / 4V^2)."""
    data, sigma = load_dataset("simplex16"), 0.2
    a, b = data.field("v2").mean, data.field("v9").mean
    x = ((a + b) / 2).expand(8, -1)
    v = sigma**2 + 0.05**2
    low, top = -(sigma**2) / v, sigma**2 * (-1 / v + float((a - b).square().sum()) / (4 * v**2))
    start = directions(8, 16)
    last = {}
    for alpha in (1.0, 10.0):
        found = iterations(data.field(), x, sigma, start, alpha, [0, 1, 2, 3, 20])
        # The other vertices' shares, of order exp(-|dmu|^2/4V) ~ 1e-3 each, shift the eigenvalues by about a per cent.
        torch.testing.assert_close(found.top_eigenvalue, torch.full((8,), top, dtype=F64), rtol=0.02, atol=0)
        tangent = found.angle.deg2rad().tan()
        ratio = (low + alpha) / (top + alpha)
        torch.testing.assert_close(tangent[3] / tangent[0], torch.full((8,), ratio**3, dtype=F64), rtol=0.2, atol=0)
        last[alpha] = found.angle[-1]
    assert (last[1.0] < last[10.0]).all()
    assert last[1.0].max() < 1e-6


def test_a_shift_that_is_too_small_grows_with_the_most_negative_product():
    """alpha <- max(alpha, -lambda): from the bottom eigenvector, whose eigenvalue is below -alpha, v cannot run away to
    it. A learned or wrong field may have sigma^2 lambda < -1; here alpha = 0.1 stands for that."""
    field, sigma = load_dataset("two-gaussians").field(), 0.3
    x = torch.tensor([[0.0, 0.0]], dtype=F64)
    start = torch.tensor([[1e-3, 1.0]], dtype=F64)
    found = iterations(field, x, sigma, start / start.norm(), 0.1, [0, 1])
    assert found.lam[0] < -0.1
    # Shifted by -lambda the bottom eigenvalue is about 0: one step lands on the top eigenvector.
    assert found.angle[0] > 89
    assert found.angle[1] < 0.1


# ---- along a run


def run(**settings):
    chosen = {"dataset": "two-gaussians", "main": "exact", "rule": "sfg", "params": {"w": 4.0}, "n": 64, "steps": 24}
    return Experiment(**{**chosen, **settings}).run("cpu")


def test_along_two_gaussians_v_is_compared_with_the_line_of_their_means():
    """The top eigenvector is (1, 0) everywhere, its eigenvalue sigma^2 (p (1 - p) 4 / V^2 - 1/V)."""
    result = run()
    inside = along(result, load_dataset("two-gaussians").field())
    x, sigma, v = result.x[:-1].double(), inside.sigma[:, None], result.trace["v"].double()
    variance = sigma**2 + 0.05
    curved = torch.cosh(x[..., 0] / variance) ** -2 / variance**2 > 1e-6  # elsewhere the two eigenvalues are equal
    expected = torch.atan2(v[..., 1].abs(), v[..., 0].abs()).rad2deg()
    # The eigenvector of rounded matrices: 1e-16 over a relative gap of 1e-6; v's own rounding is float32's.
    torch.testing.assert_close(inside.angle[curved], expected[curved], rtol=1e-5, atol=1e-5)
    top = sigma**2 * (torch.cosh(x[..., 0] / variance) ** -2 / variance**2 - 1 / variance)
    torch.testing.assert_close(inside.top_eigenvalue, top, rtol=1e-6, atol=1e-9)
    turns = (v[1:] * v[:-1]).sum(-1)
    torch.testing.assert_close(inside.cosine[1:], turns, rtol=0, atol=1e-6)
    assert inside.cosine[0].isnan().all()


def test_where_the_heaviside_is_wrong_is_where_the_signs_differ():
    result = run(n=256)
    inside = along(result, load_dataset("two-gaussians").field())
    assert torch.equal(inside.on, result.trace["lambda"] > 0)
    x, variance = result.x[:-1, :, 0].double(), inside.sigma[:, None] ** 2 + 0.05
    positive = torch.cosh(x / variance) ** -2 > variance  # p (1 - p) |dmu|^2 / V^2 > 1/V
    assert torch.equal(inside.wrong, inside.on != positive)
    assert inside.on.any()
    assert inside.wrong.any()


def test_the_runs_second_v_is_that_of_one_exact_iteration_at_its_first_points():
    """Apart from the finite difference. At sigma 8 the shifted matrix is Cov(x0|x)/sigma^2, 0.05/64 across the means:
    float32's rounding of D, 1e-7 over h sigma = 0.08, is 2e-3 of that, 0.1 degrees; three times that is allowed."""
    result = run(params={"w": 0.0, "h": 0.01}, n=32)
    v, sigma = result.trace["v"].double(), float(result.sigma[0])
    found = iterations(load_dataset("two-gaussians").field(), result.x[0].double(), sigma, v[0], 1.0, [0, 1])
    for row, angle in zip(v[:2], found.angle, strict=True):
        expected = torch.atan2(row[:, 1].abs(), row[:, 0].abs()).rad2deg()
        torch.testing.assert_close(angle, expected, rtol=0, atol=0.3)
    assert (found.angle[1] < found.angle[0]).all()


def test_steps_without_guidance_are_nan_and_never_wrong():
    result = run(interval=(0.2, 2.0))
    inside = along(result, load_dataset("two-gaussians").field())
    guided = (inside.sigma > 0.2) & (inside.sigma <= 2.0)
    assert inside.angle.isfinite().all(-1).tolist() == guided.tolist()
    assert inside.top_eigenvalue.isfinite().all(-1).tolist() == guided.tolist()
    assert not inside.on[~guided].any()
    assert not inside.wrong[~guided].any()


def test_a_run_without_the_trace_is_refused():
    with pytest.raises(InputError, match="has no trace of v and lambda, expected one of sfg"):
        along(run(rule="none", params={}, n=4), load_dataset("two-gaussians").field())
    assert math.isfinite(along(run(n=2), load_model("two-gaussians/main@union")).angle.sum())
