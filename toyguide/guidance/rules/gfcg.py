"""Gradient-free classifier guidance (GFCG): away from the class that a classifier confuses with the chosen one.

At some steps the classifier gives the probabilities p of the classes, at the denoised points. Where the chosen class c
has ``p_c >= threshold`` nothing is done until the classifier is asked again. Elsewhere

    D = D_main + (omega - 1)(D_main - D_guide(x; c_ref)),    omega = 1 + alpha (1 - p_c)^beta

with the reference class c_ref: the most probable of the others (``deterministic``), or one drawn with the probabilities
``p_i / (1 - p_c)`` (``stochastic``). D_guide is a model that can be evaluated at every class: main's own, or a weaker
one, which is the paper's combination with autoguidance.

Before the step that ``t_s`` names nothing guides; the paper also mixes in another rule there, which is left out.

What the paper says of omega, of c_ref and of its Eq. 7, from which a stochastic one is drawn, could not be read: the
three formulas here are guesses, with its symbols. For two classes and exact fields ``D_main - D_uncond`` is
``p_other (D_main - D_other)``, so that omega is classifier-free guidance with ``w - 1 = (omega - 1) / p_other``; with
beta = 1, a posterior of the noisy points and no threshold that is w = 1 + alpha.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import param
import torch
from torch import Tensor

from toyguide.datasets.roles import Role
from toyguide.errors import InputError
from toyguide.guidance.base import PerTrajectory, Rule
from toyguide.guidance.evaluation import Evaluation, Guided
from toyguide.guidance.rules.elucd import CLEAN


@dataclass(frozen=True)
class Confusion:
    """What holds until the classifier is asked again.

    Attributes:
        push: ``omega - 1``, with shape ``(n, 1)``; 0 for confident points.
        reference: The place of c_ref among the classifier's classes, with shape ``(n,)``, int64.
        drawn: Uniform random numbers, one for each step, with shape ``(n, steps)``; they pick stochastic references.
    """

    push: Tensor
    reference: Tensor
    drawn: Tensor


class GradientFreeClassifierGuidance(Rule):
    """See the module's docstring.

    A step evaluates ``main``, at confused points also ``guide``, and the classifier when it is asked.
    """

    key = "gfcg"
    title = "Gradient-free classifier guidance (reconstruction)"
    short = "GFCG"
    family = "Classifiers"
    formula = (
        r"D = D_\mathrm{main} + (\omega-1)\,(D_\mathrm{main} - D_\mathrm{guide}(x; c_\mathrm{ref})), \quad"
        r" \omega = \begin{cases} 1 & p_c \ge \tau \\ 1 + \alpha\,(1 - p_c)^\beta & p_c < \tau \end{cases}"
    )
    source = (
        "Shenoy et al., Gradient-Free Classifier Guidance for Diffusion Model Sampling, 2024, arXiv 2411.15393; "
        "read in a review, which omits omega, the reference class and Eq. 7: ours"
    )
    summary = (
        "Asks a classifier about the denoised points, and pushes those that it finds doubtful away from the class that "
        "they are taken for; confident points are left alone. For few errors of class at unchanged coverage. "
        "threshold = 0 is unguided. Choose a weaker model as the guide to combine it with autoguidance."
    )
    needs = (
        "main",
        "classifier",
        Role("guide", "classes", "the model evaluated at the confused class: main's own, or a weaker one"),
    )
    unguided = {"threshold": 0.0}
    off = {"alpha": 0.0, "threshold": 0.0}

    alpha = PerTrajectory(
        2.0, bounds=(0.0, 30.0), softbounds=(0.0, 10.0), step=0.1, doc="Greatest strength, ω - 1 at p = 0 (α)."
    )
    beta = PerTrajectory(
        1.0, bounds=(0.0, 10.0), softbounds=(0.0, 4.0), step=0.1, doc="How fast it falls with certainty (β)."
    )
    threshold = PerTrajectory(
        0.9, bounds=(0.0, 1.0), step=0.01, doc="Points whose class is this probable are left alone (τ)."
    )
    t_s = param.Number(
        1.0, bounds=(0.0, 1.0), step=0.05, doc="Share of the steps, the last ones, in which it guides; 1 is all."
    )
    s_cp = param.Integer(1, bounds=(1, 1000), softbounds=(1, 16), doc="Ask the classifier once in so many steps.")
    reference: Any = param.Selector(
        default="deterministic",
        objects=["deterministic", "stochastic"],
        doc="The reference class: the most probable other one, or drawn by probability.",
    )
    point: Any = param.Selector(
        default="denoised",
        objects=["denoised", "noisy"],
        doc="Where the classifier is asked: as one of clean points at the denoised ones, or at the noisy points.",
    )

    def begin(self, at: Evaluation, generator: torch.Generator) -> tuple[Tensor, Confusion]:
        if at.label is None:
            raise InputError("label: this rule guides to a class, expected a run of one class")
        n, steps = len(at.x), len(at.levels) - 1
        drawn = torch.rand(n, steps, generator=generator, dtype=torch.float64).to(at.x)
        return at.x, Confusion(at.x.new_zeros(n, 1), at.x.new_zeros(n, dtype=torch.int64), drawn)

    def guide(self, at: Evaluation, memory: Confusion) -> Guided:
        main, steps = at.denoised(), len(at.levels) - 1
        began = math.ceil((1 - self.t_s) * steps)
        if at.is_first and at.index >= began and (at.index - began) % self.s_cp == 0:
            memory = self.asked(at, memory)
        return Guided(main + memory.push * self.away(at, main, memory), memory=memory)

    def asked(self, at: Evaluation, memory: Confusion) -> Confusion:
        """The memory after the classifier has been asked."""
        p = (at if self.point == "noisy" else at.moved(at.denoised(), CLEAN)).posterior()
        chosen = at.classes().index(str(at.label))
        own = p[:, [chosen]]
        others = p.clone()
        others[:, chosen] = -1.0  # below all, also where every other probability is 0
        reference = others.argmax(-1)
        if self.reference == "stochastic":
            share = others.clamp(min=0.0).cumsum(-1)
            height = memory.drawn[:, [at.index]] * share[:, -1:]
            # Right of the height, so that the chosen class, of no width, is never drawn.
            drawn = torch.searchsorted(share, height, right=True)[:, 0]
            reference = torch.where(drawn < p.shape[-1], drawn, reference)
        push = torch.where(own < self.threshold, self.alpha * (1 - own) ** self.beta, 0.0)
        return Confusion(push, reference, memory.drawn)

    def away(self, at: Evaluation, main: Tensor, memory: Confusion) -> Tensor:
        """``D_main - D_guide(x; c_ref)`` at the confused points, 0 elsewhere, with shape ``(n, d)``."""
        found, confused = torch.zeros_like(main), memory.push[:, 0] != 0
        for place, label in enumerate(at.classes()):
            where = confused & (memory.reference == place)
            if bool(where.any()):
                guide = at.denoised_as(label, "guide", where=where)
                found = torch.where(where[:, None], main - guide, found)
        return found
