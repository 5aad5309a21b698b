"""A rule evaluated at given points, without a run: its terms, and the Jacobian of the guided score.

A score is a gradient, and so is any fixed linear combination of scores: the guided score of a linear rule has no curl.
A rule whose weights or directions depend on the point may have curl, and is then not the score of any density.
Saddle-free guidance is such a rule: it pushes along an eigenvector, whose direction varies.

A rule's memory is initialised at each point from the same random numbers. SFG's memory is then a random direction, the
same everywhere, and with a fixed direction its push is a gradient too. Settling the memory, by repeating the rule's
update at the points, turns it into the eigenvector there.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from toyguide.fields import score_from_denoised
from toyguide.guidance import Evaluation, Fields, Rule, Scene, Settled

__all__ = ["guided_at", "guided_jacobian"]


@torch.no_grad()
def guided_at(
    rule: Rule,
    fields: Scene | Fields,
    x: Tensor,
    sigma: float,
    seed: int = 0,
    *,
    settle: int = 0,
) -> dict[str, Tensor]:
    """A rule's terms at given points.

    Args:
        rule: The guidance rule; only its ``begin`` and ``guide`` are called, not ``before_step`` or ``after_step``.
        fields: The fields by role, or the scene of a run, whose levels are ignored.
        x: Points, with shape ``(..., d)``.
        sigma: Their noise level, positive.
        seed: The seed of the rule's memory, if it has one.
        settle: The number of updates of the memory at the points before the evaluation.

    Returns:
        The denoised points of ``main`` and of every other role that the rule needs, by role; ``guided``, the guided
        denoised points; and ``push``, their difference from main's. Each has the shape of ``x``.
    """
    points = x.reshape(-1, x.shape[-1])
    scene = replace(fields, levels=(sigma, 0.0)) if isinstance(fields, Scene) else fields
    at = Evaluation(scene, points, sigma)
    _, memory = Settled(rule, settle).begin(at, torch.Generator().manual_seed(seed))
    guided = rule.guide(at, memory).denoised
    others = [n for n, role in rule.evaluates().items() if role.kind not in ("classifier", "adapter") and n != "main"]
    roles = ["main", *others]
    found = {name: at.denoised(name) for name in roles}
    found |= {"guided": guided, "push": guided - found["main"]}
    return {name: value.reshape(x.shape) for name, value in found.items()}


def guided_jacobian(
    rule: Rule,
    fields: Scene | Fields,
    x: Tensor,
    sigma: float,
    seed: int = 0,
    step: float = 1e-4,
    *,
    settle: int = 0,
) -> Tensor:
    """The Jacobian of the guided score ``(D - x) / sigma^2``, by central differences in float64.

    Args:
        rule: The guidance rule.
        fields: The fields by role, on the device of ``x``.
        x: Points, with shape ``(..., d)``.
        sigma: Their noise level, positive.
        seed: The seed of the rule's memory, the same at both points of each difference.
        step: The step of the differences, in units of sigma. Their relative error is about ``step^2``, plus a rounding
            error of about ``1e-16 / step``.
        settle: The number of updates of the memory before each evaluation, at each point of the differences.

    Returns:
        ``J_ij = ds_i / dx_j``, with shape ``(..., d, d)``, float64; see ``toyguide.geometry.curvature.curl``.
    """
    x = x.double()

    def score(points: Tensor) -> Tensor:
        denoised = guided_at(rule, fields, points, sigma, seed, settle=settle)["guided"]
        return score_from_denoised(denoised, points, sigma)

    steps = step * sigma * torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    return torch.stack([(score(x + e) - score(x - e)) / (2 * step * sigma) for e in steps], -1)
