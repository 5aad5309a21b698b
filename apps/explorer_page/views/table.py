"""The metrics of all panels and of the truth in one small table, which folds out below the stage."""

from __future__ import annotations

from html import escape
from typing import Any

import panel as pn

from toyguide import rule
from toyguide.metrics import METRICS, Difference
from toyguide_apps.explorer_page.compute import Picture
from toyguide_apps.explorer_page.panels import LETTERS
from toyguide_apps.explorer_page.runs import Paths
from toyguide_apps.explorer_page.state import ExplorerState
from toyguide_apps.explorer_page.views.curves import FRAME
from toyguide_apps.explorer_page.views.headline import shown_number, verdict

__all__ = ["MetricsTable"]

_SHOWN = (
    *("outliers", "strays_10", "coverage", "dropped_mass", "tips", "class_leak"),
    *("median_log_density", "trimmed_w2"),
)
_STYLE = """
    :host { font-size: 13px; } div { overflow-x: auto; }
    /* While only the first samples are drawn, the numbers are still the last picture's. */
    :host { opacity: calc(1 - 0.6 * var(--toyguide-coarse, 0)); }
    table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
    th, td { padding: 3px 8px; text-align: right; white-space: nowrap; border-bottom: 1px solid rgba(128,128,128,.25); }
    th:first-child, td:first-child { text-align: left; font-weight: 600; }
    thead th { font-weight: 600; cursor: help; white-space: normal; vertical-align: bottom; }
    .interval { font-size: 12px; display: block; line-height: 1.15; opacity: .75; }
    .better, .worse { font-weight: 700; } .better i, .worse i { font-style: normal; display: block; font-size: 12px; }
    .better .interval, .worse .interval { opacity: 1; font-weight: 400; }
    .better { color: var(--toyguide-good); } .worse { color: var(--toyguide-bad); }
    p { margin: 6px 0 10px; max-width: 100ch; line-height: 1.4; }
"""
_KEY = (
    "<p><span class='better'>Better</span> and <span class='worse'>worse</span> stand where the 95 % interval of the "
    "difference from A, sample by sample on the same noise, excludes 0: closer to the value of exact samples for "
    "outliers, tips, class leak and log-density, higher for coverage, lower for all others. Without a word, a "
    "difference may be chance. Small print: 95 % intervals.</p>"
)


class MetricsTable(pn.viewable.Viewer):
    """A row for each panel, one for each difference from the first, and one for an exact sample of the same size.

    Args:
        state: Says whether the table is folded out.
    """

    def __init__(self, state: ExplorerState) -> None:
        super().__init__()
        self._state = state
        self._pane = pn.pane.HTML(
            "", sizing_mode="stretch_width", stylesheets=[_STYLE], margin=(2, 8), styles=FRAME, visible=state.table
        )
        self._picture: Picture | None = None
        state.param.watch(lambda *_: self._follow(), "table")

    def _follow(self) -> None:
        if self._state.table and self._picture is not None:
            self.show(self._picture)
        self._pane.visible = self._state.table

    def show(self, picture: Picture) -> None:
        """Write a picture's metrics, if the table is folded out."""
        self._picture = picture
        if self._state.table:
            self._pane.object = _table(picture)

    def __panel__(self) -> pn.viewable.Viewable:
        return self._pane


def _table(picture: Picture) -> str:
    runs, truth = picture.runs, picture.truth
    names = [k for k in _SHOWN if any(run.metrics.get(k) is not None for run in runs)]
    head = "".join(f'<th title="{escape(METRICS[k].doc)}">{escape(METRICS[k].title)}</th>' for k in names)
    head += '<th title="Field evaluations per trajectory">Evaluations</th><th title="Sampling time">Time</th>'
    head += '<th title="Trajectories that left the finite numbers">Diverged</th>'
    rows = []
    for letter, run in zip(LETTERS, runs, strict=False):
        first = rule(run.experiment.rule).title if len(runs) == 1 else f"{letter}  {rule(run.experiment.rule).title}"
        cells = "".join(_cell(k, run.metrics) for k in names)
        cells += f"<td>{_count(run.metrics['nfe'])}</td><td>{run.milliseconds:.0f} ms</td><td>{_lost(run)}</td>"
        rows.append(f"<tr><td>{escape(first)}</td>{cells}</tr>")
    for letter, run, changes in list(zip(LETTERS, runs, picture.changes, strict=False))[1:]:
        cells = "".join(_difference(k, changes.get(k)) for k in names)
        cells += f"<td>{_count(run.metrics['nfe'] - runs[0].metrics['nfe'], '+')}</td><td></td><td></td>"
        rows.append(f'<tr class="difference"><td>{letter} − A</td>{cells}</tr>')
    samples = [(run.experiment.label, run.experiment.n, exact) for run, exact in zip(runs, truth, strict=True)]
    several = len({label for label, _, _ in samples}) > 1
    for label, n, exact in {(label, n): (label, n, exact) for label, n, exact in samples}.values():
        of = f" of {label or 'the union'}" if several else ""
        cells = "".join(_cell(k, exact) for k in names) + f"<td></td><td>{escape(picture.device)}</td><td></td>"
        rows.append(f'<tr class="truth"><td>{n} exact samples{escape(of)}</td>{cells}</tr>')
    key = _KEY if len(runs) > 1 else ""
    table = f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    # It can be scrolled by keyboard where it is wider than the page.
    return f"<div tabindex='0' role='region' aria-label='All numbers'>{table}</div>{key}"


def _cell(name: str, metrics: dict[str, Any]) -> str:
    value = metrics.get(name)
    if value is None:
        return "<td>–</td>"
    text = shown_number(name, value)
    interval = (metrics.get("intervals") or {}).get(name)
    if interval is None:
        return f"<td>{text}</td>"
    low, high = (shown_number(name, v) for v in interval)
    about = "95 % interval of the mean of many runs like this one"
    return f'<td title="{about}">{text}<span class="interval">{low} … {high}</span></td>'


def _difference(name: str, change: Difference | None) -> str:
    if change is None:
        return "<td>–</td>"
    low, high = (shown_number(name, v, "+") for v in change.interval)
    text = f"{shown_number(name, change.value, '+')}<span class='interval'>{low} … {high}</span>"
    word = {1: "better", -1: "worse"}.get(verdict(change), "")
    return f'<td class="{word}">{text}<i>{word}</i></td>' if word else f"<td>{text}</td>"


def _count(evaluations: float, sign: str = "") -> str:
    """Evaluations per trajectory, a mean over them: a whole number for most rules."""
    return format(round(evaluations, 1), sign + "g")


def _lost(run: Paths) -> str:
    return f"<b>{run.diverged} of {run.experiment.n}</b>" if run.diverged else "0"
