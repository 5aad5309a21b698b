"""Rectified classifier-free guidance (ReCFG): the unconditional noise is rescaled so that guidance adds no bias.

    eps = eps_main + (w - 1)(eps_main - R eps_uncond),   R_i = E_c[eps_main,i eps_uncond,i] / E_c[eps_uncond,i^2]

with the expectations over the noised data of the class, for each noise level and each coordinate i: what is added is on
average not correlated with the unconditional noise. The weights do not sum to one, so the space matters. For exact
fields ``R_i = -E_c[d_i s_uncond,i] / E_c[s_uncond,i^2]``, by parts. If both are Gaussians around one centre, R is the
ratio of their variances and nothing is left to add: the conditional distribution is sampled whatever w.

R is tabulated on 4096 points of the dataset's class, a scrambled Sobol sequence with a fixed seed: on the fractal,
where R differs from 1 by up to 0.008, its error is at most 0.002, a sixth of that of random points. A run of fields
without a dataset takes points of the main field if that is a mixture; else there is nothing to tabulate on, R is 1, and
the rule is CFG.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from toyguide.fields import Field, eps_from_denoised
from toyguide.fields.mixtures import GaussianMixture
from toyguide.guidance.base import PerTrajectory, Rule
from toyguide.guidance.evaluation import Evaluation, Guided
from toyguide.targets import Target

_POINTS = 4096  # a power of 2, as Sobol's sequence needs
_SEED = 0


class RectifiedCfg(Rule):
    """See the module's docstring; what the table takes is not counted, since it is made once for all runs."""

    key = "recfg"
    title = "Rectified CFG (ReCFG)"
    short = "ReCFG"
    formula = (
        r"\epsilon = \epsilon_\mathrm{main} + (w-1)\,(\epsilon_\mathrm{main} - R(\sigma)\,\epsilon_\mathrm{uncond}),"
        r" \qquad R_i = \frac{\mathbb{E}_c[\epsilon_{\mathrm{main},i}\,\epsilon_{\mathrm{uncond},i}]}"
        r"{\mathbb{E}_c[\epsilon_{\mathrm{uncond},i}^2]}"
    )
    source = (
        "Xia et al., Rectified Diffusion Guidance for Conditional Generation, 2024, arXiv 2410.18737, and their code"
    )
    summary = (
        "CFG with the unconditional noise rescaled for each noise level and coordinate. It takes out all of the bias "
        "where the class and the union are Gaussians around one centre; where classes lie beside each other, as in the "
        "fractal, the factor is near 1 and it is nearly CFG."
    )
    family = "Several fields"
    needs = ("main", "uncond")
    unguided = {"w": 1.0}
    off = {"w": 1.0}
    equivariant = ("translation",)
    batchable = True

    w = PerTrajectory(4.0, bounds=(0.0, 30.0), softbounds=(0.0, 10.0), step=0.1, doc="Guidance weight; 1 is unguided.")

    def target(self) -> Target:
        return Target({"main": self.w, "uncond": 1 - self.w})

    def guide(self, at: Evaluation, memory: Any) -> Guided:
        main, uncond = at.denoised_each("main", "uncond")
        r = _ratio_at(at)
        return Guided(main + (self.w - 1) * (main - at.x - r * (uncond - at.x)))


def _ratio_at(at: Evaluation) -> Tensor | float:
    main = at.field("main")
    source = main if at.data is None else at.data.field(at.label)
    if not isinstance(source, GaussianMixture):
        return 1.0
    return ratio(main, at.field("uncond"), source, at.sigma, at.x.dtype, at.x.device)


# The exact fields of a dataset are the same objects in all runs. A network is loaded for each, and its table made anew.
@lru_cache(maxsize=256)
def ratio(
    main: Field, uncond: Field, source: GaussianMixture, sigma: float, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """R at a noise level, with shape ``(d,)``.

    Args:
        main: The conditional field.
        uncond: The unconditional field.
        source: The data of the class.
        sigma: The noise level, positive.
        dtype: Of the fields' values.
        device: Where the fields are.
    """
    x = spread(source, sigma).to(device, dtype)
    eps_main, eps_uncond = (eps_from_denoised(f.denoise(x, sigma), x, sigma).double() for f in (main, uncond))
    return ((eps_main * eps_uncond).mean(0) / eps_uncond.square().mean(0)).to(dtype)


def spread(source: GaussianMixture, sigma: float) -> Tensor:
    """Points that fill ``p(x; sigma)`` evenly, with shape ``(4096, d)``, float64."""
    z = _even_normals(source.dim + 1)
    component = torch.searchsorted(source.weights.cumsum(0), torch.special.ndtr(z[:, 0])).clamp(max=len(source) - 1)
    noised = source.covariances + sigma**2 * torch.eye(source.dim, dtype=torch.float64)
    roots = torch.linalg.cholesky(noised)[component]
    return source.means[component] + (roots @ z[:, 1:, None])[..., 0]


@lru_cache(maxsize=8)
def _even_normals(dim: int) -> Tensor:
    from scipy.stats.qmc import MultivariateNormalQMC  # slow to import

    return torch.from_numpy(MultivariateNormalQMC(np.zeros(dim), seed=_SEED).random(_POINTS))
