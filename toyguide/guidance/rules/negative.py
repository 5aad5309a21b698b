"""Negative guidance: away from a class that is to be avoided.

    D' = D + lam_x (D - D_n)

with D the main field and D_n that of the class. A constant ``lam_x = lam`` is negative prompting. Dynamic negative
guidance knows better: with ``p = p(n | x)``, the probability that the point belongs to that class,

    lam_x = lam p / (1 - p)

and with lam = 1 this is exactly the field of the main distribution without the class, at every noise level, if it is a
mixture of which the class is a part. Either p is computed from the exact densities, ``p = prior p_n(x) / p_main(x)``,
or it is followed along the path (``running``), since the steps themselves are evidence: after a step from sigma to
sigma', with ``mu = x + (1 - sigma'^2/sigma^2)(D - x)``, mu_n likewise and ``s^2 = sigma'^2 (1 - sigma'^2/sigma^2)``,

    p <- p exp(-T (|x' - mu_n|^2 - |x' - mu|^2) / (2 s^2))

which with T = 1 is Bayes' rule for the ancestral sampler's step, and exact in the limit of many unguided steps. For a
deterministic sampler it is a heuristic: of 1500 samples of the two Gaussians, 75 % avoid one of them with Heun, 91 %
with ancestral steps, and over 99 % with the exact posterior. All values of p are clipped at p_max.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import param
import torch
from torch import Tensor

from toyguide.datasets.roles import Role
from toyguide.guidance.base import Limit, PerTrajectory, Rule
from toyguide.guidance.evaluation import Arrival, Evaluation, Guided, Transition
from toyguide.targets import Target


@dataclass(frozen=True)
class Belief:
    """What is remembered of a step: p, with shape ``(n, 1)``, and D and D_n at its start, with shape ``(n, d)``."""

    p: Tensor
    main: Tensor
    negative: Tensor


class NegativeGuidance(Rule):
    """See the module's docstring. The exact posterior evaluates two densities as well; a network's are not normalised,
    so it is meant for exact fields. The authors' code has an offset inside the exponent, 0 by default, left out here;
    T, p_max and lam are its defaults, and the prior is that of one class of two.
    """

    key = "negative"
    title = "Negative guidance (static and dynamic)"
    short = "Negative guidance"
    formula = (
        r"D = D_\mathrm{main} + \lambda\,\frac{p}{1-p}\,(D_\mathrm{main} - D_\mathrm{negative}), \qquad"
        r" p = p(\mathrm{negative} \mid x)"
    )
    source = "Koulischer et al., Dynamic Negative Guidance of Diffusion Models, 2024, arXiv 2410.14398, and their code"
    summary = (
        "Leads away from a class: with a constant weight (negative prompting), or with one that follows how probable "
        "the class is at each point. On the union's exact field with the exact posterior, lam = 1 samples everything "
        "but that class."
    )
    family = "Several fields"
    needs = ("main", Role("negative", "class", "the field of the class that is avoided"))
    unguided = {"lam": 0.0}
    only_with = {
        "prior": {"posterior": ("running", "exact")},
        "T": {"posterior": ("running",)},
        "p_max": {"posterior": ("running", "exact")},
    }
    off = {"lam": 0.0}
    limits = (Limit({"posterior": "static", "lam": 1.5}, "cfg", {"w": 2.5}, fields={"uncond": "negative"}),)
    batchable = True

    lam = PerTrajectory(1.0, bounds=(0.0, 30.0), softbounds=(0.0, 10.0), step=0.1, doc="Strength λ; 0 is unguided.")
    posterior: Any = param.Selector(
        default="running",
        objects=["static", "running", "exact"],
        doc="The weight: λ itself, or λ p/(1-p) with p followed along the path or computed from exact densities.",
    )
    prior = param.Number(0.5, bounds=(0.001, 0.999), step=0.01, doc="Share of the class in the main field.")
    T = param.Number(
        1.0, bounds=(0.0, 30.0), softbounds=(0.0, 5.0), step=0.1, doc="How fast the running p follows the path."
    )
    p_max = param.Number(0.99, bounds=(0.001, 0.999999), step=0.01, doc="Greatest p.")

    def target(self) -> Target | None:
        if self.posterior != "static":
            return None  # a mixture without one of its classes is no product of powers
        return Target({"main": 1 + self.lam, "negative": -self.lam})

    def begin(self, at: Evaluation, generator: torch.Generator) -> tuple[Tensor, Belief]:
        p = at.x.new_full((len(at.x), 1), min(self.prior, self.p_max))
        return at.x, Belief(p, at.x, at.x)

    def guide(self, at: Evaluation, memory: Belief) -> Guided:
        main, negative = at.denoised_each("main", "negative")
        p = memory.p
        if self.posterior == "exact":
            ratio = at.log_density("negative") - at.log_density("main")
            p = (self.prior * ratio.exp()).clamp(max=self.p_max)[:, None]
        weight = self.lam if self.posterior == "static" else self.lam * p / (1 - p)
        trace = {} if self.posterior == "static" else {"posterior": p[:, 0]}
        return Guided(main + weight * (main - negative), memory=Belief(p, main, negative), trace=trace)

    def after_step(self, step: Transition, memory: Belief, generator: torch.Generator) -> Arrival:
        if self.posterior != "running" or step.sigma_next == 0:
            return Arrival(step.x_next)
        share = 1 - (step.sigma_next / step.sigma) ** 2
        mu, mu_n = (step.x + share * (denoised - step.x) for denoised in (memory.main, memory.negative))
        near, near_n = ((step.x_next - m).square().sum(-1, keepdim=True) for m in (mu, mu_n))
        evidence = -self.T * (near_n - near) / (2 * step.sigma_next**2 * share)
        p = (memory.p.log() + evidence).clamp(max=0).exp().clamp(1e-12, self.p_max)
        return Arrival(step.x_next, Belief(p, memory.main, memory.negative))
