"""The widgets. Bounds, steps and help texts come from the parameters that they set."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any, ClassVar

import panel as pn
import panel_material_ui as pmui
import param

from toyguide import load_dataset, rule
from toyguide.errors import InputError
from toyguide.guidance import Role, Rule, rules
from toyguide.samplers import SAMPLERS
from toyguide_apps.explorer_page.layers.responses import parameters
from toyguide_apps.explorer_page.planes import anchor_names
from toyguide_apps.explorer_page.presets import presets
from toyguide_apps.explorer_page.roles import choices, offered_roles, title_of
from toyguide_apps.explorer_page.state import BANDS, LAYERS, SOURCES, ExplorerState
from toyguide_apps.shared.notices import told

__all__ = ["LayerBar", "LookButtons", "PlaneCard", "RuleCard", "SceneCard", "interval_controls", "preset_menu"]

_TIGHT: dict[str, Any] = {"sizing_mode": "stretch_width", "margin": (3, 8), "size": "small"}


class _Live(param.Parameterized):
    """A slider with a number box that knows whether it is being dragged.

    It reports a change after 5 ms. Panel's default of 50 ms is noticeable while dragging; with none, a key press would
    look like a drag, since its change and its release arrive as two messages a few milliseconds apart.
    """

    inline_layout = param.Boolean(default=True)
    held = param.Boolean(default=False, doc="Whether it is being dragged.")

    value: Any
    value_throttled: Any

    _debounce = 5
    _rename: ClassVar[dict[str, str | None]] = {"held": None}  # not sent to the browser
    _busy__ignore: ClassVar[list[str]] = ["value", "value_throttled"]  # Panel's busy flag is shared by all pages

    def _process_property_change(self, msg: dict[str, Any]) -> dict[str, Any]:
        """Take a change from the browser; a released slider also sends the throttled value."""
        msg = super()._process_property_change(msg)  # type: ignore[misc]
        if "value" in msg or "value_throttled" in msg:
            now = {"value": self.value, "value_throttled": self.value_throttled, **msg}
            msg["held"] = now["value"] != now["value_throttled"]
        return msg


class LiveSlider(_Live, pmui.EditableFloatSlider):
    """See ``_Live``."""


class LiveIntSlider(_Live, pmui.EditableIntSlider):
    """See ``_Live``."""


class LiveRangeSlider(_Live, pmui.EditableRangeSlider):
    """See ``_Live``."""


def _tell_held(slider: _Live, state: ExplorerState) -> None:
    slider.param.watch(lambda event: setattr(state, "held", event.new), "held")


def preset_menu() -> pmui.Select:
    """A menu of the presets; its value is a preset's key, or empty."""
    options = {p.title: p.key for p in presets().values()}
    settings = {**_TIGHT, "margin": (12, 8, 3, 8)}
    return pmui.Select(label="Preset", options={"Choose a preset …": "", **options}, value="", **settings)


class RuleCard(pn.viewable.Viewer):
    """A rule's name, its formula, its source, and a control for each of its parameters.

    Args:
        state: The settings.
        panel: The index of its panel.
    """

    def __init__(self, state: ExplorerState, panel: int) -> None:
        super().__init__()
        self._state, self._panel = state, panel
        titles = {cls.title: key for key, cls in rules().items()}
        self._name = pmui.Select(label="Rule", options=titles, value=self._rule.key, **_TIGHT)
        self._name.param.watch(self._choose, "value")
        self._sliders = _column()
        self._widgets: dict[str, Any] = {}
        self._formula = pn.pane.LaTeX("", sizing_mode="stretch_width", margin=(2, 8), styles=_FORMULA)
        self._about = pn.pane.HTML("", sizing_mode="stretch_width", margin=(0, 8), styles=_ABOUT)
        self._shown: Rule | None = None
        state.param.watch(lambda _: self._show(), "panels")
        self._show()

    @property
    def _rule(self) -> Rule:
        return self._state.panels[self._panel].rule

    @told
    def _choose(self, event: param.parameterized.Event) -> None:
        if event.new != self._rule.key:
            self._state.set_rule(self._panel, rule(event.new))

    def _show(self) -> None:
        chosen = self._rule
        known = self._shown
        self._shown = chosen
        self._name.value = chosen.key
        if known is not None and type(known) is type(chosen):
            for key, value in chosen.values().items():
                self._widgets[key].value = value
            return
        self._sliders[:] = [self._widget(key, known) for key, known in chosen.declared().items()]
        self._formula.object = _display(chosen.formula)
        needs = ", ".join(chosen.needs)
        self._about.object = (
            f"<details><summary>Needs {needs}. What it does, and source</summary>"
            f"{escape(chosen.summary)}<br><i>{escape(chosen.source)}</i></details>"
        )

    def _widget(self, key: str, known: param.Parameter) -> pn.viewable.Viewable:
        widget = _control(known, getattr(self._rule, key))
        if isinstance(widget, _Live):
            _tell_held(widget, self._state)
        widget.param.watch(lambda event: self._change(key, event.new), "value")
        self._widgets[key] = widget
        return _labelled(key, known.doc or "", widget)

    @told
    def _change(self, key: str, value: Any) -> None:
        before = getattr(self._rule, key)
        if value is None or value == before:
            return
        try:
            self._state.set_rule(self._panel, rule(self._rule.key, **{**self._rule.values(), key: value}))
        except InputError:
            self._widgets[key].value = before
            raise

    def __panel__(self) -> pn.viewable.Viewable:
        return _column(self._name, self._sliders, self._formula, self._about)


def _control(known: param.Parameter, value: Any) -> Any:
    """The widget of a rule's parameter; a number without a range gets a box instead of a slider."""
    if isinstance(known, param.Selector):
        return pmui.Select(label="", options=list(known.objects), value=value, **_TIGHT)
    if isinstance(known, param.Boolean):
        return pmui.Switch(label="", value=value, margin=(3, 20), size="small")
    whole = isinstance(known, param.Integer)
    low, high = known.get_soft_bounds()
    least, most = known.bounds or (None, None)
    if low is None or high is None:
        box = pmui.IntInput if whole else pmui.FloatInput
        return box(label="", start=least, end=most, step=known.step or (1 if whole else 0.1), value=value, **_TIGHT)
    return (LiveIntSlider if whole else LiveSlider)(
        label="",
        start=min(low, value),
        end=max(high, value),
        fixed_start=least,
        fixed_end=most,
        step=known.step or (1 if whole else (high - low) / 100),
        value=value,
        **_TIGHT,
    )


class SceneCard(pn.viewable.Viewer):
    """What is sampled, from which fields, with which sampler."""

    def __init__(self, state: ExplorerState) -> None:
        super().__init__()
        self._state = state
        self._menus = {k: _menu(state, k, v) for k, v in (("dataset", "Dataset"), ("label", "Class"), ("n", "Samples"))}
        self._fields = _column()
        self._field_menus: dict[Role, pmui.Select] = {}
        self._follow()
        state.param.watch(lambda _: self._follow(), "panels")
        samplers = {c.title: k for k, c in SAMPLERS.items()}
        self._sampler = pmui.Select.from_param(state.param.sampler, label="Sampler", options=samplers, **_TIGHT)
        self._seed = pmui.IntInput.from_param(state.param.seed, label="Seed", start=0, end=9999, step=1, **_TIGHT)
        steps = LiveIntSlider.from_param(
            state.param.steps, label="", description="", start=4, end=64, fixed_start=2, fixed_end=128, **_TIGHT
        )
        _tell_held(steps, state)
        self._steps = _labelled("Steps", "Solver steps from the highest noise level to 0.", steps)

    def _follow(self) -> None:
        """A menu for each role on offer: that of the main field on a line of its own, the others in pairs."""
        roles = list(offered_roles([panel.rule for panel in self._state.panels]).values())
        if list(self._field_menus) == roles:
            return
        self._field_menus = {role: self._field_menus.get(role) or _field_menu(self._state, role) for role in roles}
        main, *others = self._field_menus.values()
        self._fields[:] = [main, *(_row(*others[i : i + 2]) for i in range(0, len(others), 2))]

    def scene(self) -> pn.viewable.Viewable:
        """Dataset, class and fields."""
        return _column(_row(self._menus["dataset"], self._menus["label"]), self._fields)

    def run(self) -> pn.viewable.Viewable:
        """Sampler, steps, samples and seed."""
        return _column(_row(self._sampler, self._menus["n"], self._seed), self._steps)


def _menu(state: ExplorerState, key: str, label: str) -> pmui.Select:
    """A menu of a parameter's choices."""
    return _following_menu(
        state,
        label,
        lambda: {"options": list(state.param[key].objects), "value": getattr(state, key)},
        lambda value: state.set({key: value}),
        ["dataset", "label", key],
    )


def _field_menu(state: ExplorerState, role: Role) -> pmui.Select:
    """A menu of the fields on offer for a role."""
    return _following_menu(
        state,
        title_of(role),
        lambda: {"options": choices(state.dataset, state.label, role), "value": state.chosen(role.name)},
        lambda value: state.set({"fields": {role.name: value}}),
        ["dataset", "label", "fields"],
    )


def _following_menu(
    state: ExplorerState,
    label: str,
    shown: Callable[[], dict[str, Any]],
    choose: Callable[[Any], None],
    keys: list[str],
) -> pmui.Select:
    """A menu whose options and value follow the settings in one step.

    Followed one by one, a menu whose options have just changed would choose one of them itself.

    Args:
        state: The settings.
        label: The menu's label.
        shown: Its options and its value.
        choose: Called with a value that the visitor has chosen.
        keys: The settings that it follows.
    """

    @told
    def chosen(event: param.parameterized.Event) -> None:
        if event.new is not None and event.new != shown()["value"]:
            choose(event.new)

    menu = pmui.Select(label=label, **shown(), **_TIGHT)
    menu.param.watch(chosen, "value")
    state.param.watch(lambda *_: menu.param.update(**shown()), keys)
    return menu


def _labelled(name: str, doc: str, widget: pn.viewable.Viewable) -> pn.Row:
    """A widget with its name on the left, on one line; the help text shows on the name."""
    text = f"<label title='{escape(doc, quote=True)}'>{escape(name)}</label>"
    return _row(pn.pane.HTML(text, width=44, align="center", margin=(0, 0, 0, 10), styles=_NAME), widget)


def _row(*items: pn.viewable.Viewable) -> pn.Row:
    return pn.Row(*items, margin=0, sizing_mode="stretch_width")


def _column(*items: pn.viewable.Viewable) -> pn.Column:
    return pn.Column(*items, margin=0, sizing_mode="stretch_width")


def interval_controls(state: ExplorerState) -> pn.viewable.Viewable:
    """The guidance interval."""
    limited = pmui.Switch.from_param(state.param.limited, label="Guidance interval (σ)", description="", margin=(6, 8))
    bounds = LiveRangeSlider.from_param(
        state.param.interval,
        label="",
        description="Guided where low < σ ≤ high.",
        start=0.0,
        end=5.0,
        fixed_start=0.0,
        fixed_end=10.0,
        step=0.01,
        visible=state.param.limited,
        **_TIGHT,
    )
    _tell_held(bounds, state)
    return _column(limited, bounds)


class PlaneCard(pn.viewable.Viewer):
    """The three points that the plane goes through, where the data has more dimensions than two."""

    def __init__(self, state: ExplorerState) -> None:
        super().__init__()
        self._state = state
        self._boxes = [
            pmui.AutocompleteInput(
                label=label, options=[], restrict=False, min_characters=0, case_sensitive=False, **_TIGHT
            )
            for label in ("left", "right", "up")
        ]
        for box in self._boxes:
            box.param.watch(self._choose, "value")
        help_text = (
            "The plane goes through three points, each the mean of a class (v3), the middle of some (v1+v2), an exact "
            "sample by number (#12), or coordinates. Layers are taken in the plane; samples are projected on it."
        )
        name = f"<label title='{escape(help_text, quote=True)}'>Plane through</label>"
        title = pn.pane.HTML(name, margin=(6, 0, 0, 10), styles=_NAME)
        self._content = [title, _row(*self._boxes)]
        self._card = _column()  # empty until there is a plane to choose
        self._follow()
        state.param.watch(lambda *_: self._follow(), ["dataset", "plane"])

    def _follow(self) -> None:
        data = load_dataset(self._state.dataset)
        if data.dim > 2 and not len(self._card):
            self._card.objects = self._content
        self._card.visible = data.dim > 2
        names = self._state.plane or anchor_names(self._state.dataset) or ("", "", "")
        for box, name in zip(self._boxes, names, strict=True):
            box.param.update(options=list(data.labels), value=name)

    @told
    def _choose(self, _event: param.parameterized.Event) -> None:
        names = tuple(box.value or "" for box in self._boxes)
        shown = self._state.plane or anchor_names(self._state.dataset)
        if not all(names) or names == shown:
            return
        try:
            self._state.set({"plane": names})
        except InputError:
            self._follow()
            raise

    def __panel__(self) -> pn.viewable.Viewable:
        return self._card


class LookButtons(pn.viewable.Viewer):
    """Buttons that open the inspector of a point, the edge between two classes, the errors over sigma, and a curve."""

    def __init__(self, state: ExplorerState) -> None:
        super().__init__()
        self._state = state
        style: dict[str, Any] = {"size": "small", "variant": "outlined", "margin": (6, 3), "color": "primary"}
        self._point = pmui.Toggle(
            label="Inspect", description="Click into a plot to look into a point, or start here.", **style
        )
        self._edge = pmui.Toggle(label="Edge", description="The edge between two classes as curves.", **style)
        self._errors = pmui.Toggle(
            label="Errors", description="Errors: what each rule does to main's, over the noise levels.", **style
        )
        self._curve = pmui.Toggle(label="Curve", description="A metric against a parameter, over seeds.", **style)
        self._curve.param.watch(self._draw_curve, "value")
        self._errors.param.watch(lambda event: state.set({"errors": event.new}), "value")
        self._point.param.watch(self._inspect, "value")
        self._edge.param.watch(lambda event: state.set({"profile": event.new}), "value")
        state.param.watch(lambda *_: self._follow(), ["point", "profile", "ends", "errors", "curve"])
        self._follow()

    def _follow(self) -> None:
        state = self._state
        self._errors.value = state.errors
        self._curve.value = state.curve is not None
        self._point.value = state.point is not None
        self._edge.param.update(value=state.profile, visible=bool(state.ends))

    @told
    def _inspect(self, event: param.parameterized.Event) -> None:
        if event.new == (self._state.point is not None):
            return
        left, bottom, right, top = self._state.window
        self._state.set({"point": ((left + right) / 2, (bottom + top) / 2) if event.new else None})

    @told
    def _draw_curve(self, event: param.parameterized.Event) -> None:
        """Outliers against the first parameter of a rule, to begin with."""
        if event.new != (self._state.curve is not None):
            first = parameters([self._state.experiment(i) for i in range(len(self._state.panels))])[0]
            self._state.set({"curve": ("outliers", first) if event.new else None})

    def __panel__(self) -> pn.viewable.Viewable:
        return pn.Row(self._point, self._edge, self._errors, self._curve, margin=0)


class LayerBar(pn.viewable.Viewer):
    """Controls for the background, the layers and the source of their fields."""

    def __init__(self, state: ExplorerState) -> None:
        super().__init__()
        self._bands = pmui.Select.from_param(
            state.param.bands,
            label="",
            options={v: k for k, v in BANDS.items()},
            size="small",
            width=170,
            margin=(2, 6),
        )
        self._layers = pmui.CheckButtonGroup.from_param(
            state.param.layers, label="", options={v: k for k, v in LAYERS.items()}, size="small", margin=(2, 2)
        )
        self._source = pmui.RadioButtonGroup.from_param(
            state.param.source, label="", options={v: k for k, v in SOURCES.items()}, size="small", margin=(2, 6)
        )

    def __panel__(self) -> pn.viewable.Viewable:
        return pn.FlexBox(
            self._bands,
            self._source,
            self._layers,
            align_items="center",
            justify_content="center",
            margin=0,
            sizing_mode="stretch_width",
        )


_NAME = {"font-size": "13px", "cursor": "help"}
_FORMULA = {"font-size": "11.5px", "overflow-x": "auto", "overflow-y": "hidden"}
_ABOUT = {"font-size": "11.5px", "line-height": "1.35", "opacity": "0.85"}


def _display(formula: str) -> str:
    """A formula in display style, its parts (separated by \\quad or \\qquad) one below the other."""
    parts = [p.strip().rstrip(",") for p in formula.replace(r"\qquad", r"\quad").split(r"\quad")]
    return r"$$\begin{aligned}" + r" \\ ".join("&" + p for p in parts) + r"\end{aligned}$$"
