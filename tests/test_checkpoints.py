"""Checkpoints: bit-exact there and back, whole or not at all; and the bundled networks, against their exact fields."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from toyguide import load_dataset, load_model
from toyguide.datasets import dataset_root
from toyguide.datasets.checkpoints import model_names, save_model
from toyguide.errors import InputError
from toyguide.fields.networks import EnergyMLP


@pytest.fixture
def network():
    sigma_data = torch.tensor([0.5, 0.7, 0.9])
    made = EnergyMLP(3, 12, 2, sigma_data, ("a", "b", "c"), torch.Generator().manual_seed(0))
    torch.nn.init.constant_(made.gain, 0.4)
    return made


@torch.no_grad()  # a network that is being trained takes another way to the same, rounded otherwise
@pytest.mark.parametrize(("labels", "bounded"), [((), False), (("a", "b", "c"), True)])
def test_there_and_back_is_bit_exact(tmp_path, labels, bounded):
    made = EnergyMLP(3, 12, 2, torch.rand(3), labels, torch.Generator().manual_seed(0), bounded)
    torch.nn.init.constant_(made.gain, 0.4)
    made.label = None if labels else "a"
    training = {"settings": {"seed": 3, "ema": [0.01]}, "loss_curve": [[16, 0.25]]}
    save_model(made, tmp_path / "net.safetensors", training)
    read = load_model(tmp_path / "net.safetensors")

    assert {k: v.tolist() for k, v in read.state_dict().items()} == {
        k: v.tolist() for k, v in made.state_dict().items()
    }
    assert (read.dim, read.width, read.layers, read.labels, read.label) == (3, 12, 2, labels, made.label)
    assert read.bounded == bounded
    assert read.metadata["training"] == training
    assert not any(p.requires_grad for p in read.parameters())
    x = torch.randn(9, 3)
    assert torch.equal(read.score(x, 0.7), made.score(x, 0.7))
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]


@torch.no_grad()
def test_a_path_takes_a_label(tmp_path, network):
    save_model(network, tmp_path / "net.safetensors", {})
    x = torch.randn(9, 3)
    read = load_model(f"{tmp_path}/net.safetensors@b")
    assert read.label == "b"
    assert torch.equal(read.score(x, 0.7), network.with_label("b").score(x, 0.7))
    assert torch.equal(load_model(f"{tmp_path}/net.safetensors@union").score(x, 0.7), network.score(x, 0.7))


def described(network, **changed):
    built = {"dim": network.dim, "width": network.width, "layers": network.layers, "labels": list(network.labels)}
    return {"toyguide": json.dumps({"format": 1, "network": built, "label": None, "training": {}} | changed)}


def test_foreign_and_damaged_files_are_refused_in_one_line(tmp_path, network):
    good = tmp_path / "good.safetensors"
    save_model(network, good, {})
    whole, tensors = good.read_bytes(), load_file(good)
    lacking = {k: v for k, v in tensors.items() if k != "weights.1"}
    wider = described(EnergyMLP(3, 13, 2, torch.ones(3), network.labels))

    damaged = {
        "truncated": whole[: len(whole) // 2],
        "no_header": whole[:4],
        "empty": b"",
        "not_safetensors": b"PK\x03\x04 something else entirely",
    }
    for name, content in damaged.items():
        (tmp_path / f"{name}.safetensors").write_bytes(content)
    save_file(tensors, tmp_path / "foreign.safetensors")
    save_file(tensors, tmp_path / "not_json.safetensors", {"toyguide": "{"})
    save_file(tensors, tmp_path / "a_list.safetensors", {"toyguide": "[]"})
    save_file(tensors, tmp_path / "newer.safetensors", described(network, format=2))
    save_file(tensors, tmp_path / "no_label.safetensors", {"toyguide": json.dumps({"format": 1, "network": {}})})
    save_file(lacking, tmp_path / "lacking.safetensors", described(network))
    save_file(tensors, tmp_path / "other_shape.safetensors", wider)
    save_file(
        tensors | {"weights.1": torch.full_like(tensors["weights.1"], torch.nan)},
        tmp_path / "not_finite.safetensors",
        described(network),
    )
    bad = sorted(set(tmp_path.iterdir()) - {good})
    assert len(bad) == 12
    for path in bad:
        with pytest.raises(InputError) as caught:
            load_model(path)
        line = str(caught.value)
        assert "\n" not in line, path.name
        assert line.startswith(f"model {str(path)!r}: "), line
    with pytest.raises(InputError, match="of format 2, expected 1"):
        load_model(tmp_path / "newer.safetensors")


def test_a_failing_write_leaves_what_was_there(tmp_path, network, monkeypatch):
    path = tmp_path / "net.safetensors"
    save_model(network, path, {"seed": 1})
    before = path.read_bytes()

    def full_disk(target, content):
        with target.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(InputError, match=r"net.safetensors': cannot be written \(No space left on device\)"):
        save_model(network, path, {"seed": 2})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]


def test_names_that_do_not_exist(tmp_path, network):
    with pytest.raises(InputError, match=r"unknown model 'fractal/mian': .*did you mean 'fractal/main'"):
        load_model("fractal/mian")
    with pytest.raises(InputError, match=r"unknown dataset .*'fractle'"):
        load_model("fractle/main")
    with pytest.raises(InputError, match="unknown model 'main'"):
        load_model("main")
    with pytest.raises(InputError, match="no such file"):
        load_model(tmp_path / "missing.safetensors")
    with pytest.raises(InputError, match="model 'fractal/main@A': takes no label; it models A"):
        load_model("fractal/main@A")
    save_model(network, tmp_path / "net.safetensors", {})
    with pytest.raises(InputError, match="unknown label 'd': expected one of a, b, c"):
        load_model(f"{tmp_path}/net.safetensors@d")


# The bundled networks

BUNDLED = {
    # its parameters and, by label, the largest root of its exact loss that is accepted: what was measured and a third
    "fractal/conditional": (16_705, {None: 0.22, "A": 0.22, "B": 0.22}),
    "fractal/internal": (20_738, {"A": 0.17}),
    "fractal/main": (16_641, {"A": 0.17}),
    "fractal/paper-main": (16_641, {"A": 0.17}),
    "fractal/paper-uncond": (4_225, {None: 0.41}),
    "fractal/paper-weak": (4_225, {"A": 0.35}),
    "fractal/uncond": (4_225, {None: 0.39}),
    **{f"fractal/weak{end}": (4_225, {"A": 0.36}) for end in ("", *(f"-{seed}" for seed in range(1, 8)))},
    "simplex16/main": (271_105, {None: 0.17, "v1": 0.12, "v17": 0.12}),
    "simplex16/short": (5_217, {None: 1.3, "v9": 1.2}),
    "simplex16/weak": (18_625, {None: 0.83, "v9": 0.75}),
    "two-gaussians/main": (16_705, {None: 0.011, "left": 0.005, "right": 0.005}),
    "two-gaussians/weak": (1_105, {None: 0.22, "left": 0.19}),
}


def test_the_bundled_networks_are_these():
    assert sorted(model_names()) == sorted(BUNDLED)
    assert model_names("two-gaussians") == ["two-gaussians/main", "two-gaussians/weak"]


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_gains_are_negative_but_where_the_paper_leaves_them_free(name):
    network = load_model(name)
    assert network.bounded == ("/paper-" not in name)
    assert (network.g < 0) == (name != "fractal/paper-uncond")  # which shows what a free gain may do


@pytest.mark.parametrize("name", BUNDLED)
def test_metadata_and_card_tell_how_a_bundled_network_was_made(name):
    dataset, stem = name.split("/")
    with safe_open(dataset_root() / dataset / f"{stem}.safetensors", "pt") as file:
        metadata = json.loads(file.metadata()["toyguide"])
    training = metadata["training"]
    settings = training["settings"]
    network = load_model(name)
    assert settings["dataset"] == dataset
    assert (settings["width"], settings["label"]) == (network.width, network.label)
    assert settings["conditional"] == bool(network.labels)
    assert training["iterations"] == settings["iterations"] == training["loss_curve"][-1][0]
    assert training["loss_curve"][0][1] > training["final_loss"] > 0
    assert {"seed", "batch", "loss", "learning_rate", "t_ref", "ema", "layers"} <= set(settings)
    assert {"torch", "device", "seconds", "ema"} <= set(training)
    torch.testing.assert_close(network.sigma_data, load_dataset(dataset).sigma_data.float())
    parameters = sum(p.numel() for p in network.parameters())
    assert parameters == BUNDLED[name][0]

    card = (dataset_root() / dataset / "README.md").read_text(encoding="utf-8")
    row = next(line for line in card.splitlines() if line.startswith(f"| `{stem}` "))
    alone = f"class {network.label}" if network.label else "both classes"
    models = "every class and the union" if network.labels else alone
    made = (f"{network.width}", f"{parameters:,}", f"{settings['iterations']}")
    loss, seconds = f"{training['final_loss']:.4f}", f"{training['seconds']:.0f}"
    assert [cell.strip() for cell in row.strip("|").split("|")] == [f"`{stem}`", models, *made, loss, seconds]
    (line,) = re.findall(rf"^toyguide train .*/{stem}\.safetensors$", card, re.MULTILINE)
    for flag, value in (("width", network.width), ("iterations", settings["iterations"]), ("seed", settings["seed"])):
        assert f"--{flag} {value} " in line, line
    assert ("--conditional" in line) == settings["conditional"]


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_networks_know_the_exact_score(name):
    data = load_dataset(name.split("/")[0])
    network = load_model(name)
    for label, accepted in BUNDLED[name][1].items():
        g = torch.Generator().manual_seed(0)
        exact = data.field(label)
        sigma = data.noise.sample(2048, g)
        clean = exact.sample(2048, generator=g).float()
        x = clean + sigma[:, None] * torch.randn(clean.shape, generator=g)
        view = network.with_label(label) if network.labels else network
        error = sigma[:, None] * (view.score(x, sigma) - exact.score(x, sigma))
        assert error.square().sum(-1).mean().sqrt() < accepted, label
