"""The metrics of both sides and the truth in one small table."""

from __future__ import annotations

from html import escape
from typing import Any

import panel as pn

from toyguide import rules
from toyguide.metrics import METRICS
from toyguide_apps.explorer_page.compute import Picture

__all__ = ["MetricsTable"]

_SHOWN = ("outliers", "coverage", "dropped_mass", "tips", "class_leak", "log_density", "sliced_w2")
_STYLE = """
    :host { font-size: 12.5px; overflow-x: auto; }
    /* While only the first samples are drawn, the numbers are still the last picture's. */
    :host { opacity: calc(1 - 0.6 * var(--toyguide-coarse, 0)); }
    table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
    th, td { padding: 3px 6px; text-align: right; white-space: nowrap; border-bottom: 1px solid rgba(128,128,128,.25); }
    th:first-child, td:first-child { text-align: left; font-weight: 600; max-width: 230px; overflow: hidden;
                                     text-overflow: ellipsis; }
    thead th { font-weight: 600; opacity: .8; cursor: help; }
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
    """Reference, rule, their difference and an exact sample of the same size, a column per metric."""

    def __init__(self) -> None:
        super().__init__()
        self._pane = pn.pane.HTML("", sizing_mode="stretch_width", stylesheets=[_STYLE], margin=(2, 8))

    def show(self, picture: Picture) -> None:
        """Write a picture's metrics."""
        left, right, truth = picture.left.metrics, picture.right.metrics, picture.truth
        names = [k for k in _SHOWN if right.get(k) is not None]
        titles = rules()
        rows = [
            (
                f"Reference: {titles[picture.left.experiment.rule].title}",
                "",
                [_cell(k, left) for k in names],
                picture.left,
            ),
            (titles[picture.right.experiment.rule].title, "", [_cell(k, right) for k in names], picture.right),
        ]
        head = "".join(f'<th title="{escape(METRICS[k].doc)}">{escape(METRICS[k].title)}</th>' for k in names)
        cost = '<th title="Field evaluations per trajectory">Evaluations</th><th title="Sampling time">Time</th>'
        cost += '<th title="Trajectories that left the finite numbers">Diverged</th>'
        body = "".join(
            f"<tr><td title='{escape(title)}'>{escape(title)}</td>{''.join(cells)}"
            f"<td>{paths.metrics['nfe']:g}</td><td>{paths.milliseconds:.0f} ms</td><td>{_lost(paths)}</td></tr>"
            for title, _, cells, paths in rows
        )
        differences = "".join(_difference(k, left, right, truth) for k in names)
        evaluations = right["nfe"] - left["nfe"]
        body += (
            f'<tr class="difference"><td>Difference</td>{differences}<td>{evaluations:+g}</td><td></td><td></td></tr>'
        )
        exact = "".join(_cell(k, truth) for k in names)
        n = picture.right.experiment.n
        body += f'<tr class="truth"><td title="Exact samples, as many">Truth ({n} exact samples)</td>{exact}'
        body += f"<td></td><td>{escape(picture.device)}</td><td></td></tr>"
        self._pane.object = f"<table><thead><tr><th></th>{head}{cost}</tr></thead><tbody>{body}</tbody></table>"

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
    return f'<td title="95 % interval, bootstrap">{text}<span class="interval">{low} … {high}</span></td>'


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


def _lost(paths: Any) -> str:
    n = paths.experiment.n
    return f"<b>{paths.diverged} of {n}</b>" if paths.diverged else "0"
