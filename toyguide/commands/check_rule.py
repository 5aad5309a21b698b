"""``toyguide check-rule``: check a guidance rule of one's own."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from toyguide.errors import InputError

if TYPE_CHECKING:
    from toyguide.contract import Finding

NAME = "check-rule"
HELP = "check the guidance rules of a Python file, and say in words what is wrong"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("rule", metavar="FILE|NAME", help="a Python file that defines rules, or a rule's name")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(args: argparse.Namespace) -> None:
    from toyguide.contract import check_rule
    from toyguide.guidance import rules, rules_of_file

    known = rules()
    chosen = [known[args.rule]] if args.rule in known else rules_of_file(args.rule)
    found = {cls.key: check_rule(cls) for cls in chosen}
    if args.json:
        print(json.dumps({key: [asdict(finding) for finding in findings] for key, findings in found.items()}, indent=1))
    else:
        print("\n\n".join(_report(f"{cls.key}: {cls.title}", found[cls.key]) for cls in chosen))
    failed = {key: sum(finding.verdict == "fails" for finding in findings) for key, findings in found.items()}
    if any(failed.values()):
        counts = ", ".join(f"{count} of {len(found[key])} of {key}" for key, count in failed.items() if count)
        raise InputError(f"checks failed: {counts}")


def _report(title: str, findings: list[Finding]) -> str:
    marks = {"ok": "ok", "fails": "FAILS", "skipped": "-"}
    width = max(len(finding.check) for finding in findings)
    lines = [f"  {marks[f.verdict]:<5}  {f.check:<{width}}  {f.said}".rstrip() for f in findings]
    return "\n".join([title, *lines])
