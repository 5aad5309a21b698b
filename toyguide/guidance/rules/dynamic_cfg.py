"""Dynamic CFG: in each step the weight whose next points evaluators like best.

    x'_k = D_k + (sigma'/sigma)(x - D_k),   D_k = D_main + (w_k - 1)(D_main - D_uncond)
    w    = the w_k with the largest  sum_e alpha_e e(x'_k; sigma')
    alpha_e = |mean_k e(x'_k; sigma') - e_before| / max(|e_before|, 1)

The candidates w_k are K weights from w down to 1, evenly spaced. e_before is the evaluator at the points before the
step, at the level of that step; in the first step all alpha are 1. The last step, whose points have no noise, keeps the
weight of the one before.

The paper judges images with trained evaluators: agreement with the prompt, a discriminator, rewards. Here they are the
fields' own: ``log p_main - log p_uncond``, which for exact fields is log p(class | x) up to a constant, and
``log p_uncond``. How the paper weights its evaluators was read second-hand, as a relative change since the step before.
That its size counts, common to all candidates and with at least 1 nat in the denominator, is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import param
import torch
from torch import Tensor

from toyguide.guidance.base import Limit, PerTrajectory, Rule
from toyguide.guidance.evaluation import Evaluation, Guided


@dataclass(frozen=True)
class Choice:
    """The weight in use, and the class's and the data's evaluator before the step (NaN at first), each ``(n, 1)``."""

    w: Tensor
    scores: tuple[Tensor, Tensor]


class DynamicCfg(Rule):
    """See the module's docstring; ``2 + 2 K`` evaluations in a step's first evaluation. The weight is traced as ``w``.

    Networks' densities are unnormalised, which shifts their evaluators and so the alpha.
    """

    key = "dynamic-cfg"
    title = "Dynamic CFG (reconstruction)"
    short = "Dynamic CFG"
    formula = (
        r"D = D_\mathrm{main} + (w^*-1)\,(D_\mathrm{main} - D_\mathrm{uncond}), \quad"
        r" w^* = \arg\max_{w_k} \sum_e \alpha_e\, e\big(x'(w_k); \sigma'\big), \quad"
        r" e \in \{\log p_\mathrm{main} - \log p_\mathrm{uncond},\ \log p_\mathrm{uncond}\}"
    )
    source = (
        "Dynamic CFG via Online Feedback, 2025, arXiv 2509.16131; evaluators, their weights and candidates are ours"
    )
    summary = (
        "Tries K weights from 1 to w in each step and takes, for each point, the one whose next point is best by the "
        "class's and the data's log-density. Costs two evaluations for each candidate."
    )
    family = "Several fields"
    needs = ("main", "uncond")
    unguided = {"w": 1.0}
    limits = (Limit({"K": 1}, "cfg", same=("w",)), Limit({}, "none", fields={"uncond": "main"}))
    batchable = True

    w = PerTrajectory(
        7.0, bounds=(0.0, 30.0), softbounds=(0.0, 15.0), step=0.5, doc="The largest candidate; 1 is unguided."
    )
    K = param.Integer(5, bounds=(1, 24), softbounds=(1, 10), doc="The number of candidates; 1 is CFG with weight w.")

    def begin(self, at: Evaluation, generator: torch.Generator) -> tuple[Tensor, Choice]:
        unknown = at.x.new_full((len(at.x), 1), torch.nan)
        return at.x, Choice(torch.zeros_like(unknown) + self.w, (unknown, unknown))

    def guide(self, at: Evaluation, memory: Choice) -> Guided:
        main, uncond = at.denoised_each("main", "uncond")
        if at.is_first and at.next_sigma > 0:
            memory = self._chosen(at, main, main - uncond, memory)
        guided = main + (memory.w - 1) * (main - uncond)
        return Guided(guided, memory=memory, trace={"w": memory.w[:, 0]})

    def _chosen(self, at: Evaluation, main: Tensor, gap: Tensor, memory: Choice) -> Choice:
        """The best candidate for each point, and its evaluators."""
        weights, scores = [], []
        for k in range(self.K):
            weights.append(self.w - (self.w - 1) * k / max(self.K - 1, 1) + torch.zeros_like(memory.w))
            guided = main + (weights[-1] - 1) * gap
            landing = guided + at.next_sigma / at.sigma * (at.x - guided)
            scores.append(_scores(at.moved(landing, at.next_sigma, at.index + 1)))
        each = [torch.stack(found) for found in zip(*scores, strict=True)]  # (K, n, 1)
        value = torch.zeros_like(each[0])
        for found, before in zip(each, memory.scores, strict=True):
            alpha = (found.mean(0) - before).abs() / before.abs().clamp_min(1)
            value = value + alpha.nan_to_num(1.0) * found
        best = value.argmax(0, keepdim=True)
        w, of_class, of_data = (found.gather(0, best)[0] for found in (torch.stack(weights), *each))
        return Choice(w, (of_class, of_data))


def _scores(at: Evaluation) -> tuple[Tensor, Tensor]:
    """The class's and the data's evaluator at the points, each with shape ``(n, 1)``."""
    main, uncond = at.log_density("main")[:, None], at.log_density("uncond")[:, None]
    return main - uncond, uncond
