"""``toyguide distill``: train an adapter that does what CFG does, and save it."""

from __future__ import annotations

import argparse

from toyguide.commands.train import add_learning_arguments, learn, shared_settings
from toyguide.datasets.checkpoints import UNION

NAME = "distill"
HELP = "distil classifier-free guidance into an adapter and write it as .safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--dataset", default="fractal", metavar="NAME", help="name or path (default: fractal)")
    parser.add_argument("--label", metavar="CLASS", help="class to sample (default: the union of all)")
    parser.add_argument("--main", metavar="FIELD", help="the field that is sampled (default: its natural partner)")
    parser.add_argument("--uncond", metavar="FIELD", help="what CFG extrapolates from (default: its natural partner)")
    parser.add_argument("--unguided-paths", action="store_true", help="learn from unguided trajectories, to compare")
    parser.add_argument("--trajectories", type=int, default=4096, help="how many are stored (default: 4096)")
    add_learning_arguments(parser, width=16, layers=2, batch=1024)


def run(args: argparse.Namespace) -> None:
    """Run the command.

    Raises:
        InputError: If a flag is wrong; before any training.
        SystemExit: With code 130 when interrupted.
    """
    from toyguide.distillation import DistillSettings, distill

    settings = DistillSettings(
        label=None if args.label == UNION else args.label,
        main=args.main,
        uncond=args.uncond,
        guided=not args.unguided_paths,
        trajectories=args.trajectories,
        **shared_settings(args),
    )
    learn(args, settings, distill)
