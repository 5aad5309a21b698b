"""Metrics that compare final samples with the exact field.

Every metric is a function of how often each sample is counted. A bootstrap resample is then one row of counts, and all
resamples are one matrix product with per-sample features. With the counts ``c_i`` of ``n`` samples, ``a_i = c_i / n``,
the responsibilities ``r_ib`` of the branches and their exact shares ``w_b``:

    outliers      sum_i a_i [log p(x_i) < t]             t the exact 1 % quantile of log p
    coverage      sum_b min(h_b, w_b),  h_b = sum_i a_i r_ib   (1 - total variation; soft, so E h_b = w_b exactly)
    dropped mass  sum_b w_b [h_b < w_b / 10]
    sliced W2     the root of the mean over directions of W2^2, whose first-order change with the counts is
                  sum_i a_i phi_i, where phi is the Kantorovich potential of the sorted matching

A metric of finitely many samples differs from its limit even if the samples are exact: 512 of them cannot fill 127
branches. Compare with :func:`reference`, the value of as many exact samples.

References:
    Karras et al., Guiding a Diffusion Model with a Bad Version of Itself, 2024, arXiv 2406.02507 (outliers, branches).
    Bonneel et al., Sliced and Radon Wasserstein Barycenters of Measures, 2015 (sliced W2).
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

__all__ = ["METRICS", "Metric", "hdr_threshold", "measure", "reference"]

_OUTSIDE = 0.01  # share of the mass outside the highest-density region, where outliers lie
_EXACT_SAMPLES = 1 << 16  # for estimating the exact quantile
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
    "coverage": Metric(
        "Coverage",
        "How much of the exact mass of the branches the samples fill: 1 minus the total variation.",
        "share",
        ".3f",
        "high",
    ),
    "dropped_mass": Metric(
        "Dropped mass",
        "Exact mass of the branches that get less than a tenth of their share of the samples.",
        "share",
        ".3f",
        "low",
    ),
    "tips": Metric("Tips", "Share of the samples in the two outermost levels of branches.", "share", ".3f", "truth"),
    "class_leak": Metric(
        "Class leak",
        "Share of the samples that the exact posterior gives to another class.",
        "share",
        ".3f",
        "low",
    ),
    "log_density": Metric(
        "Log-density",
        "Mean exact log-density of the finite samples; above the truth means too concentrated.",
        "nats",
        ".2f",
        "truth",
    ),
    "sliced_w2": Metric(
        "Sliced W2",
        "Sliced Wasserstein-2 distance of the finite samples to as many fresh exact ones.",
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
class _Branches:
    """The branches of one class, or of all classes."""

    index: Tensor  # (K,), the branch of each component
    shares: Tensor  # (B,), the exact share of each branch, float64
    tips: Tensor | None  # (B,), bool, whether the branch is in the two outermost levels


@dataclass(frozen=True)
class _Features:
    """The per-sample features of the metrics, float64; zero for a sample that is not finite."""

    branches: _Branches
    finite: Tensor  # (n,)
    outside: Tensor  # (n,), 1 for a sample that is not finite
    leaked: Tensor | None  # (n,)
    log_density: Tensor  # (n,)
    responsibilities: Tensor  # (n, B)
    potential: Tensor  # (n,), of the squared sliced distance; its mean over the finite samples is 0
    squared_distance: float

    def statistics(self, counts: Tensor) -> dict[str, Tensor]:
        """Each metric for each row of ``counts`` (R, n), with shape (R,)."""
        share = counts / counts.shape[1]
        finite = share @ self.finite
        filled, exact = share @ self.responsibilities, self.branches.shares
        found = {
            "outliers": share @ self.outside,
            "coverage": torch.minimum(filled, exact).sum(-1),
            "dropped_mass": (filled < exact / 10).double() @ exact,
            "log_density": share @ self.log_density / finite,
            "sliced_w2": (self.squared_distance + share @ self.potential / finite).clamp(min=0).sqrt(),
        }
        if self.branches.tips is not None:
            found["tips"] = filled[:, self.branches.tips].sum(-1)
        if self.leaked is not None:
            found["class_leak"] = share @ self.leaked
        return found


def measure(
    x: Tensor, data: Dataset, label: str | None, *, resamples: int = 200, seed: int = 0, projections: int = 64
) -> dict[str, Any]:
    """Compare final samples with the exact field.

    Args:
        x: Samples, with shape ``(n, d)``; those that are not finite count as outliers and lie in no branch.
        data: The dataset.
        label: The class that was sampled; None for the union.
        resamples: The number of bootstrap resamples; 0 for no intervals.
        seed: The seed of the fresh exact sample, the directions and the resamples; results with the same seed are
            comparable.
        projections: The number of directions of the sliced distance.

    Returns:
        A flat dictionary of plain values: ``n``, ``diverged``, a value for each metric that applies (see ``METRICS``;
        None if no sample is finite), ``outliers_exact`` and ``tips_exact``, and with resamples ``intervals``, the 95 %
        bootstrap interval ``[low, high]`` of each metric. Resampling biases metrics like coverage, because it adds
        sampling noise a second time. The intervals are therefore the percentiles relative to the resamples' mean,
        shifted to the value: they say how far the value of another seed may lie at the same n.

    Raises:
        InputError: If there are no samples, they do not fit the dataset, or there is no such label.
    """
    if x.ndim != 2 or x.shape[1] != data.dim or not len(x):
        raise InputError(f"samples of shape {tuple(x.shape)}: expected (n, {data.dim}) with at least one")
    features = _features(x.detach().cpu().float(), data, label, seed, projections)
    n = len(x)
    values = {k: float(v) for k, v in features.statistics(torch.ones(1, n, dtype=torch.float64)).items()}

    result: dict[str, Any] = {"n": n, "diverged": n - int(features.finite.sum())}
    result |= {k: values[k] if math.isfinite(values[k]) else None for k in METRICS if k in values}
    result["outliers_exact"] = _OUTSIDE
    tips = features.branches.tips
    if tips is not None:
        result["tips_exact"] = float(features.branches.shares[tips].sum())
    if resamples:
        rows = max(1, min(resamples, _COUNTS // n))
        parts = [features.statistics(_counts(n, min(rows, resamples - i), seed + i)) for i in range(0, resamples, rows)]
        result["intervals"] = {
            k: _interval(k, values[k], torch.cat([p[k] for p in parts]))
            for k in result
            if k in values and result[k] is not None
        }
    return result


def reference(data: Dataset, label: str | None, n: int, seed: int = 0) -> dict[str, Any]:
    """The result of :func:`measure` for ``n`` fresh exact samples: the reference values at this n."""
    return copy.deepcopy(_reference(data, label, n, seed))


@lru_cache(maxsize=64)
def hdr_threshold(data: Dataset, label: str | None, sigma: float = 0.0, share: float = 1 - _OUTSIDE) -> float:
    """The log-density at the border of the highest-density region that holds a given share of the exact mass.

    Estimated from 65,536 exact samples with a fixed seed. The true share of the region has a standard error of
    ``sqrt(share (1 - share) / 65536)``, which is 0.0004 at 99 %.

    Args:
        data: The dataset.
        label: The class; None for the union.
        sigma: The noise level.
        share: The share of the mass inside the region.
    """
    field = data.field(label)
    x = field.sample(_EXACT_SAMPLES, sigma, torch.Generator().manual_seed(0)).float()
    return float(field.log_density(x, sigma).double().quantile(1 - share))


@lru_cache(maxsize=64)
def _reference(data: Dataset, label: str | None, n: int, seed: int) -> dict[str, Any]:
    return measure(_exact(data, label, n, seed, "measured"), data, label, seed=seed)


def _exact(data: Dataset, label: str | None, n: int, seed: int, purpose: str) -> Tensor:
    """Exact samples in float32, from a random stream of the purpose's own, which no starting points share."""
    generator = torch.Generator().manual_seed(seed)
    streams = torch.randint(2**62, (4,), generator=generator)
    generator.manual_seed(int(streams[{"compared": 2, "measured": 3}[purpose]]))
    return data.field(label).sample(n, generator=generator).float()


@lru_cache(maxsize=64)
def _branches(data: Dataset, label: str | None) -> _Branches:
    names, index = data.components.component_branch[data.mask(label)].unique(return_inverse=True)
    shares = torch.zeros(len(names), dtype=torch.float64).index_add_(0, index, data.field(label).weights)
    levels = data.components.branch_level
    return _Branches(index, shares, None if levels is None else levels[names] >= levels.max() - 1)


def _features(x: Tensor, data: Dataset, label: str | None, seed: int, projections: int) -> _Features:
    field, branches = data.field(label), _branches(data, label)
    finite = x.isfinite().all(-1)

    log_density, filled = x.new_zeros(len(x)), x.new_zeros(len(x), len(branches.shares))
    leaked = None if label is None else x.new_zeros(len(x))
    for rows in finite.nonzero()[:, 0].split(_BLOCK):
        block = x[rows]
        log_density[rows], shares = field.explain(block, 0.0)
        filled[rows] = filled[rows].index_add_(-1, branches.index, shares)
        if leaked is not None:
            leaked[rows] = _leaks(block, log_density[rows], data, str(label)).float()

    potential, squared_distance = torch.zeros(len(x), dtype=torch.float64), math.nan
    if finite.any():
        potential[finite], squared_distance = _sliced(x[finite], data, label, seed, projections)
    return _Features(
        branches,
        finite.double(),
        (~finite | (log_density < hdr_threshold(data, label))).double(),
        None if leaked is None else leaked.double(),
        log_density.double(),
        filled.double(),
        potential,
        squared_distance,
    )


def _leaks(x: Tensor, log_density: Tensor, data: Dataset, label: str) -> Tensor:
    """Whether another class has a higher posterior than ``label`` at each point, given ``label``'s log-densities."""

    def log_prior(name: str) -> float:
        return math.log(data.components.mixture.weights[data.mask(name)].sum())

    leaks = torch.zeros(len(x), dtype=torch.bool)
    for other in set(data.labels) - {label}:
        rival = data.field(other).log_density(x, 0.0) + log_prior(other)
        leaks |= rival > log_density + log_prior(label)
    return leaks


def _sliced(x: Tensor, data: Dataset, label: str | None, seed: int, projections: int) -> tuple[Tensor, float]:
    """The squared sliced W2 between finite samples and as many exact ones, and its potential at each sample.

    In one dimension the optimal matching is the sorted one, ``x_i`` with ``y_i``. A dual solution needs
    ``phi_i + psi_j <= (x_i - y_j)^2``, with equality for matched pairs. This bounds the difference of neighbouring
    ``phi`` to an interval, whose middle is ``(x_(i+1) - x_i) (x_i + x_(i+1) - y_i - y_(i+1))``.
    """
    directions, target = _target(data, label, len(x), seed, projections)
    line, order = (directions @ x.T.double()).sort(-1)  # (projections, n)
    squared = (line - target).square().mean(-1).mean()
    steps = line.diff() * ((line - target)[:, :-1] + (line - target)[:, 1:])
    rising = torch.nn.functional.pad(steps.cumsum(-1), (1, 0))
    potential = torch.zeros_like(line).scatter_(-1, order, rising).mean(0)
    return potential - potential.mean(), float(squared)


@lru_cache(maxsize=16)
def _target(data: Dataset, label: str | None, n: int, seed: int, projections: int) -> tuple[Tensor, Tensor]:
    """Random directions (projections, d), and exact samples sorted along each (projections, n); float64."""
    y = _exact(data, label, n, seed, "compared")
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(projections, data.dim, dtype=torch.float64, generator=generator)
    directions = directions / directions.norm(dim=-1, keepdim=True)
    return directions, (directions @ y.T.double()).sort(-1).values


@lru_cache(maxsize=4)
def _counts(n: int, resamples: int, seed: int) -> Tensor:
    """How often each of n samples is drawn in each resample, with shape (resamples, n), float64."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(n, (resamples, n), generator=generator)
    return torch.zeros(resamples, n, dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(drawn).double())


def _interval(name: str, value: float, resampled: Tensor) -> list[float]:
    """The central 95 % of the resampled values, shifted from their mean to the value and clipped to valid values."""
    resampled = resampled[resampled.isfinite()]
    about = resampled.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)) - resampled.mean()
    low, high = {"share": (0.0, 1.0), "length": (0.0, math.inf)}.get(METRICS[name].unit, (-math.inf, math.inf))
    return [min(max(value + float(a), low), high) for a in about]
