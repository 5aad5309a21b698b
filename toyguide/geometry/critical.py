"""Critical points of a log-density, where its score is zero: modes, saddles and minima, and how they merge.

The index of a critical point is the number of positive eigenvalues of the Hessian, the directions in which the
log-density curves upward: 0 at a mode, d at a minimum, in between at a saddle. In two dimensions, where the log-density
falls in all directions far away, modes - saddles + minima = 1 (the Euler characteristic of the plane), which checks
that none was missed.

The search starts from many points. Eigenvector following goes downhill along the top k eigenvectors and uphill along
the others, which leads to modes (k = 0), saddles of index 1 (k = 1), and so on; it moves all points at once, with steps
``|J|^-1 s`` of bounded length. Near a critical point SciPy's ``root`` (MINPACK's hybrid method by Powell) solves
``s(x) = 0`` in float64 with the Hessian as the Jacobian. The search is then repeated once from the points found: uphill
from both sides of each saddle to the adjacent modes, and from each mode along its direction of least curvature to the
adjacent saddles. All lengths are in units of sigma or of a point's own width ``1/sqrt|lambda|``, so no constant here
depends on the data's scale.

References:
    Cerjan and Miller, On finding transition states, J. Chem. Phys. 75, 1981 (eigenvector following).
    Powell, A hybrid method for nonlinear equations, 1970.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from toyguide.datasets import Dataset
from toyguide.errors import InputError
from toyguide.fields import Field
from toyguide.geometry.curvature import eigenpairs

__all__ = ["CriticalPoints", "critical_points", "follow", "merging_sigma", "starting_points"]

_CONVERGED = 1e-8  # largest |sigma s| of a critical point; far above float64's rounding error on any dataset
_CLOSE, _SETTLED = 0.1, 1e-3  # |sigma s| below which the solver starts, and below which eigenvector following stops
_STEPS, _LONGEST = 30, 1.0  # number of steps of eigenvector following, and the longest, in units of sigma
_SAME = 1e-3  # units of sigma; points closer than this are the same
_FROM_SADDLE, _FROM_MODE = 0.3, 3.0  # distance, in widths, from which the second search starts
_LONGEST_WIDTH = 10.0  # units of sigma


@dataclass(frozen=True, eq=False)
class CriticalPoints:
    """Critical points, sorted by rising index, then by falling density; all float64 on the CPU.

    Attributes:
        x: The points, with shape ``(m, d)``.
        index: The number of directions in which the log-density curves upward, 0 at a mode and d at a minimum, with
            shape ``(m,)``, integers.
        log_density: With shape ``(m,)``; a learned field's is unnormalised.
        eigenvalues: The Hessian's eigenvalues in falling order, with shape ``(m, d)``.
        eigenvectors: The eigenvectors as rows, in the order of the eigenvalues, with shape ``(m, d, d)``.
    """

    x: Tensor
    index: Tensor
    log_density: Tensor
    eigenvalues: Tensor
    eigenvectors: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def count(self, index: int) -> int:
        """The number of points with an index."""
        return int((self.index == index).sum())


def critical_points(field: Field, sigma: float, starts: Tensor, *, separation: float | None = None) -> CriticalPoints:
    """Finds critical points of a field's log-density, by a search from many starting points.

    The result may be incomplete: more starting points find more. On the fractal's union 150 find all 13 at sigma 0.1,
    32 of 35 at 0.05 and 165 of 221 at 0.02. In more than two dimensions the search is for modes, saddles of index 1 and
    2, and minima; others are found only if a starting point is close.

    Args:
        field: An exact or a learned field.
        sigma: The noise level, positive.
        starts: The starting points, with shape ``(n, d)``; see :func:`starting_points`.
        separation: Points closer to each other than this count as one; by default a thousandth of sigma.

    Raises:
        InputError: If sigma is not positive or the starting points do not fit the field.
    """
    if not 0 < sigma < math.inf:
        raise InputError(f"sigma = {sigma!r}: expected a positive number")
    if starts.ndim != 2 or starts.shape[1] != field.dim:
        raise InputError(f"starts of shape {tuple(starts.shape)}: expected (n, {field.dim})")
    starts = starts.detach().to("cpu", torch.float64)
    separation = _SAME * sigma if separation is None else separation
    with torch.no_grad():
        indices = [k for k in sorted({0, 1, 2, field.dim}) if k <= field.dim]
        near = [_follow_eigenvectors(field, sigma, starts, k) for k in indices]
        found = _solve(field, sigma, torch.cat([*near, starts]), separation)
        up = _follow_eigenvectors(field, sigma, _displaced(found, sigma, 1, _FROM_SADDLE), 0)
        out = _follow_eigenvectors(field, sigma, _displaced(found, sigma, 0, _FROM_MODE), 1)
        return _solve(field, sigma, torch.cat([found.x, up, out]), separation)


def starting_points(data: Dataset, label: str | None, sigma: float, n: int, seed: int = 0) -> Tensor:
    """Starting points for :func:`critical_points`: means, midpoints and exact samples.

    Args:
        data: The dataset.
        label: The class; None for the union.
        sigma: The noise level.
        n: The least number of points. The means of the union and of the classes and the midpoints of every two of them
            are always included, then come the means of the heaviest branches, then at least one sample at sigma.
        seed: The seed of the samples.

    Returns:
        With shape ``(n or more, d)``, float64.
    """
    labels = data.labels if label is None else (label,)
    means = [data.field(name).mean for name in labels]
    middles = [(a + b) / 2 for a, b in itertools.combinations(means, 2)]
    centre = data.field(label).mean
    first = torch.stack([centre, *means, *middles, *((centre + mean) / 2 for mean in means)])

    branch = data.components.component_branch
    names, component = branch[data.mask(label)].unique(return_inverse=True)
    field = data.field(label)
    share = torch.zeros(len(names), dtype=torch.float64).index_add_(0, component, field.weights)
    moment = torch.zeros(len(names), data.dim, dtype=torch.float64)
    moment.index_add_(0, component, field.weights[:, None] * field.means)
    heaviest = share.argsort(descending=True, stable=True)[: max(0, n - len(first)) // 2]
    first = torch.cat([first, (moment / share[:, None])[heaviest]])

    samples = field.sample(max(1, n - len(first)), sigma, torch.Generator().manual_seed(seed))
    return torch.cat([first, samples])


def follow(field: Field, sigmas: Sequence[float], starts: Tensor) -> list[CriticalPoints]:
    """Tracks how critical points appear and merge from one noise level to the next.

    Args:
        field: An exact or a learned field.
        sigmas: The noise levels, rising or falling; at each, the search starts from ``starts`` and from the points of
            the previous level.
        starts: The starting points, with shape ``(n, d)``.

    Returns:
        The critical points at each noise level.
    """
    found: list[CriticalPoints] = []
    for sigma in sigmas:
        before = found[-1].x if found else starts.new_zeros(0, field.dim)
        found.append(critical_points(field, sigma, torch.cat([before.to(starts), starts])))
    return found


def merging_sigma(field: Field, low: float, high: float, starts: Tensor) -> float:
    """The noise level at which the number of modes changes, by bisection (SciPy's).

    If the number changes more than once between the two levels, the result is one place where it starts or stops being
    that at ``low``. Modes closer than a thousandth of sigma count as one, which shifts the result by about a millionth.

    Args:
        field: An exact or a learned field.
        low: The lower noise level.
        high: The upper noise level.
        starts: The starting points, with shape ``(n, d)``.

    Raises:
        InputError: If the number of modes is the same at both ends.
    """
    from scipy.optimize import bisect

    def modes(sigma: float) -> int:
        return critical_points(field, sigma, starts).count(0)

    before, after = modes(low), modes(high)
    if before == after:
        raise InputError(f"sigma from {low!r} to {high!r}: as many modes at both ends ({before}), expected a change")
    return float(bisect(lambda sigma: 1.0 if modes(sigma) == before else -1.0, low, high, xtol=1e-6 * high))


def _slope(field: Field, sigma: float, x: Tensor) -> Tensor:
    """``|sigma s|``, with shape (n,)."""
    return (sigma * field.score(x, sigma)).norm(dim=-1)


def _follow_eigenvectors(field: Field, sigma: float, x: Tensor, k: int) -> Tensor:
    """Eigenvector following from x (n, d): downhill along the top k eigenvectors, uphill along the others."""
    sign = torch.ones(field.dim, dtype=x.dtype)
    sign[:k] = -1
    x, moving = x.clone(), torch.arange(len(x))
    for _ in range(_STEPS):
        here = x[moving]
        score = sigma * field.score(here, sigma)
        unsettled = score.norm(dim=-1) > _SETTLED
        here, score, moving = here[unsettled], score[unsettled], moving[unsettled]
        values, vectors = eigenpairs(sigma**2 * field.hessian(here, sigma))
        step = sign * (vectors @ score[..., None])[..., 0] / values.abs().clamp(min=_SAME)
        step = step * (_LONGEST / step.norm(dim=-1, keepdim=True)).clamp(max=1)
        x[moving] = here + sigma * (step[:, None] @ vectors)[:, 0]
    return x


def _displaced(points: CriticalPoints, sigma: float, index: int, widths: float) -> Tensor:
    """Points on both sides of those of one index, a number of widths away along their top eigenvectors."""
    of = points.index == index
    width = points.eigenvalues[of, :1].abs().clamp(min=(_LONGEST_WIDTH * sigma) ** -2).rsqrt()
    step = widths * width * points.eigenvectors[of, 0]
    return torch.cat([points.x[of] + step, points.x[of] - step])


def _solve(field: Field, sigma: float, x: Tensor, separation: float) -> CriticalPoints:
    """The critical points that SciPy's solver finds, starting from the points of x (n, d) that are close to one."""
    from scipy.optimize import root

    def score(y: np.ndarray) -> np.ndarray:
        return (sigma * field.score(sigma * torch.from_numpy(y)[None], sigma))[0].numpy()

    def jacobian(y: np.ndarray) -> np.ndarray:
        return (sigma**2 * field.hessian(sigma * torch.from_numpy(y)[None], sigma))[0].numpy()

    close = _distinct(x[_slope(field, sigma, x) < _CLOSE], 10 * _SAME * sigma)
    ends = [torch.from_numpy(root(score, y, jac=jacobian, method="hybr").x) for y in (close / sigma).numpy()]
    x = sigma * torch.stack(ends) if ends else close
    slope = _slope(field, sigma, x)
    best = slope.argsort()  # of several copies of one point, keep the most accurate
    x = _distinct(x[best][slope[best] < _CONVERGED], separation)

    values, vectors = eigenpairs(field.hessian(x, sigma))
    index, log_density = (values > 0).sum(-1), field.log_density(x, sigma)
    order = log_density.argsort(descending=True)
    order = order[index[order].argsort(stable=True)]
    return CriticalPoints(x[order], index[order], log_density[order], values[order], vectors[order])


def _distinct(x: Tensor, separation: float) -> Tensor:
    """Drops points within ``separation`` of an earlier one that was kept."""
    near = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist") < separation
    stays = torch.ones(len(x), dtype=torch.bool)
    for i in range(len(x)):
        if stays[i]:
            stays[i + 1 :] &= ~near[i, i + 1 :]
    return x[stays]
