"""All of the measurements on one device."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from toyguide.bench.cases import CASES, Aim, Case
from toyguide.bench.growth import GROWTH, Series
from toyguide.bench.machine import describe
from toyguide.bench.memory import peak_bytes
from toyguide.bench.multiples import multiples
from toyguide.bench.timing import Spread, alternate, pairwise_ratio
from toyguide.bench.typed import typed

__all__ = ["Figure", "Row", "measure"]

_POINTS = 1_000_000  # whose memory is measured
_IMPORTS = 5


@dataclass(frozen=True)
class Row:
    """A case, measured.

    Attributes:
        name: What was done.
        seconds: The library's turns.
        textbook: The textbook's turns in alternation with them, scaled to all of the work; None without a textbook.
        ratio: How many times as long as the library the textbook took, by pairs of turns.
        aim: What is to be reached.
        met: Whether it is, by the medians.
    """

    name: str
    seconds: list[float]
    textbook: list[float] | None
    ratio: Spread | None
    aim: Aim | None
    met: bool | None

    @classmethod
    def of(cls, case: Case, turns: list[list[float]], aim: Aim | None) -> Row:
        """Of the turns of the textbook, if there is one, and of the library."""
        *others, own = turns
        textbook = [s / case.share for s in others[0]] if others else None
        ratio = pairwise_ratio(textbook, own) if textbook else None
        met = None if aim is None else aim.met(Spread.of(own).median, ratio.median if ratio else None)
        return cls(case.name, own, textbook, ratio, aim, met)


@dataclass(frozen=True)
class Figure:
    """A measured number without a textbook to compare with.

    Attributes:
        name: What it is.
        value: How much, and the least and the most that was measured.
        unit: Of what.
        aim: What is to be reached.
        met: Whether it is.
    """

    name: str
    value: Spread
    unit: str
    aim: Aim | None
    met: bool | None

    @classmethod
    def of(cls, name: str, value: Spread, unit: str, aim: Aim | None = None) -> Figure:
        return cls(name, value, unit, aim, None if aim is None else aim.met(value.median))


Job = tuple[str, Callable[[], list[Any]]]


def measure(
    device: torch.device,
    explorer: Callable[[], list[Figure]] | None = None,
    watch: Callable[[list[Job]], Iterable[Job]] = iter,
) -> dict[str, Any]:
    """Measure everything.

    Args:
        device: Where the tensors live.
        explorer: Measures the explorer; None leaves it out.
        watch: Wraps the measurements, each with its name, as they are made: a progress bar, say.

    Returns:
        A table ready for JSON: ``machine``; ``rows``, ``figures`` and ``growth`` as ``Row``, ``Figure`` and ``Series``
        describe them.
    """
    jobs: list[Job] = [(_named(make), partial(_row, make, aim, device)) for make, aim in CASES[device.type]]
    jobs += [(_named(ratios), partial(_ratios, ratios, device)) for ratios in (multiples, typed)]
    jobs += [("import", _import_time), ("memory", partial(_memory, device))]
    jobs += [(_named(grow), partial(grow, device, partial(_completed, device))) for grow in GROWTH]
    jobs += [] if explorer is None else [("explorer", explorer)]  # last: it brings a whole server's modules with it
    found = [result for _, job in watch(jobs) for result in job()]
    return {"machine": describe(device)} | {
        name: [asdict(result) for result in found if isinstance(result, kind)]
        for name, kind in (("rows", Row), ("figures", Figure), ("growth", Series))
    }


def _named(function: Any) -> str:
    """The name of a function, or of the function in a ``partial``."""
    return (function.func if isinstance(function, partial) else function).__name__.replace("_", " ")


def _row(make: Callable[[torch.device], Case], aim: Aim | None, device: torch.device) -> list[Row]:
    case = make(device)
    functions = [f for f in (case.textbook, case.toyguide) if f is not None]
    return [Row.of(case, alternate([_completed(device, f) for f in functions]), aim)]


def _completed(device: torch.device, function: Callable[[], Any]) -> Callable[[], Any]:
    """The function, returning only when the device has finished."""
    if device.type != "cuda":
        return function

    def call() -> None:
        function()
        torch.cuda.synchronize(device)

    return call


def _ratios(measured: Callable[..., list[tuple[str, Spread, Aim]]], device: torch.device) -> list[Figure]:
    found = measured(device, partial(_completed, device))
    return [Figure.of(name, ratio, "×", aim) for name, ratio, aim in found]


def _import_time() -> list[Figure]:
    code = "import time; t = time.perf_counter(); import toyguide; print(time.perf_counter() - t)"
    command = [sys.executable, "-c", code]
    printed = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(_IMPORTS + 1)]
    seconds = Spread.of([float(text) for text in printed[1:]])  # the first reads the files into memory
    return [Figure.of("import of toyguide in a fresh interpreter", seconds, "s", Aim(at_most=2.5))]


def _memory(device: torch.device) -> list[Figure]:
    mebibytes = peak_bytes(device, _POINTS) / 2**20
    name = f"largest memory while {_POINTS:,} points of the fractal get their exact score, above the import's"
    return [Figure.of(name, Spread.of([mebibytes]), "MiB", Aim(at_most=1024.0))]


def explorer_figures(measured: Mapping[str, Any]) -> list[Figure]:
    """What ``toyguide_apps.bench.ExplorerFigures`` holds, as a dictionary; what is None was not measured."""
    several = f"explorer, {measured['sessions']} visitors who drag at once"
    times = (
        ("browser", "explorer in Chromium, key press to drawn picture", 100.0, 250.0),
        ("one", "explorer without a browser, change to picture received", None, None),
        ("many", several, None, 1500.0),
    )
    found = []
    for name, title, median, high in times:
        for key, words, most in (("p50", "median", median), ("p95", "95th percentile", high), ("max", "longest", None)):
            if measured[name] is not None:
                aim = None if most is None else Aim(at_most=most)
                found.append(Figure.of(f"{title}: {words}", Spread.of([measured[name][key]]), "ms", aim))
    for name, title, unit, most in (
        ("errors", "explorer: errors", "", 0.0),
        ("stale", "explorer: stale pictures", "", 0.0),
        ("first_picture_s", "explorer: start of the server to the first picture received", "s", 5.0),
        ("browser_first_picture_s", "explorer: the same in Chromium", "s", 5.0),
        (
            "browser_answer_ratio",
            "explorer in Chromium: an answer, less its runs, against a redraw of the stage",
            "×",
            2.0,
        ),
        ("browser_load_s", "explorer in Chromium: address to first picture", "s", None),
        ("browser_load_ratio", "explorer in Chromium: the first picture against an empty page", "×", 2.0),
        (
            "browser_picture_ms",
            "explorer in Chromium: picture to picture, four panels of 2,048 playing",
            "ms",
            1e3 / 30,
        ),
    ):
        if measured[name] is not None:
            aim = None if most is None else Aim(at_most=most)
            found.append(Figure.of(title, Spread.of([measured[name]]), unit, aim))
    return found
