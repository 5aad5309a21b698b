"""CFG-MP: before each CFG step, the points move to where the conditional and the unconditional field agree more.

In flow-matching coordinates, ``t = sigma / (1 + sigma)`` and ``z = x / (1 + sigma)``, with the velocity v = eps - D and
``h`` half a step (negative), K times at the fixed level t:

    y = z - h v_uncond(z)
    z <- G(z) = y + h v_main(y)

up the unconditional flow and down the conditional one. Its fixed points are where both velocities cancel. To first
order in h it adds ``|h| (1 + 1/sigma)(D_main - D_uncond)`` to z: a step up the probability of the class.

Anderson acceleration with a window of one combines the last two values of G, with ``f_k = G(z_k) - z_k``:

    gamma = f_k . (f_k - f_(k-1)) / (|f_k - f_(k-1)|^2 + ridge),   z_(k+1) = (1 - gamma) G(z_k) + gamma G(z_(k-1))

which is the secant method in one dimension. The ridge is 1e-8: the authors' 1e-4 is for the thousands of numbers of an
image.
"""

from __future__ import annotations

from typing import Any

import param
from torch import Tensor

from toyguide.fields import velocity_from_denoised
from toyguide.guidance.base import Limit, PerTrajectory, Rule
from toyguide.guidance.evaluation import Evaluation, Guided
from toyguide.targets import Target

_RIDGE = 1e-8


class CfgManifoldProjection(Rule):
    """See the module's docstring; evaluates both fields K times more in each step above the threshold.

    It minds where the origin is, because the points y, which lie on neither path, do.

    K and w are the authors' for DiT, which iterates for sigma > 0.67 on data of standard deviation 1: 0.33 here. Their
    code for Stable Diffusion also iterates the other way round at the first level if sigma is at least 19; that for DiT
    does not, nor does this.
    """

    key = "cfg-mp"
    title = "CFG with manifold projection"
    short = "CFG-MP"
    formula = (
        r"y = z - h\, v_\mathrm{uncond}(z), \quad z \leftarrow y + h\, v_\mathrm{main}(y) \quad (K\ \text{times}),"
        r" \qquad D = D_\mathrm{main} + (w-1)\,(D_\mathrm{main} - D_\mathrm{uncond})"
    )
    source = "arXiv 2601.21892, and the authors' code"
    summary = (
        "CFG whose points first take K small steps to where the conditional and unconditional fields differ less, that "
        "is, where the class is more probable. Meant to make CFG less sensitive to w; the steps themselves guide, so "
        "w = 1 guides too. Accelerated they reach far: on the fractal few branches are left."
    )
    family = "Several fields"
    needs = ("main", "uncond")
    unguided = {"w": 1.0, "K": 0}
    off = {"w": 1.0, "K": 0}
    limits = (Limit({"K": 0}, "cfg", same=("w",)),)
    equivariant = ("rotation",)
    batchable = True

    w = PerTrajectory(2.0, bounds=(0.0, 30.0), softbounds=(0.0, 10.0), step=0.1, doc="Guidance weight of the step.")
    K = param.Integer(2, bounds=(0, 20), softbounds=(0, 6), doc="Iterations before each step; 0 is CFG.")
    anderson = param.Boolean(False, doc="Whether to accelerate the iterations (CFG-MP+); changes nothing for K = 1.")
    threshold = param.Number(
        0.33, bounds=(0.0, 100.0), softbounds=(0.0, 5.0), step=0.01, doc="Iterate only above this noise level."
    )

    def target(self) -> Target:
        return Target({"main": self.w, "uncond": 1 - self.w})

    def before_step(self, at: Evaluation, memory: Any) -> tuple[Tensor, Any]:
        if self.K == 0 or at.sigma <= self.threshold:
            return at.x, memory
        h = (_time(at.next_sigma) - _time(at.sigma)) / 2
        z = at.x / (1 + at.sigma)
        before: tuple[Tensor, Tensor] | None = None
        for _ in range(self.K):
            up = z - h * self._velocity(at, z, "uncond")
            image = up + h * self._velocity(at, up, "main")
            residual = image - z
            z = image
            if self.anderson and before is not None:
                gamma = _mixing(residual, before[1])
                z = (1 - gamma) * image + gamma * before[0]
            before = image, residual
        return z * (1 + at.sigma), memory

    def guide(self, at: Evaluation, memory: Any) -> Guided:
        main, uncond = at.denoised_each("main", "uncond")
        return Guided(main + (self.w - 1) * (main - uncond))

    @staticmethod
    def _velocity(at: Evaluation, z: Tensor, role: str) -> Tensor:
        x = z * (1 + at.sigma)
        return velocity_from_denoised(at.denoised_at(x, at.sigma, role), x, at.sigma)


def _time(sigma: float) -> float:
    """Flow matching's time of a noise level."""
    return sigma / (1 + sigma)


def _mixing(residual: Tensor, before: Tensor) -> Tensor:
    """Anderson's gamma for a window of one, each point by itself, with shape ``(n, 1)``."""
    change = residual - before
    return (residual * change).sum(-1, keepdim=True) / (change.square().sum(-1, keepdim=True) + _RIDGE)
