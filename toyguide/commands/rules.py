"""``toyguide rules``: list the guidance rules, the fields that they need and their parameters."""

from __future__ import annotations

import argparse
import json
import math
import textwrap
from typing import Any

import param

from toyguide.guidance import Limit, Rule, rules
from toyguide.guidance.base import expectation

NAME = "rules"
HELP = "list the guidance rules with their parameters and sources"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print a JSON list")


def run(args: argparse.Namespace) -> None:
    if args.json:
        print(json.dumps([_describe(rule) for rule in rules().values()], indent=2, ensure_ascii=False))
    else:
        print("\n\n".join(_as_text(rule).replace("\n", "\n  ") for rule in rules().values()))


def _describe(rule: type[Rule]) -> dict[str, Any]:
    return {
        "name": rule.key,
        "title": rule.title,
        "family": rule.family,
        "needs": list(rule.needs),
        "roles": {name: {"kind": role.kind, "doc": role.doc} for name, role in rule.roles().items()},
        "parameters": {name: _parameter(declared) for name, declared in rule.declared().items()},
        "off": {name: "inf" if value == math.inf else value for name, value in rule.off.items()},
        "limits": [_limit(limit) for limit in rule.limits],
        "unguided": None if rule.unguided is None else dict(rule.unguided),
        "formula": rule.formula,
        "summary": rule.summary,
        "source": rule.source,
    }


def _limit(limit: Limit) -> dict[str, Any]:
    params = {name: "inf" if value == math.inf else value for name, value in limit.params.items()}
    return {"params": params, "rule": limit.rule, "of": dict(limit.of), "same": list(limit.same)}


def _parameter(declared: param.Parameter) -> dict[str, Any]:
    described = {"default": declared.default, "doc": declared.doc}
    if isinstance(declared, param.Selector):
        return {**described, "choices": list(declared.objects)}
    if isinstance(declared, param.Number):
        return {**described, "bounds": [None if end == math.inf else end for end in declared.bounds or (None, None)]}
    return described


def _as_text(rule: type[Rule]) -> str:
    lines = [f"{rule.key}: {rule.title}", f"needs {', '.join(rule.needs)}"]
    for name, declared in rule.declared().items():
        off = f"; {rule.off[name]} is off" if name in rule.off else ""
        lines.append(f"{name} = {declared.default} ({expectation(declared)}{off}): {declared.doc}")
    return "\n".join(textwrap.fill(line, 110, subsequent_indent="    ") for line in [*lines, rule.source])
