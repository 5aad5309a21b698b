"""toyguide: a lab bench for diffusion guidance on distributions that are known exactly.

Six nouns explain it: a *field* has a density and a score at every noise level; a *dataset* is a family of exact fields;
a *rule* combines fields into a guided denoiser; a *sampler* steps; an *experiment* is one run, written down; a *study*
is one claim of a paper, put to the test.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from toyguide.datasets import load_dataset
from toyguide.datasets.checkpoints import load_model
from toyguide.experiment import Experiment, Result
from toyguide.fields import Field
from toyguide.guidance import register, rule, rules

if TYPE_CHECKING:
    from toyguide import plots as plot

__version__ = "0.1.0"

__all__ = [
    "Experiment",
    "Field",
    "Result",
    "__version__",
    "load_dataset",
    "load_model",
    "plot",
    "register",
    "rule",
    "rules",
]


def __getattr__(name: str) -> Any:
    """``toyguide.plot``, the figures, which import matplotlib: once they are used."""
    if name == "plot":
        return importlib.import_module("toyguide.plots")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
