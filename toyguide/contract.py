"""What every guidance rule must keep to, checked on whole runs over small random mixtures in float64.

The tests ask it of every published rule, and ``toyguide check-rule`` of a user's own. Each check builds the fields that
the rule's roles name, runs the sampling loop, and compares two runs that must agree, or two counts.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import param
import torch
from torch import Tensor

from toyguide.datasets.classifiers import Classifier, ExactClassifier
from toyguide.errors import InputError
from toyguide.experiment import Experiment
from toyguide.fields import Field
from toyguide.fields.adapters import Adapter
from toyguide.fields.mixtures import GaussianMixture
from toyguide.fields.two_headed import TwoHeadedMLP
from toyguide.guidance import FAMILIES, ROLES, Batched, Evaluation, Rule, Scene, Wrapper, rules
from toyguide.samplers import Noise, Sampler, Slope, Step, misfit, sampler, trajectory

__all__ = ["CHECKS", "Check", "Finding", "check_rule"]

LEVELS = torch.tensor([3.0, 1.5, 0.7, 0.3, 0.1, 0.0], dtype=torch.float64)
"""The noise levels of every run."""

NETWORKS = ("network", "internal")
"""The kinds of roles that a network fills."""

_LABEL = "A"
_N = 32  # a torch generator draws the first 16 numbers of 32 as it draws 16


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        check: What was asked, in a few words.
        verdict: ``ok``, ``fails``, or ``skipped`` where it does not apply.
        said: What was found, in a sentence; empty if there is nothing to say.
    """

    check: str
    verdict: str
    said: str = ""


@dataclass(frozen=True)
class Check:
    """One thing that every rule must keep to.

    Attributes:
        title: What is asked, in a few words.
        find: What a rule does about it; returns what is wrong, None if all is right, or raises :class:`Skipped`.
    """

    title: str
    find: Callable[[type[Rule]], str | None]

    def __call__(self, cls: type[Rule]) -> Finding:
        try:
            wrong = self.find(cls)
        except Skipped as reason:
            return Finding(self.title, "skipped", str(reason))
        except InputError as problem:
            wrong = str(problem)
        except Exception as problem:  # whatever a rule under development raises is a finding
            wrong = f"{type(problem).__name__}: {problem}"
        return Finding(self.title, "fails" if wrong else "ok", wrong or "")


class Skipped(Exception):  # noqa: N818 — not an error
    """The check does not apply to this rule; the message says why."""


def check_rule(cls: type[Rule]) -> list[Finding]:
    """Every check of a rule, in the order of ``CHECKS``."""
    return [check(cls) for check in CHECKS]


# The fields and the runs.


def random_mixture(seed: int, turn: Tensor | None = None, shift: Tensor | float = 0.0) -> GaussianMixture:
    """Four random Gaussians in the plane, with eigenvalues well away from 0, turned and shifted."""
    g = torch.Generator().manual_seed(seed)
    means = torch.randn(4, 2, generator=g, dtype=torch.float64)
    roots = torch.randn(4, 2, 2, generator=g, dtype=torch.float64) * 0.3
    turn = torch.eye(2, dtype=torch.float64) if turn is None else turn
    covariances = roots @ roots.mT + 0.05 * torch.eye(2, dtype=torch.float64)
    weights = torch.rand(4, generator=g, dtype=torch.float64) + 0.2
    return GaussianMixture(weights, means @ turn.T + shift, turn @ covariances @ turn.T)


def random_network(seed: int) -> TwoHeadedMLP:
    """An untrained network in float64, with an auxiliary read-out, whose scores are of the size of a mixture's."""
    g = torch.Generator().manual_seed(seed)
    net = TwoHeadedMLP(2, 16, 2, torch.tensor([0.5, 0.5]), generator=g, auxiliary=1)
    for gain in (net.gain, net.auxiliary_gain):
        gain.data.fill_(-0.5)
    return net.double().requires_grad_(False)


def fields_for(cls: type[Rule], turn: Tensor | None = None, shift: Tensor | float = 0.0) -> dict[str, Any]:
    """A field for each role of a rule; turned and shifted if it is a mixture."""
    found: dict[str, Any] = {}
    for name, role in {"main": ROLES["main"], **cls.roles()}.items():
        seed = zlib.crc32(name.encode())  # another field in each role, the same one for every rule
        if role.kind in NETWORKS:
            found[name] = random_network(seed)
        elif role.kind == "classes":
            found[name] = EachClass({_LABEL: random_mixture(seed, turn, shift), "B": random_mixture(9, turn, shift)})
        elif role.kind == "adapter":
            found[name] = Adapter(2, 8, 2, torch.tensor([0.5, 0.5]), torch.Generator().manual_seed(seed)).double()
            found[name].requires_grad_(False)
        elif role.kind == "classifier":
            classes = {_LABEL: random_mixture(0, turn, shift), "B": random_mixture(9, turn, shift)}
            found[name] = ExactClassifier(classes, {_LABEL: 0.3, "B": 0.7})
        elif role.kind == "union":  # of main and another class: no tail of main's is heavier
            found[name] = _union(random_mixture(zlib.crc32(b"main"), turn, shift), random_mixture(seed, turn, shift))
        else:
            found[name] = random_mixture(seed, turn, shift)
    return found


def _union(*classes: GaussianMixture) -> GaussianMixture:
    parts = zip(*((c.weights, c.means, c.covariances) for c in classes), strict=True)
    return GaussianMixture(*(torch.cat(each) for each in parts))


class EachClass(Field):
    """A field with a view at each class; by itself it is that of the first."""

    def __init__(self, members: dict[str, Field]) -> None:
        self.members, self.labels, self.own = members, tuple(members), next(iter(members.values()))
        self.dim = self.own.dim

    def with_label(self, label: str | None) -> Field:
        return self.own if label is None else self.members[label]

    def log_density(self, x: Tensor, sigma: Any) -> Tensor:
        return self.own.log_density(x, sigma)

    def score(self, x: Tensor, sigma: Any) -> Tensor:
        return self.own.score(x, sigma)

    def hessian(self, x: Tensor, sigma: Any) -> Tensor:
        return self.own.hessian(x, sigma)


def points() -> Tensor:
    """The starting points of every run, with shape ``(n, 2)``, float64."""
    return torch.randn(_N, 2, generator=torch.Generator().manual_seed(7), dtype=torch.float64) * 1.5


def allowed(*chosen: Rule) -> str:
    """A sampler that all of the rules may be used with."""
    return next(name for name in ("heun", "euler", "ancestral") if not any(misfit(rule, name) for rule in chosen))


def run(
    rule: Rule,
    fields: dict[str, Any],
    x: Tensor | None = None,
    count: int | None = None,
    method: str | Sampler = "",
) -> list[Step]:
    """A run of a rule, by default from :func:`points` with a sampler that it allows."""
    x = points() if x is None else x
    scene = Scene(fields, tuple(LEVELS.tolist()), label=_LABEL)
    generator = torch.Generator().manual_seed(2)
    chosen = method if isinstance(method, Sampler) else sampler(method or allowed(rule))
    return list(trajectory(rule, scene, chosen, x, LEVELS, generator, count))


def apart(here: Iterable[Step], there: Iterable[Step], move: Callable[[Tensor], Tensor] = lambda x: x) -> float:
    """The largest distance between two runs' points at any level; ``move`` is applied to the first run's."""
    each = [float((b.x - move(a.x)).norm(dim=-1).max()) for a, b in zip(here, there, strict=True)]
    return math.nan if any(math.isnan(d) for d in each) else max(each)


def _agree(distance: float, allowance: float = 1e-9) -> bool:
    return distance <= allowance  # False for NaN


# The checks.


def _described(cls: type[Rule]) -> str | None:
    missing = [name for name in ("title", "formula", "source", "summary") if not getattr(cls, name)]
    missing += [f"the doc of {name}" for name, declared in cls.declared().items() if not declared.doc]
    missing += [f"the doc of the role {name}" for name, role in cls.roles().items() if not role.doc]
    if missing:
        return f"the help text lacks {', '.join(missing)}"
    unknown = [name for name in {**(cls.unguided or {}), **cls.off} if name not in cls.declared()]
    if unknown:
        return f"unguided or off name {', '.join(unknown)}, expected parameters of the rule"
    return None if cls.family in FAMILIES else f"family {cls.family!r}, expected one of {', '.join(FAMILIES)}"


def _finite(cls: type[Rule]) -> str | None:
    fields = fields_for(cls)
    for values in _settings(cls):
        rule = cls(**values)
        far = torch.cat([points(), 50 * points()])
        try:
            steps = run(rule, fields, far)
        except InputError:
            if not values:
                raise
            continue  # a setting that these fields do not allow, and that is refused in a line
        if not all(step.x.isfinite().all() for step in steps):
            return f"points are not finite with {rule!r}"
    return None


def _settings(cls: type[Rule]) -> list[dict[str, Any]]:
    """The defaults, and each parameter at the ends of its slider, at each of its choices, and switched off."""
    found: list[dict[str, Any]] = [{}]
    for name, declared in cls.declared().items():
        if isinstance(declared, param.Selector):
            found += [{name: choice} for choice in declared.objects]
        elif isinstance(declared, param.Boolean):
            found += [{name: value} for value in (False, True)]
        elif isinstance(declared, param.Number):
            found += [{name: end} for end in declared.get_soft_bounds() if end is not None]
    return found + [{name: value} for name, value in cls.off.items()]


def _guides(cls: type[Rule]) -> str | None:
    if cls.key == "none":
        raise Skipped("it is the unguided rule")
    rule, fields = cls(), fields_for(cls)
    plain = rules()["none"]()
    distance = apart(run(rule, fields), run(plain, fields, method=allowed(rule)))
    return None if distance > 1e-3 else "the default values lead where no guidance leads"


def _unguided(cls: type[Rule]) -> str | None:
    if cls.unguided is None:
        raise Skipped("the rule has no unguided values")
    rule, fields = cls(**cls.unguided), fields_for(cls)
    distance = apart(run(rule, fields), run(rules()["none"](), fields, method=allowed(rule)))
    return (
        None if _agree(distance) else f"{rule!r} leads {distance:.2g} away from no guidance, expected the same points"
    )


def _limits(cls: type[Rule]) -> str | None:
    if not cls.limits:
        raise Skipped("the rule declares no limits")
    for limit in cls.limits:
        other = rules()[limit.rule]
        fields = {**fields_for(other), **fields_for(cls)}
        fields |= {role: fields[instead] for role, instead in limit.fields.items()}
        for share in (0.25, 0.6):
            shared = {name: _inside(cls.declared()[name], share) for name in limit.same}
            mine, theirs = cls(**shared, **limit.params), other(**shared, **limit.of)
            method = limit.sampler or allowed(mine, theirs)
            distance = apart(run(mine, fields, method=method), run(theirs, fields, method=method))
            if not _agree(distance):
                return f"{mine!r} leads {distance:.2g} away from {theirs!r}, expected the same points"
    return None


def _inside(declared: param.Parameter, share: float) -> Any:
    """A value of a parameter, at a share of the way along its slider."""
    if not isinstance(declared, param.Number):
        return declared.default
    low, high = declared.get_soft_bounds()
    value = low + share * (high - low)
    return round(value) if isinstance(declared, param.Integer) else value


def _effective(cls: type[Rule]) -> str | None:
    if not cls.only_with:
        raise Skipped("every parameter always has a meaning, as it says")
    fields = fields_for(cls)
    for name, choices in cls.only_with.items():
        for choice, among in choices.items():
            without = [v for v in cls.declared()[choice].objects if v not in among]
            for value in without:
                one, other = (cls(**{choice: value, name: v}) for v in _two_values(cls.declared()[name]))
                if name in one.effective():
                    return f"{name} means something with {choice} = {value!r}, unlike what only_with says"
                if not _agree(apart(run(one, fields), run(other, fields)), 0.0):
                    return f"{name} changes the points with {choice} = {value!r}, unlike what only_with says"
    return None


def _two_values(declared: param.Parameter) -> tuple[Any, Any]:
    if isinstance(declared, param.Selector):
        return declared.objects[0], declared.objects[-1]
    return _inside(declared, 0.3), _inside(declared, 0.7)


def _alone(cls: type[Rule]) -> str | None:
    if cls.interacts:
        raise Skipped("its points affect each other, as it says")
    fields, x = fields_for(cls), points()
    half = _N // 2
    together = [step.x[:half] for step in run(cls(), fields)]
    alone = [step.x for step in run(cls(), fields, x[:half], _N)]
    distance = max(float((a - b).norm(dim=-1).max()) for a, b in zip(alone, together, strict=True))
    if _agree(distance):
        return None
    return f"half of the points alone end {distance:.2g} away from where they end among all; expected interacts = True"


def _batched(cls: type[Rule]) -> str | None:
    if not cls.batchable:
        raise Skipped("not batchable, as it says")
    names = cls.per_trajectory()
    numbers = [{name: _inside(cls.declared()[name], share) for name in names} for share in (0.3, 0.8)]
    fields, x = fields_for(cls), points()
    singles = [cls(**values) for values in numbers]
    generators = [torch.Generator().manual_seed(2) for _ in singles]
    both = run(Batched(singles, generators, x.repeat(2, 1)), fields, x.repeat(2, 1))
    for i, rule in enumerate(singles):
        part = [dataclasses.replace(step, x=step.x[i * _N : (i + 1) * _N]) for step in both]
        distance = apart(run(rule, fields), part)
        if not _agree(distance):
            return f"{rule!r} in a batch ends {distance:.2g} away from where it ends by itself"
    return None


def _moved(change: str) -> Callable[[type[Rule]], str | None]:
    def find(cls: type[Rule]) -> str | None:
        if change not in cls.equivariant:
            raise Skipped(f"not equivariant under {change}, as it says")
        q = torch.linalg.qr(torch.randn(2, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)).Q
        turn, shift = torch.eye(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
        if change == "rotation":
            turn = q
        else:
            shift = torch.tensor([0.7, -1.1], dtype=torch.float64)

        def move(x: Tensor) -> Tensor:
            return x @ turn.T + shift

        here = run(cls(), fields_for(cls))
        method = _TurnedNoise(sampler(allowed(cls())), turn)
        there = run(_Turned(cls(), turn), fields_for(cls, turn, shift), move(points()), method=method)
        distance = apart(here, there, move)
        if _agree(distance):
            return None
        what = "turned" if change == "rotation" else "shifted"
        rest = tuple(name for name in cls.equivariant if name != change)
        return f"with fields and points {what}, points end {distance:.2g} away; expected equivariant = {rest!r}"

    return find


class _Turned(Wrapper):
    """A rule that begins with its directions turned."""

    def __init__(self, rule: Rule, turn: Tensor) -> None:
        super().__init__(rule)
        self.turn = turn

    def begin(self, at: Evaluation, generator: torch.Generator) -> tuple[Tensor, Any]:
        x, memory = super().begin(at, generator)
        return x, mapped(memory, lambda m: m @ self.turn.T if m.shape == at.x.shape else m)


class _TurnedNoise(Sampler):
    """A sampler whose noise is turned."""

    def __init__(self, inner: Sampler, turn: Tensor) -> None:
        self.inner, self.turn = inner, turn
        self.order = inner.order  # type: ignore[misc]

    def aim(self, sigma: float, sigma_next: float) -> float:
        return self.inner.aim(sigma, sigma_next)

    def step(self, x: Tensor, sigma: float, sigma_next: float, first: Tensor, slope: Slope, noise: Noise) -> Tensor:
        return self.inner.step(x, sigma, sigma_next, first, slope, lambda: noise() @ self.turn.T)


def mapped(memory: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A rule's memory with every tensor in it changed."""
    if isinstance(memory, Tensor):
        return change(memory)
    if dataclasses.is_dataclass(memory) and not isinstance(memory, type):
        found = {f.name: mapped(getattr(memory, f.name), change) for f in dataclasses.fields(memory)}
        return dataclasses.replace(memory, **found)
    if isinstance(memory, dict):
        return {k: mapped(v, change) for k, v in memory.items()}
    return type(memory)(mapped(m, change) for m in memory) if isinstance(memory, tuple | list) else memory


class Counted(Field):
    """A field that counts the points at which it is evaluated, and at which it is differentiated."""

    def __init__(self, field: Field) -> None:
        self.field, self.dim, self.points, self.products = field, field.dim, 0, 0

    def log_density(self, x: Tensor, sigma: Any) -> Tensor:
        self.points += len(x)
        return self.field.log_density(x, sigma)

    def score(self, x: Tensor, sigma: Any) -> Tensor:
        self.points += len(x)
        return self.field.score(x, sigma)

    def hessian(self, x: Tensor, sigma: Any) -> Tensor:
        self.products += len(x) * self.dim
        return self.field.hessian(x, sigma)

    def jvp(self, x: Tensor, sigma: Any, v: Tensor) -> Tensor:
        self.products += len(x)
        return self.field.jvp(x, sigma, v)


class CountedClassifier(Classifier):
    """A classifier that counts the points at which it is evaluated, and at which it is differentiated."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier, self.labels, self.points, self.products = classifier, classifier.labels, 0, 0

    def log_posterior(self, x: Tensor, sigma: Any) -> Tensor:
        self.points += len(x)
        return self.classifier.log_posterior(x, sigma)

    def gradient(self, x: Tensor, sigma: Any, label: str) -> Tensor:
        self.products += len(x)
        return self.classifier.gradient(x, sigma, label)

    def tempered(self, temperature: float) -> Classifier:
        return CountedClassifier(self.classifier.tempered(temperature))

    def logits_vjp(self, x: Tensor, sigma: Any, v: Tensor) -> Tensor:
        self.products += len(x)
        return self.classifier.logits_vjp(x, sigma, v)


def counting(field: Field | Classifier) -> tuple[Any, list[Counted | CountedClassifier]]:
    """A field or classifier that counts, and what the counts are in: for one of each class, each class's own."""
    if isinstance(field, EachClass):
        members = {label: Counted(member) for label, member in field.members.items()}
        return EachClass(dict(members)), list(members.values())
    counted = CountedClassifier(field) if isinstance(field, Classifier) else Counted(field)
    return counted, [counted]


def _counted(cls: type[Rule]) -> str | None:
    if any(role.kind in (*NETWORKS, "exact") for role in cls.roles().values()):
        raise Skipped("it derives fields from its networks or mixtures, which count for themselves")
    fields = fields_for(cls)
    pairs = {name: counting(field) for name, field in fields.items() if not isinstance(field, Adapter)}
    last = run(cls(), {**fields, **{name: field for name, (field, _) in pairs.items()}})[-1]
    counts = [count for _, own in pairs.values() for count in own]
    made = sum(count.points for count in counts) / _N
    products = sum(count.products for count in counts) / _N
    if (last.nfe, last.cost.gradients) == (made, products):
        return None
    return (
        f"{last.nfe:g} evaluations and {last.cost.gradients:g} gradients are counted, {made:g} and {products:g} are "
        "made; expected every evaluation through `at`"
    )


def _needs(cls: type[Rule]) -> str | None:
    fields = fields_for(cls)
    run(cls(), {name: field for name, field in fields.items() if name in cls().evaluates()})
    for missing in cls().evaluates():
        try:
            run(cls(), {name: field for name, field in fields.items() if name != missing})
        except InputError:
            continue
        return f"runs without the field {missing!r}; expected needs without it"
    return None


def _written(cls: type[Rule]) -> str | None:
    found = rules().get(cls.key)
    if found is not cls:
        return f"the name {cls.key!r} stands for another rule"
    numbers = {name: _inside(cls.declared()[name], 0.4) for name in cls.declared()} | dict(cls.off)
    for params in ({}, numbers):
        rule = cls(**params)
        e = Experiment(label=_LABEL, rule=cls.key, params=params, sampler=allowed(rule), n=16)
        again = Experiment.from_json(e.to_json())
        if again != e or hash(again) != hash(e) or again.build_rule() != rule:
            return f"{rule!r} comes back from JSON as {again.build_rule()!r}"
    return None


def _refuses(cls: type[Rule]) -> str | None:
    for name, declared in cls.declared().items():
        if isinstance(declared, param.Boolean | param.Number | param.Selector):
            for wrong in (math.nan, None):
                try:
                    cls(**{name: wrong})
                except InputError:
                    continue
                return f"{name} = {wrong!r} is accepted"
        if isinstance(declared, param.Number) and not isinstance(declared, param.Boolean):
            low, high = declared.bounds or (None, None)
            if low is None or high is None:
                return f"{name} has no bounds; expected bounds = (low, high), which its slider and its checks use"
    return None


CHECKS = (
    Check("described for the help text", _described),
    Check("parameters bounded, nonsense refused", _refuses),
    Check("finite at every setting, also far out", _finite),
    Check("guides at its default values", _guides),
    Check("unguided at its unguided values", _unguided),
    Check("equal to other rules where it says so", _limits),
    Check("parameters without meaning change nothing", _effective),
    Check("each point guided by itself", _alone),
    Check("batches as runs one by one", _batched),
    Check("turned with its fields", _moved("rotation")),
    Check("shifted with its fields", _moved("translation")),
    Check("evaluations counted as made", _counted),
    Check("only the fields that it needs", _needs),
    Check("written to JSON and read again", _written),
)
"""Everything that is asked of every rule."""
