"""Runs side by side against the same runs one by one: every rule, every number of it, every sampler."""

from __future__ import annotations

import dataclasses

import param
import pytest
import torch
from helpers import seeded
from torch import Tensor

import toyguide as tg
from toyguide.contract import NETWORKS, fields_for
from toyguide.datasets.classifiers import ExactClassifier
from toyguide.errors import InputError
from toyguide.fields import Field
from toyguide.guidance import Batched, Evaluation, Guided, Interval, PerTrajectory, Rule, Scene, rules
from toyguide.guidance.schedules import weight_of
from toyguide.samplers import SAMPLERS, sampler, trajectory
from toyguide.sweeps.batch import batches, walk_batch

W = torch.float64
JOINED = {key: cls for key, cls in rules().items() if cls.batchable}
NUMBERS = [(key, name) for key, cls in JOINED.items() for name in cls.per_trajectory()]
LEVELS = torch.tensor([3.0, 1.5, 0.7, 0.3, 0.1, 0.0], dtype=W)
N = 24


@pytest.fixture
def fields(random_mixture):
    """A field for every role of the rules that are joined."""
    roles = {name: role for cls in JOINED.values() for name, role in cls.roles().items() if role.kind != "classifier"}
    return {name: random_mixture(2, seed=seed) for seed, name in enumerate(roles)}


def scene(fields: dict) -> Scene:
    """The fields with a classifier of two of them."""
    both = {"A": fields["main"], "B": fields["weak"]}
    return Scene({**fields, "classifier": ExactClassifier(both, {"A": 0.4, "B": 0.6})}, (), label="A")


def values(cls: type[Rule], name: str) -> list[float]:
    """The least value that makes sense, and two well above it."""
    low, high = cls.declared()[name].get_soft_bounds()
    return [low + share * (high - low) for share in (0.0, 0.3, 0.8)]


def alone(rule: Rule, fields: dict, x: Tensor, seed: int) -> list:
    return list(trajectory(rule, scene(fields), sampler(method(rule)), x, LEVELS, seeded(seed)))


def method(rule: Rule) -> str:
    return "euler" if rule.first_order else "heun"


@pytest.mark.parametrize(("key", "name"), NUMBERS)
@pytest.mark.parametrize("interval", [None, (0.2, 2.0)])
def test_a_joint_is_its_runs(fields, key, name, interval):
    """In float64 the only difference is in how many points are computed together: rounding."""
    cls = rules()[key]
    inside = (*NETWORKS, "adapter")
    fields |= {role: f for role, f in fields_for(cls).items() if role not in fields or cls.roles()[role].kind in inside}
    singles = [cls(**{name: value}) for value in values(cls, name)]
    x = torch.randn(N, 2, generator=seeded(7), dtype=W) * 3
    seeds = [4, 4, 5]
    joint: Rule = Batched(singles, [seeded(s) for s in seeds], x.repeat(3, 1))
    if interval:
        joint, singles = Interval(joint, *interval), [Interval(rule, *interval) for rule in singles]
    steps = list(trajectory(joint, scene(fields), sampler(method(joint)), x.repeat(3, 1), LEVELS, seeded()))
    ends = set()
    for part, (rule, seed) in enumerate(zip(singles, seeds, strict=True)):
        own = slice(part * N, (part + 1) * N)
        for joined, single in zip(steps, alone(rule, fields, x, seed), strict=True):
            assert joined.cost.copy(own).mean == single.nfe
            torch.testing.assert_close(joined.x[own], single.x, rtol=1e-11, atol=1e-11)
            assert joined.trace.keys() == single.trace.keys()
            for shown, value in single.trace.items():
                torch.testing.assert_close(joined.trace[shown][own], value, rtol=1e-9, atol=1e-9)
        ends.add(float(steps[-1].x[own].sum()))
    assert interval or len(ends) > 1, "the number makes a difference"  # some only above or below the interval


ONE_FOR_ALL = {  # real numbers that all points share: runs that differ in them are separate batches
    "cfg-mp": {"threshold"},
    "dps": {"R", "s", "y0", "y1"},
    "fsg": {"threshold", "w_b", "w_f"},
    "negative": {"T", "p_max", "prior"},
    "rectified-cfg++": {"share"},
}


def test_every_real_number_of_a_rule_that_is_joined_is_named():
    """Each may be every point's own, but for those listed; a rule's weight always may."""
    for key, cls in JOINED.items():
        numbers = {name for name, declared in cls.declared().items() if isinstance(declared, param.Number)}
        whole = {name for name in numbers if isinstance(cls.declared()[name], param.Integer | param.Boolean)}
        assert numbers - whole - set(cls.per_trajectory()) == ONE_FOR_ALL.get(key, set()), key
        assert set(cls.per_trajectory()) <= numbers, key
        weight = weight_of(cls)
        assert weight is None or weight in cls.per_trajectory(), key
    assert set(JOINED) >= {
        "none",
        "cfg",
        "autoguidance",
        "cfg+autoguidance",
        "score-scaling",
        "sfg",
        "sfg+autoguidance",
    }


@pytest.mark.parametrize("key", [k for k in JOINED if k != "none"])
def test_trained_networks_in_float32(key, torch_device):
    """Weights and seeds side by side differ from one by one no more than starts moved by their last digit do.

    A column is rounded to float32 before ``w - 1`` is taken and a number after it; on a GPU, how sums are grouped
    depends on how many points there are, in each of 63 evaluations. Few points (SFG's at the edge of a saddle) carry
    that far on, hence the quantile, and ten times as much for the worst.
    """
    cls, device = rules()[key], torch_device.type
    name = cls.per_trajectory()[0]
    low, high = cls.declared()[name].get_soft_bounds()
    chosen = method(cls())
    runs = [
        tg.Experiment(label="A", rule=key, params={name: low + share * (high - low)}, sampler=chosen, n=64, seed=seed)
        for share in (0.1371, 0.3777)
        for seed in (0, 1)
    ]
    assert batches(runs) == [runs]
    *_, last = walk_batch(runs, device)
    alone = [run.run(device).x[-1] for run in runs]
    moved = []
    for run in runs:
        x = run.start()
        x = torch.nextafter(x, torch.full_like(x, torch.inf)).to(torch_device)
        *_, end = trajectory(
            run.build_rule(), run.scene(device), sampler(chosen), x, run.levels(), run.generator(), run.n
        )
        moved.append(end.x)

    def apart(ends: list[Tensor]) -> Tensor:
        distance = (torch.cat(ends).cpu() - torch.cat(alone)).norm(dim=-1)
        assert distance.isfinite().double().mean() > 0.8, "few run away, which says nothing of a batch"
        return distance.nan_to_num(0.0, 0.0)

    joined, sensitive = apart(list(last.x.chunk(4))), apart(moved)
    factor = 1 if device == "cpu" else 20
    assert joined.quantile(0.9) <= factor * sensitive.quantile(0.9)
    assert joined.max() <= 10 * factor * sensitive.max()


@pytest.mark.parametrize("key", SAMPLERS)
def test_each_run_has_its_own_start_and_noise(key):
    """Seeds and weights side by side on exact fields: points, first directions and a sampler's noise are each run's."""
    runs = [
        tg.Experiment(dataset="two-gaussians", label="left", main="exact", rule="sfg", params={"w": w}, sampler=key,
                      n=32, steps=6, seed=seed)
        for w in (0.0, 2.0) for seed in (0, 3)
    ]  # fmt: skip
    joined = list(walk_batch(runs))
    for part, run in enumerate(runs):
        single = run.run("cpu")
        own = slice(part * 32, (part + 1) * 32)
        assert torch.equal(joined[0].x[own], single.x[0])
        assert torch.equal(joined[1].trace["v"][own], single.trace["v"][0])
        torch.testing.assert_close(joined[-1].x[own], single.x[-1], rtol=0, atol=1e-5)  # 1e-7 a step, carried on
        assert joined[-1].nfe == single.nfe


class Counted(Field):
    """A field that counts its evaluations."""

    def __init__(self, field: Field) -> None:
        self.field, self.dim, self.calls = field, field.dim, 0

    def log_density(self, x, sigma):
        return self.field.log_density(x, sigma)

    def hessian(self, x, sigma):
        return self.field.hessian(x, sigma)

    def score(self, x, sigma):
        self.calls += 1
        return self.field.score(x, sigma)


def test_fields_are_evaluated_once_for_all(fields):
    counted = {role: Counted(fields[role]) for role in ("main", "uncond", "weak")}
    x = torch.randn(4 * N, 2, generator=seeded(1), dtype=W)
    joint = Batched([tg.rule("cfg", w=w) for w in (0.0, 1.0, 2.0, 3.0)], [seeded()] * 4, x)
    (*_, last) = trajectory(joint, counted, sampler("heun"), x, LEVELS, seeded())
    assert {role: field.calls for role, field in counted.items()} == {"main": 9, "uncond": 9, "weak": 0}
    assert last.nfe == 18


# What a rule's author may write. Without a key they are in nobody's list.


class Ramped(rules()["cfg"]):
    """Halves the weight's excess through super() and a property; keeps a constant and a static method."""

    key = ""
    half = 0.5

    @property
    def excess(self):
        return self.half * self.without_one(self.w)

    @staticmethod
    def without_one(w):
        return w - 1

    def guide(self, at, memory):
        main, full = at.denoised("main"), super().guide(at, memory).denoised
        by_hand = main + 2 * self.excess * (main - at.denoised("uncond"))
        torch.testing.assert_close(full, by_hand, rtol=0, atol=1e-12)
        return Guided(main + (full - main) / 2)


def test_a_rules_methods_see_columns_wherever_they_look(fields):
    x = torch.randn(N, 2, generator=seeded(2), dtype=W)
    joint = Batched([Ramped(w=3.0), Ramped(w=5.0)], [seeded()] * 2, x.repeat(2, 1))
    (*_, last) = trajectory(joint, fields, sampler("heun"), x.repeat(2, 1), LEVELS, seeded())
    for end, w in zip(last.x.chunk(2), (2.0, 3.0), strict=True):
        torch.testing.assert_close(end, alone(tg.rule("cfg", w=w), fields, x, 0)[-1].x, rtol=0, atol=1e-11)


@dataclasses.dataclass(frozen=True)
class Momentum:
    gap: Tensor
    nothing: None = None


class Remembering(Rule):
    """Its memory is a dataclass, or what it is told to be."""

    beta = PerTrajectory(0.5, bounds=(0.0, 1.0), doc="How much of the last push is kept.")
    batchable = True
    memory = staticmethod(lambda x: Momentum(torch.zeros_like(x)))

    def begin(self, at, generator):
        return at.x, self.memory(at.x)

    def guide(self, at, memory):
        gap = self.beta * memory.gap + at.denoised() - at.x
        return Guided(at.x + gap, memory=Momentum(gap))


def test_memory_is_joined(fields):
    x = torch.randn(N, 2, generator=seeded(2), dtype=W)
    singles = [Remembering(beta=0.1), Remembering(beta=0.4)]
    (*_, last) = trajectory(
        Batched(singles, [seeded()] * 2, x.repeat(2, 1)), fields, sampler("heun"), x.repeat(2, 1), LEVELS, seeded()
    )
    for end, rule in zip(last.x.chunk(2), singles, strict=True):
        torch.testing.assert_close(end, alone(rule, fields, x, 0)[-1].x, rtol=1e-11, atol=1e-11)


def test_memory_that_nobody_knows_to_join_is_refused(monkeypatch):
    monkeypatch.setattr(Remembering, "memory", staticmethod(lambda x: len(x)))
    x = torch.zeros(2 * N, 2)
    with pytest.raises(InputError, match="memory of type int: expected tensors, or None, in tuples or dataclasses"):
        Batched([Remembering(), Remembering(beta=0.1)], [seeded()] * 2, x).begin(Evaluation({}, x, 1.0), seeded())
