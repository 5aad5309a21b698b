"""A mixture at one noise level for many points: log-weights, scores and Hessians as matrix products.

If all points share sigma, each component's log-weight is a quadratic in x with fixed coefficients, so that n points and
K components cost one product of their monomials ``(n, F)`` with a matrix ``(F, K)``, one exponential and one product
back. The gradients ``g_k = P_k (m_k - x)``, with the precisions ``P_k``, are linear in x.

The monomials cancel where x is far from a thin component. So this is for float32 points, is computed in float64, and is
only used where the cancellation stays below float32's rounding (:meth:`Quadratics.fits`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from toyguide._speed.buffers import block_size, buffer
from toyguide._speed.moments import second_moments

__all__ = ["Quadratics"]

# Largest |x|^2 / variance: float64's rounding of a log-weight is then about 1e-7, of float32's own size at 1.
_REACH = 1e9
_LOWEST = -80.0  # log of a negligible relative weight; exp is many times slower where it underflows


@dataclass(frozen=True)
class _Weights:
    """Of a block of n points; overwritten by the next block."""

    x: Tensor  # (n, d), float64
    log_density: Tensor  # (n,), float64
    shares: Tensor  # (n, K), float32: the components' weights relative to the largest
    total: Tensor  # (n, 1), float32: their sum


class Quadratics:
    """The log-weights and gradients of a mixture's components at one sigma.

    Args:
        log_weights: With shape ``(K,)``, float64 on the CPU as all of these.
        means: With shape ``(K, d)``.
        axes: Eigenvectors of the covariances, as columns, with shape ``(K, d, d)``.
        variances: Their eigenvalues with sigma squared added, with shape ``(K, d)``.
        device: Of the points.
    """

    def __init__(
        self, log_weights: Tensor, means: Tensor, axes: Tensor, variances: Tensor, device: torch.device
    ) -> None:
        self._dim = d = means.shape[1]
        precision = torch.einsum("kde,ke,kfe->kdf", axes, 1 / variances, axes)
        pulled = torch.einsum("kdf,kf->kd", precision, means)
        rows, columns = torch.triu_indices(d, d)
        upper = precision[:, rows, columns]  # (K, d (d + 1) / 2)
        doubled = torch.where(rows == columns, 1.0, 2.0).to(upper)
        constant = log_weights - 0.5 * (variances.log().sum(1) + (pulled * means).sum(1) + d * math.log(2 * math.pi))
        full = torch.zeros(d, d, dtype=torch.long)  # where (i, j) stands in `upper`
        full[rows, columns] = full[columns, rows] = torch.arange(len(rows), dtype=torch.long)
        self._rows, self._columns, self._full = rows.to(device), columns.to(device), full.to(device)
        self._logits = torch.cat([-0.5 * doubled * upper, pulled, constant[:, None]], 1).T.contiguous().to(device)
        self._gradients = torch.cat([upper, pulled], 1).T.contiguous().to(device)  # (F - 1, K)
        self._reach = math.sqrt(_REACH * float(variances.min()))
        self._bounded = float(means.abs().max()) < self._reach

    def fits(self, x: Tensor) -> bool:
        """Whether the points are near enough for results exact to float32; False if one is not finite."""
        return self._bounded and bool((x.abs() < self._reach).all())

    def log_density(self, x: Tensor) -> Tensor:
        """The log-density at points of shape ``(n, d)``, with shape ``(n,)``, float64."""
        return self._blockwise(lambda w: w.log_density, x, ())

    def explain(self, x: Tensor) -> Tensor:
        """The log-density, and then the responsibilities of all K components, with shape ``(n, 1 + K)``, float32."""

        def block(w: _Weights) -> Tensor:
            return torch.cat([w.log_density[:, None].float(), w.shares / w.total], 1)

        return self._blockwise(block, x, (1 + self._logits.shape[1],), dtype=torch.float32)

    def score(self, x: Tensor) -> Tensor:
        """``s = sum_k r_k g_k`` at points of shape ``(n, d)``, with shape ``(n, d)``, float64."""
        return self._blockwise(lambda w: self._mean(w)[0], x, (self._dim,))

    def hessian(self, x: Tensor) -> Tensor:
        """``sum_k r_k ((g_k - s)(g_k - s)' - P_k)`` at points of shape ``(n, d)``: ``(n, d, d)``, float64."""
        d = self._dim

        def block(w: _Weights) -> Tensor:
            score, precision = self._mean(w)
            upper, pulled = self._gradients.split([len(self._rows), d])
            root = (w.shares / w.total).double().sqrt_()
            spread = [
                (torch.addmm(pulled[i], w.x, upper[self._full[i]], alpha=-1).sub_(score[:, i, None])).mul_(root)
                for i in range(d)
            ]
            return second_moments(spread) - precision

        return self._blockwise(block, x, (d, d), d + 2)

    def product(self, x: Tensor, v: Tensor) -> Tensor:
        """The Hessian times ``v``, both of shape ``(n, d)``, with that shape, float64."""

        def block(w: _Weights, v: Tensor) -> Tensor:
            score, precision = self._mean(w)
            v = v.double()
            mixed = w.x[:, self._rows] * v[:, self._columns]
            other = w.x[:, self._columns] * v[:, self._rows]
            monomials = torch.cat([-torch.where(self._rows == self._columns, mixed, mixed + other), v], 1)
            along = monomials @ self._gradients  # g_k'v
            shares = (w.shares / w.total).double()
            weights = along.sub_((score * v).sum(1, keepdim=True)).mul_(shares)
            gradient, _ = self._mixed(weights, w.x)
            # The weights sum to 0, but for rounding.
            return gradient - score * weights.sum(1, keepdim=True) - torch.einsum("nij,nj->ni", precision, v)

        return self._blockwise(block, x, (self._dim,), 2, v)

    def _mean(self, w: _Weights) -> tuple[Tensor, Tensor]:
        """The means of ``g_k``, with shape ``(n, d)``, and of ``P_k``, with shape ``(n, d, d)``."""
        gradient, precision = self._mixed(w.shares.double(), w.x)
        return gradient / w.total, precision / w.total[..., None]

    def _mixed(self, weights: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """``sum_k weights_k g_k`` and ``sum_k weights_k P_k``."""
        mixed = functional.linear(weights, self._gradients)
        precision = mixed[:, : -self._dim][:, self._full]
        return mixed[:, -self._dim :] - torch.einsum("nij,nj->ni", precision, x), precision

    def _blockwise(
        self,
        function: Callable[..., Tensor],
        x: Tensor,
        shape: tuple[int, ...],
        extra: int = 0,
        rows: Tensor | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> Tensor:
        """Apply ``function`` to blocks of points and join its results, each ``(n, *shape)``.

        Args:
            function: Of a block's weights, and of its part of ``rows`` if there are any.
            x: With shape ``(n, d)``.
            shape: Of one point's result.
            extra: How many intermediate results of (n, K) in float64 it needs.
            rows: With the shape of ``x``.
            dtype: Of the results.
        """
        out = x.new_empty((len(x), *shape), dtype=dtype)
        size = block_size(x, (3 + 2 * extra) * self._logits.shape[1])
        for i in range(0, len(x), size):
            part = slice(i, i + size)
            out[part] = function(self._weigh(x[part].double()), *(() if rows is None else (rows[part],)))
        return out

    def _weigh(self, x: Tensor) -> _Weights:
        n, count = len(x), self._logits.shape[1]
        wide, shares = (buffer(n * count, x, dtype).view(n, count) for dtype in (torch.float64, torch.float32))
        monomials = torch.cat([x[:, self._rows] * x[:, self._columns], x, torch.ones_like(x[:, :1])], 1)
        torch.mm(monomials, self._logits, out=wide)
        highest = wide.amax(1, keepdim=True)
        shares.copy_(wide.sub_(highest))
        shares.clamp_(min=_LOWEST).exp_()
        total = shares.sum(1, keepdim=True)
        return _Weights(x, (highest + total.double().log())[:, 0], shares, total)
