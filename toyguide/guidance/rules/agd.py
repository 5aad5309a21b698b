"""Adapter guidance distillation: what CFG adds, from a small adapter in place of a second evaluation.

    D = D_main + A(x; sigma, w),   A(x; sigma, 1) = 0

The adapter A (``toyguide/fields/adapters.py``) is distilled from trajectories guided by CFG at weights from 1 to 6
(``toyguide/distillation.py``), beside a frozen main field. It knows one main field at one class; beside others it still
adds what it has learned there. The formula is one of denoisers, and is the same in every space that is linear in them.
One evaluation: the adapter has a few per cent of the network's parameters and is not counted.
"""

from __future__ import annotations

from typing import Any, cast

from toyguide.datasets.roles import Role
from toyguide.fields.adapters import Adapter
from toyguide.guidance.base import PerTrajectory, Rule
from toyguide.guidance.evaluation import Evaluation, Guided


class AdapterGuidanceDistillation(Rule):
    """See the module's docstring."""

    key = "agd"
    title = "Adapter guidance distillation (reconstruction)"
    short = "AGD"
    family = "Inside the network"
    formula = r"D = D_\mathrm{main} + (w-1)\,\sigma^2\,\nabla_x\,\psi(x; \sigma, w)"
    source = (
        "Adapter Guidance Distillation, 2025, arXiv 2503.07274; guided trajectories, w and the loss from the authors' "
        "code, the adapter is ours: a gradient, zero at w = 1"
    )
    summary = (
        "CFG at the cost of one evaluation: a small adapter, trained on guided trajectories, adds about what CFG does. "
        "On the fractal it drops the branches that CFG drops, and has more outliers: at low noise it knows CFG less "
        "well. Needs an adapter distilled for the main field."
    )
    needs = ("main", Role("adapter", "adapter", "the adapter that adds to the main field what CFG would"))
    unguided = {"w": 1.0}
    equivariant = ()
    batchable = True

    w = PerTrajectory(
        4.0, bounds=(0.0, 30.0), softbounds=(1.0, 6.0), step=0.1, doc="Weight of CFG; 1 is unguided, 1 to 6 is learned."
    )

    def guide(self, at: Evaluation, memory: Any) -> Guided:
        main = at.denoised()
        adapter = cast(Adapter, at.field("adapter")).at_weight(self.w)
        return Guided(main + at.sigma**2 * adapter.score(at.x, at.sigma))
