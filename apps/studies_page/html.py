"""Studies as HTML: the list, a study's claim and verdict, its criteria, figures and numbers."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable
from datetime import datetime
from html import escape
from typing import Any

from toyguide import __version__
from toyguide.studies.report import IMAGE_FORMATS, show, show_p
from toyguide_apps.studies_page.results import Found
from toyguide_apps.studies_page.scenes import Scene

__all__ = ["MARKS", "STYLE", "criteria", "duration", "figure", "heading", "in_explorer", "numbers", "summary_line"]

MARKS = {"supported": "✓", "not supported": "✗", "inconclusive": "≈", "": "○"}
"""A sign for each verdict, and for none: told apart without colours."""

_P = (
    "<span title='How likely an effect so far on the other side is if the claim is just met, counting all criteria; "
    "0.025 or less fails the claim'>p against</span>"
)
STYLE = """
    :host { font-size: 14px; line-height: 1.5; }
    p { margin: 0 0 8px 0; max-width: 78ch; }
    .small { font-size: 12.5px; opacity: .75; }
    .entry { display: grid; grid-template-columns: minmax(0, 72ch) 260px; gap: 4px 32px; }
    .claim { font-size: 16px; }
    .verdict { white-space: nowrap; font-weight: 600; }
    .verdict i { font-style: normal; display: inline-block; width: 1.2em; text-align: center; font-weight: 700; }
    .supported i { color: #009e73; } .not i { color: #d55e00; } .inconclusive i { color: #5b8fd0; }
    .none { font-weight: 400; opacity: .75; }
    .large { font-size: 19px; }
    code { font-size: 12.5px; padding: 3px 7px; border-radius: 4px; background: rgba(128,128,128,.16);
           user-select: all; overflow-wrap: anywhere; }
    .scroll { overflow-x: auto; }
    table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; width: 100%; }
    th, td { padding: 6px 12px 6px 0; text-align: left; vertical-align: top;
             border-bottom: 1px solid rgba(128,128,128,.25); }
    th { font-weight: 600; opacity: .8; white-space: nowrap; }
    td.number { white-space: nowrap; }
    .range { opacity: .7; font-size: 12px; display: block; }
    .numbers { width: auto; min-width: 420px; } .numbers td { padding: 3px 24px 3px 0; }
    svg { display: block; }
    figure { margin: 0; }
    figure label { display: inline-block; cursor: zoom-in; background: white; border-radius: 4px; padding: 8px; }
    figure img { display: block; max-width: 100%; height: auto; }
    figure input { position: absolute; opacity: 0; pointer-events: none; }
    figure input:focus-visible + img { outline: 3px solid #2f7bd9; outline-offset: 8px; }
    figure label:has(input:checked) { position: fixed; inset: 0; z-index: 2000; cursor: zoom-out; overflow: auto;
        border-radius: 0; display: flex; padding: 16px; }
    figure label:has(input:checked) img { margin: auto; max-width: none; }
    figcaption { font-size: 13px; opacity: .85; margin-top: 6px; max-width: 90ch; }
"""


def _origin(found: Found) -> tuple[str, str]:
    """How much was run, and where and when."""
    s = found.summary
    amount = f"{'quick look' if s['quick'] else 'full run'}, {s['seeds']} seeds, {s['runs']} runs"
    if not found.own:
        return amount, f"came with toyguide {__version__}"
    when = datetime.fromtimestamp(found.when)
    return amount, f"run here on {when.day} {when:%b %Y, %H:%M}"


def summary_line(described: dict[str, Any], found: Found | None) -> str:
    """A study in the list."""
    where = f"<p class='small'>{'<br>'.join(map(escape, _origin(found)))}</p>" if found else ""
    return (
        f"<div class='entry'><div><p>{escape(described['statement'])}</p>"
        f"<p class='small'>{escape(described['source'])}</p></div><div>{_verdict(found)}{where}</div></div>"
    )


def heading(described: dict[str, Any], found: Found | None, finding: str = "") -> str:
    """A study's claim, source, verdict and setting, and what the bundled runs found, in words, if they are shown."""
    about = f"<span class='small'>{escape(', '.join(_origin(found)))}</span>" if found else ""
    changed = "<b>The study has changed since:</b> this result was judged by other criteria than a new run would be."
    dated = f"<p>{changed}</p>" if found and found.dated else ""
    said = f"<p><b>{escape(finding)}</b></p>" if finding and found and not found.own else ""
    return (
        f"<p class='claim'>{escape(described['statement'])}</p>"
        f"<p class='small'>{escape(described['source'])}</p>"
        f"<p>{_verdict(found, 'large')} &nbsp; {about}</p>{dated}{said}"
        f"<p>{escape(described['setting'])}</p>"
    )


def criteria(described: dict[str, Any], found: Found | None) -> str:
    """What decides, and what was found."""
    rows = []
    for c in found.summary["criteria"] if found else described["criteria"]:
        cells = [escape(c["text"]), escape(str(c["threshold"]))]
        if found:
            cells += [_value(c), _picture(c), show_p(c["p_against"]), _word(c["verdict"])]
        rows.append(cells)
    head = ["What is claimed", "Threshold", *(["Found, with 95 % interval", "", _P, "Verdict"] if found else [])]
    return _table(head, rows, numeric=(1, 2, 4))


def numbers(found: Found) -> str:
    """What is reported beside the criteria."""
    judged = {c.get("name") for c in found.summary["criteria"]}
    rows = []
    for name, value in found.summary["figures"].items():
        if name not in judged:
            low, high = found.summary["intervals"][name]
            rows.append([f"{escape(name)}", show(value), f"{show(low)} … {show(high)}"])
    return _table(["Number", "Mean", "95 % interval"], rows, numeric=(1, 2), kind="numbers") if rows else ""


def figure(found: Found, sheet: dict[str, Any]) -> str:
    """A figure with its caption; choosing it shows it as large as it is."""
    path = found.file(sheet["name"] + IMAGE_FORMATS[0])
    if path is None:
        return f"<p class='small'>The figure {escape(sheet['name'])}{IMAGE_FORMATS[0]} is missing.</p>"
    data = base64.b64encode(path.read_bytes()).decode()
    caption = escape(sheet["caption"])
    return (
        f"<figure><label title='Show in full size, and back'><input type='checkbox' aria-label='Full size'>"
        f"<img alt='{caption}' src='data:image/png;base64,{data}'></label><figcaption>{caption}</figcaption></figure>"
    )


def in_explorer(scenes: Iterable[Scene]) -> str:
    """Links to what the explorer shows of a study."""
    links = [f"<a href='{escape(s.address, quote=True)}'>{escape(s.title)}</a>" for s in scenes]
    return f"<p class='small'>Open in the explorer: {' · '.join(links)}</p>" if links else ""


def duration(seconds: float) -> str:
    """``40 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 55:
        return f"{max(5, 5 * round(seconds / 5))} s"
    return f"{max(1, round(seconds / 60))} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _verdict(found: Found | None, size: str = "") -> str:
    """A study's verdict."""
    return _word(found.summary["verdict"] if found else "", size)


def _word(word: str, size: str = "") -> str:
    """A verdict as a sign and a word."""
    kind = {"": "none", "not supported": "not"}.get(word, word)
    sign = f"<i aria-hidden='true'>{MARKS.get(word, '?')}</i>"
    return f"<span class='verdict {escape(kind)} {size}'>{sign} {escape(word or 'not run yet')}</span>"


def _value(c: dict[str, Any]) -> str:
    return f"{show(c['value'])}<span class='range'>{show(c['low'])} … {show(c['high'])}</span>"


def _picture(c: dict[str, Any], width: int = 150, height: int = 26) -> str:
    """The interval as a line with its mean, on the claimed side of the threshold (shaded) or not."""
    sign, _, text = str(c["threshold"]).partition(" ")
    try:
        threshold = float(text)
    except ValueError:
        return ""
    values = [c["value"], c["low"], c["high"], threshold]
    if not all(isinstance(v, int | float) and math.isfinite(v) for v in values):
        return ""
    least, most = min(values), max(values)
    margin = (most - least) * 0.18 or abs(most) * 0.2 or 1.0
    mean, low, high, edge = ((v - least + margin) / (most - least + 2 * margin) * width for v in values)
    claimed = (edge, width) if sign == "≥" else (0.0, edge)
    middle = height / 2
    return (
        f"<svg width='{width}' height='{height}' role='img' aria-label='interval and threshold'>"
        f"<rect x='{claimed[0]:.1f}' y='3' width='{claimed[1] - claimed[0]:.1f}' height='{height - 6}' "
        "fill='#009e73' opacity='.16'/>"
        f"<line x1='{edge:.1f}' x2='{edge:.1f}' y1='1' y2='{height - 1}' stroke='currentColor' stroke-dasharray='3 2'/>"
        f"<line x1='{low:.1f}' x2='{high:.1f}' y1='{middle}' y2='{middle}' stroke='currentColor' stroke-width='2'/>"
        f"<circle cx='{mean:.1f}' cy='{middle}' r='3.6' fill='currentColor'/></svg>"
    )


def _table(head: Iterable[str], rows: list[list[str]], numeric: tuple[int, ...], kind: str = "") -> str:
    titles = "".join(f"<th scope='col'>{title}</th>" for title in head)
    body = "".join(
        "<tr>" + "".join(f"<td{' class=number' if i in numeric else ''}>{c}</td>" for i, c in enumerate(row)) + "</tr>"
        for row in rows
    )
    return (
        f"<div class='scroll'><table class='{kind}'><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>"
    )
