"""What every way to write a field means, and the partners that roles get."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from toyguide.datasets import Dataset, load_dataset
from toyguide.datasets.checkpoints import load_model, save_model
from toyguide.datasets.classifiers import ExactClassifier
from toyguide.datasets.references import at_label, canonical, natural_reference, resolve, resolve_field
from toyguide.datasets.roles import ROLES, Role
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
        ("exat", r"unknown field 'exat': expected one of \d+ names, like exact, exact@left, .*did you mean 'exact'\?"),
        ("exact@lefft", r"unknown label of two-gaussians 'lefft': .*did you mean 'left'\?"),
        ("exact@", "unknown label of two-gaussians ''"),
        ("exact+", r"unknown change of the field 'exact\+' '\+': expected one of \+noise, "),
        ("exact+noise:", r"field 'exact\+noise:': expected \+noise:SHARE with a number from 0 to 10"),
        ("exact+noise:x", r"expected \+noise:SHARE with a number from 0 to 10"),
        ("exact+noise:-1", r"expected \+noise:SHARE with a number from 0 to 10"),
        ("exact+noise:nan", r"expected \+noise:SHARE with a number from 0 to 10"),
        ("exact+nois:1", r"unknown change .* did you mean '\+noise'\?"),
        ("exact+dropout:0.1", "expected a trained network in front of the plus sign"),
        ("exact+layer:1", "expected a trained network in front of the plus sign"),
        ("two-gaussians/main+layer:9", "layer 9: expected 1 to 4, the network's hidden layers"),
        ("two-gaussians/main+layer:1.5", "layer:1.5, expected a whole number"),
        ("exact+temperature:2", r"expected a classifier in front of \+temperature, like posterior"),
        ("posterior", "main 'posterior': expected a field, like exact"),
        ("posterior+noise:1", "expected a field in front of the plus sign, not a classifier"),
        ("mean()", r"expected mean\(FIELD, FIELD, ...\)"),
        ("mean(exact,)", r"expected mean\(FIELD, FIELD, ...\)"),
        ("mean(exact, posterior)", r"expected fields in mean\(...\), not a classifier"),
        (
            "mean(two-gaussians/x*)",
            r"no bundled network is called two-gaussians/x\*; expected a name like fractal/weak\*",
        ),
        ("mean(exact, exat)", r"unknown field 'exat': .*did you mean 'exact'\?"),
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
    assert natural_reference("weak", main, trained, "left") == f"{trained.name}/weak"
    with pytest.raises(InputError, match=r"weak: .* has no trained network for this role, expected one"):
        natural_reference("weak", main, trained, "right")  # the weak network models the other class


def test_partners_of_a_conditional_main(conditional):
    main = f"{conditional.name}/main"
    for label in ("left", "right", None):
        assert natural_reference("main", None, conditional, label) == main
    assert natural_reference("uncond", main, conditional) == f"{main}@union"
    assert natural_reference("uncond", f"{main}@left", conditional) == f"{main}@union"
    with pytest.raises(InputError, match=r"weak: .* has no trained network for this role, expected one"):
        natural_reference("weak", main, conditional)


def test_without_networks_the_main_is_exact(tmp_path):
    data = dataset(tmp_path / "bare", 'main = "main"')
    assert natural_reference("main", None, data, "left") == "exact"


EACH, ONLY = Role("each", "classes", "a model of every class"), Role("main", "exact", "an exact field")
OTHER, SECOND = Role("other", "class", "another class"), Role("weak2", "weaker", "another weak one", "exact+noise:0.4")


def test_partners_of_any_role(trained, conditional):
    assert natural_reference(OTHER, "exact", PAIR, "left") == "exact@right"
    assert natural_reference(OTHER, f"{conditional.name}/main", conditional, "right") == f"{conditional.name}/main@left"
    assert natural_reference(SECOND, f"{trained.name}/main", trained, "left") == "exact+noise:0.4", "its own partner"
    assert natural_reference("classifier", "exact", PAIR, "left") == "posterior"
    assert natural_reference(OTHER, f"{trained.name}/main", trained, "left") == "exact@right", "no network models it"
    assert natural_reference(ONLY, f"{trained.name}/main", trained, "left") == "exact"
    assert natural_reference(EACH, "exact@left+noise:0.1", PAIR, "left") == "exact@left+noise:0.1"
    assert natural_reference(EACH, f"{conditional.name}/main", conditional, "left") == f"{conditional.name}/main"
    assert natural_reference(EACH, f"{trained.name}/main", trained, "left") == "exact", "that network models one class"


def test_what_a_role_of_a_kind_takes(trained, conditional):
    for head, change, data in (("exact", "+noise:0.2", PAIR), (f"{conditional.name}/main", "", conditional)):
        each = resolve_field(head + change, data, "left", EACH)
        same(at_label(each, data, "right"), resolve_field(f"{head}@right{change}", data, "left", "weak"))
    with pytest.raises(InputError, match=r"each '.*/main': models one class, expected every class, like exact"):
        resolve_field(f"{trained.name}/main", trained, "left", EACH)
    with pytest.raises(InputError, match=r"main '.*/main': expected an exact field, like exact"):
        resolve_field(f"{trained.name}/main", trained, "left", ONLY)
    assert canonical("exact", "left", EACH) != canonical("exact", "left", ONLY), "it is asked for other classes"


def test_changed_fields(trained):
    """What a plus sign makes of a field, by hand: more noise, fewer units or layers, a softer classifier."""
    name = f"{trained.name}/main"
    network = load_model(name)
    cut = EnergyMLP(2, 8, 1, torch.full((2,), 0.5)).requires_grad_(False)
    cut.weights[0].copy_(network.weights[0]), cut.weights[1].copy_(network.weights[2]), cut.gain.fill_(1.0)
    same(resolve_field(f"{name}+layer:1", trained, "left"), cut)
    same(resolve_field(f"{name}+layer:2", trained, "left"), network)
    noisy = resolve_field(f"{name}+noise:0.25", trained, "left")
    same(noisy, network, 0.4, 0.5)
    thinned = resolve_field(f"{name}+dropout:0.2", trained, "left")
    assert thinned.rate == 0.2
    assert not torch.equal(thinned.score(X, 0.4), network.score(X, 0.4))
    soft = resolve("posterior+temperature:2+temperature:1.5", PAIR, "left", "classifier")
    assert isinstance(soft, ExactClassifier)
    odds = PAIR.posterior(X, 0.4).log().diff() / 3
    torch.testing.assert_close(soft.log_posterior(X, 0.4).diff(), odds)


def test_means_may_hold_means(trained):
    name = f"{trained.name}/weak"
    mean = resolve_field(f"mean(exact, mean({name}, exact+noise:0.25))", trained, "left", "weak")
    exact, weak = trained.field("left"), load_model(name)
    expected = exact.score(X, 0.4) / 2 + weak.score(X, 0.4) / 4 + exact.score(X, 0.5) / 4
    torch.testing.assert_close(mean.score(X, 0.4), expected, rtol=0, atol=1e-5)
    assert mean.evaluations == 3


def test_a_star_in_a_mean_stands_for_all_bundled_networks_of_such_names():
    fractal = load_dataset("fractal")
    mean = resolve_field("mean(fractal/weak*)", fractal, "A", "weak")
    members = [load_model("fractal/weak"), *(load_model(f"fractal/weak-{seed}") for seed in range(1, 8))]
    assert mean.evaluations == len(members)
    expected = torch.stack([m.score(X, 0.4) for m in members]).mean(0)
    torch.testing.assert_close(mean.score(X, 0.4), expected, rtol=1e-5, atol=1e-5)


def test_a_path_may_have_a_plus_sign(tmp_path):
    folder = tmp_path / "c++"
    folder.mkdir()
    save(folder, "main", 1, "left")
    network = load_model(folder / "main.safetensors")
    same(resolve_field(f"{folder}/main.safetensors", PAIR, "left"), network)
    same(resolve_field(f"{folder}/main.safetensors+noise:0.25", PAIR, "left"), network, 0.4, 0.5)


def test_one_field_has_one_canonical_reference(conditional):
    main, uncond = ROLES["main"], ROLES["uncond"]
    assert canonical("exact", "left", main) == canonical("exact@left", "right", uncond) == "exact@left"
    assert canonical("exact", None, main) == canonical("exact@union", "left", uncond) == "exact@union"
    assert canonical("exact+noise:0.1", "left", main) == "exact@left+noise:0.1"
    name = f"{conditional.name}/main"
    assert canonical(name, "left", main) == f"{name}@left"
    assert canonical(name, "left", uncond) == f"{name}@union"
