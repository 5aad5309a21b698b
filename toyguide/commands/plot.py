"""``toyguide plot``: reproduce a figure of a paper, or draw a saved run."""

from __future__ import annotations

import argparse
from pathlib import Path

from toyguide.devices import DEVICES
from toyguide.errors import InputError, unknown
from toyguide.files import check_writable

NAME = "plot"
HELP = "draw a figure of the autoguidance paper, or a saved run"

_FIGURES = ("figure-1", "figure-2")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="WHAT", help="figure-1, figure-2, or a RUN.npz of toyguide sample")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        nargs="+",
        action="extend",
        metavar="FILE",
        help="files to write: .png, .svg, .pdf",
    )
    parser.add_argument("--n", type=int, help="trajectories of a paper's figure (default: 4096)")
    parser.add_argument("--seed", type=int, help="seed of a paper's figure (default: 0)")
    parser.add_argument("--device", choices=DEVICES, default="auto", help="(default: auto)")
    parser.add_argument("--dpi", type=int, default=200, help="raster resolution, in dots per inch (default: 200)")


def run(args: argparse.Namespace) -> None:
    from toyguide.experiment import Result
    from toyguide.plots import FORMATS, figure_1, figure_2, plot_run, save

    chosen = {k: getattr(args, k) for k in ("n", "seed") if getattr(args, k) is not None}
    is_run = args.what.endswith(".npz")
    if not is_run and args.what not in _FIGURES:
        raise unknown("figure", args.what, [*_FIGURES, "RUN.npz"])
    if is_run and chosen:
        raise InputError(f"--{next(iter(chosen))}: belongs to {' and '.join(_FIGURES)}; a saved run has its own")
    if not 30 <= args.dpi <= 2400:
        raise InputError(f"--dpi {args.dpi}: expected a whole number from 30 to 2400")
    for output in args.output:
        if Path(output).suffix not in FORMATS:
            raise unknown(f"format of {output!r}", Path(output).suffix, FORMATS)
        check_writable(output)

    if is_run:
        figure = plot_run(Result.load(args.what))
    else:
        figure = {"figure-1": figure_1, "figure-2": figure_2}[args.what](args.device, **chosen)
    for output in args.output:
        save(figure, output, args.dpi)
        print(output)
