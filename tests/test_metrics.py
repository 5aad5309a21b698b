"""Metrics against closed forms, loops over samples, assignment problems and resampling done literally."""

import json
import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.optimize import linear_sum_assignment
from torch.distributions import MultivariateNormal

from toyguide import load_dataset
from toyguide.errors import InputError
from toyguide.metrics import METRICS, hdr_threshold, intervals, measure, reference, sliced
from toyguide.metrics import samples as metrics
from toyguide.metrics.exact import MANY, exact_samples
from toyguide.studies.base import USUAL_METRICS


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
    found = measure(draw(fractal, "A", 20_000, 11), fractal, "A", resamples=0)
    for name, share in {"outliers": 0.01, "far_outliers": 0.001}.items():
        assert abs(found[name] - share) < 4 * math.sqrt(share * (1 - share) * (1 / 20_000 + 1 / 65536))
    assert found["outliers_exact"] == 0.01


def test_strays_of_one_gaussian_are_beyond_its_ball(pair):
    """Where the ball ends is known, and the two Gaussians are 2 apart; what is not finite is a stray too."""
    edge = math.sqrt(0.05 * stats.chi2.isf(0.001, 2))
    steps = [-0.01, 0.04, 0.06, 0.09, 0.11, 0.19, 0.21, 30.0]
    x = torch.tensor([[-1.0 - edge - step, 0.0] for step in steps] + [[math.inf, 0.0]])
    found = measure(x, pair, "left", resamples=0)
    shares = [found[name] * 9 for name in ("strays_05", "strays_10", "strays_20")]
    assert shares == pytest.approx([7, 5, 3])
    assert measure(torch.tensor([[1.0, 0.0]]), pair, "left", resamples=0)["strays_20"] == 1
    assert measure(torch.tensor([[1.0, 0.0]]), pair, None, resamples=0)["strays_05"] == 0


@pytest.mark.parametrize("name", ["fractal", "simplex16"])
def test_strays_by_hand(name):
    """Loops over samples and components, in double precision."""
    data = load_dataset(name)
    field, x = data.field(None), draw(data, None, 60, 3)
    x += 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    radius = [
        math.sqrt(float(torch.linalg.eigvalsh(c)[-1]) * stats.chi2.isf(0.001, data.dim)) for c in field.covariances
    ]
    far = [min(float((p.double() - m).norm()) - r for m, r in zip(field.means, radius, strict=True)) for p in x]
    found = measure(x, data, None, resamples=0)
    for metric, least in {"strays_05": 0.05, "strays_10": 0.1, "strays_20": 0.2}.items():
        assert found[metric] == pytest.approx(sum(f > least for f in far) / 60)
    assert found["strays_05"] > 0


def test_no_exact_sample_strays(fractal):
    assert measure(draw(fractal, "A", 20_000, 5), fractal, "A", resamples=0)["strays_05"] == 0


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
    r, exact = (
        metrics.features_of(draw(fractal, "A", 20_000, 4), fractal, "A").responsibilities,
        metrics.branches_of(fractal, "A"),
    )
    assert ((r.mean(0) - exact.shares).abs() < 5 * r.std(0) / 20_000**0.5).all()
    assert float(exact.shares.sum()) == pytest.approx(1, abs=1e-12)


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


def test_quantiles_are_means_between_exact_samples(pair):
    """Each exact sample counted 48 times, in 48 parts of equal size."""
    directions, target = sliced._target(pair, None, 48)
    line = (directions @ exact_samples(pair, None, MANY, 0, "compared").T.double()).sort(-1).values[:2]
    torch.testing.assert_close(target[:2], line.repeat_interleave(48, -1).reshape(2, 48, MANY).mean(-1))
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(64, dtype=torch.float64))


def test_sliced_distance_solves_the_assignment(fractal):
    """Along a direction the sorted match is the best of all matches, and the potential is a dual solution."""
    x = 1.5 * draw(fractal, "A", 30, 5)
    directions, target = (t[:1] for t in sliced._target(fractal, "A", 30))
    cost = ((x.double() @ directions[0])[:, None] - target[0]) ** 2
    rows, columns = linear_sum_assignment(cost.numpy())
    best = float(cost[rows, columns].mean())
    line, order = (directions @ x.T.double()).sort(-1)
    assert sliced._distance(line, target, order, 0).squared == pytest.approx(best)

    phi = sliced._potential(line, target, order, 0)
    psi = (cost - phi[:, None]).amin(0)  # the most that is feasible beside phi
    assert float(phi.mean() + psi.mean()) == pytest.approx(best)


def test_sliced_distance_of_a_shift(fractal):
    """A shift by t moves each direction u by t.u and so the squared distance by the mean of (t.u)^2; exact for the
    samples that stand for the distribution."""
    shift = torch.tensor([3.0, -4.0])
    x = exact_samples(fractal, "A", MANY, 0, "compared") + shift
    directions, _ = sliced._target(fractal, "A", MANY)
    expected = float((directions @ shift.double()).square().mean().sqrt())
    for distance in sliced.distances(x, fractal, "A"):
        assert distance.value == pytest.approx(expected, rel=1e-6)
    assert expected == pytest.approx(5 / 2**0.5, rel=0.2)  # |t|/sqrt(d), to the 64 directions' own spread


def test_a_few_strays_decide_the_full_distance_alone(fractal):
    x = draw(fractal, "A", 4000, 1)
    plain = measure(x, fractal, "A", resamples=0)
    x[:10] = torch.tensor([300.0, 100.0])
    found = measure(x, fractal, "A", resamples=0)
    assert found["sliced_w2"] > 100 * plain["sliced_w2"]
    assert found["log_density"] < plain["log_density"] - 1000
    assert found["trimmed_w2"] < 2 * plain["trimmed_w2"]
    assert abs(found["median_log_density"] - plain["median_log_density"]) < 0.02


@pytest.mark.parametrize("n", [100, 400])
def test_errors_of_distances_are_those_of_repetition(pair, n):
    """First-order errors against the spread of 300 repetitions far from the truth, whose own error is 4 %."""
    found = [sliced.distances(0.5 * draw(pair, "left", n, s) + 0.3, pair, "left") for s in range(300)]
    for which in (0, 1):
        spread = torch.tensor([d[which].squared for d in found]).std()
        assert sum(d[which].error for d in found) / 300 == pytest.approx(float(spread), rel=0.15)


def test_the_noise_of_a_distance_is_that_of_exact_samples(pair):
    for n in (256, 4096):
        squares = [
            [d.squared for d in sliced.distances(draw(pair, "left", n, 50 + s), pair, "left")] for s in range(40)
        ]
        for expected, found in zip(torch.tensor(squares).mean(0), sliced.noise(pair, "left", n), strict=True):
            assert found == pytest.approx(float(expected), rel=0.5)


class TestIntervals:
    def test_a_share_is_wilsons(self):
        for count, n in [(0, 40), (1, 1000), (17, 40), (40, 40)]:
            expected = stats.binomtest(count, n).proportion_ci(method="wilson")
            assert intervals.of_share(count / n, n) == pytest.approx([expected.low, expected.high], abs=1e-12)

    @pytest.mark.parametrize("n", [7, 100, 1025])
    def test_a_median_is_between_order_statistics(self, n):
        values = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
        expected = stats.quantile_test(values.numpy(), p=0.5).confidence_interval(0.95)
        assert intervals.of_median(values) == pytest.approx([expected.low, expected.high])

    def test_few_values_have_the_median_of_all(self):
        assert intervals.of_median(torch.tensor([3.0, 1.0, 2.0])) == [1.0, 3.0]

    def test_a_mean_is_of_studentised_resamples(self):
        """Resamples done literally."""
        values = torch.rand(50, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).exp()
        drawn = intervals.counts(50, 60, 2)
        assert (drawn.sum(1) == 50).all()
        again = [values.repeat_interleave(c.long()) for c in drawn]
        students = torch.stack([(a.mean() - values.mean()) / a.std(correction=0) for a in again])
        low, high = np.quantile(students.numpy(), [0.025, 0.975], method="weibull")
        expected = [float(values.mean() - q * values.std(correction=0)) for q in (high, low)]
        assert intervals.of_mean(values, [drawn[:20], drawn[20:]]) == pytest.approx(expected)
        assert intervals.of_mean(torch.full((5,), 2.0).double(), [intervals.counts(5, 9, 0)]) == [2.0, 2.0]

    @pytest.mark.parametrize("noise", [0.0, 0.02])
    def test_they_hold_the_expectation(self, fractal, noise):
        """95 % intervals of 150 runs hold the runs' mean 142 times, to 4 binomial standard deviations of 2.7."""
        runs = []
        for seed in range(150):
            x = draw(fractal, "A", 400, seed)
            x += noise * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
            x = torch.where((noise > 0) & (x[:, :1] < -0.3), x.roll(1, 0), x)  # and some branches thinned
            runs.append(measure(x, fractal, "A", resamples=100))
        for name in runs[0]["intervals"]:
            mean = sum(r[name] for r in runs) / 150
            held = sum(r["intervals"][name][0] <= mean <= r["intervals"][name][1] for r in runs)
            assert held >= 131, name
            widths = [r["intervals"][name][1] - r["intervals"][name][0] for r in runs]
            spread = float(torch.tensor([r[name] for r in runs]).std())
            if mean > 0.01:  # shares of fewer than four samples have wider ones
                assert 2.8 < sum(widths) / 150 / spread < 6.5, name  # 3.92 standard deviations

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
        assert found["median_log_density"] is None
        assert found["trimmed_w2"] is None
        assert found["strays_20"] == 1
        strays = {"strays_05", "strays_10", "strays_20"}
        assert found["intervals"].keys() == strays | {
            "outliers",
            "far_outliers",
            "coverage",
            "dropped_mass",
            "class_leak",
        }

    def test_huge_is_still_json(self, pair):
        x = torch.tensor([[3e38, -3e38], [1e30, 0.0], [1.0, 0.0]])
        text = json.dumps(measure(x, pair, "left"), allow_nan=False)
        assert json.loads(text)["outliers"] == 1


def test_reference_is_a_fresh_exact_sample(fractal):
    """Repeatable, its own for each seed, and in expectation the truth: within 5 of its intervals' standard errors."""
    found = reference(fractal, "A", 512, 1)
    assert found == reference(fractal, "A", 512, 1) != reference(fractal, "A", 512, 2)
    assert found == measure(exact_samples(fractal, "A", 512, 1, "measured"), fractal, "A", seed=1)
    low, high = found["intervals"]["tips"]
    assert abs(found["tips"] - found["tips_exact"]) < 5 * (high - low) / 3.92
    found["intervals"].clear()
    assert reference(fractal, "A", 512, 1)["intervals"]
    assert not torch.equal(*(exact_samples(fractal, "A", 9, 1, purpose) for purpose in ("compared", "measured")))


def test_every_metric_has_a_label(fractal):
    found = measure(draw(fractal, "A", 64, 0), fractal, "A")
    known = found.keys() - {"n", "outliers_exact", "tips_exact", "intervals"}
    assert known - {"diverged"} == set(USUAL_METRICS) == found["intervals"].keys()
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
