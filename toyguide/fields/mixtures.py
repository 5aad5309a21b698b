"""Gaussian mixtures: distributions whose density, score and Hessian are known exactly at every noise level.

Heat diffusion keeps a mixture a mixture: adding ``N(0, sigma^2 I)`` turns each covariance ``C_k`` into
``C_k + sigma^2 I``. With the eigendecomposition ``C_k = Q_k diag(l_k) Q_k'`` no matrix has to be inverted at any
level. ``toyguide.fields.components`` has the formulas; compiled loops, and the form for one shared sigma, compute the
same faster.

Gradients come from the closed forms too: that of the log-density is the score, and that of the score is the Hessian,
applied to a vector.

References:
    Karras et al., Guiding a Diffusion Model with a Bad Version of Itself, 2024, arXiv 2406.02507, Eqs. 7-10.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from toyguide._speed import compiled
from toyguide._speed.buffers import differentiated, transformed
from toyguide._speed.shared_sigma import Quadratics
from toyguide.errors import InputError
from toyguide.fields.base import Field, Sigma, as_points, as_sigma, checked, denoised_from_score
from toyguide.fields.components import Components

__all__ = ["LARGEST", "GaussianMixture"]

# The compiled loop is right for points and noise below this, and for components whose weights over the roots of their
# determinants are, in logarithms, no further apart.
_FAR, _APART = 1e9, 30.0
_SMALLEST_CHUNK = 1 << 16  # (point, component) pairs worth their own thread

_LEVELS = 128  # noise levels whose coefficients are kept: more than a schedule has steps
# On a GPU the form for one sigma has to wait for the device, to see whether it fits: worth it from so many pairs.
_GPU_FEWEST = 1 << 24

# Means and standard deviations whose squares and inverse squares are normal numbers in float32 too.
LARGEST, _SMALLEST_STD = 1e9, 1e-9


class GaussianMixture(Field):
    """An exact field: ``p(x; sigma) = sum_k w_k N(x; m_k, C_k + sigma^2 I)``.

    Values too large for the dtype become its largest finite number, of their sign; points that are not finite give NaN.

    Args:
        weights: Positive weights, with shape ``(K,)``; they are normalised to sum to 1.
        means: Means, with shape ``(K, d)``.
        covariances: Symmetric positive definite covariances, with shape ``(K, d, d)``.

    Raises:
        InputError: If a shape, a weight or a covariance is not as described. Its methods raise it for points of another
            dimension and for noise levels that are negative or not finite.
    """

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor) -> None:
        weights, means, covariances = (torch.as_tensor(a, dtype=torch.float64) for a in (weights, means, covariances))
        _validate(weights, means, covariances)
        self.weights = weights / weights.sum()
        self.means = means
        self.covariances = covariances
        self.dim = means.shape[1]

        variances, axes = torch.linalg.eigh(covariances)
        # A round component already lies in its own axes: no rotation, no rounding.
        identity = torch.eye(self.dim, dtype=torch.float64)
        isotropic = bool((covariances == covariances[:, :1, :1] * identity).all())
        if isotropic:
            axes = identity.expand_as(covariances)
        # Log weights, means, eigenvectors as columns, eigenvalues.
        self._parts = (self.weights.log(), means, axes, variances)
        self._components = Components(*self._parts, isotropic)
        self._planes = self._packed()
        self._places: dict[torch.device, tuple[Tensor, ...]] = {}
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
        x, sigma = checked(x, sigma, self.dim)
        if _through_autograd(x, sigma):
            return _LogDensity.apply(x, self, sigma)
        return self._fastest("log_density", x, sigma, ())

    def responsibilities(self, x: Tensor, sigma: Sigma) -> Tensor:
        """The probability of each component given the noisy point, with shape ``(..., K)``."""
        return self.explain(x, sigma)[1]

    def explain(self, x: Tensor, sigma: Sigma) -> tuple[Tensor, Tensor]:
        """``log_density`` and ``responsibilities`` for the price of one."""
        x, sigma = checked(x, sigma, self.dim)
        shared = self._shared(x, sigma)
        if shared is None:
            both = self._components.explain(x, sigma)
        else:
            both = shared.explain(x.reshape(-1, self.dim)).reshape(*x.shape[:-1], 1 + len(self))
        return both[..., 0], both[..., 1:]

    def score(self, x: Tensor, sigma: Sigma) -> Tensor:
        """``grad log p(x; sigma)``, with shape ``(..., d)``."""
        x, sigma = checked(x, sigma, self.dim)
        if _through_autograd(x, sigma):
            return _Score.apply(x, self, sigma)
        return self._fastest("score", x, sigma, (self.dim,))

    def denoise(self, x: Tensor, sigma: Sigma) -> Tensor:
        """The posterior mean of the clean point, with shape ``(..., d)``."""
        x, sigma = checked(x, sigma, self.dim)
        if _through_autograd(x, sigma):
            return denoised_from_score(_Score.apply(x, self, sigma), x, sigma)
        score = self._compiled("score", x, sigma, (self.dim,))
        if score is not None:
            return denoised_from_score(score, x, sigma)
        shared = self._shared(x, sigma)
        if shared is None:
            return self._components.denoise(x, sigma)
        score = shared.score(x.reshape(-1, self.dim)).reshape(x.shape)  # float64
        return denoised_from_score(score, x, sigma).to(x.dtype)

    def hessian(self, x: Tensor, sigma: Sigma) -> Tensor:
        """The Hessian of ``log p(x; sigma)``, with shape ``(..., d, d)``."""
        x, sigma = checked(x, sigma, self.dim)
        return self._fastest("hessian", x, sigma, (self.dim, self.dim))

    def jvp(self, x: Tensor, sigma: Sigma, v: Tensor) -> Tensor:
        """The Hessian times vectors ``v``, which broadcast to the shape of ``x``, with shape ``(..., d)``."""
        x, sigma = checked(x, sigma, self.dim)
        v = as_points(v).to(x).expand_as(x)
        if not differentiated(v):
            hessian = self._compiled("hessian", x, sigma, (self.dim, self.dim))
            if hessian is not None:
                return (hessian * v[..., None, :]).sum(-1)
            shared = self._shared(x, sigma)
            if shared is not None:
                points, along = x.reshape(-1, self.dim), v.reshape(-1, self.dim)
                return shared.product(points, along).to(x.dtype).reshape(x.shape)
        return self._components.product(x, sigma, v)

    def score_among(self, x: Tensor, sigma: Tensor, members: Tensor) -> Tensor:
        """At each point the score of some of the components only, with shape ``(n, d)``.

        Args:
            x: Points, with shape ``(n, d)``.
            sigma: Their noise levels, with shape ``(n,)``.
            members: Which components count for each point, at least one, with shape ``(n, K)``, bool.
        """
        return self._components.score(*checked(x, sigma, self.dim), members)

    def sample(self, n: int, sigma: float = 0.0, generator: torch.Generator | None = None) -> Tensor:
        """``n`` points of ``p(x; sigma)``, with shape ``(n, d)``, float64 on the generator's device.

        Drawn on the CPU, they are the same for one seed whatever the device of later work.
        """
        return self.sample_with_components(n, sigma, generator)[0]

    def sample_with_components(
        self, n: int, sigma: float = 0.0, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """The same points, and the index of the component that each one is from, with shape ``(n,)``."""
        device = torch.device("cpu") if generator is None else generator.device
        means, axes, variances, cumulative = self._placed(device)
        if device.type == "cpu":
            k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        else:  # multinomial would wait for the GPU
            height = torch.rand(n, dtype=torch.float64, device=device, generator=generator)
            k = torch.searchsorted(cumulative, height).clamp(max=len(self) - 1)
        z = torch.randn(n, self.dim, dtype=torch.float64, device=device, generator=generator)
        return means[k] + torch.einsum("nde,ne->nd", axes[k], (variances[k] + sigma**2).sqrt() * z), k

    def subset(self, keep: Tensor) -> GaussianMixture:
        """The mixture of the components that the boolean mask ``keep`` selects, renormalised."""
        return GaussianMixture(self.weights[keep], self.means[keep], self.covariances[keep])

    def _placed(self, device: torch.device) -> tuple[Tensor, ...]:
        """Means, axes, variances and cumulative weights on a device; float64."""
        if device not in self._places:
            self._places[device] = tuple(p.to(device) for p in (*self._parts[1:], self.weights.cumsum(0)))
        return self._places[device]

    def _fastest(self, name: str, x: Tensor, sigma: Sigma, shape: tuple[int, ...]) -> Tensor:
        """``log_density``, ``score`` or ``hessian``, whose value at one point has the given shape."""
        found = self._compiled(name, x, sigma, shape)
        if found is not None:
            return found
        shared = self._shared(x, sigma)
        if shared is not None:
            return getattr(shared, name)(x.reshape(-1, self.dim)).to(x.dtype).reshape((*x.shape[:-1], *shape))
        return getattr(self._components, name)(x, sigma)

    def _compiled(self, name: str, x: Tensor, sigma: Sigma, shape: tuple[int, ...]) -> Tensor | None:
        """The same by the compiled loop, or None where it is unavailable or not accurate."""
        planes = self._planes.get(x.dtype)
        if planes is None or differentiated(x) or differentiated(sigma) or not x.numel() or not compiled.available(x):
            return None
        points = x.detach().reshape(-1, self.dim).contiguous()
        noise = as_sigma(sigma, x).detach().square()[..., 0]
        if not (bool((points.abs() < _FAR).all()) and bool((noise < _FAR).all())):  # False for NaN too
            return None
        each = noise.expand(x.shape[:-1]).reshape(-1).contiguous()
        out = points.new_empty(len(points), *shape)
        work = compiled.mixture(planes, points, each, **{name: out})
        compiled.run_parallel(work, len(points), max(1, _SMALLEST_CHUNK // len(self)))
        return out.reshape((*x.shape[:-1], *shape))

    def _packed(self) -> dict[torch.dtype, Tensor]:
        """The components' constants for the compiled loop by dtype; empty where it is not accurate for this mixture."""
        log_weights, means, axes, variances = self._parts
        apart = log_weights.max() - log_weights.min() + 0.5 * (variances.amax(0) / variances.amin(0)).log().sum()
        if self.dim != 2 or apart > _APART:
            return {}
        packed = {}
        for dtype in (torch.float32, torch.float64):
            rounded = means.to(dtype)
            turned = axes.permute(2, 1, 0).reshape(4, -1)
            parts = (log_weights.exp()[None], rounded.T, (means - rounded.double()).T, turned, variances.T)
            packed[dtype] = torch.cat([part.to(dtype) for part in parts]).contiguous()
        return packed

    def _shared(self, x: Tensor, sigma: Sigma) -> Quadratics | None:
        """The form for points that share one sigma, where it is exact to float32."""
        if not isinstance(sigma, float) or x.dtype != torch.float32 or differentiated(x):
            return None
        if not x.is_cpu and x.numel() // self.dim * len(self) < _GPU_FEWEST:
            return None
        key = (sigma, x.device)
        if key not in self._levels:
            log_weights, means, axes, variances = self._parts
            self._levels[key] = Quadratics(log_weights, means, axes, variances + sigma**2, x.device)
            if len(self._levels) > _LEVELS:
                self._levels.pop(next(iter(self._levels)))
        found = self._levels[key]
        return found if found.fits(x) else None


def _through_autograd(x: Tensor, sigma: Sigma) -> bool:
    """Whether autograd needs the gradient for the points only, so that the closed forms give it."""
    return differentiated(x) and not transformed(x) and not differentiated(sigma)


class _LogDensity(torch.autograd.Function):
    """The log-density, whose gradient is the score."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, field: GaussianMixture, sigma: Sigma) -> Tensor:
        ctx.save_for_backward(x)
        ctx.field, ctx.sigma = field, sigma
        return field.log_density(x, sigma)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        return gradients[0][..., None] * ctx.field.score(x, ctx.sigma), None, None


class _Score(torch.autograd.Function):
    """The score, whose Jacobian is the Hessian."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, field: GaussianMixture, sigma: Sigma) -> Tensor:
        ctx.save_for_backward(x)
        ctx.field, ctx.sigma = field, sigma
        return field.score(x, sigma)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        return ctx.field.jvp(x, ctx.sigma, gradients[0]), None, None


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
    singular = lowest <= (1e-13 * size).clamp(min=_SMALLEST_STD**2)  # rounding makes 0 about 1e-16
    if singular.any():
        bad = int(singular.nonzero()[0])
        raise InputError(f"covariances[{bad}] has the eigenvalue {lowest[bad]:g}: expected positive definite matrices")
