"""A mixture at one noise level for many points: its log-weights as one matrix product, of the components that count.

When all points share sigma, each component's log-weight is a quadratic in x with fixed coefficients, so that n points
and K components cost one product of their monomials ``(n, F)`` with a matrix ``(F, K)``, one exponential and one
product back. The monomials cancel where x is far from a thin component, so this is for float32 points, is computed in
float64, and is only used where the cancellation stays below float32's rounding (:meth:`Quadratics.fits`).

At a low level only a few components count at any point. Points are put in order along a space-filling curve, so that a
block of them is a small box, and a component is left out of a block where it provably cannot matter. With the box's
centre c and half-widths h, the offset in component k's own axes, ``z = Q_k' (x - m_k)``, stays within
``r = |Q_k|' h`` of its value at c, and its log-weight between

    least  log w_k - sum_e (log v_e + (|z_e(c)| + r_e)^2 / v_e) / 2
    most   log w_k - sum_e (log v_e + max(|z_e(c)| - r_e, 0)^2 / v_e) / 2        v_e = l_e + sigma^2

A component whose most is below the largest least of all by ``40 + log K`` has everywhere in the box less than
``e^-40 / K`` of another's weight: all that are left out together have less than float64's rounding of what is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

from toyguide._speed.buffers import room

__all__ = ["Quadratics"]

# Largest |x|^2 / variance: float64's rounding of a log-weight is then about 1e-7, of float32's own size at 1.
_REACH = 1e9
_LOWEST = -80.0  # log of what no longer counts beside the largest; exp is many times slower where it underflows
_BLOCK = 1 << 18  # (point, component) pairs that are held at once: they stay in the processor's cache
_GPU_BLOCK = 1 << 24

# Leaving components out pays for many points in few dimensions, in boxes of so many.
_DROPPED = 40.0
_BOX, _FEWEST, _FLATTEST = 256, 4096, 3


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
        self._parts = (log_weights, means, axes, variances)
        precision = torch.einsum("kde,ke,kfe->kdf", axes, 1 / variances, axes)
        pulled = torch.einsum("kdf,kf->kd", precision, means)
        self._rows, self._columns = torch.triu_indices(d, d, device=means.device)
        upper = precision[:, self._rows, self._columns]  # (K, d (d + 1) / 2)
        doubled = torch.where(self._rows == self._columns, 1.0, 2.0).to(upper)
        constant = log_weights - 0.5 * (variances.log().sum(1) + (pulled * means).sum(1) + d * math.log(2 * math.pi))
        self._logits = torch.cat([-0.5 * doubled * upper, pulled, constant[:, None]], 1).T.contiguous()  # (F, K)
        self._gradients = torch.cat([upper, pulled], 1).T.contiguous()  # (F - 1, K)
        self._full = torch.empty(d, d, dtype=torch.long, device=means.device)  # where (i, j) stands in `upper`
        self._full[self._rows, self._columns] = self._full[self._columns, self._rows] = torch.arange(
            len(self._rows), device=means.device
        )
        self._reach = math.sqrt(_REACH * float(variances.min()))
        self._bounded = float(means.abs().max()) < self._reach
        # Further from its mean than this, even the thinnest component has lost against one that is near.
        lost = math.sqrt(2 * (_DROPPED + math.log(len(means))) * float(variances.min()))
        self._selective = d <= _FLATTEST and lost < float((means.amax(0) - means.amin(0)).max())

    def fits(self, x: Tensor) -> bool:
        """Whether these points are near enough for the result to be exact to float32; never if one is not finite."""
        return self._bounded and x.dtype == torch.float32 and bool((x.abs() < self._reach).all())

    def log_density(self, x: Tensor) -> Tensor:
        """The log-density at points of shape ``(n, d)``, with shape ``(n,)``, float64."""
        return self._blockwise(lambda x, weighed, kept: weighed[0], x, ())

    def score(self, x: Tensor) -> Tensor:
        """``sum_k r_k P_k (m_k - x)`` at points of shape ``(n, d)``, with shape ``(n, d)``, float64."""

        def block(x: Tensor, weighed: tuple[Tensor, Tensor, Tensor], kept: Tensor | None) -> Tensor:
            _, shares, total = weighed
            gradients = self._gradients if kept is None else self._gradients[:, kept]
            mixed = functional.linear(shares.double(), gradients).div_(total)
            precision, pulled = mixed[:, : -x.shape[1]], mixed[:, -x.shape[1] :]
            return pulled - torch.einsum("nij,nj->ni", precision[:, self._full], x)

        return self._blockwise(block, x, (x.shape[1],))

    def explain(self, x: Tensor) -> Tensor:
        """The log-density and the responsibilities of all K components beside it, with shape ``(n, 1 + K)``, float32.

        The responsibilities, at points of shape ``(n, d)``, are right to float32's rounding of 1.
        """
        out = x.new_empty(len(x), 1 + self._logits.shape[1])
        for _, (log_density, shares, total), rows, _ in self._blocks(x, selective=False):
            out[rows, 0] = log_density.float()
            torch.div(shares, total, out=out[rows, 1:])
        return out

    def _blockwise(self, function: Callable[..., Tensor], x: Tensor, shape: tuple[int, ...]) -> Tensor:
        out = x.new_empty((len(x), *shape), dtype=torch.float64)
        # A GPU is quicker with all components than with many small boxes.
        for block, weighed, rows, kept in self._blocks(x, self._selective and len(x) >= _FEWEST and x.is_cpu):
            out[rows] = function(block, weighed, kept)
        return out

    def _blocks(
        self, x: Tensor, selective: bool
    ) -> Iterator[tuple[Tensor, tuple[Tensor, Tensor, Tensor], slice | Tensor, Tensor | None]]:
        """Blocks of points in float64, what :meth:`_weigh` says of them, which rows they are, and which components were
        kept, None for all. A block's tensors are written over by the next."""
        count = self._logits.shape[1]
        size = max(1, (_BLOCK if x.is_cpu else _GPU_BLOCK) // count)
        if selective:
            size = max(_BOX // 16, min(_BOX, 16 * size))
        if not selective:
            for start in range(0, len(x), size):
                block = x[start : start + size].double()
                weighed = self._weigh(self._monomials(block), self._logits)
                yield block, weighed, slice(start, start + size), None
            return
        order = _along_a_curve(x)
        many = size * max(1, _BLOCK // count)
        for part in order.split(many):
            points = x[part].double()
            parts = (t.split(size) for t in (points, self._monomials(points), part))
            for block, monomials, rows, mask in zip(*parts, self._kept(points, size), strict=True):
                kept = mask.nonzero()[:, 0]
                yield block, self._weigh(monomials, self._logits[:, kept]), rows, kept

    def _monomials(self, x: Tensor) -> Tensor:
        """With shape (n, F): the products of two coordinates, the coordinates, 1."""
        return torch.cat([x[:, self._rows] * x[:, self._columns], x, torch.ones_like(x[:, :1])], 1)

    def _weigh(self, monomials: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The log-density (n,), float64; the components' weights beside the largest (n, K), float32; their sum (n, 1).

        Args:
            monomials: Of the points, with shape ``(n, F)``, float64.
            logits: Coefficients of the K components looked at, with shape ``(F, K)``.
        """
        n, count = len(monomials), logits.shape[1]
        wide, shares = (room(n * count, monomials, dtype).view(n, count) for dtype in (torch.float64, torch.float32))
        torch.mm(monomials, logits, out=wide)
        highest = wide.amax(1, keepdim=True)
        shares.copy_(wide.sub_(highest))
        shares.clamp_(min=_LOWEST).exp_()
        total = shares.sum(1, keepdim=True)
        return (highest + total.double().log())[:, 0], shares, total

    def _kept(self, x: Tensor, size: int) -> Tensor:
        """For each of B blocks of ``size`` points in their order, which components may matter to it: (B, K)."""
        log_weights, means, axes, variances = self._parts
        boxes = torch.cat([x, x[-1:].expand(-len(x) % size, -1)]).view(-1, size, x.shape[1])
        low, high = boxes.amin(1), boxes.amax(1)
        centre, half = (low + high) / 2, (high - low) * (0.5 + 1e-9)  # the middle may be rounded
        least = (log_weights - 0.5 * variances.log().sum(1)).expand(len(boxes), -1)
        most = least
        for e, variance in enumerate(variances.unbind(1)):
            axis = axes[:, :, e]
            away = torch.addmm(-(means * axis).sum(1), centre, axis.T).abs_()
            across = half @ axis.abs().T
            least = torch.addcdiv(least, (away + across).square_(), variance, value=-0.5)
            most = torch.addcdiv(most, (away - across).clamp_(min=0).square_(), variance, value=-0.5)
        return most >= least.amax(1, keepdim=True) - (_DROPPED + math.log(len(means)))


def _along_a_curve(x: Tensor) -> Tensor:
    """The order of points along a Z-order curve, with shape ``(n,)``: neighbours on it are neighbours in space."""
    bits = 10
    low, high = x.amin(0), x.amax(0)
    cells = ((x - low) / (high - low).clamp(min=torch.finfo(x.dtype).tiny) * (2**bits - 1)).int()  # (n, d)
    place = torch.zeros(len(x), dtype=torch.int32, device=x.device)
    for bit in range(bits):
        for axis, cell in enumerate(cells.unbind(1)):
            place |= ((cell >> bit) & 1) << (bit * x.shape[1] + axis)
    return place.argsort()
