"""One point of the plane: the fields there, each rule's terms, and the trajectory from there on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from cachetools import LRUCache
from torch import Tensor

from toyguide import Experiment
from toyguide.datasets import load_dataset
from toyguide.fields import Field
from toyguide.geometry.regions import regions
from toyguide.guidance import Evaluation, Settled
from toyguide.guidance.probe import guided_at
from toyguide.metrics import hdr_threshold
from toyguide.samplers import sampler, trajectory
from toyguide_apps.explorer_page.layers.densities import Spot
from toyguide_apps.explorer_page.panels import nearest
from toyguide_apps.explorer_page.runs import scene_of

__all__ = ["SETTLE", "At", "Inspection", "Terms", "inspect", "terms"]

SETTLE = 20
"""Updates of a rule's memory at the point before its terms are taken, as in a run it has had many."""


@dataclass(frozen=True, eq=False)
class At:
    """A field at the point.

    Attributes:
        log_density: The log-density; a learned field's is unnormalised.
        score: The score, with shape ``(d,)``.
        eigenvalues: Of the log-density's Hessian, falling, with shape ``(d,)``.
        eigenvectors: Theirs, of unit length, one per row, with shape ``(d, d)``.
    """

    log_density: float
    score: np.ndarray
    eigenvalues: np.ndarray
    eigenvectors: np.ndarray


@dataclass(frozen=True, eq=False)
class Terms:
    """A rule's terms at the point.

    Attributes:
        experiment: The run that the rule belongs to.
        moves: ``D(x) - x`` of each field that the rule needs, by role, each with shape ``(d,)``.
        push: What the rule adds to the main field's denoised point, with shape ``(d,)``.
        guided: The guided denoised point less the point, with shape ``(d,)``.
        path: The trajectory from the point on, in the plane, with shape ``(steps + 1, 2)``.
        remembers: Whether the rule has a memory, which has then settled at the point.
    """

    experiment: Experiment
    moves: dict[str, np.ndarray]
    push: np.ndarray
    guided: np.ndarray
    path: np.ndarray
    remembers: bool


@dataclass(frozen=True, eq=False)
class Inspection:
    """What is known about the point.

    Attributes:
        uv: Its coordinates in the plane.
        x: The point itself, with shape ``(d,)``.
        axes: The plane's axes, with shape ``(2, d)``: what brings a direction into the plane.
        sigma: The noise level that it is looked at.
        at_end: Whether the time line stands at 0, so that this is the last level above it.
        exact: The exact field there.
        main: The field that is sampled.
        main_name: What that is called.
        source: Which of the two the picture's curvature is taken from, ``exact`` or ``learned``.
        region: ``mode``, ``saddle`` or ``tail``, of the exact field.
        posterior: The exact probability of each class.
        labels: The classes.
        terms: The terms of each panel's rule.
    """

    uv: tuple[float, float]
    x: np.ndarray
    axes: np.ndarray
    sigma: float
    at_end: bool
    exact: At
    main: At
    main_name: str
    source: str
    region: str
    posterior: np.ndarray
    labels: tuple[str, ...]
    terms: tuple[Terms, ...]

    @property
    def shown(self) -> At:
        """The field whose eigenvectors are drawn."""
        return self.main if self.source == "learned" else self.exact


@torch.no_grad()
def inspect(spot: Spot, uv: tuple[float, float], runs: tuple[Experiment, ...], source: str, at_end: bool) -> Inspection:
    """Evaluate the fields and the rules at a point.

    Args:
        spot: The plane and the noise level, positive.
        uv: The point's coordinates in the plane.
        runs: The panels' experiments. The fields are those of the last one.
        source: ``exact`` or ``learned``.
        at_end: Whether the time line is at sigma = 0.
    """
    data = load_dataset(spot.dataset)
    x = spot.plane.embed(torch.tensor(uv, dtype=torch.float64))
    exact = data.field(spot.label)
    name = str(runs[-1].main)
    kind = regions(exact, x, spot.sigma, hdr_threshold(data, spot.label, spot.sigma))
    return Inspection(
        uv=uv,
        x=x.numpy(),
        axes=spot.plane.axes.numpy(),
        sigma=spot.sigma,
        at_end=at_end,
        exact=_at(exact, x, spot.sigma),
        main=_at(spot.field(name), x.float().to(spot.device), spot.sigma),
        main_name=name,
        source=source,
        region=("mode", "saddle", "tail")[int(kind)],
        posterior=data.posterior(x, spot.sigma).numpy(),
        labels=data.labels,
        terms=tuple(terms(spot, uv, e) for e in runs),
    )


def _at(field: Field, x: Tensor, sigma: float) -> At:
    values, vectors = torch.linalg.eigh(field.hessian(x, sigma).double().cpu())
    return At(
        float(field.log_density(x, sigma)),
        field.score(x, sigma).double().cpu().numpy(),
        values.flip(0).numpy(),
        vectors.mT.flip(0).numpy(),
    )


# While one rule's slider is dragged, the other rules' terms are reused. Used by the worker thread alone.
_terms: LRUCache[tuple[Spot, tuple[float, float], Experiment], Terms] = LRUCache(64)


@torch.no_grad()
def terms(spot: Spot, uv: tuple[float, float], experiment: Experiment) -> Terms:
    """A rule's terms at a point and the trajectory from there, at the run's noise level nearest to the spot's.

    Args:
        spot: The plane and the noise level, positive.
        uv: The point's coordinates in the plane.
        experiment: The run.
    """
    key = spot, uv, experiment
    if key in _terms:
        return _terms[key]
    levels = experiment.levels()
    levels = levels[nearest(levels.tolist(), spot.sigma) :]
    sigma = float(levels[0])
    x = spot.plane.embed(torch.tensor([uv], dtype=torch.float64)).float().to(spot.device)
    scene = scene_of(experiment, spot.device)
    settled = Settled(experiment.build_rule(), SETTLE)
    found = guided_at(settled, scene, x, sigma, experiment.seed)
    by_name = {name: value[0].double().cpu().numpy() for name, value in found.items()}
    here = x[0].double().cpu().numpy()
    generator = torch.Generator().manual_seed(experiment.seed)
    _, memory = settled.begin(Evaluation(scene, x, sigma), generator.clone_state())
    walked = trajectory(settled, scene, sampler(experiment.sampler), x, levels, generator)
    path = spot.plane.project(torch.cat([s.x for s in walked]))
    _terms[key] = Terms(
        experiment=experiment,
        moves={role: by_name[role] - here for role in scene.fields if role in by_name},
        push=by_name["push"],
        guided=by_name["guided"] - here,
        path=torch.where(path.isfinite(), path, torch.nan).float().cpu().numpy(),
        remembers=memory is not None,
    )
    return _terms[key]
