"""Requests in, pictures out: pure functions on one worker thread, off the event loop.

One thread serves all sessions. Finished runs and layers are cached and shared: what one visitor has computed, another
gets at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import torch
from cachetools import LRUCache

from toyguide import Experiment, Result
from toyguide.devices import resolve_device
from toyguide.errors import InputError
from toyguide.guidance import ROLES, Evaluation
from toyguide.metrics import Difference
from toyguide_apps.explorer_page.layers import densities
from toyguide_apps.explorer_page.layers.critical import find_critical
from toyguide_apps.explorer_page.layers.densities import Arrows
from toyguide_apps.explorer_page.layers.edge import Profile, profile
from toyguide_apps.explorer_page.layers.errors import ErrorCurves, error_curves
from toyguide_apps.explorer_page.layers.point import Inspection, inspect
from toyguide_apps.explorer_page.layers.point_arrows import Drawing, drawings
from toyguide_apps.explorer_page.layers.trail import Trail, trail
from toyguide_apps.explorer_page.panels import Request, nearest
from toyguide_apps.explorer_page.precedence import PICTURES
from toyguide_apps.explorer_page.presets import OPENING
from toyguide_apps.explorer_page.roles import MAIN, natural, union_role
from toyguide_apps.explorer_page.runs import CancelledError, Paths, changes, finished, run_paths, scene_of, truth
from toyguide_apps.explorer_page.scene import Scene, scene, scene_key, spot_of
from toyguide_apps.explorer_page.state import ExplorerState

__all__ = [
    "FIRST",
    "CancelledError",
    "Job",
    "Picture",
    "ahead",
    "at_hand",
    "compute",
    "picture",
    "results",
    "search",
    "warm",
]

FIRST = 128
"""Trajectories of a coarse picture: half the time of 512, and enough to see where they go."""

# Beside the event loop's thread, torch's own threads cost more than they bring on the small tensors of a few hundred
# trajectories: one change of a slider took 550 ms with two of them and 180 ms with one, measured on two cores.
_WORKER = ThreadPoolExecutor(1, "toyguide", initializer=torch.set_num_threads, initargs=(1,))
# Searches take seconds; no picture waits for one.
_SEARCHER = ThreadPoolExecutor(1, "toyguide-search", initializer=torch.set_num_threads, initargs=(1,))


@dataclass(frozen=True, eq=False)
class Picture:
    """Everything that is drawn for a request; tuples have one element for each panel.

    Attributes:
        request: What was asked for.
        runs: The runs.
        scenes: The layers below them; panels with the same layers have the same object.
        guidance: What each rule adds, as arrows.
        truth: The metrics of an exact sample of the same size as each run.
        changes: The difference of each run's metrics from the first run's, with paired intervals; none if coarse.
        inspection: What is known about the inspected point.
        terms: The arrows at that point.
        profile: The edge between two classes.
        errors: What each rule does to the error over the noise levels.
        trails: The followed sample in each run, None in a run that has not so many.
        device: Where it was computed.
    """

    request: Request
    runs: tuple[Paths, ...]
    scenes: tuple[Scene, ...]
    guidance: tuple[Arrows | None, ...]
    truth: tuple[dict[str, Any], ...]
    changes: tuple[dict[str, Difference], ...]
    inspection: Inspection | None
    terms: tuple[Drawing, ...] | None
    profile: Profile | None
    errors: tuple[ErrorCurves, ...] | None
    trails: tuple[Trail | None, ...] | None
    device: str

    @property
    def coarse(self) -> bool:
        """Whether a run in it is a preview; then nothing of it is measured."""
        return any(run.coarse for run in self.runs)

    @property
    def missing(self) -> list[tuple[densities.Spot, str]]:
        """Where critical points are still to be searched for, and of which fields."""
        return [s.missing for s in dict.fromkeys(self.scenes) if s.missing is not None]

    @property
    def whole(self) -> bool:
        """Whether nothing is missing in it."""
        return not self.coarse and not self.missing


@dataclass(frozen=True)
class Job:
    """A task of the worker thread.

    Attributes:
        request: What to draw.
        first: Run only so many trajectories of what has not been run already; None for all.
        cancelled: Called between solver steps and between layers: is the picture no longer wanted?
    """

    request: Request
    first: int | None = None
    cancelled: Callable[[], bool] = lambda: False


# Whole pictures; they refer to the cached runs and layers and hold little more.
_pictures: LRUCache[Request, Picture] = LRUCache(128)
_pictures_lock = Lock()
# Pictures that visitors wait for.
_pending: set[Future[Picture]] = set()


def at_hand(request: Request) -> Picture | None:
    """The picture of a request, if it is cached."""
    with _pictures_lock:
        return _pictures.get(request)


async def compute(ask: Callable[[], Job]) -> Picture:
    """A picture from the cache or the worker thread.

    Args:
        ask: What to compute, asked again when the thread is free: a visitor who waits behind others keeps his place in
            the queue, and gets what he wants by then.

    Raises:
        CancelledError: Once the job is cancelled.
        InputError: If the request's fields do not fit.
    """
    made = at_hand(ask().request)
    if made is not None:
        return made
    work = _WORKER.submit(_do, ask)
    _pending.add(work)
    try:
        return await asyncio.wrap_future(work)
    finally:
        _pending.discard(work)


async def ahead(ask: Callable[[], Job]) -> Picture:
    """A picture that nobody waits for yet: given up as soon as anybody wants one.

    Raises:
        CancelledError: Once the job is cancelled, or somebody waits for a picture.
        InputError: If the request's fields do not fit.
    """

    def yielding() -> Job:
        job = ask()
        return replace(job, cancelled=lambda: bool(_pending) or job.cancelled())

    made = at_hand(ask().request)
    if made is None and _pending:
        raise CancelledError
    return made if made is not None else await asyncio.wrap_future(_WORKER.submit(_do, yielding))


async def results(runs: Sequence[Experiment], cancelled: Callable[[], bool]) -> list[Result]:
    """Whole runs in all dimensions, from the worker thread.

    Raises:
        CancelledError: Once ``cancelled()`` is true.
        InputError: If the fields of a run do not fit.
    """
    device = resolve_device("auto").type
    return [(await asyncio.wrap_future(_WORKER.submit(finished, run, device, cancelled)))[0] for run in runs]


def _do(ask: Callable[[], Job]) -> Picture:
    job = ask()
    with PICTURES.first():
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
    for spot, reference in picture.missing:
        await asyncio.wrap_future(_SEARCHER.submit(find_critical, spot, reference, cancelled))


def picture(request: Request, cancelled: Callable[[], bool] = lambda: False, first: int | None = None) -> Picture:
    """Compute a request.

    Args:
        request: What to draw.
        cancelled: Called between solver steps and between layers.
        first: Run only so many trajectories of what has not been run already.

    Raises:
        CancelledError: Once ``cancelled()`` is true.
        InputError: If the request's fields do not fit.
    """
    device = resolve_device("auto").type
    # From the last one on: it is the one that usually changes, and its problems are told first.
    runs = tuple(run_paths(e, device, cancelled, first, request.plane) for e in reversed(request.runs))[::-1]

    def checked(make: Callable[[], Any]) -> Any:
        if cancelled():
            raise CancelledError
        return make()

    scenes: dict[object, Scene] = {}
    for e in reversed(request.runs):
        if (key := scene_key(request, e)) not in scenes:
            scenes[key] = scene(request, e, device, checked)

    def guidance(paths: Paths) -> Arrows | None:
        return checked(lambda: _guidance(request, paths, device)) if "guidance" in request.layers else None

    def errors(e: Experiment) -> ErrorCurves:
        return checked(lambda: error_curves(e, device))

    spot = spot_of(request, request.runs[-1], device)
    seen = None
    if (point := request.point) is not None:
        seen = checked(lambda: inspect(spot, point, request.runs, request.source, request.at_end))
    return Picture(
        request=request,
        runs=runs,
        scenes=tuple(scenes[scene_key(request, e)] for e in request.runs),
        guidance=tuple(guidance(run) for run in runs),
        truth=tuple(truth(e.dataset, e.label, e.n) for e in request.runs),
        changes=tuple(
            {} if any(run.coarse for run in runs) else changes(request.runs[0], e, device, cancelled)
            for e in request.runs
        ),
        inspection=seen,
        terms=drawings(seen, spot.size) if seen else None,
        profile=checked(lambda: _profile(request)) if request.ends else None,
        errors=tuple(errors(e) for e in request.runs) if request.errors else None,
        trails=None if any(run.coarse for run in runs) else _trails(request, device, cancelled),
        device=device,
    )


def _trails(request: Request, device: str, cancelled: Callable[[], bool]) -> tuple[Trail | None, ...] | None:
    if (sample := request.sample) is None:
        return None
    return tuple(trail(e, sample, device, cancelled) for e in request.runs)


def warm() -> None:
    """Start to compute what a visitor sees first, before the first one comes."""
    state = ExplorerState()
    state.apply(OPENING)
    _WORKER.submit(_do, lambda: Job(state.request()))


def _profile(request: Request) -> Profile:
    """The edge in the exact union, and in a learned field of it: main if it models the union, else its partner."""
    experiment = request.runs[-1]
    learned, role = str(experiment.main), ROLES[MAIN]
    if experiment.label is not None:
        role = union_role()
        try:
            given = experiment.fields.get(role.name)
            learned = str(given or natural(role, learned, experiment.dataset, experiment.label))
        except InputError:
            learned = ""
    # It depends neither on the class nor on the window or the plane, and is computed on the CPU.
    whole = replace(spot_of(request, experiment, "cpu"), label=None, window=(0.0, 0.0, 1.0, 1.0), anchors=())
    return profile(whole, request.ends, "" if learned.startswith("exact") else learned, role.name)


def _guidance(request: Request, paths: Paths, device: str) -> Arrows:
    """What a run's rule adds: on a grid, or at the run's own points if the rule has a memory, which belongs to them."""
    e = paths.experiment
    spot = spot_of(request, e, device)
    at = Evaluation(scene_of(e, device), torch.zeros(1, e.data.dim, device=device), paths.sigma[0])
    _, memory = e.build_rule().begin(at, torch.Generator())
    if memory is not None:
        step = nearest(paths.sigma, request.sigma)
        return densities.push_arrows(spot, paths.frames[step], paths.pushes[step])
    return densities.guidance_arrows(spot, e)
