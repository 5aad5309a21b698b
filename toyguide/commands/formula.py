"""``toyguide formula``: check a guidance rule that is typed as text, and write it as a rule file."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from toyguide.errors import InputError
from toyguide.files import writing
from toyguide.guidance.formula import as_rule_file, parse

NAME = "formula"
HELP = "check a rule that is typed as text, and write it as a rule file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "expression", metavar="FORMULA", help="like 'w = 3 [0, 10]; D_main + (w - 1) * (D_main - D_weak)'"
    )
    parser.add_argument("-o", "--output", metavar="RULE.py", help="write a rule file; its name is the rule's")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> None:
    found = parse(args.expression)
    if args.output is not None:
        path = Path(args.output)
        if path.suffix != ".py":
            raise InputError(f"output {args.output!r}: expected a name that ends in .py")
        text = as_rule_file(args.expression, path.stem.replace("_", "-"))
        with writing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    if args.json:
        parameters = {p.name: {"default": p.default, "bounds": [p.low, p.high]} for p in found.parameters}
        print(json.dumps({"needs": found.roles, "parameters": parameters, "file": args.output}))
        return
    print(f"needs {', '.join(found.roles) or 'no field'}")
    for p in found.parameters:
        print(f"{p.name} = {p.default:g} (a number from {p.low:g} to {p.high:g})")
    if args.output is not None:
        print(f"written to {args.output}")
