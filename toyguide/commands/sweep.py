"""``toyguide sweep``: run a grid of experiments and write one table."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from tqdm import tqdm

from toyguide.devices import DEVICES, resolve_device
from toyguide.errors import InputError

NAME = "sweep"
HELP = "run a grid of experiments and write one table"

_EXECUTORS = ("serial", "processes")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", metavar="SPEC.toml", help="the settings and their grids, see docs/sweep.toml")
    parser.add_argument(
        "-o", "--output", metavar="TABLE", help="a .csv or .parquet (default: the spec's name with .csv, here)"
    )
    add_workers(parser)
    parser.add_argument("--device", choices=DEVICES, default="auto", help="device of each worker (default: auto)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose where runs are computed."""
    parser.add_argument(
        "--executor",
        choices=_EXECUTORS,
        metavar=f"{{{','.join(_EXECUTORS)}}}",
        help="run in this process or in several (default: serial)",
    )
    parser.add_argument("--workers", type=int, metavar="K", help="number of processes (default: one per processor)")
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="run on the Dask cluster of this scheduler, tcp://HOST:PORT"
    )


def run(args: argparse.Namespace) -> None:
    """Run the command.

    Raises:
        InputError: If a flag or the spec is wrong; before anything is run or written.
        SystemExit: With code 130 when interrupted, with code 1 when workers died.
    """
    from toyguide.sweeps import Ledger, read_sweep, sweep

    executor = workers_of(args)
    if args.scheduler is None:
        resolve_device(args.device)
    experiments = read_sweep(args.spec)
    ledger = Ledger(args.output or Path(args.spec).with_suffix(".csv").name, experiments)
    report = {"file": str(ledger.path), "rows": len(experiments), "new": 0, "seconds": 0.0}
    if not ledger.finished:
        began, before = time.perf_counter(), len(ledger.rows)
        bar = tqdm(total=len(experiments), initial=before, unit="row", disable=None, leave=False)
        kept = stopping(lambda: f"{len(ledger.rows)} of {len(experiments)} rows are kept")
        with kept, executor as workers, ledger, bar:
            for rows in sweep(experiments, workers, args.device, ledger.rows):
                bar.update(ledger.add(rows))
        report |= {"new": len(ledger.rows) - before, "seconds": time.perf_counter() - began}
    if args.json:
        print(json.dumps(report))
    elif ledger.finished:
        print(f"{report['file']}: finished before, {report['rows']} rows; nothing to do")
    else:
        print(f"{report['file']}: {report['rows']} rows, {report['new']} of them new, {report['seconds']:.1f} s")


@contextmanager
def stopping(kept: Callable[[], str]) -> Iterator[None]:
    """Exit with a one-line message when interrupted or when workers died.

    Args:
        kept: Returns what was saved, for the message.

    Raises:
        SystemExit: With code 130 when interrupted, with code 1 when workers died.
    """
    try:
        yield
    except (KeyboardInterrupt, BrokenExecutor) as problem:
        interrupted = isinstance(problem, KeyboardInterrupt)
        what = "interrupted" if interrupted else f"the workers are lost ({' '.join(str(problem).split())})"
        print(f"toyguide: {what}; {kept()}; run the same again to continue", file=sys.stderr)
        raise SystemExit(130 if interrupted else 1) from problem


def workers_of(args: argparse.Namespace) -> AbstractContextManager[Executor | None]:
    """A context manager for the executor that the flags choose; None for this process.

    Raises:
        InputError: If the flags contradict each other.
    """
    from toyguide.sweeps import executors

    if args.scheduler is not None:
        if args.executor is not None or args.workers is not None:
            raise InputError("--scheduler: its cluster has workers of its own, expected no --executor and no --workers")
        return executors.dask(args.scheduler)
    if args.workers is not None and args.executor != "processes":
        raise InputError("--workers: only processes can be several, expected --executor processes with it")
    if args.executor != "processes":
        return nullcontext()
    workers = (os.cpu_count() or 1) if args.workers is None else args.workers
    if not 1 <= workers <= 1024:
        raise InputError(f"--workers {workers}: expected a whole number from 1 to 1024")
    return executors.processes(workers)
