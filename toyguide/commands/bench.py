"""``toyguide bench``: measure time and memory, relative to the textbook formulation in the same run."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

from toyguide.devices import DEVICES, resolve_device
from toyguide.errors import InputError

NAME = "bench"
HELP = "measure speed and memory against the textbook formulation"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=DEVICES, default="auto", help="(default: auto)")
    parser.add_argument(
        "--json", action="store_true", help="print everything as JSON, with every repetition of each measurement"
    )
    parser.add_argument(
        "-o", "--output", metavar="FOLDER", help="also write BENCHMARKS.md and the figures docs/growth.* in this folder"
    )


def run(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from toyguide.bench.report import as_text, write
    from toyguide.bench.run import measure

    device = resolve_device(args.device)
    if args.output is not None:
        folder = _checked(args.output)
        import toyguide.plots  # noqa: F401, raises at once if matplotlib is missing

    def watch(jobs: list[Any]) -> Any:
        with tqdm(jobs, unit="measurement", leave=False) as bar:
            for name, job in bar:
                bar.set_description(name)
                yield name, job

    remarks: list[str] = []

    def explorer() -> list[Any]:
        """The explorer's figures, passed in from here because the library must not import the apps."""
        from toyguide.bench.run import explorer_figures
        from toyguide_apps.bench import measure_explorer

        try:
            return explorer_figures(dataclasses.asdict(measure_explorer()))
        except RuntimeError as problem:
            remarks.append(f"The explorer was not measured: {' '.join(str(problem).split())}")
            return []

    wanted = device == resolve_device("auto")  # where the explorer computes
    missing = any(importlib.util.find_spec(name) is None for name in ("panel", "toyguide_apps.bench"))
    if wanted and missing:
        remarks.append("The explorer was not measured: it needs pip install 'toyguide[app]'.")
    measured = {**measure(device, explorer if wanted and not missing else None, watch), "remarks": remarks}
    if args.output is not None:
        write(measured, folder)
    print(json.dumps(measured) if args.json else as_text(measured))


def _checked(output: str) -> Path:
    """The folder, after a check that it exists and is writable."""
    folder = Path(output)
    if not folder.is_dir():
        raise InputError(f"output {output!r}: expected a folder that exists")
    if not os.access(folder, os.W_OK):
        raise InputError(f"output {output!r}: the folder is not writable")
    return folder
