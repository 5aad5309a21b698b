"""Metrics that compare final samples with the exact field.

With the responsibilities ``r_ib`` of the branches for ``n`` samples, and their exact shares ``w_b``:

    outliers      mean_i [log p(x_i) < t]                t the exact 1 % quantile of log p; 0.1 % for far outliers
    strays        mean of [x_i is an outlier, and farther than a distance from the ball around every component], a ball
                  that holds 99.9 % of a round Gaussian as wide as the component's widest axis
    coverage      sum_b min(h_b, w_b),  h_b = mean_i r_ib   (1 - total variation; soft, so E h_b = w_b exactly)
    dropped mass  sum_b w_b [h_b < w_b / 10]
    sliced W2     see :mod:`toyguide.metrics.sliced`

The mean log-density and the full distance are decided by a few samples far away, if there are some; the median and the
trimmed distance are not.

A metric of finitely many samples differs from its limit even if the samples are exact: 512 of them cannot fill 127
branches. Compare with :func:`reference`, the value of as many exact samples.

Intervals are 95 % confidence intervals of a metric's expectation at the same n: of the mean over many runs like this
one, not of the value of another run, nor of the limit of many samples. How often they held it in repetitions on the
fractal (300 at n = 1024, 200 at n = 4096), for exact samples, and for noisy ones of which 2 % are strays and a third of
the branches is thinned:

                              n = 1024           n = 4096
                              exact    noisy     exact    noisy
    outliers                  0.94     0.93      0.96     0.96
    far outliers              0.94     0.95      0.94     0.96
    strays > 0.05             -        0.94      -        0.94
    coverage                  0.98     0.96      0.96     0.98
    dropped mass              0.97     0.93      1.00     0.97    (none is dropped in most of the exact 4096)
    tips                      0.96     0.96      0.96     0.96
    class leak                0.95     0.95      0.94     0.96
    log-density, mean         0.96     0.91      0.95     0.95
    log-density, median       0.94     0.95      0.96     0.96
    sliced W2                 0.98     0.94      0.94     0.96
    trimmed W2                0.98     0.93      0.94     0.97

References:
    Karras et al., Guiding a Diffusion Model with a Bad Version of Itself, 2024, arXiv 2406.02507 (outliers, branches).
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from toyguide.datasets import Dataset
from toyguide.errors import InputError
from toyguide.metrics import intervals
from toyguide.metrics.exact import exact_samples, hdr_threshold
from toyguide.metrics.sliced import Distance, distances, noise

__all__ = [
    "METRICS",
    "OUTSIDE",
    "Features",
    "Metric",
    "branches_of",
    "coverage",
    "dropped_mass",
    "features_of",
    "measure",
    "measure_features",
    "reference",
    "resampled_coverage",
    "resampled_shares",
    "resamplings",
    "values_of",
]

OUTSIDE = {"outliers": 0.01, "far_outliers": 0.001}
"""The share of the exact mass outside the highest-density region, for the metrics that count samples there."""
_STRAYED = {"strays_05": 0.05, "strays_10": 0.1, "strays_20": 0.2}  # least distances
_BALL = 0.999  # share of a round Gaussian inside its ball
_BLOCK = 1 << 12  # samples whose responsibilities are computed at once
_COUNTS = 1 << 23  # most entries of a matrix of bootstrap counts


@dataclass(frozen=True)
class Metric:
    """The description of a metric.

    Attributes:
        title: A short name.
        doc: One sentence for help texts.
        unit: ``share``, ``nats``, ``length``, ``count`` or ``s``.
        format: The format specification of its values.
        better: Which values are better: ``low``, ``high`` or ``truth`` (close to the value of exact samples).
    """

    title: str
    doc: str
    unit: str
    format: str
    better: str


METRICS = {
    "outliers": Metric(
        "Outliers",
        "Share of the samples outside the exact 99 % highest-density region; 1 % of exact samples are.",
        "share",
        ".3f",
        "truth",
    ),
    "far_outliers": Metric(
        "Far outliers",
        "Share of the samples outside the exact 99.9 % highest-density region; 0.1 % of exact samples are.",
        "share",
        ".4f",
        "truth",
    ),
    "strays_05": Metric(
        "Strays > 0.05",
        "Share of the samples that are outliers and farther than 0.05 from the ball around every component.",
        "share",
        ".3f",
        "low",
    ),
    "strays_10": Metric(
        "Strays > 0.1",
        "Share of the samples that are outliers and farther than 0.1 from the ball around every component.",
        "share",
        ".3f",
        "low",
    ),
    "strays_20": Metric(
        "Strays > 0.2",
        "Share of the samples that are outliers and farther than 0.2 from the ball around every component.",
        "share",
        ".3f",
        "low",
    ),
    "coverage": Metric(
        "Coverage",
        "How much of the exact mass of the branches the samples fill: 1 minus the total variation.",
        "share",
        ".3f",
        "high",
    ),
    "dropped_mass": Metric(
        "Dropped mass",
        "Exact mass of the branches that get less than a tenth of their share of the samples; a few hundred exact "
        "samples drop some too, which the truth at the same n shows.",
        "share",
        ".3f",
        "low",
    ),
    "tips": Metric("Tips", "Share of the samples in the two outermost levels of branches.", "share", ".3f", "truth"),
    "class_leak": Metric(
        "Class leak",
        "Share of the samples that the exact posterior gives to another class; of exact samples a few, too.",
        "share",
        ".3f",
        "truth",
    ),
    "log_density": Metric(
        "Log-density",
        "Mean exact log-density of the finite samples, decided by a few far ones; above the truth is too concentrated.",
        "nats",
        ".2f",
        "truth",
    ),
    "median_log_density": Metric(
        "Median log-density",
        "Median exact log-density of the finite samples; above the truth means too concentrated.",
        "nats",
        ".2f",
        "truth",
    ),
    "sliced_w2": Metric(
        "Sliced W2",
        "Sliced Wasserstein-2 distance of the finite samples to as many exact quantiles.",
        "length",
        ".4f",
        "low",
    ),
    "trimmed_w2": Metric(
        "Trimmed W2",
        "Sliced Wasserstein-2 distance without the outermost 0.5 % of the samples at each end of each direction.",
        "length",
        ".4f",
        "low",
    ),
    "diverged": Metric("Diverged", "Samples that are not finite.", "count", "d", "low"),
    "nfe": Metric("Evaluations", "Field evaluations, the mean over the trajectories.", "count", ".4g", "low"),
    "gradients": Metric(
        "Gradients", "Jacobian products and classifier gradients of each trajectory.", "count", "d", "low"
    ),
    "seconds": Metric("Seconds", "Wall time of the sampling.", "s", ".2f", "low"),
}


@dataclass(frozen=True)
class Branches:
    """The branches of one class, or of all classes."""

    index: Tensor  # (K,), the branch of each component
    shares: Tensor  # (B,), the exact share of each branch, float64
    tips: Tensor | None  # (B,), bool, whether the branch is in the two outermost levels


@dataclass(frozen=True, eq=False)
class Features:
    """What the metrics of samples are computed from, float64; zero for a sample that is not finite."""

    data: Dataset
    label: str | None
    finite: Tensor  # (n,), bool
    flags: dict[str, Tensor]  # (n,), bool each: the metrics that are shares of the samples
    log_density: Tensor  # (n,)
    responsibilities: Tensor  # (n, B)
    distances: dict[str, Distance]  # empty if no sample is finite


def measure(x: Tensor, data: Dataset, label: str | None, *, resamples: int = 200, seed: int = 0) -> dict[str, Any]:
    """Compare final samples with the exact field.

    Args:
        x: Samples, with shape ``(n, d)``; those that are not finite count as outliers and strays and lie in no branch.
        data: The dataset.
        label: The class that was sampled; None for the union.
        resamples: The number of bootstrap resamples; 0 for no intervals.
        seed: The seed of the resamples.

    Returns:
        A flat dictionary of plain values: ``n``, ``diverged``, a value for each metric that applies (see ``METRICS``;
        None if no sample is finite), ``outliers_exact`` and ``tips_exact``, and with resamples ``intervals``, the 95 %
        interval ``[low, high]`` of each metric's expectation at this n.

    Raises:
        InputError: If there are no samples, they do not fit the dataset, or there is no such label.
    """
    return measure_features(features_of(x, data, label), resamples=resamples, seed=seed)


def measure_features(features: Features, *, resamples: int = 200, seed: int = 0) -> dict[str, Any]:
    """The result of :func:`measure` for samples whose features are known."""
    data, label = features.data, features.label
    branches, values = branches_of(data, label), values_of(features)

    result: dict[str, Any] = {"n": len(features.finite), "diverged": int((~features.finite).sum())}
    result |= {k: values[k] for k in METRICS if k in values}
    result["outliers_exact"] = OUTSIDE["outliers"]
    if branches.tips is not None:
        result["tips_exact"] = float(branches.shares[branches.tips].sum())
    if resamples:
        found = _intervals(features, resamples, seed)
        if features.finite.any():
            levels = zip(features.distances.items(), noise(data, label, int(features.finite.sum())), strict=True)
            found |= {name: distance.interval(level) for (name, distance), level in levels}
        result["intervals"] = {k: found[k] for k in METRICS if k in found}
    return result


def reference(data: Dataset, label: str | None, n: int, seed: int = 0) -> dict[str, Any]:
    """The result of :func:`measure` for ``n`` fresh exact samples: the reference values at this n."""
    return copy.deepcopy(_reference(data, label, n, seed))


@lru_cache(maxsize=64)
def _reference(data: Dataset, label: str | None, n: int, seed: int) -> dict[str, Any]:
    return measure(exact_samples(data, label, n, seed, "measured"), data, label, seed=seed)


@lru_cache(maxsize=64)
def branches_of(data: Dataset, label: str | None) -> Branches:
    """The branches of a class; None for all."""
    names, index = data.components.component_branch[data.mask(label)].unique(return_inverse=True)
    shares = torch.zeros(len(names), dtype=torch.float64).index_add_(0, index, data.field(label).weights)
    levels = data.components.branch_level
    return Branches(index, shares, None if levels is None else levels[names] >= levels.max() - 1)


def values_of(f: Features) -> dict[str, float | None]:
    """A value for each metric that applies; None if no sample is finite."""
    branches = branches_of(f.data, f.label)
    filled, exact = f.responsibilities.mean(0), branches.shares
    found: dict[str, float | None] = {name: float(flag.double().mean()) for name, flag in f.flags.items()}
    found["coverage"] = float(coverage(filled, exact))
    found["dropped_mass"] = float(dropped_mass(filled, exact))
    if branches.tips is not None:
        found["tips"] = float(filled[branches.tips].sum())
    alone = f.log_density[f.finite]
    found["log_density"] = float(alone.mean()) if len(alone) else None
    found["median_log_density"] = float(alone.quantile(0.5)) if len(alone) else None
    found |= {name: f.distances[name].value if f.distances else None for name in ("sliced_w2", "trimmed_w2")}
    return found


def _intervals(f: Features, resamples: int, seed: int) -> dict[str, list[float]]:
    """The intervals of all metrics but the distances."""
    branches = branches_of(f.data, f.label)
    n, exact = len(f.finite), branches.shares
    found = {name: intervals.of_share(float(flag.double().mean()), n) for name, flag in f.flags.items()}
    drawn = resamplings(n, resamples, seed)
    filled, refilled = f.responsibilities.mean(0), resampled_shares(f, drawn)
    by_resample = resampled_coverage(f, refilled)
    found["coverage"] = _clipped(coverage(filled, exact) + intervals.percentiles(by_resample) - by_resample.mean())
    half = intervals.Z * dropped_mass(refilled, exact).std(correction=0)
    found["dropped_mass"] = _clipped(dropped_mass(filled, exact) + torch.stack([-half, half]))

    if branches.tips is not None:
        tips = f.responsibilities[:, branches.tips].sum(-1)
        found["tips"] = _clipped(torch.tensor(intervals.of_mean(tips, drawn), dtype=torch.float64))
    if f.finite.any():
        alone = f.log_density[f.finite]
        found["log_density"] = intervals.of_mean(alone, [part[:, f.finite] for part in drawn])
        found["median_log_density"] = intervals.of_median(alone)
    return found


def resampled_shares(f: Features, drawn: list[Tensor]) -> Tensor:
    """The branches' shares of the samples in each resample, with shape ``(R, B)``."""
    return torch.cat([part @ f.responsibilities / len(f.finite) for part in drawn])


def resampled_coverage(f: Features, refilled: Tensor) -> Tensor:
    """The coverage of each resample (R,), which varies as the coverage of repeated runs does.

    What was found already varies about its expectation, so that branches look less evenly filled than they are, and
    resamples vary too much. Each share is first drawn to the exact one by what chance explains.
    """
    filled, exact = f.responsibilities.mean(0), branches_of(f.data, f.label).shares
    off = filled - exact
    by_chance = exact * (1 - exact) / len(f.finite) / off.square().clamp(min=torch.finfo(torch.float64).tiny)
    expected = exact + off * (1 - by_chance).clamp(min=0)
    return coverage(expected + refilled - filled, exact)


def _clipped(ends: Tensor) -> list[float]:
    return [float(end) for end in ends.clamp(0.0, 1.0)]


def coverage(filled: Tensor, exact: Tensor) -> Tensor:
    """The coverage by shares (..., B) of the branches, given the exact shares (B,)."""
    return torch.minimum(filled, exact).sum(-1)


def dropped_mass(filled: Tensor, exact: Tensor) -> Tensor:
    """The dropped mass by shares (..., B) of the branches, given the exact shares (B,)."""
    return (filled < exact / 10).double() @ exact


def resamplings(n: int, resamples: int, seed: int) -> list[Tensor]:
    """How often each sample is drawn in each resample, in blocks (R, n) of a bounded size."""
    rows = max(1, min(resamples, _COUNTS // n))
    return [intervals.counts(n, min(rows, resamples - i), seed + i) for i in range(0, resamples, rows)]


def features_of(x: Tensor, data: Dataset, label: str | None) -> Features:
    """The features of samples, with shape ``(n, d)``.

    Raises:
        InputError: If there are no samples, they do not fit the dataset, or there is no such label.
    """
    if x.ndim != 2 or x.shape[1] != data.dim or not len(x):
        raise InputError(f"samples of shape {tuple(x.shape)}: expected (n, {data.dim}) with at least one")
    x = x.detach().cpu().float()
    field, branches = data.field(label), branches_of(data, label)
    finite = x.isfinite().all(-1)

    log_density, filled = x.new_zeros(len(x)), x.new_zeros(len(x), len(branches.shares))
    leaked = torch.zeros(len(x), dtype=torch.bool)
    for rows in finite.nonzero()[:, 0].split(_BLOCK):
        block = x[rows]
        log_density[rows], shares = field.explain(block, 0.0)
        filled[rows] = filled[rows].index_add_(-1, branches.index, shares)
        if label is not None:
            leaked[rows] = leaks(block, log_density[rows], data, label)

    inside = {name: hdr_threshold(data, label, share=1 - share) for name, share in OUTSIDE.items()}
    flags = {name: ~finite | (log_density < threshold) for name, threshold in inside.items()}
    beyond = torch.full((len(x),), math.inf)
    beyond[~flags["outliers"]] = 0.0
    rows = (finite & flags["outliers"]).nonzero()[:, 0]
    beyond[rows] = _beyond(x[rows], data, label)
    flags |= {name: beyond > least for name, least in _STRAYED.items()}
    if label is not None:
        flags["class_leak"] = leaked
    found = {}
    if finite.any():
        found = dict(zip(("sliced_w2", "trimmed_w2"), distances(x[finite], data, label), strict=True))
    return Features(data, label, finite, flags, log_density.double(), filled.double(), found)


def _beyond(x: Tensor, data: Dataset, label: str | None) -> Tensor:
    """The distance of finite points (k, d) to the nearest component's ball, negative inside, with shape (k,)."""
    from scipy.special import chdtri

    field = data.field(label)
    widest = torch.linalg.eigvalsh(field.covariances)[:, -1].sqrt()
    radius = math.sqrt(chdtri(data.dim, 1 - _BALL)) * widest
    parts = [torch.cdist(block.double(), field.means) - radius for block in x.split(_BLOCK)]
    return torch.cat([part.amin(-1) for part in parts]).float() if parts else x.new_zeros(0)


def leaks(x: Tensor, log_density: Tensor, data: Dataset, label: str) -> Tensor:
    """Whether another class has a higher posterior than ``label`` at each point, given ``label``'s log-densities."""

    def log_prior(name: str) -> float:
        return math.log(data.components.mixture.weights[data.mask(name)].sum())

    leaks = torch.zeros(len(x), dtype=torch.bool)
    for other in set(data.labels) - {label}:
        rival = data.field(other).log_density(x, 0.0) + log_prior(other)
        leaks |= rival > log_density + log_prior(label)
    return leaks
