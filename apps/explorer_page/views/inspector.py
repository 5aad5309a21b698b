"""The panel below the plots that says all about the inspected point."""

from __future__ import annotations

from html import escape

import numpy as np
import panel as pn
import panel_material_ui as pmui

from toyguide_apps.explorer_page import palette
from toyguide_apps.explorer_page.compute import Picture
from toyguide_apps.explorer_page.layers.point import Inspection, Terms
from toyguide_apps.explorer_page.layers.point_arrows import kind_of
from toyguide_apps.explorer_page.panels import LETTERS
from toyguide_apps.explorer_page.state import ExplorerState
from toyguide_apps.explorer_page.views.curves import FRAME
from toyguide_apps.explorer_page.views.parts import named
from toyguide_apps.shared.boxes import named_box
from toyguide_apps.shared.notices import told

__all__ = ["InspectorPanel"]

_CLASSES = 5  # bars of the posterior; the rest is one more
_PAIRS = 3  # eigenpairs in the table
_STYLE = """
    :host { font-size: 12px; }
    .cards { display: flex; flex-wrap: wrap; gap: 8px 18px; }
    .cards > div { flex: 1 1 auto; }  /* as wide as its numbers, which are never cut off */
    h4 { margin: 0 0 2px; font-size: 11.5px; font-weight: 600; opacity: .8; white-space: nowrap; overflow: hidden;
         text-overflow: ellipsis; }
    table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
    td, th { padding: 1px 0 1px 6px; text-align: right; white-space: nowrap; font-weight: 400; }
    td:first-child, th:first-child { text-align: left; padding-left: 0; }
    th { opacity: .65; font-size: 11px; }
    .key { display: inline-block; width: 10px; height: 3px; margin-right: 5px; vertical-align: middle; }
    .track { display: inline-block; width: 54px; height: 8px; background: rgba(128,128,128,.2); border-radius: 2px; }
    .bar { display: block; height: 8px; background: #2f5d9b; border-radius: 2px; }
    .note { opacity: .75; font-size: 11px; line-height: 1.3; margin-top: 3px; }
"""


class InspectorPanel(pn.viewable.Viewer):
    """Shown while a point is inspected; its coordinates can be typed there.

    Args:
        state: Told of a typed point, and of none when the panel is closed.
    """

    def __init__(self, state: ExplorerState) -> None:
        super().__init__()
        self._state = state
        self._u, self._v = (
            pmui.FloatInput(
                label=label,
                value=0.0,
                step=0.01,
                format="0[.]0000",
                width=118,
                size="small",
                margin=(4, 4),
                theme_config=named_box(label),
            )
            for label in ("First coordinate", "Second coordinate")
        )
        for box in (self._u, self._v):
            box.param.watch(self._typed, "value")
        self._close = pmui.IconButton(icon="close", size="small", description="Close (Escape)", margin=0)
        self._close.on_click(lambda _: self._state.set({"point": None}))
        self._title = pn.pane.HTML("", margin=(8, 8), styles={"font-size": "12.5px"}, sizing_mode="stretch_width")
        self._body = pn.pane.HTML("", stylesheets=[_STYLE], sizing_mode="stretch_width", margin=(2, 10))
        self._following = False
        self._shown: Inspection | None = None
        self._content = [
            pn.Row(self._u, self._v, self._title, self._close, sizing_mode="stretch_width", margin=0),
            self._body,
        ]
        self._panel = pn.Column(visible=False, sizing_mode="stretch_width", styles=FRAME, margin=0)  # empty until used
        state.param.watch(self._follow, "point")

    @told
    def _typed(self, _event: object) -> None:
        typed = (self._u.value, self._v.value)
        if None not in typed and not self._following:
            self._state.set({"point": typed})

    def _follow(self, _event: object) -> None:
        point = self._state.point
        if point is not None:
            self._following = True
            self._u.value, self._v.value = _rounded(point)
            self._following = False
            if not len(self._panel):
                self._panel.objects = self._content  # a box that is drawn before it has its value keeps the old one
        self._panel.visible = point is not None

    def show(self, picture: Picture) -> None:
        """Write down what a picture knows about its point."""
        seen = picture.inspection
        if seen is None or seen is self._shown:
            return
        self._shown = seen
        scale = picture.terms[0].scale if picture.terms else 1.0
        self._title.object = _title(seen, scale)
        terms = (_terms(seen, letter, t) for letter, t in zip(LETTERS, seen.terms, strict=False))
        cards = [_field(seen), _curvature(seen), _posterior(seen), *terms]
        self._body.object = f"<div class='cards'>{''.join(f'<div>{c}</div>' for c in cards)}</div>"

    def __panel__(self) -> pn.viewable.Viewable:
        return self._panel


def _rounded(point: tuple[float, float]) -> tuple[float, float]:
    return round(point[0], 4), round(point[1], 4)


def _title(seen: Inspection, scale: float) -> str:
    colour = palette.REGIONS[("mode", "saddle", "tail").index(seen.region)]
    parts = [
        f"σ = {seen.sigma:.4g}",
        f"<span style='border-bottom:3px solid {palette.css(colour)}'>{seen.region}</span>",
        f"log-density {seen.exact.log_density:.4g} (both exact)",
    ]
    if len(seen.x) > 2:
        parts.append(f"in the plane, in {len(seen.x)} dimensions")
    if abs(scale - 1) > 1e-9:
        parts.append(f"arrows × {scale:.3g}")
    if seen.at_end:
        parts.append("the last level above 0: go back on the time line to see the rules at work")
    return " · ".join(parts)


def _field(seen: Inspection) -> str:
    gap = seen.main.score - seen.exact.score
    size = float(np.linalg.norm(seen.exact.score))
    share = f"{np.linalg.norm(gap) / size:.1%}" if size > 0 else "–"
    main = f"<span title='{escape(seen.main_name)}'>main</span>"
    rows = _row("exact", _plane(seen, seen.exact.score), _length(seen.exact.score))
    rows += _row(main, _plane(seen, seen.main.score), _length(seen.main.score))
    rows += _row("error", _plane(seen, gap), _length(gap)) + _row("error, relative", "", share)
    return f"<h4>Score</h4><table>{_head('', _components(seen), 'length')}{rows}</table>"


def _curvature(seen: Inspection) -> str:
    s2 = seen.sigma**2
    vectors = seen.shown.eigenvectors
    rows = ""
    for i in range(min(_PAIRS, len(vectors))):
        kind = "up" if seen.shown.eigenvalues[i] > 0 else "down"
        inside = seen.axes @ vectors[i]
        rows += _row(
            f"<span class='key' style='background:{palette.css(palette.TERMS[kind])}'></span>{i + 1}",
            f"{s2 * seen.exact.eigenvalues[i]:+.3f}",
            f"{s2 * seen.main.eigenvalues[i]:+.3f}",
            f"({inside[0]:+.2f}, {inside[1]:+.2f})",
        )
    note = f"directions: {'exact' if seen.source == 'exact' else 'main'}"
    if len(seen.x) > 2:
        positive = int((seen.exact.eigenvalues > 0).sum())
        note = f"{positive} of {len(seen.x)} curve upward (exact); {note}, in the plane"
    head = _head("", "exact", "main", "direction")
    return f"<h4>Eigenpairs (Hessian), σ²λ</h4><table>{head}{rows}</table><div class='note'>{note}</div>"


def _posterior(seen: Inspection) -> str:
    order = np.argsort(-seen.posterior, kind="stable")
    if len(seen.labels) <= _CLASSES + 1:
        shown = [(seen.labels[i], seen.posterior[i]) for i in range(len(seen.labels))]
    else:
        shown = [(seen.labels[i], seen.posterior[i]) for i in order[:_CLASSES]]
        shown.append((f"{len(order) - _CLASSES} others", seen.posterior[order[_CLASSES:]].sum()))
    rows = "".join(
        _row(
            escape(name),
            f"<span class='track'><span class='bar' style='width:{100 * p:.1f}%'></span></span>",
            f"{p:.3f}",
        )
        for name, p in shown
    )
    return f"<h4>Class posterior, exact</h4><table>{rows}</table>"


def _terms(seen: Inspection, place: str, terms: Terms) -> str:
    rows = "".join(
        _row(_key(kind_of(role), f"D<sub>{role}</sub> − x"), _plane(seen, move), _length(move))
        for role, move in terms.moves.items()
    )
    if np.linalg.norm(terms.push) > 0:
        rows += _row(_key("push", "push"), _plane(seen, terms.push), _length(terms.push))
        rows += _row(_key("guided", "guided − x"), _plane(seen, terms.guided), _length(terms.guided))
        note = ""
    else:
        note = "<div class='note'>nothing is added here</div>"
    if terms.remembers:
        note += "<div class='note'>its memory has settled at this point</div>"
    name = escape(named(terms.experiment))
    return f"<h4 title='{name}'>{place}: {name}</h4><table>{_head('', _components(seen), 'length')}{rows}</table>{note}"


def _key(kind: str, text: str) -> str:
    return f"<span class='key' style='background:{palette.css(palette.TERMS[kind])}'></span>{text}"


def _head(*cells: str) -> str:
    return f"<tr>{''.join(f'<th>{c}</th>' for c in cells)}</tr>"


def _row(*cells: str) -> str:
    return f"<tr>{''.join(f'<td>{c}</td>' for c in cells)}</tr>"


def _components(seen: Inspection) -> str:
    return "components" if len(seen.x) == 2 else "in the plane"


def _plane(seen: Inspection, vector: np.ndarray) -> str:
    """A direction's components in the plane."""
    u, v = seen.axes @ vector
    return f"({_number(u)}, {_number(v)})"


def _length(vector: np.ndarray) -> str:
    return _number(float(np.linalg.norm(vector)))


def _number(value: float) -> str:
    return f"{value:.3g}"
