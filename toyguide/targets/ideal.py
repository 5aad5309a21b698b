"""The exact field of a target at every noise level, for rules whose fields are known exactly."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from toyguide.errors import InputError
from toyguide.fields.base import Field
from toyguide.fields.mixtures import GaussianMixture
from toyguide.targets.algebra import as_mixture
from toyguide.targets.grid import GridField
from toyguide.targets.product import Product
from toyguide.targets.target import Target

__all__ = ["exact_fields", "ideal_field"]


def ideal_field(target: Target, fields: Mapping[str, object]) -> GaussianMixture | GridField:
    """What a perfect denoiser of the target would be: ``q(x; sigma)``, the target diffused.

    By the mixtures' own algebra where the target is a mixture, in any number of dimensions; else on a lattice in two.
    Kept for the same target and fields.

    Args:
        target: The target.
        fields: The fields by role; only those whose density counts are looked at.

    Raises:
        InputError: If a field is no mixture, or the target cannot be normalised or is no mixture in more than two
            dimensions.
    """
    merged, exact = _merged(target, exact_fields(target, fields))
    return _made(merged, tuple(exact.items()))


def exact_fields(target: Target, fields: Mapping[str, object]) -> dict[str, GaussianMixture]:
    """The fields whose density counts, by role.

    Raises:
        InputError: If one is missing, or is no mixture: what a network or a degraded field says of one noise level is
            not what it says of another, diffused, so that no density is theirs.
    """
    found = {}
    for role in target.roles:
        field = fields.get(role)
        if not isinstance(field, GaussianMixture):
            kind = f"of type {type(field).__name__}" if isinstance(field, Field) else "missing"
            raise InputError(f"target: the field {role!r} is {kind}, expected an exact one, like exact or exact@union")
        found[role] = field
    return found


def _merged(target: Target, fields: dict[str, GaussianMixture]) -> tuple[Target, dict[str, GaussianMixture]]:
    """The same target with the powers of a field in several roles added up, which leaves a field guided by itself."""
    first = {id(field): role for role, field in reversed(fields.items())}
    powers = dict.fromkeys(first.values(), 0.0)
    for role, field in fields.items():
        powers[first[id(field)]] += target.powers[role]
    merged = Target(powers, target.reward)
    return merged, {role: fields[role] for role in merged.roles}


@lru_cache(maxsize=6)
def _made(target: Target, fields: tuple[tuple[str, GaussianMixture], ...]) -> GaussianMixture | GridField:
    mixture = as_mixture(target, dict(fields))
    return GridField(Product(target, dict(fields))) if mixture is None else mixture
