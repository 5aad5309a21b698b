"""What a visitor can take along: the scene as files of other programs, made beside the visitors' pictures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from toyguide import Result
from toyguide.downloads import experiments_json, samples_csv, samples_npz
from toyguide.errors import InputError, unknown
from toyguide.geometry.planes import Window
from toyguide_apps.explorer_page.compute import Job, Picture, compute, results, search
from toyguide_apps.explorer_page.export import html, unlinked
from toyguide_apps.explorer_page.panels import LETTERS
from toyguide_apps.explorer_page.planes import plane
from toyguide_apps.explorer_page.recording import Recording, usual_slider
from toyguide_apps.explorer_page.state import ExplorerState
from toyguide_apps.explorer_page.views.headline import headline
from toyguide_apps.explorer_page.views.parts import Look, named, title

__all__ = ["FILES", "make"]

FILES = {
    "png": ("Picture", "the panels with headline and legend, 300 dots per inch"),
    "svg": ("Drawing", "the same for the web"),
    "pdf": ("Figure", "the same for print"),
    "gif": ("Film", "the time line, from noise to data"),
    "html": ("Web page", "the scene with time line, layers and a slider; works without a server"),
    "csv": ("Samples as a table", "the final points with outlier, class and branch"),
    "npz": ("Samples for NumPy", "the same as arrays, with the experiments"),
    "json": ("Experiments", "the settings of every panel's run"),
}
"""Title and explanation of each format."""

_DPI = 300
# One thread for all visitors, beside that of the pictures: figures and films take seconds.
_MAKER = ThreadPoolExecutor(1, "toyguide-files", initializer=torch.set_num_threads, initargs=(1,))


async def make(kind: str, state: ExplorerState, look: Look, cancelled: Callable[[], bool]) -> bytes:
    """The contents of a file of the scene.

    Args:
        kind: One of ``FILES``.
        state: The scene.
        look: What is said about it.
        cancelled: Is the file no longer wanted?

    Raises:
        CancelledError: Once ``cancelled()`` is true.
        InputError: If there is no such format, or the scene cannot be written in it.
    """
    if kind not in FILES:
        raise unknown("format", kind, FILES)
    request = state.request()
    runs = request.runs
    if kind == "json":
        return experiments_json(runs).encode()
    if kind == "html":
        return await _page(state, look, cancelled)
    view = _view(state) if kind in ("png", "svg", "pdf") else {}  # before the visitor moves on
    found = await results(runs, cancelled)
    if kind == "csv":
        return (await _apart(partial(samples_csv, found))).encode()
    if kind == "npz":
        return await _apart(partial(samples_npz, found))
    if kind == "gif":
        titles = [named(run) for run in runs]
        return await _apart(partial(_written, kind, lambda path: _film(found, path, titles)))
    picture = await compute(partial(Job, request, None, cancelled))
    figure = partial(_figure, found, picture, headline(picture, look), view)
    return await _apart(partial(_written, kind, figure))


async def _apart(work: Callable[[], Any]) -> Any:
    return await asyncio.wrap_future(_MAKER.submit(work))


def _view(state: ExplorerState) -> dict[str, Any]:
    """What a figure shows, as ``compare`` takes it.

    Raises:
        InputError: If the runs have not the same steps, and the time line is not at the end.
    """
    step = None if state.step >= state.steps else int(state.step)
    if step is not None and any(state.experiment(i).steps != state.steps for i in range(len(state.panels))):
        raise InputError("a figure of runs with different numbers of steps: expected the time line at its end")
    left, bottom, right, top = state.view_at(state.level())
    window = Window((left, bottom), (right, top))
    layers = (state.bands, *state.layers)
    return {"layers": layers, "step": step, "plane": plane(state.dataset, state.plane), "window": window}


def _written(kind: str, write: Callable[[Path], None]) -> bytes:
    """What is written to a file."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"scene.{kind}"
        write(path)
        return path.read_bytes()


def _film(found: Sequence[Result], path: Path, titles: Sequence[str]) -> None:
    from toyguide.plots import animate  # needs matplotlib

    animate(found, path, titles=titles)


def _side_by_side(values: Sequence[dict[str, str]]) -> str:
    """A number of each panel: before and after, or with the panels' letters where there are more."""
    if len(values) < 3:
        return " → ".join(value["text"] for value in values)
    return "  ".join(f"{value['letter']} {value['text']}" for value in values)


def _figure(found: Sequence[Result], picture: Picture, words: dict[str, Any], view: dict[str, Any], path: Path) -> None:
    from toyguide.plots import compare, save  # needs matplotlib
    from toyguide.plots.stage import LAYERS

    numbers = [f"{n['label']} {_side_by_side(n['values'])}" for n in words["numbers"]]
    several = len(picture.runs) > 1
    titles = [
        f"{letter}  {title(run)}" if several else title(run) for letter, run in zip(LETTERS, picture.runs, strict=False)
    ]
    layers = [layer for layer in view["layers"] if layer in LAYERS]
    said = {"titles": titles, "heading": words["title"], "sentence": words["text"], "numbers": numbers}
    save(compare(found, **{**view, "layers": layers}, **said), path, _DPI)


async def _page(state: ExplorerState, look: Look, cancelled: Callable[[], bool]) -> bytes:
    """The exported page, picture by picture, so that those of other visitors get between."""
    recording = Recording(state, usual_slider(state), unlinked(look))
    for request in recording.requests():
        picture = await compute(partial(Job, request, None, cancelled))
        if picture.missing:
            await search(picture, cancelled)
            picture = await compute(partial(Job, request, None, cancelled))
        recording.add(picture)
    return (await _apart(partial(html, recording))).encode()
