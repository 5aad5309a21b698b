"""Exact fields against torch.distributions, autograd, quadrature, exact rational limits and Monte Carlo."""

import mpmath
import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from toyguide import load_dataset
from toyguide.errors import InputError
from toyguide.fields.mixtures import GaussianMixture

METHODS = ("log_density", "responsibilities", "score", "denoise", "hessian")


def cholesky_log_density(mixture, x, sigma):
    """The same density by PyTorch's own mixture, through Cholesky factors of covariance + sigma^2 I."""
    noisy = mixture.covariances + sigma**2 * torch.eye(mixture.dim, dtype=torch.float64)
    components = MultivariateNormal(mixture.means, noisy, validate_args=False)
    return MixtureSameFamily(Categorical(mixture.weights), components, validate_args=False).log_prob(x)


def independent(mixture, x, sigma):
    """Everything that the mixture gives, by autograd of that density and by Bayes' rule."""

    def density(point):
        return cholesky_log_density(mixture, point, sigma)

    noisy = mixture.covariances + sigma**2 * torch.eye(mixture.dim, dtype=torch.float64)
    joint = MultivariateNormal(mixture.means, noisy).log_prob(x[:, None]) + mixture.weights.log()
    score = torch.func.vmap(torch.func.grad(density))(x)
    return {
        "log_density": density(x),
        "responsibilities": joint.softmax(-1),
        "score": score,
        "denoise": x + sigma**2 * score,
        "hessian": torch.func.vmap(torch.func.hessian(density))(x),
    }


def assert_relative(found, expected, tolerance):
    """Every value right to ``tolerance`` of the largest one at its point."""
    scale = expected.abs().reshape(len(expected), -1).amax(1).clamp(min=1e-300)
    error = (found - expected).abs().reshape(len(expected), -1).amax(1) / scale
    assert error.max() <= tolerance, f"relative error {error.max():.2e} at point {int(error.argmax())}"


def assert_agrees(mixture, x, sigma):
    """All that the mixture gives against the independent formulation; gradients by autograd too."""
    expected = independent(mixture, x, sigma)
    for name, value in expected.items():
        assert_relative(getattr(mixture, name)(x, sigma), value, 1e-9)
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=x.dtype)
    product = (expected["hessian"] @ v[..., None])[..., 0]
    assert_relative(mixture.jvp(x, sigma, v), product, 1e-9)

    at = x.clone().requires_grad_()
    assert_relative(torch.autograd.grad(mixture.log_density(at, sigma).sum(), at)[0], expected["score"], 1e-9)
    assert_relative(torch.autograd.grad((mixture.score(at, sigma) * v).sum(), at)[0], product, 1e-9)


@pytest.mark.parametrize("sigma", [0.0, 0.01, 0.5, 3.0, 80.0])
@pytest.mark.parametrize("isotropic", [False, True])
@pytest.mark.parametrize("dim", [1, 2, 3, 4, 5, 6])
@pytest.mark.usefixtures("way")
def test_agrees_with_an_independent_formulation(random_mixture, dim, isotropic, sigma):
    mixture = random_mixture(dim, isotropic=isotropic)
    assert_agrees(mixture, mixture.sample(40, sigma, torch.Generator().manual_seed(1)), sigma)


@pytest.mark.parametrize(("dataset", "label"), [("fractal", "A"), ("fractal", None), ("simplex16", None)])
@pytest.mark.parametrize("sigma", [0.0, 0.03, 1.0, 5.0])
@pytest.mark.usefixtures("way")
def test_datasets_agree_with_an_independent_formulation(dataset, label, sigma):
    mixture = load_dataset(dataset).field(label)
    # The fractal's thinnest covariances have a condition number of 1e3, which the Cholesky side squares.
    assert_agrees(mixture, mixture.sample(16, sigma, torch.Generator().manual_seed(1)), sigma)


def test_a_round_mixture_takes_the_path_without_rotations(random_mixture):
    """Both paths are needed for the comparisons above to mean something, and they agree with each other."""
    mixture = random_mixture(3, isotropic=True)
    assert mixture._components.isotropic
    assert not random_mixture(3)._components.isotropic
    x = mixture.sample(50, 0.3, torch.Generator().manual_seed(0))
    fast = {name: getattr(mixture, name)(x, 0.3) for name in METHODS}
    mixture._components.isotropic = False
    for name in METHODS:
        torch.testing.assert_close(getattr(mixture, name)(x, 0.3), fast[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.05, 1.0])
def test_derivatives_are_the_differences(random_mixture, sigma):
    """Central differences: error h^2/6 times third derivatives (up to 1/std^3 = 1e3) plus rounding 1e-16/h."""
    mixture, h = random_mixture(3), 1e-5
    x = mixture.sample(20, sigma, torch.Generator().manual_seed(2))
    steps = h * torch.eye(3, dtype=torch.float64)
    up, down = x[:, None] + steps, x[:, None] - steps
    slope = (mixture.log_density(up, sigma) - mixture.log_density(down, sigma)) / (2 * h)
    torch.testing.assert_close(mixture.score(x, sigma), slope, rtol=1e-6, atol=1e-6)
    jacobian = (mixture.score(up, sigma) - mixture.score(down, sigma)) / (2 * h)
    torch.testing.assert_close(mixture.hessian(x, sigma), jacobian, rtol=1e-6, atol=1e-5)


@pytest.mark.usefixtures("way")
class TestAutograd:
    """The closed forms as gradients: against finite differences, to second order, for x and for sigma."""

    @pytest.mark.parametrize("dim", [1, 2, 4])
    @pytest.mark.parametrize("method", ["log_density", "score", "denoise", "hessian"])
    def test_first_and_second_derivatives(self, random_mixture, dim, method):
        mixture = random_mixture(dim)
        x = mixture.sample(3, 0.3, torch.Generator().manual_seed(0)).requires_grad_()
        sigma = torch.tensor([0.2, 0.5, 1.0], dtype=torch.float64)

        def function(x):
            return getattr(mixture, method)(x, sigma)

        assert torch.autograd.gradcheck(function, (x,))
        assert torch.autograd.gradgradcheck(function, (x,))

    @pytest.mark.parametrize("method", ["log_density", "score", "denoise"])
    def test_of_sigma_too(self, random_mixture, method):
        mixture = random_mixture(2)
        x = mixture.sample(3, 0.3, torch.Generator().manual_seed(0))
        sigma = torch.tensor([0.2, 0.5, 1.0], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda s: getattr(mixture, method)(x, s), (sigma,))
        assert torch.autograd.gradcheck(lambda p, s: getattr(mixture, method)(p, s), (x.requires_grad_(), sigma))

    def test_of_the_direction(self, random_mixture):
        mixture = random_mixture(2)
        x = mixture.sample(3, 0.3, torch.Generator().manual_seed(0)).requires_grad_()
        v = torch.randn(3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda p, v: mixture.jvp(p, 0.3, v), (x, v))

    def test_costs_no_graph_of_all_components(self, fractal, monkeypatch):
        """The gradient is the score itself, not a walk back through the formulas."""
        field = fractal.field("A")
        x = field.sample(9, 0.1, torch.Generator().manual_seed(0)).requires_grad_()
        assert type(field.log_density(x, 0.1).grad_fn).__name__ == "_LogDensityBackward"
        assert type(field.score(x, 0.1).grad_fn).__name__ == "_ScoreBackward"

    def test_transforms_of_torch_func(self, random_mixture):
        mixture = random_mixture(2)
        x = mixture.sample(5, 0.3, torch.Generator().manual_seed(0))
        sigma = torch.linspace(0.1, 1, 5, dtype=torch.float64)
        jacobian = torch.func.vmap(torch.func.jacrev(mixture.score))(x, sigma)
        torch.testing.assert_close(jacobian, mixture.hessian(x, sigma), rtol=1e-9, atol=1e-9)
        v = torch.randn(5, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        _, product = torch.func.jvp(lambda p: mixture.score(p, sigma), (x,), (v,))
        torch.testing.assert_close(product, mixture.jvp(x, sigma, v), rtol=1e-9, atol=1e-9)
        with torch.autograd.forward_ad.dual_level():
            dual = mixture.score(torch.autograd.forward_ad.make_dual(x, v), sigma)
            tangent = torch.autograd.forward_ad.unpack_dual(dual).tangent
        torch.testing.assert_close(tangent, product, rtol=1e-9, atol=1e-9)


def test_explain_is_both_parts(fractal):
    x = fractal.field("A").sample(100, 0.1, torch.Generator().manual_seed(0))
    log_density, responsibilities = fractal.field("A").explain(x, 0.1)
    torch.testing.assert_close(log_density, fractal.field("A").log_density(x, 0.1), rtol=1e-12, atol=1e-12)
    assert torch.equal(responsibilities, fractal.field("A").responsibilities(x, 0.1))


def test_moment_identities(fractal):
    """Tweedie: the mean of x0 given x is x + sigma^2 s, its covariance sigma^2 (I + sigma^2 H), by weighted sums."""
    mixture, sigma = fractal.field("A"), 0.2
    x = mixture.sample(6, sigma, torch.Generator().manual_seed(3))
    clean = mixture.sample(400_000, generator=torch.Generator().manual_seed(4))
    weights = (-(x[:, None] - clean).square().sum(-1) / (2 * sigma**2)).softmax(-1)  # (6, 400k)
    mean = weights @ clean
    covariance = torch.einsum("nk,kd,ke->nde", weights, clean, clean) - mean[:, :, None] * mean[:, None]
    # Effective sample sizes are some ten thousand and the posterior's spread is below sigma: standard errors of 0.002.
    torch.testing.assert_close(mixture.denoise(x, sigma), mean, rtol=0, atol=0.008)
    posterior = sigma**2 * (torch.eye(2, dtype=torch.float64) + sigma**2 * mixture.hessian(x, sigma))
    torch.testing.assert_close(posterior, covariance, rtol=0, atol=0.002)


@pytest.mark.parametrize("sigma", [0.0, 0.1, 1.0])
def test_density_integrates_to_one(random_mixture, sigma):
    """The trapezoidal rule converges geometrically for smooth densities: a step of half the thinnest std is exact."""
    mixture = random_mixture(2, count=3)
    reach = 5 + 6 * sigma
    axis = torch.linspace(-reach, reach, 2 * int(reach / 0.05) + 1, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    mass = mixture.log_density(grid, sigma).exp().sum() * (axis[1] - axis[0]) ** 2
    assert abs(float(mass) - 1) < 1e-5


class TestShapes:
    @pytest.mark.parametrize("batch", [(), (1,), (7,), (2, 3), (2, 0, 3), (0,)])
    def test_batches_and_sigmas_broadcast(self, random_mixture, batch):
        mixture = random_mixture(3)
        g = torch.Generator().manual_seed(0)
        x = torch.randn(*batch, 3, generator=g, dtype=torch.float64)
        sigma = torch.rand(batch, generator=g, dtype=torch.float64)
        ends = {"log_density": (), "responsibilities": (5,), "score": (3,), "denoise": (3,), "hessian": (3, 3)}
        for name, end in ends.items():
            found = getattr(mixture, name)(x, sigma)
            assert found.shape == (*batch, *end), name
            flat = [getattr(mixture, name)(p, float(s)) for p, s in zip(x.reshape(-1, 3), sigma.flatten(), strict=True)]
            if flat:
                torch.testing.assert_close(found, torch.stack(flat).reshape(found.shape), rtol=1e-12, atol=1e-12)

    def test_sigma_broadcasts_along_missing_axes(self, random_mixture):
        mixture = random_mixture(2)
        x = torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        sigma = torch.tensor([0.1, 0.5, 2.0])
        found = mixture.score(x, sigma)
        for j in range(3):
            assert torch.allclose(found[:, j], mixture.score(x[:, j], float(sigma[j].double())), rtol=1e-12)

    def test_blocks_do_not_change_results(self, random_mixture, monkeypatch):
        mixture = random_mixture(2)
        x = mixture.sample(23, 0.1, torch.Generator().manual_seed(0))
        sigma = torch.rand(23, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        whole = {name: getattr(mixture, name)(x, sigma) for name in METHODS}
        monkeypatch.setattr("toyguide.fields.components.block_size", lambda x, columns: 4)
        monkeypatch.setattr("toyguide.fields.components._PLANE", 1)
        for name in METHODS:
            torch.testing.assert_close(getattr(mixture, name)(x, sigma), whole[name], rtol=1e-13, atol=1e-13)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_results_follow_dtype_and_device(self, fractal, torch_device, dtype):
        mixture = fractal.field("A")
        x = mixture.sample(50, 0.05, torch.Generator().manual_seed(0))
        for name in METHODS:
            found = getattr(mixture, name)(x.to(torch_device, dtype), 0.05)
            assert (found.dtype, found.device.type) == (dtype, torch_device.type)
            bound = 1e-9 if dtype == torch.float64 else 1e-2
            assert_relative(found.double().cpu(), getattr(mixture, name)(x, 0.05), bound)


@pytest.mark.usefixtures("way")
class TestFarAway:
    @pytest.mark.parametrize(
        ("dtype", "reach"),
        [(torch.float32, r) for r in (3.0, 1e6, 1e20, 1e30, 3e38)]
        + [(torch.float64, r) for r in (3.0, 1e6, 1e20, 1e150, 1.7e308)],
    )
    @pytest.mark.parametrize("sigma", [0.0, 0.01, 1.0, 80.0])
    def test_finite_at_any_finite_point(self, fractal, dtype, reach, sigma):
        directions = torch.tensor([[1, 1], [-1, 0], [0.1, 0.9], [0, -1]], dtype=dtype)
        for name in METHODS:
            assert getattr(fractal.field("A"), name)(reach * directions, sigma).isfinite().all(), name
        v = torch.tensor([1.0, -0.5], dtype=dtype)
        assert fractal.field("A").jvp(reach * directions, sigma, v).isfinite().all()

    @pytest.mark.parametrize(
        ("dtype", "reach", "tolerance"),
        [
            (torch.float32, 1e6, 1e-5),
            (torch.float32, 1e20, 1e-5),
            (torch.float32, 1e30, 1e-5),
            (torch.float64, 1e6, 1e-9),
            (torch.float64, 1e20, 1e-12),
            (torch.float64, 1e150, 1e-12),
        ],
    )
    @pytest.mark.parametrize("sigma", [0.0, 0.01, 1.0])
    def test_tends_to_the_dominating_component(self, fractal, dtype, reach, tolerance, sigma):
        """Far away one component outweighs all others: the score is -P (x - m), the Hessian -P, of the one whose
        quadratic form (x - m)' P (x - m) is least; taken here with 400 digits, by inverting C + sigma^2 I."""
        mixture = fractal.field("A")
        for direction in ([1.0, 1.0], [-1.0, 0.0], [0.3, -0.9]):
            x = reach * torch.tensor(direction, dtype=dtype)
            with mpmath.workdps(400):
                best = exact_nearest(mixture, x, sigma)
                precision = torch.tensor([[float(v) for v in row] for row in best["precision"].tolist()])
                score = torch.tensor([float(v) for v in best["score"]], dtype=torch.float64)
            assert_relative(mixture.score(x, sigma).double()[None], score[None], tolerance)
            assert_relative(mixture.hessian(x, sigma).double()[None], -precision.double()[None], 1e-3)
            v = torch.tensor([0.6, 0.8], dtype=dtype)
            product = -precision.double() @ v.double()
            assert_relative(mixture.jvp(x, sigma, v).double()[None], product[None], 1e-3)
            if best["quadratic"] < torch.finfo(dtype).max:
                expected = -0.5 * float(best["quadratic"])
                assert float(mixture.log_density(x, sigma)) == pytest.approx(expected, rel=10 * tolerance)

    def test_the_point_where_the_public_toy_gives_nan(self, fractal):
        mixture, x = fractal.field("A"), torch.tensor([3.0, 3.0], dtype=torch.float64)
        with mpmath.workdps(60):
            expected = exact_log_density(mixture, x, 0.01)
        assert float(mixture.log_density(x, 0.01)) == pytest.approx(expected, rel=1e-12)
        assert float(mixture.log_density(x.float(), 0.01)) == pytest.approx(expected, rel=1e-5)

    def test_values_beyond_the_dtype_saturate(self, fractal):
        x = torch.tensor([[1e30, 1e30]])
        assert float(fractal.field("A").log_density(x, 0.01)) == torch.finfo(torch.float32).min

    def test_rows_that_are_not_finite_disturb_no_other(self, fractal):
        mixture = fractal.field("A")
        x = mixture.sample(6, 0.1, torch.Generator().manual_seed(0)).float()
        broken = x.clone()
        broken[1], broken[4, 0] = float("nan"), float("inf")
        keep = [0, 2, 3, 5]
        for name in METHODS:
            found, expected = getattr(mixture, name)(broken, 0.1)[keep], getattr(mixture, name)(x, 0.1)[keep]
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)  # memory's alignment may move a rounding
        assert mixture.score(broken, 0.1)[[1, 4]].isnan().any(-1).all()


def exact_log_density(mixture, x, sigma):
    """``log p`` by multiplying out in as many digits as mpmath is set to."""
    total = mpmath.mpf(0)
    for weight, mean, covariance in zip(mixture.weights, mixture.means, mixture.covariances, strict=True):
        noisy = mpmath.matrix(covariance.tolist()) + mpmath.mpf(sigma) ** 2 * mpmath.eye(mixture.dim)
        offset = mpmath.matrix(x.tolist()) - mpmath.matrix(mean.tolist())
        form = (offset.T * noisy**-1 * offset)[0]
        volume = mpmath.sqrt((2 * mpmath.pi) ** mixture.dim * mpmath.det(noisy))
        total += mpmath.mpf(float(weight)) * mpmath.exp(-form / 2) / volume
    return float(mpmath.log(total))


def exact_nearest(mixture, x, sigma):
    """The component with the least quadratic form at x, with many digits."""
    best = None
    point = mpmath.matrix([mpmath.mpf(v) for v in x.tolist()])
    for mean, covariance in zip(mixture.means, mixture.covariances, strict=True):
        (a, b), (_, c) = covariance.tolist()
        a, b, c = mpmath.mpf(a) + mpmath.mpf(sigma) ** 2, mpmath.mpf(b), mpmath.mpf(c) + mpmath.mpf(sigma) ** 2
        precision = mpmath.matrix([[c, -b], [-b, a]]) / (a * c - b * b)
        offset = point - mpmath.matrix(mean.tolist())
        pulled = precision * offset
        quadratic = offset[0] * pulled[0] + offset[1] * pulled[1]
        if best is None or quadratic < best["quadratic"]:
            best = {"quadratic": quadratic, "precision": precision, "score": -pulled}
    return best


@pytest.mark.parametrize("sigma", [0.0, 0.002, 0.03, 0.5, 5.0, 80.0])
def test_float32_is_close_to_float64(fractal, sigma, way):
    """Rounding x by 6e-8 |x| shifts the score by as much times the Hessian, at most 1/std^2: that is the bound."""
    mixture = fractal.field("A")
    x = mixture.sample(2000, sigma, torch.Generator().manual_seed(0)).float()
    smallest = float((torch.linalg.eigvalsh(mixture.covariances).min() + sigma**2).sqrt())
    reach = float(x.abs().max()) + 1
    rounding = 2e-6 * reach / smallest  # in units of one standard deviation of the thinnest component
    error = {
        name: (getattr(mixture, name)(x, sigma) - getattr(mixture, name)(x.double(), sigma)).abs().max()
        for name in METHODS
    }
    assert error["score"] * smallest < rounding
    assert error["log_density"] < 10 * rounding
    assert error["denoise"] < rounding * min(sigma, 1.5) + 2e-6 * reach
    assert error["responsibilities"] < 10 * rounding
    assert error["hessian"] * smallest**2 < 10 * rounding
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    for level in (sigma, torch.full((len(x),), sigma)):
        exact = (mixture.hessian(x.double(), sigma) @ v.double()[..., None])[..., 0]
        assert (mixture.jvp(x, level, v) - exact).abs().max() * smallest**2 < 20 * rounding
        assert (
            mixture.hessian(x, level) - mixture.hessian(x.double(), sigma)
        ).abs().max() * smallest**2 < 10 * rounding


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_responsibilities_are_probabilities(fractal, dtype):
    x = torch.linspace(-3, 3, 200, dtype=dtype)[:, None] * torch.tensor([1.0, 0.3], dtype=dtype)
    for sigma in (0.0, 0.1, 10.0):
        r = fractal.field(None).responsibilities(x, sigma)
        assert (r >= 0).all()
        assert (r.sum(-1) - 1).abs().max() < 20 * torch.finfo(dtype).eps


class TestSampling:
    def test_moments(self, random_mixture):
        """Bounds are 5 standard errors: std/sqrt(n) of the mean, about 2 std^2/sqrt(n) of the covariance."""
        mixture, sigma, n = random_mixture(3), 0.7, 200_000
        x = mixture.sample(n, sigma, torch.Generator().manual_seed(5))
        std = (mixture.std.square() + sigma**2).sqrt()
        assert ((x.mean(0) - mixture.mean).abs() < 5 * std / n**0.5).all()
        centred = mixture.means - mixture.mean
        covariance = torch.einsum(
            "k,kde->de", mixture.weights, mixture.covariances + centred[:, :, None] * centred[:, None]
        )
        exact = covariance + sigma**2 * torch.eye(3, dtype=torch.float64)
        assert (torch.cov(x.T) - exact).abs().max() < 5 * 2 * float(std.max()) ** 2 / n**0.5
        torch.testing.assert_close(mixture.std, covariance.diagonal().sqrt(), rtol=1e-12, atol=0)

    def test_drawn_on_any_device(self, random_mixture, torch_device):
        mixture = random_mixture(2)
        x = mixture.sample(200_000, 0.3, torch.Generator(torch_device).manual_seed(0))
        assert x.device.type == torch_device.type
        assert x.dtype == torch.float64
        se = (mixture.std**2 + 0.3**2).sqrt() / 200_000**0.5
        assert ((x.cpu().mean(0) - mixture.mean).abs() < 4 * se).all()
        assert (
            (x.cpu().std(0) / (mixture.std**2 + 0.3**2).sqrt() - 1).abs() < 0.01
        ).all()  # 4 / sqrt(2 n) and kurtosis

    def test_log_density_of_samples(self, random_mixture):
        """The mean log-density of samples is the integral of p log p, by quadrature; bound 5 standard errors."""
        mixture, n = random_mixture(2, count=3), 100_000
        axis = torch.linspace(-6, 6, 601, dtype=torch.float64)
        logp = mixture.log_density(torch.cartesian_prod(axis, axis), 0.3)
        exact = float((logp.exp() * logp).sum() * 0.02**2)
        found = mixture.log_density(mixture.sample(n, 0.3, torch.Generator().manual_seed(6)), 0.3)
        assert abs(float(found.mean()) - exact) < 5 * float(found.std()) / n**0.5

    def test_components_are_drawn_along_their_own_axes(self, random_mixture):
        """Cholesky's factor of a component's covariance whitens its samples; 5 standard errors (sqrt(2/n) at most)."""
        mixture, n = random_mixture(3), 40_000
        for k in range(len(mixture)):
            x = mixture.subset(torch.arange(len(mixture)) == k).sample(n, generator=torch.Generator().manual_seed(k))
            factor = torch.linalg.cholesky(mixture.covariances[k])
            white = torch.linalg.solve_triangular(factor, (x - mixture.means[k]).T, upper=False)
            assert (white.mean(1).abs() < 5 / n**0.5).all()
            assert ((torch.cov(white) - torch.eye(3)).abs() < 5 * 2**0.5 / n**0.5).all()

    def test_components_are_drawn_by_weight(self):
        """Two components far apart; 5 standard errors of the share."""
        mixture = GaussianMixture(
            torch.tensor([1.0, 3.0]), torch.tensor([[0.0, 0.0], [100.0, 0.0]]), torch.eye(2).expand(2, 2, 2)
        )
        right = mixture.sample(40_000, generator=torch.Generator().manual_seed(7))[:, 0] > 50
        assert abs(float(right.double().mean()) - 0.75) < 5 * (0.75 * 0.25 / 40_000) ** 0.5

    def test_one_seed_one_sample(self, fractal):
        a, b = (fractal.field("A").sample(50, 1.0, torch.Generator().manual_seed(9)) for _ in range(2))
        assert torch.equal(a, b)


def test_subset_is_bayes_restricted(random_mixture):
    mixture = random_mixture(2)
    keep = torch.tensor([True, False, True, True, False])
    x = mixture.sample(30, 0.2, torch.Generator().manual_seed(0))
    r = mixture.responsibilities(x, 0.2)[:, keep]
    torch.testing.assert_close(mixture.subset(keep).responsibilities(x, 0.2), r / r.sum(-1, keepdim=True))
    expected = mixture.log_density(x, 0.2) + r.sum(-1).log() - mixture.weights[keep].sum().log()
    torch.testing.assert_close(mixture.subset(keep).log_density(x, 0.2), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": [1.0, -2.0]}, r"weights\[1\] = -2: expected positive"),
        ({"weights": [0.0, 1.0]}, r"weights\[0\] = 0: expected positive"),
        ({"weights": [1e308, 1.7e308]}, "less far apart"),
        ({"weights": [1e-200, 1.0]}, "less far apart"),
        ({"weights": [1.0]}, r"weights of shape \(1,\)"),
        ({"weights": [1.0, float("nan")]}, r"weights\[1\] is not finite"),
        ({"means": [[0.0, 0.0], [float("inf"), 0.0]]}, r"means\[1\] is not finite"),
        ({"means": [[0.0, 0.0], [1e200, 0.0]]}, r"means\[1\] = \[1e\+200, 0.0\]: expected numbers from"),
        ({"means": [0.0, 1.0]}, r"means of shape \(2,\)"),
        ({"means": torch.zeros(0, 2)}, r"means of shape \(0, 2\)"),
        ({"covariances": torch.ones(2, 2)}, r"covariances of shape \(2, 2\)"),
        ({"covariances": [[[1.0, 0.5], [0.4, 1.0]]] * 2}, r"covariances\[0\] is not symmetric"),
        ({"covariances": [torch.eye(2).tolist(), [[1.0, 2.0], [2.0, 1.0]]]}, r"covariances\[1\] has the eigenvalue -1"),
        ({"covariances": [[[1.0, 1.0], [1.0, 1.0]]] * 2}, r"covariances\[0\] has the eigenvalue"),
        ({"covariances": [[[1e200, 0.0], [0.0, 1.0]]] * 2}, r"covariances\[0\] holds 1e\+200"),
        ({"covariances": [[[1e-60, 0.0], [0.0, 1e-60]]] * 2}, r"covariances\[0\] has the eigenvalue 1e-60"),
    ],
)
def test_malformed_mixtures_are_refused(change, message):
    parts = {"weights": [1.0, 1.0], "means": [[0.0, 0.0], [1.0, 0.0]], "covariances": torch.eye(2).expand(2, 2, 2)}
    GaussianMixture(*(torch.as_tensor(v) for v in parts.values()))
    with pytest.raises(InputError, match=message):
        GaussianMixture(*(torch.as_tensor(v, dtype=torch.float64) for v in (parts | change).values()))
