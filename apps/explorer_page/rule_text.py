"""What is said of the selected panel's rule: its formula, summary, cost, fields and source, and what it equals when."""

from __future__ import annotations

import asyncio
from html import escape
from typing import Any

import panel as pn
import panel_material_ui as pmui

from toyguide import rule
from toyguide.guidance import Limit, Rule, rules
from toyguide_apps.explorer_page.costs import cost_of
from toyguide_apps.explorer_page.roles import roles_of
from toyguide_apps.explorer_page.state import ExplorerState
from toyguide_apps.shared.notices import told

__all__ = ["RuleText", "equality"]


class RuleText(pn.viewable.Viewer):
    """The text below a rule's sliders.

    Args:
        state: The settings; told of the values of a limit that is chosen.
    """

    def __init__(self, state: ExplorerState) -> None:
        super().__init__()
        self._state = state
        self._shown: Rule | None = None
        self._formula = pn.pane.LaTeX("", sizing_mode="stretch_width", margin=(2, 8), styles=_FORMULA)
        self._about = pn.pane.HTML("", sizing_mode="stretch_width", margin=(0, 8), stylesheets=[_ABOUT])
        self._limits = pn.Column(margin=(0, 2), sizing_mode="stretch_width")

    def show(self, chosen: Rule) -> None:
        """Follow the panel's rule; what it equals at which values does not change with its values."""
        before, self._shown = self._shown, chosen
        if type(before) is type(chosen):
            return
        self._formula.object = _display(chosen.formula)
        self._tell("")
        self._limits.objects = [self._line(limit) for limit in chosen.limits]
        pn.state.execute(self._count, schedule=True)

    async def _count(self) -> None:
        """Say what a step costs, which may take a moment to count."""
        chosen = self._shown
        if chosen is None:
            return
        cost = await asyncio.to_thread(cost_of, type(chosen))
        if cost and type(self._shown) is type(chosen):
            with pn.io.hold():
                self._tell(cost)

    def _tell(self, cost: str) -> None:
        chosen = self._shown
        assert chosen is not None
        fields = "".join(
            f"<dt><code>{escape(name)}</code></dt><dd>{escape(role.doc)}</dd>"
            for name, role in roles_of(type(chosen)).items()
        )
        costs = f"<p>{escape(cost[0].upper() + cost[1:])} in a first-order step, with its defaults.</p>" if cost else ""
        self._about.object = (
            f"<p>{escape(chosen.summary)}</p>{costs}<details><summary>Source and fields</summary>"
            f"<p>{escape(chosen.source)}</p><dl>{fields}</dl></details>"
        )

    def _line(self, limit: Limit) -> pmui.Button:
        """What it equals, as a button that sets the values."""
        button = pmui.Button(
            label=equality(limit),
            description="Set these values",
            size="small",
            variant="text",
            margin=(1, 0),
            sizing_mode="stretch_width",
            sx={"textAlign": "left", "justifyContent": "flex-start", "whiteSpace": "normal", "lineHeight": 1.3},
        )
        button.on_click(lambda _: self._enter(limit))
        return button

    @told
    def _enter(self, limit: Limit) -> None:
        chosen = self._state.panels[self._state.selected].rule
        declared = rule(chosen.key, **limit.params).declared()  # a typed rule has other parameters then
        kept = {k: v for k, v in chosen.values().items() if k in declared}
        self._state.set_rule(self._state.selected, rule(chosen.key, **{**kept, **limit.params}))

    def __panel__(self) -> pn.viewable.Viewer:
        return pn.Column(self._formula, self._about, self._limits, margin=0, sizing_mode="stretch_width")


def equality(limit: Limit) -> str:
    """A limit in words, like ``Equals CFG at eta = 1, beta = 0, r = inf``."""
    other = rules()[limit.rule].called()
    named = f"{other} with {_values(limit.of)}" if limit.of else other
    at = f" at {_values(limit.params)}" if limit.params else ""
    fields = "".join(f", {role} being the field of {of}" for role, of in limit.fields.items())
    return f"Equals {named}{at}{fields}" + (f", with the sampler {limit.sampler}" if limit.sampler else "")


def _values(params: Any) -> str:
    return ", ".join(f"{k} = {v:g}" if isinstance(v, float) else f"{k} = {v}" for k, v in params.items())


def _display(formula: str) -> str:
    """A formula in display style, its parts (separated by \\quad or \\qquad) one below the other."""
    parts = [p.strip().rstrip(",") for p in formula.replace(r"\qquad", r"\quad").split(r"\quad")]
    return r"$$\begin{aligned}" + r" \\ ".join("&" + p for p in parts) + r"\end{aligned}$$"


_FORMULA = {"font-size": "14px", "overflow-x": "auto", "overflow-y": "hidden"}
_ABOUT = """
    :host { font-size: 13px; line-height: 1.4; }
    p { margin: 2px 0; } summary { cursor: pointer; min-height: 24px; } code { font-size: 12px; }
    dl { display: grid; grid-template-columns: max-content 1fr; gap: 1px 8px; margin: 4px 0; } dd { margin: 0; }
"""
