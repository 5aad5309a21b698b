"""A rule as a guider of diffusers."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.guiders import BaseGuidance
from diffusers.guiders.guider_utils import GuiderOutput
from torch import Tensor

from toyguide.bridge.carried import Carried
from toyguide.bridge.predictions import noise_levels, prediction_of
from toyguide.errors import InputError
from toyguide.guidance import Rule

__all__ = ["RuleGuider"]


class RuleGuider(BaseGuidance):
    """See :func:`toyguide.bridge.guider`.

    A guider sees predictions only; a rule also needs the points. They are the input of the model, which a hook notes
    in the conditional pass.
    """

    _input_predictions = ["pred_cond", "pred_uncond"]  # noqa: RUF012 — the base class asks for a list

    def __init__(self, rule: Rule, scheduler: Any, weak: Any = None) -> None:
        super().__init__()
        self.register_to_config(rule=repr(rule))
        self.scheduler, self.weak = scheduler, weak
        self._prediction = prediction_of(scheduler)
        self._carried = Carried(rule, weak is not None)
        self._levels: tuple[float, ...] = ()
        self._hook: Any = None
        self._seen: tuple[tuple[Any, ...], dict[str, Any]] = (), {}

    def set_state(self, step: int, num_inference_steps: int, timestep: Any) -> None:
        super().set_state(step, num_inference_steps, timestep)
        self._levels = noise_levels(self.scheduler, timestep, step)

    def prepare_inputs(self, data: dict[str, Any]) -> list[Any]:
        names = self._input_predictions[: self.num_conditions]
        return [self._prepare_batch(data, i, name) for i, name in enumerate(names)]

    def prepare_inputs_from_block_state(self, data: Any, input_fields: dict[str, Any]) -> list[Any]:
        names = self._input_predictions[: self.num_conditions]
        return [self._prepare_batch_from_block_state(input_fields, data, i, name) for i, name in enumerate(names)]

    def prepare_models(self, denoiser: torch.nn.Module) -> None:
        super().prepare_models(denoiser)
        if self.is_conditional:
            self._hook = denoiser.register_forward_pre_hook(self._note, with_kwargs=True)

    def cleanup_models(self, denoiser: torch.nn.Module) -> None:
        if self.is_conditional:
            self._hook.remove()

    @property
    def is_conditional(self) -> bool:
        return self._count_prepared == 1

    @property
    def num_conditions(self) -> int:
        return 2 if self._enabled and "uncond" in self._carried.passes.values() else 1

    def forward(self, pred_cond: Tensor, pred_uncond: Tensor | None = None) -> GuiderOutput:
        pred = self._guided(pred_cond, pred_uncond) if self._enabled else pred_cond
        return GuiderOutput(pred=pred, pred_cond=pred_cond, pred_uncond=pred_uncond)

    def _note(self, denoiser: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._seen = args, kwargs

    def _guided(self, main: Tensor, uncond: Tensor | None) -> Tensor:
        """The guided prediction, with the shape and dtype of ``main``, ``(n, ...)``."""
        args, kwargs = self._seen
        seen = args[0] if args else kwargs.get("sample", kwargs.get("hidden_states"))  # a UNet, a transformer
        if seen is None or seen.shape != main.shape:
            shape = None if seen is None else tuple(seen.shape)
            raise InputError(f"the model's input of shape {shape}: expected that of its output, {tuple(main.shape)}")
        passes = {"main": main, "uncond": uncond}
        if "weak" in self._carried.passes.values():
            with torch.no_grad():
                passes["weak"] = self.weak(*args, **kwargs)[0]
        self._seen = (), {}

        sigma = self._levels[self._step]
        x = seen.double().flatten(1) / self._prediction.scale(sigma)
        denoised = {
            name: self._prediction.to_denoised(p.double().flatten(1), x, sigma)
            for name, p in passes.items()
            if p is not None
        }
        guided = self._carried.guided(x, self._levels, self._step, denoised)
        return self._prediction.from_denoised(guided, x, sigma).reshape(main.shape).to(main.dtype)
