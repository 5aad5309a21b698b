"""Diffusion posterior sampling: towards points whose observation is the one that was made.

The observation is ``y = A x0 + n``, some coordinates of the clean point with Gaussian noise of variance R; its
log-likelihood at a clean point is ``l(x0) = -|y - A x0|^2 / (2 R)``. The score that samples the posterior
``p(x0 | y)`` has the term ``grad log E[e^(l(x0)) | x]``, for which each form puts a guess that D(x) makes. The formulas
are for the denoiser; J is its Jacobian and ``C = sigma^2 J`` the posterior covariance of x0 given x:

    dps     D + zeta sigma^2 grad_x l(D(x)) / sqrt(2 |l|)
    lgd     D + zeta sigma^2 grad_x log mean_i e^(l(D(x) + s r xi_i)),   xi_i ~ N(0, I)
    mpgd    D + zeta R grad_D l(D),  which is  D + zeta A'(y - A D)
    moment  D + zeta C A' (A C A' + R)^-1 (y - A D)

dps takes x0 = D(x), and divides by the residual over the noise. It is the paper's Algorithm 1 under the ancestral
sampler with the step sizes ``zeta_i = zeta (sigma^2 - t^2) / (2 sqrt(R) |y - A D|)`` of a step to t; the authors take
``zeta' / |y - A D|`` with a constant zeta', which grows in total with the number of steps. lgd averages over a Gaussian
around D of standard deviation ``s r``, ``r^2 = sigma^2 0.25 / (sigma^2 + 0.25)``, the posterior variance of a Gaussian
with the data's standard deviation, 0.5. Its samples are drawn once for each trajectory. mpgd needs no Jacobian; its
step size, which the paper leaves open, is R here, so that zeta = 1 moves D onto the observation. moment takes the
Gaussian of mean D and covariance C, and is exact where the data are one Gaussian.
"""

from __future__ import annotations

from typing import Any

import param
import torch
from torch import Tensor

from toyguide.fields.rewards import Reward
from toyguide.guidance.base import Limit, PerTrajectory, Rule
from toyguide.guidance.evaluation import Evaluation, Guided
from toyguide.targets import Target

_OBSERVED = {"first": (0,), "second": (1,), "both": (0, 1)}
_DATA_VARIANCE = 0.25


class DiffusionPosteriorSampling(Rule):
    """See the module's docstring; evaluates ``main`` once, with one product with its Jacobian (moment: one for each
    observed coordinate; mpgd: none). The memory is lgd's samples, with shape ``(n, samples, observed)``."""

    key = "dps"
    title = "Diffusion posterior sampling (DPS, LGD, MPGD, moment-projected)"
    short = "DPS"
    family = "Rewards and particles"
    formula = (
        r"D = D_\mathrm{main} + \zeta\,\sigma^2\,\nabla_x \log \hat p(y \mid D_\mathrm{main}(x)), \quad"
        r" p(y \mid x_0) = N(y;\, A x_0,\, R)"
    )
    source = (
        "dps: Chung et al., 2022, arXiv 2209.14687, Algorithm 1; lgd: Song et al., Loss-Guided Diffusion Models, ICML "
        "2023; mpgd: He et al., 2023, arXiv 2311.16424; moment: Boys et al., 2023, arXiv 2310.06721; step sizes ours"
    )
    summary = (
        "Samples points that agree with a noisy observation of some of their coordinates, with four guesses of its "
        "likelihood at a noisy point. The moment-projected one is exact for one Gaussian; the others are cheaper or "
        "more common."
    )
    unguided = {"zeta": 0.0}
    only_with = {
        **{name: {"form": ("lgd",)} for name in ("s", "samples")},
        "y0": {"observed": ("first", "both")},
        "y1": {"observed": ("second", "both")},
    }
    off = {"zeta": 0.0, "s": 0.0}
    limits = (Limit({"form": "moment", "zeta": 0.0}, "none"), Limit({"form": "lgd", "zeta": 0.0}, "none"))
    equivariant = ()
    batchable = True

    form: Any = param.Selector(
        default="moment", objects=["dps", "lgd", "mpgd", "moment"], doc="The guess of the likelihood."
    )
    zeta = PerTrajectory(
        1.0,
        bounds=(0.0, 100.0),
        softbounds=(0.0, 5.0),
        step=0.1,
        doc="Strength ζ; 0 is unguided.",
    )
    observed: Any = param.Selector(
        default="first", objects=list(_OBSERVED), doc="The coordinates that are observed: A picks them."
    )
    y0 = param.Number(0.5, bounds=(-100.0, 100.0), softbounds=(-2.0, 2.0), step=0.05, doc="Observed first coordinate.")
    y1 = param.Number(0.5, bounds=(-100.0, 100.0), softbounds=(-2.0, 2.0), step=0.05, doc="Observed second coordinate.")
    R = param.Number(
        0.02, bounds=(1e-6, 100.0), softbounds=(0.001, 0.5), step=0.001, doc="Variance of the observation's noise."
    )
    s = param.Number(
        1.0, bounds=(0.0, 10.0), softbounds=(0.0, 2.0), step=0.1, doc="Spread of lgd's samples; 0 puts them all on D."
    )
    samples = param.Integer(16, bounds=(1, 10_000), softbounds=(1, 64), doc="Number of lgd's samples.")

    def target(self) -> Target | None:
        if self.zeta != 1:
            return None  # neither the prior nor the posterior
        picked = torch.eye(2, dtype=torch.float64)[list(_OBSERVED[self.observed])]
        y = torch.tensor([self.y0, self.y1], dtype=torch.float64)
        return Target({"main": 1.0}, Reward.near(y, picked, self.R**0.5))

    def begin(self, at: Evaluation, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        if self.form != "lgd":
            return at.x, None
        shape = (len(at.x), self.samples, len(_OBSERVED[self.observed]))
        return at.x, torch.randn(shape, generator=generator, dtype=torch.float64).to(at.x)

    def guide(self, at: Evaluation, memory: Tensor | None) -> Guided:
        denoised, rows = at.denoised(), list(_OBSERVED[self.observed])
        y = denoised.new_tensor([self.y0, self.y1])[rows]
        residual = y - denoised[:, rows]
        if self.form == "moment":
            return Guided(denoised + self.zeta * self._update(at, residual, rows))
        if self.form == "mpgd":
            return Guided(denoised + self.zeta * self._placed(residual, at, rows))
        pull = self._expected(residual, at.sigma, memory) if memory is not None else self._normed(residual)
        return Guided(denoised + self.zeta * at.sigma**2 * at.vjp(self._placed(pull, at, rows)))

    def _normed(self, residual: Tensor) -> Tensor:
        """dps: ``grad l / sqrt(2 |l|)`` in the observed coordinates; 0 where nothing is left of the residual."""
        norm = residual.norm(dim=-1, keepdim=True)
        return residual / norm.clamp(min=torch.finfo(norm.dtype).tiny) / self.R**0.5

    def _expected(self, residual: Tensor, sigma: float, noise: Tensor) -> Tensor:
        """lgd: the gradient of ``log mean_i e^l``, a mean of the samples' gradients weighted by their ``e^l``."""
        spread = self.s * (sigma**2 * _DATA_VARIANCE / (sigma**2 + _DATA_VARIANCE)) ** 0.5
        apart = residual[:, None] - spread * noise
        share = torch.softmax(-apart.square().sum(-1) / (2 * self.R), 1)
        return (share[..., None] * apart).sum(1) / self.R

    def _update(self, at: Evaluation, residual: Tensor, rows: list[int]) -> Tensor:
        """moment: ``C A' (A C A' + R)^-1 (y - A D)``. A network's C may have negative eigenvalues, which count as 0."""
        axes = torch.eye(at.x.shape[-1], dtype=at.x.dtype, device=at.x.device)[rows]
        columns = torch.stack([at.sigma**2 * at.vjp(axis.expand_as(at.x)) for axis in axes], -1)  # C A'
        inner = columns[:, rows]
        variances, turn = torch.linalg.eigh((inner + inner.mT) / 2)
        solved = (residual[:, None] @ turn) / (variances.clamp(min=0) + self.R)[:, None] @ turn.mT
        return (columns @ solved.mT)[..., 0]

    def _placed(self, observed: Tensor, at: Evaluation, rows: list[int]) -> Tensor:
        """``A'`` times values of the observed coordinates, with shape ``(n, d)``."""
        out = torch.zeros_like(at.x)
        out[:, rows] = observed
        return out
