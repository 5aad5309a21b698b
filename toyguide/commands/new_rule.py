"""``toyguide new-rule``: write a file that a guidance rule of one's own starts from."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from toyguide.errors import InputError

NAME = "new-rule"
HELP = "write a Python file with a guidance rule to start from"

_NAME = re.compile(r"[a-z][a-z0-9]*([-+][a-z0-9]+)*")

_TEMPLATE = '''"""Say here what the rule does, with its formula and where it comes from."""

from toyguide.guidance import Guided, Limit, PerTrajectory, Rule


class {cls}(Rule):
    key = "{key}"
    title = "{title}"
    family = "Several fields"
    formula = r"D = D_\\mathrm{{main}} + (w-1)\\,(D_\\mathrm{{main}} - D_\\mathrm{{uncond}})"
    source = "mine"
    summary = "What it does to the samples, and when to use it."
    needs = ("main", "uncond")  # the fields that it evaluates
    unguided = {{"w": 1.0}}  # the values at which it does nothing
    limits = (Limit({{}}, "cfg", same=("w",)),)  # where it equals other rules; change or delete this
    batchable = True

    w = PerTrajectory(3.0, bounds=(0.0, 30.0), softbounds=(0.0, 10.0), step=0.1, doc="Guidance weight; 1 is unguided.")

    def guide(self, at, memory):
        main, uncond = at.denoised_each("main", "uncond")
        return Guided(main + (self.w - 1) * (main - uncond))
'''


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the rule's name, like my-rule")
    parser.add_argument("-o", "--output", metavar="FILE", help="the file (default: the name with underscores, .py)")


def run(args: argparse.Namespace) -> None:
    from toyguide.files import writing
    from toyguide.guidance import rules

    if not _NAME.fullmatch(args.name):
        raise InputError(f"name {args.name!r}: expected small letters and digits with hyphens, like my-rule")
    if args.name in rules():
        raise InputError(f"name {args.name!r}: is taken, see toyguide rules")
    words = re.split("[-+]", args.name)
    path = Path(args.output or f"{'_'.join(words)}.py")
    if path.exists():
        raise InputError(f"{path}: is there already, expected a new file")
    title = " ".join(words).capitalize()
    text = _TEMPLATE.format(cls="".join(word.capitalize() for word in words), key=args.name, title=title)
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"{path}: change it, then\n  toyguide check-rule {path}\n  toyguide app --rules {path}")
