"""Training: its averages, rates, losses and batches against closed forms, and the command that runs it."""

import json
import math
import signal

import pytest
import torch

from toyguide import load_dataset, load_model
from toyguide.cli import main
from toyguide.commands import train as command
from toyguide.errors import InputError
from toyguide.fields.networks import EnergyMLP
from toyguide.training import (
    LabelledDraws,
    PowerFunctionEMA,
    TrainSettings,
    batch_loss,
    draw_batch,
    ema_exponent,
    train,
)

SHORT = {"dataset": "two-gaussians", "width": 16, "layers": 2, "batch": 256}


def weights(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


# Averages


def test_ema_exponents_of_the_paper():
    """Karras et al. 2023 give gamma = 16.97 and 6.94 for the lengths 0.05 and 0.10."""
    assert ema_exponent(0.05) == pytest.approx(16.97, abs=0.005)
    assert ema_exponent(0.10) == pytest.approx(6.94, abs=0.005)


@pytest.mark.parametrize("sigma_rel", [0.01, 0.05, 0.1, 0.25])
def test_the_averaging_profile_has_the_length_it_is_named_by(sigma_rel):
    """Averaging t and t^2 gives the profile's mean and variance."""
    length = 4000
    network = EnergyMLP(2, 1, 0, torch.ones(2)).double()
    first, second = PowerFunctionEMA(network, sigma_rel), PowerFunctionEMA(network, sigma_rel)
    for t in range(1, length + 1):
        for average, value in ((first, t), (second, t**2)):
            with torch.no_grad():
                network.gain.fill_(float(value))
            average.update(network, average.weight(t))
    std = math.sqrt(second.network.gain - first.network.gain**2) / length
    assert std == pytest.approx(sigma_rel, rel=1e-3)  # a profile of 4000 steps in place of a continuous one


def test_averages_are_the_profile_over_the_recorded_weights():
    """That of iteration tau in the average at T telescopes to (tau^(gamma+1) - (tau-1)^(gamma+1)) / T^(gamma+1)."""
    lengths = (0.02, 0.1)
    history = []
    for step in train(TrainSettings(**SHORT, iterations=40, ema=lengths), "cpu"):
        history.append(weights(step.network).double())
    for sigma_rel in lengths:
        ends = (torch.arange(41, dtype=torch.float64) / 40) ** (ema_exponent(sigma_rel) + 1)
        expected = ends.diff() @ torch.stack(history)
        torch.testing.assert_close(weights(step.averages[sigma_rel]).double(), expected, rtol=1e-5, atol=1e-6)
    assert (weights(step.averages[0.02]) - weights(step.averages[0.1])).abs().max() > 1e-2


# The optimizer


def test_learning_rate_schedule():
    settings = TrainSettings(learning_rate=0.02, t_ref=100)
    assert [settings.learning_rate_at(t) for t in (1, 100, 400, 10_000)] == pytest.approx([0.02, 0.02, 0.01, 0.002])
    steps = list(train(TrainSettings(**SHORT, iterations=9, t_ref=2.25), "cpu"))
    assert [s.learning_rate for s in steps[:2]] == [0.01, 0.01]
    assert steps[-1].learning_rate == pytest.approx(0.005)
    # Adam's first update of a scalar is its rate, whatever the gradient.
    for bounded, start in ((False, 0.0), (True, 0.05)):
        first = next(train(TrainSettings(**SHORT, iterations=1, learning_rate=0.003, bounded=bounded), "cpu"))
        assert abs(first.network.gain.item() - start) == pytest.approx(0.003, rel=1e-3)


def test_steps_are_adams_with_the_papers_betas():
    """Kingma and Ba's Algorithm 1 by hand, on the gradients of the same batches, rows brought back to their norm."""
    settings = TrainSettings(**SHORT, iterations=12, t_ref=4)
    steps = [weights(step.network) for step in train(settings, "cpu")]

    g = torch.Generator().manual_seed(settings.seed)
    network = EnergyMLP(2, 16, 2, settings.data.sigma_data, generator=g, bounded=True)
    parameters = list(network.parameters())
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
    for t in range(1, 13):
        gradients = torch.autograd.grad(batch_loss(network, draw_batch(settings, network, g)), parameters)
        with torch.no_grad():
            for p, grad, (m, v) in zip(parameters, gradients, moments, strict=True):
                m.mul_(0.9).add_(0.1 * grad)
                v.mul_(0.99).add_(0.01 * grad**2)
                rate = 0.01 / math.sqrt(max(t / 4, 1))
                p -= rate * (m / (1 - 0.9**t)) / ((v / (1 - 0.99**t)).sqrt() + 1e-8)
                if p.ndim:
                    p *= math.sqrt(p.shape[1]) / p.norm(dim=1, keepdim=True)
        torch.testing.assert_close(weights(network), steps[t - 1], rtol=1e-4, atol=1e-4)


def test_weight_rows_keep_their_norm():
    *_, step = train(TrainSettings(**SHORT, iterations=20), "cpu")
    for w in step.network.weights:
        torch.testing.assert_close(w.norm(dim=1), torch.full((len(w),), math.sqrt(w.shape[1])))


# The losses


def test_exact_and_denoising_losses_have_the_same_expected_gradient():
    """Their gradients on the same points differ by noise of zero mean.

    With the difference's mean m over n batches and the variance v of its entries, n |m|^2 / sum v has the mean 1; its
    standard deviation is below sqrt(2) and, over the hundreds of directions here, 0.3 (measured). A target of the
    wrong sign or scale gives more than 100.
    """
    network = EnergyMLP(2, 16, 2, load_dataset("two-gaussians").sigma_data, generator=torch.Generator().manual_seed(0))
    torch.nn.init.constant_(network.gain, 0.5)
    gradients = {}
    for loss in ("exact", "denoising"):
        settings = TrainSettings(**SHORT | {"batch": 64}, loss=loss)
        g = torch.Generator().manual_seed(1)
        rows = []
        for _ in range(400):
            value = batch_loss(network, draw_batch(settings, network, g))
            rows.append(torch.cat([p.flatten() for p in torch.autograd.grad(value, list(network.parameters()))]))
        gradients[loss] = torch.stack(rows)
    difference = gradients["denoising"] - gradients["exact"]
    assert len(difference) * difference.mean(0).square().sum() / difference.var(0).sum() < 3
    exact = gradients["exact"]
    assert len(exact) * exact.mean(0).square().sum() / exact.var(0).sum() > 30  # there is a gradient to tell


def test_a_free_gain_takes_its_sign_by_chance_and_a_bounded_one_is_negative():
    """Eight seeds with a free gain end on both sides; from the same weights and batches a bounded one cannot."""
    short = {"dataset": "fractal", "width": 16, "layers": 2, "batch": 256, "iterations": 60}
    signs = {
        bounded: [
            math.copysign(1, float(step.network.g.detach()))
            for seed in range(8)
            for *_, step in [train(TrainSettings(**short, seed=seed, bounded=bounded), "cpu")]
        ]
        for bounded in (False, True)
    }
    assert set(signs[False]) == {-1.0, 1.0}
    assert set(signs[True]) == {-1.0}


def test_the_loss_of_the_exact_score_is_zero_and_that_of_the_start_is_known():
    """A network that starts as a Gaussian has, on one Gaussian of its sigma_data, nothing to learn."""
    settings = TrainSettings(**SHORT, conditional=True)
    data = settings.data
    network = EnergyMLP(2, 16, 2, data.components.mixture.covariances[0].diagonal().sqrt(), data.labels)
    batch = draw_batch(settings, network, torch.Generator().manual_seed(0))
    left = batch.code[:, 0] == 1
    centred = batch.x - torch.where(left[:, None], -1.0, 1.0) * torch.tensor([1.0, 0.0])
    classes = batch.code[:, 0] != 0
    torch.testing.assert_close(
        network.score(centred, batch.sigma)[classes], batch.target[classes], rtol=1e-4, atol=1e-4
    )
    # Off by a shift of 1 along the first axis, the loss of each point is sigma^2 / (0.05 + sigma^2)^2.
    sigma = batch.sigma.double()
    only = type(batch)(batch.x[classes], batch.sigma[classes], batch.code[classes], batch.target[classes])
    expected = (sigma**2 / (0.05 + sigma**2) ** 2)[classes].mean()
    assert batch_loss(network, only).item() == pytest.approx(float(expected), rel=1e-3)


def test_points_of_a_batch_are_the_diffused_data_at_the_datasets_noise():
    data = load_dataset("fractal")
    settings = TrainSettings(dataset="fractal", label="B", batch=20_000)
    network = EnergyMLP(2, 4, 0, data.sigma_data)
    batch = draw_batch(settings, network, torch.Generator().manual_seed(0))
    n = settings.batch
    log_sigma = batch.sigma.log()
    # five standard errors of a mean and of a standard deviation
    assert abs(log_sigma.mean() - data.noise.mean) < 5 * data.noise.std / math.sqrt(n)
    assert abs(log_sigma.std() - data.noise.std) < 5 * data.noise.std / math.sqrt(2 * n)
    # Scores average to zero over the distribution that they are of: an entry's z-score, over sigma so that it is tame.
    scaled = batch.target * batch.sigma[:, None]
    assert (scaled.mean(0) / (scaled.std(0) / math.sqrt(n))).abs().max() < 5
    torch.testing.assert_close(batch.target, data.field("B").score(batch.x, batch.sigma))


@pytest.mark.parametrize("by_point", [False, True])
@pytest.mark.parametrize("dataset", ["two-gaussians", "fractal", "simplex16"])
def test_a_conditional_batch_is_half_union_and_its_targets_are_its_labels(dataset, by_point):
    """Drawn label by label, as on a CPU, and point by point, as on a GPU."""
    settings = TrainSettings(dataset=dataset, conditional=True, batch=4000)
    data = settings.data
    network = EnergyMLP(data.dim, 4, 0, data.sigma_data, data.labels)
    if by_point:
        batch = LabelledDraws(settings, data, network)(torch.Generator().manual_seed(0))
    else:
        batch = draw_batch(settings, network, torch.Generator().manual_seed(0))
    seen = torch.zeros(len(batch.x), dtype=torch.bool)
    for label in (None, *data.labels):
        of_label = (batch.code == network.code(label)).all(1)
        share = 0.5 if label is None else 0.5 / len(data.labels)
        deviation = math.sqrt(share * (1 - share) / len(seen))
        assert abs(of_label.double().mean() - share) < 5 * deviation, label
        field, x, sigma = data.field(label), batch.x[of_label], batch.sigma[of_label]
        expected = field.score(x.double(), sigma.double())
        torch.testing.assert_close(
            batch.target[of_label].double() * sigma[:, None], expected * sigma[:, None], rtol=1e-4, atol=1e-4
        )
        # Scores average to zero over the distribution that they are of, five standard errors of a mean.
        scaled = expected * sigma[:, None]
        assert (scaled.mean(0) / (scaled.std(0) / math.sqrt(len(x)))).abs().max() < 5, label
        seen |= of_label
    assert seen.all()


@pytest.mark.parametrize("loss", ["exact", "denoising"])
def test_a_short_training_learns_the_score(loss, torch_device):
    settings = TrainSettings(**SHORT | {"batch": 512}, iterations=400, loss=loss, ema=(0.1,))
    data = settings.data
    held_out = draw_batch(TrainSettings(**SHORT | {"batch": 4000}), EnergyMLP(2, 4, 0, data.sigma_data), _seeded(9))
    held_out = type(held_out)(*(t.to(torch_device) for t in vars(held_out).values()))
    start = batch_loss(EnergyMLP(2, 4, 0, data.sigma_data).to(torch_device), held_out)
    *_, step = train(settings, torch_device.type)
    assert step.averages[0.1].gain.device.type == torch_device.type
    # 0.13 (exact) and 0.22 (denoising) of the start's, measured
    assert batch_loss(step.averages[0.1], held_out) < 0.3 * start


@pytest.mark.parametrize("conditional", [False, True])
def test_same_seed_same_weights(conditional, torch_device):
    def trained(seed):
        *_, step = train(TrainSettings(**SHORT, iterations=12, conditional=conditional, seed=seed), torch_device.type)
        return weights(step.averages[0.010])

    assert torch.equal(trained(1), trained(1))
    assert not torch.equal(trained(1), trained(2))


def _seeded(seed):
    return torch.Generator().manual_seed(seed)


# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset": "fractle"}, "unknown dataset .*'fractle'.*did you mean 'fractal'"),
        ({"label": "C"}, "unknown label of fractal 'C': expected one of A, B"),
        ({"label": "A", "conditional": True}, "label 'A': a conditional network models every class"),
        ({"loss": "exakt"}, "unknown loss 'exakt'.*did you mean 'exact'"),
        ({"width": 0}, "width = 0: expected a whole number from 1"),
        ({"iterations": 2.5}, "iterations = 2.5: expected a whole number"),
        ({"batch": True}, "batch = True: expected a whole number"),
        ({"seed": -1}, "seed = -1: expected a whole number from 0"),
        ({"learning_rate": 0.0}, "learning_rate = 0.0: expected a positive number"),
        ({"learning_rate": math.nan}, "learning_rate = nan: expected a positive number"),
        ({"t_ref": "x"}, "t_ref = 'x': expected a positive number"),
        ({"ema": ()}, "ema = .*: expected one or more different lengths"),
        ({"ema": (0.1, 0.1)}, "expected one or more different lengths"),
        ({"ema": (0.3,)}, "ema 0.3: expected a length between 0 and 0.289"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message) as caught:
        TrainSettings(**settings)
    assert "\n" not in str(caught.value)


# The command

QUICK = [
    "train",
    "--dataset",
    "two-gaussians",
    "--width",
    "8",
    "--iterations",
    "20",
    "--batch",
    "32",
    "--device",
    "cpu",
]


def test_the_command_writes_every_length_and_snapshot(tmp_path, capsys):
    flags = ["--ema", "0.02,0.1", "--snapshot-every", "8", "--seed", "3", "--conditional", "--json"]
    assert main([*QUICK, *flags, "-o", str(tmp_path / "net.safetensors")]) == 0
    report = json.loads(capsys.readouterr().out)
    names = ["net-iter0000008", "net-iter0000016", "net", "net-ema0.100"]
    assert report["files"] == [str(tmp_path / f"{name}.safetensors") for name in names]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(f"{name}.safetensors" for name in names)

    settings = TrainSettings("two-gaussians", None, True, 8, 4, 20, 32, ema=(0.02, 0.1), seed=3)
    steps = list(train_copies(settings))
    for name, (iteration, sigma_rel) in zip(names, [(8, 0.02), (16, 0.02), (20, 0.02), (20, 0.1)], strict=True):
        network = load_model(tmp_path / f"{name}.safetensors")
        assert torch.equal(weights(network), steps[iteration - 1][sigma_rel]), name
        training = network.metadata["training"]
        assert training["settings"] == json.loads(json.dumps(vars(settings)))
        assert (training["iterations"], training["ema"]) == (iteration, sigma_rel)
    assert report["parameters"] == len(weights(network)) == sum((5 * 8, 4 * 64, 1))
    losses = [float(step["loss"]) for step in steps]
    assert report["final_loss"] == training["final_loss"] == pytest.approx(sum(losses) / 20, rel=1e-5)
    assert [loss for _, loss in training["loss_curve"]] == pytest.approx(losses, rel=1e-5)
    assert report["seconds"] == training["seconds"]


def train_copies(settings):
    for step in train(settings, "cpu"):
        yield {"loss": step.loss} | {k: weights(v) for k, v in step.averages.items()}


def test_the_final_loss_and_the_loss_curve_are_means():
    losses = [torch.tensor(float(i)) for i in range(1, 1001)]
    assert command._final(losses) == (937 + 1000) / 2
    curve = command._curve(losses)
    assert len(curve) <= 64
    assert curve[0] == [16, 8.5]
    assert curve[-1] == [1000, (993 + 1000) / 2]


def test_the_command_speaks_to_people(tmp_path, capsys):
    assert main([*QUICK, "--label", "left", "-o", str(tmp_path / "net.safetensors")]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    assert "net.safetensors: loss 0." in out
    assert "289 parameters" in out
    assert "20/20" in err  # the progress bar
    assert "loss=" in err
    assert load_model(tmp_path / "net.safetensors").label == "left"


def interrupted_after(count):
    """A training that Ctrl-C reaches during step ``count``."""

    def training(settings, device):
        for step in train(settings, device):
            if step.iteration == count:
                signal.raise_signal(signal.SIGINT)
            yield step

    return training


def test_ctrl_c_leaves_the_network_so_far(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "train", interrupted_after(7))
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as caught:
        main([*QUICK, "--snapshot-every", "5", "-o", str(tmp_path / "net.safetensors")])
    assert caught.value.code == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net-iter0000005.safetensors", "net-iter0000007.safetensors"]
    kept = tmp_path / "net-iter0000007.safetensors"
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == f"toyguide: interrupted after 7 iterations; the network so far is {kept}"

    settings = TrainSettings("two-gaussians", width=8, iterations=20, batch=32)
    assert torch.equal(weights(load_model(kept)), list(train_copies(settings))[6][0.010])


def test_a_diverging_training_is_refused_and_writes_nothing(tmp_path, capsys):
    assert main([*QUICK, "--learning-rate", "1e30", "-o", str(tmp_path / "net.safetensors")]) == 2
    assert "learning rate 1e+30: the loss is" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-o", "{}/missing/net.safetensors"], "missing' does not exist"),
        (["-o", "{}/net.pt"], "net.pt': expected a name that ends in .safetensors"),
        (["-o", "{}"], "is a folder: expected a file name"),
        (["-o", "{}/n.safetensors", "--label", "lefft"], "unknown label of two-gaussians 'lefft'"),
        (["-o", "{}/n.safetensors", "--ema", "0.1;0.2"], "--ema '0.1;0.2': expected lengths separated by commas"),
        (["-o", "{}/n.safetensors", "--ema", "0.1001,0.1002"], "differ by at least 0.001"),
        (["-o", "{}/n.safetensors", "--snapshot-every", "0"], "--snapshot-every 0: expected a whole number"),
        (["-o", "{}/n.safetensors", "--device", "gpu"], "unknown device 'gpu'"),
        (["-o", "{}/n.safetensors", "--loss", "denoise"], "unknown loss 'denoise'"),
    ],
)
def test_wrong_flags_are_refused_before_training(tmp_path, capsys, monkeypatch, flags, message):
    monkeypatch.setattr(command, "train", lambda *_: pytest.fail("training began"))
    assert main([*QUICK, *(flag.format(tmp_path) for flag in flags)]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())
