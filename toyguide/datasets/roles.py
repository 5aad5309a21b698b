"""Roles: what a field, or a classifier, is to a guidance rule, and what stands in for one that is not named."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["KINDS", "ROLES", "Role"]

KINDS = {
    "sampled": "the field that is sampled",
    "network": "the field that is sampled, which must be a trained network",
    "internal": "the field that is sampled, which must be a trained network with an auxiliary read-out",
    "exact": "the field that is sampled, which must be an exact one",
    "union": "a field of all classes together",
    "class": "a field of another class",
    "classes": "a model of every class: exact fields, or a label-conditional network",
    "weaker": "a weaker model of the same distribution",
    "adapter": "a small network that adds to the sampled field what guidance would",
    "classifier": "the probabilities of the classes at a noisy point",
}
"""The kinds of roles. The kind decides which natural partner a role has, and what may fill it."""


@dataclass(frozen=True)
class Role:
    """One field that a rule asks for.

    Attributes:
        name: What the rule, an experiment and the command line call it.
        kind: One of ``KINDS``.
        doc: What the rule does with it, in a few words.
        partner: The reference that stands in when none is named; empty for the natural partner of the kind.
    """

    name: str
    kind: str
    doc: str
    partner: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"role {self.name!r}: kind {self.kind!r}, expected one of {', '.join(KINDS)}")
        if not self.name.isidentifier():
            raise ValueError(f"role {self.name!r}: expected letters, digits and underscores")


ROLES = {
    role.name: role
    for role in (
        Role("main", "sampled", "the field that is sampled"),
        Role("uncond", "union", "what CFG-like rules extrapolate from"),
        Role("weak", "weaker", "what autoguidance extrapolates from"),
        Role("classifier", "classifier", "the classifier whose gradient guides"),
    )
}
"""The roles that a rule can name without describing them."""
