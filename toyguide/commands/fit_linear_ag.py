"""``toyguide fit-linear-ag``: fit the coefficients of the rule linear-ag and store them with the dataset."""

from __future__ import annotations

import argparse
import json

NAME = "fit-linear-ag"
HELP = "fit the coefficients of the rule linear-ag to CFG runs, and store them with the dataset"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--dataset", default="fractal", metavar="NAME", help="name or path (default: fractal)")
    parser.add_argument("--label", metavar="CLASS", help="class to sample (default: the union of all)")
    parser.add_argument("--main", metavar="FIELD", help="conditional field (default: as in toyguide sample)")
    parser.add_argument("--uncond", metavar="FIELD", help="unconditional field (default: the partner of the main one)")
    parser.add_argument("--w", type=float, default=4.0, help="CFG weight of the runs (default: 4)")
    parser.add_argument("--steps", type=int, default=32, help="their Euler steps (default: 32)")
    parser.add_argument("--n", type=int, default=200, help="trajectories (default: 200)")
    parser.add_argument("--seed", type=int, default=1_000_000, help="seed, apart from any test's (default: 1000000)")
    parser.add_argument("--json", action="store_true", help="print the entry as JSON")


def run(args: argparse.Namespace) -> None:
    """Run the command.

    Raises:
        InputError: If a flag is wrong or the dataset's folder cannot be written to.
    """
    from dataclasses import asdict

    import torch

    from toyguide.datasets.checkpoints import UNION
    from toyguide.errors import InputError
    from toyguide.experiment import Experiment
    from toyguide.fields import eps_from_denoised
    from toyguide.guidance.linear_fits import LinearFit, fit_step, signature, write_fit

    if args.steps < 2 or args.n < 2:
        raise InputError(f"--steps {args.steps} --n {args.n}: expected at least 2 of each")
    e = Experiment(
        dataset=args.dataset,
        label=None if args.label == UNION else args.label,
        main=args.main,
        uncond=args.uncond,
        rule="cfg",
        params={"w": args.w},
        sampler="euler",
        steps=args.steps,
        n=args.n,
        seed=args.seed,
    )
    fields = e.build_fields()
    main_field, uncond_field = (e.scene(fields=fields).field(role) for role in ("main", "uncond"))
    levels, coefficients, errors = [], [], []
    before = None
    for step in e.walk(fields=fields):
        if step.sigma == 0:
            break
        x = step.x.double()  # at low noise eps is a small difference
        main, uncond = (eps_from_denoised(f.denoise(x, step.sigma), x, step.sigma) for f in (main_field, uncond_field))
        if before is not None:
            (a, b, c), error = fit_step(uncond, (main, *before))
            levels.append(step.sigma)
            coefficients.append((a, b, c))
            errors.append(error)
        before = (main, uncond)
    main_name, uncond_name = (str(e.fields[role]) for role in ("main", "uncond"))
    fit = LinearFit(
        label=e.label,
        main=main_name,
        uncond=uncond_name,
        w=args.w,
        steps=e.steps,
        n=e.n,
        seed=e.seed,
        signature=signature(main_field, uncond_field, torch.device("cpu")),
        levels=tuple(levels),
        coefficients=tuple(coefficients),
        errors=tuple(float(f"{error:.3g}") for error in errors),
    )
    path = write_fit(e.data, fit)
    if args.json:
        print(json.dumps(asdict(fit)))
    else:
        print(f"{path}: {main_name} and {uncond_name}, {len(levels)} levels, largest relative error {max(errors):.2g}")
