"""Internal guidance: away from what the same network says halfway through.

The network has an auxiliary read-out after a hidden layer, trained along with its own: a weaker field of the same
distribution from the same pass (see ``toyguide/fields/two_headed.py``). The rule extrapolates from it, as autoguidance
does from a second network.

    D = D_mid + w (D_final - D_mid)

The weights sum to one, so the formula is the same in every space. One evaluation: the auxiliary read-out is part of the
network's own pass and is not counted. The compiled loops run the layers that both share twice, so with the read-out in
the middle an evaluation takes about 1.4 times as long as one without.
"""

from __future__ import annotations

from typing import Any, cast

from toyguide.datasets.roles import Role
from toyguide.fields.two_headed import TwoHeadedMLP
from toyguide.guidance.base import PerTrajectory, Rule
from toyguide.guidance.evaluation import Evaluation, Guided


class InternalGuidance(Rule):
    """``D = D_main + (w - 1)(D_main - D_mid)``."""

    key = "internal-guidance"
    title = "Internal guidance"
    family = "Inside the network"
    formula = r"D = D_\mathrm{mid} + w\,(D_\mathrm{main} - D_\mathrm{mid})"
    source = (
        "Internal Guidance, 2025, arXiv 2512.24176; the formula and the loss's weight of 0.5 from the authors' code"
    )
    summary = (
        "Autoguidance without a second network: extrapolates from a read-out in the middle of the main network through "
        "its end. Needs a network trained with an auxiliary read-out; costs one evaluation."
    )
    needs = (Role("main", "internal", "the network that is sampled, and whose auxiliary read-out guides"),)
    unguided = {"w": 1.0}
    equivariant = ()
    batchable = True

    w = PerTrajectory(1.7, bounds=(0.0, 30.0), softbounds=(0.0, 10.0), step=0.1, doc="Guidance weight; 1 is unguided.")

    def guide(self, at: Evaluation, memory: Any) -> Guided:
        main = at.denoised()
        middle = cast(TwoHeadedMLP, at.field()).middle.denoise(at.x, at.sigma)  # of the same pass: not counted
        return Guided(main + (self.w - 1) * (main - middle))
