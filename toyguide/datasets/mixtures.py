"""What every family of datasets becomes: one mixture whose components belong to classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from toyguide.fields.mixtures import GaussianMixture

__all__ = ["LabelledMixture", "classified"]


@dataclass(frozen=True)
class LabelledMixture:
    """All classes' components in one mixture.

    Attributes:
        mixture: The union of the classes.
        labels: The classes' names, in order.
        component_label: The index into ``labels`` of each component, with shape ``(K,)``.
        component_branch: The branch of each component, with shape ``(K,)``; the component itself where the family
            has no branches.
        branch_level: The depth of each branch in its tree, with shape ``(branches,)``, or None without a tree.
        note: What a description of the dataset should say about how it was made; empty for nothing.
    """

    mixture: GaussianMixture
    labels: tuple[str, ...]
    component_label: Tensor
    component_branch: Tensor
    branch_level: Tensor | None = None
    note: str = ""


def classified(mixture: GaussianMixture, names: list[str], note: str = "") -> LabelledMixture:
    """Components with the name of each one's class; classes in order of appearance."""
    position = {name: i for i, name in enumerate(dict.fromkeys(names))}
    index = torch.tensor([position[name] for name in names])
    return LabelledMixture(mixture, tuple(position), index, torch.arange(len(names)), note=note)
