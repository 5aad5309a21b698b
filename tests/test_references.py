"""What every way to write a field means, and the partners that roles get."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from toyguide.datasets import Dataset, load_dataset
from toyguide.datasets.checkpoints import load_model, save_model
from toyguide.datasets.references import natural_reference, resolve_field
from toyguide.errors import InputError
from toyguide.fields.networks import EnergyMLP

X = torch.randn(16, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
PAIR = load_dataset("two-gaussians")

DATASET = """
family = "pair"

[pair]
means = { left = [-1.0, 0.0], right = [1.0, 0.0] }
variance = 0.05
"""


def save(
    folder: Path, stem: str, seed: int, label: str | None = None, labels: tuple[str, ...] = (), dim: int = 2
) -> EnergyMLP:
    network = EnergyMLP(dim, 8, 2, torch.full((dim,), 0.5), labels, torch.Generator().manual_seed(seed))
    network.gain.data.fill_(1.0)
    network.label = label
    save_model(network, folder / f"{stem}.safetensors", {})
    return network


def dataset(folder: Path, models: str) -> Dataset:
    folder.mkdir()
    (folder / "dataset.toml").write_text(f"{DATASET}\n[models]\n{models}\n")
    return load_dataset(folder)


@pytest.fixture
def trained(tmp_path):
    """A dataset with a network of its own in every role: of class left, of left and weak, of the union."""
    data = dataset(tmp_path / "own", 'main = "main"\nweak = "weak"\nuncond = "uncond"')
    save(data.folder, "main", 1, "left")
    save(data.folder, "weak", 2, "left")
    save(data.folder, "uncond", 3, None)
    return data


@pytest.fixture
def conditional(tmp_path):
    """A dataset with one label-conditional network."""
    data = dataset(tmp_path / "conditional", 'main = "main"')
    save(data.folder, "main", 1, labels=("left", "right"))
    return data


def same(field, other, sigma=0.4, other_sigma=None):
    torch.testing.assert_close(field.score(X, sigma), other.score(X, other_sigma or sigma), rtol=1e-6, atol=1e-6)


def test_exact_fields():
    same(resolve_field("exact", PAIR, "left"), PAIR.field("left"))
    same(resolve_field("exact", PAIR, None), PAIR.field(None))
    same(resolve_field("exact@right", PAIR, "left"), PAIR.field("right"))
    same(resolve_field("exact@union", PAIR, "left"), PAIR.field(None))
    same(resolve_field("exact+noise:0.25", PAIR, "left"), PAIR.field("left"), 0.4, 0.5)
    same(resolve_field("exact@right+noise:0.25", PAIR, "left"), PAIR.field("right"), 0.4, 0.5)


def test_trained_fields(trained):
    for stem in ("main", "weak", "uncond"):
        direct = load_model(trained.folder / f"{stem}.safetensors")
        for reference in (f"{trained.name}/{stem}", str(trained.folder / f"{stem}.safetensors")):
            same(resolve_field(reference, trained, "left", stem), direct)


def test_conditional_fields(conditional):
    name = f"{conditional.name}/main"
    left, right, union = (load_model(name).with_label(label) for label in ("left", "right", None))
    assert (left.score(X, 0.4) - union.score(X, 0.4)).abs().max() > 1e-3
    same(resolve_field(name, conditional, "left"), left)
    same(resolve_field(name, conditional, "right", "weak"), right)
    same(resolve_field(name, conditional, "left", "uncond"), union)
    same(resolve_field(f"{name}@right", conditional, "left", "uncond"), right)
    same(resolve_field(f"{name}@union", conditional, None), union)


@pytest.mark.parametrize(
    ("reference", "complaint"),
    [
        ("exat", r"unknown field 'exat': expected one of exact, exact@left, .*did you mean 'exact'\?"),
        ("exact@lefft", r"unknown label of two-gaussians 'lefft': .*did you mean 'left'\?"),
        ("exact@", "unknown label of two-gaussians ''"),
        ("exact+", r"field 'exact\+': expected exact\+noise:SHARE"),
        ("exact+noise:", r"field 'exact\+noise:': expected exact\+noise:SHARE"),
        ("exact+noise:x", r"exact\+noise:SHARE with a share from 0 to 10"),
        ("exact+noise:-1", r"exact\+noise:SHARE with a share from 0 to 10"),
        ("exact+noise:nan", r"exact\+noise:SHARE with a share from 0 to 10"),
        ("exact+blur:1", r"exact\+noise:SHARE with a share from 0 to 10"),
        ("two-gaussians/nothing", "unknown model 'two-gaussians/nothing'"),
        ("two-gausians/main", r"unknown dataset .* 'two-gausians': .*did you mean 'two-gaussians'\?"),
        ("such.safetensors@left", "model 'such.safetensors': no such file"),
        ("/no/such.safetensors", "model '/no/such.safetensors': no such file"),
    ],
)
def test_wrong_references_are_refused_in_one_line(reference, complaint):
    with pytest.raises(InputError, match=complaint) as caught:
        resolve_field(reference, PAIR, "left")
    assert "\n" not in str(caught.value)


def test_a_network_must_fit(trained, conditional, tmp_path):
    with pytest.raises(InputError, match=r"main .*: models class left, expected a field of class right, like exact"):
        resolve_field(f"{trained.name}/main", trained, "right")
    with pytest.raises(InputError, match=r"main .*: models the union of the classes, expected a field of class left"):
        resolve_field(f"{trained.name}/uncond", trained, "left")
    with pytest.raises(InputError, match=r"takes no label; it models left"):
        resolve_field(f"{trained.name}/main@left", trained, "left")
    with pytest.raises(InputError, match=r"unknown label 'middle': expected one of left, right"):
        resolve_field(f"{conditional.name}/main@middle", conditional, "left")
    with pytest.raises(InputError, match=r"unknown label of weak .* 'left': expected one of A, B"):
        resolve_field(f"{trained.name}/weak", load_dataset("fractal"), "A", "weak")
    save(tmp_path, "solid", 0, dim=3)
    with pytest.raises(InputError, match=r"main .*: of dimension 3, expected 2 for two-gaussians"):
        resolve_field(str(tmp_path / "solid.safetensors"), PAIR, "left")


def test_partners_of_an_exact_main():
    for main in ("exact", "exact@right", "exact+noise:0.1"):
        assert natural_reference("uncond", main, PAIR) == "exact@union"
        assert natural_reference("weak", main, PAIR) == "exact+noise:0.2"


def test_partners_of_a_trained_main(trained):
    main = f"{trained.name}/main"
    assert natural_reference("main", None, trained, "left") == main
    assert natural_reference("main", None, trained, "right") == "exact", "the network models the other class"
    assert natural_reference("main", None, trained, None) == "exact"
    assert natural_reference("uncond", main, trained) == f"{trained.name}/uncond"
    assert natural_reference("weak", main, trained) == f"{trained.name}/weak"


def test_partners_of_a_conditional_main(conditional):
    main = f"{conditional.name}/main"
    for label in ("left", "right", None):
        assert natural_reference("main", None, conditional, label) == main
    assert natural_reference("uncond", main, conditional) == f"{main}@union"
    assert natural_reference("uncond", f"{main}@left", conditional) == f"{main}@union"
    with pytest.raises(InputError, match=r"weak: .* has no trained network for it: expected a field named for weak"):
        natural_reference("weak", main, conditional)


def test_without_networks_the_main_is_exact(tmp_path):
    data = dataset(tmp_path / "bare", 'main = "main"')
    assert natural_reference("main", None, data, "left") == "exact"
