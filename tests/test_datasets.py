"""Datasets: the facts of the bundled ones by independent means, and every way a user's own can be wrong."""

import math
import shutil

import numpy as np
import pytest
import torch

from toyguide import load_dataset
from toyguide.datasets import dataset_names, dataset_root
from toyguide.datasets.references import natural_reference
from toyguide.errors import InputError
from toyguide.fields.mixtures import GaussianMixture


class TestFractal:
    def test_size_and_moments(self, fractal):
        mixture, parts = fractal.components.mixture, fractal.components
        assert fractal.labels == ("A", "B")
        assert len(mixture) == 2 * 127 * 8
        assert len(fractal.field("A")) == 1016
        by_hand = sum(w * m for w, m in zip(mixture.weights, mixture.means, strict=True))
        second = sum(
            w * (m * m + c.diagonal())
            for w, m, c in zip(mixture.weights, mixture.means, mixture.covariances, strict=True)
        )
        assert by_hand.abs().max() < 0.001
        assert ((second - by_hand**2).sqrt() - 0.5).abs().max() < 0.001
        torch.testing.assert_close(fractal.sigma_data, (second - by_hand**2).sqrt())
        thinnest = torch.linalg.eigvalsh(mixture.covariances).min().sqrt()
        assert float(thinnest) == pytest.approx(0.0031, abs=0.00005)
        counts = torch.bincount(parts.branch_level)
        assert counts.tolist() == [2 * 2**k for k in range(7)]
        assert torch.bincount(parts.component_branch).tolist() == [8] * 254

    @pytest.mark.parametrize(("label", "heading", "draws"), [("A", 45, 0), ("B", 225, 381)])
    def test_first_branch_by_hand(self, fractal, label, heading, draws):
        """A class draws one length per branch (127) and two headings per branch (254): B's first draw is number 381."""
        z = np.random.RandomState(2).randn(draws + 1)[-1]
        length = 0.292 * (1 + 0.2 * z)
        along = np.array([math.cos(math.radians(heading)), math.sin(math.radians(heading))])
        across = np.array([-along[1], along[0]])
        scale = np.array([1.3136, 1.3844])
        field = fractal.field(label)
        for i, t in enumerate(np.linspace(0.07, 0.93, 8)):
            expected = (np.array([0.0030, 0.0325]) + length * t * along) * scale
            np.testing.assert_allclose(field.means[i].numpy(), expected, rtol=1e-12)
        thin = 0.2 / length
        for a in range(2):
            for b in range(2):
                frame = along[a] * along[b] + thin**2 * across[a] * across[b]
                expected = frame * (scale[a] * length * 0.06) * (scale[b] * length * 0.06)
                assert float(field.covariances[0, a, b]) == pytest.approx(expected, rel=1e-12)

    def test_the_second_branch_by_hand(self, fractal):
        """Draws of class A: length, the left child's heading, then the left child's own length."""
        z = np.random.RandomState(2).randn(3)
        first, second = 0.292 * (1 + 0.2 * z[0]), 0.292 * 0.8 * (1 + 0.2 * z[2])
        turned = math.radians(45) + 1.0 * (1 + 0.2 * z[1])
        start = np.array([0.0030, 0.0325]) + first * np.array([math.cos(math.pi / 4), math.sin(math.pi / 4)])
        expected = (start + second * 0.07 * np.array([math.cos(turned), math.sin(turned)])) * [1.3136, 1.3844]
        np.testing.assert_allclose(fractal.field("A").means[8].numpy(), expected, rtol=1e-12)
        ratio = float(fractal.field("A").weights[8] / fractal.field("A").weights[0])
        assert ratio == pytest.approx(second * 0.5 / first, rel=1e-12)

    def test_weights_halve_with_each_level(self, fractal):
        """A branch's weight over its length is 0.5^level; its length is the distance of its ends over their 0.86."""
        parts, scale = fractal.components, torch.tensor([1.3136, 1.3844], dtype=torch.float64)
        means = (parts.mixture.means / scale).reshape(254, 8, 2)
        length = (means[:, -1] - means[:, 0]).norm(dim=-1) / 0.86
        weights = parts.mixture.weights.reshape(254, 8)
        assert torch.allclose(weights, weights[:, :1], rtol=1e-12)
        normed = weights[:, 0] / length / 0.5**parts.branch_level
        torch.testing.assert_close(normed, normed[0].expand(254), rtol=1e-10, atol=0)
        within = 0.8**parts.branch_level * 0.292
        assert ((length / within - 1).abs() < 5 * 0.2).all()
        assert float((length / within - 1).std()) == pytest.approx(0.2, rel=5 / math.sqrt(2 * 254))

    def test_children_start_where_their_parent_ends(self, fractal):
        parts, scale = fractal.components, torch.tensor([1.3136, 1.3844], dtype=torch.float64)
        means = (parts.mixture.means / scale).reshape(254, 8, 2)
        step = (means[:, -1] - means[:, 0]) / 0.86
        starts, ends = means[:, 0] - 0.07 * step, means[:, -1] + 0.07 * step
        for branch in range(254):
            level = int(parts.branch_level[branch])
            same_class = torch.arange(254) // 127 == branch // 127
            children = ((starts - ends[branch]).norm(dim=-1) < 1e-9) & same_class
            assert int(children.sum()) == (2 if level < 6 else 0)
            assert (parts.branch_level[children] == level + 1).all()

    def test_training_and_sampling_settings(self, fractal):
        assert (fractal.noise.mean, fractal.noise.std) == (-2.3, 1.5)
        s = fractal.sampling
        assert (s.sigma_min, s.sigma_max, s.rho) == (0.002, 5.0, 7.0)
        roles = ("main", "uncond", "weak", "adapter", "internal")
        assert fractal.models == {role: role for role in roles}
        assert fractal.view.label == "A"


@pytest.mark.parametrize(
    ("name", "count"), [("simplex16", 17), ("simplex16?vertices=16", 16), ("simplex16?vertices=3", 3)]
)
def test_simplex_geometry(name, count):
    data = load_dataset(name)
    means = data.components.mixture.means
    assert means.shape == (count, count - 1)
    gram = means @ means.T
    expected = torch.full((count, count), -1 / (count - 1), dtype=torch.float64).fill_diagonal_(1)
    torch.testing.assert_close(gram, expected, rtol=0, atol=1e-12)
    assert means.sum(0).abs().max() < 1e-12
    torch.testing.assert_close(data.components.mixture.covariances[3 % count], 0.0025 * torch.eye(count - 1).double())
    # Tight frame: the vertices' mean outer product is I / (vertices - 1).
    assert (data.sigma_data - math.sqrt(1 / (count - 1) + 0.0025)).abs().max() < 1e-12
    assert len(data.labels) == count
    assert data.view.plane == ("v1", "v2", "v3")
    assert data.models == ({} if "?" in name else {"main": "main", "weak": "weak"})


class TestTwoGaussians:
    def test_sigma_data(self):
        data = load_dataset("two-gaussians")
        torch.testing.assert_close(data.sigma_data, torch.tensor([1.05, 0.05]).double().sqrt(), rtol=1e-7, atol=0)

    @pytest.mark.parametrize("sigma", [0.0, 0.3, 8.0])
    def test_posterior_is_logistic(self, sigma):
        """log-odds of the means (1, 0) and (-1, 0) with variance v are 2 x0 / v."""
        data = load_dataset("two-gaussians")
        x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        expected = torch.sigmoid(2 * x[:, 0] / (0.05 + sigma**2))
        torch.testing.assert_close(data.posterior(x, sigma)[:, 1], expected, rtol=1e-9, atol=1e-300)


class TestTwoVariances:
    def test_each_class_is_one_centred_round_gaussian(self):
        data = load_dataset("two-variances")
        x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        for label, variance in (("narrow", 1.0), ("wide", 2.0)):
            torch.testing.assert_close(data.field(label).score(x, 0.5), -x / (variance + 0.25), rtol=1e-12, atol=0)
        assert data.view.label == "narrow"

    def test_it_has_no_networks_and_its_main_field_is_exact(self):
        data = load_dataset("two-variances")
        assert data.models == {}
        assert [natural_reference("main", None, data, label) for label in ("narrow", None)] == ["exact", "exact"]


@pytest.mark.parametrize("name", ["fractal", "simplex16", "two-gaussians", "two-variances"])
@pytest.mark.parametrize("sigma", [0.0, 0.05, 1.0])
def test_bayes_identities(name, sigma):
    """sum p(c|x) = 1; sum p(c|x) g_c = 0; sum p(c|x) (J g_c + g_c g_c') = 0, with g_c = s_c - s and J g_c = H_c - H.

    The second are compared with the size of what cancels."""
    data = load_dataset(name)
    union = data.field(None)
    x = union.sample(40, sigma, torch.Generator().manual_seed(2))
    posterior = data.posterior(x, sigma)
    torch.testing.assert_close(posterior.sum(-1), torch.ones(40).double(), rtol=1e-12, atol=0)
    density = torch.stack([data.field(c).log_density(x, sigma) for c in data.labels], -1)
    prior = torch.tensor([float(data.components.mixture.weights[data.mask(c)].sum()) for c in data.labels])
    torch.testing.assert_close(posterior, (density + prior.double().log()).softmax(-1), rtol=1e-6, atol=1e-9)

    gaps = torch.stack([data.field(c).score(x, sigma) - union.score(x, sigma) for c in data.labels], 1)
    curves = torch.stack([data.field(c).hessian(x, sigma) - union.hessian(x, sigma) for c in data.labels], 1)
    outer = gaps[..., None] * gaps[..., None, :]
    first = torch.einsum("nc,ncd->nd", posterior, gaps)
    second = torch.einsum("nc,ncde->nde", posterior, curves + outer)
    assert (first.abs().amax(-1) <= 1e-9 * (1 + union.score(x, sigma).abs().amax(-1))).all()
    assert (second.abs().amax((1, 2)) <= 1e-9 * (1 + union.hessian(x, sigma).abs().amax((1, 2)))).all()


def test_fields_are_made_once(fractal):
    assert fractal.field("A") is fractal.field("A")
    assert fractal.field() is fractal.components.mixture
    assert load_dataset("fractal") is load_dataset("fractal")


def test_labels_are_checked(fractal):
    with pytest.raises(
        InputError, match=r"unknown label of fractal 'a': expected one of A, B; did you mean 'A'\?"
    ) as e:
        fractal.field("a")
    assert "\n" not in str(e.value)


def test_posterior_follows_the_points(fractal, torch_device):
    x = fractal.field(None).sample(20, 0.1, torch.Generator().manual_seed(0)).float()
    found = fractal.posterior(x.to(torch_device), 0.1)
    assert (found.dtype, found.device.type) == (torch.float32, torch_device.type)
    torch.testing.assert_close(found.cpu().double(), fractal.posterior(x.double(), 0.1), rtol=0, atol=1e-3)


MIXTURE = """
family = "mixture"
[mixture]
weights = [1, 3]
means = [[0, 0], [2.0, 0]]
covariances = [[[1, 0.5], [0.5, 1]], [[0.25, 0], [0, 0.25]]]
labels = ["near", "fern-é"]
"""
ARRAYS = {
    "weights": np.array([1.0, 3.0]),
    "means": np.array([[0.0, 0.0], [2.0, 0.0]]),
    "covariances": np.array([[[1, 0.5], [0.5, 1]], [[0.25, 0], [0, 0.25]]]),
    "labels": np.array(["near", "fern-é"]),
}


@pytest.fixture
def write(tmp_path):
    """Writes a dataset folder and gives its path."""

    def make(toml, **arrays):
        (tmp_path / "dataset.toml").write_text(toml, encoding="utf-8")
        if arrays:
            np.savez(tmp_path / "data.npz", **arrays)
        return tmp_path

    return make


def refused(path, *expected):
    """The one line with which a dataset is refused."""
    with pytest.raises(InputError) as caught:
        load_dataset(path)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 600 + len(str(path))
    for part in expected:
        assert part in text, text
    return text


class TestOwnMixture:
    def check(self, data):
        assert data.labels == ("near", "fern-é")
        assert data.field(None).weights.tolist() == [0.25, 0.75]
        x = torch.tensor([[2.0, 0.5]], dtype=torch.float64)
        expected = -(0.5**2) / (2 * 0.25) - math.log(2 * math.pi * 0.25)
        assert float(data.field("fern-é").log_density(x, 0.0)) == pytest.approx(expected)
        assert data.components.mixture.covariances[0].tolist() == [[1, 0.5], [0.5, 1]]

    def test_toml(self, write):
        folder = write(MIXTURE)
        data = load_dataset(folder)
        self.check(data)
        assert (data.name, data.title, data.models) == (str(folder), folder.name, {})
        assert load_dataset(str(folder) + "/").labels == data.labels

    @pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16])
    def test_npz(self, write, kind):
        arrays = {k: v if k == "labels" else v.astype(kind) for k, v in ARRAYS.items()}
        self.check(load_dataset(write('family = "mixture"\n[mixture]\nfile = "data.npz"', **arrays)))

    def test_one_dimension_and_shared_labels(self, write):
        toml = 'family="mixture"\n[mixture]\nweights=[1,1,2]\nmeans=[[0],[1],[5]]\n'
        data = load_dataset(write(toml + 'covariances=[[[1]],[[1]],[[4]]]\nlabels=["a","b","a"]'))
        assert (data.dim, data.labels) == (1, ("a", "b"))
        assert data.components.component_label.tolist() == [0, 1, 0]
        x = torch.tensor([[5.0]], dtype=torch.float64)
        expected = math.log((math.exp(-12.5) / 3 + 2 / 3 / 2) / math.sqrt(2 * math.pi))
        assert float(data.field("a").log_density(x, 0.0)) == pytest.approx(expected)

    @pytest.mark.parametrize(
        ("old", "new", "expected"),
        [
            ("[1, 3]", "[1, -3]", ["mixture.weights[1] = -3: expected positive"]),
            ("[1, 3]", "[1, 0]", ["mixture.weights[1] = 0"]),
            ("[1, 3]", "[1]", ["mixture.weights: 1 of them: expected 2"]),
            ("[1, 3]", "[]", ["mixture.weights: []: expected a list"]),
            ("[1, 3]", "[1, true]", ["mixture.weights[1]: True: expected a finite number"]),
            ("[1, 3]", '[1, "3"]', ["mixture.weights[1]: '3'"]),
            ("[1, 3]", "[1, nan]", ["mixture.weights[1]: nan"]),
            ("[1, 3]", "[1, inf]", ["mixture.weights[1]: inf"]),
            ("[1, 3]", "[1, 1e300]", ["mixture.weights from 1 to 1e+300: expected them less far apart"]),
            ("[1, 3]", "[1, 1" + 400 * "0" + "]", ["mixture.weights[1]: 1000", "expected a finite number"]),
            ("[1, 3]", "[1, 1" + 5000 * "0" + "]", ["not valid TOML"]),
            ("[1, 3]", "[[1], [3]]", ["mixture.weights[0]: [1]: expected a finite number"]),
            ("[1, 3]", "{a = 1}", ["mixture.weights: {'a': 1}: expected a list"]),
            ("[1, 3]", "2020-01-01", ["mixture.weights: datetime.date(2020, 1, 1): expected a list"]),
            ("[2.0, 0]", "[2.0]", ["mixture.means[1]: has 1 entries: expected 2, like means[0]"]),
            ("[2.0, 0]", "2.0", ["mixture.means[1]: 2.0: expected a list"]),
            ("[2.0, 0]", "[nan, 0]", ["mixture.means[1][0]: nan: expected a finite number"]),
            ("[2.0, 0]", "[1e200, 0]", ["mixture.means[1] = [1e+200, 0.0]: expected numbers from"]),
            ("means = [[0, 0], [2.0, 0]]", "means = [[], []]", ["mixture.means[0]: []: expected a list"]),
            ("means = [[0, 0], [2.0, 0]]", "", ["mixture.means: is missing"]),
            ("[[1, 0.5], [0.5, 1]]", "[[1, 0.5], [0.4, 1]]", ["mixture.covariances[0] is not symmetric"]),
            ("[[1, 0.5], [0.5, 1]]", "[[1, 2], [2, 1]]", ["mixture.covariances[0] has the eigenvalue -1"]),
            ("[[1, 0.5], [0.5, 1]]", "[[1, 1], [1, 1]]", ["mixture.covariances[0] has the eigenvalue"]),
            ("[[1, 0.5], [0.5, 1]], ", "", ["mixture.covariances of shape (1, 2, 2): expected (2, 2, 2)"]),
            ('["near", "fern-é"]', '["near"]', ["mixture.labels: 1 of them: expected 2"]),
            ('["near", "fern-é"]', '["near", 3]', ["mixture.labels: ['near', 3]: expected a list of texts"]),
            ('["near", "fern-é"]', '["near", " "]', ["mixture.labels: one of them is blank"]),
            ("labels =", "lables =", ["mixture.labels: is missing"]),
            ("labels =", "wieghts = 3\nlabels =", ["mixture.wieghts: unknown key", "did you mean 'weights'?"]),
            ('"mixture"\n', '"mixtrue"\n', ["family: unknown family 'mixtrue'", "did you mean 'mixture'?"]),
            ('"mixture"\n', "3\n", ["family: 3: expected a text"]),
            ('family = "mixture"', "", ["family: is missing"]),
            ('"mixture"\n', '"pair"\n', ["pair: is missing"]),
            ("[mixture]\nweights", "mixture = 3\n[other]\nweights", ["mixture: 3: expected a table"]),
            ("[mixture]", "titel = 3\n[mixture]", ["titel: unknown key 'titel'", "did you mean 'title'?"]),
            ("[mixture]", "title = 3\n[mixture]", ["title: 3: expected a text"]),
            ("[mixture]", "[mixture", ["not valid TOML"]),
            ("[1, 3]", 3000 * "[", ["not valid TOML"]),
            ("[mixture]", "[view]\nlabel = 'nera'\n[mixture]", ["view.label: unknown", "did you mean 'near'?"]),
            ("[mixture]", "[view]\nlow = [0, 0]\n[mixture]", ["view.low: expected both low and high"]),
            ("[mixture]", "[view]\nlow = [0, 0]\nhigh = [1, 0]\n[mixture]", ["view.low:", "below and left of high"]),
            ("[mixture]", "[view]\nlow = [0]\nhigh = [1, 0]\n[mixture]", ["view.low: [0]: expected a list of 2"]),
            (
                "[mixture]",
                "[view]\nplane = ['near', 'near', 'x']\n[mixture]",
                ["view.plane:", "three different labels"],
            ),
            ("[mixture]", "[sampling]\nsigma_min = 20\n[mixture]", ["sampling.sigma_max:", "20.0 … 10.0"]),
            ("[mixture]", "[sampling]\nrho = 1e9\n[mixture]", ["sampling.rho:", "expected a number from 0.1"]),
            ("[mixture]", "[sampling]\nsigma_min = -1\n[mixture]", ["sampling.sigma_min: -1: expected a positive"]),
            (
                "[mixture]",
                "[training]\nlog_sigma_std = 0\n[mixture]",
                ["training.log_sigma_std: 0: expected a positive"],
            ),
            ("[mixture]", "[models]\nmain = 3\n[mixture]", ["models.main: 3: expected a text"]),
        ],
    )
    def test_malformed_toml_is_refused(self, write, old, new, expected):
        assert old in MIXTURE
        folder = write(MIXTURE.replace(old, new, 1))
        refused(folder, str(folder / "dataset.toml"), *expected)

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({"weights": np.array([1.0, -3.0])}, ["weights[1] = -3"]),
            ({"weights": np.array([1.0, np.nan])}, ["weights[1] is not finite"]),
            ({"weights": np.array(1.0)}, ["weights: of type float64 and shape (): expected a list of numbers"]),
            ({"weights": np.array([True, False])}, ["weights: of type bool"]),
            ({"weights": np.array([1 + 2j, 1])}, ["weights: of type complex128"]),
            ({"weights": np.ones((2, 1))}, ["weights of shape (2, 1)"]),
            ({"means": np.array(["a", "b"])}, ["means: of type <U1"]),
            ({"means": np.zeros((0, 2))}, ["labels: 2 of them: expected 0"]),
            ({"means": np.zeros(2)}, ["means of shape (2,)"]),
            ({"means": np.zeros((3, 2))}, ["labels: 2 of them: expected 3"]),
            ({"covariances": -ARRAYS["covariances"]}, ["covariances[0] has the eigenvalue -1.5"]),
            ({"covariances": np.ones((2, 2))}, ["covariances of shape (2, 2)"]),
            ({"labels": np.array([["near", "fern-é"]])}, ["labels: of shape (1, 2)"]),
            ({"labels": np.array([0.5, np.nan])}, ["labels: of type float64"]),
            ({"labels": np.array([b"a", b"b"])}, ["labels: of type |S1"]),
            ({"labels": np.array(["a", ""])}, ["labels: one of them is blank"]),
            ({"labels": np.array(["a", None], dtype=object)}, ["not a readable .npz", "pickle"]),
            ({"labels": None}, ["labels: is missing"]),
        ],
    )
    def test_malformed_npz_is_refused(self, write, change, expected):
        arrays = {k: v for k, v in (ARRAYS | change).items() if v is not None}
        folder = write('family = "mixture"\n[mixture]\nfile = "data.npz"', **arrays)
        refused(folder, str(folder / "data.npz"), *expected)

    @pytest.mark.parametrize("damage", ["truncated", "empty", "text", "npy", "folder", "absent", "flipped"])
    def test_damaged_npz_is_refused(self, write, damage):
        folder = write('family = "mixture"\n[mixture]\nfile = "data.npz"', **ARRAYS)
        path = folder / "data.npz"
        whole = path.read_bytes()
        path.unlink()
        if damage == "folder":
            path.mkdir()
        elif damage == "npy":
            with path.open("wb") as file:
                np.save(file, ARRAYS["means"])
        elif damage != "absent":
            np.savez_compressed(path, **ARRAYS)
            packed = path.read_bytes()
            flipped = packed[:60] + bytes(255 - b for b in packed[60:90]) + packed[90:]
            path.write_bytes(
                {"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"weights: 1", "flipped": flipped}[damage]
            )
        refused(folder, str(path), "not a readable .npz")

    def test_a_file_excludes_lists(self, write):
        folder = write('family = "mixture"\n[mixture]\nfile = "data.npz"\nweights = [1, 3]', **ARRAYS)
        refused(folder, "mixture.weights: unknown key 'weights'")


class TestFamilies:
    """Parameters of the bundled families, changed in a copy."""

    @pytest.mark.parametrize(
        ("name", "old", "new", "expected"),
        [
            ("fractal", "levels = 7", "levels = 0", "tree.levels: 0: expected a whole number from 1 to 12"),
            ("fractal", "levels = 7", "levels = 7.0", "tree.levels: 7.0: expected a whole number"),
            ("fractal", "levels = 7", "levels = true", "tree.levels: True"),
            ("fractal", "seed = 2 ", "seed = -1 ", "tree.seed: -1"),
            ("fractal", "length_decay = 0.8", "length_decay = 1e300", "tree: its numbers are too large"),
            ("fractal", "length = 0.292", "length = 1e300", "tree: its numbers are too large"),
            ("fractal", "jitter = 0.2", "jitter = 50", "tree: weights["),
            ("fractal", "{ A = 45, B = 225 }", "{}", "tree.headings: expected at least one class"),
            ("fractal", "{ A = 45, B = 225 }", "{ '' = 45 }", "tree.headings: expected at least one class"),
            ("fractal", "{ A = 45, B = 225 }", "{ A = 'up' }", "tree.headings.A: 'up': expected a finite number"),
            ("fractal", "scale = [1.3136, 1.3844]", "scale = [1, 0]", "tree.scale[1]: 0: expected a positive number"),
            ("simplex16", "vertices = 17", "vertices = 2", "simplex.vertices: 2: expected a whole number from 3"),
            ("simplex16", "std = 0.05", "std = 1e200", "simplex: its numbers are too large"),
            ("simplex16", "std = 0.05", "std = 1e-20", "simplex: covariances[0] has the eigenvalue"),
            ("simplex16", '["v1", "v2", "v3"]', '["v1", "v2", "v18"]', "view.plane"),
            ("simplex16", '["v1", "v2", "v3"]', '["v1", "v2", "v3", "v3"]', "view.plane"),
            ("two-gaussians", "{ left = [-1.0, 0.0], right = [1.0, 0.0] }", "{}", "pair.means: expected at least one"),
            ("two-gaussians", "left = [-1.0, 0.0]", "left = [-1.0]", "pair.means.left: [-1.0]: expected a list of 2"),
            ("two-gaussians", "variance = 0.05", "variance = 0", "pair.variance: 0: expected a positive number"),
        ],
    )
    def test_bad_parameters_are_refused(self, tmp_path, name, old, new, expected):
        text = (dataset_root() / name / "dataset.toml").read_text(encoding="utf-8")
        assert old in text
        (tmp_path / "dataset.toml").write_text(text.replace(old, new, 1), encoding="utf-8")
        refused(tmp_path, str(tmp_path / "dataset.toml"), expected)

    def test_a_copy_of_a_bundled_dataset_is_that_dataset(self, tmp_path, fractal):
        shutil.copy(dataset_root() / "fractal" / "dataset.toml", tmp_path)
        copy = load_dataset(tmp_path)
        assert copy.name == str(tmp_path)
        assert torch.equal(copy.components.mixture.means, fractal.components.mixture.means)


class TestNames:
    def test_bundled(self):
        assert dataset_names() == ["fractal", "simplex16", "two-gaussians", "two-variances"]

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("fractl", "did you mean 'fractal'?"),
            ("", "expected one of"),
            ("/", "expected one of"),
            ("no/such/folder", "expected one of"),
            ("x" * 300, "expected one of"),
            ("a\0b", "expected one of"),
            ("fractal?vertices=16", "expected ?vertices=N, on a simplex"),
            ("simplex16?vertices=two", "expected ?vertices=N"),
            ("simplex16?std=2", "expected ?vertices=N"),
            ("simplex16?vertices=", "expected ?vertices=N"),
            ("simplex16?vertices=2", "simplex.vertices: 2: expected a whole number from 3"),
            ("simplex16?vertices=" + "9" * 5000, "expected ?vertices=N"),
            ("nowhere.csv", "expected one of"),
        ],
    )
    def test_unknown_names_are_refused(self, name, expected):
        with pytest.raises(InputError) as caught:
            load_dataset(name)
        assert expected in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_an_unreadable_file_is_refused(self, write, monkeypatch):
        """Permissions do not bind every user that runs tests, so the refusal is the operating system's by proxy."""
        folder = write(MIXTURE)

        def refuse(*_, **__):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("pathlib.Path.read_text", refuse)
        refused(folder, f"{folder / 'dataset.toml'}: cannot be read (Permission denied)")

    def test_not_utf_8(self, tmp_path):
        (tmp_path / "dataset.toml").write_bytes(b"title = '\xff'")
        refused(tmp_path, "not valid TOML")


def moons(angle):
    """Points on two half circles, with shape (2, n, 2), at angles of shape (2, n)."""
    upper, lower = angle
    return torch.stack(
        [
            torch.stack([upper.cos(), upper.sin()], -1),
            torch.stack([1 - lower.cos(), 0.5 - lower.sin()], -1),
        ]
    )


class TestPoints:
    def test_a_kernel_density_by_hand(self, tmp_path):
        path = tmp_path / "points.csv"
        path.write_text("x0,x1,label\n0,0,a\n1, 0,b\n0,2,a\n\n1,2,c\n", encoding="utf-8")
        data = load_dataset(path)
        assert (data.name, data.title, data.labels, data.dim) == (str(path), "points", ("a", "b", "c"), 2)
        assert data.components.component_label.tolist() == [0, 1, 0, 2]
        # b and c have one point each, so all four count. Each is alone with distances 1, 2 and sqrt(5) to the others:
        # the largest log sum_j exp(-d_j^2 / (2 v)) - log v, over a fine grid of v.
        grid = torch.linspace(0.2, 3, 280_001, dtype=torch.float64)
        others = sum((-torch.tensor(square, dtype=torch.float64) / (2 * grid)).exp() for square in (1.0, 4.0, 5.0))
        common = float(grid[(others.log() - grid.log()).argmax()])
        v = {"a": 4 / 2, "b": common, "c": common}  # d^2 / v - 2 log of one distance d is largest at v = d^2 / 2
        assert data.description.endswith("likelihood: a 1.41, b {0:.3g}, c {0:.3g}.".format(common**0.5))
        x = [0.3, 0.4]
        centres = ((0, 0, v["a"]), (1, 0, v["b"]), (0, 2, v["a"]), (1, 2, v["c"]))
        density = sum(math.exp(-((x[0] - a) ** 2 + (x[1] - b) ** 2) / (2 * w)) / w for a, b, w in centres)
        found = data.field(None).log_density(torch.tensor(x, dtype=torch.float64), 0.0)
        assert float(found) == pytest.approx(math.log(density / (8 * math.pi)), rel=1e-4)

    def test_two_moons_come_out_as_two_moons(self, tmp_path):
        """Half circles with noise 0.08, estimated from 500 points each, against their exact density.

        The total variation distance to the truth is 0.14; with one width by Scott's rule it is 0.49.
        """
        g = torch.Generator().manual_seed(0)
        arcs = torch.rand(2, 500, generator=g, dtype=torch.float64) * math.pi
        x = moons(arcs) + 0.08 * torch.randn(2, 500, 2, generator=g, dtype=torch.float64)
        lines = [f"{p[0]},{p[1]},{name}" for name, part in zip("ab", x.tolist(), strict=True) for p in part]
        path = tmp_path / "moons.csv"
        path.write_text("\n".join(["x0,x1,label", *lines]), encoding="utf-8")
        data = load_dataset(path)

        centres = moons((torch.arange(400, dtype=torch.float64) + 0.5).expand(2, -1) / 400 * math.pi).flatten(0, 1)
        exact = GaussianMixture(torch.ones(800), centres, 0.08**2 * torch.eye(2).expand(800, 2, 2))
        axis = torch.linspace(-1.6, 2.6, 141, dtype=torch.float64)
        grid = torch.cartesian_prod(axis, axis)
        found, truth = (field.log_density(grid, 0.0).exp() for field in (data.field(), exact))
        cell = float(axis[1] - axis[0]) ** 2
        assert 0.5 * float((found - truth).abs().sum()) * cell < 0.2
        for label in data.labels:  # a bandwidth well below the noise, as 500 points allow
            width = float(data.field(label).covariances[0, 0, 0].sqrt())
            assert 0.03 < width < 0.08

    def test_a_bandwidth_of_ones_own(self, tmp_path):
        path = tmp_path / "points.csv"
        path.write_text("x0,label\n0,a\n1,b\n1,b\n", encoding="utf-8")
        data = load_dataset(f"{path}?bandwidth=0.05")
        assert data.name == f"{path}?bandwidth=0.05"
        assert data.description == "3 points, each a round Gaussian; bandwidth as given: a 0.05, b 0.05."
        assert data.components.mixture.covariances.flatten().tolist() == pytest.approx([0.05**2] * 3)
        (tmp_path / "dataset.toml").write_text(
            'family = "points"\ndescription = "Mine."\n[points]\nfile = "points.csv"\nbandwidth = 0.05\n'
        )
        folder = load_dataset(tmp_path)
        assert torch.equal(folder.components.mixture.covariances, data.components.mixture.covariances)
        assert folder.description == f"Mine. {data.description}"
        for wrong in ("bandwidth=0", "bandwidth=-1", "bandwidth=x", "bandwidth=inf", "width=1", "bandwidth"):
            with pytest.raises(InputError, match=r"points.csv\?.*: expected \?bandwidth=H"):
                load_dataset(f"{path}?{wrong}")

    def test_copies_of_points_do_not_make_the_bandwidth_vanish(self, tmp_path):
        """Each point twice: the same rule on the points once, since a point's copies are left out with it."""
        x = torch.randn(60, generator=torch.Generator().manual_seed(0)).tolist()
        widths = []
        for times in (1, 2):
            path = tmp_path / f"{times}.csv"
            path.write_text("\n".join(["x0", *map(str, x * times)]))
            widths.append(float(load_dataset(path).components.mixture.covariances[0, 0, 0]))
        assert widths[0] == pytest.approx(widths[1], rel=1e-3)

    def test_without_labels_there_is_one_class(self, tmp_path):
        path = tmp_path / "line.CSV"
        path.write_bytes("\ufeffx0\r\n1e0\r\n2\r\n4\r\n".encode())
        data = load_dataset(str(path))
        assert (data.labels, data.dim) == (("points",), 1)
        assert data.components.mixture.means[:, 0].tolist() == [1, 2, 4]

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("", "line 1: header ''"),
            ("a,b\n1,2\n3,4\n", "line 1: header 'a,b': expected x0,x1,…"),
            ("x1,x0\n1,2\n3,4\n", "line 1: header 'x1,x0'"),
            ("label\na\nb\n", "line 1: header 'label'"),
            ("label,x0\na,1\nb,2\n", "line 1: header 'label,x0'"),
            ("1,2\n3,4\n", "line 1: header '1,2'"),
            ("x0,x1\n", "0 points: expected from 2 to 20000"),
            ("x0,x1\n1,2\n", "1 points"),
            ("x0\n" + "1\n" * 20001, "20001 points"),
            ("x0,x1\n1,2\n3\n", "line 3: 1 columns: expected 2"),
            ("x0,x1\n1,2\n3,4,5\n", "line 3: 3 columns"),
            ("x0,x1\n1,2\n\n3,four\n", "line 4: x1: 'four': expected a number from -1e+09 to 1e+09"),
            ("x0,x1\n1,2\nnan,4\n", "line 3: x0: 'nan'"),
            ("x0,x1\n1,2\n1,inf\n", "line 3: x1: 'inf'"),
            ("x0,x1\n1,2\n1,1_000\n", "line 3: x1: '1_000'"),
            ("x0,x1\n1,2\n1,\n", "line 3: x1: ''"),
            ("x0,x1\n1,2\n1,1e200\n", "line 3: x1: '1e200': expected a number from"),
            ("x0,label\n1,a\n2, \n", "line 3: label: is blank"),
            ("x0,x1\n1,2\n1,2\n", "all points are the same"),
            ('x0,label\n1,"a\n2,b\n', "1 points"),
            ("x0\n1\n" + "2" * 200_000 + "\n", "not a CSV"),
        ],
    )
    def test_malformed_points_are_refused(self, tmp_path, text, expected):
        path = tmp_path / "points.csv"
        path.write_text(text, encoding="utf-8")
        refused(path, f"{path}: ", expected)

    def test_not_text(self, tmp_path):
        path = tmp_path / "points.csv"
        path.write_bytes(b"x0\n\xff\xfe\n")
        refused(path, "not a CSV")
