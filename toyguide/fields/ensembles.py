"""Ensembles: several fields of one distribution averaged into one.

The mean of denoisers is the mean of scores, which is the gradient of the mean of the log-densities. That mean is the
ensemble's log-density: unnormalised, but its score and Hessian agree with it. (The density of the normalised geometric
mean, not the mixture of the members' densities, whose score is another one.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from toyguide.errors import InputError
from toyguide.fields.base import Field, Sigma
from toyguide.fields.joint import denoise_together

__all__ = ["MeanField"]


class MeanField(Field):
    """The mean of fields' denoisers; an evaluation of it counts as one of each member.

    Args:
        members: The fields, at least one, all of one dimension.

    Raises:
        InputError: If there is none, or their dimensions differ.
    """

    def __init__(self, members: Sequence[Field]) -> None:
        if not members:
            raise InputError("mean(): expected at least one field")
        dims = sorted({m.dim for m in members})
        if len(dims) > 1:
            raise InputError(f"mean(...): of fields of dimensions {', '.join(map(str, dims))}, expected one dimension")
        self.members, self.dim = tuple(members), dims[0]

    @property
    def evaluations(self) -> int:
        return sum(m.evaluations for m in self.members)

    def log_density(self, x: Tensor, sigma: Sigma) -> Tensor:
        """The mean of the members' log-densities, with shape ``(...)``; unnormalised."""
        return self._mean(lambda m: m.log_density(x, sigma))

    def score(self, x: Tensor, sigma: Sigma) -> Tensor:
        return self._mean(lambda m: m.score(x, sigma))

    def hessian(self, x: Tensor, sigma: Sigma) -> Tensor:
        return self._mean(lambda m: m.hessian(x, sigma))

    def jvp(self, x: Tensor, sigma: Sigma, v: Tensor) -> Tensor:
        return self._mean(lambda m: m.jvp(x, sigma, v))

    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        if isinstance(sigma, float) and x.ndim == 2:
            return torch.stack(denoise_together(self.members, x, sigma)).mean(0)
        return self._mean(lambda m: m.denoise(x, sigma))

    def _mean(self, value: Callable[[Field], Tensor]) -> Tensor:
        return torch.stack([value(m) for m in self.members]).mean(0)
