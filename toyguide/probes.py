"""Probes along a run: what each term of a rule is, and how a rule compares with CFG, at the beginning of every step.

Any rule's guided denoiser can be written with CFG's gap ``g = D_main - D_uncond``:

    D_guided = D_uncond + a g + e,   a = <D_guided - D_uncond, g> / <g, g>,   e orthogonal to g

The effective scale a is CFG's own w, exactly, for CFG; the residual e is what no weight of CFG can do. Both are of each
point and each step (2602.22570, read in a secondary source).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from toyguide.datasets.references import natural_reference, resolve_field
from toyguide.datasets.roles import ROLES
from toyguide.errors import InputError
from toyguide.experiment import Experiment
from toyguide.fields import Field
from toyguide.geometry.curvature import curl as curl_of
from toyguide.guidance.probe import guided_jacobian

__all__ = ["Probes", "effective_scale", "probe", "significant", "unconditional"]

_ROUNDING = 1e-4  # of float32 runs: a smaller gap, relative to the denoised point, has no direction to compare with
SETTLE = 32  # updates of a memory before the curl, so that SFG's direction is the eigenvector at the point


@dataclass(frozen=True, eq=False)
class Probes:
    """What was measured at the beginning of every step; lengths are of denoised points.

    Attributes:
        experiment: The run.
        sigma: The level that each step starts from, with shape ``(steps,)``.
        terms: The length of ``D_main - D_role`` for each other field of the rule, each with shape ``(steps, n)``.
        cosines: The cosine of the push to each term, like ``terms``; NaN where one of them vanishes.
        push: The length of what the rule added to main's denoised point, with shape ``(steps, n)``.
        scale: CFG's weight that is nearest to the rule, with shape ``(steps, n)``; NaN without a class, and where the
            gap is of the size of rounding errors.
        residual: The length of what no weight of CFG does, with shape ``(steps, n)``; NaN like ``scale``.
        posterior: The exact probability of the sampled class, with shape ``(steps, n)``; 1 for the union.
        curl: sigma^2 times the curl of the guided score, with shape ``(steps, n)``; None if it was not asked for.
        nfe: Field evaluations up to each step's end, the mean over the points, with shape ``(steps,)``.
    """

    experiment: Experiment
    sigma: Tensor
    terms: Mapping[str, Tensor]
    cosines: Mapping[str, Tensor]
    push: Tensor
    scale: Tensor
    residual: Tensor
    posterior: Tensor
    curl: Tensor | None
    nfe: Tensor

    def rows(self) -> list[dict[str, float]]:
        """One row for each step: means over the points, root mean squares of lengths and of the curl."""
        lengths = {"push": self.push, "residual": self.residual, **{f"term.{k}": v for k, v in self.terms.items()}}
        lengths |= {} if self.curl is None else {"curl": self.curl}
        means = {"scale": self.scale, "posterior": self.posterior}
        means |= {f"cosine.{k}": v for k, v in self.cosines.items()}
        columns = {"sigma": self.sigma, "nfe": self.nfe}
        columns |= {k: v.square().nanmean(-1).sqrt() for k, v in lengths.items()}
        columns |= {k: v.nanmean(-1) for k, v in means.items()}
        each = zip(*(column.tolist() for column in columns.values()), strict=True)
        return [{"step": i, **dict(zip(columns, values, strict=True))} for i, values in enumerate(each)]


def effective_scale(push: Tensor, gap: Tensor) -> tuple[Tensor, Tensor]:
    """The weight of CFG that is nearest to a push, and what is left.

    Args:
        push: The guided minus main's denoised points, with shape ``(..., d)``.
        gap: Main's minus the unconditional denoised points, with shape ``(..., d)``.

    Returns:
        The scale, with shape ``(...)``, NaN where the gap vanishes; and the residual, orthogonal to the gap, with shape
        ``(..., d)``.
    """
    square = gap.square().sum(-1)
    excess = (push * gap).sum(-1) / square.where(square > 0, math.nan)
    return 1 + excess, push - excess.nan_to_num(0.0)[..., None] * gap


@torch.no_grad()
def probe(experiment: Experiment, device: str = "cpu", first: int | None = None, *, curl: bool = False) -> Probes:
    """Run an experiment, and measure what its rule does at the beginning of every step.

    Args:
        experiment: The run. Where its rule has no unconditional field, the natural partner of main takes its place.
        device: ``auto``, ``cpu`` or ``cuda``.
        first: Only the first so many trajectories; as in :meth:`Experiment.walk`.
        curl: Measure the curl too, which takes ``2 d`` evaluations of the rule at each point. A memory is settled there
            first, so it is the curl of the rule at that point, not of the run's own memory.

    Raises:
        InputError: If the curl is asked for of a rule whose points affect each other, which has no field.
    """
    rule = experiment.build_rule()
    if curl and rule.interacts:
        raise InputError(f"curl: the points of {experiment.rule!r} affect each other, so it has no field")
    scene = experiment.scene(device)
    fields = {role: field for role, field in scene.fields.items() if isinstance(field, Field)}
    main, uncond = fields["main"], fields.get("uncond") or unconditional(experiment)
    found: dict[str, list[Tensor]] = {}

    def put(name: str, value: Tensor) -> None:
        found.setdefault(name, []).append(value.double().cpu())

    steps = experiment.walk(device, scene.fields, first)
    levels = [next(steps).sigma]
    for step in steps:
        x, sigma = step.guided_at, levels[-1]
        assert x is not None, "every step but the first state is guided somewhere"
        levels.append(step.sigma)
        denoised = main.denoise(x, sigma)
        push = torch.zeros_like(x) if step.push is None else step.push
        put("push", push.norm(dim=-1))
        for role in fields.keys() - {"main"}:
            term = denoised - fields[role].denoise(x, sigma)
            put(f"term.{role}", term.norm(dim=-1))
            put(f"cosine.{role}", _cosine(push, term))
        gap = torch.zeros_like(x) if uncond is None else denoised - uncond.denoise(x, sigma)
        scale, residual = effective_scale(push, significant(gap, denoised, sigma))
        put("scale", scale)
        put("residual", residual.norm(dim=-1).where(scale.isfinite(), math.nan))
        put("posterior", _posterior(experiment, x, sigma))
        put("nfe", torch.tensor(step.nfe))
        if curl:
            jacobian = guided_jacobian(rule, scene, x, sigma, experiment.seed, settle=SETTLE)
            put("curl", sigma**2 * curl_of(jacobian))
    stacked = {name: torch.stack(values) for name, values in found.items()}
    others = [role for role in fields if role != "main"]
    return Probes(
        experiment=experiment,
        sigma=torch.tensor(levels[:-1], dtype=torch.float64),
        terms={role: stacked[f"term.{role}"] for role in others},
        cosines={role: stacked[f"cosine.{role}"] for role in others},
        push=stacked["push"],
        scale=stacked["scale"],
        residual=stacked["residual"],
        posterior=stacked["posterior"],
        curl=stacked.get("curl"),
        nfe=stacked["nfe"],
    )


def significant(gap: Tensor, denoised: Tensor, sigma: float | Tensor) -> Tensor:
    """A gap of denoised points, zero where it is of the size of a float32 run's rounding errors; with its shape."""
    least = _ROUNDING * (denoised.norm(dim=-1) + sigma)
    return gap.where((gap.norm(dim=-1) > least)[..., None], 0.0)


def unconditional(experiment: Experiment) -> Field | None:
    """The natural unconditional partner of an experiment's main field; None for a run of the union."""
    if experiment.label is None:
        return None
    main = experiment.main if isinstance(experiment.main, str) else "exact"
    reference = natural_reference(ROLES["uncond"], main, experiment.data, experiment.label)
    return resolve_field(reference, experiment.data, experiment.label, ROLES["uncond"])


def _posterior(experiment: Experiment, x: Tensor, sigma: float) -> Tensor:
    data, label = experiment.data, experiment.label
    if label is None:
        return torch.ones(len(x))
    return data.posterior(x, sigma)[:, data.labels.index(label)]


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    defined = a.any(-1) & b.any(-1)
    return cosine_similarity(a.double(), b.double(), dim=-1, eps=1e-300).where(defined, math.nan)
