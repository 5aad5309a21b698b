"""What a pipeline's model sees and predicts, in the coordinates of toyguide.

A model driven by a scheduler of diffusers sees ``z = a x0 + b n`` and predicts

    epsilon            n                                               a^2 + b^2 = 1
    sample             x0                                              a^2 + b^2 = 1
    v_prediction       a n - b x0                                      a^2 + b^2 = 1
    flow_prediction    n - x0                                          a + b = 1

Then ``x = z / a`` and ``sigma = b / a``. ``EulerDiscreteScheduler`` keeps x itself and hands the model z.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from torch import Tensor

from toyguide.errors import InputError, unknown
from toyguide.fields.base import (
    denoised_from_eps,
    denoised_from_velocity,
    eps_from_denoised,
    velocity_from_denoised,
)

__all__ = ["Prediction", "noise_levels", "prediction_of"]

HIGHEST = 1e6
"""The level that stands for infinity, where a model sees noise alone: in float64 ten digits of x0 are left of it."""


@dataclass(frozen=True)
class Prediction:
    """One kind of prediction.

    Attributes:
        scale: a as a function of sigma.
        to_denoised: ``(prediction, x, sigma) -> D``, each with shape ``(n, d)``.
        from_denoised: ``(D, x, sigma) -> prediction``.
    """

    scale: Callable[[float], float]
    to_denoised: Callable[[Tensor, Tensor, float], Tensor]
    from_denoised: Callable[[Tensor, Tensor, float], Tensor]


def _preserving(sigma: float) -> float:
    return 1 / math.hypot(1, sigma)


def _denoised_from_v(v: Tensor, x: Tensor, sigma: float) -> Tensor:
    a = _preserving(sigma)
    return a * (a * x - sigma * v)


def _v_from_denoised(denoised: Tensor, x: Tensor, sigma: float) -> Tensor:
    a = _preserving(sigma)
    return (a * x - denoised / a) / sigma


_FLOW = Prediction(lambda sigma: 1 / (1 + sigma), denoised_from_velocity, velocity_from_denoised)
_PREDICTIONS = {
    "epsilon": Prediction(_preserving, denoised_from_eps, eps_from_denoised),
    "sample": Prediction(_preserving, lambda prediction, x, sigma: prediction, lambda denoised, x, sigma: denoised),
    "v_prediction": Prediction(_preserving, _denoised_from_v, _v_from_denoised),
}
_PRESERVING = (EulerDiscreteScheduler, DDIMScheduler, DDPMScheduler)


def prediction_of(scheduler: Any) -> Prediction:
    """What the model of a scheduler predicts.

    Raises:
        InputError: If the scheduler or its prediction type is none of those known here.
    """
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        return _FLOW
    if not isinstance(scheduler, _PRESERVING):
        known = [cls.__name__ for cls in (*_PRESERVING, FlowMatchEulerDiscreteScheduler)]
        raise unknown("scheduler", type(scheduler).__name__, known)
    kind = scheduler.config.prediction_type
    if kind not in _PREDICTIONS:
        raise unknown("prediction type", kind, _PREDICTIONS)
    return _PREDICTIONS[kind]


def noise_levels(scheduler: Any, timestep: Any, step: int) -> tuple[float, ...]:
    """The noise levels of the run whose step with this number, from 0, is at this timestep; the last one 0.

    Raises:
        InputError: If the timestep is none of the scheduler's.
    """
    places = (scheduler.timesteps == torch.as_tensor(timestep, device=scheduler.timesteps.device)).nonzero()
    if len(places) != 1 or int(places) < step:
        raise InputError(f"step {step} at timestep {timestep}: expected a timestep that the scheduler has once")
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        b = scheduler.sigmas[:-1].double()
        levels = b / (1 - b)
    elif isinstance(scheduler, EulerDiscreteScheduler):
        levels = scheduler.sigmas[:-1].double()
    else:
        kept = scheduler.alphas_cumprod.double()[scheduler.timesteps.long().cpu()]
        levels = ((1 - kept) / kept).sqrt()
    return (*levels[int(places) - step :].clamp(max=HIGHEST).tolist(), 0.0)
