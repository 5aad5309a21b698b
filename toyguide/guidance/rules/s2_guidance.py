"""S²-guidance: CFG, and away from random sub-networks of the main network.

    D = D_u + w (D_c - D_u) - omega (D_sub - D_c)

D_sub is the main network, at the same class, without a random part of itself. The weights sum to one, so the formula is
the same in every space; omega = 0 is CFG. The paper drops residual blocks, about a tenth of them, never the first. The
networks here have no residual connections: without one of its layers nothing would be left of such a network. So hidden
units are dropped in place of blocks, and the others scaled up to make up for them, as dropout does
(``toyguide/fields/degradations.py``). That is the reconstruction.

The units are drawn from the run's seed, for each point by itself and anew at each noise level; the two evaluations that
Heun's method makes at one level share theirs.
"""

from __future__ import annotations

from typing import cast

import param
import torch
from torch import Tensor

from toyguide.datasets.roles import Role
from toyguide.fields.degradations import DropoutField
from toyguide.fields.ensembles import MeanField
from toyguide.fields.networks import EnergyMLP
from toyguide.guidance.base import Limit, Rule
from toyguide.guidance.evaluation import Evaluation, Guided


class S2Guidance(Rule):
    """See the module's docstring; evaluates ``main``, ``uncond`` and ``masks`` sub-networks."""

    key = "s2-guidance"
    title = "S²-guidance (reconstruction)"
    family = "Inside the network"
    formula = (
        r"D = D_\mathrm{uncond} + w\,(D_\mathrm{main} - D_\mathrm{uncond})"
        r" - \omega\,(D_\mathrm{sub} - D_\mathrm{main})"
    )
    source = (
        "S²-Guidance, 2025, arXiv 2508.12880, Eq. 4 as a reimplementation and a summary give it; "
        "hidden units are dropped here in place of residual blocks"
    )
    summary = (
        "CFG with a push away from what the network says without a random tenth of its hidden units, drawn anew at "
        "each noise level: autoguidance from a weak model that needs no training. The small networks here mind a "
        "missing tenth so much that it does harm on the fractal; a fiftieth does little."
    )
    needs = (Role("main", "network", "the network that is sampled, and whose sub-networks guide"), "uncond")
    unguided = {"w": 1.0, "omega": 0.0}
    off = {"omega": 0.0}
    limits = (Limit({"omega": 0.0}, "cfg", same=("w",)), Limit({"rate": 0.0}, "cfg", same=("w",)))
    equivariant = ()

    w = param.Number(4.0, bounds=(0.0, 30.0), softbounds=(0.0, 10.0), step=0.1, doc="Weight of CFG; 1 is without CFG.")
    omega = param.Number(
        0.25,
        bounds=(0.0, 30.0),
        softbounds=(0.0, 10.0),
        step=0.05,
        doc="Push away from the sub-networks (ω); 0 is CFG.",
    )
    rate = param.Number(0.1, bounds=(0.0, 0.9), softbounds=(0.0, 0.5), step=0.01, doc="Share of hidden units dropped.")
    masks = param.Integer(1, bounds=(1, 64), softbounds=(1, 8), doc="Sub-networks averaged at each evaluation.")

    def begin(self, at: Evaluation, generator: torch.Generator) -> tuple[Tensor, int]:
        return at.x, int(torch.randint(2**62, (), generator=generator))

    def guide(self, at: Evaluation, memory: int) -> Guided:
        main, uncond = at.denoised_each("main", "uncond")
        guided = main + (self.w - 1) * (main - uncond)
        if self.omega == 0:
            return Guided(guided)
        network = cast(EnergyMLP, at.field())
        subs = MeanField([DropoutField(network, self.rate, memory + i) for i in range(self.masks)])
        return Guided(guided + self.omega * (main - at.denoised_of(subs)))
