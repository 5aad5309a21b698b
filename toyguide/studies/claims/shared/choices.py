"""Settings chosen on the other seeds, where two numbers count: outliers, and the coverage that is paid for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

__all__ = ["COVERAGE_LOSS", "fewest_outliers"]

COVERAGE_LOSS = 0.05
"""The most of the unguided coverage that a choice may cost."""

Setting = TypeVar("Setting")


def fewest_outliers(
    outliers: Mapping[Setting, Sequence[float]], coverage: Mapping[Setting, Sequence[float]], unguided: Sequence[float]
) -> list[Setting]:
    """For each seed, the setting with the fewest outliers on the other seeds, at a bounded loss of coverage there.

    A seed has no part in the choice of its own setting (unless there is only one seed), so the least of many noisy
    numbers does not pass for an effect. If every setting costs more than ``COVERAGE_LOSS``, the least loss counts.

    Args:
        outliers: By setting, one value for each seed.
        coverage: The same of the coverage.
        unguided: The unguided coverage of each seed.
    """
    settings = list(outliers)
    most = np.array([outliers[s] for s in settings])  # (settings, seeds)
    lost = np.array(unguided) - np.array([coverage[s] for s in settings])
    chosen = []
    for seed in range(most.shape[1]):
        others = [s for s in range(most.shape[1]) if s != seed] or [seed]
        excess = np.maximum(lost[:, others].mean(1) - COVERAGE_LOSS, 0.0)
        chosen.append(settings[np.lexsort((most[:, others].mean(1), excess))[0]])
    return chosen
