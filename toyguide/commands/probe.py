"""``toyguide probe``: what a run's rule does at each step."""

from __future__ import annotations

import argparse
import json
import math
from typing import Any

from toyguide.devices import DEVICES

NAME = "probe"
HELP = "measure what a run's rule does at each step: its terms, its effective CFG scale, what it costs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="RUN.npz", help="a file written by toyguide sample; the run is made again")
    parser.add_argument("--first", type=int, metavar="N", help="only the first N trajectories")
    parser.add_argument("--curl", action="store_true", help="measure the curl of the guided score too")
    parser.add_argument("--device", choices=DEVICES, default="auto", help="device (default: auto)")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")


def run(args: argparse.Namespace) -> None:
    from toyguide.errors import InputError
    from toyguide.experiment import Result
    from toyguide.probes import probe

    if args.first is not None and args.first < 1:
        raise InputError(f"--first {args.first}: expected a whole number from 1")
    rows = probe(Result.load(args.file).experiment, args.device, args.first, curl=args.curl).rows()
    if args.json:
        print(json.dumps([{k: None if math.isnan(v) else v for k, v in row.items()} for row in rows]))
    else:
        print(_table(rows))


def _table(rows: list[dict[str, Any]]) -> str:
    texts = [list(rows[0]), *([_number(v) for v in row.values()] for row in rows)]
    widths = [max(len(line[i]) for line in texts) for i in range(len(texts[0]))]
    lines = ["  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in texts]
    return "\n".join(lines)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"
