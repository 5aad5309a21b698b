"""Classifier guidance: from the unconditional field up the gradient of a classifier.

    D = D_uncond + w sigma^2 grad_x log p(c | x; sigma)          (s = s_uncond + w grad log p(c | x) in scores)

By Bayes' rule the gradient of the exact posterior is ``s_c - s_uncond``. With it the rule is classifier-free guidance
of the same w, and at w = 1 it samples the class. Everything that the rule knows of the class comes from the classifier:
one that is over- or underconfident, as ``posterior+temperature:0.5`` or ``posterior+temperature:2``, or trained,
changes the samples of w = 1 as well.
"""

from __future__ import annotations

from typing import Any

from toyguide.guidance.base import Limit, PerTrajectory, Rule
from toyguide.guidance.evaluation import Evaluation, Guided


class ClassifierGuidance(Rule):
    """See the module's docstring; evaluates ``uncond`` once and one gradient of the classifier.

    Dhariwal and Nichol's scale is w. Theirs on top of a conditional model is this rule with that model in the role
    ``uncond``.
    """

    key = "classifier"
    title = "Classifier guidance"
    family = "Classifiers"
    formula = r"D = D_\mathrm{uncond} + w\,\sigma^2\,\nabla_x \log p(c \mid x; \sigma)"
    source = "Dhariwal & Nichol, 2021, arXiv 2105.05233; Song et al., 2021, arXiv 2011.13456; in D: derived"
    summary = (
        "Samples the union of the classes and climbs the probability that a classifier gives to the chosen one. "
        "With the exact posterior it is classifier-free guidance; use it to see what a miscalibrated or trained "
        "classifier changes. w = 1 with the exact posterior samples the class; w = 0 is the unconditional field."
    )
    needs = ("uncond", "classifier")
    off = {"w": 0.0}
    limits = (Limit({"w": 0.0}, "none", fields={"main": "uncond"}),)
    batchable = True

    w = PerTrajectory(
        4.0,
        bounds=(0.0, 30.0),
        softbounds=(0.0, 10.0),
        step=0.1,
        doc="Weight of the classifier; 1 is Bayes' rule, 0 leaves the class out.",
    )

    def guide(self, at: Evaluation, memory: Any) -> Guided:
        return Guided(at.denoised("uncond") + self.w * at.sigma**2 * at.posterior_gradient(at.label))
