"""The files of a study: a CSV of all runs, a JSON summary, a short report, and the table of all studies."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from toyguide.errors import InputError
from toyguide.files import writing
from toyguide.studies.base import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED, Study
from toyguide.studies.plan import DEVELOPMENT, Plan
from toyguide.studies.run import Outcome

__all__ = [
    "IMAGE_FORMATS",
    "SUMMARY",
    "describe",
    "read_summary",
    "show",
    "show_p",
    "write",
    "write_results",
]

SUMMARY = "summary.json"
IMAGE_FORMATS = (".png", ".svg")
_KEYS = (
    *("name", "title", "statement", "source", "setting", "verdict", "figures", "intervals", "criteria", "sheets"),
    *("quick", "seeds", "first_seed", "runs", "command"),
)
_HEADINGS = {SUPPORTED: "Holds", NOT_SUPPORTED: "Does not hold", INCONCLUSIVE: "Undecided"}
_HOW = f"""\
## How a verdict comes about

Each study tests one claim of one paper, or one finding of our own, in a small setting whose truth is known exactly. It
states the runs and the criteria in advance: effects, each with a threshold that follows from the claim. Every run is
repeated with several seeds, and networks are trained anew for each, so the effects differ from seed to seed. The
interval is where the mean effect lies with 95 % confidence (Student's t).

- **Supported**: the interval of every criterion lies wholly on the claimed side of its threshold.
- **Not supported**: at least one criterion lies on the other side, and by more than chance. *p against* says how likely
  effects so far on the other side are if the criterion is just met. It counts all criteria of the study (Holm's
  correction), because one of many fails by accident more easily; 0.025 or less fails the claim.
- **Inconclusive**: neither. More seeds may decide.

A verdict contradicts the truth at most 2.5 % of the time if effects are normal over the seeds, and more often if a few
seeds differ much from the rest. Seeds below {DEVELOPMENT} are for development: criteria may have been settled with them
in view, and verdicts on them count for less. A study says which seeds it ran."""


def _command(study: Study, plan: Plan) -> str:
    """The command that runs a study with these settings."""
    quick = " --quick" if plan.quick else ""
    return f"toyguide study {study.name}{quick} --seeds {plan.seeds} --first-seed {plan.first_seed}"


def describe(study: Study) -> dict[str, Any]:
    """A study's claim, setting and criteria, as JSON values."""
    return {
        "name": study.name,
        "title": study.title,
        "statement": study.statement,
        "source": study.source,
        "setting": study.setting,
        "criteria": [{"name": c.name, "text": c.text, "threshold": c.threshold} for c in study.criteria],
    }


def summarise(outcome: Outcome) -> dict[str, Any]:
    """All results, as JSON values: ``figures`` is a flat table of numbers, ``intervals`` their intervals."""
    study, plan = outcome.study, outcome.plan
    found = {j.criterion.name: j.found for j in outcome.judged} | outcome.numbers
    return {
        **describe(study),
        "verdict": outcome.verdict,
        "figures": {name: _number(f.mean) for name, f in found.items()},
        "intervals": {name: [_number(f.low), _number(f.high)] for name, f in found.items()},
        "criteria": [
            {
                "name": j.criterion.name,
                "text": j.criterion.text,
                "threshold": j.criterion.threshold,
                "value": _number(j.found.mean),
                "low": _number(j.found.low),
                "high": _number(j.found.high),
                "p_against": _number(j.p_against),
                "verdict": j.verdict,
            }
            for j in outcome.judged
        ],
        "sheets": [{"name": s.name, "caption": s.caption} for s in outcome.sheets],
        "quick": plan.quick,
        "seeds": plan.seeds,
        "first_seed": plan.first_seed,
        "runs": len(outcome.rows),
        "seconds": round(outcome.seconds, 1),
        "torch": torch.__version__,
        "command": _command(study, plan),
    }


def write(outcome: Outcome, folder: Path) -> dict[str, Any]:
    """Write the CSV, the summary and the report into a study's folder. The caller writes the figures.

    Returns:
        The summary.
    """
    summary = summarise(outcome)
    columns = list(dict.fromkeys(name for row in outcome.rows for name in row))
    with writing(folder / "runs.csv") as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(outcome.rows)
    with writing(folder / SUMMARY) as temporary:
        temporary.write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    with writing(folder / "report.md") as temporary:
        temporary.write_text("\n".join(_report(summary)) + "\n", encoding="utf-8")
    return summary


def read_summary(path: Path) -> dict[str, Any]:
    """A study's summary.

    Raises:
        InputError: If the file is not a summary.
    """
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as problem:
        raise InputError(f"{str(path)!r}: not the summary of a study ({problem})") from problem
    if not isinstance(summary, dict) or not set(_KEYS) <= set(summary):
        raise InputError(f"{str(path)!r}: not the summary of a study")
    return summary


def write_results(output: Path, studies: Iterable[Study]) -> None:
    """Write ``RESULTS.md``: what the full runs in a folder found, at a glance, and then each with its numbers."""
    paths = [(study, output / study.name / SUMMARY) for study in studies]
    found = [(study, read_summary(path)) for study, path in paths if path.is_file()]
    if not found:
        return
    lines = ["# What the studies found", "", "Generated by `toyguide study`."]
    for verdict, heading in _HEADINGS.items():
        items = [_glance(study, s) for study, s in found if s["verdict"] == verdict]
        lines += ["", f"## {heading}", "", *(items or ["None."])]
    lines += ["", _HOW, "", "## All studies", "", "| study | claim | source | verdict |", "|---|---|---|---|"]
    lines += [_row(_link(s, s["name"]), s["statement"], s["source"], f"**{s['verdict']}**") for _, s in found]
    for _, s in found:
        lines += ["", f"## {s['title']}", "", *_body(s, f"{s['name']}/")]
    with writing(output / "RESULTS.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _glance(study: Study, s: dict[str, Any]) -> str:
    """A study in a line of a list: its title, the criterion that decides, and what was found."""
    c = _decisive(s)
    number = f"{show(c['value'])} ({_range(c['low'], c['high'])}), claimed {c['threshold']}"
    return f"- **{_link(s, s['title'])}.** {c['text']}: {number}. {study.finding}".rstrip()


def _decisive(s: dict[str, Any]) -> dict[str, Any]:
    """The criterion with a study's verdict that has the most against it; the first of several."""
    return min(
        (c for c in s["criteria"] if c["verdict"] == s["verdict"]),
        key=lambda c: math.inf if c["p_against"] is None else c["p_against"],
    )


def _link(s: dict[str, Any], text: str) -> str:
    return f"[{text}]({s['name']}/report.md)"


def _seeds(s: dict[str, Any]) -> str:
    """Which seeds were run, and whether the criteria were settled before."""
    first = s["first_seed"]
    one = f"seeds {first} to {first + s['seeds'] - 1}" if s["seeds"] > 1 else f"seed {first}"
    fresh = "not looked at before the criteria were settled" if first >= DEVELOPMENT else "which are for development"
    return f"{one}, {fresh}"


def _report(summary: dict[str, Any]) -> list[str]:
    return [f"# {summary['title']}", "", *_body(summary, ""), "", *_numbers(summary)]


def _body(s: dict[str, Any], folder: str) -> list[str]:
    lines = [
        f"**{s['verdict'].capitalize()}.** {s['statement']} ({s['source']})",
        "",
        s["setting"],
        "",
        f"`{s['command']}`: {s['runs']} runs{', a quick look' if s['quick'] else ''}; {_seeds(s)}.",
        "",
        "| claim | threshold | mean | 95 % interval | p against | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for c in s["criteria"]:
        found = show(c["value"]), _range(c["low"], c["high"]), show_p(c["p_against"])
        lines.append(_row(c["text"], c["threshold"], *found, c["verdict"]))
    for sheet in s["sheets"]:
        lines += ["", f"![{sheet['caption']}]({folder}{sheet['name']}{IMAGE_FORMATS[0]})", "", sheet["caption"]]
    return lines


def _numbers(s: dict[str, Any]) -> list[str]:
    judged = {c["name"] for c in s["criteria"]}
    others = {name: value for name, value in s["figures"].items() if name not in judged}
    if not others:
        return []
    lines = ["| number | mean | 95 % interval |", "|---|---|---|"]
    for name, value in others.items():
        lines.append(_row(name, show(value), _range(*s["intervals"][name])))
    return lines


def show(value: float | None) -> str:
    """A number with four significant digits; a dash for None."""
    return "–" if value is None else f"{value:.4g}"


def show_p(value: float | None) -> str:
    """A p-value in two digits; a dash for None."""
    return show(None) if value is None else "< 0.0001" if value < 1e-4 else "> 0.5" if value > 0.5 else f"{value:.2g}"


def _row(*cells: str) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _range(low: float | None, high: float | None) -> str:
    return f"{show(low)} … {show(high)}"


def _number(value: float) -> float | None:
    """Six digits of a number; None if it is not finite, since JSON has no NaN."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
