"""Reinforcement-learning guidance (RLG): from a base model through one that was tuned for a reward.

    D = D_main + w (D_RL - D_main)

Reinforcement learning with the KL coefficient beta has the optimum ``p_RL = p e^{r / beta}``. Here the tuned model is
that optimum, exactly: for a quadratic reward r and a mixture of Gaussians p it is a mixture again
(``toyguide.fields.rewards``), noised as p is. The claim of the paper is that w does what dividing beta by w does, which
is to sample ``p e^{w r / beta}``. For one Gaussian and a linear reward it is true at every noise level, and so for
every sampler; for a mixture it is not.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import param

from toyguide.datasets.roles import Role
from toyguide.errors import InputError
from toyguide.fields.mixtures import GaussianMixture
from toyguide.fields.rewards import Reward
from toyguide.guidance.base import Limit
from toyguide.guidance.evaluation import Evaluation, Guided
from toyguide.guidance.rewarded import Rewarded
from toyguide.targets import Target


class ReinforcementLearningGuidance(Rewarded):
    """See the module's docstring; evaluates ``main`` and the tuned model.

    As in the paper, and unlike the other extrapolating rules, w = 0 is the base model and w = 1 the tuned one. The
    authors' range is 1 to 3; their coordinates are flow-matching velocities, in which the rule is the same.
    """

    key = "rlg"
    title = "Reinforcement-learning guidance"
    short = "RLG"
    family = "Rewards and particles"
    formula = r"D = D_\mathrm{main} + w\,(D_\mathrm{RL} - D_\mathrm{main}), \quad p_\mathrm{RL} \propto p\, e^{r/\beta}"
    source = "Jin et al., Inference-Time Alignment Control for Diffusion Models, 2025, arXiv 2508.21016, their code"
    summary = (
        "Extrapolates from the sampled field through the same field tuned for a reward, to control after training how "
        "much the reward counts. The tuned model is the exact tilt. On one Gaussian with a linear reward w is exactly "
        "a division of the KL coefficient by w; see on a mixture how far it is from that. w = 0 is unguided, 1 the "
        "tuned model."
    )
    needs = (Role("main", "exact", "the exact field that is sampled and tuned"),)
    unguided = {"w": 0.0}
    off = {"w": 0.0, "beta": math.inf}
    limits = (Limit({"beta": math.inf}, "none"),)
    equivariant = ()

    w = param.Number(
        1.6, bounds=(0.0, 30.0), softbounds=(0.0, 5.0), step=0.1, doc="Weight; 0 is unguided, 1 the tuned model."
    )
    beta = param.Number(
        0.5,
        bounds=(0.01, math.inf),
        softbounds=(0.05, 5.0),
        step=0.05,
        doc="KL coefficient of the tuning (β): smaller, and the reward counts more. It moves a Gaussian by Σy/β.",
    )

    def target(self) -> Target:
        return Target({"main": 1.0}, self.reward_of(2) * (self.w / self.beta))

    def guide(self, at: Evaluation, memory: Any) -> Guided:
        main = at.denoised()
        return Guided(main + self.w * (at.denoised_of(self.tuned(at.field())) - main))

    def tuned(self, field: Any) -> GaussianMixture:
        """The tuned model of a field.

        Raises:
            InputError: If the field is not a mixture of Gaussians, whose tilt is known.
        """
        if not isinstance(field, GaussianMixture):
            raise InputError("main: rlg tunes exact fields only, expected one, like exact")
        return _tilted(field, self.reward, self.y0, self.y1, self.beta)


# A mixture keeps its constants for each noise level, so that it is worth keeping.
@lru_cache(maxsize=16)
def _tilted(field: GaussianMixture, reward: str, y0: float, y1: float, beta: float) -> GaussianMixture:
    named: Reward = Rewarded(reward=reward, y0=y0, y1=y1).reward_of(field.dim)
    return (named * (1 / beta)).tilted(field)
