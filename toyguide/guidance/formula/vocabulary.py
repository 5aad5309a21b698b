"""The names of formulas: fields, variables and functions, with what each means."""

from __future__ import annotations

from dataclasses import dataclass

from toyguide.datasets.roles import ROLES

__all__ = ["FIELDS", "FUNCTIONS", "VARIABLES", "Function", "Quantity"]


@dataclass(frozen=True)
class Quantity:
    """What a name of a field stands for.

    Attributes:
        role: The field's role.
        method: The method of an evaluation that gives it.
        doc: A few words.
    """

    role: str
    method: str
    doc: str


@dataclass(frozen=True)
class Variable:
    """A name that is known at every point.

    Attributes:
        code: Its value, as Python.
        vector: Whether it is a vector.
        doc: A few words.
    """

    code: str
    vector: bool
    doc: str


@dataclass(frozen=True)
class Function:
    """A function.

    Attributes:
        takes: The kind of each argument: ``vector``, ``number``, ``condition``, ``any`` (coordinate by coordinate if it
            is a vector), or ``same`` (the same kind as the other one).
        gives: The kind of the result: ``vector``, ``number``, or ``any``, a vector if an argument is one.
        code: What it is in Python.
        doc: A few words.
    """

    takes: tuple[str, ...]
    gives: str
    code: str
    doc: str


_QUANTITIES = {
    "D": ("denoised", "the denoised points"),
    "eps": ("eps", "the noise, (x - D) / sigma"),
    "s": ("score", "the score, (D - x) / sigma²"),
    "v": ("velocity", "the velocity, eps - D"),
}
_ROLES = [role.name for role in ROLES.values() if role.kind != "classifier"]

FIELDS = {
    f"{letter}_{role}": Quantity(role, method, doc) for letter, (method, doc) in _QUANTITIES.items() for role in _ROLES
}
"""What a field gives, by name: ``D_main``, ``s_weak`` and so on."""

VARIABLES = {
    "x": Variable("at.x", True, "the noisy points"),
    "sigma": Variable("at.sigma", False, "their noise level"),
    "step": Variable("float(at.index)", False, "the solver step, from 0"),
    "steps": Variable("float(len(at.levels) - 1)", False, "the number of solver steps"),
}

FUNCTIONS = {
    "norm": Function(("vector",), "number", "norm", "the length of a vector"),
    "dot": Function(("vector", "vector"), "number", "dot", "the inner product of two vectors"),
    "unit": Function(("vector",), "vector", "unit", "the vector of length 1 in its direction"),
    "perp": Function(("vector", "vector"), "vector", "perp", "the first without its part along the second"),
    "where": Function(("condition", "same", "same"), "any", "where", "the second if the first holds, else the third"),
    "clip": Function(("any", "number", "number"), "any", "clip", "the first, from the second to the third"),
    "min": Function(("any", "any"), "any", "torch.minimum", "the smaller"),
    "max": Function(("any", "any"), "any", "torch.maximum", "the larger"),
    **{
        name: Function(("any",), "any", f"torch.{name}", doc)
        for name, doc in {
            "abs": "the absolute value",
            "exp": "the exponential",
            "log": "the natural logarithm",
            "sqrt": "the square root",
            "sin": "the sine",
            "cos": "the cosine",
            "tanh": "the hyperbolic tangent",
        }.items()
    },
}
