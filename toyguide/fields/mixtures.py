"""Gaussian mixtures: distributions whose density, score and Hessian are known exactly at every noise level.

Heat diffusion keeps a mixture a mixture: adding ``N(0, sigma^2 I)`` turns each covariance ``C_k`` into
``C_k + sigma^2 I``. With the eigendecomposition ``C_k = Q_k diag(l_k) Q_k'`` nothing is ever inverted: a point is
turned into each component's own axes, ``z = Q_k' (x - m_k)``, and divided by ``l_k + sigma^2``. In these terms, with
the responsibilities ``r_k(x; sigma)``, ``y_k = z / (l_k + sigma^2)`` and ``g_k = -Q_k y_k``:

    score    s = sum_k r_k g_k
    denoised D = sum_k r_k (m_k + Q_k diag(l_k) y_k)
    Hessian  H = sum_k r_k ((g_k - s)(g_k - s)' - (C_k + sigma^2 I)^-1)

Everything is a log-sum-exp relative to the nearest component, and coordinates far beyond the means are scaled down
before they are squared, so that results are finite and right at any finite point and at sigma = 0.

References:
    Karras et al., Guiding a Diffusion Model with a Bad Version of Itself, 2024, arXiv 2406.02507, Eqs. 7-10.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from toyguide._speed import compiled
from toyguide._speed.buffers import Scratch, differentiated
from toyguide._speed.shared_sigma import Quadratics
from toyguide.errors import InputError
from toyguide.fields.base import Field, Sigma

__all__ = ["LARGEST", "GaussianMixture"]

# Points are worked through in blocks of about this many (point, component) pairs, which write their intermediate
# results into the same planes again and again: those stay in the processor's cache, no block waits for new pages of
# memory, and memory stays bounded however many points are asked for.
_BLOCK, _GPU_BLOCK = 1 << 18, 1 << 24

# The compiled loop takes what float32 can hold without care: points and noise below this, and components whose weights
# over the roots of their determinants are, in logarithms, no further apart.
_FAR, _APART = 1e9, 30.0
_WORTH = 1 << 16  # pairs that are worth a thread

_LEVELS = 128  # noise levels whose coefficients are kept: more than a schedule has steps

# Means and standard deviations stay where their squares and inverse squares are plain numbers in float32 too.
LARGEST, _SMALLEST_STD = 1e9, 1e-9


@dataclass(frozen=True)
class _Constants:
    """The mixture's numbers in one dtype on one device; K components, d dimensions, U different shapes."""

    log_weights: Tensor  # (K,)
    means: Tensor  # (d, K)
    axes: Tensor  # (d, d, K), [e, i] is coordinate i of eigenvector e
    variances: Tensor  # (d, K), or (d, 1) if all components have the same
    shapes: Tensor  # (d, U), the different columns of `variances`
    shape_of: Tensor  # (K,), which of them a component has


@dataclass(frozen=True)
class _Terms:
    """What one block of n points and the K components have to do with each other; written over by the next block."""

    shares: Tensor  # (n, K), the components' weights beside the largest
    total: Tensor  # (n, 1), their sum
    log_density: Tensor  # (n,)
    standardised: list[Tensor]  # d planes of (n, K): z / (l + sigma^2), divided by `shrink`
    variances: list[Tensor]  # d planes of (n or 1, K or 1): l + sigma^2
    shrink: Tensor  # (n, 1)
    scratch: Scratch

    @property
    def responsibilities(self) -> Tensor:
        return self.shares / self.total


class GaussianMixture(Field):
    """An exact field: ``p(x; sigma) = sum_k w_k N(x; m_k, C_k + sigma^2 I)``.

    Values too large for the dtype become its largest finite number, of their sign; points that are not finite give NaN.

    Args:
        weights: Positive weights, with shape ``(K,)``; they are normalised to sum to 1.
        means: Means, with shape ``(K, d)``.
        covariances: Symmetric positive definite covariances, with shape ``(K, d, d)``.

    Raises:
        InputError: If a shape, a weight or a covariance is not as described.
    """

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor) -> None:
        weights, means, covariances = (torch.as_tensor(a, dtype=torch.float64) for a in (weights, means, covariances))
        _validate(weights, means, covariances)
        self.weights = weights / weights.sum()
        self.means = means
        self.covariances = covariances
        self.dim = means.shape[1]

        variances, axes = torch.linalg.eigh(covariances)
        # A component that is round already stands in its own axes: no turning, no rounding.
        self._isotropic = bool((covariances == covariances[:, :1, :1] * torch.eye(self.dim)).all())
        if self._isotropic:
            axes = torch.eye(self.dim, dtype=torch.float64).expand_as(covariances)
        # The eigendecomposition that all is computed from: log weights, means, eigenvectors as columns, eigenvalues.
        self._parts = (self.weights.log(), means, axes, variances)
        self._planes = self._packed()
        self._places: dict[torch.device, tuple[Tensor, ...]] = {}
        self._cache: dict[tuple[torch.dtype, torch.device], _Constants] = {}
        self._levels: dict[tuple[float, torch.device], Quadratics] = {}

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def mean(self) -> Tensor:
        """The mean of the data, with shape ``(d,)``, float64."""
        return self.weights @ self.means

    @property
    def std(self) -> Tensor:
        """The per-axis standard deviation of the data, with shape ``(d,)``, float64."""
        second = self.means.square() + self.covariances.diagonal(dim1=1, dim2=2)
        return (self.weights @ second - self.mean.square()).sqrt()

    def log_density(self, x: Tensor, sigma: Sigma) -> Tensor:
        """``log p(x; sigma)``, with shape ``(...)``."""
        found = self._compiled(x, sigma, ())
        if found is not None:
            return found
        q = self._quadratics(x, sigma)
        if q is not None:
            return self._rowwise(q.log_density, x, ())
        return self._blockwise(lambda t: t.log_density, x, sigma, ())

    def responsibilities(self, x: Tensor, sigma: Sigma) -> Tensor:
        """The probability of each component given the noisy point, with shape ``(..., K)``."""
        q = self._quadratics(x, sigma)
        if q is not None:
            return self._rowwise(lambda p: q.explain(p)[:, 1:], x, (len(self),))
        return self._blockwise(lambda t: t.responsibilities, x, sigma, (len(self),))

    def explain(self, x: Tensor, sigma: Sigma) -> tuple[Tensor, Tensor]:
        """``log_density`` and ``responsibilities`` together, for the price of one."""
        q, shape = self._quadratics(x, sigma), (1 + len(self),)
        if q is not None:
            both = self._rowwise(q.explain, x, shape)
        else:
            both = self._blockwise(lambda t: _beside(t.log_density, t.responsibilities), x, sigma, shape)
        return both[..., 0], both[..., 1:]

    def score(self, x: Tensor, sigma: Sigma) -> Tensor:
        """``grad log p(x; sigma)``, with shape ``(..., d)``."""
        found = self._compiled(x, sigma, (self.dim,))
        if found is not None:
            return found
        q = self._quadratics(x, sigma)
        if q is not None:
            return self._rowwise(q.score, x, (self.dim,))
        c = self._constants(x)
        return self._blockwise(lambda t: self._score(t, c), x, sigma, (self.dim,))

    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        """The posterior mean of the clean point, with shape ``(..., d)``."""
        q = self._quadratics(x, sigma)
        if q is not None:
            return self._rowwise(lambda p: p.double() + float(sigma) ** 2 * q.score(p), x, (self.dim,))
        c = self._constants(x)

        def block(t: _Terms) -> Tensor:
            pulled = [torch.mul(c.variances[e], y, out=t.scratch.over(y)) for e, y in enumerate(t.standardised)]
            return functional.linear(t.shares, c.means) / t.total + self._turn_back(t, pulled, c)

        return self._blockwise(block, x, sigma, (self.dim,))

    def hessian(self, x: Tensor, sigma: Sigma) -> Tensor:
        """The Hessian of ``log p(x; sigma)``, with shape ``(..., d, d)``."""
        c = self._constants(x)
        d = self.dim

        def block(t: _Terms) -> Tensor:
            r = t.responsibilities
            # Relative to the likeliest component and in units of `shrink`: far away nothing cancels or overflows.
            gradients = -torch.einsum("enk,edk->nkd", torch.stack(t.standardised), c.axes)
            spread = gradients - torch.take_along_dim(gradients, r.argmax(-1)[:, None, None], 1)
            spread = r.sqrt()[..., None] * (spread - torch.einsum("nk,nkd->nd", r, spread)[:, None])
            between = torch.einsum("nkd,nke->nde", spread, spread) * t.shrink[..., None] * t.shrink[..., None]
            shares = torch.stack([r / v for v in t.variances], -1).flatten(1)  # (n, K d)
            projectors = torch.einsum("edk,efk->kedf", c.axes, c.axes).reshape(-1, d * d)
            within = (shares @ projectors).reshape(-1, d, d)
            return between - within

        return self._blockwise(block, x, sigma, (d, d))

    def sample(self, n: int, sigma: float = 0.0, generator: torch.Generator | None = None) -> Tensor:
        """``n`` points of ``p(x; sigma)``, with shape ``(n, d)``, float64 on the generator's device.

        Drawn on the CPU, they are the same for one seed whatever the device of later work.
        """
        where = torch.device("cpu") if generator is None else generator.device
        _, means, axes, variances, reached = self._placed(where)
        if where.type == "cpu":
            k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        else:  # multinomial would wait for the GPU
            height = torch.rand(n, dtype=torch.float64, device=where, generator=generator)
            k = torch.searchsorted(reached, height).clamp(max=len(self) - 1)
        z = torch.randn(n, self.dim, dtype=torch.float64, device=where, generator=generator)
        return means[k] + torch.einsum("nde,ne->nd", axes[k], (variances[k] + sigma**2).sqrt() * z)

    def subset(self, keep: Tensor) -> GaussianMixture:
        """The mixture of the components that the boolean mask ``keep`` selects, renormalised."""
        return GaussianMixture(self.weights[keep], self.means[keep], self.covariances[keep])

    def _placed(self, device: torch.device) -> tuple[Tensor, ...]:
        """The parts, and the weights added up, on a device; float64."""
        if device not in self._places:
            self._places[device] = tuple(p.to(device) for p in (*self._parts, self.weights.cumsum(0)))
        return self._places[device]

    def _constants(self, x: Tensor) -> _Constants:
        key = (x.dtype, x.device)
        if key not in self._cache:
            log_weights, means, axes, variances = (part.to(x) for part in self._parts)
            shapes, shape_of = variances.unique(dim=0, return_inverse=True)
            shared = shapes if len(shapes) == 1 else variances
            self._cache[key] = _Constants(
                log_weights,
                means.T.contiguous(),
                axes.permute(2, 1, 0).contiguous(),
                shared.T.contiguous(),
                shapes.T.contiguous(),
                shape_of,
            )
        return self._cache[key]

    def _compiled(self, x: Tensor, sigma: Sigma, shape: tuple[int, ...]) -> Tensor | None:
        """The log-density, of shape (), or the score, of shape (d,), at each point by the compiled loop, or None."""
        if self._planes is None or x.shape[-1] != self.dim or not compiled.available(x):
            return None
        noise = torch.as_tensor(sigma, dtype=x.dtype).square()
        if differentiated(x) or differentiated(noise) or not x.numel():
            return None
        points = x.detach().reshape(-1, self.dim).contiguous()
        if not (bool((points.abs() < _FAR).all()) and bool((noise < _FAR).all())):  # false for NaN too
            return None
        each = noise.detach().expand(x.shape[:-1]).reshape(-1).contiguous()
        out = points.new_empty(len(points), *shape)
        wanted = (None, out) if shape else (out, None)
        work = compiled.mixture(self._planes, points, each, *wanted)
        compiled.share_out(work, len(points), max(1, _WORTH // len(self)))
        return out.reshape((*x.shape[:-1], *shape))

    def _packed(self) -> Tensor | None:
        """The components' numbers as the compiled loop takes them, if it is right for this mixture."""
        log_weights, means, axes, variances = self._parts
        apart = log_weights.max() - log_weights.min() + 0.5 * (variances.amax(0) / variances.amin(0)).log().sum()
        if self.dim != 2 or apart > _APART:
            return None
        rounded = means.float()
        rest = (means - rounded.double()).float()
        turned = axes.permute(2, 1, 0).reshape(4, -1)
        parts = (log_weights.exp()[None], rounded.T, rest.T, turned, variances.T)
        return torch.cat([part.float() for part in parts]).contiguous()

    def _quadratics(self, x: Tensor, sigma: Sigma) -> Quadratics | None:
        """The fast way to the answer, where all points share sigma and it is exact enough."""
        if (isinstance(sigma, Tensor) and (sigma.ndim or differentiated(sigma))) or differentiated(x):
            return None
        if x.dtype != torch.float32 or x.shape[-1] != self.dim:
            return None
        key = (float(sigma), x.device)
        if key not in self._levels:
            log_weights, means, axes, variances, _ = self._placed(x.device)
            self._levels[key] = Quadratics(log_weights, means, axes, variances + float(sigma) ** 2)
            if len(self._levels) > _LEVELS:
                self._levels.pop(next(iter(self._levels)))
        found = self._levels[key]
        return found if found.fits(x) else None

    def _rowwise(self, function: Callable[[Tensor], Tensor], x: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Give ``function`` the points as ``(n, d)``, and its results, ``(n, *shape)``, the points' shape and dtype."""
        return function(x.reshape(-1, self.dim)).to(x.dtype).reshape((*x.shape[:-1], *shape))

    def _blockwise(
        self, function: Callable[[_Terms], Tensor], x: Tensor, sigma: Sigma, shape: tuple[int, ...]
    ) -> Tensor:
        """Apply ``function`` to blocks of points, and put its results, each ``(n, *shape)``, back together."""
        if x.shape[-1] != self.dim:
            raise InputError(f"points of dimension {x.shape[-1]}: expected dimension {self.dim}")
        batch = x.shape[:-1]
        points = x.reshape(-1, self.dim)
        variance = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).square()
        if variance.ndim:
            variance = variance.expand(batch).reshape(-1, 1)
        rows = max(1, (_BLOCK if x.is_cpu else _GPU_BLOCK) // len(self))
        reused = not (differentiated(points) or differentiated(variance))
        scratch = Scratch(3 * self.dim + 2, len(self), points, reused)
        results = [
            function(self._terms(points[i : i + rows], variance[i : i + rows] if variance.ndim else variance, scratch))
            for i in range(0, len(points), rows)
        ]
        joined = torch.cat(results) if results else points.new_empty((0, *shape))
        largest = torch.finfo(x.dtype).max
        return joined.clamp(-largest, largest).reshape((*batch, *shape))

    def _terms(self, x: Tensor, noise: Tensor, scratch: Scratch) -> _Terms:
        """x has shape (n, d), noise (sigma squared) shape (n, 1) or ()."""
        c = self._constants(x)
        d, over = self.dim, scratch.over
        info = torch.finfo(x.dtype)
        planes = scratch.planes(len(x))
        last, spare = planes[3 * d :]

        # Squares of coordinates beyond this would overflow; nearer points are left exactly as they are.
        reach = x.abs().amax(-1, keepdim=True)
        shrink = torch.where(reach > info.max**0.25, reach, 1.0)  # (n, 1)
        near = scratch.reused and x.is_cpu and bool((shrink == 1).all())

        offsets = [torch.sub(x[:, i, None], c.means[i], out=planes[i]) for i in range(d)]  # d planes of (n, K)
        if not near:
            offsets = [torch.div(o, shrink, out=over(o)) for o in offsets]
        turned = offsets
        if not self._isotropic:
            turned = [torch.mul(offsets[0], c.axes[e, 0], out=planes[d + e]) for e in range(d)]
            for i in range(1, d):
                turned = [torch.addcmul(z, offsets[i], c.axes[e, i], out=over(z)) for e, z in enumerate(turned)]

        full = noise.ndim > 0 and c.variances.shape[1] > 1  # whether the planes of variances are (n, K)
        variances = [torch.add(c.variances[e], noise, out=planes[2 * d + e] if full else None) for e in range(d)]
        free = planes[d : 2 * d] if self._isotropic else planes[:d]
        standardised = [torch.div(z, v, out=p) for z, v, p in zip(turned, variances, free, strict=True)]

        heights = self._log_volume(c, variances, noise, last if full else None, spare if full else None)
        wide = last if noise.ndim > 0 else None
        heights = torch.sub(c.log_weights, heights, alpha=0.5, out=wide)  # (n or 1, K)
        distance = torch.mul(turned[0], standardised[0], out=over(turned[0]))
        for z, y in zip(turned[1:], standardised[1:], strict=True):
            distance = torch.addcmul(distance, z, y, out=over(distance))

        nearest = distance.amin(-1, keepdim=True)  # (n, 1)
        beyond = torch.sub(distance, nearest, out=over(distance))
        if not near:
            beyond = beyond * shrink * shrink
        logits = torch.sub(heights, beyond, alpha=0.5, out=over(beyond))  # (n, K)
        highest = logits.amax(-1, keepdim=True)
        # exp is twenty times slower where its result underflows, so what is about to is cut off before, and made 0.
        floor = 0.9 * math.log(info.tiny)
        lower = torch.sub(logits, highest, out=over(logits))
        shares = torch.exp(torch.clamp(lower, min=floor, out=over(lower)), out=over(lower))
        shares = functional.threshold(shares, 2 * math.exp(floor), 0, inplace=scratch.reused)
        total = shares.sum(-1, keepdim=True)  # at least 1
        log_density = (highest + total.log() - 0.5 * nearest * shrink * shrink)[:, 0] - 0.5 * d * math.log(2 * math.pi)
        return _Terms(shares, total, log_density, standardised, variances, shrink, scratch)

    def _log_volume(
        self, c: _Constants, variances: list[Tensor], noise: Tensor, into: Tensor | None, spare: Tensor | None
    ) -> Tensor:
        """``sum_e log(l_e + sigma^2)``, with shape (n or 1, K or 1)."""
        if 4 * c.shapes.shape[1] <= len(self):  # a logarithm costs as much as ten other operations
            of_shapes = (c.shapes + noise[..., None]).log().sum(-2)  # (n, U) or (U,)
            return of_shapes if of_shapes.shape[-1] == 1 else torch.index_select(of_shapes, -1, c.shape_of, out=into)
        total = torch.log(variances[0], out=into)
        for v in variances[1:]:
            total = torch.add(total, torch.log(v, out=spare), out=into)
        return total

    def _score(self, t: _Terms, c: _Constants) -> Tensor:
        return -self._turn_back(t, t.standardised, c)

    def _turn_back(self, t: _Terms, planes: list[Tensor], c: _Constants) -> Tensor:
        """``sum_k r_k Q_k planes_k``, with shape (n, d)."""
        weighted = [torch.mul(t.shares, p, out=t.scratch.over(p)) for p in planes]
        if self._isotropic:
            total = torch.stack([w.sum(-1) for w in weighted], -1)
        else:
            total = sum(
                (functional.linear(weighted[e], c.axes[e]) for e in range(1, self.dim)),
                functional.linear(weighted[0], c.axes[0]),
            )
        return total / t.total * t.shrink


def _beside(first: Tensor, rest: Tensor) -> Tensor:
    """(n,) and (n, K) as (n, 1 + K)."""
    return torch.cat([first[:, None].to(rest), rest], 1)


def _validate(weights: Tensor, means: Tensor, covariances: Tensor) -> None:
    if means.ndim != 2 or 0 in means.shape:
        raise InputError(f"means of shape {tuple(means.shape)}: expected (components, dimensions)")
    count, dim = means.shape
    if weights.shape != (count,):
        raise InputError(f"weights of shape {tuple(weights.shape)}: expected ({count},), one for each mean")
    if covariances.shape != (count, dim, dim):
        raise InputError(f"covariances of shape {tuple(covariances.shape)}: expected ({count}, {dim}, {dim})")
    for name, value in (("weights", weights), ("means", means), ("covariances", covariances)):
        if not value.isfinite().all():
            bad = int((~value.isfinite()).reshape(count, -1).any(1).nonzero()[0])
            raise InputError(f"{name}[{bad}] is not finite: expected finite numbers")
    if not (weights > 0).all():
        bad = int((weights <= 0).nonzero()[0])
        raise InputError(f"weights[{bad}] = {weights[bad]:g}: expected positive numbers")
    if not weights.sum().isfinite() or not (weights / weights.sum() > torch.finfo(torch.float32).tiny).all():
        raise InputError(f"weights from {weights.min():g} to {weights.max():g}: expected them less far apart")
    if (means.abs() > LARGEST).any():
        bad = int((means.abs() > LARGEST).any(1).nonzero()[0])
        raise InputError(f"means[{bad}] = {means[bad].tolist()}: expected numbers from {-LARGEST:g} to {LARGEST:g}")
    asymmetry = (covariances - covariances.mT).abs().amax((1, 2))
    size = covariances.abs().amax((1, 2))
    if (asymmetry > 1e-9 * size).any():
        bad = int((asymmetry > 1e-9 * size).nonzero()[0])
        raise InputError(f"covariances[{bad}] is not symmetric: expected symmetric positive definite matrices")
    if (size > LARGEST**2).any():
        bad = int((size > LARGEST**2).nonzero()[0])
        raise InputError(f"covariances[{bad}] holds {size[bad]:g}: expected numbers up to {LARGEST**2:g}")
    lowest = torch.linalg.eigvalsh(covariances)[:, 0]
    singular = lowest <= torch.maximum(1e-13 * size, torch.tensor(_SMALLEST_STD**2))  # rounding makes 0 about 1e-16
    if singular.any():
        bad = int(singular.nonzero()[0])
        raise InputError(f"covariances[{bad}] has the eigenvalue {lowest[bad]:g}: expected positive definite matrices")
