"""The inputs and outputs of a guidance rule: fields evaluated at points, the guided denoiser, a finished step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from toyguide.datasets.classifiers import Classifier, ExactClassifier
from toyguide.datasets.dataset import Dataset
from toyguide.datasets.references import at_label
from toyguide.errors import InputError
from toyguide.fields.base import Field, eps_from_denoised, score_from_denoised, velocity_from_denoised
from toyguide.fields.joint import denoise_together

__all__ = ["Arrival", "Cost", "Evaluation", "Fields", "Guided", "Scene", "Transition", "kept"]

Fields = Mapping[str, Field | Classifier]
"""Fields and classifiers by role."""


class _Unchanged(Enum):
    MEMORY = "the memory as it was"


UNCHANGED = _Unchanged.MEMORY
"""The default memory of a :class:`Guided` or an :class:`Arrival`: the memory is unchanged."""


@dataclass(frozen=True)
class Scene:
    """The part of a run's state that is constant.

    Attributes:
        fields: The fields and classifiers by role.
        levels: The noise levels, falling, the last one 0.
        data: The dataset, if the run has one.
        label: The class that is sampled; None for the union.
    """

    fields: Fields
    levels: tuple[float, ...]
    data: Dataset | None = None
    label: str | None = None

    def field(self, role: str) -> Field:
        """The field in a role.

        Raises:
            InputError: If there is none, or a classifier in its place.
        """
        found = self.fields.get(role)
        if found is None:
            given = ", ".join(self.fields) or "no field"
            raise InputError(f"field {role!r}: the rule was given {given}, expected all that it evaluates in its needs")
        if isinstance(found, Classifier):
            raise InputError(f"field {role!r}: is a classifier, expected a field")
        return found


class Cost:
    """The evaluations made so far, counted for all points at once or for some of them.

    Attributes:
        evaluations: Evaluations of denoisers, densities and classifiers, made at every point.
        gradients: Products with a Jacobian, and gradients of classifiers, made at every point.
    """

    def __init__(self) -> None:
        self.evaluations = 0
        self.gradients = 0
        self._own: Tensor | None = None

    def add(self, evaluations: int, rows: Tensor | None = None) -> None:
        """Count evaluations at every point, or only where ``rows``, a mask of shape ``(n,)``, is true."""
        if rows is None:
            self.evaluations += evaluations
        else:
            self._own = evaluations * rows.long() + (0 if self._own is None else self._own)

    def per_trajectory(self, n: int) -> Tensor:
        """The evaluations made for each point, with shape ``(n,)``, int64, on the CPU."""
        total = torch.full((n,), self.evaluations, dtype=torch.int64, device="cpu")
        return total if self._own is None else total + self._own.cpu()

    def copy(self, rows: slice = slice(None)) -> Cost:
        """A snapshot of the counts, of all points or of some."""
        found = Cost()
        found.evaluations, found.gradients = self.evaluations, self.gradients
        found._own = None if self._own is None else self._own[rows]
        return found

    @property
    def mean(self) -> float:
        """Evaluations of a point, on average."""
        return self.evaluations + (0.0 if self._own is None else float(self._own.double().mean()))


class Evaluation:
    """The fields at one noise level, each evaluated at the points on first use, and counted.

    Attributes:
        x: The points, with shape ``(n, d)``.
        sigma: Their noise level, positive.
        index: The solver step that this belongs to, from 0.
        cost: What was evaluated so far in the run.
    """

    def __init__(
        self,
        scene: Scene | Fields,
        x: Tensor,
        sigma: float,
        index: int = 0,
        cost: Cost | None = None,
    ) -> None:
        self._scene = scene if isinstance(scene, Scene) else Scene(scene, (sigma, 0.0))
        self.x, self.sigma, self.index = x, sigma, index
        self.cost = Cost() if cost is None else cost
        self._denoised: dict[str, Tensor] = {}

    # Where this is.

    @property
    def levels(self) -> tuple[float, ...]:
        """The run's noise levels, falling, the last one 0."""
        return self._scene.levels

    @property
    def step_sigma(self) -> float:
        """The level that the solver step starts from; use it, not ``sigma``, for choices made once per step."""
        return self.levels[self.index]

    @property
    def is_first(self) -> bool:
        """Whether this is the first evaluation of its solver step, whose memory the rest of the step uses. A rule that
        needs a value of the previous step keeps two in its memory, and reads the older one in the later evaluations."""
        return self.sigma == self.step_sigma

    @property
    def next_sigma(self) -> float:
        """The level that the solver step leads to; 0 in the last one."""
        return self.levels[min(self.index + 1, len(self.levels) - 1)]

    @property
    def label(self) -> str | None:
        """The class that is sampled; None for the union."""
        return self._scene.label

    @property
    def data(self) -> Dataset | None:
        """The dataset; None in a run of fields without one."""
        return self._scene.data

    @property
    def labels(self) -> tuple[str, ...]:
        """All classes of the dataset.

        Raises:
            InputError: If the run has no dataset.
        """
        return self._data("labels").labels

    @property
    def other_labels(self) -> tuple[str, ...]:
        """The classes that are not sampled."""
        return tuple(name for name in self.labels if name != self.label)

    def data_mean(self, label: str | None) -> Tensor:
        """The exact mean of a class's data, or of all data for None, with shape ``(d,)``.

        Raises:
            InputError: If the run has no dataset.
        """
        return self._data("the mean of a class").field(label).mean.to(self.x)

    # Denoisers, each kept until the points change.

    def denoised(self, role: str = "main", *, where: Tensor | None = None) -> Tensor:
        """The denoised points of the field in a role, with shape ``(n, d)``.

        Args:
            role: The role.
            where: The points to evaluate, a boolean mask with shape ``(n,)``; elsewhere the result is NaN. Only these
                are evaluated and counted, again on each call.
        """
        if where is not None and role not in self._denoised:
            return self._denoised_where(self.field(role), where)
        if role not in self._denoised:
            self._denoised[role] = self.denoised_at(self.x, self.sigma, role)
        return self._denoised[role]

    def denoised_each(self, *roles: str) -> list[Tensor]:
        """The denoised points of several fields; those that can share work are evaluated in one pass."""
        missing = [role for role in dict.fromkeys(roles) if role not in self._denoised]
        fields = [self.field(role) for role in missing]
        self.cost.add(sum(f.evaluations for f in fields))
        found = denoise_together(fields, self.x, self.sigma)
        self._denoised |= zip(missing, found, strict=True)
        return [self._denoised[role] for role in roles]

    def denoised_at(self, x: Tensor, sigma: float, role: str = "main") -> Tensor:
        """The denoised points of a field at other points, with shape ``(m, d)``, or at another level."""
        return self.denoised_of(self.field(role), x, sigma)

    def denoised_of(self, field: Field, x: Tensor | None = None, sigma: float | None = None) -> Tensor:
        """The denoised points of any field, such as one derived from a role's, by default at these points."""
        self.cost.add(field.evaluations)
        return field.denoise(self.x if x is None else x, self.sigma if sigma is None else sigma)

    def denoised_as(self, label: str | None, role: str = "main", *, where: Tensor | None = None) -> Tensor:
        """The denoised points of a role's field at another class, or at the union for None.

        Args:
            label: The class.
            role: The role.
            where: The points to evaluate, as in :meth:`denoised`.

        Raises:
            InputError: If the field models one class only.
        """
        field = at_label(self.field(role), self._scene.data, label)
        return self.denoised_of(field) if where is None else self._denoised_where(field, where)

    def score(self, role: str = "main") -> Tensor:
        """The score of the field in a role, with shape ``(n, d)``."""
        return score_from_denoised(self.denoised(role), self.x, self.sigma)

    def eps(self, role: str = "main") -> Tensor:
        """The noise that the field in a role predicts, with shape ``(n, d)``."""
        return eps_from_denoised(self.denoised(role), self.x, self.sigma)

    def velocity(self, role: str = "main") -> Tensor:
        """The flow-matching velocity of the field in a role, with shape ``(n, d)``."""
        return velocity_from_denoised(self.denoised(role), self.x, self.sigma)

    # Densities and derivatives.

    def log_density(self, role: str = "main") -> Tensor:
        """The log-density of the field in a role, with shape ``(n,)``; unnormalised for a network."""
        field = self.field(role)
        self.cost.add(field.evaluations)
        return field.log_density(self.x, self.sigma)

    def hessian(self, role: str = "main") -> Tensor:
        """The Hessian of the log-density, with shape ``(n, d, d)``; counted as d gradients."""
        field = self.field(role)
        self.cost.gradients += field.dim * field.evaluations
        return field.hessian(self.x, self.sigma)

    def jvp(self, v: Tensor, role: str = "main") -> Tensor:
        """The product of the denoiser's Jacobian with vectors: ``dD/dx v``, each with shape ``(n, d)``."""
        field = self.field(role)
        self.cost.gradients += field.evaluations
        return v + self.sigma**2 * field.jvp(self.x, self.sigma, v)

    def vjp(self, v: Tensor, role: str = "main") -> Tensor:
        """The gradient of ``v . D(x)`` with respect to x, with shape ``(n, d)``: a loss of D pulled back to x.

        Equal to :meth:`jvp`, because the Jacobian of a score that is a gradient is symmetric.
        """
        return self.jvp(v, role)

    # Classes.

    def classes(self, role: str = "classifier") -> tuple[str, ...]:
        """The classes that a classifier tells apart, in the order of its probabilities."""
        return self._classifier(role).labels

    def posterior(self, role: str = "classifier") -> Tensor:
        """The probability of each class, in the order of :meth:`classes`, with shape ``(n, labels)``.

        By the classifier in a role if the rule has one, else by the dataset's exact fields.
        """
        self.cost.add(1)
        return self._classifier(role).log_posterior(self.x, self.sigma).exp()

    def logits(self, role: str = "classifier") -> Tensor:
        """The classifier's logits, whose softmax is :meth:`posterior`, with shape ``(n, labels)``."""
        self.cost.add(1)
        return self._classifier(role).logits(self.x, self.sigma)

    def logits_vjp(self, v: Tensor, role: str = "classifier") -> Tensor:
        """The gradient of ``v . logits(x)`` with respect to x, with shape ``(n, d)``; v has shape ``(n, labels)``."""
        self.cost.gradients += 1
        return self._classifier(role).logits_vjp(self.x, self.sigma, v)

    def posterior_gradient(self, label: str | None, role: str = "classifier") -> Tensor:
        """``grad_x log p(label | x; sigma)``, with shape ``(n, d)``; counted as a gradient.

        Raises:
            InputError: If the label is not a class, as that of a run of the union.
        """
        if label is None:
            raise InputError("label: this rule climbs the probability of a class, expected a run of one class")
        self.cost.gradients += 1
        return self._classifier(role).gradient(self.x, self.sigma, label)

    def field(self, role: str = "main") -> Field:
        """The field itself, for a rule that derives another field from it. Its evaluations are not counted; evaluate
        the derived field with :meth:`denoised_of`, which counts them.

        Raises:
            InputError: If there is none, or a classifier in its place.
        """
        return self._scene.field(role)

    def moved(self, x: Tensor, sigma: float | None = None, index: int | None = None) -> Evaluation:
        """The same fields at other points, by default at this level and step; evaluations count for the same run."""
        level, step = self.sigma if sigma is None else sigma, self.index if index is None else index
        return Evaluation(self._scene, x, level, step, self.cost)

    def has(self, role: str) -> bool:
        """Whether the denoised points of a role are computed already."""
        return role in self._denoised

    def _denoised_where(self, field: Field, where: Tensor) -> Tensor:
        rows = where.nonzero()[:, 0]
        self.cost.add(field.evaluations, where)
        out = torch.full_like(self.x, torch.nan)
        out[rows] = field.denoise(self.x[rows], self.sigma)
        return out

    def _classifier(self, role: str) -> Classifier:
        found = self._scene.fields.get(role)
        return found if isinstance(found, Classifier) else ExactClassifier.of(self._data("posterior"))

    def _data(self, wanted: str) -> Dataset:
        if self._scene.data is None:
            raise InputError(f"{wanted}: this run has no dataset, expected one with classes")
        return self._scene.data


@dataclass(frozen=True)
class Guided:
    """The result of a rule's ``guide``.

    Attributes:
        denoised: The guided denoiser, with shape ``(n, d)``.
        renoise: The denoiser whose noise a step adds back, if it is not ``denoised`` (CFG++).
        memory: The rule's new memory; by default unchanged.
        trace: Quantities for display, each with shape ``(n,)`` or ``(n, d)``.
    """

    denoised: Tensor
    renoise: Tensor | None = None
    memory: Any = UNCHANGED
    trace: Mapping[str, Tensor] = field(default_factory=dict)

    def slope(self, x: Tensor, sigma: float, sigma_next: float) -> Tensor:
        """The slope ``dx/dsigma`` of a step from ``sigma`` to ``sigma_next``, with shape ``(n, d)``.

        A step lands on ``D + (sigma'/sigma)(x - R)`` with the denoiser D and the renoiser R; with R = D this is the
        probability-flow slope ``(x - D)/sigma``, whatever the next level.
        """
        if self.renoise is None:
            return eps_from_denoised(self.denoised, x, sigma)
        landing = self.denoised + (sigma_next / sigma) * (x - self.renoise)
        return (landing - x) / (sigma_next - sigma)


@dataclass(frozen=True)
class Transition:
    """One finished solver step, for rules that choose among its outcomes.

    Attributes:
        x: The points before the step, with shape ``(n, d)``.
        sigma: The level before the step.
        x_next: The points after it.
        sigma_next: The level after it; 0 at the last step.
        guided: What the rule returned at the step's first evaluation.
        draw: Makes the step again with fresh noise (the same points with a deterministic sampler).
        evaluate: The fields at points of the level after the step, ``x_next`` or others. At the level 0 only exact
            fields have values.
        noise: Draws standard normal numbers for these points, with shape ``(n, d)``, from the sampler's stream: for all
            points of the run at once, so that the first ones of a run always get the same.
    """

    x: Tensor
    sigma: float
    x_next: Tensor
    sigma_next: float
    guided: Guided
    draw: Callable[[], Tensor]
    evaluate: Callable[[Tensor], Evaluation]
    noise: Callable[[], Tensor]


@dataclass(frozen=True)
class Arrival:
    """The points that a step ends on.

    Attributes:
        x: The points, with shape ``(n, d)``.
        memory: The rule's new memory; by default unchanged.
        ancestors: Where points were resampled, ``ancestors[i]`` is the index, before the resampling, of the point that
            is now ``x[i]``; with shape ``(n,)``, int64. None where nothing was resampled.
    """

    x: Tensor
    memory: Any = UNCHANGED
    ancestors: Tensor | None = None


def kept(given: Any, before: Any) -> Any:
    """The memory that a rule returned, or the previous one if it returned none."""
    return before if given is UNCHANGED else given
