"""``toyguide league``: compare all rules, or one's own with the others."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from toyguide.commands.study import Bar, checked_folder
from toyguide.commands.sweep import add_workers, stopping, workers_of
from toyguide.devices import DEVICES, resolve_device
from toyguide.errors import unknown

NAME = "league"
HELP = "compare all guidance rules, or your own with the others"

_YARDSTICKS = ("none", "cfg")
"""What a single rule is run beside."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rule",
        action="append",
        default=[],
        metavar="RULE",
        help="run only this rule, a name or a Python file, beside CFG and no guidance; may be repeated",
    )
    parser.add_argument("--dataset", action="append", default=[], metavar="NAME", help="only here; may be repeated")
    parser.add_argument("--quick", action="store_true", help="fewer settings, seeds and samples, shorter trainings")
    parser.add_argument(
        "--equal-evaluations",
        action="store_true",
        help="adapt the steps so that all rules have about equal evaluations",
    )
    add_workers(parser)
    parser.add_argument("--device", choices=DEVICES, default="auto", help="device of each worker (default: auto)")
    parser.add_argument(
        "-o", "--output", default="out/league", metavar="DIR", help="the folder of the results (default: %(default)s)"
    )
    parser.add_argument(
        "--studies",
        default="out/studies",
        metavar="DIR",
        help="the folder of studies, whose networks and finished runs are used (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the standings as JSON")


def run(args: argparse.Namespace) -> None:
    """Run the command.

    Raises:
        InputError: If a flag is wrong; before anything is run.
        SystemExit: With code 130 when interrupted, with code 1 when workers died.
    """
    from toyguide.guidance import rules
    from toyguide.league import ARENAS, read_league, run_league, standings, write_league

    datasets = list(dict.fromkeys(arena.dataset for arena in ARENAS))
    for name in args.dataset:
        if name not in datasets:
            raise unknown("dataset of the league", name, datasets)
    arenas = [arena for arena in ARENAS if not args.dataset or arena.dataset in args.dataset]
    own = [key for text in args.rule for key in _named(text)]
    keys = list(dict.fromkeys([*_YARDSTICKS, *own])) if own else list(rules())
    executor = workers_of(args)
    if args.scheduler is None:
        resolve_device(args.device)
    import toyguide.plots  # noqa: F401, raises at once if matplotlib is missing

    studies, output = checked_folder(args.studies), Path(args.output)
    with stopping(lambda: "what is finished is kept"), executor as workers, Bar(NAME, studies) as bar:
        league = run_league(
            arenas,
            keys,
            studies,
            quick=args.quick,
            device=args.device,
            equal_evaluations=args.equal_evaluations,
            tell=bar.tell,
            executor=workers,
        )
        found = standings(league)
    if own:
        others = read_league(output) if (output / "league.json").is_file() else None
        _print(found, others, own, args.json)
        return
    write_league(league, found, output)
    _draw(found, output)
    print(json.dumps(found, ensure_ascii=False) if args.json else f"{output / 'RESULTS.md'}: {len(league.rows)} rows")


def _named(text: str) -> list[str]:
    """The rules that a name or a file stands for."""
    from toyguide.guidance import rules, rules_of_file

    if text.endswith(".py"):
        return [cls.key for cls in rules_of_file(text)]
    if text not in rules():
        raise unknown("rule", text, rules())
    return [text]


def _draw(found: dict[str, Any], output: Path) -> None:
    from toyguide.league.report import figure_name
    from toyguide.plots import save
    from toyguide.plots.league import draw_arena

    for name, arena in found["arenas"].items():
        save(draw_arena(arena), output / figure_name(name))


def _print(found: dict[str, Any], others: dict[str, Any] | None, own: list[str], as_json: bool) -> None:
    """One's own rules in each arena, and what they are more than each other rule, paired by seed."""
    from toyguide.league import beside, differences
    from toyguide.league.report import table

    compared: dict[str, Any] = {}
    for name, arena in found["arenas"].items():
        joined = beside(found, others, name)
        pairs = [(rule, rival) for rule in own if rule in arena["rules"] for rival in joined["rules"] if rival != rule]
        compared[name] = [
            {
                "rule": rule,
                "rival": rival,
                "more": {k: [d.mean, d.low, d.high] for k, d in differences(joined, rule, rival).items()},
            }
            for rule, rival in pairs
        ]
        if not as_json:
            print("\n".join(_lines(arena["title"], *table(joined), arena["absent"], compared[name])))
    if as_json:
        print(json.dumps({"standings": found, "differences": compared}, ensure_ascii=False))


def _lines(
    title: str, titles: list[str], rows: list[list[str]], absent: dict[str, str], compared: list[dict[str, Any]]
) -> list[str]:
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    lines = [
        title,
        *("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in [titles, *rows]),
    ]
    lines += [f"{rule} does not run here: {reason}" for rule, reason in absent.items()]
    for each in compared:
        parts = [f"{k} {mean:+.4f} ({low:+.4f} … {high:+.4f})" for k, (mean, low, high) in each["more"].items()]
        lines.append(f"{each['rule']} minus {each['rival']}: {', '.join(parts) or 'nothing to compare'}")
    return [*lines, ""]
