"""Composition of two classes: both (AND), one without the other (NOT), either (OR).

    AND   D = D_uncond + w (D_main - D_uncond) + w_other (D_other - D_uncond)
    NOT   D = D_uncond + w (D_main - D_uncond) - w_other (D_other - D_uncond)
    OR    D = kappa D_main + (1 - kappa) D_other,    kappa = w p_main / (w p_main + w_other p_other)     at (x; sigma)

AND and NOT are the scores of ``p_u^(1 - w -+ w_other) p_main^w p_other^(+-w_other)`` with each factor noised by itself,
which is not the product noised: a solver alone does not sample the product. Langevin steps at each level, after the
solver's, correct that. Where they are many, the points follow the family of products down to the one at sigma = 0.

    x <- x + (h sigma)^2 / 2 s(x) + h sigma z  =  x + h^2 / 2 (D(x) - x) + h sigma z,    h = 0.3, K times

OR with exact densities is the exact score of the noised mixture of both with the weights w and w_other, which needs no
correction. SuperDiff's is that of equal weights. A network's density is known up to a factor only, and so is its kappa.
"""

from __future__ import annotations

from typing import Any

import param
import torch
from torch import Tensor

from toyguide.datasets.roles import Role
from toyguide.guidance.base import Limit, PerTrajectory, Rule
from toyguide.guidance.evaluation import Arrival, Evaluation, Guided, Transition
from toyguide.targets import Target

H = 0.3
"""The length of a Langevin step, in units of sigma: it leaves a Gaussian's variance 2 % too large at high noise."""


class Compose(Rule):
    """See the module's docstring; evaluates ``main``, ``other``, and ``uncond`` or both densities, K + 1 times a step.

    Liu et al. write NOT as ``D_uncond + w (D_main - D_other)``: the same at w_other = w.
    """

    key = "compose"
    title = "Composition of two classes"
    short = "Composition"
    family = "Several fields"
    formula = (
        r"\text{and, not: } D = D_\mathrm{uncond} + w\,(D_\mathrm{main} - D_\mathrm{uncond})"
        r" \pm w_\mathrm{other}\,(D_\mathrm{other} - D_\mathrm{uncond}); \quad"
        r"\text{or: } D = \kappa D_\mathrm{main} + (1-\kappa) D_\mathrm{other}, \;"
        r" \kappa = \frac{w\,p_\mathrm{main}}{w\,p_\mathrm{main} + w_\mathrm{other}\,p_\mathrm{other}}"
    )
    source = (
        "Liu et al., 2022, arXiv 2206.01714 (and, not); Skreta et al., 2024, arXiv 2412.17762 (or); "
        "Du et al., 2023, arXiv 2302.11552 (Langevin steps)"
    )
    summary = (
        "Samples what two classes have in common, what one has without the other, or either of them. For exact "
        "densities, or is the mixture of both. The other two need Langevin steps (K) to sample the product that they "
        "name, and not leads off the data where the other class falls faster than main. w = 1 with w_other = 0 is "
        "unguided."
    )
    needs = ("main", Role("other", "class", "the class that is joined or avoided"), "uncond")
    unguided = {"w": 1.0, "w_other": 0.0}
    off = {"w_other": 0.0, "K": 0}
    limits = (
        Limit({"w_other": 0.0}, "cfg", same=("w",)),
        Limit({"operation": "not", "w_other": 0.0}, "cfg", same=("w",)),
        Limit({"operation": "and", "w_other": 2.0}, "cfg", same=("w",), fields={"other": "uncond"}),
        Limit({"operation": "or", "w_other": 0.0}, "none"),
        Limit({"operation": "or", "w_other": 2.0}, "none", fields={"other": "main"}),
    )
    batchable = True

    operation: Any = param.Selector(
        default="and", objects=["and", "not", "or"], doc="Both classes, main without the other, or either."
    )
    w = PerTrajectory(1.0, bounds=(0.0, 30.0), softbounds=(0.0, 5.0), step=0.1, doc="Weight of main.")
    w_other = PerTrajectory(1.0, bounds=(0.0, 30.0), softbounds=(0.0, 5.0), step=0.1, doc="Weight of the other class.")
    K = param.Integer(0, bounds=(0, 100), softbounds=(0, 10), doc="Langevin steps after each solver step; 0 is none.")

    def target(self) -> Target | None:
        """The product of powers; none for a mixture, which is no such product."""
        if self.operation == "or":
            return None
        other = self.w_other if self.operation == "and" else -self.w_other
        return Target({"main": self.w, "other": other, "uncond": 1 - self.w - other})

    def evaluates(self) -> dict[str, Role]:
        return {name: role for name, role in self.roles().items() if self.operation != "or" or name != "uncond"}

    def begin(self, at: Evaluation, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """The memory is the Langevin steps' noise, all of it, so that a point's does not depend on the others."""
        if not self.K:
            return at.x, None
        n, dim = at.x.shape
        shape = (n, len(at.levels) - 1, self.K, dim)
        return at.x, torch.randn(shape, generator=generator, dtype=torch.float64).to(at.x)

    def guide(self, at: Evaluation, memory: Tensor | None) -> Guided:
        return Guided(self.composed(at))

    def after_step(self, step: Transition, memory: Tensor | None, generator: torch.Generator) -> Arrival:
        x = step.x_next
        if memory is None or step.sigma_next == 0:
            return Arrival(x)
        for k in range(self.K):
            at = step.evaluate(x)
            z = memory[:, at.index - 1, k]
            x = x + H**2 / 2 * (self.composed(at) - x) + H * step.sigma_next * z
        return Arrival(x)

    def composed(self, at: Evaluation) -> Tensor:
        """The composed denoiser, with shape ``(n, d)``."""
        if self.operation == "or":
            main, other = at.denoised_each("main", "other")
            kappa = self.share(at)
            return kappa * main + (1 - kappa) * other
        main, other, uncond = at.denoised_each("main", "other", "uncond")
        sign = 1 if self.operation == "and" else -1
        return uncond + self.w * (main - uncond) + sign * self.w_other * (other - uncond)

    def share(self, at: Evaluation) -> Tensor:
        """kappa, with shape ``(n, 1)``."""
        w, w_other = (torch.as_tensor(weight).to(at.x) for weight in (self.w, self.w_other))
        prior = w.log() - w_other.log()
        prior = torch.where(prior.isnan(), 0.0, prior)  # 0 and 0 are equal weights
        return torch.sigmoid(prior + (at.log_density("main") - at.log_density("other"))[:, None])
