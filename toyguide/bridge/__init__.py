"""To real pipelines: a rule's counterpart in diffusers, and any rule as a guider there.

:func:`equivalent` translates the seven rules that diffusers has as well. :func:`guider` takes a rule of toyguide,
unchanged, into a modular pipeline of diffusers, which is imported only then.
"""

from __future__ import annotations

from typing import Any

from toyguide.bridge.counterparts import COUNTERPARTS, Counterpart, counterpart, equivalent
from toyguide.errors import InputError
from toyguide.guidance import Rule

__all__ = ["COUNTERPARTS", "Counterpart", "counterpart", "equivalent", "guider"]


def guider(rule: Rule, scheduler: Any, weak: Any = None) -> Any:
    """A rule as a guider of diffusers: ``pipeline.update_components(guider=guider(rule, pipeline.scheduler))``.

    The rule sees each sample as one point of all its coordinates, in the coordinates of toyguide, and computes in
    float64. Every field is evaluated in every step, also outside an interval.

    Args:
        rule: The rule, by itself or in an ``Interval`` or a ``Schedule``.
        scheduler: The pipeline's scheduler: ``EulerDiscreteScheduler``, ``DDIMScheduler``, ``DDPMScheduler`` or
            ``FlowMatchEulerDiscreteScheduler``.
        weak: A weaker denoiser with the inputs of the pipeline's own, for rules that need one. It is evaluated with
            the conditional inputs.

    Returns:
        A ``diffusers.guiders.BaseGuidance``.

    Raises:
        InputError: If the rule needs what a pipeline does not have, the scheduler is another one, or diffusers is not
            installed.
    """
    try:
        import diffusers  # noqa: F401
    except ImportError as problem:
        raise InputError(
            "a guider needs diffusers, which is not installed: expected pip install 'toyguide[bridge]'"
        ) from problem
    from toyguide.bridge.guider import RuleGuider

    return RuleGuider(rule, scheduler, weak)
