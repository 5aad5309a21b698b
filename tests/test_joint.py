"""Several networks at once against each on its own, and the room that they all write over."""

import copy
import threading
from contextlib import nullcontext

import pytest
import torch

from toyguide import load_model
from toyguide._speed import compiled
from toyguide.fields.joint import denoise_together
from toyguide.fields.networks import EnergyMLP


def make(seed, width=24, layers=3, labels=()):
    g = torch.Generator().manual_seed(seed)
    network = EnergyMLP(2, width, layers, torch.rand(2, generator=g) + 0.5, labels, g).requires_grad_(False)
    network.gain.fill_(0.7)
    return network


X = torch.randn(300, 2, generator=torch.Generator().manual_seed(9))


def check(networks, x, sigma):
    """Against each alone in float64; returns what was found."""
    found = denoise_together(networks, x, sigma)
    assert len(found) == len(networks)
    for network, denoised in zip(networks, found, strict=True):
        exact = copy.deepcopy(network).double().denoise(x.double(), sigma)
        # D = x + sigma^2 s: what of x cancels is rounded with x.
        torch.testing.assert_close(denoised.double(), exact, rtol=1e-5, atol=1e-6 * float(x.abs().max()))
    return found


@pytest.mark.parametrize("layers", [0, 1, 4])
@pytest.mark.parametrize("threads", [1, 3])
def test_each_gets_what_it_gives_alone(layers, threads, monkeypatch, way, torch_device):
    monkeypatch.setattr("toyguide._speed.compiled._THREADS", threads)
    networks = [make(seed, width, layers).to(torch_device) for seed, width in ((1, 24), (2, 16), (3, 33))]
    for sigma in (0.01, 0.5, 20.0):
        check(networks, X.to(torch_device), sigma)


def test_threads_share_the_work_by_its_cost_not_by_the_number_of_points(monkeypatch, way):
    """A wide network beside a narrow one: in quarters, all but one are of the wide one alone."""
    if way == "torch":
        pytest.skip("one thread")
    made, original = [], compiled.energy_gradient

    def recorded(weights, width, *rest):
        work = original(weights, width, *rest)
        return lambda begin, end: (made.append((width, end - begin)), work(begin, end))

    monkeypatch.setattr(compiled, "energy_gradient", recorded)
    monkeypatch.setattr(compiled, "_THREADS", 4)
    check([make(1, 96), make(2, 16)], torch.randn(2000, 2, generator=torch.Generator().manual_seed(3)), 0.5)
    # Costs of 96 (96 + 32) and 16 (16 + 32) a point: a quarter of the whole is 531 points of the wide one.
    assert sorted(made) == [(16, 2000), (96, 407), (96, 531), (96, 531), (96, 531)]


def test_views_of_one_network_at_two_labels(way):
    network = make(4, labels=("left", "right"))
    left, union = check([network.with_label("left"), network.with_label(None)], X, 0.5)
    assert (left - union).abs().max() > 1e-3


def test_fields_of_other_kinds_and_shapes_are_evaluated_one_by_one(fractal):
    fields = [make(1), make(2, width=8), fractal.field("A")]
    for field, denoised in zip(fields, denoise_together(fields, X, 0.5), strict=True):
        assert torch.equal(denoised, field.denoise(X, 0.5))


def test_autograd_reaches_through():
    networks = [make(seed).double() for seed in (7, 8)]
    x = X[:5].double().requires_grad_()
    found = denoise_together(networks, x, 0.5)
    (jacobian,) = torch.autograd.grad(found[0][:, 0].sum(), x)
    expected = 0.25 * networks[0].hessian(x.detach(), 0.5)[:, 0] + torch.tensor([1.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(jacobian, expected)


def test_threads_do_not_write_into_each_others_rooms(way):
    network = load_model("fractal/main")
    x = [torch.randn(3000, 2, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    expected = [network.score(p, 0.3) for p in x]
    wrong = []

    def work(k):
        with compiled.without() if way == "torch" else nullcontext():
            wrong.extend(k for _ in range(20) if not torch.equal(network.score(x[k], 0.3), expected[k]))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_results_outlive_the_room_and_modes_do_not_mix(way):
    network, points = load_model("fractal/main"), X
    with torch.inference_mode():
        first = network.score(points, 0.3)
        kept = first.clone()
        network.score(2 * points, 0.3)
    assert torch.equal(first, kept)
    again = network.score(points, 0.3)  # the room was made in inference mode, if that had been allowed
    assert torch.equal(again, kept)
