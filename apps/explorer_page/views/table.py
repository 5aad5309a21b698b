"""The metrics of both sides and the truth in one small table."""

from __future__ import annotations

from html import escape
from typing import Any

import panel as pn

from toyguide import rule
from toyguide.metrics import METRICS
from toyguide_apps.explorer_page.compute import Picture
from toyguide_apps.explorer_page.runs import Paths

__all__ = ["MetricsTable"]

_SHOWN = (
    *("outliers", "strays_10", "coverage", "dropped_mass", "tips", "class_leak"),
    *("median_log_density", "trimmed_w2"),
)
_STYLE = """
    :host { font-size: 12.5px; overflow-x: auto; }
    /* While only the first samples are drawn, the numbers are still the last picture's. */
    :host { opacity: calc(1 - 0.6 * var(--toyguide-coarse, 0)); }
    table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
    th, td { padding: 3px 6px; text-align: right; white-space: nowrap; border-bottom: 1px solid rgba(128,128,128,.25); }
    th:first-child, td:first-child { text-align: left; font-weight: 600; max-width: 230px; overflow: hidden;
                                     text-overflow: ellipsis; }
    thead th { font-weight: 600; opacity: .8; cursor: help; white-space: normal; vertical-align: bottom; }
    .interval { opacity: .6; font-size: 10.5px; display: block; line-height: 1.1; }
    .good::after { content: " ▲"; color: #0a8f6a; } .bad::after { content: " ▼"; color: #d55e00; }
    tr.difference td { border-bottom: none; }
    tr.truth td { opacity: .8; }
    @media (max-width: 1250px) {
        :host { font-size: 11px; }
        th, td { padding: 3px 3px; } .interval { display: none; }
        th:first-child, td:first-child { max-width: 105px; }
    }
"""


class MetricsTable(pn.viewable.Viewer):
    """A row for each panel, one for each difference from the first, and one for an exact sample of the same size."""

    def __init__(self) -> None:
        super().__init__()
        self._pane = pn.pane.HTML("", sizing_mode="stretch_width", stylesheets=[_STYLE], margin=(2, 8))

    def show(self, picture: Picture) -> None:
        """Write a picture's metrics."""
        runs, truth = picture.runs, picture.truth
        names = [k for k in _SHOWN if any(run.metrics.get(k) is not None for run in runs)]
        head = "".join(f'<th title="{escape(METRICS[k].doc)}">{escape(METRICS[k].title)}</th>' for k in names)
        head += '<th title="Field evaluations per trajectory">Evaluations</th><th title="Sampling time">Time</th>'
        head += '<th title="Trajectories that left the finite numbers">Diverged</th>'
        titles = [rule(run.experiment.rule).title for run in runs]
        rows = []
        for i, (title, run) in enumerate(zip(titles, runs, strict=True)):
            first = f"Reference: {title}" if i == 0 and len(runs) > 1 else title
            cells = "".join(_cell(k, run.metrics) for k in names)
            cells += f"<td>{_count(run.metrics['nfe'])}</td><td>{run.milliseconds:.0f} ms</td><td>{_lost(run)}</td>"
            rows.append(f"<tr><td title='{escape(first)}'>{escape(first)}</td>{cells}</tr>")
        for title, run, exact in list(zip(titles, runs, truth, strict=True))[1:]:
            first = "Difference" if len(runs) == 2 else f"Difference: {title}"
            cells = "".join(_difference(k, runs[0].metrics, run.metrics, exact) for k in names)
            cells += f"<td>{_count(run.metrics['nfe'] - runs[0].metrics['nfe'], '+')}</td><td></td><td></td>"
            rows.append(f'<tr class="difference"><td>{escape(first)}</td>{cells}</tr>')
        samples = [(run.experiment.label, run.experiment.n, exact) for run, exact in zip(runs, truth, strict=True)]
        several = len({label for label, _, _ in samples}) > 1
        for label, n, exact in {(label, n): (label, n, exact) for label, n, exact in samples}.values():
            of = f" of {label or 'the union'}" if several else ""
            cells = "".join(_cell(k, exact) for k in names) + f"<td></td><td>{escape(picture.device)}</td><td></td>"
            first = f"Truth ({n} exact samples{escape(of)})"
            rows.append(f'<tr class="truth"><td title="Exact samples, as many">{first}</td>{cells}</tr>')
        self._pane.object = f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"

    def __panel__(self) -> pn.viewable.Viewable:
        return self._pane


def _cell(name: str, metrics: dict[str, Any]) -> str:
    value = metrics.get(name)
    if value is None:
        return "<td>–</td>"
    text = _number(name, value)
    interval = (metrics.get("intervals") or {}).get(name)
    if interval is None:
        return f"<td>{text}</td>"
    low, high = (_number(name, v) for v in interval)
    about = "95 % interval of the mean of many runs like this one"
    return f'<td title="{about}">{text}<span class="interval">{low} … {high}</span></td>'


def _difference(name: str, left: dict[str, Any], right: dict[str, Any], truth: dict[str, Any]) -> str:
    a, b = left.get(name), right.get(name)
    if a is None or b is None:
        return "<td>–</td>"
    gain = {
        "low": a - b,
        "high": b - a,
        "truth": abs(a - (truth.get(name) or 0.0)) - abs(b - (truth.get(name) or 0.0)),
    }[METRICS[name].better]
    kind = "good" if gain > 1e-9 else "bad" if gain < -1e-9 else ""
    return f'<td class="{kind}">{_number(name, b - a, "+")}</td>'


def _number(name: str, value: float, sign: str = "") -> str:
    """As the metric is written; without decimals where it is large, so that the columns keep their places."""
    return format(value, sign + (METRICS[name].format if abs(value) < 100 else ".0f"))


def _count(evaluations: float, sign: str = "") -> str:
    """Evaluations per trajectory, a mean over them: a whole number for most rules."""
    return format(round(evaluations, 1), sign + "g")


def _lost(run: Paths) -> str:
    return f"<b>{run.diverged} of {run.experiment.n}</b>" if run.diverged else "0"
