"""The edge between two classes as curves: the densities, their top curvature and the posterior along the line."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from toyguide.datasets import load_dataset
from toyguide.fields import Field
from toyguide.geometry.profiles import edge_profile
from toyguide_apps.explorer_page.layers.densities import Spot

__all__ = ["Profile", "profile"]

_POINTS = 161
_OVERSHOOT = 0.25  # of the edge, beyond each end


@dataclass(frozen=True, eq=False)
class Profile:
    """What lies along the line through two classes' means.

    Attributes:
        ends: The classes.
        t: The place on the line, 0 at the first mean and 1 at the second, float32.
        log_density: By field (``exact`` the union's, ``learned``), less its highest value on the line.
        curvature: By field, sigma^2 times the top eigenvalue.
        posterior: The exact probabilities of the two classes, with shape ``(2, n)``.
        saddle: The place between the means where the exact density is lowest, if it has a peak on both sides of it.
        learned: What the learned field is called; empty if none models the union.
        sigma: The noise level.
    """

    ends: tuple[str, str]
    t: np.ndarray
    log_density: dict[str, np.ndarray]
    curvature: dict[str, np.ndarray]
    posterior: np.ndarray
    saddle: float | None
    learned: str
    sigma: float


@lru_cache(maxsize=64)
@torch.no_grad()
def profile(spot: Spot, ends: tuple[str, str], learned: str, role: str) -> Profile:
    """The profile of an edge.

    Args:
        spot: The dataset and the noise level.
        ends: The two classes.
        learned: A learned field of the union by reference, or empty.
        role: What that field is used as.
    """
    data = load_dataset(spot.dataset)
    fields: dict[str, Field] = {"exact": data.field()}
    if learned:
        fields["learned"] = spot.field(learned, role)
    along = {
        k: edge_profile(data, *ends, spot.sigma, field=f, n=_POINTS, overshoot=_OVERSHOOT) for k, f in fields.items()
    }
    exact = along["exact"]
    inside = (exact.t > 0) & (exact.t < 1)
    values = exact.log_density
    lowest = int(torch.where(inside, values, torch.inf).argmin())
    t = float(exact.t[lowest])
    falls = values[lowest] < min(values[:lowest].max(), values[lowest + 1 :].max())
    return Profile(
        ends=ends,
        t=exact.t.float().numpy(),
        log_density={k: (p.log_density - p.log_density.max()).float().numpy() for k, p in along.items()},
        curvature={k: (spot.sigma**2 * p.top_eigenvalue).float().numpy() for k, p in along.items()},
        posterior=exact.posterior[:, [data.labels.index(end) for end in ends]].float().numpy().T,
        saddle=t if falls else None,
        learned=learned,
        sigma=spot.sigma,
    )
