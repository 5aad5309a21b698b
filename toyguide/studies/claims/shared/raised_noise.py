"""Two exact fields at raised noise levels, and the weight at which guidance by the worse corrects the other."""

from __future__ import annotations

import torch

from toyguide.experiment import Experiment

__all__ = ["closed_form", "score_error_weight"]


def closed_form(main_share: float, weak_share: float) -> float:
    """The weight that corrects noise levels raised by these shares, to first order: ``d0 / (d0 - d1)``.

    ``d`` is the relative increase of sigma squared: 0.21 and 0.44 for 10 % and 20 %, which give 1.91.
    """
    d1, d0 = (1 + main_share) ** 2 - 1, (1 + weak_share) ** 2 - 1
    return d0 / (d0 - d1)


def score_error_weight(main_share: float, weak_share: float, n: int, seed: int) -> float:
    """The weight of the least score error of two exact fields of class A at levels raised by these shares.

    ``E sigma^2 |s_w - s|^2``, over a run's levels and n exact diffused points at each, is a parabola in w.
    """
    e = Experiment("fractal", "A", main="exact")
    exact, generator = e.data.field(e.label), torch.Generator().manual_seed(seed)
    along = square = 0.0
    for sigma in e.levels()[:-1].tolist():
        x = exact.sample(n, sigma, generator).double()
        s, s1, s0 = (exact.score(x, sigma * (1 + share)) for share in (0.0, main_share, weak_share))
        along += sigma**2 * float(((s - s1) * (s1 - s0)).sum())
        square += sigma**2 * float((s1 - s0).square().sum())
    return 1 + along / square
