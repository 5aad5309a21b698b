"""``toyguide train``: train a network and save it, with other weight averages and snapshots in the same folder."""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from toyguide.classifier_training import ClassifierSettings, train_classifier
from toyguide.datasets.checkpoints import UNION, save_model
from toyguide.devices import DEVICES, resolve_device
from toyguide.errors import InputError
from toyguide.files import check_writable
from toyguide.training import TrainSettings, TrainStep, train

NAME = "train"
HELP = "train a network and write it as .safetensors"

_FIELDS_ALONE = ("label", "conditional", "unbounded", "auxiliary")  # flags that a classifier does not have

_CURVE = 64  # most points of a recorded loss curve
_AVERAGED = 64  # iterations over which the reported loss is averaged
_CHECK_EVERY = 16  # iterations between reads of the loss, each of which waits for the device


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--dataset", default="fractal", metavar="NAME", help="name or path (default: fractal)")
    parser.add_argument("--label", metavar="CLASS", help="class to model (default: the union of all)")
    parser.add_argument("--conditional", action="store_true", help="one network for every class and the union")
    parser.add_argument("--classifier", action="store_true", help="a classifier of noisy points in place of a field")
    parser.add_argument("--label-noise", type=float, metavar="SHARE", help="share of a classifier's labels at random")
    parser.add_argument("--loss", default="exact", metavar="{exact,denoising}", help="score matching (default: exact)")
    parser.add_argument("--unbounded", action="store_true", help="let the gain take either sign, as in the paper")
    parser.add_argument("--auxiliary", type=int, metavar="LAYER", help="a second read-out after this hidden layer")
    add_learning_arguments(parser, width=64, layers=4, batch=4096)


def add_learning_arguments(parser: argparse.ArgumentParser, width: int, layers: int, batch: int) -> None:
    """Declare the flags of every training, with its defaults."""
    parser.add_argument("--width", type=int, default=width, help=f"units in each hidden layer (default: {width})")
    parser.add_argument("--layers", type=int, default=layers, help=f"hidden layers (default: {layers})")
    parser.add_argument("--iterations", type=int, default=4096, help="optimizer steps (default: 4096)")
    parser.add_argument("--batch", type=int, default=batch, help=f"points in each step (default: {batch})")
    parser.add_argument("--learning-rate", type=float, default=0.01, help="initial learning rate (default: 0.01)")
    parser.add_argument(
        "--ema",
        default="0.010",
        metavar="LENGTH,…",
        help="lengths of the weight averages, relative to the training; the first is the output (default: 0.010)",
    )
    parser.add_argument("--snapshot-every", type=int, metavar="N", help="also write the network every N iterations")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and batches (default: 0)")
    parser.add_argument("--device", default="auto", metavar=f"{{{','.join(DEVICES)}}}", help="default: auto")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the .safetensors to write")
    parser.add_argument("--json", action="store_true", help="print a report as JSON")


def run(args: argparse.Namespace) -> None:
    """Run the command.

    Raises:
        InputError: If a flag is wrong; before any training.
        SystemExit: With code 130 when interrupted.
    """
    if not args.classifier:
        if args.label_noise is not None:
            raise InputError("--label-noise: expected with --classifier")
        settings = TrainSettings(
            label=None if args.label == UNION else args.label,
            conditional=args.conditional,
            loss=args.loss,
            bounded=not args.unbounded,
            auxiliary=args.auxiliary,
            **shared_settings(args),
        )
        learn(args, settings, train)
        return
    for name in _FIELDS_ALONE:
        if getattr(args, name):
            raise InputError(f"--{name}: a classifier is one of noisy points of all classes; expected no such flag")
    told = ClassifierSettings(label_noise=args.label_noise or 0.0, **shared_settings(args))
    learn(args, told, train_classifier)


def shared_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The settings of every training that the flags give.

    Raises:
        InputError: If the lengths of the averages are not numbers.
    """
    names = ("dataset", "width", "layers", "iterations", "batch", "learning_rate", "seed")
    return {**{name: getattr(args, name) for name in names}, "ema": _lengths(args.ema)}


def learn(args: argparse.Namespace, settings: Any, training: Callable[[Any, str], Iterator[TrainStep[Any]]]) -> None:
    """Train, and write the networks.

    Args:
        args: The flags of :func:`add_learning_arguments`.
        settings: The training's settings, a dataclass.
        training: Of the settings and the name of a device.

    Raises:
        InputError: If the output cannot be written, before any training, or if the training diverges.
        SystemExit: With code 130 when interrupted.
    """
    output = check_writable(args.output)
    if output.suffix != ".safetensors":
        raise InputError(f"output {args.output!r}: expected a name that ends in .safetensors")
    if args.snapshot_every is not None and args.snapshot_every < 1:
        raise InputError(f"--snapshot-every {args.snapshot_every}: expected a whole number of at least 1")
    device = str(resolve_device(args.device))
    losses: list[torch.Tensor] = []

    def write(path: Path, sigma_rel: float) -> str:
        record = {
            "settings": asdict(settings),
            "ema": sigma_rel,
            "iterations": step.iteration,
            "final_loss": _final(losses),
            "loss_curve": _curve(losses),
            "seconds": round(step.seconds, 1),
            "torch": torch.__version__,
            "device": device,
        }
        save_model(step.averages[sigma_rel], path, record)
        return str(path)

    files = []
    lines_apart = 0.5 if sys.stderr.isatty() else 30.0  # seconds
    with _interruptible() as interrupted, tqdm(total=settings.iterations, mininterval=lines_apart) as bar:
        for step in training(settings, device):
            losses.append(step.loss)
            last = interrupted or step.iteration == settings.iterations
            if last or step.iteration % _CHECK_EVERY == 0:
                loss = _final(losses)
                if not math.isfinite(loss):
                    raise InputError(f"learning rate {args.learning_rate}: the loss is {loss}; expected a lower rate")
                bar.set_postfix(loss=f"{loss:.4g}", refresh=False)
            bar.update()
            snapshot = output.with_stem(f"{output.stem}-iter{step.iteration:07d}")
            if interrupted:
                break
            if args.snapshot_every and step.iteration % args.snapshot_every == 0:
                files.append(write(snapshot, settings.ema[0]))
    if interrupted:
        kept = write(snapshot, settings.ema[0])
        print(f"toyguide: interrupted after {step.iteration} iterations; the network so far is {kept}", file=sys.stderr)
        raise SystemExit(130)

    for sigma_rel in settings.ema:
        first = sigma_rel == settings.ema[0]
        files.append(write(output if first else output.with_stem(f"{output.stem}-ema{sigma_rel:.3f}"), sigma_rel))
    parameters = sum(p.numel() for p in step.network.parameters())
    seconds = round(step.seconds, 1)
    if args.json:
        print(json.dumps({"files": files, "final_loss": loss, "seconds": seconds, "parameters": parameters}))
    else:
        print(f"{', '.join(files)}: loss {loss:.4g}, {parameters} parameters, {seconds} s")


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """A list that is no longer empty after Ctrl-C, so that the current step can finish; a second Ctrl-C interrupts."""
    signals: list[int] = []

    def note(number: int, _frame: Any) -> None:
        signals.append(number)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield signals
    finally:
        signal.signal(signal.SIGINT, before)


def _final(losses: list[torch.Tensor]) -> float:
    """The mean of the last losses."""
    return float(torch.stack(losses[-_AVERAGED:]).mean())


def _curve(losses: list[torch.Tensor]) -> list[list[float]]:
    """The loss curve as a few pairs: an iteration, and the mean loss since the previous pair."""
    size = math.ceil(len(losses) / _CURVE)
    means = [float(part.mean()) for part in torch.stack(losses).split(size)]
    return [[min((i + 1) * size, len(losses)), float(f"{mean:.6g}")] for i, mean in enumerate(means)]


def _lengths(text: str) -> tuple[float, ...]:
    try:
        lengths = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--ema {text!r}: expected lengths separated by commas, like 0.010,0.050") from None
    if len({f"{length:.3f}" for length in lengths}) < len(lengths):
        raise InputError(
            f"--ema {text!r}: expected lengths that differ by at least 0.001, which their files are named by"
        )
    return lengths
