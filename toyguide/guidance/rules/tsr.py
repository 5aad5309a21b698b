"""Temporal score rescaling: the score multiplied by a factor that depends on the noise level.

    s = rho(sigma) s_main,   rho = (t^2 + sigma^2) / (t^2 / k + sigma^2),   D = x + rho (D_main - x)

If the data are ``N(m, t^2)``, s is the score of ``N(m, t^2 / k)`` with noise, at every level: k > 1 sharpens, k < 1
widens. Where parts of that size lie far apart, each is sharpened by itself and keeps its weight. As t grows, rho tends
to k: naive score scaling.
"""

from __future__ import annotations

import math
from typing import Any

from toyguide.guidance.base import Limit, PerTrajectory, Rule
from toyguide.guidance.evaluation import Evaluation, Guided


class TemporalScoreRescaling(Rule):
    """See the module's docstring; evaluates ``main`` once.

    The paper's k is 0.93 for images; the default here is that of score scaling. Its ports' t is 1 for data of standard
    deviation 1, hence 0.5 here.
    """

    key = "tsr"
    title = "Temporal score rescaling (reconstruction)"
    short = "TSR"
    formula = r"D = x + \rho\,(D_\mathrm{main} - x), \qquad \rho = \frac{t^2 + \sigma^2}{t^2/k + \sigma^2}"
    source = "arXiv 2510.01184; the formula as two independent ports have it"
    summary = (
        "Multiplies the score by almost 1 at high noise and by k at low, so that each part of the data of size t "
        "becomes narrower by the factor √k and keeps its weight. Exact for one Gaussian; the better partner of score "
        "scaling, needs no second field."
    )
    unguided = {"k": 1.0}
    off = {"k": 1.0, "t": math.inf}
    limits = (Limit({"t": math.inf}, "score-scaling", same=("k",)),)
    batchable = True

    k = PerTrajectory(
        1.4, bounds=(0.0, 30.0), softbounds=(0.5, 3.0), step=0.05, doc="Divides a part's variance; 1 is unguided."
    )
    t = PerTrajectory(
        0.5,
        bounds=(1e-4, math.inf),
        softbounds=(0.01, 2.0),
        step=0.01,
        doc="Standard deviation of the parts to sharpen, in units of the data; inf is score scaling.",
    )

    def guide(self, at: Evaluation, memory: Any) -> Guided:
        noise = (at.sigma / self.t) ** 2
        rho = self.k * (1 + noise) / (1 + self.k * noise)
        return Guided(at.x + rho * (at.denoised("main") - at.x))
