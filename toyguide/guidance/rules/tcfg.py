"""Tangential damping CFG: CFG from the part of the unconditional noise that lies along both fields' main direction.

    u = the top right singular vector of the matrix with the rows eps_main and eps_uncond
    eps_kept = <eps_uncond, u> u
    eps = eps_main + (w - 1)(eps_main - eps_kept)

The rule lives in the predicted noises; in scores it is the same. The singular vector is found from the 2 x 2 matrix of
the rows' inner products, whose top eigenvector has a closed form. In the plane the rule removes one of the two
dimensions of eps_uncond, so it says less there than in an image space.
"""

from __future__ import annotations

from typing import Any

import torch

from toyguide.guidance.base import Limit, PerTrajectory, Rule
from toyguide.guidance.evaluation import Evaluation, Guided


class TangentialDampingCfg(Rule):
    """See the module's docstring. Weight 0 is the kept part of the unconditional field."""

    key = "tcfg"
    title = "Tangential damping CFG"
    short = "TCFG"
    formula = (
        r"\epsilon = \epsilon_\mathrm{main} + (w-1)\,(\epsilon_\mathrm{main} - \langle \epsilon_\mathrm{uncond}, u"
        r" \rangle u), \quad u \text{ the top right singular vector of }"
        r" \begin{pmatrix} \epsilon_\mathrm{main} \\ \epsilon_\mathrm{uncond} \end{pmatrix}"
    )
    source = "Kwon et al., TCFG, 2025, arXiv 2503.18137; as in the diffusers library"
    summary = (
        "CFG that first projects the unconditional noise onto the direction that both predictions share most. Where "
        "they are parallel it is CFG; elsewhere it does not push against what only the unconditional field predicts."
    )
    family = "Several fields"
    needs = ("main", "uncond")
    unguided = {"w": 1.0}
    limits = (Limit({}, "none", fields={"uncond": "main"}),)
    batchable = True

    w = PerTrajectory(4.0, bounds=(0.0, 30.0), softbounds=(0.0, 10.0), step=0.1, doc="Guidance weight; 1 is unguided.")

    def guide(self, at: Evaluation, memory: Any) -> Guided:
        denoised, _ = at.denoised_each("main", "uncond")
        main, uncond = at.eps("main"), at.eps("uncond")
        angle = 0.5 * torch.atan2(2 * (main * uncond).sum(-1), main.square().sum(-1) - uncond.square().sum(-1))[:, None]
        top = angle.cos() * main + angle.sin() * uncond
        shared = (uncond * top).sum(-1, keepdim=True) / top.square().sum(-1, keepdim=True).clamp_min(1e-30) * top
        return Guided(denoised - at.sigma * (self.w - 1) * (main - shared))
