"""Conversions between the spaces of a score, against their definitions, and the noisier field."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from toyguide import load_dataset, load_model
from toyguide.errors import InputError
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
from toyguide.fields.degradations import DropoutField, NoisyInputField
from toyguide.training import TrainSettings, train

TINY = TrainSettings(label="A", width=8, layers=1, batch=64)

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


def every_field(dim=2):
    """One field of each kind, all of one dimension."""
    data = load_dataset("fractal")
    network = load_model("fractal/main")
    return {
        "mixture": data.field("A"),
        "network": network,
        "noisier": NoisierField(data.field("A"), 0.2),
        "noisy input": NoisyInputField(network, 0.2, 0),
        "dropout": DropoutField(network, 0.1, 0),
    }


METHODS = ("log_density", "score", "hessian", "denoise")


@pytest.mark.parametrize("kind", every_field())
@pytest.mark.usefixtures("way")
def test_points_may_be_arrays_and_lists(kind):
    field = every_field()[kind]
    x = torch.tensor([[0.25, -0.5], [0.75, 0.125]])
    v = [1.0, 0.0]
    for given, expected in ((x.tolist(), x), (x.numpy(), x), (x.double().numpy(), x.double()), (x[0].tolist(), x[0])):
        for name in METHODS:
            assert torch.equal(getattr(field, name)(given, 0.5), getattr(field, name)(expected, 0.5)), name
        assert torch.equal(field.jvp(given, 0.5, v), field.jvp(expected, 0.5, torch.tensor(v)))
        torch.testing.assert_close(field.jvp(given, 0.5, v), field.hessian(expected, 0.5)[..., 0], rtol=1e-3, atol=1e-3)
    whole = torch.tensor([[1, 0]])
    assert torch.equal(field.score(whole, 1), field.score(whole.float(), 1.0))
    levels = np.array([0.5, 1.5], dtype=np.float32)
    assert torch.equal(field.score(x, levels), field.score(x, torch.from_numpy(levels)))


@pytest.mark.parametrize("kind", every_field())
@pytest.mark.usefixtures("way")
def test_bad_points_and_levels_are_refused(kind):
    field, x = every_field()[kind], torch.zeros(3, 2)
    bad = [-0.1, -1, torch.tensor(-0.1), torch.tensor([0.1, -2.0, 0.3]), math.nan, math.inf, torch.tensor(math.nan)]
    if kind not in ("mixture", "noisier"):
        bad += [0.0, 0, torch.tensor([0.1, 0.0, 0.3])]
    for name in METHODS:
        for sigma in bad:
            with pytest.raises(InputError, match=r"^sigma = .*: expected (a )?finite number"):
                getattr(field, name)(x, sigma)
        with pytest.raises(InputError, match="dimension 3: expected dimension 2"):
            getattr(field, name)(torch.zeros(4, 3), 1.0)
        with pytest.raises(InputError, match="expected numbers with shape"):
            getattr(field, name)([["a", "b"]], 1.0)
    with pytest.raises(InputError, match="sigma = -1"):
        field.jvp(x, -1.0, x)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_the_default_dtype_changes_nothing(dtype):
    """In a process of its own, whose heap a buffer of the wrong size would corrupt."""
    code = f"""
import torch
torch.set_default_dtype(torch.{dtype})
from toyguide import load_dataset, load_model
from toyguide._speed import compiled
from toyguide.training import TrainSettings, train
for name in ("fractal", "simplex16"):
    field = load_dataset(name).field()
    n = 4096 if name == "fractal" else 512
    for sigma in (0.05, torch.full((n,), 0.05, dtype=torch.float32)):
        x = field.sample(n, 0.05, torch.Generator().manual_seed(0)).float()
        exact = field.score(x.double(), 0.05)
        for _ in range(20):
            assert (field.score(x, sigma) - exact).norm() < 1e-4 * exact.norm()
        with compiled.without():
            found = field.score(x, sigma)
            assert found.dtype == torch.float32 and (found - exact).norm() < 1e-4 * exact.norm()
            assert (field.score(x.double(), 0.05) - exact).norm() < 1e-10 * exact.norm()
            assert (field.hessian(x, sigma) - field.hessian(x.double(), 0.05)).norm() < 1e-2 * exact.norm() / 0.05
network = load_model("fractal/main")
x = x[:, :2].contiguous()
exact = load_model("fractal/main").double().score(x.double(), 0.3)
assert (network.score(x, 0.3) - exact).norm() < 1e-4 * exact.norm()
step = next(train(TrainSettings(label="A", width=8, layers=1, batch=64)))
assert {{p.dtype for p in step.network.parameters()}} == {{torch.float32}}
print(float(step.loss))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert not done.stderr
    assert done.returncode == 0
    assert float(done.stdout) == pytest.approx(float(next(train(TINY)).loss), rel=1e-5)


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
