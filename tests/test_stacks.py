"""Several networks at once against each on its own, and the room that they all write over."""

import threading

import pytest
import torch

from toyguide import load_model
from toyguide.networks import EnergyMLP
from toyguide.stacks import denoise_together


def make(seed, width=24, layers=3, labels=()):
    g = torch.Generator().manual_seed(seed)
    network = EnergyMLP(2, width, layers, torch.rand(2, generator=g) + 0.5, labels, g).requires_grad_(False)
    network.gain.fill_(0.7)
    return network


X = torch.randn(300, 2, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


@pytest.mark.parametrize("layers", [0, 1, 4])
@pytest.mark.parametrize("block", [1 << 16, 7 * 2 * 24])  # all points in one block, blocks of 7
def test_each_gets_what_it_gives_alone(layers, block, monkeypatch, torch_device):
    monkeypatch.setattr("toyguide.stacks.BLOCK", block)
    networks = [make(seed, layers=layers).double().to(torch_device) for seed in (1, 2, 3)]
    x = X.to(torch_device)
    for sigma in (0.01, 0.5, 20.0):
        found = denoise_together(networks, x, sigma)
        assert len(found) == 3
        for network, denoised in zip(networks, found, strict=True):
            torch.testing.assert_close(denoised, network.denoise(x, sigma), rtol=1e-12, atol=1e-12)


def test_views_of_one_network_at_two_labels():
    network = make(4, labels=("left", "right")).double()
    left, union = network.with_label("left"), network.with_label(None)
    found = denoise_together([left, union], X, 0.5)
    torch.testing.assert_close(found[0], left.denoise(X, 0.5), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[1], union.denoise(X, 0.5), rtol=1e-12, atol=1e-12)
    assert (found[0] - found[1]).abs().max() > 1e-3


def test_weights_that_change_are_seen():
    networks = [make(seed).double() for seed in (5, 6)]
    before = denoise_together(networks, X, 0.5)
    with torch.no_grad():
        networks[1].weights[0].mul_(torch.linspace(0.5, 2, 4, dtype=torch.float64))
        networks[0].gain.add_(0.1)
    after = denoise_together(networks, X, 0.5)
    for network, denoised, old in zip(networks, after, before, strict=True):
        torch.testing.assert_close(denoised, network.denoise(X, 0.5), rtol=1e-12, atol=1e-12)
        assert (denoised - old).abs().max() > 1e-3


def test_fields_of_other_kinds_and_shapes_are_evaluated_one_by_one(fractal):
    fields = [make(1), make(2, width=8), fractal.field("A")]
    x = X.float()
    for field, denoised in zip(fields, denoise_together(fields, x, 0.5), strict=True):
        assert torch.equal(denoised, field.denoise(x, 0.5))


def test_autograd_reaches_through():
    networks = [make(seed).double() for seed in (7, 8)]
    x = X[:5].clone().requires_grad_()
    found = denoise_together(networks, x, 0.5)
    (jacobian,) = torch.autograd.grad(found[0][:, 0].sum(), x)
    expected = 0.25 * networks[0].hessian(x.detach(), 0.5)[:, 0] + torch.tensor([1.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(jacobian, expected)


def test_threads_do_not_write_into_each_others_rooms():
    network = load_model("fractal/main")
    x = [torch.randn(3000, 2, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    expected = [network.score(p, 0.3) for p in x]
    wrong = []

    def work(k):
        wrong.extend(k for _ in range(20) if not torch.equal(network.score(x[k], 0.3), expected[k]))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_results_outlive_the_room_and_modes_do_not_mix():
    network, mixture_points = load_model("fractal/main"), X.float()
    with torch.inference_mode():
        first = network.score(mixture_points, 0.3)
        kept = first.clone()
        network.score(2 * mixture_points, 0.3)
    assert torch.equal(first, kept)
    again = network.score(mixture_points, 0.3)  # the room was made in inference mode, if that had been allowed
    assert torch.equal(again, kept)
