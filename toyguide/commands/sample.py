"""``toyguide sample``: run one experiment and save its trajectories."""

from __future__ import annotations

import argparse
import inspect
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

_DEFAULTS = {name: p.default for name, p in inspect.signature(Experiment).parameters.items()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    def setting(name: str, help: str, **more: Any) -> None:
        shown = "" if _DEFAULTS[name] is None else f" (default: {_DEFAULTS[name]})"
        parser.add_argument(f"--{name.replace('_', '-')}", help=help + shown, default=argparse.SUPPRESS, **more)

    parser.add_argument("--experiment", metavar="FILE", help="start from this experiment (JSON; - reads stdin)")
    setting("dataset", "a bundled name, a folder with a dataset.toml, or a CSV of points")
    setting("label", "the class to sample; default: the union of all")
    field = "exact, exact@LABEL, exact+noise:SHARE, DATASET/NETWORK, a .safetensors or mean(FIELD, FIELD)"
    setting("main", f"the field that is sampled: {field}", metavar="FIELD")
    setting("uncond", "the field CFG extrapolates from; default: the natural partner of main", metavar="FIELD")
    setting("weak", "the field autoguidance extrapolates from; default: the natural partner of main", metavar="FIELD")
    parser.add_argument(
        "--field", action="append", default=[], metavar="ROLE=FIELD", help="the field in any other role of the rule"
    )
    setting("rule", "the guidance rule, see toyguide rules", choices=list(rules()), metavar="RULE")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter of the rule")
    setting("interval", "guide only where LOW < sigma <= HIGH", type=interval, metavar="LOW,HIGH")
    setting("schedule", "how the weight varies over the steps, like linear or early:0.5; default: constant")
    setting("sampler", f"one of {', '.join(SAMPLERS)}")
    setting("steps", "solver steps", type=int)
    setting("n", "number of trajectories", type=int)
    setting("seed", "seed of all random numbers", type=int)
    setting("sigma_min", "the last noise level before 0; default: the dataset's", type=float)
    setting("sigma_max", "the first noise level; default: the dataset's", type=float)
    setting("rho", "how closely the levels are spaced towards sigma-min; default: the dataset's", type=float)
    parser.add_argument("--device", choices=DEVICES, default="auto", help="(default: auto)")
    parser.add_argument("-o", "--output", required=True, metavar="RUN.npz", help="the file to write")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> None:
    experiment = _experiment(args)
    if not args.output.endswith(".npz"):
        raise InputError(f"output {args.output!r}: expected a name that ends in .npz")
    check_writable(args.output)
    for warning in experiment.warnings():
        print(f"toyguide: warning: {warning}", file=sys.stderr)

    result = experiment.run(
        args.device, watch=lambda steps: tqdm(steps, total=experiment.steps + 1, unit="step", disable=None, leave=False)
    )
    result.save(args.output)

    counts = {"nfe": result.nfe, "gradients": result.gradients, "diverged": result.diverged}
    report = {"file": args.output, "seconds": result.seconds, **counts}
    if result.diverged:
        print(f"toyguide: warning: {result.diverged} of {experiment.n} trajectories diverged", file=sys.stderr)
    if args.json:
        print(json.dumps({**report, "experiment": experiment.settings()}))
    else:
        print(
            f"{args.output}: {experiment.n} trajectories, {result.nfe:g} evaluations each,"
            f" {result.seconds:.2f} s, {result.diverged} diverged"
        )


def _experiment(args: argparse.Namespace) -> Experiment:
    """The experiment of the file, or the default one, with the settings of the flags."""
    given = {name: getattr(args, name) for name in _DEFAULTS if hasattr(args, name)}
    base = {} if args.experiment is None else Experiment.from_json(_read(args.experiment)).settings()
    same_rule = given.get("rule", base.get("rule")) == base.get("rule")
    params = {**(base.get("params", {}) if same_rule else {}), **dict(assignment("--set", text) for text in args.set)}
    fields = {**base.get("fields", {}), **dict(assignment("--field", text) for text in args.field)}
    return Experiment(**{**base, **given, "params": params, "fields": fields})


def _read(path: str) -> str:
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise InputError(f"experiment {path!r}: cannot be read ({problem})") from problem


def assignment(flag: str, text: str) -> tuple[str, Any]:
    """Parses ``name=value``; the value is a number, true or false, or else a string."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        example = {"--set": "NAME=VALUE, like w=3", "--field": "ROLE=FIELD, like weak=exact+noise:0.2"}[flag]
        raise InputError(f"{flag} {text!r}: expected {example}")
    if value in ("true", "false"):
        return name, value == "true"
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, value


def interval(text: str) -> tuple[float, float]:
    """Parses ``LOW,HIGH``."""
    try:
        low, high = map(float, text.split(","))
    except ValueError as problem:
        raise argparse.ArgumentTypeError(f"{text!r}: expected two noise levels, LOW,HIGH, like 0.3,1.6") from problem
    return low, high
