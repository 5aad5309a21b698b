"""The energy network against its formula written out plainly, differentiated by autograd in float64."""

import itertools
import math

import pytest
import torch
from torch.nn import functional

from toyguide.errors import InputError
from toyguide.fields import networks
from toyguide.fields.networks import EnergyMLP

LABELS = [(), ("a", "b"), ("a", "b", "c")]
SIGMA_DATA = torch.tensor([0.5, 0.8, 0.3])


def make(labels=(), dim=3, width=24, layers=4, seed=0, gain=0.7, bounded=False):
    generator = torch.Generator().manual_seed(seed)
    network = EnergyMLP(dim, width, layers, SIGMA_DATA[:dim], labels, generator, bounded)
    with torch.no_grad():
        network.gain.fill_(gain)
    return network.double()


def plain_energy(network, x, sigma, code):
    """The module's formulas for one point: unit rows, SiLU over its gain, the log-density with its g."""
    x_star = x / torch.sqrt(sigma**2 + network.sigma_data**2)
    h = torch.cat([x_star, (torch.log(sigma) / 4)[None], x.new_ones(1), code])
    *hidden, last = [functional.normalize(w, dim=1) for w in network.weights]
    for w in hidden:
        h = functional.silu(w @ h) / 0.596
    g = -torch.abs(network.gain) if network.bounded else network.gain
    return -x_star.square().sum() / 2 + g / (sigma * network.width) * (last @ h).square().sum()


def points(network, *batch, seed=1):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(*batch, network.dim, generator=g, dtype=torch.float64)
    sigma = torch.randn(*batch, generator=g, dtype=torch.float64).exp()
    code = torch.randn(*batch, len(network.label_code), generator=g, dtype=torch.float64)
    return x, sigma, code


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize(("layers", "bounded"), [(0, False), (1, False), (4, False), (4, True)])
def test_score_is_the_gradient_of_the_formula_at_points_of_their_own_noise_and_label(labels, layers, bounded):
    network = make(labels, layers=layers, bounded=bounded)
    x, sigma, code = points(network, 2, 5)
    expected = [
        torch.func.grad(lambda p, s=s, c=c: plain_energy(network, p, s, c))(p)
        for p, s, c in zip(x.flatten(0, 1), sigma.flatten(), code.flatten(0, 1), strict=True)
    ]
    torch.testing.assert_close(network.score(x, sigma, code).flatten(0, 1), torch.stack(expected), rtol=1e-11, atol=0)


def test_a_bounded_energy_is_nowhere_above_a_gaussians_and_a_free_one_can_rise_outwards():
    """Along rays from 1 to 1000, for random weights: with g > 0 the energy ends above where it started."""
    g = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(64, 3, generator=g, dtype=torch.float64), dim=1)
    rays = directions * torch.logspace(0, 3, 16, dtype=torch.float64)[:, None, None]  # (16, 64, 3)
    for sigma in (0.01, 0.3, 5.0):
        gaussian = -0.5 * (rays.square() / (sigma**2 + SIGMA_DATA.double() ** 2)).sum(-1)
        for seed in range(4):
            assert (make(seed=seed, gain=2.0, bounded=True).log_density(rays, sigma) <= gaussian).all()
    rising = make(gain=2.0).log_density(rays, 0.01)
    assert (rising[-1] > rising[0]).any()


@pytest.mark.parametrize("labels", LABELS)
def test_log_density_and_hessian_are_those_of_the_formula(labels):
    network = make(labels)
    view = network.with_label(labels[-1]) if labels else network
    code = network.code(labels[-1] if labels else None).double()
    x, _, _ = points(network, 6)
    sigma = torch.tensor(0.3, dtype=torch.float64)

    def energy(point):
        return plain_energy(network, point, sigma, code)

    torch.testing.assert_close(view.log_density(x, 0.3), torch.stack([energy(p) for p in x]), rtol=1e-11, atol=0)
    expected = torch.stack([torch.func.hessian(energy)(p) for p in x])
    torch.testing.assert_close(view.hessian(x, 0.3), expected, rtol=1e-10, atol=1e-11)
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    product = (expected @ v[..., None])[..., 0]
    torch.testing.assert_close(view.jvp(x, 0.3, v), product, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(view.jvp(x, torch.full((6,), 0.3), v), product, rtol=1e-6, atol=1e-6)


def test_the_gradient_for_training_is_that_of_the_formula():
    network = make(("a", "b"))
    x, sigma, code = points(network, 4)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    found = torch.autograd.grad((network.score(x, sigma, code) * direction).sum(), list(network.parameters()))

    at = x.clone().requires_grad_(True)
    energy = sum(plain_energy(network, p, s, c) for p, s, c in zip(at, sigma, code, strict=True))
    (score,) = torch.autograd.grad(energy, at, create_graph=True)
    expected = torch.autograd.grad((score * direction).sum(), list(network.parameters()))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)


def test_many_points_give_what_each_gives_alone(monkeypatch):
    monkeypatch.setattr(networks, "block_size", lambda x, columns: 7)
    network = make(("a", "b"))
    x, sigma, code = points(network, 4, 5)
    with torch.no_grad():
        together = {
            "score": network.score(x, sigma, code),
            "log_density": network.log_density(x, sigma),
            "hessian": network.hessian(x, sigma),
        }
        assert network.score(x[:0], 1.0).shape == (0, 5, 3)
    for name, found in together.items():
        arguments = (x, sigma, code) if name == "score" else (x, sigma)
        for i, j in itertools.product(range(4), range(5)):
            alone = getattr(network, name)(*(a[i, j] for a in arguments))
            torch.testing.assert_close(found[i, j], alone, rtol=1e-12, atol=1e-12)


def test_starts_as_the_gaussian_of_the_data():
    """g starts at 0, and the rest is the log-density of N(0, diag(sigma_data^2 + sigma^2))."""
    network = EnergyMLP(3, 16, 4, SIGMA_DATA).double()
    x, sigma, _ = points(network, 50)
    variance = SIGMA_DATA.double() ** 2 + sigma[:, None] ** 2
    torch.testing.assert_close(network.score(x, sigma), -x / variance, rtol=1e-12, atol=0)
    expected = torch.distributions.Normal(torch.zeros(()), 1.0)
    unnormalised = (expected.log_prob(x / variance.sqrt()) - expected.log_prob(torch.zeros(()).double())).sum(-1)
    torch.testing.assert_close(network.log_density(x, sigma), unnormalised, rtol=1e-12, atol=0)


def test_layers_preserve_magnitudes():
    """Inputs of unit magnitude lead to outputs of unit magnitude: log_density with g = 1 is their mean square / sigma.

    sigma = e^4, sigma_data = 0 and |x*|^2 = d make the mean square of the inputs 1. That of the outputs has, over
    networks of width 512, a standard deviation of 0.12 (measured), so its mean over 32 one of 0.022, of which the
    tolerance is 4.6. A SiLU without its gain would give 0.356^4 = 0.016.
    """
    dim, sigma = 16, math.exp(4)
    magnitudes = []
    for seed in range(32):
        g = torch.Generator().manual_seed(seed)
        network = EnergyMLP(dim, 512, 4, torch.zeros(dim), generator=g).requires_grad_(False)
        network.gain.fill_(1.0)
        x_star = math.sqrt(dim) * functional.normalize(torch.randn(64, dim, generator=g), dim=-1)
        energy = network.log_density(sigma * x_star, sigma) + dim / 2
        magnitudes.append(sigma * energy.mean())
    assert abs(torch.stack(magnitudes).mean() - 1) < 0.1


@pytest.mark.parametrize(("width", "count"), [(64, 16_641), (32, 4_225)])
def test_parameter_counts_of_the_paper(width, count):
    assert sum(p.numel() for p in EnergyMLP(2, width, 4, SIGMA_DATA[:2]).parameters()) == count


def test_weights_are_directions():
    """normalize() sets the rows' norms to sqrt(inputs) and changes nothing that comes out."""
    network = make()
    x, sigma, _ = points(network, 9)
    before = network.score(x, sigma)
    with torch.no_grad():
        for w in network.weights:
            w.mul_(torch.rand(len(w), 1, dtype=torch.float64) + 0.1)
    torch.testing.assert_close(network.score(x, sigma), before, rtol=1e-11, atol=1e-12)
    network.normalize()
    for w in network.weights:
        torch.testing.assert_close(w.norm(dim=1).square() / w.shape[1], torch.ones(len(w)).double())


@pytest.mark.parametrize("labels", LABELS[1:])
def test_views_at_labels_share_weights_and_differ(labels):
    network = make(labels)
    x, _, _ = points(network, 9)
    views = [network.with_label(label) for label in (None, *labels)]
    for view, label in zip(views, (None, *labels), strict=True):
        assert view.label == label
        assert all(a is b for a, b in zip(view.parameters(), network.parameters(), strict=True))
        torch.testing.assert_close(view.score(x, 1.0), network.score(x, 1.0, network.code(label)), rtol=0, atol=0)
    scores = [view.score(x, 1.0) for view in views]
    for i in range(len(scores)):
        for j in range(i):
            assert (scores[i] - scores[j]).abs().max() > 1e-3, (i, j)
    torch.testing.assert_close(network.with_label(labels[0]).with_label(None).score(x, 1.0), scores[0], rtol=0, atol=0)


def test_label_inputs():
    assert [make(("a", "b")).code(x).tolist() for x in (None, "a", "b")] == [[0], [1], [-1]]
    one_hot = torch.stack([make(("a", "b", "c")).code(x) for x in "abc"])
    torch.testing.assert_close(one_hot, math.sqrt(3) * torch.eye(3))
    assert make(("a", "b", "c")).code(None).tolist() == [0, 0, 0]


def test_wrong_labels_and_points_are_refused():
    with pytest.raises(InputError, match=r"unknown label 'lefft': .*did you mean 'left'"):
        make(("left", "right")).with_label("lefft")
    with pytest.raises(InputError, match="'A': this network takes no label"):
        make().with_label("A")
    with pytest.raises(InputError, match="dimension 6: expected dimension 3"):
        make().score(torch.zeros(3, 6), 1.0)


def test_results_follow_dtype_and_device(torch_device):
    network = make(("a", "b")).to(torch_device)
    x, sigma, code = (t.to(torch_device) for t in points(network, 64))
    view = network.with_label("b")
    exact = {"score": network.score(x, sigma, code), "hessian": view.hessian(x, sigma)}
    network = network.float()
    for name, arguments in (("score", (x.float(), sigma.float(), code.float())), ("hessian", (x.float(), sigma))):
        found = getattr(network if name == "score" else network.with_label("b"), name)(*arguments)
        assert found.dtype == torch.float32
        assert found.device.type == torch_device.type
        # float32 rounding through six layers and back, relative to the largest value
        assert (found - exact[name]).abs().max() < 1e-4 * exact[name].abs().max(), name


def test_rows_that_are_kept_follow_the_weights():
    """Outside training the unit rows are kept between calls; every way of changing weights must be seen."""
    network, other = make(), make(seed=5)
    x, sigma, _ = points(network, 16)
    with torch.no_grad():
        before = network.score(x, sigma)
        for w, v in zip(network.weights, other.weights, strict=True):
            w.copy_(v)
        network.gain.copy_(other.gain)
        assert torch.equal(network.score(x, sigma), other.score(x, sigma))
        assert not torch.equal(network.score(x, sigma), before)
        network.weights[0].data = network.weights[0].data.flip(0).clone()
        assert not torch.equal(network.score(x, sigma), other.score(x, sigma))
