"""The network with an auxiliary read-out against its formula, and internal guidance on it against the closed form."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import seeded
from safetensors.torch import load_file, save_file
from torch.nn import functional

import toyguide as tg
from toyguide.datasets.checkpoints import load_model, save_model
from toyguide.datasets.references import resolve_field
from toyguide.errors import InputError
from toyguide.fields.networks import EnergyMLP
from toyguide.fields.two_headed import TwoHeadedMLP
from toyguide.guidance import Evaluation, Scene
from toyguide.training import TrainSettings, batch_loss, draw_batch, train

SHORT = {"dataset": "two-gaussians", "width": 16, "layers": 3, "batch": 256, "auxiliary": 2}
X = torch.randn(20, 2, generator=seeded(1), dtype=torch.float64)


def make(auxiliary=2, labels=(), seed=0) -> TwoHeadedMLP:
    sigma_data = torch.tensor([0.5, 0.8])
    network = TwoHeadedMLP(2, 12, 3, sigma_data, labels, seeded(seed), auxiliary=auxiliary)
    network.gain.data.fill_(-0.7)
    network.auxiliary_gain.data.fill_(-0.4)
    return network.double()


def plain_energies(network, x, sigma):
    """G and G_mid of one point by their formulas: unit rows, SiLU over its gain, the features after ``auxiliary``."""
    x_star = x / torch.sqrt(sigma**2 + network.sigma_data**2)
    features = [torch.cat([x_star, x.new_tensor([math.log(sigma) / 4, 1.0]), network.label_code])]
    *hidden, last = [functional.normalize(w, dim=1) for w in network.weights]
    for w in hidden:
        features.append(functional.silu(w @ features[-1]) / 0.596)
    middle = functional.normalize(network.auxiliary_weights, dim=1) @ features[network.auxiliary]
    ends = ((network.gain, last @ features[-1]), (network.auxiliary_gain, middle))
    return [-x_star.square().sum() / 2 + g / (sigma * 12) * f.square().sum() for g, f in ends]


@pytest.mark.parametrize("auxiliary", [1, 2])
@pytest.mark.parametrize("labels", [(), ("a", "b")])
def test_both_scores_are_the_gradients_of_their_formulas(auxiliary, labels):
    network = make(auxiliary, labels)
    network = network.with_label("b") if labels else network
    for i, field in enumerate((network, network.middle)):
        expected = torch.stack([torch.func.grad(lambda p, i=i: plain_energies(network, p, 0.3)[i])(x) for x in X])
        torch.testing.assert_close(field.score(X, 0.3), expected, rtol=1e-10, atol=1e-12)


def test_it_starts_with_the_weights_of_the_network_without():
    plain = EnergyMLP(2, 12, 3, torch.ones(2), generator=seeded(0))
    both = TwoHeadedMLP(2, 12, 3, torch.ones(2), generator=seeded(0), auxiliary=2)
    for name, value in plain.state_dict().items():
        assert torch.equal(both.state_dict()[name], value), name
    rows = both.auxiliary_weights.norm(dim=1)
    torch.testing.assert_close(rows, torch.full_like(rows, math.sqrt(12)))


def test_the_loss_is_the_main_one_and_half_the_auxiliary_one():
    """Gradients of all weights, by autograd through the formulas."""
    network = make()
    batch = draw_batch(TrainSettings(**SHORT | {"batch": 8}), network, seeded(3))
    batch = type(batch)(*(t.double() for t in vars(batch).values()))
    parameters = list(network.parameters())
    found = torch.autograd.grad(batch_loss(network, batch), parameters)

    at = batch.x.clone().requires_grad_()
    energies = [plain_energies(network, p, float(s)) for p, s in zip(at, batch.sigma, strict=True)]
    loss = 0
    for share, energy in zip((1.0, 0.5), zip(*energies, strict=True), strict=True):
        (score,) = torch.autograd.grad(sum(energy), at, create_graph=True)
        loss = loss + share * (batch.sigma**2 * (score - batch.target).square().sum(-1)).mean()
    torch.testing.assert_close(found, torch.autograd.grad(loss, parameters), rtol=1e-8, atol=1e-10)


def test_training_teaches_both_read_outs_and_follows_the_seed(torch_device):
    def trained(seed):
        *_, step = train(TrainSettings(**SHORT, iterations=300, ema=(0.1,), seed=seed), torch_device.type)
        return step.averages[0.1]

    network = trained(0)
    settings = TrainSettings(**SHORT | {"auxiliary": None, "batch": 4000})
    held_out = draw_batch(settings, network, seeded(9))
    untrained = float(batch_loss(EnergyMLP(2, 4, 0, settings.data.sigma_data).to(torch_device), held_out).detach())
    for field in (network.middle, EnergyMLP.early_exit(network, 3)):
        assert float(batch_loss(field, held_out)) < 0.4 * untrained  # 0.17 measured
    again, other = trained(0), trained(1)
    for a, b, c in zip(network.parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
    for w in (*network.weights, network.auxiliary_weights):
        assert w.norm(dim=1).max() < 1.01 * math.sqrt(w.shape[1])


def test_the_middle_follows_moves_and_labels():
    network = make(labels=("a", "b"))
    left, right = network.with_label("a").middle, network.with_label("b").middle
    assert (left.score(X, 0.5) - right.score(X, 0.5)).abs().max() > 1e-3
    assert network.with_label("a").middle.label == "a"
    single = network.float().middle.score(X.float(), 0.5)
    torch.testing.assert_close(single.double(), make(labels=("a", "b")).middle.score(X, 0.5), rtol=1e-4, atol=1e-4)
    assert network.middle is network.middle  # kept, and with it what is computed once for its weights


@torch.no_grad()
def test_files_keep_both_and_bad_ones_are_refused_in_one_line(tmp_path):
    made = make().float()
    path = tmp_path / "net.safetensors"
    save_model(made, path, {})
    read, x = load_model(path), X.float()
    assert isinstance(read, TwoHeadedMLP)
    assert read.auxiliary == 2
    for a, b in ((read, made), (read.middle, made.middle), (resolve(f"{path}+layer:2"), made.middle)):
        assert torch.equal(a.score(x, 0.7), b.score(x, 0.7))

    raw, tensors = path.read_bytes(), load_file(path)
    for name, content in (
        ("deep", raw.replace(b'"auxiliary\\": 2', b'"auxiliary\\": 7')),
        ("text", raw.replace(b'"auxiliary\\": 2', b'"auxiliary\\": {')),
    ):
        assert content != raw
        (tmp_path / f"{name}.safetensors").write_bytes(content)
    described = {"toyguide": header(path)}
    save_file({k: v for k, v in tensors.items() if "auxiliary" not in k}, tmp_path / "lacking.safetensors", described)
    for name in ("deep", "text", "lacking"):
        with pytest.raises(InputError, match=rf"^model .*{name}\.safetensors': ") as caught:
            load_model(tmp_path / f"{name}.safetensors")
        assert "\n" not in str(caught.value)


def header(path) -> str:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return file.metadata()["toyguide"]


def resolve(reference):
    return resolve_field(reference, tg.load_dataset("two-gaussians"), None)


@pytest.mark.parametrize("wrong", [0, 3, -1, True, 1.0])
def test_wrong_layers_are_refused(wrong):
    with pytest.raises(InputError, match=r"auxiliary = .*: expected a hidden layer before the last, 1 to 2"):
        TrainSettings(**SHORT | {"auxiliary": wrong})


# The rule


@pytest.mark.parametrize("w", [0.0, 1.0, 2.5])
def test_the_rule_extrapolates_from_the_middle_and_counts_one_evaluation(w):
    network = make()
    at = Evaluation(Scene({"main": network}, (0.4, 0.0)), X, 0.4)
    guided = tg.rule("internal-guidance", w=w).guide(at, None).denoised
    final, middle = (
        torch.stack([x + 0.16 * torch.func.grad(lambda p, i=i: plain_energies(network, p, 0.4)[i])(x) for x in X])
        for i in range(2)
    )
    torch.testing.assert_close(guided, middle + w * (final - middle), rtol=1e-10, atol=1e-12)
    assert at.cost.evaluations == 1


def test_a_run_takes_the_dataset_network_and_counts_as_the_unguided_one():
    e = tg.Experiment("fractal", "A", rule="internal-guidance", n=64, steps=8)
    assert e.main == "fractal/internal"
    guided, plain = e.run("cpu"), tg.Experiment("fractal", "A", main="fractal/internal", n=64, steps=8).run("cpu")
    assert guided.nfe == plain.nfe
    off = tg.Experiment("fractal", "A", rule="internal-guidance", params={"w": 1.0}, n=64, steps=8).run("cpu")
    assert torch.equal(off.x, plain.x)
    assert (guided.x[-1] - plain.x[-1]).abs().max() > 1e-3


def test_it_is_autoguidance_from_the_early_exit():
    """The same numbers as with the cut network as a second field, which costs a second evaluation."""
    common = {"dataset": "fractal", "label": "A", "main": "fractal/internal", "n": 64, "steps": 8, "params": {"w": 2.0}}
    inside = tg.Experiment(**common, rule="internal-guidance").run("cpu")
    beside = tg.Experiment(**common, rule="autoguidance", weak="fractal/internal+layer:2").run("cpu")
    torch.testing.assert_close(inside.x, beside.x, rtol=1e-5, atol=1e-5)
    assert 2 * float(inside.nfe) == float(beside.nfe)


def test_without_such_a_network_it_says_so():
    with pytest.raises(InputError, match="two-gaussians has no network with an auxiliary read-out for class left"):
        tg.Experiment("two-gaussians", "left", rule="internal-guidance")
    with pytest.raises(InputError, match="has no network with an auxiliary read-out for class B"):
        tg.Experiment("fractal", "B", rule="internal-guidance")
    with pytest.raises(InputError, match="expected a network with an auxiliary read-out, like fractal/internal"):
        tg.Experiment("fractal", "A", main="fractal/main", rule="internal-guidance").run("cpu")
    with pytest.raises(InputError, match=r"'exact': expected .*, made by toyguide train --auxiliary LAYER"):
        tg.Experiment("two-gaussians", "left", main="exact", rule="internal-guidance").run("cpu")
