"""What was measured, written down: a table for the terminal, and a device's section of BENCHMARKS.md."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toyguide.bench.timing import Spread
from toyguide.files import writing

__all__ = ["as_markdown", "as_text", "replace_section", "write"]

_TITLES = {"cpu": "CPU", "cuda": "GPU"}
_FIGURES = {"cpu": "growth", "cuda": "growth-gpu"}

_HEAD = """\
# Benchmarks

Written by `toyguide bench -o .`, a section for each kind of device it was run on. Ratios are what counts: the textbook
formulation of the same work (`toyguide/bench/textbook.py`) and the library take turns in one process, and a ratio is
that of neighbouring turns, so that a machine that is busy or slow is so for both. A figure is the median of the turns,
with the lowest and the highest; aims are those that were set before anything was made fast.
"""

Table = list[tuple[str, ...]]


def rows_table(measured: Mapping[str, Any]) -> Table:
    """The comparisons with the textbook, headings first."""
    table: Table = [("work", "textbook", "toyguide", "times as fast", "aim", "")]
    for row in measured["rows"]:
        table.append(
            (
                row["name"],
                _spread(row["textbook"], _seconds),
                _spread(row["seconds"], _seconds),
                _ratio(row["ratio"]),
                _aim(row["aim"], _seconds),
                _met(row["met"]),
            )
        )
    return table


def figures_table(measured: Mapping[str, Any]) -> Table:
    """The other figures, headings first."""
    table: Table = [("what", "figure", "aim", "")]
    for figure in measured["figures"]:

        def written(value: float, unit: str = figure["unit"]) -> str:
            return f"{value:.3g} {unit}".rstrip() if value < 1000 else f"{value:,.0f} {unit}".rstrip()

        v = figure["value"]
        table.append(
            (
                figure["name"],
                _spread([v["low"], v["median"], v["high"]], written),
                _aim(figure["aim"], written),
                _met(figure["met"]),
            )
        )
    return table


def growth_table(measured: Mapping[str, Any]) -> Table:
    """How costs grow, headings first."""
    table: Table = [("cost of", "with", "held", "from", "to", "slope")]
    for s in measured["growth"]:
        ends = [f"{s['sizes'][i]:,}: {_seconds(s['seconds'][i])}" for i in (0, -1)]
        table.append((s["what"], s["by"], s["held"], *ends, f"{s['slope']:.2f}"))
    return table


def as_text(measured: Mapping[str, Any]) -> str:
    """All of it for a terminal."""
    tables = [_aligned(t(measured)) for t in (rows_table, figures_table, growth_table)]
    return "\n\n".join([_where(measured["machine"]), *tables, *measured["remarks"]])


def as_markdown(measured: Mapping[str, Any]) -> str:
    """A device's section of BENCHMARKS.md."""
    device = measured["machine"]["device"]
    return "\n\n".join(
        [
            f"## {_TITLES[device]}",
            f"Measured on {_where(measured['machine'])}.",
            _piped(rows_table(measured)),
            _piped(figures_table(measured)),
            *measured["remarks"],
            "Growth: a slope of 1 is a cost in proportion. It is that of the upper half of the sizes.",
            f"![Cost against components, points, dimensions and steps](docs/{_FIGURES[device]}.svg)",
            _piped(growth_table(measured)),
        ]
    )


def replace_section(text: str, section: str) -> str:
    """A BENCHMARKS.md with a section in place of that of the same title, or after the others; the head is made anew."""
    title = section.partition("\n")[0]
    sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)[1:]
    by_title = {s.partition("\n")[0].strip(): s.strip() for s in sections} | {title: section.strip()}
    return "\n\n".join([_HEAD.strip(), *by_title.values()]) + "\n"


def write(measured: Mapping[str, Any], folder: Path) -> None:
    """BENCHMARKS.md with this device's section, and its figure of the growth, in a folder. Needs matplotlib."""
    from toyguide.bench.figure import growth_figure
    from toyguide.plots import save

    path, device = folder / "BENCHMARKS.md", measured["machine"]["device"]
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    with writing(path) as temporary:
        temporary.write_text(replace_section(before, as_markdown(measured)), encoding="utf-8")
    (folder / "docs").mkdir(exist_ok=True)
    figure = growth_figure(measured["growth"], _where(measured["machine"]))
    for suffix in (".png", ".svg"):
        save(figure, folder / "docs" / f"{_FIGURES[device]}{suffix}")


def _where(machine: Mapping[str, Any]) -> str:
    """The machine, the versions and the date in one line."""
    processor = f"{machine['cores']} cores ({machine['processor']}, {machine['vectors']})"
    return ", ".join(
        [
            machine["date"],
            *([machine["gpu"]] if machine["gpu"] else []),
            processor,
            f"{machine['threads']} threads",
            "a C++ compiler" if machine["compiler"] else "no C++ compiler",
            f"torch {machine['torch']}",
            f"Python {machine['python']}",
            machine["system"],
            f"toyguide {machine['toyguide']}",
        ]
    )


def _seconds(value: float) -> str:
    """With three digits, in a unit that suits."""
    if value >= 1:
        return f"{value:.3g} s" if value < 1000 else f"{value:,.0f} s"
    return f"{value * 1e3:.3g} ms" if value >= 1e-3 else f"{value * 1e6:.3g} µs"


def _spread(values: Sequence[float] | None, written: Any) -> str:
    """``median (low … high)``, or the one value there is."""
    if not values:
        return "–"
    s = Spread.of(values)
    return written(s.median) + ("" if s.low == s.high else f" ({written(s.low)} … {written(s.high)})")


def _ratio(ratio: Mapping[str, float] | None) -> str:
    return "–" if ratio is None else "{median:.3g}× ({low:.3g} … {high:.3g})".format(**ratio)


def _aim(aim: Mapping[str, float | None] | None, written: Any) -> str:
    if aim is None:
        return "–"
    parts = [] if aim["ratio"] is None else [f"{aim['ratio']:.3g}×"]
    return ", ".join(parts + ([] if aim["at_most"] is None else [f"≤ {written(aim['at_most'])}"]))


def _met(met: bool | None) -> str:
    return {None: "", True: "met", False: "not met"}[met]


def _aligned(table: Table) -> str:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in table)


def _piped(table: Table) -> str:
    lines = [f"| {' | '.join(row)} |" for row in table]
    return "\n".join([lines[0], "|" + "---|" * len(table[0]), *lines[1:]])
