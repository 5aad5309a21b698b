"""What one visitor has chosen. Holds no widget and computes nothing; a frozen :class:`Request` of it is computed.

Everything that can be set is a parameter with its bounds, so that whatever arrives (from a widget, a preset, a URL or
a hand-made websocket message) is checked here.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import param

from toyguide import Experiment, load_dataset, load_model, rule
from toyguide.datasets import dataset_names
from toyguide.datasets.checkpoints import UNION, model_names
from toyguide.datasets.references import natural_reference
from toyguide.errors import InputError, unknown
from toyguide.guidance import Rule
from toyguide.samplers import SAMPLERS
from toyguide_apps.explorer_page.planes import Anchors, checked_anchors, home_window

__all__ = ["AUTO", "BANDS", "LAYERS", "SOURCES", "ExplorerState", "Preset", "Request", "presets"]

AUTO = "natural partner"
"""The choice of a field that leaves it to the library."""

BANDS = {
    "none": "No bands",
    "exact": "Exact density",
    "main": "Main density",
    "guide": "Guide density",
    "ratio": "Ratio main : guide",
    "regions": "Regions",
    "curvature": "Curvature",
    "step-error": "SFG's h-error",
}
LAYERS = {
    "exact-lines": "Exact lines",
    "main-lines": "Main lines",
    "guide-lines": "Guide lines",
    "score": "Score",
    "guidance": "Guidance",
    "saddles": "Saddles",
    "critical": "Critical points",
    "boundary": "Boundary",
    "region": "99 % region",
    "paths": "Paths",
    "samples": "Samples",
}
SOURCES = {"learned": "Learned", "exact": "Exact"}
"""Which fields the score, the ratio and all curvature are taken from; ``learned`` is whatever is chosen as main."""
SAMPLE_COUNTS = (128, 256, 512, 1024, 2048, 4096)


@dataclass(frozen=True)
class Request:
    """One picture, fully described.

    Attributes:
        left: The reference run.
        right: The run of the chosen rule.
        step: Which step's noise level the layers are drawn at; 0 when no layer looks at it.
        bands: What fills the background.
        layers: What else is drawn.
        source: Where score, ratio and curvature come from.
        window: Left, bottom, right and top.
        guide: Role and reference of the field that main is compared with.
        product_step: The finite-difference step whose error is shown; 0 when it is not looked at.
        plane: The three points that the plane goes through; none for the dataset's own plane.
        point: The point in the plane that is inspected, if one is.
        ends: The classes whose joining edge is drawn as a profile, if it is.
    """

    left: Experiment
    right: Experiment
    step: int
    bands: str
    layers: frozenset[str]
    source: str
    window: tuple[float, float, float, float]
    guide: tuple[str, str]
    product_step: float = 0.0
    plane: Anchors = ()
    point: tuple[float, float] | None = None
    ends: tuple[str, str] | None = None


class ExplorerState(param.Parameterized):
    """The explorer's settings."""

    dataset = param.Selector(default="fractal", objects=["fractal"])
    label = param.Selector(default="A", objects=["A"])
    main = param.Selector(default="exact", objects=["exact"])
    uncond = param.Selector(default=AUTO, objects=[AUTO])
    weak = param.Selector(default=AUTO, objects=[AUTO])

    rule = param.ClassSelector(class_=Rule, doc="The rule on the right, with its parameters.")
    reference = param.ClassSelector(class_=Rule, doc="The rule on the left, with its parameters.")
    limited = param.Boolean(default=False, doc="Guide only inside the interval.")
    interval = param.Range(default=(0.05, 1.0), bounds=(0.0, 10.0), doc="The noise levels that are guided.")

    sampler = param.Selector(default="heun", objects=list(SAMPLERS))
    steps = param.Integer(default=32, bounds=(2, 128))
    n = param.Selector(default=512, objects=list(SAMPLE_COUNTS))
    seed = param.Integer(default=0, bounds=(0, 9999))

    step = param.Integer(default=32, bounds=(0, 128), doc="The scrubber: how many steps have been taken.")
    bands = param.Selector(default="exact", objects=list(BANDS))
    layers = param.ListSelector(default=["region", "samples"], objects=list(LAYERS))
    source = param.Selector(default="learned", objects=list(SOURCES))
    window = param.NumericTuple(default=(-1.0, -1.0, 1.0, 1.0), length=4)
    plane = param.Parameter(default=(), doc="The three points that the plane goes through; none for the dataset's own.")
    point = param.Parameter(default=None, doc="The coordinates in the plane of the point that is inspected, or None.")
    profile = param.Boolean(default=False, doc="Whether the edge between two classes is drawn as a profile.")
    ends = param.Parameter(default=("A", "B"), doc="The two classes whose edge that is; none where there is one class.")
    held = param.Boolean(default=False, doc="Whether a slider is being dragged: a picture of few samples will do.")

    def __init__(self, **settings: Any) -> None:
        super().__init__(rule=rule("autoguidance"), reference=rule("none"))
        self.param.dataset.objects = dataset_names()
        self._enter_dataset()
        self.set(settings)

    def set(self, settings: Mapping[str, Any]) -> None:
        """Take over many settings as one change; those that are not named keep their values.

        Besides the parameters' names, ``rule`` and ``reference`` may be a rule's name, ``params`` and
        ``reference_params`` a table of their parameters, and ``dataset`` first resets what belongs to a dataset.

        Raises:
            InputError: If a value is not valid; nothing is changed then.
        """
        before = dict(self.param.values())
        options = {k: list(self.param[k].objects) for k in ("label", "main", "uncond", "weak")}
        with param.parameterized.batch_call_watchers(self):
            try:
                self._set(dict(settings))
            except InputError:
                for key, objects in options.items():
                    self.param[key].objects = objects
                self.param.update(**{k: v for k, v in before.items() if k != "name"})
                raise

    def _set(self, settings: dict[str, Any]) -> None:
        if "dataset" in settings:
            self._assign("dataset", settings.pop("dataset"))
            self._enter_dataset()
        if "label" in settings:
            self._assign("label", settings.pop("label"))
            self._enter_label()
        for key, params in (("rule", "params"), ("reference", "reference_params")):
            if key in settings or params in settings:
                name = settings.pop(key, getattr(self, key).key)
                chosen = name if isinstance(name, Rule) else rule(name, **settings.pop(params, {}))
                self._assign(key, chosen)
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

    def _assign(self, key: str, value: Any) -> None:
        if key == "name" or key not in self.param:
            raise unknown("setting", key, [k for k in self.param if k != "name"])
        known = self.param[key]
        check = {
            "window": _checked_window,
            "interval": _checked_interval,
            "plane": lambda value: checked_anchors(self.dataset, value),
            "point": _checked_point,
            "ends": lambda value: _checked_ends(self.dataset, value),
        }.get(key)
        value = check(value) if check else value
        try:
            setattr(self, key, value)
        except (ValueError, TypeError) as problem:
            if isinstance(known, param.ListSelector):
                wrong = [v for v in value if v not in known.objects] if isinstance(value, list) else [value]
                raise unknown(key, wrong[0] if wrong else value, known.objects) from problem
            if isinstance(known, param.Selector):
                raise unknown(key, value, map(str, known.objects)) from problem
            low, high = getattr(known, "bounds", None) or ("", "")
            raise InputError(f"{key} = {value!r}: expected a value from {low} to {high}") from problem

    def _enter_dataset(self) -> None:
        """What belongs to a dataset takes its default there."""
        data = load_dataset(self.dataset)
        self.param.label.objects = [*data.labels, UNION] if len(data.labels) > 1 else [UNION]
        self.label = data.view.label or UNION
        self._enter_label()
        self.param.update(plane=(), point=None, window=home_window(self.dataset))
        self.param.update(ends=(data.view.plane or data.labels)[:2] if len(data.labels) > 1 else ())

    def _enter_label(self) -> None:
        """The fields on offer for a class; choices that still exist are kept."""
        for key, objects in field_choices(self.dataset, self.label).items():
            self.param[key].objects = objects
            if getattr(self, key) not in objects or key == "main":
                setattr(self, key, objects[0])

    def apply(self, preset: str) -> None:
        """Take over a preset; everything that it does not name takes the explorer's default.

        Raises:
            InputError: If there is no such preset.
        """
        if preset not in presets():
            raise unknown("preset", preset, presets())
        plain = {"reference": "none", "limited": False, "source": "learned", "uncond": AUTO, "weak": AUTO}
        plain |= {"point": None, "profile": False}
        run = {key: self.param[key].default for key in ("sampler", "steps", "n", "seed")}
        self.set({**plain, **run, "step": run["steps"], **presets()[preset].settings})

    def go_home(self) -> None:
        """Show the plane's own window."""
        self.window = home_window(self.dataset, self.plane)

    def request(self) -> Request:
        """The picture that these settings describe.

        Raises:
            InputError: If they do not fit together.
        """
        fields = {
            "main": self.main,
            "uncond": None if self.uncond == AUTO else self.uncond,
            "weak": None if self.weak == AUTO else self.weak,
        }
        scene: dict[str, Any] = {
            "dataset": self.dataset,
            "label": None if self.label == UNION else self.label,
            "sampler": self.sampler,
            "steps": self.steps,
            "n": self.n,
            "seed": self.seed,
        }

        def run(chosen: Rule, interval: tuple[float, float] | None) -> Experiment:
            needed = {role: fields[role] for role in chosen.needs}
            return Experiment(**scene, **needed, rule=chosen.key, params=chosen.values(), interval=interval)

        layers = frozenset(self.layers)
        ends = self.ends if self.profile and self.ends else None
        looks = self.bands != "none" or layers - {"region", "paths", "samples"} or self.point or ends
        return Request(
            left=run(self.reference, None),
            right=run(self.rule, self.interval if self.limited else None),
            step=min(self.step, self.steps) if looks else 0,
            bands=self.bands,
            layers=layers,
            source=self.source,
            window=self.window,
            guide=self.guide(),
            product_step=self._product_step() if self.bands == "step-error" else 0.0,
            plane=self.plane,
            point=self.point,
            ends=ends,
        )

    def _product_step(self) -> float:
        """SFG's finite-difference step ``h``: the right rule's if it has one, else the left one's, else the default."""
        for chosen in (self.rule, self.reference):
            if "h" in chosen.declared():
                return float(chosen.h)
        return float(rule("sfg").h)

    def guide(self) -> tuple[str, str]:
        """The role and the reference of the field that main is compared with: the rule's own guide, else ``weak``."""
        data = load_dataset(self.dataset)
        for role in (*(r for r in self.rule.needs if r != "main"), "weak", "uncond"):
            chosen = getattr(self, role)
            try:
                return role, natural_reference(role, self.main, data) if chosen == AUTO else chosen
            except InputError:
                continue
        return "weak", "exact+noise:0.2"


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


@lru_cache(maxsize=256)
def field_choices(dataset: str, label: str) -> dict[str, list[str]]:
    """The references on offer for each role, the first being the one to start with."""
    data = load_dataset(dataset)
    others = [x for x in data.labels if x != label] if len(data.labels) <= 4 else []
    trained = [] if "?" in dataset else model_names(dataset)
    fit = [name for name in trained if _fits(name, None if label == UNION else label)]
    natural = f"{dataset}/{data.models.get('main')}"
    return {
        "main": [*sorted(fit, key=lambda name: name != natural), "exact"],
        "uncond": [AUTO, *trained, "exact@union", *(f"exact@{x}" for x in others)],
        "weak": [AUTO, *trained, "exact+noise:0.1", "exact+noise:0.2", "exact+noise:0.5"],
    }


def _fits(name: str, label: str | None) -> bool:
    network = load_model(name)
    return bool(network.labels) or network.label == label


@dataclass(frozen=True)
class Preset:
    """Settings with a name and a sentence about what to see."""

    key: str
    title: str
    look: str
    settings: Mapping[str, Any]


@lru_cache(maxsize=1)
def presets() -> dict[str, Preset]:
    """The presets by key, as written in ``presets.toml``."""
    table = tomllib.loads(Path(__file__).with_name("presets.toml").read_text(encoding="utf-8"))
    return {k: Preset(k, v.pop("title"), v.pop("look"), v) for k, v in table.items()}
