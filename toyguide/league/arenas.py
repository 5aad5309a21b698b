"""Where rules are compared: a dataset, a class of it or all, and networks that each seed trains for itself.

On the simplex and on the two Gaussians one label-conditional network is the field of every class and of their union.
On the fractal each has a network of its own, as in the autoguidance paper. A role that no network fills, such as a
classifier, gets the exact one, which the results say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import param

from toyguide.datasets import load_dataset
from toyguide.datasets.checkpoints import UNION
from toyguide.datasets.roles import Role
from toyguide.errors import InputError
from toyguide.experiment import Experiment
from toyguide.guidance import Rule, rules
from toyguide.studies.claims.shared import fractal_networks
from toyguide.studies.plan import Plan
from toyguide.studies.workshop import trained
from toyguide.training import TrainSettings

__all__ = ["ARENAS", "EVALUATIONS", "STEPS", "Arena", "Entrant", "entrants", "sampler_of", "samples"]

STEPS = 32
EVALUATIONS = 2 * (2 * STEPS - 1)
"""Of CFG with as many Heun steps: what runs with equal evaluations have."""
_FIT = {"sampled", "network", "weaker"}
_OF_CLASSES = {"union", "class", "classes", "classifier"}
_BATCH = 1024
_STRANGE = {"sampled": "exact+noise:0.05", "union": f"exact@{UNION}+noise:0.05", "weaker": "exact+noise:0.3"}
"""Fields that no rule was made for, by kind of role: those of a seed are new to it too."""


@dataclass(frozen=True)
class Arena:
    """A place to compare rules in.

    Attributes:
        dataset: A bundled dataset.
        label: The class that is sampled; None for all.
    """

    dataset: str
    label: str | None

    @property
    def name(self) -> str:
        """Its name in files: ``fractal-A``."""
        return self.dataset if self.label is None else f"{self.dataset}-{self.label}"

    @property
    def title(self) -> str:
        """Its name for people."""
        data = load_dataset(self.dataset)
        return f"{data.title}, all classes" if self.label is None else f"{data.title}, class {self.label}"

    @property
    def branched(self) -> bool:
        """Whether what is sampled has several branches, so that coverage says something."""
        data = load_dataset(self.dataset)
        return len(data.components.component_branch[data.mask(self.label)].unique()) > 1

    @property
    def aim(self) -> str:
        """What settings are chosen for: few outliers, or the distance where there is no coverage to pay with."""
        return "outliers" if self.branched else "distance"

    def networks(self, plan: Plan, seed: int) -> dict[str, TrainSettings]:
        """The networks of a seed, by kind of role."""
        if self.dataset == "fractal":
            main, weak, union = fractal_networks.networks(plan, seed)
            return {"sampled": main, "weaker": weak, "union": union, "class": replace(union, label=self.other)}
        width, iterations = {"two-gaussians": (32, 1024), "simplex16": (64, 2048)}[self.dataset]
        own = TrainSettings(
            self.dataset, conditional=True, width=width, iterations=plan.pick(iterations, 512), batch=_BATCH, seed=seed
        )
        return {"sampled": own, "weaker": replace(own, width=width // 2, iterations=256)}

    @property
    def other(self) -> str:
        """Another class than the one that is sampled: the dataset's first."""
        return next(name for name in load_dataset(self.dataset).labels if name != self.label)

    def reference(self, role: Role, plan: Plan, seed: int) -> str:
        """The field in a role."""
        networks = self.networks(plan, seed)
        main = trained(networks["sampled"])
        if role.kind == "classifier":
            return "posterior"
        if role.kind == "classes":
            return main if networks["sampled"].conditional else "exact"
        if role.kind in networks:
            return trained(networks[role.kind])
        return f"{main}@{ {'union': UNION, 'class': self.other}[role.kind] }" if role.kind in _OF_CLASSES else main

    def why_not(self, cls: type[Rule]) -> str:
        """Why a rule does not run here; empty if it does."""
        if any(isinstance(declared, param.String) for declared in cls.declared().values()):
            return "is whatever is typed"
        for role in cls().evaluates().values():
            if role.kind in _OF_CLASSES and self.label is None:
                return f"guides to a class ({role.name}: {role.doc}); here all classes are sampled"
            if role.kind == "exact":
                return "needs exact fields; here they are trained"
            if role.kind not in _FIT | _OF_CLASSES:
                return f"needs a network that is not trained here ({role.name}: {role.doc})"
        if "y0" in cls.declared():
            return "follows a reward or an observation, which is not what is measured here"
        return ""


ARENAS = (
    Arena("fractal", "A"),
    Arena("two-gaussians", "left"),
    Arena("two-gaussians", None),
    Arena("simplex16", "v1"),
    Arena("simplex16", None),
)


@dataclass(frozen=True)
class Entrant:
    """A rule in an arena.

    Attributes:
        arena: The arena.
        rule: The rule's name.
        sampler: Heun, unless the rule needs another one.
        steps: Solver steps.
        evaluations: Evaluations of fields and gradients in a run of ``STEPS`` steps with the rule's defaults.
    """

    arena: Arena
    rule: str
    sampler: str
    steps: int
    evaluations: float

    @property
    def cls(self) -> type[Rule]:
        """The rule's class."""
        return rules()[self.rule]

    @property
    def equal_steps(self) -> int:
        """As many steps as make about ``EVALUATIONS``."""
        return max(2, round(STEPS * EVALUATIONS / self.evaluations))

    @property
    def exact_roles(self) -> tuple[str, ...]:
        """The roles that an exact field fills."""
        found = ((name, self.arena.reference(role, Plan(), 0)) for name, role in self.cls().evaluates().items())
        return tuple(name for name, reference in found if reference in ("posterior", "exact"))

    def needs(self, plan: Plan, seed: int) -> tuple[TrainSettings, ...]:
        """The networks of a seed that it uses."""
        networks = self.arena.networks(plan, seed)
        kinds = {"sampled", *(role.kind for role in self.cls().evaluates().values())}
        return tuple(settings for kind, settings in networks.items() if kind in kinds)

    def experiment(self, params: Mapping[str, Any], steps: int, plan: Plan, seed: int) -> Experiment:
        """A run with the networks of a seed, which is the run's seed too."""
        roles = {**self.cls.roles(), "main": Role("main", "sampled", "")}
        return Experiment(
            self.arena.dataset,
            self.arena.label,
            rule=self.rule,
            params=params,
            sampler=self.sampler,
            steps=steps,
            n=samples(plan),
            seed=seed,
            fields={name: self.arena.reference(role, plan, seed) for name, role in roles.items()},
        )


def entrants(
    arenas: Iterable[Arena], keys: Iterable[str], equal_evaluations: bool = False
) -> tuple[list[Entrant], dict[tuple[str, str], str]]:
    """The rules that run in arenas, and why others do not.

    Args:
        arenas: The arenas.
        keys: The rules' names.
        equal_evaluations: Adapt the steps so that all have about ``EVALUATIONS``.

    Returns:
        The entrants; and the reason by arena and rule for each that does not run.
    """
    found, absent, keys = [], {}, list(keys)
    for arena in arenas:
        for key in keys:
            reason = arena.why_not(rules()[key])
            if not reason:
                try:
                    sampler, evaluations = _probed(arena, rules()[key])
                except InputError as problem:
                    reason = str(problem)
            if reason:
                absent[arena.name, key] = reason
                continue
            one = Entrant(arena, key, sampler, STEPS, evaluations)
            found.append(replace(one, steps=one.equal_steps) if equal_evaluations else one)
    return found, absent


def samples(plan: Plan) -> int:
    """How many samples a run has."""
    return int(plan.pick(1024, 512))


def sampler_of(cls: type[Rule]) -> str:
    """Heun, unless a rule needs first order or noise."""
    return "ancestral" if cls.needs_noise else "euler" if cls.first_order else "heun"


@lru_cache(maxsize=1024)
def _probed(arena: Arena, cls: type[Rule]) -> tuple[str, float]:
    """The sampler of a rule, and its evaluations, by a short run of its natural fields.

    Raises:
        InputError: If it does not run there, or on no other fields than the bundled ones.
    """
    sampler = sampler_of(cls)
    run = Experiment(arena.dataset, arena.label, rule=cls.key, sampler=sampler, steps=STEPS, n=16)
    strange = {role: _STRANGE[kind.kind] for role, kind in run.roles().items() if kind.kind in _STRANGE}
    replace(run, n=4, steps=4, fields={**run.fields, **strange}).run("cpu")
    found = run.run("cpu")
    return sampler, found.nfe + found.gradients
