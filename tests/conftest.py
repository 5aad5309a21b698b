"""What several test files share: devices, the fractal, random mixtures and an independent formulation of them."""

import signal
from contextlib import nullcontext

import pytest
import torch

from toyguide import load_dataset
from toyguide._speed import compiled
from toyguide.fields.mixtures import GaussianMixture

# A shell that starts the tests in the background has them ignore Ctrl-C, and every process that they start too; those
# that test Ctrl-C would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def torch_device(request):
    """Each device in turn; a GPU only where there is one."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device(request.param)


@pytest.fixture(params=["compiled", "torch"])
def way(request):
    """With the compiled loops, where the machine has a compiler, and without them."""
    if request.param == "compiled" and compiled.loops() is None:
        pytest.skip("no C compiler")
    with compiled.without() if request.param == "torch" else nullcontext():
        yield request.param


@pytest.fixture(scope="session")
def fractal():
    return load_dataset("fractal")


@pytest.fixture
def random_mixture():
    """Makes a mixture of anisotropic Gaussians (round ones on request) in general position, condition number ~ 100."""

    def make(dim, count=5, seed=0, isotropic=False):
        g = torch.Generator().manual_seed(1000 * dim + seed)
        weights = torch.rand(count, generator=g, dtype=torch.float64) + 0.1
        means = torch.randn(count, dim, generator=g, dtype=torch.float64)
        stds = torch.rand(count, dim, generator=g, dtype=torch.float64) * 0.9 + 0.1
        axes = torch.linalg.qr(torch.randn(count, dim, dim, generator=g, dtype=torch.float64)).Q
        if isotropic:
            stds, axes = stds[:, :1].expand(-1, dim), torch.eye(dim, dtype=torch.float64).expand(count, dim, dim)
        covariances = axes @ torch.diag_embed(stds**2) @ axes.mT
        return GaussianMixture(weights, means, (covariances + covariances.mT) / 2)

    return make


@pytest.fixture(scope="module")
def coarse_grids():
    """Figures in a hurry: borders need not be smooth to be tested."""
    parts = pytest.importorskip("toyguide.plots.parts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "_FINE", 120)
        patch.setattr(parts, "_COARSE", 60)
        yield
