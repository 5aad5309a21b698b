"""``toyguide study``: test a claim of a paper, with a verdict by criteria that were fixed before the runs."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from toyguide.commands.sweep import add_workers, stopping, workers_of
from toyguide.devices import DEVICES, resolve_device
from toyguide.errors import InputError, unknown

NAME = "study"
HELP = "test a claim of a paper"

_ALL = "all"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", nargs="?", metavar="NAME", help=f"a study of --list, or {_ALL}")
    parser.add_argument("--list", action="store_true", help="list the studies and their claims")
    parser.add_argument("--quick", action="store_true", help="fewer seeds and samples, shorter trainings")
    parser.add_argument("--seeds", type=int, metavar="K", help="seeds of training and sampling (default: 10, quick: 3)")
    parser.add_argument(
        "--first-seed",
        type=int,
        default=100,
        metavar="SEED",
        help="the first of the seeds; those below 100 are for development (default: %(default)s)",
    )
    add_workers(parser)
    parser.add_argument("--device", choices=DEVICES, default="auto", help="device of each worker (default: auto)")
    parser.add_argument(
        "-o",
        "--output",
        default="out/studies",
        metavar="DIR",
        help="the folder for all studies; finished runs in it are not repeated (default: out/studies)",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON, or the list")


def run(args: argparse.Namespace) -> None:
    """Run the command.

    Raises:
        InputError: If a flag is wrong; before anything is written.
        SystemExit: With code 130 when interrupted, with code 1 when workers died.
    """
    from toyguide.studies import Plan, studies, study
    from toyguide.studies.plan import SEEDS
    from toyguide.studies.report import describe
    from toyguide.studies.run import check_plan

    if args.list:
        described = [describe(s) for s in studies().values()]
        print(json.dumps(described, indent=1, ensure_ascii=False) if args.json else _listing(described))
        return
    if args.study is None:
        raise InputError(f"study: expected a name, or {_ALL}: one of {', '.join(studies())}")
    if args.study not in (*studies(), _ALL):
        raise unknown("study", args.study, [*studies(), _ALL])
    seeds = SEEDS[args.quick] if args.seeds is None else args.seeds
    plan = check_plan(Plan(args.quick, seeds, args.device, args.first_seed))
    executor = workers_of(args)
    if args.scheduler is None:
        resolve_device(args.device)
    import toyguide.plots  # noqa: F401, raises at once if matplotlib is missing

    output = checked_folder(args.output)

    chosen = list(studies()) if args.study == _ALL else [args.study]
    with stopping(lambda: "what is finished is kept"), executor as workers:
        summaries = [_run(study(name), plan, output, workers) for name in chosen]
    if args.json:
        print(json.dumps(summaries if args.study == _ALL else summaries[0], indent=1, ensure_ascii=False))
    else:
        print("\n\n".join(map(_as_text, summaries)))


def _run(study: Any, plan: Any, output: Path, executor: Executor | None) -> dict[str, Any]:
    from toyguide.plots import draw_sheet, save
    from toyguide.studies import run_study, studies
    from toyguide.studies.report import IMAGE_FORMATS, write, write_results
    from toyguide.studies.run import folder_of

    folder = folder_of(study, plan, output)
    with Bar(study.name, folder) as bar:
        outcome = run_study(study, plan, output, bar.tell, executor)
    for sheet in outcome.sheets:
        figure = draw_sheet(sheet)
        for suffix in IMAGE_FORMATS:
            save(figure, folder / f"{sheet.name}{suffix}")
    summary = write(outcome, folder)
    if not plan.quick:
        write_results(output, studies().values())
    return summary


class Bar:
    """A progress bar in the terminal; it also writes the progress to ``progress.json`` for other processes."""

    def __init__(self, name: str, folder: Path) -> None:
        from tqdm import tqdm

        self._file = folder / "progress.json"
        self._written = 0.0
        self._bar: Any = tqdm(
            desc=name,
            total=1.0,
            mininterval=0.5 if sys.stderr.isatty() else 30.0,
            delay=0.01,  # after the first line of the log
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed} and {remaining} left{postfix}",
        )

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:  # fill the bar, even if all runs were finished before
            self._bar.update(self._bar.total - self._bar.n)
        self._bar.close()
        with contextlib.suppress(OSError):  # it may never have been written
            self._file.unlink()

    def tell(self, progress: Any) -> None:
        self._bar.total = max(progress.total, 1e-9)
        self._bar.set_postfix_str(progress.text, refresh=False)
        self._bar.update(min(progress.done, self._bar.total) - self._bar.n)  # done may exceed total by rounding
        shown = self._bar.format_dict
        if shown["elapsed"] - self._written > 0.3:
            self._written = shown["elapsed"]
            rate = progress.done / shown["elapsed"] if shown["elapsed"] else 0.0
            left = (progress.total - progress.done) / rate if rate else None
            self._write({"share": progress.done / self._bar.total, "left": left, "text": progress.text})

    def _write(self, values: dict[str, Any]) -> None:
        temporary = self._file.with_suffix(".tmp")
        with contextlib.suppress(OSError):  # readers use the next update
            temporary.write_text(json.dumps(values), encoding="utf-8")
            os.replace(temporary, self._file)


def checked_folder(output: str) -> Path:
    """The folder for all studies, created if missing; checked after all other flags, because this writes."""
    folder = Path(output)
    nearest = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not nearest.is_dir():
        raise InputError(f"output {output!r}: {str(nearest)!r} is a file, expected a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"output {output!r}: the folder {str(nearest)!r} is not writable")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:  # some file systems refuse despite the permissions
        raise InputError(f"output {output!r}: the folder cannot be made ({problem.strerror})") from problem
    return folder


def _listing(described: list[dict[str, Any]]) -> str:
    return "\n\n".join(f"{d['name']}: {d['title']}\n  {d['statement']}\n  {d['source']}" for d in described)


def _as_text(s: dict[str, Any]) -> str:
    from toyguide.studies.report import show, show_p

    lines = [f"{s['name']}: {s['verdict']}", f"  {s['statement']}"]
    for c in s["criteria"]:
        found = f"{show(c['value'])} ({show(c['low'])} … {show(c['high'])}), {c['threshold']}"
        lines.append(f"  {c['name']}: {found}, p against {show_p(c['p_against'])}: {c['verdict']}")
    return "\n".join(lines)
