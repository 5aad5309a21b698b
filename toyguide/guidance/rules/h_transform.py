"""The weighted h-transform towards a coarse point y.

    D' = (1 - s^alpha) D + s^alpha y,    s = u / sqrt(1 + u^2),    u = sigma / 0.5

The score that leads a diffusion to one point y is ``(y - x)/sigma^2`` (Doob's h-transform), the denoiser y itself. The
rule mixes it with the model's, with a weight that is 1 at high noise and 0 at low. In the authors' variance-preserving
coordinates, with ``ab = 1 / (1 + u^2)`` and ``s = sqrt(1 - ab)``,

    eps' = eps + s^alpha [(x_vp - sqrt(ab) y) / sqrt(1 - ab) - eps]

which is the formula above. Those coordinates suppose data of standard deviation 1; here data have 0.5, so the noise is
measured in units of that.
"""

from __future__ import annotations

import math
from typing import Any

import param
import torch
from torch import Tensor

from toyguide.errors import InputError
from toyguide.fields.mixtures import GaussianMixture
from toyguide.guidance.base import Limit, PerTrajectory, Rule
from toyguide.guidance.evaluation import Evaluation, Guided

DATA = 0.5
"""The standard deviation of the data, per axis."""


class HTransform(Rule):
    """See the module's docstring; evaluates ``main`` only."""

    key = "h-transform"
    title = "Weighted h-transform"
    family = "Rewards and particles"
    formula = (
        r"D' = (1 - s^\alpha)\,D_\mathrm{main} + s^\alpha\,y, \quad"
        r" s = \frac{u}{\sqrt{1 + u^2}}, \quad u = \frac{\sigma}{0.5}"
    )
    source = "arXiv 2603.12057, 2026, the weighted h-transform of its authors' code; in D: derived"
    summary = (
        "Draws all samples to one point while the noise is high and leaves them to the model below, so that a coarse "
        "sketch is followed and detail added. Use it to see how far adherence to the point costs density. "
        "A large alpha guides little, alpha = 0 ends on the point itself."
    )
    unguided = {"alpha": math.inf}
    only_with = {name: {"y": ("point",)} for name in ("y0", "y1")}
    off = {"alpha": math.inf}
    limits = (Limit({"alpha": math.inf}, "none"),)
    equivariant = ()
    batchable = True

    alpha = PerTrajectory(
        5.0,
        bounds=(0.0, math.inf),
        softbounds=(0.0, 20.0),
        step=0.5,
        doc="How fast the pull fades as the noise goes (α); 0 leads to y.",
    )
    y: Any = param.Selector(
        default="point",
        objects=["point", "mean of the class"],
        doc="The coarse point: (y0, y1), with 0 in further coordinates, or the exact mean of what is sampled.",
    )
    y0 = PerTrajectory(0.5, bounds=(-100.0, 100.0), softbounds=(-2.0, 2.0), step=0.05, doc="First coordinate of y.")
    y1 = PerTrajectory(0.5, bounds=(-100.0, 100.0), softbounds=(-2.0, 2.0), step=0.05, doc="Second coordinate of y.")

    def guide(self, at: Evaluation, memory: Any) -> Guided:
        u = at.sigma / DATA
        share = (u / math.hypot(1.0, u)) ** self.alpha
        return Guided((1 - share) * at.denoised() + share * self.point(at))

    def point(self, at: Evaluation) -> Tensor:
        """y, with shape ``(n, d)``."""
        if self.y != "point":
            return self._mean(at).to(at.x).expand_as(at.x)
        found = torch.zeros_like(at.x)
        found[:, :1], found[:, 1:2] = self.y0, self.y1
        return found

    def _mean(self, at: Evaluation) -> Tensor:
        main = at.field()
        if isinstance(main, GaussianMixture):
            return main.mean
        if at.data is None:
            raise InputError("y: the mean of this main field is not known without a dataset, expected y = point")
        return at.data.field(at.label).mean
