"""The box in which a rule is typed: its text, its mistakes at their places, examples, and the rule file."""

from __future__ import annotations

import io
from html import escape

import panel as pn
import panel_material_ui as pmui

from toyguide.guidance import Rule
from toyguide.guidance.formula import FIELDS, FUNCTIONS, LONGEST, VARIABLES, FormulaError, as_rule_file
from toyguide.guidance.rules.formula import Formula
from toyguide_apps.explorer_page.state import ExplorerState
from toyguide_apps.shared.notices import told

__all__ = ["EXAMPLES", "FormulaCard"]

EXAMPLES = {
    "CFG": "w = 3 [0, 10];\nD_main + (w - 1) * (D_main - D_uncond)",
    "Autoguidance": "w = 3 [0, 10]; high = 1 [0, 5];\nD_main + (w - 1) * (D_main - D_weak) * (sigma < high)",
    "APG-like": (
        "w = 3 [0, 10]; eta = 0 [0, 1]; r = 0.5 [0.05, 5];\n"
        "g = D_main - D_uncond;\n"
        "c = g * min(1, r / norm(g));\n"
        "p = perp(c, D_main);\n"
        "D_main + (w - 1) * (p + eta * (c - p))"
    ),
}
"""Formulas to start from, by what their buttons say."""


class FormulaCard(pn.viewable.Viewer):
    """What the selected panel's rule says, if it is a typed one; else nothing.

    A text is taken over when the box is left or with Shift and Enter. While there is a mistake in it, it is marked, and
    the rule stays what it was.

    Args:
        state: The settings.
    """

    def __init__(self, state: ExplorerState) -> None:
        super().__init__()
        self._state = state
        self._box = pmui.TextAreaInput(
            label="Formula (Shift+Enter applies it)",
            rows=3,
            auto_grow=True,
            max_length=LONGEST,
            size="small",
            margin=(6, 8),
            sizing_mode="stretch_width",
            sx={"& textarea": {"fontFamily": "monospace", "fontSize": "13px"}},
        )
        self._box.param.watch(lambda event: self._enter(event.new), "value")
        self._mistake = pn.pane.HTML(
            "", visible=False, margin=(0, 8), sizing_mode="stretch_width", stylesheets=[_STYLE]
        )
        examples = [pmui.Button(label=name, size="small", variant="text", margin=2) for name in EXAMPLES]
        for button, text in zip(examples, EXAMPLES.values(), strict=True):
            button.on_click(lambda _, text=text: self._enter(text))
        save = pmui.FileDownload(
            callback=self._file,
            filename="my_rule.py",
            label="Save as a rule file",
            size="small",
            variant="text",
            margin=2,
        )
        help_text = pn.pane.HTML(_help(), margin=(0, 8), sizing_mode="stretch_width", stylesheets=[_STYLE])
        buttons = pn.FlexBox(*examples, save, margin=(0, 6), sizing_mode="stretch_width")
        self._body = pn.Column(self._box, self._mistake, buttons, help_text, margin=0, sizing_mode="stretch_width")
        self._shown: tuple[int, str] | None = None
        state.param.watch(lambda *_: self._follow(), ["panels", "selected"])
        self._follow()

    @property
    def _rule(self) -> Rule:
        return self._state.panels[self._state.selected].rule

    def _follow(self) -> None:
        """Show the selected rule's text; what is being typed stays as long as the rule does."""
        chosen = self._rule
        shown = (self._state.selected, str(chosen.expression)) if isinstance(chosen, Formula) else None
        self._body.visible = shown is not None
        if shown is not None and shown != self._shown:
            self._complain(None)
            self._box.param.update(value=shown[1], value_input=shown[1])
        self._shown = shown

    @told
    def _enter(self, text: str) -> None:
        before = self._rule
        if not isinstance(before, Formula):
            return
        try:
            fresh = before.retyped(text)
        except FormulaError as problem:
            return self._complain(problem)
        self._complain(None)
        self._box.param.update(value=text, value_input=text)
        self._state.set_rule(self._state.selected, fresh)

    def _complain(self, problem: FormulaError | None) -> None:
        text = ""
        if problem is not None:
            before, wrong, after = map(escape, problem.line)
            text = f"<code>{before}<mark>{wrong or '&nbsp;'}</mark>{after}</code><p>{escape(problem.problem)}</p>"
        self._mistake.param.update(object=f'<div role="alert">{text}</div>', visible=problem is not None)
        self._box.error_state = problem is not None

    def _file(self) -> io.StringIO:
        return io.StringIO(as_rule_file(self._rule.values()["expression"], "my-rule"))

    def __panel__(self) -> pn.viewable.Viewable:
        return self._body


def _help() -> str:
    """What may be written, folded."""
    quantities = {name.partition("_")[0]: field.doc for name, field in FIELDS.items()}
    roles = ", ".join(dict.fromkeys(field.role for field in FIELDS.values()))
    fields = {f"{letter}_ROLE": doc for letter, doc in quantities.items()}
    variables = {name: known.doc for name, known in VARIABLES.items()}
    functions = {f"{name}({', '.join('abc'[: len(f.takes)])})": f.doc for name, f in FUNCTIONS.items()}
    rows = "".join(
        f"<dt><code>{escape(name)}</code></dt><dd>{escape(doc)}</dd>"
        for name, doc in {**fields, **variables, **functions}.items()
    )
    return (
        "<details><summary>What can I write?</summary>"
        "<p>Declarations, each with a semicolon, and then the guided denoiser, a vector. "
        "<code>w = 3 [0, 10];</code> is a parameter with its range, which gets a slider; "
        "<code>g = D_main - D_weak;</code> names a part.</p>"
        f"<p>ROLE is one of {roles}. Vectors are added, and multiplied with numbers by <code>+ - * /</code>; numbers "
        "also have powers, <code>**</code>. A comparison like <code>(0.1 &lt; sigma &lt; 1)</code> is 1 where it "
        f"holds, else 0.</p><dl>{rows}</dl></details>"
    )


_STYLE = """
    :host { font-size: 13px; line-height: 1.4; }
    p { margin: 2px 0; } summary { cursor: pointer; min-height: 24px; }
    code { font-size: 12px; white-space: pre-wrap; overflow-wrap: anywhere; }
    dl { display: grid; grid-template-columns: max-content 1fr; gap: 1px 8px; margin: 4px 0; } dd { margin: 0; }
"""
