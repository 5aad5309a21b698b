"""``toyguide rules``: list the guidance rules, show one in full, or its counterpart in diffusers."""

from __future__ import annotations

import argparse
import json
import math
import textwrap
from collections.abc import Mapping
from typing import Any

import param

from toyguide.commands.sample import assignment, interval
from toyguide.errors import InputError
from toyguide.guidance import Interval, Limit, Rule, rule, rules
from toyguide.guidance.base import expectation

NAME = "rules"
HELP = "list the guidance rules with their parameters and sources, or show one in full"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="show this rule in full; default: list all")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter of the rule")
    parser.add_argument("--diffusers", action="store_true", help="print the rule as a guider of diffusers")
    parser.add_argument("--interval", type=interval, metavar="LOW,HIGH", help="guided where LOW < sigma <= HIGH only")
    parser.add_argument(
        "--levels", type=_levels, default=(), metavar="SIGMA,...", help="of an interval: the level of each step"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list")


def run(args: argparse.Namespace) -> None:
    if args.name is None and (args.diffusers or args.set):
        raise InputError("--diffusers and --set are of one rule: expected its NAME")
    if not args.diffusers and (args.interval or args.levels):
        raise InputError("--interval and --levels are of a guider: expected --diffusers too")
    chosen = None if args.name is None else rule(args.name, **dict(assignment("--set", text) for text in args.set))
    if args.diffusers and chosen is not None:
        print(_guider(chosen if args.interval is None else Interval(chosen, *args.interval), args.levels))
    elif args.json:
        described = rules().values() if chosen is None else [type(chosen)]
        print(json.dumps([_describe(cls) for cls in described], indent=2, ensure_ascii=False))
    elif chosen is not None:
        print(_in_full(chosen))
    else:
        print("\n\n".join(_as_text(rule).replace("\n", "\n  ") for rule in rules().values()))


def _levels(text: str) -> tuple[float, ...]:
    try:
        return tuple(map(float, text.split(",")))
    except ValueError as problem:
        raise argparse.ArgumentTypeError(f"{text!r}: expected noise levels, like 14.6,3.1,0.4") from problem


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
    lines = [f"{rule.key}: {rule.title}", f"needs {', '.join(rule.needs)}", *_parameters(rule), rule.source]
    return "\n".join(map(_wrapped, lines))


def _parameters(rule: type[Rule]) -> list[str]:
    lines = []
    for name, declared in rule.declared().items():
        off = f"; {rule.off[name]} is off" if name in rule.off else ""
        lines.append(f"{name} = {declared.default} ({expectation(declared)}{off}): {declared.doc}")
    return lines


def _wrapped(line: str) -> str:
    return textwrap.fill(line, 110, subsequent_indent="    ")


def _in_full(chosen: Rule) -> str:
    cls = type(chosen)
    unguided = "never" if cls.unguided is None else _values(cls.unguided) or "always"
    parts = {
        "formula": [cls.formula],
        "source": [cls.source],
        "fields": [f"{name}: {role.doc}" for name, role in cls.roles().items()],
        "parameters": _parameters(cls),
        "unguided at": [unguided],
        "limits": [_limit_as_text(limit) for limit in cls.limits],
        "runs": [_runs(chosen), _pipeline(chosen)],
    }
    title = f"{cls.key}: {cls.title} ({cls.family.lower()})"
    blocks = [f"{name}\n" + "\n".join(f"  {_wrapped(x)}" for x in lines) for name, lines in parts.items() if lines]
    return "\n\n".join([title, _wrapped(cls.summary).replace("\n    ", "\n"), *blocks])


def _values(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in values.items())


def _limit_as_text(limit: Limit) -> str:
    """One equality with another rule, like ``eta = 1.0, beta = 0.0: cfg with the same w``."""
    here = [_values(limit.params)] if limit.params else []
    here += [f"the field of {other} as {role}" for role, other in limit.fields.items()]
    there = [_values(limit.of)] if limit.of else []
    there += [f"the same {', '.join(limit.same)}"] if limit.same else []
    where = f", under {limit.sampler}" if limit.sampler else ""
    return f"{', '.join(here) or 'any values'}: {limit.rule}{' with ' + ' and '.join(there) if there else ''}{where}"


def _runs(chosen: Rule) -> str:
    """What a rule asks of a run, and what one costs: counted in a run over small random fields."""
    from toyguide.contract import LEVELS, fields_for
    from toyguide.contract import run as walk

    method = "ancestral" if chosen.needs_noise else "euler"
    cost = walk(chosen, fields_for(type(chosen)), method=method)[-1].cost
    steps = len(LEVELS) - 1
    asked = {
        "needs a first-order sampler": chosen.first_order,
        "needs a stochastic sampler": chosen.needs_noise,
        "its points affect each other": chosen.interacts,
    }
    counted = f"evaluations in a step of {method}: {cost.mean / steps:.3g}, gradients: {cost.gradients / steps:.3g}"
    return "; ".join([counted, *(said for said, is_asked in asked.items() if is_asked)])


def _pipeline(chosen: Rule) -> str:
    """Whether a pipeline can carry the rule."""
    from toyguide.bridge.carried import Carried

    try:
        passes = Carried(chosen, weak=True).passes.values()
    except InputError as problem:
        return str(problem).partition(": ")[2]
    return f"can run in a pipeline of diffusers{' that has the weak one' if 'weak' in passes else ''}"


def _guider(chosen: Rule, levels: tuple[float, ...]) -> str:
    """A guider of diffusers, in Python."""
    from toyguide.bridge import counterpart, equivalent

    name, arguments = equivalent(chosen, levels)
    found = counterpart(chosen)
    lines = [
        f"from diffusers.guiders import {name}",
        f"guider = {name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})",
        f"# computes the same for {found.agrees}",
        *(f"# no counterpart of {part}: {why}" for part, why in found.without),
    ]
    return "\n".join(lines)
