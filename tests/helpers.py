"""What several test files share, besides fixtures."""

from __future__ import annotations

import torch


def seeded(seed: int = 0) -> torch.Generator:
    """A generator on the CPU."""
    return torch.Generator().manual_seed(seed)
