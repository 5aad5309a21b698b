"""The ideal: the exact score of a target at every noise level, so that any sampler reaches the target itself.

Guidance rules combine scores at each noise level as if diffusion and products commuted. They do not: the score of the
diffused product q is

    D(x; sigma) = E_q[x0 | x0 + sigma n = x],     q proportional to prod p^power e^{r/alpha}

which differs from the sum of the fields' scores by what Moufad et al. call the Renyi correction, and equals it only as
sigma falls to 0. It is known where the fields are: see :mod:`toyguide.targets`.
"""

from __future__ import annotations

from typing import Any

import param

from toyguide.datasets.roles import Role
from toyguide.guidance.evaluation import Evaluation, Guided
from toyguide.guidance.rewarded import Rewarded
from toyguide.targets import Target, ideal_field


class Ideal(Rewarded):
    """``D = E_q[x0 | x]`` of the target q; see the module's docstring. One evaluation, of exact fields only."""

    key = "ideal"
    title = "Ideal (exact score of the target)"
    short = "Ideal"
    family = "Rewards and particles"
    formula = (
        r"D = \mathbb{E}_q[x_0 \mid x], \qquad"
        r" q \propto p_\mathrm{main}^{k},\;\; p_\mathrm{uncond}^{1-w}\, p_\mathrm{main}^{w},\;\;"
        r" p_\mathrm{main}\, p_\mathrm{uncond} \;\text{or}\; p_\mathrm{main}\, e^{r/\alpha}"
    )
    source = (
        "The definition; that guided scores differ from it: Bradley & Nakkiran, 2024, arXiv 2408.09000, and Moufad et "
        "al., 2025, arXiv 2505.21101"
    )
    summary = (
        "Samples the density that CFG and others are said to sample, exactly: the yardstick for their samples. Needs "
        "exact fields, in two dimensions or where the target is a mixture of Gaussians."
    )
    needs = (Role("main", "exact", "the exact field that the target is made of"), "uncond")
    unguided = {"aim": "tilt", "w": 1.0}
    only_with = {
        "w": {"aim": ("tilt",)},
        "k": {"aim": ("tempered",)},
        **{name: {"aim": ("reward",)} for name in ("reward", "y0", "y1", "alpha")},
    }
    off = {"k": 1.0, "w": 1.0}
    # A lattice has directions of its own: turned fields are guided alike to its accuracy only.
    equivariant = ()

    aim: Any = param.Selector(
        default="tempered",
        objects=["tempered", "tilt", "product", "reward"],
        doc="The target: main to the power k, main tilted away from uncond by w, main times uncond, or main with the "
        "reward over alpha.",
    )
    k = param.Number(2.0, bounds=(0.05, 30.0), softbounds=(0.5, 5.0), step=0.1, doc="Power of main; 1 is main.")
    w = param.Number(2.0, bounds=(0.0, 30.0), softbounds=(0.0, 10.0), step=0.1, doc="Weight of the tilt; 1 is main.")
    alpha = param.Number(1.0, bounds=(0.01, 100.0), softbounds=(0.1, 10.0), step=0.1, doc="The reward's temperature.")

    def target(self) -> Target:
        if self.aim == "reward":
            return Target({"main": 1.0}, self.reward_of(2) * (1 / self.alpha))
        powers = {
            "tilt": {"main": self.w, "uncond": 1 - self.w},
            "tempered": {"main": self.k},
            "product": {"main": 1.0, "uncond": 1.0},
        }
        return Target(powers[self.aim])

    def evaluates(self) -> dict[str, Role]:
        return {role: self.roles()[role] for role in self.target().roles}

    def guide(self, at: Evaluation, memory: Any) -> Guided:
        fields = {role: at.field(role) for role in self.evaluates()}
        return Guided(at.denoised_of(ideal_field(self.target(), fields)))
