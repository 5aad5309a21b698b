"""PCG: a conditional predictor, and Langevin corrections on the sharpened density.

After each solver step of the main field, from sigma to sigma', K times at the level sigma':

    x <- x + (e/2) s_gamma(x) + sqrt(e) z,   s_gamma = s_main + (gamma - 1)(s_main - s_uncond),   gamma = 2 w - 1

``s_gamma`` is the score of ``p_uncond^(1 - gamma) p_main^gamma``, each power taken at the level sigma'. With one
correction, a deterministic sampler and ``e -> 2 sigma |dsigma|`` this is the reverse SDE of CFG with the weight w as
the steps grow in number, because ``2 s_w = s_main + s_(2 w - 1)``. CFG by an ancestral sampler thus predicts
and corrects, and the density that it corrects towards is sharper than the one that w names, and is never reached.

``e = sigma'^2 (sigma^2 - sigma'^2)/sigma^2`` is the variance that the ancestral sampler adds. It has that limit, and
at most sigma'^2 keeps the correction stable in coarse steps; the paper has beta_t, of a variance-preserving process.
"""

from __future__ import annotations

import math
from typing import Any

import param
import torch

from toyguide.fields import score_from_denoised
from toyguide.guidance.base import Limit, PerTrajectory, Rule
from toyguide.guidance.evaluation import Arrival, Evaluation, Guided, Transition


class PredictorCorrectorGuidance(Rule):
    """See the module's docstring. Its noise is the sampler's, drawn for all points of a run at once."""

    key = "pcg"
    title = "Predictor-corrector guidance"
    short = "PCG"
    formula = (
        r"D = D_\mathrm{main}, \quad"
        r" x' \leftarrow x' + \tfrac{e}{2}\, s_\gamma(x') + \sqrt{e}\, z \quad (K \text{ times}), \quad"
        r" s_\gamma = s_\mathrm{main} + (\gamma-1)(s_\mathrm{main} - s_\mathrm{uncond}), \quad"
        r" \gamma = 2w - 1, \quad e = \sigma'^2 \, \frac{\sigma^2 - \sigma'^2}{\sigma^2}"
    )
    source = "Bradley & Nakkiran, 2024, arXiv 2408.09000, Theorem 3; the step e in the noise's variance is ours"
    summary = (
        "Follows the conditional field, and corrects the points after each step by Langevin moves towards a sharper "
        "density. With one correction and many steps of a sampler without noise it is CFG of the same w with the "
        "ancestral one: it shows what that does. More corrections come nearer to the sharper density."
    )
    family = "Several fields"
    needs = ("main", "uncond")
    unguided = {"w": 1.0, "K": 0}
    off = {"K": 0}
    limits = (Limit({"K": 0}, "none"),)
    equivariant = ("translation",)  # turned points get noise that is not turned

    w = PerTrajectory(
        3.0,
        bounds=(0.0, 30.0),
        softbounds=(0.0, 10.0),
        step=0.1,
        doc="Weight, as CFG's. At 1 the corrections keep the conditional density.",
    )
    K = param.Integer(1, bounds=(0, 50), softbounds=(0, 5), doc="Corrections after each step; 0 is unguided.")

    def guide(self, at: Evaluation, memory: Any) -> Guided:
        return Guided(at.denoised())

    def after_step(self, step: Transition, memory: Any, generator: torch.Generator) -> Arrival:
        x, sigma, below = step.x_next, step.sigma, step.sigma_next
        variance = below**2 * (sigma**2 - below**2) / sigma**2
        for _ in range(self.K if below > 0 else 0):
            main, uncond = step.evaluate(x).denoised_each("main", "uncond")
            score = score_from_denoised(main + 2 * (self.w - 1) * (main - uncond), x, below)
            x = x + variance / 2 * score + math.sqrt(variance) * step.noise()
        return Arrival(x)
