"""Conversions between the spaces of a score, against their definitions, and the noisier field."""

import pytest
import torch

from toyguide.fields import (
    NoisierField,
    as_sigma,
    denoised_from_eps,
    denoised_from_score,
    denoised_from_velocity,
    eps_from_denoised,
    score_from_denoised,
    velocity_from_denoised,
)

INTO = {"score": score_from_denoised, "eps": eps_from_denoised, "velocity": velocity_from_denoised}
BACK = {"score": denoised_from_score, "eps": denoised_from_eps, "velocity": denoised_from_velocity}


@pytest.fixture(params=["scalar", "per point"])
def case(request):
    """Points, any denoised values, and noise levels from 0.01 to 80."""
    g = torch.Generator().manual_seed(0)
    x, denoised = torch.randn(2, 6, 4, 3, generator=g, dtype=torch.float64)
    sigma = torch.logspace(-2, 1.9, 24, dtype=torch.float64).reshape(6, 4) if request.param == "per point" else 0.37
    return x, denoised, sigma


@pytest.mark.parametrize("space", INTO)
def test_there_and_back(case, space):
    x, denoised, sigma = case
    torch.testing.assert_close(BACK[space](INTO[space](denoised, x, sigma), x, sigma), denoised, rtol=1e-11, atol=1e-11)


def test_definitions(case):
    """x = x0 + sigma n, with x0 = D: eps is n, the score -n / sigma, the velocity n - x0."""
    x, x0, sigma = case
    broadcast = torch.as_tensor(sigma, dtype=torch.float64).expand(x.shape[:-1])
    for index in torch.cartesian_prod(torch.arange(6), torch.arange(4)).tolist():
        i, j = index
        s = float(broadcast[i, j])
        n = (x[i, j] - x0[i, j]) / s
        torch.testing.assert_close(eps_from_denoised(x0, x, sigma)[i, j], n)
        torch.testing.assert_close(score_from_denoised(x0, x, sigma)[i, j], -n / s)
        torch.testing.assert_close(velocity_from_denoised(x0, x, sigma)[i, j], n - x0[i, j])


def test_velocity_is_the_slope_in_flow_matching_coordinates(fractal):
    """Along the probability-flow ODE, z = x / (1 + sigma) moves by v dt with t = sigma / (1 + sigma)."""
    field, sigma, h = fractal.field("A"), 0.4, 1e-6
    x = field.sample(20, sigma, torch.Generator().manual_seed(0))
    denoised = field.denoise(x, sigma)

    def z(step):
        return (x + step * eps_from_denoised(denoised, x, sigma)) / (1 + sigma + step)

    dt_dsigma = 1 / (1 + sigma) ** 2
    slope = (z(h) - z(-h)) / (2 * h) / dt_dsigma
    torch.testing.assert_close(velocity_from_denoised(denoised, x, sigma), slope, rtol=1e-7, atol=1e-7)


def test_no_velocity_means_no_motion_of_z():
    """v = 0 leaves x in proportion to 1 + sigma: D is x / (1 + sigma)."""
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(denoised_from_velocity(torch.zeros_like(x), x, 3.0), x / 4)


def test_a_mixture_denoises_as_any_field_does(fractal):
    """The mixture's own posterior mean against the definition through its score; cancellation costs digits at 1e-3."""
    field = fractal.field(None)
    for sigma in (1e-3, 0.1, 5.0):
        x = field.sample(50, sigma, torch.Generator().manual_seed(1))
        torch.testing.assert_close(
            field.denoise(x, sigma), denoised_from_score(field.score(x, sigma), x, sigma), rtol=1e-10, atol=1e-10
        )
        torch.testing.assert_close(
            field.score(x, sigma), score_from_denoised(field.denoise(x, sigma), x, sigma), rtol=1e-7, atol=1e-7
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sigma_follows_the_points(torch_device, dtype):
    x = torch.zeros(4, 2, dtype=dtype, device=torch_device)
    assert as_sigma(0.5, x).tolist() == [0.5]
    found = as_sigma(torch.tensor([1.0, 2.0, 3.0, 4.0]), x)
    assert (found.shape, found.dtype, found.device.type) == ((4, 1), dtype, torch_device.type)


def test_noisier_field_is_the_field_of_noisier_data(fractal):
    """Everything at sigma is the plain field's at 1.2 sigma, except that the denoised point is for sigma."""
    plain, noisier = fractal.field("A"), NoisierField(fractal.field("A"), 0.2)
    x = plain.sample(30, 0.3, torch.Generator().manual_seed(0))
    sigma = torch.linspace(0.1, 1.0, 30, dtype=torch.float64)
    for name in ("log_density", "score", "hessian"):
        torch.testing.assert_close(getattr(noisier, name)(x, sigma), getattr(plain, name)(x, 1.2 * sigma))
    expected = x + (plain.denoise(x, 1.2 * sigma) - x) / 1.44
    torch.testing.assert_close(noisier.denoise(x, sigma), expected, rtol=1e-10, atol=1e-10)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda p: noisier.score(p, 0.3)))(x[:5])
    torch.testing.assert_close(noisier.hessian(x[:5], 0.3), jacobian, rtol=1e-8, atol=1e-8)
