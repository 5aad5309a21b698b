"""Requests in, pictures out: pure functions on one worker thread, off the event loop.

One thread serves all sessions. Finished runs and layers are kept and shared, so what one visitor has computed another
gets at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import numpy as np
import torch
from cachetools import LRUCache

from toyguide.datasets.references import natural_reference
from toyguide.devices import resolve_device
from toyguide.errors import InputError
from toyguide.guidance import Evaluation
from toyguide_apps.explorer_page.layers import curvature
from toyguide_apps.explorer_page.layers import densities as layers
from toyguide_apps.explorer_page.layers.critical import Critical, critical_at_hand, find_critical
from toyguide_apps.explorer_page.layers.densities import Arrows, Curves, Spot
from toyguide_apps.explorer_page.layers.edge import Profile, profile
from toyguide_apps.explorer_page.layers.point import Inspection, inspect
from toyguide_apps.explorer_page.layers.point_arrows import Drawing, drawings
from toyguide_apps.explorer_page.runs import CancelledError, Paths, run_paths, scene_of, truth
from toyguide_apps.explorer_page.state import ExplorerState, Request

__all__ = ["FIRST", "CancelledError", "Job", "Picture", "at_hand", "compute", "picture", "search", "warm"]

FIRST = 128
"""Trajectories of a coarse picture: half the time of 512, and enough to see where they go."""

# Beside the event loop's thread, torch's own threads cost more than they bring on the small tensors of a few hundred
# trajectories: one change of a slider took 550 ms with two of them and 180 ms with one, measured on two cores.
_WORKER = ThreadPoolExecutor(1, "toyguide", initializer=torch.set_num_threads, initargs=(1,))
# Searches take seconds; no picture waits for one, of whichever visitor.
_SEARCHER = ThreadPoolExecutor(1, "toyguide-search", initializer=torch.set_num_threads, initargs=(1,))


@dataclass(frozen=True, eq=False)
class Picture:
    """Everything that is drawn for a request.

    Attributes:
        request: What was asked for.
        left: The reference run.
        right: The chosen rule's run.
        truth: The metrics of an exact sample of the same size.
        image: The background's bands, uint8, or None.
        palette: Which palette the image is in.
        curves: Level lines, boundary and outline by layer.
        score: Score arrows.
        saddles: Eigenvectors.
        critical: The critical points, or None where they are not wanted or not found yet.
        missing: Where and of which field critical points are still to be searched for; None if all is there.
        guidance: The two runs' guidance arrows, left and right.
        inspection: What is known about the inspected point.
        terms: The arrows at it, left and right.
        profile: The edge between two classes.
        sigma: The noise level that the layers are drawn at.
        guide: The field that main is compared with, by reference.
        device: Where it was computed.
    """

    request: Request
    left: Paths
    right: Paths
    truth: dict[str, Any]
    image: np.ndarray | None
    palette: str
    curves: dict[str, Curves]
    score: Arrows | None
    saddles: Arrows | None
    critical: Critical | None
    missing: tuple[Spot, str] | None
    guidance: tuple[Arrows | None, Arrows | None]
    inspection: Inspection | None
    terms: tuple[Drawing, Drawing] | None
    profile: Profile | None
    sigma: float
    guide: str
    device: str

    @property
    def coarse(self) -> bool:
        """Whether a run in it is only begun: nothing of it is measured then."""
        return self.left.coarse or self.right.coarse

    @property
    def whole(self) -> bool:
        """Whether nothing is missing in it."""
        return not self.coarse and self.missing is None


@dataclass(frozen=True)
class Job:
    """What the worker thread is to do.

    Attributes:
        request: What to draw.
        first: Run only so many trajectories of what has not been run already; None for all.
        cancelled: Asked between solver steps and between layers: is the picture no longer wanted?
    """

    request: Request
    first: int | None = None
    cancelled: Callable[[], bool] = lambda: False


# Whole pictures, newest first to stay; they hold no more than the runs and layers that are kept as well.
_pictures: LRUCache[Request, Picture] = LRUCache(32)
_pictures_lock = Lock()


def at_hand(request: Request) -> Picture | None:
    """The picture of a request, if it was computed lately."""
    with _pictures_lock:
        return _pictures.get(request)


async def compute(ask: Callable[[], Job]) -> Picture:
    """A picture from the worker thread, or the one that is at hand.

    Args:
        ask: What to compute, asked again when the thread has time for it: a visitor who waits behind others keeps his
            turn, and gets in it what he wants by then.

    Raises:
        CancelledError: Once the job is cancelled.
        InputError: If the request's fields do not fit.
    """
    return at_hand(ask().request) or await asyncio.wrap_future(_WORKER.submit(_do, ask))


def _do(ask: Callable[[], Job]) -> Picture:
    job = ask()
    made = picture(job.request, job.cancelled, job.first)
    if made.whole:
        with _pictures_lock:
            _pictures[job.request] = made
    return made


async def search(picture: Picture, cancelled: Callable[[], bool]) -> None:
    """Search for the critical points that a picture lacks; the next picture of its request has them.

    Raises:
        CancelledError: Once ``cancelled()`` is true.
    """
    if picture.missing is not None:
        await asyncio.wrap_future(_SEARCHER.submit(find_critical, *picture.missing, cancelled))


def picture(request: Request, cancelled: Callable[[], bool] = lambda: False, first: int | None = None) -> Picture:
    """Compute a request.

    Args:
        request: What to draw.
        cancelled: Asked between solver steps and between layers.
        first: Run only so many trajectories of what has not been run already.

    Raises:
        CancelledError: Once ``cancelled()`` is true.
        InputError: If the request's fields do not fit.
    """
    device = resolve_device("auto").type
    right = run_paths(request.right, device, cancelled, first, request.plane)
    left = run_paths(request.left, device, cancelled, first, request.plane)

    experiment = request.right
    main = str(experiment.main)
    level = right.sigma[request.step]
    # Learned fields have no value at sigma = 0: after the last step they are shown at the last level they know.
    sigma = level if level > 0 else right.sigma[-2]
    spot = Spot(experiment.dataset, experiment.label, sigma, request.window, device, request.plane)
    exact = request.source == "exact"
    source = "exact" if exact else main
    role, named = request.guide

    def unless_cancelled(make: Callable[..., Any]) -> Any:
        if cancelled():
            raise CancelledError
        return make()

    def wanted(make: Callable[[], Any], *names: str) -> Any:
        return unless_cancelled(make) if request.layers.intersection(names) else None

    density = {"exact": ("exact", "main"), "main": (main, "main"), "guide": (named, role)}
    image = None
    if request.bands == "ratio":
        other = ("exact@union", "uncond") if exact else (named, role)
        image = unless_cancelled(lambda: layers.ratio(spot, source, *other))
    elif request.bands in _SURFACES:
        image = unless_cancelled(lambda: _SURFACES[request.bands](spot, source, request))
    elif request.bands != "none":
        image = unless_cancelled(lambda: layers.bands(spot, *density[request.bands]))
    curves = {
        f"{name}-lines": wanted(lambda r=reference: layers.lines(spot, *r), f"{name}-lines")
        for name, reference in density.items()
    }
    curves["boundary"] = wanted(lambda: layers.boundary(spot), "boundary")
    # The outlines are the data's, at sigma = 0, and so the same all along the scrubber.
    still = replace(spot, sigma=0.0)
    curves["region"] = wanted(lambda: layers.region(still), "region")
    curves["other-regions"] = wanted(lambda: layers.other_regions(still), "region")

    critical = missing = None
    if "critical" in request.layers:
        wide = replace(spot, device="cpu"), source
        critical = critical_at_hand(*wide)
        missing = wide if critical is None else None
    seen = None
    if request.point is not None:
        where = request.point, request.left, request.right, request.step, request.source
        seen = unless_cancelled(lambda: inspect(spot, *where))

    return Picture(
        request=request,
        left=left,
        right=right,
        truth=truth(experiment.dataset, experiment.label, experiment.n),
        image=image,
        palette=request.bands,
        curves={k: v for k, v in curves.items() if v is not None},
        score=wanted(lambda: layers.score_arrows(spot, source), "score"),
        saddles=wanted(lambda: layers.saddles(spot, source), "saddles"),
        critical=critical,
        missing=missing,
        guidance=tuple(wanted(lambda p=p: _guidance(spot, p, request.step), "guidance") for p in (left, right)),
        inspection=seen,
        terms=drawings(seen, spot.size) if seen else None,
        profile=unless_cancelled(lambda: _profile(spot, request)) if request.ends else None,
        sigma=sigma,
        guide=named,
        device=device,
    )


def warm() -> None:
    """Begin to compute what a visitor sees first, before the first one comes."""
    _WORKER.submit(_do, lambda: Job(ExplorerState().request()))


_SURFACES: dict[str, Callable[[Spot, str, Request], np.ndarray]] = {
    "regions": lambda spot, source, _: curvature.region_map(spot, source),
    "curvature": lambda spot, source, _: curvature.curvature(spot, source),
    "step-error": lambda spot, source, request: curvature.product_errors(spot, source, request.product_step),
}


def _profile(spot: Spot, request: Request) -> Profile:
    """The edge in the exact union, and in a learned field of it: main where it is that, else the unconditional one."""
    experiment = request.right
    main = str(experiment.main)
    learned, role = main, "main"
    if experiment.label is not None:
        role = "uncond"
        try:
            learned = str(experiment.fields.get(role) or natural_reference(role, main, experiment.data))
        except InputError:
            learned = ""
    # It depends on neither class, window nor plane, and is looked at on the CPU.
    whole = replace(spot, label=None, window=(0.0, 0.0, 1.0, 1.0), anchors=(), device="cpu")
    return profile(whole, request.ends, "" if learned.startswith("exact") else learned, role)


def _guidance(spot: Spot, paths: Paths, step: int) -> Arrows:
    """What a run's rule adds: on a grid, or at the run's own points if the rule has a memory that belongs there."""
    step = min(step, len(paths.pushes) - 1)
    scene = scene_of(paths.experiment, spot.device)
    start = torch.zeros(1, paths.experiment.data.dim, device=spot.device)
    _, memory = paths.experiment.build_rule().begin(Evaluation(scene, start, paths.sigma[0]), torch.Generator())
    if memory is not None:
        return layers.push_arrows(spot, paths.frames[step], paths.pushes[step])
    return layers.guidance_arrows(spot, paths.experiment)
