"""``toyguide sample``: run one experiment and keep its trajectories."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from toyguide.devices import DEVICES
from toyguide.errors import InputError
from toyguide.experiment import Experiment
from toyguide.files import check_writable
from toyguide.guidance import rules
from toyguide.samplers import SAMPLERS

NAME = "sample"
HELP = "sample a dataset under a guidance rule and write the trajectories"

_SETTINGS = tuple(f.name for f in dataclasses.fields(Experiment) if f.name != "params")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    def setting(name: str, help: str, **more: Any) -> None:
        default = Experiment.__dataclass_fields__[name].default
        shown = f" (default: {default})" if default is not None else ""
        parser.add_argument(f"--{name.replace('_', '-')}", help=help + shown, default=argparse.SUPPRESS, **more)

    parser.add_argument("--experiment", metavar="FILE", help="start from this experiment (JSON; - reads stdin)")
    setting("dataset", "a bundled name, a folder with a dataset.toml, or a CSV of points")
    setting("label", "the class to sample; left out: the union of all")
    field = "exact, exact@LABEL, exact+noise:SHARE, DATASET/NETWORK or a .safetensors"
    setting("main", f"the field that is sampled: {field}", metavar="FIELD")
    setting("uncond", "what CFG-like rules extrapolate from; left out: the natural partner of main", metavar="FIELD")
    setting("weak", "what autoguidance extrapolates from; left out: the natural partner of main", metavar="FIELD")
    setting("rule", "the guidance rule, see toyguide rules", choices=list(rules()), metavar="RULE")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter of the rule")
    setting("interval", "guide only where LOW < sigma <= HIGH", type=_interval, metavar="LOW,HIGH")
    setting("sampler", f"one of {', '.join(SAMPLERS)}")
    setting("steps", "solver steps", type=int)
    setting("n", "trajectories", type=int)
    setting("seed", "of all random numbers", type=int)
    setting("sigma_min", "the last noise level before 0; left out: the dataset's", type=float)
    setting("sigma_max", "the first noise level; left out: the dataset's", type=float)
    setting("rho", "how the levels crowd; left out: the dataset's", type=float)
    parser.add_argument("--device", choices=DEVICES, default="auto", help="(default: auto)")
    parser.add_argument("-o", "--output", required=True, metavar="RUN.npz", help="where the trajectories go")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> None:
    experiment = _experiment(args)
    if not args.output.endswith(".npz"):
        raise InputError(f"output {args.output!r}: expected a name that ends in .npz")
    check_writable(args.output)

    result = experiment.run(
        args.device, watch=lambda steps: tqdm(steps, total=experiment.steps + 1, unit="step", disable=None, leave=False)
    )
    result.save(args.output)

    report = {"file": args.output, "nfe": result.nfe, "seconds": result.seconds, "diverged": result.diverged}
    if result.diverged:
        print(f"toyguide: warning: {result.diverged} of {experiment.n} trajectories diverged", file=sys.stderr)
    if args.json:
        print(json.dumps({**report, "experiment": dataclasses.asdict(experiment)}))
    else:
        print(
            f"{args.output}: {experiment.n} trajectories, {result.nfe} evaluations each,"
            f" {result.seconds:.2f} s, {result.diverged} diverged"
        )


def _experiment(args: argparse.Namespace) -> Experiment:
    """The experiment of the file, or the default one, with the flags' changes."""
    given = {name: getattr(args, name) for name in _SETTINGS if hasattr(args, name)}
    base = Experiment() if args.experiment is None else Experiment.from_json(_read(args.experiment))
    if "rule" in given or args.set:
        kept = base.params if given.get("rule", base.rule) == base.rule else {}
        given["params"] = {**kept, **dict(map(_assignment, args.set))}
    return dataclasses.replace(base, **given)


def _read(path: str) -> str:
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise InputError(f"experiment {path!r}: cannot be read ({problem})") from problem


def _assignment(text: str) -> tuple[str, Any]:
    """``name=value``; a value that is not a number stays a text."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise InputError(f"--set {text!r}: expected NAME=VALUE, like w=3")
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, value


def _interval(text: str) -> tuple[float, float]:
    try:
        low, high = map(float, text.split(","))
    except ValueError as problem:
        raise argparse.ArgumentTypeError(f"{text!r}: expected two noise levels, LOW,HIGH, like 0.3,1.6") from problem
    return low, high
