"""``toyguide tune``: the best parameters of a rule for an aim, checked on fresh seeds."""

from __future__ import annotations

import argparse
import json
import shlex
from concurrent.futures import Executor
from typing import Any

from tqdm import tqdm

from toyguide.commands.sweep import add_workers, stopping, workers_of
from toyguide.devices import DEVICES, resolve_device
from toyguide.errors import InputError, unknown

NAME = "tune"
HELP = "find the best parameters of a rule, and check them on fresh seeds"

_ALL = "all"
_FRESH = 100  # the first seed of the check
_COUNTED = {"trials": (2, 100_000), "seeds": (1, _FRESH), "fresh": (2, 1000)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("rule", metavar="RULE", help=f"a rule of toyguide rules, or {_ALL}")
    parser.add_argument("--dataset", default="fractal", help="(default: fractal)")
    parser.add_argument("--label", help="the class to sample; default: the one that the explorer opens with")
    parser.add_argument("--aim", default="outliers", help="outliers, distance, class or coverage (default: outliers)")
    parser.add_argument("--at-coverage", type=float, help="the coverage to keep, if the aim keeps one (default: 0.8)")
    parser.add_argument("--trials", type=int, default=40, help="settings to try (default: 40)")
    parser.add_argument("--seeds", type=int, default=2, help="tuning seeds, from 0 on (default: 2)")
    parser.add_argument("--fresh", type=int, default=10, help=f"seeds of the check, from {_FRESH} on (default: 10)")
    parser.add_argument("--steps", type=int, default=32, help="solver steps (default: 32)")
    parser.add_argument("--n", type=int, default=1024, help="trajectories (default: 1024)")
    add_workers(parser)
    parser.add_argument("--device", choices=DEVICES, default="auto", help="device of each worker (default: auto)")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


def run(args: argparse.Namespace) -> None:
    """Run the command.

    Raises:
        InputError: If a flag is wrong; before anything is run.
        SystemExit: With code 130 when interrupted, with code 1 when workers died.
    """
    from toyguide.guidance import rules
    from toyguide.league.aims import AIMS, COVERAGE

    if args.rule not in (*rules(), _ALL):
        raise unknown("rule", args.rule, [*rules(), _ALL])
    if args.aim not in AIMS:
        raise unknown("aim", args.aim, AIMS)
    level = COVERAGE if args.at_coverage is None else args.at_coverage
    if not 0 <= level <= 1:
        raise InputError(f"--at-coverage {level:g}: expected a share from 0 to 1")
    for name, (low, high) in _COUNTED.items():
        if not low <= getattr(args, name) <= high:
            raise InputError(f"--{name} {getattr(args, name)}: expected a whole number from {low} to {high}")
    executor = workers_of(args)
    if args.scheduler is None:
        resolve_device(args.device)
    starts = _starts(args)
    found = []
    with stopping(lambda: "nothing is kept"), executor as workers:
        for start in starts:
            found.append(_tuned(start, args, level, workers))
            if not args.json:
                print(_as_text(found[-1]), flush=True)
    if args.json:
        print(json.dumps(found if args.rule == _ALL else found[0], ensure_ascii=False))


def _starts(args: argparse.Namespace) -> list[Any]:
    """A run of each rule that is tuned; of all those that this dataset has the fields for."""
    from toyguide.datasets import load_dataset
    from toyguide.experiment import Experiment
    from toyguide.guidance import rules
    from toyguide.league.arenas import sampler_of
    from toyguide.league.settings import main_parameters

    label = args.label or load_dataset(args.dataset).view.label
    starts = []
    for key in rules() if args.rule == _ALL else [args.rule]:
        if args.rule == _ALL and not main_parameters(rules()[key]):
            continue
        try:
            run = Experiment(
                args.dataset, label, rule=key, sampler=sampler_of(rules()[key]), steps=args.steps, n=args.n
            )
            run.build_fields()
        except InputError:
            if args.rule != _ALL:
                raise
        else:
            starts.append(run)
    return starts


def _tuned(start: Any, args: argparse.Namespace, level: float, executor: Executor | None) -> dict[str, Any]:
    """What was found for a rule, as JSON values."""
    from toyguide.league.aims import AIMS
    from toyguide.league.tuning import tune

    with tqdm(total=args.trials, initial=1, desc=start.rule, unit="setting", disable=None, leave=False) as bar:
        result = tune(
            start,
            args.aim,
            args.trials,
            range(args.seeds),
            range(_FRESH, _FRESH + args.fresh),
            level,
            device=args.device,
            executor=executor,
            tell=lambda tried: bar.update(tried - bar.n),
        )
    e = result.experiment
    difference = result.difference
    return {
        "rule": e.rule,
        "aim": args.aim,
        "wanted": AIMS[args.aim].doc,
        "at_coverage": level if AIMS[args.aim].matched else None,
        "params": {name: value for name, value in e.params.items() if value != start.params[name]},
        "trials": result.trials,
        "tuning_loss": {"best": result.tuning_loss[0], "defaults": result.tuning_loss[1]},
        "best": _means(result.best),
        "defaults": _means(result.default),
        "difference": [difference.mean, difference.low, difference.high],
        "better": result.better,
        "experiment": e.settings(),
        "command": _command(e),
        "explorer": _address(e),
    }


def _means(rows: Any) -> dict[str, float | None]:
    names = [name for name in ("outliers", "coverage", "class_leak", "sliced_w2") if name in rows[0]]
    whole = {name: [row[name] for row in rows] for name in names}
    return {name: None if None in values else sum(values) / len(values) for name, values in whole.items()}


def _command(e: Any) -> str:
    """The command that runs the best setting."""
    parts = ["toyguide", "sample", "--dataset", e.dataset, *(["--label", e.label] if e.label else [])]
    parts += ["--rule", e.rule]
    for name, value in e.build_rule().changed().items():
        parts += ["--set", f"{name}={value}"]
    parts += ["--sampler", e.sampler, "--steps", str(e.steps), "--n", str(e.n), "--seed", str(e.seed)]
    return shlex.join([*parts, "-o", "run.npz"])


def _address(e: Any) -> str | None:
    """Its address in the explorer; None where that is not installed or cannot show it."""
    try:
        from toyguide_apps.explorer_page.links import address_of_experiment
    except ImportError:
        return None
    return address_of_experiment(e)


def _numbers(means: dict[str, float | None]) -> list[str]:
    return [f"{name} {'none' if value is None else f'{value:.4f}'}" for name, value in means.items()]


def _as_text(found: dict[str, Any]) -> str:
    mean, low, high = found["difference"]
    setting = " ".join(f"{k}={v}" for k, v in found["params"].items()) or "the defaults"
    lines = [
        f"{found['rule']}: {setting} ({found['wanted']})",
        f"  really better than the defaults: {found['better']}; loss {mean:+.4f} ({low:+.4f} … {high:+.4f})",
        *(f"  {name}: {', '.join(_numbers(found[name]))}" for name in ("best", "defaults")),
        f"  {found['command']}",
    ]
    return "\n".join([*lines, *([f"  {found['explorer']}"] if found["explorer"] else [])])
