"""A mixture at one noise level for many points: its log-weights as one matrix product.

When all points share sigma, each component's log-weight is a quadratic in x with fixed coefficients, so that n points
and K components cost one product of their monomials ``(n, F)`` with a matrix ``(F, K)``, one exponential and one
product back. The monomials cancel where x is far from a thin component, so this is for float32 points, is computed in
float64, and is only used where the cancellation stays below float32's rounding (:meth:`Quadratics.fits`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["Quadratics"]

# Largest |x|^2 / variance: float64's rounding of a log-weight is then about 1e-7, of float32's own size at 1.
_REACH = 1e9
_LOWEST = -80.0  # log of what no longer counts beside the largest; exp is many times slower where it underflows


class Quadratics:
    """The log-weights and gradients of a mixture's components at one sigma.

    Args:
        log_weights: With shape ``(K,)``, float64 as all of these.
        means: With shape ``(K, d)``.
        axes: Eigenvectors of the covariances, as columns, with shape ``(K, d, d)``.
        variances: Their eigenvalues with sigma squared added, with shape ``(K, d)``.
    """

    def __init__(self, log_weights: Tensor, means: Tensor, axes: Tensor, variances: Tensor) -> None:
        d = means.shape[1]
        precision = torch.einsum("kde,ke,kfe->kdf", axes, 1 / variances, axes)
        pulled = torch.einsum("kdf,kf->kd", precision, means)
        self._rows, self._columns = torch.triu_indices(d, d, device=means.device)
        upper = precision[:, self._rows, self._columns]  # (K, d (d + 1) / 2)
        doubled = torch.where(self._rows == self._columns, 1.0, 2.0).to(upper)
        constant = log_weights - 0.5 * (variances.log().sum(1) + (pulled * means).sum(1) + d * math.log(2 * math.pi))
        self._logits = torch.cat([-0.5 * doubled * upper, pulled, constant[:, None]], 1).T.contiguous()  # (F, K)
        self._gradients = torch.cat([upper, pulled], 1)  # (K, F - 1)
        self._full = torch.empty(d, d, dtype=torch.long, device=means.device)  # where (i, j) stands in `upper`
        self._full[self._rows, self._columns] = self._full[self._columns, self._rows] = torch.arange(
            len(self._rows), device=means.device
        )
        self._reach = math.sqrt(_REACH * float(variances.min()))
        self._bounded = float(means.abs().max()) < self._reach

    def fits(self, x: Tensor) -> bool:
        """Whether these points are near enough for the result to be exact to float32; never if one is not finite."""
        return self._bounded and x.dtype == torch.float32 and bool((x.abs() < self._reach).all())

    def weigh(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The log-density, with shape ``(n,)``, float64, and the responsibilities, with shape ``(n, K)``, float32."""
        x = x.double()
        monomials = torch.cat([x[:, self._rows] * x[:, self._columns], x, torch.ones_like(x[:, :1])], 1)
        logits = monomials @ self._logits
        highest = logits.amax(1, keepdim=True)
        shares = (logits - highest).float().clamp_(min=_LOWEST).exp_()
        total = shares.sum(1, keepdim=True)
        return (highest + total.double().log())[:, 0], shares.div_(total)

    def score(self, x: Tensor, responsibilities: Tensor) -> Tensor:
        """``sum_k r_k P_k (m_k - x)``, with shape ``(n, d)``, float64."""
        mixed = responsibilities.double() @ self._gradients
        precision, pulled = mixed[:, : -x.shape[1]], mixed[:, -x.shape[1] :]
        return pulled - torch.einsum("nij,nj->ni", precision[:, self._full], x.double())
