"""Curvature of a log-density: the eigenpairs of its Hessian, and the divergence and the curl of a vector field.

A positive top eigenvalue means that the log-density curves upward along its eigenvector: a saddle between modes. For
a symmetric ``[[a, b], [b, c]]`` with the half difference ``e = (a - c) / 2``,

    lambda = (a + c) / 2 ± sqrt(e^2 + b^2),    v = (cos t, sin t) and (-sin t, cos t),    t = atan2(b, e) / 2

which needs no special case for nearly equal eigenvalues. The sign of an eigenvector is arbitrary: :func:`align` chooses
it by a reference, :func:`align_path` and :func:`align_grid` so that neighbours agree.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["align", "align_grid", "align_path", "curl", "divergence", "eigenpairs", "top_eigenpair"]


def eigenpairs(hessian: Tensor) -> tuple[Tensor, Tensor]:
    """The eigenvalues and unit eigenvectors of symmetric matrices; the sign of each eigenvector is arbitrary.

    Args:
        hessian: Symmetric matrices, with shape ``(..., d, d)``.

    Returns:
        The eigenvalues in falling order, with shape ``(..., d)``, and the eigenvectors in that order, as rows, with
        shape ``(..., d, d)``; NaN for each matrix with an entry that is not finite.
    """
    finite = hessian.isfinite().all(-1).all(-1)
    safe = hessian.where(finite[..., None, None], 0.0)
    if hessian.shape[-1] == 2:
        a, b, c = safe[..., 0, 0], (safe[..., 0, 1] + safe[..., 1, 0]) / 2, safe[..., 1, 1]
        half = (a - c) / 2
        middle, spread = (a + c) / 2, torch.hypot(half, b)
        angle = torch.atan2(b, half) / 2
        cos, sin = angle.cos(), angle.sin()
        values = torch.stack([middle + spread, middle - spread], -1)
        vectors = torch.stack([cos, sin, -sin, cos], -1).unflatten(-1, (2, 2))
    else:
        rising, columns = torch.linalg.eigh(safe)
        values, vectors = rising.flip(-1), columns.mT.flip(-2)
    return values.where(finite[..., None], torch.nan), vectors.where(finite[..., None, None], torch.nan)


def top_eigenpair(hessian: Tensor) -> tuple[Tensor, Tensor]:
    """The largest eigenvalue of symmetric matrices, with shape ``(...)``, and its eigenvector, with shape ``(..., d)``.

    The first of the :func:`eigenpairs`.
    """
    values, vectors = eigenpairs(hessian)
    return values[..., 0], vectors[..., 0, :]


def align(vectors: Tensor, reference: Tensor) -> Tensor:
    """Flips vectors whose inner product with a reference is negative.

    Args:
        vectors: With shape ``(..., d)``.
        reference: One direction for all vectors or one for each; broadcasts to ``vectors``.
    """
    return vectors.where((vectors * reference).sum(-1, keepdim=True) >= 0, -vectors)


def align_path(vectors: Tensor) -> Tensor:
    """Flips vectors along paths so that each agrees in sign with its predecessor; the first of each path is kept.

    Args:
        vectors: With shape ``(steps, ..., d)``.
    """
    turned = (vectors[1:] * vectors[:-1]).sum(-1, keepdim=True) < 0
    odd = torch.cat([torch.zeros_like(vectors[:1, ..., :1]), turned.cumsum(0) % 2]) == 1
    return vectors.where(~odd, -vectors)


def align_grid(vectors: Tensor) -> Tensor:
    """Flips vectors on a grid so that neighbours agree in sign; the first is kept.

    Signs are propagated along the maximum spanning tree of the grid, whose edges have the weight ``|cos|``, so the most
    nearly parallel neighbours are joined first. If signs exist for which all neighbours agree, they are found. Around a
    point where two eigenvalues are equal an eigenvector makes half a turn: every choice of signs then has a seam, which
    ends there.

    Args:
        vectors: With shape ``(rows, columns, d)``; a vector that is not finite keeps its sign.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

    flat = vectors.reshape(-1, vectors.shape[-1])
    index = torch.arange(len(flat), device=vectors.device).reshape(vectors.shape[:2])
    a = torch.cat([index[1:].flatten(), index[:, 1:].flatten()])
    b = torch.cat([index[:-1].flatten(), index[:, :-1].flatten()])
    if not len(a):
        return vectors
    cosine = torch.nan_to_num(torch.nn.functional.cosine_similarity(flat[a], flat[b], dim=-1), nan=0.0)
    weight = (2 - cosine.abs()).double().cpu()  # SciPy treats an edge of weight 0 as absent
    graph = coo_array((weight.numpy(), (a.cpu().numpy(), b.cpu().numpy())), shape=(len(flat), len(flat)))
    _, parent = breadth_first_order(minimum_spanning_tree(graph), 0, directed=False)

    up = torch.as_tensor(parent, dtype=torch.long, device=vectors.device)
    up[0] = 0
    turned = (flat * flat[up]).sum(-1) < 0
    for _ in range(len(flat).bit_length()):  # pointer jumping: each pass halves the paths to the first vector
        turned, up = turned ^ turned[up], up[up]
    return torch.where(turned[:, None], -flat, flat).reshape(vectors.shape)


def divergence(jacobian: Tensor) -> Tensor:
    """The trace of a vector field's Jacobian, with shape ``(...)``; of a score, the Laplacian of the log-density."""
    return jacobian.diagonal(dim1=-2, dim2=-1).sum(-1)


def curl(jacobian: Tensor) -> Tensor:
    """How far a vector field is from being a gradient, from its Jacobian ``J_ij = df_i / dx_j``.

    In two dimensions the signed curl ``df_2/dx_1 - df_1/dx_2``. In others the Frobenius norm of the antisymmetric part
    ``(J - J') / 2``, which in two would be ``|curl| / sqrt(2)``.

    Args:
        jacobian: With shape ``(..., d, d)``.

    Returns:
        With shape ``(...)``; zero everywhere for a score.
    """
    if jacobian.shape[-1] == 2:
        return jacobian[..., 1, 0] - jacobian[..., 0, 1]
    return torch.linalg.matrix_norm((jacobian - jacobian.mT) / 2)
