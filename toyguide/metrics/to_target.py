"""Metrics that compare final samples with what their rule is said to sample.

    target W2         the sliced Wasserstein-2 distance to samples of the target, see :mod:`toyguide.metrics.sliced`
    target KL         sum_c f_c log(f_c / t_c) - bias, over 128 cells of about equal mass t_c of the target, which
                      median splits of its samples make, f_c the share of the run's samples
    target coverage   sum_b min(h_b, t_b) over the branches, with the target's own shares t_b

The cells' divergence is a lower bound of the densities' own (the data-processing inequality). Of n exact samples, with
the t_c from m, it is ``(cells - 1) (1/n + 1/m) / 2`` in the mean to first order, which is subtracted as the bias. What
is left of it has a standard deviation of about ``sqrt((cells - 1) / 2) / n``.

Where a target has no field, as in more than two dimensions, its samples are weighted ones, resampled; then
``target_effective`` says how many independent ones they are worth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from toyguide.datasets import Dataset
from toyguide.errors import InputError
from toyguide.fields.mixtures import GaussianMixture
from toyguide.fields.networks import EnergyMLP
from toyguide.metrics.samples import branches_of, coverage
from toyguide.metrics.sliced import distance_between
from toyguide.targets import Target, samples_of

__all__ = ["TARGET_METRICS", "exact_stand_ins", "measure_to_target"]

_MANY = 1 << 15  # samples that stand for the target
_DEPTH = 7  # splits; 2^7 cells

TARGET_METRICS = {
    "target_w2": "W2 to the target",
    "target_kl": "KL of the target, binned",
    "target_coverage": "Coverage of the target",
}
"""The titles of the metrics."""


def measure_to_target(
    x: Tensor, target: Target, fields: Mapping[str, object], data: Dataset, label: str | None, seed: int = 0
) -> dict[str, Any]:
    """Compare final samples with a target.

    Args:
        x: Samples, with shape ``(n, d)``; only finite ones count.
        target: The target.
        fields: The fields by role. A network is replaced by the exact field of the class that it models.
        data: The dataset.
        label: The class that was sampled; None for the union.
        seed: Of the target's own samples.

    Returns:
        A value for each of ``TARGET_METRICS``, and under its name with ``_reference`` that of as many samples of the
        target itself; and ``target_effective``. The values are None if no sample is finite.

    Raises:
        InputError: If a field is neither exact nor a network, or the target cannot be normalised.
    """
    x = x[x.isfinite().all(-1)].double().cpu()
    generator = torch.Generator().manual_seed(seed)
    own = {role: field for role, field in fields.items() if role in target.roles}  # a rule's classifier is none
    drawn, worth = samples_of(target, exact_stand_ins(own, data), _MANY + max(1, len(x)), generator)
    many, fresh = drawn[:_MANY], drawn[_MANY:]
    cells = _Cells.of(many)
    filled = _shares(many, data, label)

    def values(y: Tensor) -> dict[str, float | None]:
        if not len(y):
            return dict.fromkeys(TARGET_METRICS)
        return {
            "target_w2": distance_between(y, many),
            "target_kl": cells.divergence(y),
            "target_coverage": float(coverage(_shares(y, data, label), filled)),
        }

    references = {f"{name}_reference": value for name, value in values(fresh).items()}
    return {**values(x), **references, "target_effective": worth}


def exact_stand_ins(fields: Mapping[str, object], data: Dataset) -> dict[str, GaussianMixture]:
    """Exact fields for a run's: a network, which has no ideal, is replaced by the exact field of what it models.

    Raises:
        InputError: If a field is neither.
    """
    found = {}
    for role, field in fields.items():
        exact = data.field(field.label) if isinstance(field, EnergyMLP) else field
        if not isinstance(exact, GaussianMixture):
            kind = type(field).__name__
            raise InputError(f"target: the field {role!r} is of type {kind}, expected an exact one or a network")
        found[role] = exact
    return found


@dataclass(frozen=True, eq=False)
class _Cells:
    """A partition of space by splits at medians along the coordinates in turn: a complete binary tree.

    Attributes:
        thresholds: Of each inner node, in the order of a heap, with shape ``(cells - 1,)``.
        counts: The target's samples in each cell, with shape ``(cells,)``.
    """

    thresholds: Tensor
    counts: Tensor

    @classmethod
    def of(cls, y: Tensor) -> _Cells:
        thresholds: list[float] = []
        parts = [y]
        for depth in range(_DEPTH):
            axis, halves = depth % y.shape[1], []
            for part in parts:
                order = part[:, axis].argsort()
                half = len(part) // 2
                thresholds.append(float(part[order[half], axis]))
                halves += [part[order[:half]], part[order[half:]]]
            parts = halves
        found = cls(torch.tensor(thresholds, dtype=torch.float64), torch.empty(0))
        return cls(found.thresholds, found._count(y))

    def divergence(self, x: Tensor) -> float:
        """``sum f log(f / t)`` of samples (n, d), less what it is for as many of the target's."""
        own = self._count(x) / len(x)
        target = self.counts / self.counts.sum()
        found = torch.special.xlogy(own, own / target).sum()
        return float(found) - (len(target) - 1) / 2 * (1 / len(x) + 1 / float(self.counts.sum()))

    def _count(self, x: Tensor) -> Tensor:
        node = torch.zeros(len(x), dtype=torch.long)
        for depth in range(_DEPTH):
            above = x[:, depth % x.shape[1]] >= self.thresholds[node]
            node = 2 * node + 1 + above
        return torch.bincount(node - len(self.thresholds), minlength=len(self.thresholds) + 1).double()


def _shares(x: Tensor, data: Dataset, label: str | None) -> Tensor:
    """The branches' shares of samples (n, d), with shape ``(branches,)``."""
    branches = branches_of(data, label)
    total = torch.zeros(len(branches.shares), dtype=torch.float64)
    for block in x.float().split(1 << 12):
        total.index_add_(0, branches.index, data.field(label).responsibilities(block, 0.0).double().sum(0))
    return total / len(x)
