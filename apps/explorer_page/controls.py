"""The widgets. Bounds, steps and help texts come from the parameters that they set."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from html import escape
from typing import Any, ClassVar

import panel as pn
import panel_material_ui as pmui
import param

from toyguide import load_dataset, rule
from toyguide.datasets.checkpoints import UNION
from toyguide.errors import InputError
from toyguide.guidance import Role, Rule
from toyguide.guidance.schedules import weight_of
from toyguide.samplers import SAMPLERS
from toyguide_apps.explorer_page.chooser import RuleChooser
from toyguide_apps.explorer_page.formula_card import FormulaCard
from toyguide_apps.explorer_page.glossary import glossary
from toyguide_apps.explorer_page.off_switch import OffSwitch, last_finite
from toyguide_apps.explorer_page.panels import LETTERS, Panel
from toyguide_apps.explorer_page.planes import anchor_names
from toyguide_apps.explorer_page.presets import presets
from toyguide_apps.explorer_page.roles import AUTO, choices, natural, offered_roles, roles_of, title_of
from toyguide_apps.explorer_page.rule_text import RuleText
from toyguide_apps.explorer_page.schedules import ScheduleCard, offered_schedules
from toyguide_apps.explorer_page.state import CONSTANT, ExplorerState
from toyguide_apps.shared.boxes import named_box
from toyguide_apps.shared.notices import told

__all__ = ["PanelCard", "PlaneCard", "SceneCard", "preset_menu"]

_TIGHT: dict[str, Any] = {"sizing_mode": "stretch_width", "margin": (6, 8), "size": "small"}


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


def _tell_held(slider: _Live, state: ExplorerState) -> None:
    slider.param.watch(lambda event: setattr(state, "held", event.new), "held")


def preset_menu() -> pmui.Select:
    """A menu of the presets; its value is a preset's key, or empty."""
    options = {preset.title: preset.key for preset in presets().values()}
    settings = {**_TIGHT, "margin": (12, 8, 3, 8)}
    return pmui.Select(label="Preset", options={"Choose a preset …": "", **options}, value="", **settings)


class PanelCard(pn.viewable.Viewer):
    """The settings of one panel, the selected one: its rule, and where it differs from the others.

    Args:
        state: The settings.
    """

    def __init__(self, state: ExplorerState) -> None:
        super().__init__()
        self._state = state
        self._letters = pmui.RadioButtonGroup(label="", options=[], size="small", margin=(4, 4, 4, 8))
        self._letters.param.watch(self._select, "value")
        self._add = pmui.Button(label="Add a panel", size="small", variant="text", margin=(4, 4))
        self._add.on_click(told(lambda _: state.copy_panel(len(state.panels) - 1)))
        self._chooser = RuleChooser(state, self._choose)
        self._typed = FormulaCard(state)
        self._sliders = _column()
        self._widgets: dict[str, Any] = {}
        self._switches: dict[str, OffSwitch] = {}
        self._rows: dict[str, pn.viewable.Viewable] = {}  # each parameter's control with its text
        self._text = RuleText(state)
        self._shown: tuple[Rule, int] | None = None
        self._own = OwnCard(state)
        state.param.watch(lambda *_: self._show(), ["panels", "selected"])
        self._show()

    @property
    def _rule(self) -> Rule:
        return self._state.panels[self._state.selected].rule

    @told
    def _select(self, event: param.parameterized.Event) -> None:
        if event.new is not None:
            self._state.set({"selected": LETTERS.index(event.new)})

    def _choose(self, key: str) -> None:
        self._state.set_rule(self._state.selected, rule(key))

    def _show(self) -> None:
        count, selected = len(self._state.panels), self._state.selected
        letters = list(LETTERS[:count])
        self._letters.param.update(options=letters, value=letters[selected], visible=count > 1)
        self._add.visible = count < len(LETTERS)
        chosen = self._rule
        known, self._shown = self._shown, (chosen, selected)
        self._chooser.show(chosen)
        self._text.show(chosen)
        if known is not None and type(known[0]) is type(chosen):
            for key in _controlled(chosen):
                if key in chosen.off:
                    self._switches[key].show(getattr(chosen, key))
                else:
                    self._widgets[key].value = getattr(chosen, key)
        else:
            self._switches = {}
            self._rows = {key: self._widget(key, known) for key, known in _controlled(chosen).items()}
            self._sliders[:] = list(self._rows.values())
        for key, row in self._rows.items():
            row.visible = key in chosen.effective()

    def _widget(self, key: str, known: param.Parameter) -> pn.viewable.Viewable:
        value = getattr(self._rule, key)
        widget = _control(key, known, value)
        if isinstance(widget, _Live):
            _tell_held(widget, self._state)
        widget.param.watch(lambda event: self._change(key, event.new), "value")
        self._widgets[key] = widget
        if key not in self._rule.off:
            return _explained(widget, known.doc or "")
        off, change = self._rule.off[key], partial(self._change, key)
        self._switches[key] = OffSwitch(key, known, off, value, widget, change)
        return _explained(self._switches[key], known.doc or "")

    @told
    def _change(self, key: str, value: Any) -> None:
        before = getattr(self._rule, key, value)
        if value is None or value == before:
            return
        try:
            changed = rule(self._rule.key, **{**self._rule.values(), key: value})
            self._state.set_rule(self._state.selected, changed)
        except InputError:
            self._widgets[key].value = before
            raise

    def __panel__(self) -> pn.viewable.Viewable:
        top = _row(self._letters, self._add)
        return _column(top, self._chooser, self._typed, self._sliders, self._text, self._own)


class OwnCard(pn.viewable.Viewer):
    """Where the selected panel differs from the settings of all panels; folded until it is wanted."""

    _KEYS: ClassVar[dict[str, str]] = {"label": "Class", "sampler": "Sampler", "steps": "Steps"}

    def __init__(self, state: ExplorerState) -> None:
        super().__init__()
        self._state = state
        self._menus: dict[str, pmui.Select] = {}
        self._body = _column()
        self._limited = pmui.Switch(label="Guide only in an interval of σ", margin=(6, 8))
        self._limited.param.watch(self._limit, "value")
        self._schedule = ScheduleCard(state)
        self._body.visible = False
        self._fold = pmui.Toggle(
            label="▸ Only in this panel: fields, class, sampler …",
            size="small",
            variant="text",
            margin=(4, 8),
            color="primary",
        )
        self._fold.param.watch(lambda event: self._unfold(event.new), "value")
        self._following = False
        state.param.watch(lambda *_: self._follow(), ["panels", "selected", "dataset", "label", "fields", "limited"])
        self._follow()

    def _unfold(self, open_: bool) -> None:
        self._body.visible = open_
        self._fold.label = ("▾" if open_ else "▸") + self._fold.label[1:]

    @property
    def _panel(self) -> Panel:
        return self._state.panels[self._state.selected]

    def _follow(self) -> None:
        """Menus of the panel's own settings, the first option of each being that of all panels."""
        state, panel = self._state, self._panel
        self._following = True
        self._limited.value = state.limited
        label = panel.own.get("label", state.label)
        wanted: dict[str, tuple[str, dict[str, Any], Any]] = {}
        for name, role in roles_of(panel.rule).items():
            own_fields = {reference: reference for reference in choices(state.dataset, label, role)}
            wanted[f"field.{name}"] = (title_of(role), own_fields, panel.own.get("fields", {}).get(name, _AS_ALL))
        for key, title in self._KEYS.items():
            known = _STEPS if key == "steps" else list(state.param[key].objects)
            options: dict[str, Any] = {str(v): v for v in known}
            if key == "sampler":
                options = {cls.title: name for name, cls in SAMPLERS.items()}
            wanted[key] = (title, options, panel.own.get(key, _AS_ALL))
        interval = panel.own.get("interval", _AS_ALL)
        kind = interval if interval == _AS_ALL else _EVERYWHERE if interval is None else _ITS_OWN
        wanted["interval"] = ("Guidance interval", {"everywhere": _EVERYWHERE, "its own": _ITS_OWN}, kind)
        if weight_of(panel.rule) is not None:
            schedule = panel.own.get("schedule", _AS_ALL)
            wanted["schedule"] = ("Its schedule of w", offered_schedules(schedule or CONSTANT), schedule)
        if list(self._menus) != list(wanted):
            self._menus = {key: self._menu(key, title) for key, (title, *_) in wanted.items()}
            self._body[:] = list(self._menus.values())
        for key, (_, options, value) in wanted.items():
            offered = {"as in all panels": _AS_ALL, **options}
            if value not in offered.values():
                offered[str(value)] = value
            self._menus[key].param.update(options=offered, value=value)
        self._following = False

    def _menu(self, key: str, title: str) -> pmui.Select:
        menu = pmui.Select(label=title, options={"as in all panels": _AS_ALL}, value=_AS_ALL, **_TIGHT)
        menu.param.watch(lambda event: self._choose(key, event.new), "value")
        return menu

    @told
    def _choose(self, key: str, value: Any) -> None:
        if self._following or value is None:
            return
        own = dict(self._panel.own)
        if key.startswith("field."):
            fields = {k: v for k, v in own.get("fields", {}).items() if k != key.removeprefix("field.")}
            own["fields"] = fields if value == _AS_ALL else {**fields, key.removeprefix("field."): value}
            own = own if own["fields"] else {k: v for k, v in own.items() if k != "fields"}
        elif value == _AS_ALL:
            own.pop(key, None)
        elif key == "interval":
            own[key] = None if value == _EVERYWHERE else self._state.interval
        else:
            own[key] = value
        self._state.set_own(self._state.selected, own)

    @told
    def _limit(self, event: param.parameterized.Event) -> None:
        if not self._following:
            self._state.set({"limited": event.new})

    def __panel__(self) -> pn.viewable.Viewable:
        return _column(self._limited, self._schedule, self._fold, self._body)


def _controlled(chosen: Rule) -> dict[str, param.Parameter]:
    """The parameters that have a widget here; a text has a card of its own."""
    return {key: known for key, known in chosen.declared().items() if not isinstance(known, param.String)}


def _control(key: str, known: param.Parameter, value: Any) -> Any:
    """The widget of a rule's parameter; a number without a range gets a box instead of a slider."""
    if isinstance(known, param.Selector):
        return pmui.Select(label=key, options=list(known.objects), value=value, **_TIGHT)
    if isinstance(known, param.Boolean):
        return pmui.Switch(label=key, value=value, margin=(3, 20), size="small")
    whole = isinstance(known, param.Integer)
    low, high = known.get_soft_bounds()
    least, most = known.bounds or (None, None)
    most, value = None if most == math.inf else most, last_finite(known, value)
    if low is None or high in (None, math.inf):
        box = pmui.IntInput if whole else pmui.FloatInput
        step = known.step or (1 if whole else 0.1)
        return box(label=key, start=least, end=most, step=step, value=value, theme_config=named_box(key), **_TIGHT)
    return (LiveIntSlider if whole else LiveSlider)(
        label=key,
        start=min(low, value),
        end=max(high, value),
        fixed_start=least,
        fixed_end=most,
        step=known.step or (1 if whole else (high - low) / 100),
        value=value,
        theme_config=named_box(key),
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
        self._sampler = pmui.Select.from_param(
            state.param.sampler, label="Sampler", options=samplers, description=glossary()["sampler"].text, **_TIGHT
        )
        self._seed = pmui.IntInput.from_param(
            state.param.seed,
            label="Seed",
            description=glossary()["seed"].text,
            start=0,
            end=9999,
            step=1,
            theme_config=named_box("Seed"),
            **_TIGHT,
        )
        bounds = {"start": 4, "end": 64, "fixed_start": 2, "fixed_end": 128}
        steps = LiveIntSlider.from_param(
            state.param.steps, label="Steps", description="", theme_config=named_box("Steps"), **bounds, **_TIGHT
        )
        _tell_held(steps, state)
        self._steps = _explained(steps, "Solver steps from the highest noise level to 0.")

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
        return _column(self._sampler, _row(self._menus["n"], self._seed), self._steps)


def _menu(state: ExplorerState, key: str, label: str) -> pmui.Select:
    """A menu of a parameter's choices."""
    return _following_menu(
        state,
        label,
        lambda: {"options": list(state.param[key].objects), "value": getattr(state, key)},
        lambda value: state.set({key: value}),
        ["dataset", "label", key],
        _DOCS[key],
    )


def _field_menu(state: ExplorerState, role: Role) -> pmui.Select:
    """A menu of the fields on offer for a role."""
    return _following_menu(
        state,
        title_of(role),
        lambda: {"options": _named_choices(state, role), "value": state.chosen(role.name)},
        lambda value: state.set({"fields": {role.name: value}}),
        ["dataset", "label", "fields"],
        next((entry.text for entry in glossary().values() if entry.role == role.name), role.doc),
    )


def _named_choices(state: ExplorerState, role: Role) -> dict[str, str]:
    """The fields on offer for a role, by what the menu calls them; which one the natural partner is, is said."""
    named = {reference: reference for reference in choices(state.dataset, state.label, role)}
    if named.pop(AUTO, None) is None:
        return named
    try:
        label = None if state.label == UNION else state.label
        partner = natural(role, state.main, state.dataset, label).removeprefix(f"{state.dataset}/")
        return {f"natural: {partner}": AUTO, **named}
    except InputError:
        return {"none": AUTO, **named}


def _following_menu(
    state: ExplorerState,
    label: str,
    shown: Callable[[], dict[str, Any]],
    choose: Callable[[Any], None],
    keys: list[str],
    doc: str,
) -> pmui.Select:
    """A menu whose options and value follow the settings in one step.

    Followed one by one, a menu whose options have just changed would choose one of them itself.

    Args:
        state: The settings.
        label: The menu's label.
        shown: Its options and its value.
        choose: Called with a value that the visitor has chosen.
        keys: The settings that it follows.
        doc: A sentence about it.
    """

    @told
    def chosen(event: param.parameterized.Event) -> None:
        if event.new is not None and event.new != shown()["value"]:
            choose(event.new)

    menu = pmui.Select(label=label, description=doc, **shown(), **_TIGHT)
    menu.param.watch(chosen, "value")
    state.param.watch(lambda *_: menu.param.update(**shown()), keys)
    return menu


def _explained(widget: pn.viewable.Viewable, doc: str) -> pn.viewable.Viewable:
    """A widget with its help text below it."""
    text = pn.pane.HTML(escape(doc), margin=(-2, 8, 4, 10), sizing_mode="stretch_width", styles=_HELP)
    return _column(widget, text)


def _row(*items: pn.viewable.Viewable) -> pn.Row:
    return pn.Row(*items, margin=0, sizing_mode="stretch_width")


def _column(*items: pn.viewable.Viewable) -> pn.Column:
    return pn.Column(*items, margin=0, sizing_mode="stretch_width")


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


_NAME = {"font-size": "13px", "cursor": "help"}
_HELP = {"font-size": "12px", "line-height": "1.3", "opacity": "0.8"}
_DOCS = {
    "dataset": "A distribution whose density is known exactly at every noise level.",
    "label": "The class that is sampled; union is all classes together.",
    "n": "How many samples are drawn. More make the numbers surer and the pictures slower.",
}
_AS_ALL = ""  # of a menu of a panel's own setting: the setting of all panels
_EVERYWHERE, _ITS_OWN = "everywhere", "its own"  # of the menu of a panel's interval
_STEPS = (4, 8, 12, 16, 24, 32, 48, 64, 128)
