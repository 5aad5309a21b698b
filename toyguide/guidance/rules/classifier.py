"""Classifier guidance: up the gradient of a classifier, from the unconditional field or from the conditional one.

    D = D_uncond + w sigma^2 grad_x log p(c | x; sigma)              (s = s_uncond + w grad log p(c | x) in scores)
    D = D_main + (w - 1) sigma^2 grad_x log p(c | x; sigma)

By Bayes' rule the gradient of the exact posterior is ``s_c - s_uncond``. With it and exact fields both are
classifier-free guidance of the same w. In the first one everything that the rule knows of the class comes from the
classifier: one that is over- or underconfident, as ``posterior+temperature:0.5`` or ``posterior+temperature:2``, or
trained, changes the samples of w = 1 as well. In the second one w = 1 is unguided, whatever the classifier.
"""

from __future__ import annotations

from typing import Any

import param

from toyguide.datasets.roles import Role
from toyguide.guidance.base import Limit, PerTrajectory, Rule
from toyguide.guidance.evaluation import Evaluation, Guided
from toyguide.targets import Target


class ClassifierGuidance(Rule):
    """See the module's docstring; evaluates one field and one gradient of the classifier.

    Dhariwal and Nichol's scale is w from the unconditional field, and w - 1 from the conditional one.
    """

    key = "classifier"
    title = "Classifier guidance"
    family = "Classifiers"
    formula = (
        r"D = D_\mathrm{uncond} + w\,\sigma^2\,\nabla_x \log p(c \mid x; \sigma) \quad\text{or}\quad"
        r" D = D_\mathrm{main} + (w-1)\,\sigma^2\,\nabla_x \log p(c \mid x; \sigma)"
    )
    source = "Dhariwal & Nichol, 2021, arXiv 2105.05233; Song et al., 2021, arXiv 2011.13456; in D: derived"
    summary = (
        "Climbs the probability that a classifier gives to the class, from the unconditional field or from the "
        "conditional one. With exact fields and the exact posterior it is classifier-free guidance; use it to see what "
        "a miscalibrated or trained classifier changes."
    )
    needs = ("main", "uncond", "classifier")
    unguided = {"base": "main", "w": 1.0}
    limits = (Limit({"base": "uncond", "w": 0.0}, "none", fields={"main": "uncond"}),)
    batchable = True

    w = PerTrajectory(
        4.0,
        bounds=(0.0, 30.0),
        softbounds=(0.0, 10.0),
        step=0.1,
        doc="Guidance weight, as CFG's: 1 is Bayes' rule from uncond, and unguided from main.",
    )
    base: Any = param.Selector(
        default="uncond",
        objects=["uncond", "main"],
        doc="The field that the classifier is added to: of all classes, or of the class.",
    )

    def target(self) -> Target | None:
        """``p_uncond p(c | x)^w`` by Bayes' rule; from main it takes a density that is not evaluated."""
        return Target({"main": self.w, "uncond": 1 - self.w}) if self.base == "uncond" else None

    def evaluates(self) -> dict[str, Role]:
        return {name: role for name, role in self.roles().items() if name in (self.base, "classifier")}

    def guide(self, at: Evaluation, memory: Any) -> Guided:
        weight = self.w if self.base == "uncond" else self.w - 1
        return Guided(at.denoised(self.base) + weight * at.sigma**2 * at.posterior_gradient(at.label))
