"""Angle-domain guidance: the conditional denoised point is turned further away from the unconditional one.

Both are seen as arrows from the origin, at the angle theta to each other:

    theta_w = clip((w - 1) theta, -pi/3, pi/3)
    e       = D_main without its part along D_uncond,   |e| = |D_main| sin theta
    D       = cos(theta_w) D_main + (sin(theta_w) / sin(theta)) e

The lengths of far extrapolations stay bounded: ``|D|^2 = |D_main|^2 (1 + sin(2 theta_w) sin(theta))``. It is not an
exact rotation, because e is not perpendicular to D_main. The authors' code adds 0.001 to ``w - 1``, which is left out
here, so that w = 1 is unguided.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from toyguide.guidance.base import PerTrajectory, Rule
from toyguide.guidance.evaluation import Evaluation, Guided


class AngleDomainGuidance(Rule):
    """See the module's docstring; works on the denoised points, and depends on where the origin is."""

    key = "adg"
    title = "Angle-domain guidance"
    short = "ADG"
    formula = (
        r"D = \cos\theta_w\, D_\mathrm{main} + \frac{\sin\theta_w}{\sin\theta}\, e, \quad"
        r" e = D_\mathrm{main} - \frac{D_\mathrm{main} \cdot D_\mathrm{uncond}}{\lVert D_\mathrm{uncond} \rVert^2}"
        r"\, D_\mathrm{uncond}, \quad \theta_w = \mathrm{clip}\bigl((w-1)\,\theta, \pm\tfrac{\pi}{3}\bigr)"
    )
    source = "Jin et al., Angle Domain Guidance, 2025, arXiv 2506.11039, and the authors' code"
    summary = (
        "Turns the denoised point away from the unconditional one instead of moving it: its distance to the origin "
        "grows by at most 42 %, whatever w. Made for data of nearly constant norm, such as latents of images; on "
        "points in the plane it depends on where the origin is."
    )
    family = "Several fields"
    needs = ("main", "uncond")
    unguided = {"w": 1.0}
    off = {"w": 1.0}
    equivariant = ("rotation",)
    batchable = True

    w = PerTrajectory(
        4.0, bounds=(0.0, 30.0), softbounds=(0.0, 10.0), step=0.1, doc="Factor of the angle, plus 1; 1 is unguided."
    )

    def guide(self, at: Evaluation, memory: Any) -> Guided:
        main, uncond = at.denoised_each("main", "uncond")
        along = torch.nn.functional.normalize(uncond, dim=-1)
        part = (main * along).sum(-1, keepdim=True)
        away = main - part * along
        length = away.norm(dim=-1, keepdim=True)
        turn = ((self.w - 1) * torch.atan2(length, part)).clamp(-math.pi / 3, math.pi / 3)
        # |e| / sin(theta) is the length of D_main, which divides by no sine that may be 0.
        aside = torch.nn.functional.normalize(away, dim=-1) * main.norm(dim=-1, keepdim=True)
        return Guided(turn.cos() * main + turn.sin() * aside, trace={"turn": turn[:, 0]})
