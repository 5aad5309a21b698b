"""Fields made worse on purpose: against closed forms of what the noise and the dropout do on average."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from toyguide.datasets import load_dataset
from toyguide.fields.degradations import DropoutField, NoisyInputField
from toyguide.fields.networks import EnergyMLP

PAIR = load_dataset("two-gaussians")
EXACT = PAIR.field("left")
X = torch.randn(7, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SIGMA = 0.4
MANY = 20_000
ERRORS = 5  # standard errors of a mean that are taken for chance


def network(layers: int = 3, labels: tuple[str, ...] = ()) -> EnergyMLP:
    made = EnergyMLP(2, 16, layers, torch.tensor([0.5, 0.7]), labels, torch.Generator().manual_seed(1))
    made.gain.data.fill_(0.8)
    return made


def close(a, b, tolerance=1e-10):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def check_derivatives(field, sigma):
    """The score is the gradient of the log-density, by autograd, and the Hessian that of the score, by differences."""
    x = X.clone().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(field.log_density(x, sigma).sum(), x)
    close(field.score(X, sigma), gradient)
    step = 1e-5  # off by its square and by rounding over it: 1e-10
    steps = step * torch.eye(2, dtype=X.dtype)
    differences = [(field.score(X + e, sigma) - field.score(X - e, sigma)) / (2 * step) for e in steps]
    close(field.hessian(X, sigma), torch.stack(differences, -1), 1e-7)


def check_function(make):
    """The same numbers for the same question, others for another seed, level or point."""
    x = torch.zeros(40, 2)
    field = make(3)
    first = field.score(x, SIGMA)
    assert field.score(x, SIGMA).equal(first)
    assert make(3).score(x, SIGMA).equal(first)
    assert len(first.unique(dim=0)) == 40
    for other in (make(4).score(x, SIGMA), SIGMA / 0.41 * field.score(x, 0.41)):
        assert (other - first).abs().min() > 0
    batched = field.score(x.reshape(5, 8, 2), SIGMA)
    close(batched.reshape(40, 2), first, 1e-5)
    assert field.hessian(x.reshape(5, 8, 2), SIGMA).shape == (5, 8, 2, 2)
    assert field.log_density(x.reshape(5, 8, 2), SIGMA).shape == (5, 8)


# --- input noise --------------------------------------------------------------------------------------------------


def test_noise_on_a_gaussian_has_the_mean_and_spread_of_the_closed_form():
    """For N(m, c I) the denoiser is linear: D = m + k (x + e - m), k = c / (c + (1 + r)^2 sigma^2)."""
    share, c, m = 0.3, float(EXACT.std[0] ** 2), EXACT.mean
    raised = SIGMA**2 * (1 + share) ** 2
    k = c / (c + raised)
    x = torch.tensor([0.3, -0.2], dtype=torch.float64)
    found = NoisyInputField(EXACT, share, 0).denoise(x.expand(MANY, 2), SIGMA)
    spread = k * math.sqrt(raised - SIGMA**2)
    close(found.mean(0), m + k * (x - m), ERRORS * spread / math.sqrt(MANY))
    # The deviation of n normal values is off by a share of 1 / sqrt(2 n).
    close(found.std(0), torch.full((2,), spread, dtype=torch.float64), ERRORS * spread / math.sqrt(2 * MANY))
    close(found.T.cov()[0, 1], torch.zeros((), dtype=torch.float64), ERRORS * spread**2 / math.sqrt(MANY))


def test_noise_of_nothing_is_the_field():
    close(NoisyInputField(EXACT, 0.0, 0).score(X, SIGMA), EXACT.score(X, SIGMA))


def test_a_noisy_field_is_one():
    check_function(lambda seed: NoisyInputField(EXACT, 0.1, seed))
    check_derivatives(NoisyInputField(PAIR.field(None), 0.2, 5), SIGMA)
    check_derivatives(NoisyInputField(network(), 0.2, 5), torch.linspace(0.1, 0.9, 7, dtype=torch.float64))


# --- dropout ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [None, "left", "right"])
def test_dropout_of_nothing_is_the_network(label):
    made = network(labels=("left", "right")).with_label(label)
    field = DropoutField(made, 0.0, 0)
    close(field.log_density(X, SIGMA), made.log_density(X, SIGMA))
    close(field.score(X, SIGMA), made.score(X, SIGMA))
    close(field.hessian(X, SIGMA), made.hessian(X, SIGMA))


def test_units_are_dropped_at_the_rate_and_the_others_make_up_for_them():
    rate = 0.15
    kept = DropoutField(network(), rate, 0).kept(torch.zeros(1000, 2, dtype=torch.float64), SIGMA)
    assert kept.shape == (1000, 3, 16)
    assert set(kept.unique().tolist()) == {0.0, 1 / (1 - rate)}
    dropped = (kept == 0).double()
    error = math.sqrt(rate * (1 - rate) / 1000)
    # 48 shares at once: the largest of them is allowed for by the fifth standard error.
    assert ((dropped.mean(0) - rate).abs() < ERRORS * error).all()
    # No unit follows another, in a layer or across layers.
    correlations = dropped.flatten(1).T.corrcoef() - torch.eye(48, dtype=torch.float64)
    assert correlations.abs().max() < ERRORS * 1.2 / math.sqrt(1000)  # the largest of 1128: 4.4 at a chance of 1 %


def test_the_mean_over_dropout_of_one_layer_has_a_closed_form():
    """With h' = m h and independent m of mean 1: E h'.S h' = h.S h + rate / (1 - rate) sum_i S_ii h_i^2."""
    rate, made = 0.2, network(layers=1)
    x = torch.tensor([0.3, -0.2], dtype=torch.float64)
    first, last = (w.detach().double() / w.detach().double().norm(dim=1, keepdim=True) for w in made.weights)
    inputs = torch.cat(
        [x / (SIGMA**2 + made.sigma_data.double() ** 2).sqrt(), torch.tensor([math.log(SIGMA) / 4, 1.0])]
    )
    h = functional.silu(first @ inputs) / 0.596
    strength = float(made.gain.detach()) / (SIGMA * made.width)
    more = strength * rate / (1 - rate) * float((last.square().sum(0) * h.square()).sum())

    energies = DropoutField(made, rate, 0).log_density(x.expand(MANY, 2), SIGMA).detach()
    error = float(energies.std()) / math.sqrt(MANY)
    assert more > 4 * ERRORS * error, "else the test could not tell it from nothing"
    assert abs(float(energies.mean() - made.log_density(x, SIGMA).detach()) - more) < ERRORS * error


def test_a_network_with_dropout_is_a_field():
    check_function(lambda seed: DropoutField(network(), 0.3, seed))
    check_derivatives(DropoutField(network(), 0.3, 2), SIGMA)
    check_derivatives(DropoutField(network(layers=1), 0.3, 2), torch.linspace(0.1, 0.9, 7, dtype=torch.float64))


def test_what_comes_out_asks_for_no_gradient():
    x = X.clone()
    field = DropoutField(network(), 0.3, 2)
    assert not field.score(x, SIGMA).requires_grad
    assert not field.hessian(x, SIGMA).requires_grad
    assert not x.requires_grad
