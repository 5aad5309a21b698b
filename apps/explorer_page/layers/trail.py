"""One sample followed through its run: what the fields, the rule and the exact density are at each of its steps.

All steps are evaluated as one batch, in float64, at the points that the sample passed. The push and a rule's memory
(SFG's direction) are those of the run itself. A field whose errors are random (dropout, noisy inputs) draws others here
than in the run: its random numbers belong to the points that are evaluated together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch
from cachetools import LRUCache
from torch import Tensor
from torch.nn.functional import cosine_similarity

from toyguide import Experiment
from toyguide.experiment import Result
from toyguide.fields import Field
from toyguide.geometry.curvature import top_eigenpair
from toyguide.guidance.sfg_diagnostics import along
from toyguide.probes import effective_scale, significant, unconditional
from toyguide.samplers import follow
from toyguide_apps.explorer_page.runs import finished, scene_of

__all__ = ["Trail", "trail"]


@dataclass(frozen=True, eq=False)
class Trail:
    """A sample's way through a run; arrays of the steps hold the values at the beginning of each.

    Attributes:
        experiment: The run.
        index: Which of its final samples this is, from 0.
        sigma: The noise levels, the last one 0, with shape ``(steps + 1,)``.
        moves: The length of ``D(x) - x`` of each field that the rule needs, by role, each with shape ``(steps,)``.
        push: The length of what the rule added to main's denoised point, with shape ``(steps,)``; 0 where it did not
            guide.
        to_main: The cosine of the push to main's move, with shape ``(steps,)``; NaN where there is no push.
        to_truth: The cosine of the push to what main's denoised point lacks to the exact one, with shape ``(steps,)``;
            NaN where there is no push, or where main is exact.
        scale: The weight of CFG that is nearest to the rule, with shape ``(steps,)``; NaN without a class, and where
            CFG would do nothing.
        beyond: The share of the push that no weight of CFG makes, from 0 to 1, like ``scale``.
        curvature: sigma^2 times the top eigenvalue of the Hessian of main's log-density, with shape ``(steps,)``.
        log_density: Of the exact field of the sampled class, in nats, with shape ``(steps + 1,)``.
        posterior: The exact probability of each class, with shape ``(steps + 1, classes)``.
        labels: The classes.
        quotient: SFG's lambda, the Rayleigh quotient of its carried direction v, with shape ``(steps,)``; NaN where it
            did not guide. None for a rule without such a direction.
        alignment: The cosine, from 0 to 1, of v to the top eigenvector of main's Hessian, like ``quotient``.
    """

    experiment: Experiment
    index: int
    sigma: np.ndarray
    moves: dict[str, np.ndarray]
    push: np.ndarray
    to_main: np.ndarray
    to_truth: np.ndarray
    scale: np.ndarray
    beyond: np.ndarray
    curvature: np.ndarray
    log_density: np.ndarray
    posterior: np.ndarray
    labels: tuple[str, ...]
    quotient: np.ndarray | None = None
    alignment: np.ndarray | None = None

    @property
    def label(self) -> str:
        """The class whose probability is drawn: the sampled one; in a run of the union, the likeliest at the end."""
        return self.experiment.label or self.labels[int(self.posterior[-1].argmax())]


# Used by the worker thread alone.
_trails: LRUCache[tuple[Experiment, int], Trail] = LRUCache(64)


def trail(experiment: Experiment, index: int, device: str, cancelled: Callable[[], bool]) -> Trail | None:
    """A sample's way through its run.

    Args:
        experiment: The run.
        index: The sample, from 0.
        device: Where to run the experiment; what is evaluated on the way is too little for a GPU.
        cancelled: Called between solver steps, if the run has to be made again.

    Returns:
        None if the run has no such sample.

    Raises:
        CancelledError: Once ``cancelled()`` is true.
    """
    if index >= experiment.n:
        return None
    key = experiment, index
    if key not in _trails:
        _trails[key] = _trail(index, *finished(experiment, device, cancelled))
    return _trails[key]


@torch.no_grad()
def _trail(index: int, result: Result, pushes: Tensor) -> Trail:
    experiment, rows = result.experiment, _rows(result, index)
    x = result.x[torch.arange(len(rows)), rows].double()
    sigma = experiment.levels()
    points, levels = x[:-1], sigma[:-1]  # a learned field has no value at 0
    scene, data = scene_of(experiment, "cpu"), experiment.data
    exact, main = data.field(experiment.label), scene.field("main")
    fields = {role: field for role, field in scene.fields.items() if isinstance(field, Field)}
    moves = {role: field.denoise(points, levels) - points for role, field in fields.items()}
    push = pushes[:, index].double()
    lacking = exact.denoise(points, levels) - points - moves["main"]
    if main is exact:
        lacking.zero_()  # not the rounding error of two ways to compute the same
    scale, beyond = _as_cfg(experiment, fields, points, levels, push)
    curvature = levels**2 * top_eigenpair(main.hessian(points, levels))[0]
    quotient, alignment = _iteration(result, rows, main)
    return Trail(
        experiment=experiment,
        index=index,
        sigma=sigma.numpy(),
        moves={role: move.norm(dim=-1).numpy() for role, move in moves.items()},
        push=push.norm(dim=-1).numpy(),
        to_main=_cosine(push, moves["main"]),
        to_truth=_cosine(push, lacking),
        scale=scale,
        beyond=beyond,
        curvature=curvature.numpy(),
        log_density=exact.log_density(x, sigma).numpy(),
        posterior=data.posterior(x, sigma).numpy(),
        labels=data.labels,
        quotient=quotient,
        alignment=alignment,
    )


def _as_cfg(
    experiment: Experiment, fields: Mapping[str, Field], points: Tensor, levels: Tensor, push: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """CFG's nearest weight, and the share of the push that it leaves."""
    uncond = fields.get("uncond") or unconditional(experiment)
    if uncond is None:
        return np.full(len(points), np.nan), np.full(len(points), np.nan)
    denoised = fields["main"].denoise(points, levels)
    gap = significant(denoised - uncond.denoise(points, levels), denoised, levels)
    scale, residual = effective_scale(push, gap)
    share = residual.norm(dim=-1) / push.norm(dim=-1)  # NaN without a push
    return scale.numpy(), share.where(scale.isfinite(), torch.nan).numpy()


def _rows(result: Result, index: int) -> Tensor:
    """The row of a final sample's ancestor at every level, with shape ``(steps + 1,)``."""
    levels, n, _ = result.x.shape
    rows = torch.arange(n).expand(levels, n)[..., None]
    return (rows if result.ancestors is None else follow(rows, list(result.ancestors)))[:, index, 0]


def _iteration(result: Result, rows: Tensor, main: Field) -> tuple[np.ndarray | None, np.ndarray | None]:
    """What SFG carried along the way: lambda, and the cosine of v to the top eigenvector."""
    if not {"v", "lambda"} <= set(result.trace):
        return None, None
    steps = torch.arange(len(rows) - 1)
    own = {name: values[steps, rows[:-1]][:, None] for name, values in result.trace.items()}
    points = result.x[torch.arange(len(rows)), rows][:, None]
    inside = along(SimpleNamespace(x=points, sigma=result.sigma, trace=own), main)
    return inside.lam[:, 0].numpy(), inside.angle[:, 0].deg2rad().cos().numpy()


def _cosine(a: Tensor, b: Tensor) -> np.ndarray:
    """Of vectors (n, d); NaN where one of them vanishes."""
    defined = a.any(-1) & b.any(-1)
    return cosine_similarity(a, b, dim=-1, eps=1e-300).where(defined, torch.nan).numpy()
