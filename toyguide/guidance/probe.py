"""What a rule does at given points, without a run: its terms, and the Jacobian of the guided score.

A score is a gradient, and so is any fixed combination of scores: a linear rule's guided score has no curl. A rule whose
weights or directions change from point to point has one, and then it is the score of no density at all. Saddle-free
guidance is such a rule: its push is along an eigenvector, which turns.

A rule with a memory starts it anew at each point, from the same random numbers. SFG's memory, a direction, is then
still a random one, the same everywhere, and along a fixed direction its push is a gradient too. Letting it settle, by
repeating the rule's update where the points are, makes it the eigenvector there.
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
    """A rule's terms at points.

    Args:
        rule: The guidance rule; only what it does with the fields at a point (its ``guide``) is looked at, not what it
            does before or after a step.
        fields: The fields by role, or the scene of a run, whose levels are not looked at.
        x: Points, with shape ``(..., d)``.
        sigma: Their noise level, positive.
        seed: Of the rule's memory, if it has one.
        settle: How often to update the memory at the points first.

    Returns:
        The denoised points of ``main`` and of every other role that the rule needs, by role; ``guided``, the guided
        denoised points; and ``push``, what the rule added to main's. Each with the shape of ``x``.
    """
    points = x.reshape(-1, x.shape[-1])
    scene = replace(fields, levels=(sigma, 0.0)) if isinstance(fields, Scene) else fields
    at = Evaluation(scene, points, sigma)
    _, memory = Settled(rule, settle).begin(at, torch.Generator().manual_seed(seed))
    guided = rule.guide(at, memory).denoised
    roles = ["main", *(name for name, role in rule.roles().items() if role.kind != "classifier" and name != "main")]
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
        seed: Of the rule's memory, the same on both sides of each difference.
        step: Of the differences, in units of sigma. They are off by about its square, relatively, and by rounding,
            1e-16 over it.
        settle: How often to update the memory first, anew at every point of the differences.

    Returns:
        ``J_ij = ds_i / dx_j``, with shape ``(..., d, d)``, float64; see ``toyguide.geometry.curvature.curl``.
    """
    x = x.double()

    def score(points: Tensor) -> Tensor:
        denoised = guided_at(rule, fields, points, sigma, seed, settle=settle)["guided"]
        return score_from_denoised(denoised, points, sigma)

    steps = step * sigma * torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    return torch.stack([(score(x + e) - score(x - e)) / (2 * step * sigma) for e in steps], -1)
