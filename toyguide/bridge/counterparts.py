"""The guiders of diffusers that compute what a rule does, with their arguments.

diffusers acts on what the model predicts, whatever that is; a rule of toyguide lives in one space. Where weights sum to
one (CFG, autoguidance) both agree in every space. Elsewhere they agree only for models that predict the rule's own one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from toyguide.errors import InputError
from toyguide.guidance import Interval, Rule

__all__ = ["COUNTERPARTS", "Counterpart", "counterpart", "equivalent"]

_EVERY = "models of every prediction type"


@dataclass(frozen=True)
class Counterpart:
    """A guider of diffusers.

    Attributes:
        guider: The name of its class in ``diffusers.guiders``.
        arguments: From a rule's values to the arguments of the class.
        agrees: The models for which it computes what the rule does.
        without: What has no counterpart, by name, and why.
    """

    guider: str
    arguments: Callable[[dict[str, Any]], dict[str, Any]]
    agrees: str = _EVERY
    without: tuple[tuple[str, str], ...] = ()


def _apg(values: dict[str, Any]) -> dict[str, Any]:
    clipped_away = values["r"] == 0  # which diffusers reads as no clip
    return {
        "guidance_scale": 0.0 if clipped_away else values["w"] - 1,
        "adaptive_projected_guidance_momentum": values["beta"],
        "adaptive_projected_guidance_rescale": 0.0 if values["r"] == math.inf else values["r"],
        "eta": values["eta"],
        "use_original_formulation": True,  # the other one adds the projected update to uncond
    }


COUNTERPARTS = {
    "cfg": Counterpart("ClassifierFreeGuidance", lambda v: {"guidance_scale": v["w"]}),
    "autoguidance": Counterpart(
        "AutoGuidance",
        lambda v: {"guidance_scale": v["w"]},
        without=(("weak", "the class makes it from the model; add auto_guidance_layers and dropout"),),
    ),
    "apg": Counterpart(
        "AdaptiveProjectedGuidance", _apg, 'models that predict the clean sample (prediction_type "sample")'
    ),
    "cfg-zero-star": Counterpart(
        "ClassifierFreeZeroStarGuidance",
        lambda v: {"guidance_scale": v["w"], "zero_init_steps": v["K"]},
        "flow-matching models, in runs of more than K steps",
    ),
    "raag": Counterpart(
        "MagnitudeAwareGuidance",
        lambda v: {"guidance_scale": v["w"], "alpha": v["alpha"]},
        "flow-matching models with latents of shape (n, tokens, channels); of others it cannot take the norm",
    ),
    "tcfg": Counterpart(
        "TangentialClassifierFreeGuidance",
        lambda v: {"guidance_scale": v["w"]},
        'models that predict the noise (prediction_type "epsilon")',
    ),
}
"""The guiders by the name of the rule."""


def counterpart(rule: Rule) -> Counterpart:
    """The guider of diffusers for a rule, by itself or in an ``Interval``.

    Raises:
        InputError: If there is none.
    """
    inner = rule.rule if isinstance(rule, Interval) else rule
    if inner.key not in COUNTERPARTS:
        raise InputError(
            f"rule {inner.key or type(inner).__name__!r}: diffusers has no guider for it, expected one of"
            f" {', '.join(COUNTERPARTS)}; many others run there by toyguide.bridge.guider"
        )
    return COUNTERPARTS[inner.key]


def equivalent(rule: Rule, levels: Sequence[float] = ()) -> tuple[str, dict[str, Any]]:
    """The class of ``diffusers.guiders`` that computes what a rule does, and its arguments.

    Weights count as in diffusers: 1 is unguided, but for APG, whose original formulation counts from 0.

    Args:
        rule: The rule, by itself or in an ``Interval``.
        levels: For an interval, the noise level sigma of each step of the pipeline's run, falling. diffusers counts
            its interval in fractions of the steps.

    Raises:
        InputError: If diffusers has no guider for the rule, or the levels are missing or do not fall.
    """
    found = counterpart(rule)
    if not isinstance(rule, Interval):
        return found.guider, found.arguments(rule.values())
    span = _span(rule, levels)
    if rule.rule.values().get("K") and span["start"] > 0:
        raise InputError("K: diffusers stands still in the first steps also outside an interval, expected K = 0")
    return found.guider, {**found.arguments(rule.rule.values()), **span}


def _span(rule: Interval, levels: Sequence[float]) -> dict[str, float]:
    """The guided steps as fractions: from ``int(start N)`` on, and before ``int(stop N)``."""
    steps = [float(level) for level in levels if level > 0]
    if not steps or any(above <= below for above, below in itertools.pairwise(steps)):
        raise InputError("levels: an interval needs the noise level of each step, expected falling positive numbers")
    guided = [i for i, sigma in enumerate(steps) if rule.low < sigma <= rule.high]
    if not guided:
        return {"start": 0.0, "stop": 0.0}
    return {"start": _fraction(guided[0], len(steps)), "stop": _fraction(guided[-1] + 1, len(steps))}


def _fraction(step: int, steps: int) -> float:
    """The fraction that diffusers reads as ``step``: rounding must not take ``int(fraction * steps)`` below it."""
    fraction = step / steps
    return fraction if int(fraction * steps) == step else math.nextafter(fraction, 1.0)
