"""``toyguide metrics``: compare a finished run with the exact field."""

from __future__ import annotations

import argparse
import json
from typing import Any

from toyguide.errors import InputError
from toyguide.experiment import Result
from toyguide.metrics import METRICS, reference
from toyguide.metrics.to_target import TARGET_METRICS

NAME = "metrics"
HELP = "compare a run with the exact distribution"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_file", metavar="RUN.npz", help="a run written by toyguide sample")
    parser.add_argument(
        "--resamples", type=int, default=200, help="bootstrap resamples; 0: no intervals (default: 200)"
    )
    parser.add_argument("--target", action="store_true", help="compare it with what its rule is said to sample as well")
    parser.add_argument("--json", action="store_true", help="print one flat JSON object")


def run(args: argparse.Namespace) -> None:
    if not 0 <= args.resamples <= 100_000:
        raise InputError(f"--resamples {args.resamples}: expected a whole number from 0 to 100000")
    result = Result.load(args.run_file)
    e = result.experiment
    measured = result.metrics(args.resamples)
    intervals = measured.pop("intervals", {})
    truth = {k: v for k, v in reference(e.data, e.label, e.n, e.seed).items() if k in METRICS and k != "diverged"}
    aimed = result.target_metrics() if args.target else {}

    if args.json:
        bounds = {
            f"{k}_{end}": v for k, pair in intervals.items() for end, v in zip(("low", "high"), pair, strict=True)
        }
        print(json.dumps({**measured, **bounds, **{f"{k}_reference": v for k, v in truth.items()}, **aimed}))
        return
    rows = [("", "value", "95 % interval of its mean", f"{e.n} exact samples")]
    for name, metric in METRICS.items():
        if name in measured:
            low_high = " … ".join(_written(v, metric.format) for v in intervals.get(name, ()))
            exact = _written(truth[name], metric.format) if name in truth else ""
            rows.append((metric.title, _written(measured[name], metric.format), low_high, exact))
    for name, title in TARGET_METRICS.items() if aimed else ():
        rows.append((title, _written(aimed[name], ".4f"), "", _written(aimed[f"{name}_reference"], ".4f")))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]))


def _written(value: Any, format: str) -> str:
    return "none" if value is None else f"{value:{format}}"
