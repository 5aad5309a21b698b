"""The formulas of a Gaussian mixture in torch, for blocks of points.

Each point is turned into the axes of each component, ``z = Q_k' (x - m_k)``. With the responsibilities
``r_k(x; sigma)``, ``y_k = z / (l_k + sigma^2)`` and ``g_k = -Q_k y_k``, and with ``s`` the mean of ``g_k`` under ``r``:

    score      s = sum_k r_k g_k
    denoised   D = sum_k r_k (m_k + Q_k diag(l_k) y_k)
    Hessian    H = sum_k r_k ((g_k - s)(g_k - s)' - (C_k + sigma^2 I)^-1)
    product    H v = sum_k r_k ((g_k - s) (g_k - s)'v - Q_k diag(1 / (l_k + sigma^2)) Q_k'v)

Weights are relative to the nearest component (log-sum-exp), and coordinates far beyond the means are scaled down before
they are squared, so that results are finite and right at any finite point and at sigma = 0.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from toyguide._speed.buffers import Scratch, block_size, differentiated
from toyguide._speed.moments import second_moments
from toyguide.fields.base import Sigma, as_sigma

__all__ = ["Components"]

_PLANE = 1 << 16  # numbers in a plane of a block on the CPU, at least


@dataclass(frozen=True)
class _Constants:
    """The mixture's parameters in one dtype on one device; K components, d dimensions, U different shapes."""

    log_weights: Tensor  # (K,)
    means: Tensor  # (d, K)
    axes: Tensor  # (d, d, K), [e, i] is coordinate i of eigenvector e
    variances: Tensor  # (d, K), or (d, 1) if all components have the same
    shapes: Tensor  # (d, U), the different columns of `variances`
    shape_of: Tensor  # (K,), the index of each component's shape

    @cached_property
    def projectors(self) -> Tensor:
        """``Q_e Q_e'`` of each eigenvector e, with shape ``(d, d * d, K)``."""
        return torch.einsum("eik,ejk->eijk", self.axes, self.axes).flatten(1, 2)


@dataclass(frozen=True)
class _Terms:
    """What the formulas share for one block of n points; overwritten by the next block."""

    c: _Constants
    shares: Tensor  # (n, K), the components' weights relative to the largest
    total: Tensor  # (n, 1), their sum
    log_density: Tensor  # (n,)
    standardised: list[Tensor]  # d planes of (n, K): y, divided by `shrink`
    variances: list[Tensor]  # d planes of (n or 1, K or 1): l + sigma^2
    shrink: Tensor  # (n, 1)
    resolved: Tensor  # (n, 1), whether the dtype tells the distances of components apart: else the nearest one is all
    scratch: Scratch
    spare: list[Any]  # planes for the formula itself, or None

    @property
    def responsibilities(self) -> Tensor:
        return self.shares / self.total


class Components:
    """A mixture's density, responsibilities, score, denoised points and Hessian at points of shape ``(..., d)``.

    ``sigma`` is a float or a tensor that broadcasts to ``x.shape[:-1]``. Every operation is differentiable where the
    arguments are. Values too large for the dtype become its largest finite number, of their sign.

    Args:
        log_weights: Of the normalised weights, with shape ``(K,)``, float64 on the CPU as all of these.
        means: With shape ``(K, d)``.
        axes: Eigenvectors of the covariances, as columns, with shape ``(K, d, d)``.
        variances: Their eigenvalues, with shape ``(K, d)``.
        isotropic: Whether all axes are the identity.
    """

    def __init__(self, log_weights: Tensor, means: Tensor, axes: Tensor, variances: Tensor, isotropic: bool) -> None:
        self.count, self.dim = means.shape
        self.isotropic = isotropic
        shapes, self._shape_of = variances.unique(dim=0, return_inverse=True)
        shared = shapes if len(shapes) == 1 else variances
        self._parts = (log_weights, means.T, axes.permute(2, 1, 0), shared.T, shapes.T)
        self._constants: dict[tuple[torch.dtype, torch.device], _Constants] = {}

    def log_density(self, x: Tensor, sigma: Sigma) -> Tensor:
        return self._blockwise(lambda t: t.log_density, x, sigma, ())

    def explain(self, x: Tensor, sigma: Sigma) -> Tensor:
        """The log-density, and then the responsibilities, with shape ``(..., 1 + K)``."""
        return self._blockwise(
            lambda t: torch.cat([t.log_density[:, None], t.responsibilities], 1), x, sigma, (1 + self.count,)
        )

    def score(self, x: Tensor, sigma: Sigma, members: Tensor | None = None) -> Tensor:
        """Of the components that ``members``, with shape ``(n, K)``, has True for; None for all."""

        def block(t: _Terms) -> Tensor:
            weighted = (torch.mul(t.shares, y, out=t.scratch.into(y)) for y in t.standardised)
            return -self._turned_back(weighted, t.c) / t.total * t.shrink

        return self._blockwise(block, x, sigma, (self.dim,), members=members)

    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        def block(t: _Terms) -> Tensor:
            into = t.scratch.into
            weighted = (torch.mul(t.shares, y, out=into(y)) for y in t.standardised)
            pulled = (torch.mul(t.c.variances[e], w, out=into(w)) for e, w in enumerate(weighted))
            return (functional.linear(t.shares, t.c.means) + self._turned_back(pulled, t.c) * t.shrink) / t.total

        return self._blockwise(block, x, sigma, (self.dim,))

    def hessian(self, x: Tensor, sigma: Sigma) -> Tensor:
        d = self.dim

        def block(t: _Terms) -> Tensor:
            into, (*planes, root, free) = t.scratch.into, t.spare
            r = torch.div(t.shares, t.total, out=into(t.shares))
            precisions = (torch.div(r, v, out=free) for v in t.variances)
            if self.isotropic:
                within = torch.diag_embed(torch.stack([p.sum(-1) for p in precisions], -1))
            else:
                projected = map(functional.linear, precisions, t.c.projectors)
                within = functools.reduce(torch.add, projected).unflatten(-1, (d, d))

            gradients = t.standardised  # all but their sign, which cancels
            if not self.isotropic:
                gradients = _combined(t.standardised, t.c.axes.transpose(0, 1), planes, t.scratch)
            centred = _centred(gradients, r, free, t.scratch)
            root = torch.sqrt(r, out=root)
            between = second_moments([torch.mul(g, root, out=into(g)) for g in centred], free)
            # Multiplied one after the other, since the square may overflow where `between` is small.
            between = between * t.shrink[..., None] * t.shrink[..., None]
            return between.where(t.resolved[..., None], 0.0) - within

        return self._blockwise(block, x, sigma, (d, d), spare=d + 2)

    def product(self, x: Tensor, sigma: Sigma, v: Tensor) -> Tensor:
        """The Hessian times ``v`` of the shape of ``x``."""

        def block(t: _Terms, v: Tensor) -> Tensor:
            into, (*planes, along, free) = t.scratch.into, t.spare
            r = torch.div(t.shares, t.total, out=into(t.shares))
            turned = list(v[..., None].unbind(1))  # v is the same for all components: a matrix product turns it
            if not self.isotropic:
                turned = [torch.mm(v, axis, out=plane) for axis, plane in zip(t.c.axes, planes, strict=True)]
            along = torch.mul(t.standardised[0], turned[0], out=along)  # -g_k'v
            for y, q in zip(t.standardised[1:], turned[1:], strict=True):
                along = torch.addcmul(along, y, q, out=into(along))
            (along,) = _centred([along], r, free, t.scratch)
            weights = torch.mul(along, r, out=into(along))

            pulled = self._turned_back((torch.mul(r, y, out=free) for y in t.standardised), t.c)  # -s
            between = self._turned_back((torch.mul(weights, y, out=free) for y in t.standardised), t.c)
            between = between - pulled * weights.sum(-1, keepdim=True)  # a sum of 0, but for rounding
            shares = (torch.div(r, variance, out=free) for variance in t.variances)
            within = self._turned_back((torch.mul(p, q, out=into(p)) for p, q in zip(shares, turned, strict=True)), t.c)
            return (between * t.shrink * t.shrink).where(t.resolved, 0.0) - within

        return self._blockwise(block, x, sigma, (self.dim,), spare=self.dim + 2, rows=v)

    def _blockwise(
        self,
        function: Callable[..., Tensor],
        x: Tensor,
        sigma: Sigma,
        shape: tuple[int, ...],
        spare: int = 0,
        rows: Tensor | None = None,
        members: Tensor | None = None,
    ) -> Tensor:
        """Apply ``function`` to blocks of points and join its results, each ``(n, *shape)``.

        Args:
            function: Of a block's terms, and of its part of ``rows`` if there are any.
            x: With shape ``(..., d)``.
            sigma: The noise level.
            shape: Of one point's result.
            spare: How many planes it needs for itself.
            rows: With the shape of ``x``.
            members: Which components count for each point, with shape ``(n, K)``; None for all.
        """
        batch = x.shape[:-1]
        points = x.reshape(-1, self.dim)
        variance = as_sigma(sigma, x).square()
        variance = variance.expand(*batch, 1).reshape(-1, 1) if variance.ndim > 1 else variance[0]
        reused = not any(map(differentiated, (points, variance, rows)))
        scratch = Scratch(3 * self.dim + 2 + spare, self.count, points, reused)
        size = block_size(points, (3 * self.dim + 2 + spare) * self.count)
        if x.is_cpu:  # in many dimensions a block is d^2 operations, whose planes must not be too small
            size = max(size, _PLANE // self.count)
        results = []
        for i in range(0, len(points), size):
            part = slice(i, i + size)
            noise = variance[part] if variance.ndim else variance
            terms = self._terms(points[part], noise, scratch, None if members is None else members[part])
            results.append(function(terms, *(() if rows is None else (rows.reshape(-1, self.dim)[part],))))
        joined = torch.cat(results) if results else points.new_empty((0, *shape))
        largest = torch.finfo(x.dtype).max
        return joined.clamp(-largest, largest).reshape((*batch, *shape))

    def _terms(self, x: Tensor, noise: Tensor, scratch: Scratch, members: Tensor | None) -> _Terms:
        """x has shape (n, d), noise (sigma squared) shape (n, 1) or (), members shape (n, K)."""
        c, d, into = self._in(x), self.dim, scratch.into
        info = torch.finfo(x.dtype)
        planes = scratch.planes(len(x))
        last, unused, *spare = planes[3 * d :]

        # Squares of coordinates beyond this would overflow; nearer points stay exactly as they are.
        reach = x.abs().amax(-1, keepdim=True)
        shrink = torch.where(reach > info.max**0.25, reach, 1.0)  # (n, 1)
        near = scratch.reused and x.is_cpu and bool((shrink == 1).all())

        turned = [torch.sub(x[:, i, None], c.means[i], out=planes[i]) for i in range(d)]  # d planes of (n, K)
        if not near:
            turned = [torch.div(o, shrink, out=into(o)) for o in turned]
        if not self.isotropic:
            turned = _combined(turned, c.axes, planes[d : 2 * d], scratch)

        full = noise.ndim > 0 and c.variances.shape[1] > 1  # whether the planes of variances are (n, K)
        variances = [torch.add(c.variances[e], noise, out=planes[2 * d + e] if full else None) for e in range(d)]
        free = planes[d : 2 * d] if self.isotropic else planes[:d]
        standardised = [torch.div(z, v, out=p) for z, v, p in zip(turned, variances, free, strict=True)]

        heights = self._log_volume(c, variances, noise, last if full else None, unused if full else None)
        heights = torch.sub(c.log_weights, heights, alpha=0.5, out=last if noise.ndim > 0 else None)  # (n or 1, K)
        distance = torch.mul(turned[0], standardised[0], out=into(turned[0]))
        for z, y in zip(turned[1:], standardised[1:], strict=True):
            distance = torch.addcmul(distance, z, y, out=into(distance))

        if members is not None:
            distance = distance.masked_fill_(~members, math.inf)
        nearest = distance.amin(-1, keepdim=True)  # (n, 1)
        beyond = torch.sub(distance, nearest, out=into(distance))
        if not near:
            beyond = beyond * shrink * shrink
        logits = torch.sub(heights, beyond, alpha=0.5, out=into(beyond))  # (n, K)
        highest = logits.amax(-1, keepdim=True)
        # exp is twenty times slower where its result underflows, so arguments are bounded first and the results made 0.
        floor = 0.9 * math.log(info.tiny)
        lower = torch.sub(logits, highest, out=into(logits))
        shares = torch.exp(torch.clamp(lower, min=floor, out=into(lower)), out=into(lower))
        shares = functional.threshold(shares, 2 * math.exp(floor), 0, inplace=scratch.reused)
        total = shares.sum(-1, keepdim=True)  # at least 1
        nearest = nearest * shrink * shrink
        log_density = (highest + total.log() - 0.5 * nearest)[:, 0] - 0.5 * d * math.log(2 * math.pi)
        resolved = nearest * info.eps < 1
        return _Terms(c, shares, total, log_density, standardised, variances, shrink, resolved, scratch, spare)

    def _log_volume(
        self, c: _Constants, variances: list[Tensor], noise: Tensor, into: Tensor | None, unused: Tensor | None
    ) -> Tensor:
        """``sum_e log(l_e + sigma^2)``, with shape (n or 1, K or 1)."""
        if 4 * c.shapes.shape[1] <= self.count:  # a logarithm costs as much as ten other operations
            of_shapes = (c.shapes + noise[..., None]).log().sum(-2)  # (n, U) or (U,)
            return of_shapes if of_shapes.shape[-1] == 1 else torch.index_select(of_shapes, -1, c.shape_of, out=into)
        total = torch.log(variances[0], out=into)
        for v in variances[1:]:
            total = torch.add(total, torch.log(v, out=unused), out=into)
        return total

    def _turned_back(self, planes: Iterable[Tensor], c: _Constants) -> Tensor:
        """``sum_k Q_k planes_k``, with shape (n, d); each plane is used before the next one is computed."""
        if self.isotropic:
            return torch.stack([plane.sum(-1) for plane in planes], -1)
        return functools.reduce(torch.add, map(functional.linear, planes, c.axes))

    def _in(self, x: Tensor) -> _Constants:
        """The constants in the dtype and on the device of ``x``."""
        key = (x.dtype, x.device)
        if key not in self._constants:
            log_weights, means, axes, variances, shapes = (part.to(x).contiguous() for part in self._parts)
            found = _Constants(log_weights, means, axes, variances, shapes, self._shape_of.to(x.device))
            self._constants[key] = found
        return self._constants[key]


def _combined(values: Sequence[Tensor], axes: Tensor, out: Sequence[Tensor | None], scratch: Scratch) -> list[Tensor]:
    """``sum_i axes[e, i] values_i`` for each e: d planes of (n, K) from d of (n, K or 1)."""
    found = [torch.mul(values[0], row[0], out=plane) for row, plane in zip(axes, out, strict=True)]
    for i, value in enumerate(values[1:], 1):
        found = [torch.addcmul(f, value, row[i], out=scratch.into(f)) for f, row in zip(found, axes, strict=True)]
    return found


def _centred(values: Sequence[Tensor], r: Tensor, free: Tensor | None, scratch: Scratch) -> list[Tensor]:
    """Planes of (n, K), each less its mean under the responsibilities ``r``."""
    means = [torch.mul(r, v, out=free).sum(-1, keepdim=True) for v in values]
    return [torch.sub(v, mean, out=scratch.into(v)) for v, mean in zip(values, means, strict=True)]
