"""Fields: exact mixtures, trained networks, and fields made of them."""

from toyguide.fields.base import (
    Field,
    NoisierField,
    Sigma,
    as_points,
    as_sigma,
    checked,
    denoised_from_eps,
    denoised_from_score,
    denoised_from_velocity,
    eps_from_denoised,
    score_from_denoised,
    velocity_from_denoised,
)

__all__ = [
    "Field",
    "NoisierField",
    "Sigma",
    "as_points",
    "as_sigma",
    "checked",
    "denoised_from_eps",
    "denoised_from_score",
    "denoised_from_velocity",
    "eps_from_denoised",
    "score_from_denoised",
    "velocity_from_denoised",
]
