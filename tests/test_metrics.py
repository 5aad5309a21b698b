"""Metrics against closed forms, loops over samples, assignment problems and resampling done literally."""

import json
import math

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch.distributions import MultivariateNormal

from toyguide import load_dataset
from toyguide.errors import InputError
from toyguide.metrics import METRICS, hdr_threshold, measure, reference
from toyguide.metrics import samples as metrics


def draw(data, label, n, seed):
    return data.field(label).sample(n, generator=torch.Generator().manual_seed(seed)).float()


@pytest.fixture(scope="module")
def pair():
    return load_dataset("two-gaussians")


@pytest.mark.parametrize("share", [0.99, 0.5])
@pytest.mark.parametrize("sigma", [0.0, 0.7])
def test_threshold_of_one_gaussian_is_known(pair, sigma, share):
    """|x|^2/v is chi-squared with two degrees of freedom, so log p exceeds log(1 - share) - log(2 pi v) with
    probability share. A share's standard error of sqrt(share (1 - share)/65536) is 1/(1 - share) times that in nats."""
    v = 0.05 + sigma**2
    exact = math.log(1 - share) - math.log(2 * math.pi * v)
    tolerance = 4 * math.sqrt(share / (1 - share) / 65536)
    assert abs(hdr_threshold(pair, "left", sigma, share) - exact) < tolerance


def test_exact_samples_have_one_percent_of_outliers(fractal):
    """Fresh samples; 4 standard errors of both shares together."""
    x = draw(fractal, "A", 20_000, 11)
    outside = measure(x, fractal, "A", resamples=0)["outliers"]
    assert abs(outside - 0.01) < 4 * math.sqrt(0.01 * 0.99 * (1 / 20_000 + 1 / 65536))


@pytest.mark.parametrize("label", ["A", None])
def test_branches_by_hand(fractal, label):
    """Coverage, dropped mass and tips of 40 samples from one half of the tree, from PyTorch's Cholesky densities and
    plain loops over samples and components."""
    parts = fractal.components
    x = draw(fractal, label, 400, 3)
    x = x[x[:, 0] > 0.3][:40]
    histogram, exact, level = {}, {}, {}
    chosen = [k for k in range(len(parts.mixture)) if label is None or parts.labels[parts.component_label[k]] == label]
    mixture = parts.mixture
    joint = MultivariateNormal(mixture.means[chosen], mixture.covariances[chosen]).log_prob(x.double()[:, None])
    posterior = (joint + mixture.weights[chosen].log()).softmax(-1)
    total = sum(float(mixture.weights[k]) for k in chosen)
    for j, k in enumerate(chosen):
        branch = int(parts.component_branch[k])
        level[branch] = int(parts.branch_level[branch])
        exact[branch] = exact.get(branch, 0) + float(mixture.weights[k]) / total
        histogram[branch] = histogram.get(branch, 0) + sum(float(posterior[i, j]) for i in range(40)) / 40

    found = measure(x, fractal, label, resamples=0)
    assert len(exact) == (254 if label is None else 127)
    distance = sum(abs(histogram[b] - exact[b]) for b in exact) / 2
    assert found["coverage"] == pytest.approx(1 - distance, abs=1e-5)
    assert found["dropped_mass"] == pytest.approx(sum(w for b, w in exact.items() if histogram[b] < w / 10), abs=1e-6)
    assert found["tips"] == pytest.approx(sum(h for b, h in histogram.items() if level[b] >= 5), abs=1e-5)
    assert found["tips_exact"] == pytest.approx(sum(w for b, w in exact.items() if level[b] >= 5), abs=1e-12)
    assert 0.1 < found["coverage"] < 0.6
    assert 0.3 < found["dropped_mass"] < 0.9


def test_soft_shares_are_unbiased(fractal):
    """The mean responsibilities of exact samples are the branches' exact shares, within 5 standard errors each."""
    features = metrics._features(draw(fractal, "A", 20_000, 4), fractal, "A", 0, 4)
    r = features.responsibilities
    error = (r.mean(0) - features.branches.shares).abs()
    assert (error < 5 * r.std(0) / 20_000**0.5).all()
    assert float(features.branches.shares.sum()) == pytest.approx(1, abs=1e-12)


def test_one_branch_that_gets_nothing_is_dropped():
    """16 of 17 equal components, each hit equally: 1/17 of the mass is missing."""
    data = load_dataset("simplex16")
    x = data.field(None).means[:16].float()
    found = measure(x, data, None, resamples=0)
    assert found["coverage"] == pytest.approx(16 / 17, abs=1e-6)
    assert found["dropped_mass"] == pytest.approx(1 / 17, abs=1e-6)
    assert "tips" not in found
    assert "class_leak" not in found


def test_class_leak_is_the_wrong_side(pair):
    """Two equal Gaussians at -1 and 1: the exact posterior's border is x = 0."""
    x = torch.tensor([[-1.0, 0.0], [-0.01, 5.0], [0.01, 5.0], [3.0, 0.0], [math.nan, 0.0]])
    assert measure(x, pair, "left", resamples=0)["class_leak"] == pytest.approx(2 / 5)
    assert measure(x, pair, "right", resamples=0)["class_leak"] == pytest.approx(2 / 5)


@pytest.mark.parametrize("label", ["A", "B"])
def test_class_leak_is_the_posteriors(fractal, label):
    x = fractal.field(None).sample(2000, 0.1, torch.Generator().manual_seed(1)).float()
    expected = (fractal.posterior(x, 0.0).argmax(-1) != fractal.labels.index(label)).double().mean()
    assert measure(x, fractal, label, resamples=0)["class_leak"] == pytest.approx(float(expected), abs=1e-12)


def test_sliced_distance_solves_the_assignment(fractal):
    """Along each direction the sorted match is the best of all matches, and the potential is a dual solution."""
    x = 1.5 * draw(fractal, "A", 30, 5)
    directions, target = metrics._target(fractal, "A", 30, 7, 1)
    assert float(directions.norm()) == pytest.approx(1)
    cost = ((x.double() @ directions[0])[:, None] - target[0]) ** 2
    rows, columns = linear_sum_assignment(cost.numpy())
    best = float(cost[rows, columns].mean())
    assert measure(x, fractal, "A", resamples=0, seed=7, projections=1)["sliced_w2"] == pytest.approx(best**0.5)

    phi, squared = metrics._sliced(x, fractal, "A", 7, 1)
    psi = (cost - phi[:, None]).amin(0)  # the most that is feasible beside phi
    assert float(phi.mean() + psi.mean()) == pytest.approx(squared) == pytest.approx(best)
    assert abs(float(phi.mean())) < 1e-12


def test_sliced_distance_of_a_shift(fractal):
    """A shift by t moves each direction u by t.u and so the squared distance by the mean of (t.u)^2; exact for the
    samples it compares with."""
    shift = torch.tensor([3.0, -4.0])
    x = metrics._exact(fractal, "A", 200, 0, "compared") + shift
    directions, _ = metrics._target(fractal, "A", 200, 0, 64)
    expected = float((directions @ shift.double()).square().mean().sqrt())
    assert measure(x, fractal, "A", resamples=0)["sliced_w2"] == pytest.approx(expected, rel=1e-6)
    assert expected == pytest.approx(5 / 2**0.5, rel=0.2)  # |t|/sqrt(d), to the 64 directions' own spread


class TestBootstrap:
    def test_resamples_are_what_repeating_the_samples_gives(self, fractal):
        """Each row of counts against measuring the samples repeated that often."""
        x = torch.cat([draw(fractal, "A", 190, 6), draw(fractal, "B", 5, 6), torch.full((5, 2), math.nan)])
        counts = metrics._counts(200, 8, 3)
        assert (counts.sum(1) == 200).all()
        found = metrics._features(x, fractal, "A", 3, 16).statistics(counts)
        for row in range(8):
            again = x.repeat_interleave(counts[row].long(), 0)
            literal = measure(again, fractal, "A", resamples=0, seed=3, projections=16)
            for name in found.keys() - {"sliced_w2"}:
                assert float(found[name][row]) == pytest.approx(literal[name], rel=1e-6, abs=1e-9), name

    def test_sliced_distance_is_resampled_to_first_order(self, fractal):
        """Far from the truth the first-order term is nearly all there is; being a dual solution it is never above."""
        x = draw(fractal, "A", 400, 8) + 0.5
        counts = metrics._counts(400, 10, 1)
        found = metrics._features(x, fractal, "A", 1, 16).statistics(counts)["sliced_w2"]
        literal = torch.tensor(
            [
                measure(x.repeat_interleave(c.long(), 0), fractal, "A", resamples=0, seed=1, projections=16)[
                    "sliced_w2"
                ]
                for c in counts
            ]
        )
        value = measure(x, fractal, "A", resamples=0, seed=1, projections=16)["sliced_w2"]
        assert float(found.std()) > 0.005
        assert (found <= literal + 1e-6).all()
        assert ((found - value) - (literal - value)).abs().max() < 0.25 * float(literal.std())

    def test_what_is_not_finite_has_no_part_in_resampled_means(self, fractal):
        """Metrics of the finite samples resample as if the others were not there."""
        x = torch.cat([1.2 * draw(fractal, "A", 80, 2), torch.full((60, 2), math.inf)])
        counts = metrics._counts(140, 6, 2)
        found = metrics._features(x, fractal, "A", 2, 8).statistics(counts)
        alone = metrics._features(x[:80], fractal, "A", 2, 8).statistics(counts[:, :80])
        for name in ("log_density", "sliced_w2"):
            torch.testing.assert_close(found[name], alone[name], rtol=1e-9, atol=1e-12)

    def test_intervals_hold_what_another_seed_gives(self):
        """95 % intervals of 60 runs hold the runs' mean at least 48 times: 5 binomial standard deviations below 57."""
        data = load_dataset("simplex16")
        names = ("coverage", "log_density", "sliced_w2")
        runs = [measure(0.9 * draw(data, None, 256, s), data, None, seed=s, projections=8) for s in range(60)]
        for name in names:
            mean = sum(r[name] for r in runs) / 60
            held = sum(r["intervals"][name][0] <= mean <= r["intervals"][name][1] for r in runs)
            widths = [r["intervals"][name][1] - r["intervals"][name][0] for r in runs]
            spread = torch.tensor([r[name] for r in runs]).std()
            assert held >= 48, name
            assert 2.5 < sum(widths) / 60 / float(spread) < 6.5, name  # 3.92 standard deviations

    def test_more_samples_than_fit_one_block_of_counts(self, pair, monkeypatch):
        """Counts made in several blocks give as many resamples, of the same spread."""
        x = draw(pair, "left", 500, 0)
        whole = measure(x, pair, "left")["intervals"]["log_density"]
        monkeypatch.setattr(metrics, "_COUNTS", 500 * 30)
        parts = measure(x, pair, "left")["intervals"]["log_density"]
        assert parts != whole
        assert parts[1] - parts[0] == pytest.approx(whole[1] - whole[0], rel=0.3)


class TestNotFinite:
    def test_counts_as_an_outlier_in_no_branch(self, fractal):
        x = draw(fractal, "A", 300, 2)
        broken = torch.cat([x, torch.tensor([[math.nan, 0.0], [math.inf, 1.0], [0.0, -math.inf]]).repeat(33, 1), x[:1]])
        whole, found = (measure(y, fractal, "A", resamples=0) for y in (torch.cat([x, x[:1]]), broken))
        assert (found["n"], found["diverged"]) == (400, 99)
        assert found["outliers"] * 400 == pytest.approx(whole["outliers"] * 301 + 99)
        assert found["tips"] * 400 == pytest.approx(whole["tips"] * 301)
        assert found["log_density"] == pytest.approx(whole["log_density"])
        assert found["sliced_w2"] == pytest.approx(whole["sliced_w2"])
        assert found["coverage"] < 301 / 400 + 1e-9

    def test_nothing_finite(self, pair):
        found = measure(torch.full((4, 2), math.nan), pair, "left")
        assert (found["outliers"], found["coverage"], found["dropped_mass"]) == (1, 0, 1)
        assert found["log_density"] is None
        assert found["sliced_w2"] is None
        assert found["intervals"].keys() == {"outliers", "coverage", "dropped_mass", "class_leak"}

    def test_huge_is_still_json(self, pair):
        x = torch.tensor([[3e38, -3e38], [1e30, 0.0], [1.0, 0.0]])
        text = json.dumps(measure(x, pair, "left"), allow_nan=False)
        assert json.loads(text)["outliers"] == 1


def test_reference_is_a_fresh_exact_sample(fractal):
    """Repeatable, its own for each seed, and in expectation the truth: within 5 of its intervals' standard errors."""
    found = reference(fractal, "A", 512, 1)
    assert found == reference(fractal, "A", 512, 1) != reference(fractal, "A", 512, 2)
    assert found == measure(metrics._exact(fractal, "A", 512, 1, "measured"), fractal, "A", seed=1)
    low, high = found["intervals"]["tips"]
    assert abs(found["tips"] - found["tips_exact"]) < 5 * (high - low) / 3.92
    found["intervals"].clear()
    assert reference(fractal, "A", 512, 1)["intervals"]
    assert not torch.equal(*(metrics._exact(fractal, "A", 9, 1, purpose) for purpose in ("compared", "measured")))


def test_every_metric_has_a_label(fractal):
    found = measure(draw(fractal, "A", 64, 0), fractal, "A")
    known = found.keys() - {"n", "outliers_exact", "tips_exact", "intervals"}
    assert known == METRICS.keys() - {"nfe", "gradients", "seconds"}
    for name, metric in METRICS.items():
        assert metric.better in {"low", "high", "truth"}
        assert format(7 if metric.unit == "count" else 0.123456, metric.format), name


@pytest.mark.parametrize(
    ("x", "label", "message"),
    [
        (torch.zeros(4, 3), "A", r"samples of shape \(4, 3\): expected \(n, 2\)"),
        (torch.zeros(0, 2), "A", r"samples of shape \(0, 2\)"),
        (torch.zeros(2), None, r"samples of shape \(2,\)"),
        (torch.zeros(4, 2), "a", "unknown label of fractal 'a': expected one of A, B"),
    ],
)
def test_bad_input_is_refused(fractal, x, label, message):
    with pytest.raises(InputError, match=message):
        measure(x, fractal, label)
