"""``toyguide animate``: a film of saved runs side by side."""

from __future__ import annotations

import argparse

from toyguide.files import check_writable

NAME = "animate"
HELP = "make a film of saved runs: noise becoming data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs", metavar="RUN.npz", nargs="+", help="one to four runs of one dataset, written by toyguide sample"
    )
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the file to write: .gif, or .mp4")
    parser.add_argument("--title", action="append", metavar="TEXT", help="a title for each run, in their order")
    parser.add_argument("--seconds", type=float, default=5.0, help="from the noise to the data (default: 5)")
    parser.add_argument("--rate", type=int, default=15, help="pictures per second (default: 15)")
    parser.add_argument("--dpi", type=int, default=100, help="resolution, in dots per inch (default: 100)")


def run(args: argparse.Namespace) -> None:
    from toyguide.experiment import Result
    from toyguide.plots import animate

    check_writable(args.output)
    results = [Result.load(run) for run in args.runs]
    animate(results, args.output, titles=args.title, seconds=args.seconds, rate=args.rate, dpi=args.dpi)
    print(args.output)
