"""The alignment of two fields' errors, against closed forms and a search over weights."""

import math

import numpy as np
import pytest
import torch
from helpers import seeded

from toyguide import load_dataset, load_model
from toyguide.errors import InputError
from toyguide.fields import NoisierField
from toyguide.metrics.alignment import (
    alignment,
    best_weights,
    correction,
    denoising_errors,
    error_ratio,
    level_shares,
)

F64 = torch.float64


def errors(n, d, seed):
    return torch.randn(n, d, generator=seeded(seed), dtype=F64)


@pytest.mark.parametrize("k", [4.0, 2.5, 1.25, 0.5, -2.0])
def test_a_guide_that_makes_k_times_the_error_can_undo_it(k):
    e1 = errors(500, 3, 0)
    found = alignment(e1, k * e1, w=2.0)
    assert found.points == 500
    assert found.main_size == pytest.approx(float(e1.square().sum(-1).mean().sqrt()))
    assert found.guide_size == pytest.approx(abs(k) * found.main_size)
    assert found.cosine == pytest.approx(math.copysign(1, k))
    assert found.mean_cosine == pytest.approx(math.copysign(1, k))
    assert found.along == pytest.approx(k)
    assert found.best_weight == pytest.approx(k / (k - 1))
    assert found.best_weights == pytest.approx([k / (k - 1)] * 3)
    assert found.remaining == pytest.approx(0, abs=1e-6)
    assert found.shortened == (k > 1)
    # |e1| |1 + (2 - 1)(1 - k)| < |e1| for k between 1 and 3.
    assert found.shortened_at == (1 < k < 3)


def test_unrelated_errors_of_one_size_have_no_direction_in_common():
    """<e1, e1 - e0> has the mean |e1|^2 = d, and |e1 - e0|^2 the mean 2 d: the best weight is a half. A little guidance
    shortens the error where <e1, e0> > |e1|^2; for round errors in two dimensions this depends on the quotient r of
    their lengths (density 2 r / (1 + r^2)^2) and a uniform angle: E [arccos(1 / r) / pi; r > 1]."""
    n = 100_000
    found = alignment(errors(n, 2, 1), errors(n, 2, 2), w=3.0)
    four = 4 / math.sqrt(n)
    assert found.cosine == pytest.approx(0, abs=four)
    assert found.mean_cosine == pytest.approx(0, abs=four)
    assert found.along == pytest.approx(0, abs=2 * four)
    assert found.best_weight == pytest.approx(0.5, abs=2 * four)
    assert found.remaining == pytest.approx(math.sqrt(0.5), abs=2 * four)
    r = np.linspace(0, 1, 200_001)[1:-1]  # of 1 / r, which turns the density into the same one
    expected = np.mean(np.arccos(r) / np.pi * 2 * r / (1 + r**2) ** 2)
    assert found.shortened == pytest.approx(expected, abs=four / 2)


def test_the_best_weights_are_those_of_a_search():
    e1, e0 = errors(50, 2, 3), errors(50, 2, 4) + 2 * errors(50, 2, 3)
    weights = torch.linspace(-20, 20, 40_001, dtype=F64)

    def squared(w):
        return (e1 + (w - 1) * (e1 - e0)).square().sum(-1)

    each = torch.stack([squared(w) for w in weights])  # (weights, points)
    inside = best_weights(e1, e0).abs() < 20
    assert inside.float().mean() > 0.8
    torch.testing.assert_close(best_weights(e1, e0)[inside], weights[each.argmin(0)][inside], atol=6e-4, rtol=0)
    found = alignment(e1, e0, w=1.7)
    assert found.best_weight == pytest.approx(float(weights[each.mean(-1).argmin()]), abs=6e-4)
    assert found.remaining == pytest.approx(float((each.mean(-1).min() / squared(1.0).mean()).sqrt()), abs=1e-6)
    assert found.shortened == float((squared(1 + 1e-6) < squared(1.0)).double().mean())
    assert found.shortened_at == float((squared(1.7) < squared(1.0)).double().mean())


def test_two_raised_noise_levels_of_one_gaussian_have_a_known_part_and_weight():
    """D = m + V/(V + s^2) (x - m) at the level s: all errors lie along x - m, with factors that are known."""
    data, sigma, v = load_dataset("two-gaussians"), 0.3, 0.05
    exact = data.field("left")
    x = exact.sample(300, sigma, seeded(5)).double()
    raised = [NoisierField(exact, share) for share in (0.1, 0.2)]
    e1, e0 = (denoising_errors(f, exact, x, sigma) for f in raised)
    # A noisier field's score, seen at the true level: D = x + sigma^2 s(x; raised).
    factors = [sigma**2 / (v + sigma**2) - sigma**2 / (v + (sigma * (1 + share)) ** 2) for share in (0.1, 0.2)]
    for error, factor in zip((e1, e0), factors, strict=True):
        torch.testing.assert_close(error, factor * (x - exact.mean), rtol=1e-9, atol=1e-12)
    found = alignment(e1, e0, w=2.0)
    k = factors[1] / factors[0]
    assert found.along == pytest.approx(k)
    assert found.best_weight == pytest.approx(k / (k - 1))
    assert found.remaining == pytest.approx(0, abs=1e-6)


def test_no_push_shortens_nothing_and_has_no_best_weight():
    e1 = errors(40, 2, 6)
    assert best_weights(e1, e1).isnan().all()
    found = alignment(e1, e1, w=3.0)
    assert (found.shortened, found.shortened_at, found.along) == (0, 0, pytest.approx(1))
    assert all(map(math.isnan, (*found.best_weights, found.best_weight, found.remaining)))
    # Beside others, such points count in the shares only.
    half = torch.cat([e1[:20], 2 * e1[20:]])
    found = alignment(e1, half, w=3.0)
    assert found.shortened == 0.5
    assert found.best_weights == pytest.approx([2, 2, 2])


def test_quartiles_of_the_best_weights():
    e1, e0 = errors(101, 2, 14), errors(101, 2, 15)
    counts = torch.rand(101, generator=seeded(16), dtype=F64)
    expected = np.quantile(best_weights(e1, e0), [0.25, 0.5, 0.75], weights=counts, method="inverted_cdf")
    assert alignment(e1, e0, 2.0, counts).best_weights == pytest.approx(list(expected))


def test_a_point_without_an_error_has_no_direction():
    e1 = errors(40, 2, 17)
    e0 = 2 * e1
    e1[:10], e0[10:20] = 0, 0
    found = alignment(e1, e0, 1.5)
    assert found.mean_cosine == pytest.approx(0.5)  # 1 at half of the points
    assert found.shortened == 0.5


def test_counts_weigh_points_and_what_is_not_finite_is_left_out():
    e1, e0 = errors(60, 2, 7), 2 * errors(60, 2, 7) + errors(60, 2, 8)
    counts = torch.arange(60) % 4
    repeated = [a.repeat_interleave(counts, 0) for a in (e1, e0)]
    one, same = (vars(alignment(*a)) for a in ((e1, e0, 2.0, counts), (*repeated, 2.0)))
    assert one.pop("best_weights") == pytest.approx(same.pop("best_weights"))
    assert one == pytest.approx(same)
    broken = e1.clone()
    broken[:7] = torch.tensor([math.inf, math.nan])
    assert alignment(broken, e0, 2.0) == alignment(e1[7:], e0[7:], 2.0)
    nothing = alignment(e1, e0, 2.0, torch.zeros(60, dtype=torch.bool))
    assert nothing.points == 0
    assert all(math.isnan(v) for v in (nothing.main_size, nothing.cosine, nothing.shortened, *nothing.best_weights))


def test_the_ratio_of_two_lengths():
    error = torch.tensor([[3.0, 4.0], [3.0, 4.0], [3.0, 4.0], [0.0, 0.0], [0.0, 0.0], [3.0, 4.0]])
    push = torch.tensor([[-3.0, -4.0], [-1.5, -2.0], [3.0, 4.0], [1.0, 0.0], [0.0, 0.0], [-6.0, -8.0]])
    assert error_ratio(error, push).tolist() == pytest.approx([0.0, 0.5, 2.0, math.inf, 1.0, 1.0])


@pytest.mark.parametrize(("multiple", "cosine", "shortened"), [(-0.5, 1, 1), (-2.5, 1, 0), (0.1, -1, 0)])
def test_a_push_along_the_error(multiple, cosine, shortened):
    e = errors(300, 3, 10)
    found = correction(e, multiple * e)
    assert found.cosine == pytest.approx(cosine)
    assert found.size == pytest.approx(abs(multiple))
    assert found.shortened == shortened
    assert found.best_multiple == pytest.approx(-1 / multiple)


def test_a_push_and_the_errors_it_is_made_of_say_the_same():
    """(w - 1)(e1 - e0) is autoguidance's push: its best multiple is that of w - 1."""
    e1, w = errors(400, 2, 11), 2.5
    e0 = 1.4 * e1 + errors(400, 2, 12)
    push, whole = (w - 1) * (e1 - e0), alignment(e1, e0, w)
    found = correction(e1, push)
    assert found.best_multiple == pytest.approx((whole.best_weight - 1) / (w - 1))
    assert found.shortened == whole.shortened_at
    assert found.cosine == pytest.approx(-float(torch.cosine_similarity(e1, push).mean()))
    broken = torch.cat([e1, torch.full((3, 2), math.nan, dtype=F64)])
    assert correction(broken, torch.cat([push, e1[:3]])) == found


def test_without_a_push_nothing_is_shortened():
    found = correction(errors(50, 2, 13), torch.zeros(50, 2, dtype=F64))
    assert (found.cosine, found.size, found.shortened) == (0, 0, 0)
    assert math.isnan(found.best_multiple)


def test_the_shares_of_the_levels_are_the_means_of_the_data_of_each():
    """Weighted by its shares, a level's mean error is that of the points drawn from its branches alone."""
    data, sigma, n = load_dataset("fractal"), 0.05, 6000
    exact, weak = data.field("A"), load_model("fractal/weak")
    x = exact.sample(n, sigma, seeded(9))
    shares = level_shares(data, "A", x, sigma)
    assert shares.shape == (n, 7)
    torch.testing.assert_close(shares.sum(-1), torch.ones(n, dtype=shares.dtype))
    error = denoising_errors(weak, exact, x, sigma)
    levels = data.components.branch_level[data.components.component_branch]
    for level in (0, 3, 6):
        members = data.components.mixture.subset(data.mask("A") & (levels == level))
        own = members.sample(n, sigma, seeded(level))
        squares = denoising_errors(weak, exact, own, sigma).square().sum(-1)
        soft = error.square().sum(-1)
        expected, off = float(squares.mean()), float(squares.std()) / math.sqrt(n)
        found = alignment(error, error, 2.0, shares[:, level])
        off += float(((shares[:, level] * (soft - expected)).square().sum()).sqrt() / shares[:, level].sum())
        assert found.main_size**2 == pytest.approx(expected, abs=4 * off)
        weight = float(data.field("A").weights[levels[data.mask("A")] == level].sum())
        assert found.points / n == pytest.approx(weight, abs=4 * math.sqrt(weight / n))


def test_a_dataset_without_trees_has_no_levels():
    data = load_dataset("simplex16")
    with pytest.raises(InputError, match="simplex16"):
        level_shares(data, None, data.field().sample(3, 0.1), 0.1)
