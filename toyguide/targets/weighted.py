"""Samples of a target in any number of dimensions: exact samples of one of its fields, weighted.

With x from the field of the highest power, ``log weight = log q(x) - log p(x)``, up to a constant. The effective sample
size ``(sum w)^2 / sum w^2`` says how many unweighted samples they are worth; where it is low, the field hardly reaches
the target.

References:
    Owen, Monte Carlo Theory, Methods and Examples, 2013, ch. 9.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from toyguide.errors import InputError
from toyguide.targets.algebra import as_mixture
from toyguide.targets.ideal import exact_fields, ideal_field
from toyguide.targets.product import Product
from toyguide.targets.target import Target

__all__ = ["Weighted", "samples_of", "weighted_samples"]

_MORE = 4  # weighted samples for each one that is drawn from them


@dataclass(frozen=True, eq=False)
class Weighted:
    """Weighted samples.

    Attributes:
        x: The samples, with shape ``(n, d)``, float64.
        log_weights: Their log-weights, with shape ``(n,)``, normalised: the weights sum to 1.
    """

    x: Tensor
    log_weights: Tensor

    @property
    def effective(self) -> float:
        """The effective sample size."""
        return math.exp(-float((2 * self.log_weights).logsumexp(0)))

    def resampled(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """``n`` unweighted samples, drawn with replacement, with shape ``(n, d)``."""
        return self.x[torch.multinomial(self.log_weights.exp(), n, replacement=True, generator=generator)]


def weighted_samples(
    target: Target, fields: Mapping[str, object], n: int, generator: torch.Generator | None = None
) -> Weighted:
    """``n`` weighted samples of a target.

    Args:
        target: The target.
        fields: The fields by role.
        n: The number of samples.
        generator: Their random numbers, on the CPU.

    Raises:
        InputError: If a field is no mixture, or none has a positive power.
    """
    exact = exact_fields(target, fields)
    nearest = max(exact, key=lambda role: target.powers[role], default="")
    if not nearest or target.powers[nearest] <= 0:
        raise InputError("target: no density has a positive power, expected one")
    x = exact[nearest].sample(n, generator=generator)
    logs = Product(target, exact).log_density(x) - exact[nearest].log_density(x, 0.0)
    return Weighted(x, logs - logs.logsumexp(0))


def samples_of(
    target: Target, fields: Mapping[str, object], n: int, generator: torch.Generator | None = None
) -> tuple[Tensor, float]:
    """``n`` samples of a target, with shape ``(n, d)``, float64; and how many independent ones they are worth.

    Exact, and worth n, where the target has a field (see :func:`toyguide.targets.ideal_field`); else resampled from
    four times as many weighted ones.

    Raises:
        InputError: If a field is no mixture, or the target cannot be normalised.
    """
    exact = exact_fields(target, fields)
    if next(iter(exact.values())).dim == 2 or as_mixture(target, exact) is not None:
        return ideal_field(target, exact).sample(n, generator=generator), float(n)
    many = weighted_samples(target, exact, _MORE * n, generator)
    return many.resampled(n, generator), min(many.effective, float(n))
