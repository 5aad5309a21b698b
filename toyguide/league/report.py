"""The files of a league: all rows as CSV, the standings as JSON, and a report."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toyguide.errors import InputError
from toyguide.files import writing
from toyguide.league.arenas import STEPS
from toyguide.league.run import League
from toyguide.league.settings import text_of
from toyguide.league.standings import NUMBERS
from toyguide.studies.report import show

__all__ = ["STANDINGS", "figure_name", "introduction", "read_league", "table", "write_league"]

STANDINGS = "league.json"
_COLUMNS = {
    True: (
        "matched_outliers",
        "outliers",
        "coverage",
        "distance",
        "accuracy",
        "good_share",
        "strays",
        "equal_outliers",
    ),
    False: ("distance", "outliers", "accuracy", "strays", "equal_outliers"),
}
_LAST = ("target_distance", "evaluations", "time")
_SHOWN = 3  # digits of a number in a table


def write_league(league: League, found: Mapping[str, Any], folder: Path) -> None:
    """Write ``league.csv``, ``league.json`` and ``RESULTS.md``. The caller writes the figures.

    Args:
        league: The rows.
        found: Their standings.
        folder: Where; made if it is not there.

    Raises:
        InputError: If a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise InputError(f"output {str(folder)!r}: the folder cannot be made ({problem.strerror})") from problem
    rows = [
        {"round": name, **row} for name, part in (("tuning", league.tuning), ("final", league.rows)) for row in part
    ]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with writing(folder / "league.csv") as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    with writing(folder / STANDINGS) as temporary:
        temporary.write_text(json.dumps(found, ensure_ascii=False) + "\n", encoding="utf-8")
    with writing(folder / "RESULTS.md") as temporary:
        temporary.write_text("\n".join(_report(found)) + "\n", encoding="utf-8")


def read_league(folder: Path) -> dict[str, Any]:
    """The standings that :func:`write_league` wrote.

    Raises:
        InputError: If there are none.
    """
    path = folder / STANDINGS
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        whole = all(isinstance(arena["rules"], dict) for arena in found["arenas"].values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as problem:
        raise InputError(
            f"{str(path)!r}: not the standings of a league, expected those of toyguide league"
        ) from problem
    if not whole:
        raise InputError(f"{str(path)!r}: not the standings of a league, expected those of toyguide league")
    return dict(found)


def figure_name(arena: str) -> str:
    """The file of an arena's figure."""
    return f"{arena}.png"


def table(arena: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """An arena's table as texts: the titles of its columns, and a row for each rule, best first."""
    names = [*_COLUMNS[bool(arena["branched"])], *_LAST]
    names = [name for name in names if any(name in s["numbers"] for s in arena["rules"].values())]
    lines = []
    for key, s in arena["rules"].items():
        sign = "▲ " if key in arena["front"] else ""
        setting = text_of(s["params"]) or "defaults"
        notes = f"{' (with exact ' + ', '.join(s['exact']) + ')' if s['exact'] else ''}"
        lines.append([f"{sign}{key}{notes}", setting, s["sampler"], *(_cell(s["numbers"].get(name)) for name in names)])
    return ["rule", "setting", "sampler", *(NUMBERS[name] for name in names)], lines


def _cell(found: Sequence[float] | None) -> str:
    if found is None:
        return show(None)
    mean, low, high = found
    half = (high - low) / 2
    if not math.isfinite(half) or half == 0:
        return f"{mean:.{_SHOWN}g}"
    digits = min(max(1 - math.floor(math.log10(half)), 0), 5)  # two of the interval's own
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


def _report(found: Mapping[str, Any]) -> list[str]:
    lines = ["# The league of guidance rules", "", *introduction(found)]
    for name, arena in found["arenas"].items():
        titles, rows = table(arena)
        lines += ["", f"## {arena['title']}", "", f"![{arena['title']}]({figure_name(name)})", ""]
        lines += [_row(titles), "|---" * len(titles) + "|", *map(_row, rows)]
        if arena["absent"]:
            lines += ["", "Does not run here:", ""]
            lines += [f"- `{rule}`: {reason}." for rule, reason in arena["absent"].items()]
    return lines


def introduction(found: Mapping[str, Any]) -> list[str]:
    """How to read standings, and what was matched, as lines of Markdown."""
    first, last = found["first_seed"], found["first_seed"] + found["seeds"] - 1
    steps = (
        "with its steps adapted so that all rules make about as many evaluations"
        if found["equal_evaluations"]
        else f"with {STEPS} steps"
    )
    level = f"{found['coverage']:g}"
    quick = "A quick look: fewer settings, seeds and samples, and shorter trainings. " if found["quick"] else ""
    return [
        f"Generated by `toyguide league`. {quick}Every rule samples the same classes, from the same noise, with the "
        "same trained networks, and is compared with the exact distribution. What holds in these small settings need "
        "not "
        "hold for images.",
        "",
        "**How to read it.** *Outliers* are the share of samples outside the exact 99 % region; 0.01 of exact samples "
        "are, and fewer means that samples crowd where the density is high. *Coverage* is how much of the class's "
        "branches the samples fill; 1 is all. Guidance buys fewer outliers with coverage, so neither number alone "
        f"ranks a rule: *outliers at coverage {level}* is read off a ladder of weights where the mean coverage is "
        f"{level}, or wherever it is higher if the outliers are fewer there; a dash says that the rule never has "
        "that coverage. "
        "*In the class* is the share of samples whose likeliest class is the one asked for. *W2 to the truth* is the "
        "sliced Wasserstein distance to the exact distribution, at the setting that was chosen for it. *Good share of "
        "the slider* is how much of the weight's slider has fewer outliers than no guidance and keeps the coverage: a "
        "rule that forgives a wrong weight has much. *Strays* lie farther than 0.1 from every branch. *W2 to its own "
        "target* is the distance to the density that the rule is said to sample, where somebody says so. *Evaluations* "
        "are those of fields and gradients per sample; *time* is that of a run relative to an unguided one beside it, "
        "on one seed; *outliers at "
        f"equal evaluations* are those with as many steps as cost what CFG costs with {STEPS} Heun steps. ▲ marks the "
        "front: no other rule has both fewer outliers and more coverage (where the class is a single branch, whose "
        "coverage is always 1: less distance).",
        "",
        f"**What was matched.** Every rule got {found['budget']} settings, its defaults among them, run {steps} on "
        f"{found['tuning_seeds']} seeds that count for nothing else. The setting shown had the fewest outliers there "
        f"among those with a coverage of at least {level}, or, where the class is a single branch, the least distance. "
        f"The numbers are from {found['seeds']} other seeds ({first} to {last}), each with networks of its own, "
        f"{found['n']} samples each, with 95 % intervals over the seeds "
        "(Student's t). The sampler is Heun's, Euler's for rules that need first order, and the ancestral one for "
        "rules that need noise. A rule with an exact field in one of its roles has an advantage, which its line says.",
    ]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
