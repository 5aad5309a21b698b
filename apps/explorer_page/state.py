"""What one visitor has chosen. Holds no widget and computes nothing; a frozen :class:`Request` of it is computed.

Everything that can be set is a parameter with its bounds, so that whatever arrives (from a widget, a preset, a URL or
a hand-made websocket message) is checked here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import param

from toyguide import Experiment, load_dataset, rule
from toyguide.datasets import dataset_names
from toyguide.datasets.checkpoints import UNION
from toyguide.errors import InputError, unknown
from toyguide.guidance import ROLES, Rule
from toyguide.guidance.schedules import checked_schedule, weight_of
from toyguide.samplers import SAMPLERS, fitting
from toyguide_apps.explorer_page.layers.responses import checked_curve
from toyguide_apps.explorer_page.panels import LETTERS, Panel, Request, following, panel_names, schedule
from toyguide_apps.explorer_page.planes import checked_anchors, home_window
from toyguide_apps.explorer_page.presets import presets
from toyguide_apps.explorer_page.roles import AUTO, MAIN, choices, known_roles, natural, roles_of

__all__ = ["BANDS", "CONSTANT", "LAYERS", "SAMPLE_COUNTS", "SOURCES", "ExplorerState"]

BANDS = {
    "none": "Nothing",
    "exact": "Exact density",
    "main": "Density of main",
    "guide": "Density of guiding field",
    "ratio": "Main against guiding field",
    "regions": "Modes, saddles, tail",
    "curvature": "Curvature",
    "step-error": "SFG's finite difference",
    "error-ratio": "Where the push helps",
    "curl": "Curl of guided field",
    "divergence": "Divergence of guided field",
    "target": "The rule's target",
    "ideal-error": "Distance from the ideal",
}
LAYERS = {
    "samples": "Samples",
    "paths": "Paths",
    "moves": "Moves from A",
    "region": "99 % region",
    "boundary": "Class boundary",
    "exact-lines": "Exact",
    "main-lines": "Main field",
    "guide-lines": "Guiding field",
    "score": "Score",
    "guidance": "The rule's push",
    "saddles": "Upward-curving directions",
    "critical": "Modes and saddle points",
}
SOURCES = {"learned": "the sampled field", "exact": "the exact field"}
"""Which fields the score, the ratio and all curvature are taken from; ``learned`` is whatever is chosen as main."""
CONSTANT = "constant"
"""The schedule of a weight that does not vary."""
_CLOSE = 0.15  # share of the home window's width below which a window is a close-up
SAMPLE_COUNTS = (128, 256, 512, 1024, 2048, 4096)


class ExplorerState(param.Parameterized):
    """The explorer's settings: those that all panels share, and the panels.

    Args:
        count: How many panels there are at first.
        settings: As for ``set``.
    """

    dataset: Any = param.Selector(default="fractal", objects=["fractal"])
    label: Any = param.Selector(default="A", objects=["A"])
    fields: Any = param.Dict(default={}, doc="The reference chosen for each role; a role left out has its natural one.")

    panels: Any = param.Parameter(default=(), doc="The plots from left to right, one to four.")
    selected: Any = param.Integer(default=1, bounds=(0, 3), doc="The panel whose settings the page shows.")
    limited = param.Boolean(default=False, doc="Guide only inside the interval.")
    interval: Any = param.Range(default=(0.05, 1.0), bounds=(0.0, 10.0), doc="The noise levels that are guided.")
    schedule: Any = param.Parameter(default=CONSTANT, doc="How the weight of the rules that have one varies.")

    sampler: Any = param.Selector(default="heun", objects=list(SAMPLERS))
    steps: Any = param.Integer(default=32, bounds=(2, 128))
    n: Any = param.Selector(default=512, objects=list(SAMPLE_COUNTS))
    seed: Any = param.Integer(default=0, bounds=(0, 9999))

    step: Any = param.Integer(default=32, bounds=(0, 128), doc="The time line: how many steps have been taken.")
    bands: Any = param.Selector(default="exact", objects=list(BANDS))
    layers: Any = param.ListSelector(default=["region", "samples"], objects=list(LAYERS))
    source: Any = param.Selector(default="learned", objects=list(SOURCES))
    window: Any = param.NumericTuple(default=(-1.0, -1.0, 1.0, 1.0), length=4)
    following = param.Boolean(default=True, doc="Whether the view follows the noise: it widens with sigma.")
    opacity: Any = param.Dict(default={}, doc="The opacity of each layer, from 0 to 1, where it is less than 1.")
    plane: Any = param.Parameter(default=(), doc="The three points that the plane goes through; none for its own.")
    point: Any = param.Parameter(default=None, doc="The coordinates of the inspected point in the plane, or None.")
    profile = param.Boolean(default=False, doc="Whether the edge between two classes is drawn as a profile.")
    ends: Any = param.Parameter(default=("A", "B"), doc="The two classes of that edge; none where there is one class.")
    errors = param.Boolean(default=False, doc="Whether the push and the error are drawn over the noise levels.")
    sample: Any = param.Integer(default=None, allow_None=True, bounds=(0, 4095), doc="The sample that is followed.")
    curve: Any = param.Parameter(default=None, doc="The metric and the parameters of a curve or a map, or None.")
    seeds: Any = param.Integer(default=5, bounds=(2, 50), doc="Over how many seeds the curve is taken.")
    table = param.Boolean(default=False, doc="Whether the table of all metrics is folded out.")
    dark = param.Boolean(default=False, doc="Whether the page has its dark theme.")
    held = param.Boolean(default=False, doc="Whether a slider is being dragged, so that a coarse picture will do.")

    _own: ClassVar[tuple[str, ...]] = ("label", "sampler", "steps", "n", "seed", "interval", "schedule", "fields")

    def __init__(self, count: int = 2, **settings: Any) -> None:
        super().__init__(panels=_default_panels(count), selected=count - 1)
        self.param.dataset.objects = dataset_names()
        self._enter_dataset()
        self.set(settings)

    @property
    def names(self) -> tuple[str, ...]:
        """What presets and links call the panels."""
        return panel_names(len(self.panels))

    @property
    def main(self) -> str:
        """The reference of the field that is sampled."""
        return self.fields[MAIN]

    def chosen(self, role: str) -> str:
        """The reference chosen for a role."""
        return self.fields.get(role, AUTO)

    def set(self, settings: Mapping[str, Any]) -> None:
        """Take over many settings as one change; those that are not named keep their values.

        Besides the parameters' names there may be: a role, for the reference of its field; a panel's name (``rule``,
        ``ref``), for its rule or the rule's name; ``params`` (of ``rule``) or ``ref.params``, for a table of the
        rule's parameters; ``ref.own``, for a panel's own settings; and ``count``, for how many panels there are.
        ``dataset`` first resets what belongs to a dataset; ``fields`` is merged.

        Raises:
            InputError: If a value is not valid; nothing is changed then.
        """
        before = dict(self.param.values())
        labels = list(self.param.label.objects)
        with param.parameterized.batch_call_watchers(self):
            try:
                self._set(dict(settings))
            except InputError:
                self.param.label.objects = labels
                self.param.update(**{k: v for k, v in before.items() if k != "name"})
                raise

    def _set(self, settings: dict[str, Any]) -> None:
        if "dataset" in settings:
            self._assign("dataset", settings.pop("dataset"))
            self._enter_dataset()
        if "label" in settings:
            self._assign("label", settings.pop("label"))
            self._enter_label()
        for role, reference in dict(settings.pop("fields", {})).items():
            self._choose_field(role, reference)
        for role in known_roles():
            if role in settings:
                self._choose_field(role, settings.pop(role))
        if "panels" in settings:
            self._assign("panels", settings.pop("panels"))
        if "count" in settings:
            self._assign("panels", _resized(self.panels, settings.pop("count")))
        for index, name in enumerate(self.names):
            table = "params" if name == "rule" else f"{name}.params"
            if name in settings or table in settings:
                key = settings.pop(name, self.panels[index].rule.key)
                chosen = key if isinstance(key, Rule) else rule(str(key), **settings.pop(table, {}))
                self._assign("panels", _with_rule(self.panels, index, chosen))
            if f"{name}.own" in settings:
                own = replace(self.panels[index], own=settings.pop(f"{name}.own"))
                self._assign("panels", (*self.panels[:index], own, *self.panels[index + 1 :]))
        at_end = self.step == self.steps
        if "plane" in settings:  # another plane has other coordinates
            self._assign("plane", settings.pop("plane"))
            self.param.update(window=home_window(self.dataset, self.plane), point=None)
            if len(set(self.plane[:2]) & set(load_dataset(self.dataset).labels)) == 2:
                self.ends = self.plane[:2]  # the edge at the bottom of the plane
        for key in [k for k in settings if k != "step"]:
            self._assign(key, settings[key])
        if "step" in settings:
            self._assign("step", settings["step"])
        elif at_end or self.step > self.steps:
            self.step = self.steps
        if self.selected >= len(self.panels):
            self.selected = len(self.panels) - 1

    def set_rule(self, index: int, chosen: Rule) -> None:
        """Give a panel another rule."""
        self.set({"panels": _with_rule(self.panels, index, chosen)})

    def renew_rules(self, successor: Callable[[Rule], Rule | None]) -> None:
        """Replace the rules whose files have changed.

        Args:
            successor: What stands for a rule now; None if it is as it was.
        """
        panels = tuple(replace(p, rule=successor(p.rule) or p.rule) for p in self.panels)
        if any(a is not b for a, b in zip((p.rule for p in panels), (p.rule for p in self.panels), strict=True)):
            self.set({"panels": panels})

    def set_own(self, index: int, own: Mapping[str, Any]) -> None:
        """Replace a panel's own settings."""
        panel = replace(self.panels[index], own=dict(own))
        self.set({"panels": (*self.panels[:index], panel, *self.panels[index + 1 :])})

    def copy_panel(self, index: int) -> None:
        """Put a copy of a panel beside it, and choose it."""
        self._must_have(index)
        panels = (*self.panels[: index + 1], *self.panels[index:])
        self.set({"panels": panels, "selected": min(index + 1, len(LETTERS) - 1)})

    def remove_panel(self, index: int) -> None:
        """Remove a panel; the last one stays."""
        self._must_have(index)
        selected = min(self.selected - (self.selected > index), len(self.panels) - 2)
        self.set({"panels": (*self.panels[:index], *self.panels[index + 1 :]), "selected": selected})

    def swap_panels(self, index: int) -> None:
        """Let a panel and the one on its right change places."""
        self._must_have(index + 1)
        left, right = self.panels[index : index + 2]
        self.set({"panels": (*self.panels[:index], right, left, *self.panels[index + 2 :])})

    def _must_have(self, index: int) -> None:
        if index not in range(len(self.panels)):
            raise InputError(f"panel {index + 1}: expected one of {len(self.panels)}")

    def _choose_field(self, role: str, reference: Any) -> None:
        roles = known_roles()
        if role not in roles:
            raise unknown("role", role, roles)
        offered = choices(self.dataset, self.label, roles[role])
        if reference not in offered:
            raise unknown(role, reference, offered)
        kept = {k: v for k, v in self.fields.items() if k != role}
        self.fields = kept if reference == AUTO else {**kept, role: reference}

    def _assign(self, key: str, value: Any) -> None:
        if key == "name" or key not in self.param:
            raise unknown("setting", key, [k for k in self.param if k != "name"])
        known = self.param[key]
        check = {
            "panels": self._checked_panels,
            "window": _checked_window,
            "interval": _checked_interval,
            "schedule": _checked_schedule,
            "plane": lambda value: checked_anchors(self.dataset, value),
            "point": _checked_point,
            "opacity": _checked_opacity,
            "selected": self._checked_selected,
            "curve": lambda value: checked_curve(value, [panel.rule for panel in self.panels]),
            "ends": lambda value: _checked_ends(self.dataset, value),
        }.get(key)
        value = check(value) if check else value
        try:
            setattr(self, key, value)
        except (ValueError, TypeError) as problem:
            raise _refused(key, value, known) from problem

    def _checked_selected(self, value: Any) -> int:
        self._must_have(value)
        return int(value)

    def _checked_panels(self, value: Any) -> tuple[Panel, ...]:
        if not isinstance(value, tuple) or not all(isinstance(p, Panel) for p in value):
            raise InputError(f"panels = {value!r}: expected panels")
        if not 1 <= len(value) <= len(LETTERS):
            raise InputError(f"panels: {len(value)} of them: expected 1 to {len(LETTERS)}")
        return tuple(replace(panel, own=self._checked_own(panel.own)) for panel in value)

    def _checked_own(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """A panel's own settings, each checked like the shared one of the same name."""
        checked = dict(own)
        for key, value in checked.items():
            if key not in self._own:
                raise unknown("setting of a panel", key, self._own)
            if key == "interval":
                checked[key] = value if value is None else _checked_interval(value)
            elif key == "schedule":
                checked[key] = _checked_schedule(value)
            elif key == "fields":
                for role, reference in value.items():
                    roles = known_roles()
                    if role not in roles:
                        raise unknown("role", role, roles)
                    offered = choices(self.dataset, own.get("label", self.label), roles[role])
                    if reference not in offered:
                        raise unknown(role, reference, offered)
            else:
                try:
                    self.param[key]._validate(value)
                except (ValueError, TypeError) as problem:
                    raise _refused(key, value, self.param[key]) from problem
        return checked

    def _enter_dataset(self) -> None:
        """What belongs to a dataset takes its default there."""
        data = load_dataset(self.dataset)
        self.param.label.objects = [*data.labels, UNION] if len(data.labels) > 1 else [UNION]
        self.label = data.view.label or UNION
        self._enter_label()
        self.panels = tuple(
            replace(p, own={k: v for k, v in p.own.items() if k not in ("label", "fields")}) for p in self.panels
        )
        self.param.update(plane=(), point=None, window=home_window(self.dataset))
        self.param.update(ends=(data.view.plane or data.labels)[:2] if len(data.labels) > 1 else ())

    def _enter_label(self) -> None:
        """Another class: the main field takes its default; other choices that still exist are kept."""
        roles = known_roles()
        kept = {k: v for k, v in self.fields.items() if v in choices(self.dataset, self.label, roles[k])}
        self.fields = {**kept, MAIN: choices(self.dataset, self.label, roles[MAIN])[0]}

    def reset(self) -> None:
        """Take every setting's default."""
        fresh = ExplorerState()
        values = {k: v for k, v in fresh.param.values().items() if k not in ("name", "dataset", "held", "dark")}
        with param.parameterized.batch_call_watchers(self):
            self._assign("dataset", fresh.dataset)
            self._enter_dataset()
            self.param.update(**values)

    def apply(self, preset: str) -> None:
        """Take over a preset; everything that it does not name takes the explorer's default.

        Raises:
            InputError: If there is no such preset.
        """
        if preset not in presets():
            raise unknown("preset", preset, presets())
        plain: dict[str, Any] = {"panels": _default_panels(2), "selected": 1, "limited": False, "source": "learned"}
        plain |= {"following": True, "opacity": {}, "schedule": CONSTANT}
        plain |= {"fields": {role: AUTO for role in self.fields if role != MAIN}, "point": None}
        plain |= {"profile": False, "errors": False, "sample": None, "curve": None, "table": False}
        run = {key: self.param[key].default for key in ("sampler", "steps", "n", "seed")}
        self.set({**plain, **run, "step": run["steps"], **presets()[preset].settings})

    def go_home(self) -> None:
        """Show the plane's own window, and follow the noise."""
        self.set({"window": home_window(self.dataset, self.plane), "following": True})

    def experiment(self, index: int, chosen: Rule | None = None) -> Experiment:
        """A panel's run.

        Args:
            index: The panel's number.
            chosen: A rule that it might have instead of its own.

        Raises:
            InputError: If its settings do not fit together.
        """
        panel = self.panels[index] if chosen is None else replace(self.panels[index], rule=chosen)
        settings: dict[str, Any] = {key: getattr(self, key) for key in ("label", "sampler", "steps", "n", "seed")}
        settings["interval"] = self.interval if self.limited else None
        settings["schedule"] = self.schedule
        settings |= {k: v for k, v in panel.own.items() if k != "fields"}
        settings["sampler"] = fitting(panel.rule, settings["sampler"])
        if weight_of(panel.rule) is None:
            settings["schedule"] = None
        main = choices(self.dataset, settings["label"], roles_of(panel.rule)[MAIN])
        fields = {**self.fields, MAIN: self.main if self.main in main else main[0], **panel.own.get("fields", {})}
        settings["label"] = None if settings["label"] == UNION else settings["label"]
        needed = {role: fields[role] for role in roles_of(panel.rule) if fields.get(role, AUTO) != AUTO}
        return Experiment(self.dataset, **settings, rule=panel.rule.key, params=panel.rule.values(), fields=needed)

    def switched_sampler(self, index: int) -> str:
        """Why a panel has another sampler than the one that is set, in a sentence; empty if it has that one."""
        panel = self.panels[index]
        asked = panel.own.get("sampler", self.sampler)
        used = fitting(panel.rule, asked)
        if used == asked:
            return ""
        wanted = "a first-order sampler" if panel.rule.first_order else "noise in every step"
        return f"{LETTERS[index]} is sampled with {SAMPLERS[used].title}: {panel.rule.called()} needs {wanted}."

    def request(self) -> Request:
        """The picture that these settings describe.

        Raises:
            InputError: If they do not fit together.
        """
        layers = frozenset(self.layers)
        ends = self.ends if self.profile and self.ends else None
        looks = (
            self.bands != "none"
            or layers - {"region", "paths", "samples", "moves"}
            or self.point
            or ends
            or self.errors
        )
        levels = self.levels()
        step = min(self.step, self.steps) if looks else 0
        return Request(
            runs=tuple(self.experiment(i) for i in range(len(self.panels))),
            # Learned fields have no value at sigma = 0: after the last step they are shown at the last level they know.
            sigma=levels[min(step, self.steps - 1)],
            at_end=step == self.steps,
            bands=self.bands,
            layers=layers,
            source=self.source,
            window=self.view_at(levels[min(step, self.steps - 1)]),
            still_window=self._still_window(),
            guide=self.guide(),
            product_step=self._product_step() if self.bands == "step-error" else 0.0,
            plane=self.plane,
            point=self.point,
            ends=ends,
            errors=self.errors,
            sample=self.sample,
        )

    def request_at(self, step: int) -> Request:
        """The picture with the time line at another step, without what belongs to a point or a sample.

        Raises:
            InputError: If the settings do not fit together.
        """
        sigma = self.levels()[min(step, self.steps - 1)]
        there: dict[str, Any] = dict(sigma=sigma, at_end=step == self.steps, window=self.view_at(sigma))
        return replace(self.request(), **there, point=None, ends=None, errors=False, sample=None)

    def levels(self) -> tuple[float, ...]:
        """The noise levels that the time line stops at."""
        return schedule(self.dataset, self.steps)

    def view_at(self, sigma: float) -> tuple[float, float, float, float]:
        """The window that is shown at a noise level."""
        return following(self.window, home_window(self.dataset, self.plane), sigma) if self.following else self.window

    def _still_window(self) -> tuple[float, float, float, float]:
        """The window of what belongs to the data: all of it, or around a close-up, which would show its grid."""
        home, (left, bottom, right, top) = home_window(self.dataset, self.plane), self.window
        if right - left < _CLOSE * (home[2] - home[0]):
            u, v = 0.3 * (right - left), 0.3 * (top - bottom)  # more than what is seen of it while the view widens
            return left - u, bottom - v, right + u, top + v
        return min(left, home[0]), min(bottom, home[1]), max(right, home[2]), max(top, home[3])

    def level(self) -> float:
        """The noise level where the time line is."""
        return self.levels()[min(self.step, self.steps)]

    def _product_step(self) -> float:
        """SFG's finite-difference step ``h``: that of the last panel whose rule has one, else the default."""
        for panel in reversed(self.panels):
            if "h" in panel.rule.declared():
                return float(panel.rule.h)
        return float(rule("sfg").values()["h"])

    def guide(self) -> tuple[str, str]:
        """The role and the reference of the field that main is compared with.

        That of the last panel's rule; if it needs none beside main, that of a weaker model, or of any other role.
        """
        weaker_first = sorted(ROLES.values(), key=lambda role: role.kind != "weaker")
        label = None if self.label == UNION else self.label
        for role in (*roles_of(self.panels[-1].rule).values(), *weaker_first):
            if role.name == MAIN or role.kind in ("adapter", "classes", "classifier"):
                continue
            chosen = self.chosen(role.name)
            try:
                return role.name, natural(role, self.main, self.dataset, label) if chosen == AUTO else chosen
            except InputError:
                continue
        return weaker_first[0].name, "exact+noise:0.2"


def _default_panels(count: int) -> tuple[Panel, ...]:
    """Unguided on the left, as the reference; a rule in every other panel."""
    reference = Panel(rule("none"), {"interval": None})
    return ((reference,) if count > 1 else ()) + (Panel(rule("autoguidance")),) * max(1, count - 1)


def _resized(panels: tuple[Panel, ...], count: Any) -> tuple[Panel, ...]:
    """As many panels, the ones there are kept; new ones are copies of the last, or the default ones."""
    if type(count) is not int or not 1 <= count <= len(LETTERS):
        raise InputError(f"panels = {count!r}: expected 1 to {len(LETTERS)}")
    if count == 1 or len(panels) == 1:
        return _default_panels(count)
    return (*panels[:count], *panels[-1:] * (count - len(panels)))


def _with_rule(panels: tuple[Panel, ...], index: int, chosen: Rule) -> tuple[Panel, ...]:
    return (*panels[:index], replace(panels[index], rule=chosen), *panels[index + 1 :])


def _refused(key: str, value: Any, known: param.Parameter) -> InputError:
    """What is wrong with a value that a parameter refuses."""
    if isinstance(known, param.ListSelector):
        wrong = [v for v in value if v not in known.objects] if isinstance(value, list) else [value]
        return unknown(key, wrong[0] if wrong else value, known.objects)
    if isinstance(known, param.Selector):
        return unknown(key, value, map(str, known.objects))
    low, high = getattr(known, "bounds", None) or ("", "")
    return InputError(f"{key} = {value!r}: expected a value from {low} to {high}")


def _numbers(value: Any, count: int) -> bool:
    fit = isinstance(value, tuple | list) and len(value) == count
    return fit and all(isinstance(v, int | float) and math.isfinite(v) and abs(v) < 1e6 for v in value)


def _checked_window(value: Any) -> tuple[float, ...]:
    if not _numbers(value, 4) or not (value[2] - value[0] > 1e-4 and value[3] - value[1] > 1e-4):
        raise InputError(f"window = {value!r}: expected left, bottom, right, top, with left < right, bottom < top")
    return tuple(value)


def _checked_interval(value: Any) -> tuple[float, float]:
    if not _numbers(value, 2) or not value[0] < value[1]:
        raise InputError(f"interval = {value!r}: expected two noise levels, low < high")
    return tuple(value)


def _checked_schedule(value: Any) -> str:
    return checked_schedule(value) or CONSTANT


def _checked_opacity(value: Any) -> dict[str, float]:
    if not isinstance(value, Mapping):
        raise InputError(f"opacity = {value!r}: expected a number for each layer")
    for layer, share in value.items():
        if layer not in (*LAYERS, "bands"):
            raise unknown("opacity", str(layer)[:40], [*LAYERS, "bands"])
        if not isinstance(share, int | float) or not 0 <= share <= 1:
            raise InputError(f"opacity of {layer} = {share!r}: expected a number from 0 to 1")
    return {layer: float(share) for layer, share in value.items() if share < 1}


def _checked_point(value: Any) -> tuple[float, float] | None:
    if value is not None and not _numbers(value, 2):
        raise InputError(f"point = {value!r}: expected two coordinates in the plane")
    return value and tuple(map(float, value))


def _checked_ends(dataset: str, value: Any) -> tuple[str, str]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise InputError(f"ends = {value!r}: expected two classes")
    for label in value:
        if label not in load_dataset(dataset).labels:
            raise unknown(f"class of {dataset}", label, load_dataset(dataset).labels)
    if value[0] == value[1]:
        raise InputError(f"ends = {value!r}: expected two different classes")
    return tuple(value)
