"""Self-guidance: away from the same field at a higher noise level.

    s = s_main(x; sigma) + (w - 1)(s_main(x; sigma) - s_main(x; sigma (1 + d)))

It is autoguidance whose weak model is the main field at ``sigma (1 + d)``. The paper (read second-hand) writes it in
noises of a variance-preserving process, with a weight that counts from 0 (w - 1 here, 3 in the paper) and a time later
by 1 % of its range. In flow time ``t = sigma / (1 + sigma)`` that is d = 0.01 (1 + sigma)^2 / sigma: 0.04 at sigma = 1,
the default here, and 0.12 at 0.1 and at 10. The form in scores, at the same x and with one d for all levels, is ours.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from toyguide.fields.base import NoisierField
from toyguide.guidance.base import Limit, PerTrajectory, Rule
from toyguide.guidance.evaluation import Evaluation, Guided


class SelfGuidance(Rule):
    """See the module's docstring; evaluates ``main`` twice."""

    key = "self-guidance"
    title = "Self-guidance (reconstruction)"
    formula = (
        r"s = s_\mathrm{main}(x; \sigma) + (w-1)\,\big(s_\mathrm{main}(x; \sigma)"
        r" - s_\mathrm{main}(x; \sigma(1+d))\big)"
    )
    source = "Li et al., Self-Guidance, 2024, arXiv 2412.05827; in scores, at the same x: ours"
    summary = (
        "Autoguidance without a second network: its weak model is the main field at a noise level higher by d. Needs "
        "no label. Concentrates the samples, on an exact field too, and drops branches as w or d grows."
    )
    unguided = {"w": 1.0}
    off = {"d": 0.0}
    limits = (Limit({"d": 0.0}, "none"),)
    batchable = True

    w = PerTrajectory(4.0, bounds=(0.0, 30.0), softbounds=(0.0, 10.0), step=0.1, doc="Guidance weight; 1 is unguided.")
    d = PerTrajectory(
        0.04,
        bounds=(0.0, 10.0),
        softbounds=(0.0, 1.0),
        step=0.01,
        doc="How much higher the other level is, relatively.",
    )

    def guide(self, at: Evaluation, memory: Any) -> Guided:
        main = at.denoised()
        d: Any = self.d[:, 0] if isinstance(self.d, Tensor) else self.d  # a field takes one level for each point
        noisier = at.denoised_of(NoisierField(at.field(), d))
        return Guided(main + (self.w - 1) * (main - noisier))
