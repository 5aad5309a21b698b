"""Runs of experiments as the explorer draws them: projected on the plane, measured, and cached."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from cachetools import LRUCache

from toyguide import Experiment
from toyguide.datasets import load_dataset
from toyguide.datasets.classifiers import Classifier
from toyguide.datasets.references import resolve
from toyguide.datasets.roles import Role
from toyguide.devices import resolve_device
from toyguide.errors import InputError
from toyguide.experiment import Result
from toyguide.fields import Field
from toyguide.guidance import Scene
from toyguide.metrics import Difference, Features, differences, features_of, hdr_threshold, reference
from toyguide.samplers import Step, follow
from toyguide_apps.explorer_page.planes import Anchors, home_window, plane
from toyguide_apps.explorer_page.roles import known_roles

__all__ = ["CancelledError", "Paths", "changes", "field", "finished", "run_paths", "scene_of", "truth"]

RESAMPLES = 100  # of the bootstrap: its interval is read off a slider, not published


class CancelledError(Exception):
    """The result is no longer wanted."""


@dataclass(frozen=True, eq=False)
class Paths:
    """One run, drawn.

    Attributes:
        experiment: What was run.
        frames: The points at every level, with shape ``(steps + 1, n, 2)``; NaN where they are not finite. Where a
            step resampled, the path of a sample is that of its ancestors. Of a coarse run, ``n`` is less than the
            experiment's.
        pushes: What the rule added to the denoised points at each step, with shape ``(steps, n, 2)``.
        sigma: The levels.
        push_sizes: The root mean square of the push over the samples at each step, in all dimensions.
        outlier: Which samples end outside the exact 99 % region, with shape ``(n,)``; diverged ones do.
        log_density: The exact log-density of the final samples, float32.
        branch: The likeliest branch of each final sample, int16.
        metrics: The metrics of the final samples; empty for a coarse run.
        milliseconds: Time of the sampling.
        diverged: How many trajectories ended outside the finite numbers.
        far: How many others ended further from the dataset's window than it is wide, out of sight.
        warnings: What the library has to say about the experiment, one line each.
    """

    experiment: Experiment
    frames: np.ndarray
    pushes: np.ndarray
    push_sizes: tuple[float, ...]
    sigma: tuple[float, ...]
    outlier: np.ndarray
    log_density: np.ndarray
    branch: np.ndarray
    metrics: dict[str, Any]
    milliseconds: float
    diverged: int
    far: int
    warnings: tuple[str, ...]

    @property
    def coarse(self) -> bool:
        """Whether these are only the first of the experiment's trajectories, as a preview."""
        return self.frames.shape[1] < self.experiment.n


@dataclass(frozen=True, eq=False)
class _Run:
    """A finished run with its metrics, in all dimensions."""

    result: Result
    pushes: torch.Tensor
    outlier: np.ndarray
    log_density: np.ndarray
    branch: np.ndarray
    features: Features
    metrics: dict[str, Any]


# Finished runs only; a cancelled one leaves nothing. Used by the worker thread alone.
_paths: LRUCache[tuple[Experiment, Anchors, int], Paths] = LRUCache(64)
# The last few in all dimensions, for another plane through the same samples.
_runs: LRUCache[tuple[Experiment, int], _Run] = LRUCache(8)


def run_paths(
    experiment: Experiment,
    device: str,
    cancelled: Callable[[], bool],
    first: int | None = None,
    anchors: Anchors = (),
) -> Paths:
    """Run an experiment, or take it from the cache.

    Args:
        experiment: What to run.
        device: Where.
        cancelled: Called between solver steps.
        first: Run only the first so many trajectories, as a preview, unless all of them are cached or the rule lets
            them interact.
        anchors: The plane that it is drawn in.

    Raises:
        CancelledError: Between two solver steps, once ``cancelled()`` is true.
        InputError: If the experiment's fields do not fit.
    """
    # Part of the points is no preview of a rule whose points see each other.
    n = experiment.n if experiment.build_rule().interacts else min(first or experiment.n, experiment.n)
    for count in (experiment.n, n):
        if (experiment, anchors, count) in _paths:
            return _paths[experiment, anchors, count]
    if n < experiment.n and (experiment, experiment.n) in _runs:
        n = experiment.n  # all of them are cached, in another plane
    _paths[experiment, anchors, n] = _drawn(_kept(experiment, device, cancelled, n), anchors)
    return _paths[experiment, anchors, n]


def finished(experiment: Experiment, device: str, cancelled: Callable[[], bool]) -> tuple[Result, torch.Tensor]:
    """A whole run in all dimensions, run again unless it is one of the last few.

    Returns:
        The run, and what the rule added to the denoised points at each step, along the paths that led to the final
        points, with shape ``(steps, n, d)``.

    Raises:
        CancelledError: Between two solver steps, once ``cancelled()`` is true.
        InputError: If the experiment's fields do not fit.
    """
    run = _kept(experiment, device, cancelled, experiment.n)
    return run.result, run.pushes


def _kept(experiment: Experiment, device: str, cancelled: Callable[[], bool], n: int) -> _Run:
    if (experiment, n) not in _runs:
        _runs[experiment, n] = _run(experiment, device, cancelled, n)
    return _runs[experiment, n]


def _run(experiment: Experiment, device: str, cancelled: Callable[[], bool], n: int) -> _Run:
    steps = []
    fields = scene_of(experiment, device).fields
    began = time.perf_counter()
    for step in experiment.walk(device, fields, n):
        if cancelled():
            raise CancelledError
        steps.append(step)
    result = Result.of(experiment, steps, time.perf_counter() - began)
    final = result.x[-1]
    features = features_of(final, experiment.data, experiment.label)
    log_density = torch.where(features.finite, features.log_density, torch.nan)
    inside = log_density >= hdr_threshold(experiment.data, experiment.label)
    return _Run(
        result=result,
        pushes=_pushes(steps, result),
        outlier=~(inside & final.isfinite().all(-1)).numpy(),
        log_density=log_density.float().numpy(),
        branch=features.responsibilities.argmax(-1).numpy().astype(np.int16),
        features=features,
        metrics=result.metrics(resamples=RESAMPLES, features=features) if n == experiment.n else {},
    )


def _pushes(steps: list[Step], result: Result) -> torch.Tensor:
    """What the rule added at the beginning of each step, along the paths that led to the final points; zero where the
    rule did not look at the main field."""
    pushes = [torch.zeros_like(s.x) if s.push is None else s.push for s in steps[1:]]
    stacked = torch.stack([*pushes, torch.zeros_like(steps[-1].x)]).cpu()
    return stacked[:-1] if result.ancestors is None else follow(stacked, list(result.ancestors))[:-1]


def _drawn(run: _Run, anchors: Anchors) -> Paths:
    result, experiment = run.result, run.result.experiment
    surface = plane(experiment.dataset, anchors)
    left, bottom, right, top = home_window(experiment.dataset, anchors)
    middle = torch.tensor([(left + right) / 2, (bottom + top) / 2])
    final = result.x[-1]
    off = (surface.project(final) - middle).abs().amax(-1) > 1.5 * (right - left)
    return Paths(
        experiment=experiment,
        frames=_finite(surface.project(result.paths())),
        pushes=_finite(surface.project_vectors(run.pushes)),
        push_sizes=tuple(run.pushes.square().sum(-1).nanmean(-1).sqrt().tolist()),
        sigma=tuple(result.sigma.tolist()),
        outlier=run.outlier,
        log_density=run.log_density,
        branch=run.branch,
        metrics=run.metrics,
        milliseconds=1e3 * result.seconds,
        diverged=result.diverged,
        far=int((off & final.isfinite().all(-1)).sum()),
        warnings=tuple(experiment.warnings()),
    )


# Of pairs of runs, by their experiments. Used by the worker thread alone.
_changes: LRUCache[tuple[Experiment, Experiment], dict[str, Difference]] = LRUCache(256)


def changes(first: Experiment, second: Experiment, device: str, cancelled: Callable[[], bool]) -> dict[str, Difference]:
    """How the metrics of a run differ from another's, pair by pair of samples; none if they sample other things."""
    same = (first.dataset, first.label, first.n) == (second.dataset, second.label, second.n)
    if first == second or not same or any(e.build_rule().interacts for e in (first, second)):
        return {}
    if (first, second) not in _changes:
        one, other = (_kept(e, device, cancelled, e.n).features for e in (first, second))
        _changes[first, second] = differences(one, other, resamples=RESAMPLES)
    return _changes[first, second]


@lru_cache(maxsize=64)
def truth(dataset: str, label: str | None, n: int) -> dict[str, Any]:
    """The metrics of an exact sample of the same size."""
    return reference(load_dataset(dataset), label, n, seed=1)


def scene_of(experiment: Experiment, device: str) -> Scene:
    """What stays the same during the experiment's run; its fields are loaded once for all sessions."""
    e, given = experiment, experiment.references()
    fields = {name: _loaded(str(given[name]), e.dataset, e.label, role, device) for name, role in e.roles().items()}
    return e.scene(device, fields)


def field(reference: str, dataset: str, label: str | None, role: str, device: str) -> Field:
    """A field by reference, loaded once for all sessions."""
    found = _loaded(reference, dataset, label, known_roles()[role], device)
    if isinstance(found, Classifier):
        raise InputError(f"field {reference!r}: is a classifier, expected a field")
    return found


@lru_cache(maxsize=128)
def _loaded(reference: str, dataset: str, label: str | None, role: Role, device: str) -> Field | Classifier:
    found = resolve(reference, load_dataset(dataset), label, role)
    return found.to(resolve_device(device)) if isinstance(found, torch.nn.Module) else found


def _finite(x: torch.Tensor) -> np.ndarray:
    return torch.where(x.isfinite(), x, torch.nan).float().numpy()
