"""Targets of Gaussian mixtures that are Gaussian mixtures themselves.

A power of one Gaussian is the exponential of a quadratic, as a quadratic reward is; all of these add to one quadratic,
``b . x - x' P x / 2``. Products of mixtures are mixtures: of every pair of components the product is a Gaussian,

    N(x; m, S) N(x; m', S') = N(m; m', S + S') N(x; m'', S''),   S''^-1 = S^-1 + S'^-1

and a mixture times the exponential of a quadratic is a mixture. So a target is one where every field is a single
Gaussian, to any power, or a mixture to a small whole power.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from toyguide.errors import InputError
from toyguide.fields.mixtures import GaussianMixture
from toyguide.fields.rewards import Reward
from toyguide.targets.target import Target

__all__ = ["UNBOUNDED", "as_mixture", "quadratic_of"]

UNBOUNDED = "it grows without bound, expected a product of densities with a finite integral"

_LARGEST = 4096  # components of a product
_NEGLIGIBLE = 1e-30  # the weight below which a pair of components is left out


def as_mixture(target: Target, fields: Mapping[str, GaussianMixture]) -> GaussianMixture | None:
    """The target as a mixture of Gaussians; None where it is none, or one of more than 4096 components.

    Args:
        target: The target.
        fields: The fields of its roles, all of one dimension d.

    Raises:
        InputError: If it cannot be normalised.
    """
    if target.reward is None and [target.powers[role] for role in target.roles] == [1]:
        return fields[target.roles[0]]
    factors: list[GaussianMixture] = []
    singles = {role: fields[role] for role in target.roles if len(fields[role]) == 1}
    for role in target.roles:
        power = target.powers[role]
        if role in singles:
            continue
        if power < 1 or power != round(power):
            return None
        factors += [fields[role]] * round(power)
    count = 1
    for factor in factors:
        count *= len(factor)
    if count > _LARGEST:
        return None

    b, precision = quadratic_of(target, singles, next(iter(fields.values())).dim)
    if not factors:
        return _gaussian(b, precision)
    mixture = factors[0]
    for factor in factors[1:]:
        mixture = _product(mixture, factor)
    if not bool(b.any() or precision.any()):
        return mixture
    try:
        return Reward(b, precision).tilted(mixture)
    except InputError as problem:
        raise InputError(f"target: {UNBOUNDED}") from problem


def quadratic_of(target: Target, singles: Mapping[str, GaussianMixture], dim: int) -> tuple[Tensor, Tensor]:
    """b, with shape ``(d,)``, and P, with shape ``(d, d)``, of the reward and of all powers of single Gaussians."""
    b, precision = torch.zeros(dim, dtype=torch.float64), torch.zeros(dim, dim, dtype=torch.float64)
    if target.reward is not None:
        own = len(target.reward.b)
        b[:own] += target.reward.b.cpu()
        precision[:own, :own] += target.reward.P.cpu()
    for role, field in singles.items():
        inverse = target.powers[role] * torch.linalg.inv(field.covariances[0])
        b += inverse @ field.means[0]
        precision += inverse
    return b, precision


def _gaussian(b: Tensor, precision: Tensor) -> GaussianMixture:
    if not float(torch.linalg.eigvalsh(precision)[0]) > 0:
        raise InputError(f"target: {UNBOUNDED}")
    covariance = torch.linalg.inv(precision)
    one = torch.ones(1, dtype=torch.float64)
    return GaussianMixture(one, (covariance @ b)[None], ((covariance + covariance.mT) / 2)[None])


def _product(first: GaussianMixture, second: GaussianMixture) -> GaussianMixture:
    """The normalised product of two mixtures."""
    between = first.means[:, None] - second.means  # (K, L, d)
    summed = first.covariances[:, None] + second.covariances  # (K, L, d, d)
    gain = torch.linalg.solve(summed, second.covariances)  # (S + S')^-1 S'
    means = second.means + (gain.mT @ between[..., None])[..., 0]
    covariances = first.covariances[:, None] @ gain
    distance = (between * torch.linalg.solve(summed, between)).sum(-1)
    logits = first.weights.log()[:, None] + second.weights.log() - (distance + torch.logdet(summed)) / 2
    weights = torch.softmax(logits.flatten(), 0)
    left = weights > _NEGLIGIBLE
    flat = covariances.flatten(0, 1)[left]
    return GaussianMixture(weights[left], means.flatten(0, 1)[left], (flat + flat.mT) / 2)
