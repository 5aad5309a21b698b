"""Which settings of a rule are tried: the same number for every rule, its defaults among them.

The weight is the first real parameter that has a value at which the rule is off; the other main parameters are those
that a batch of runs may differ in, and real ones that can be switched off. Half of the settings vary the weight alone;
the others spread the other parameters too, as a Latin hypercube over their sliders.

References:
    McKay et al., A Comparison of Three Methods for Selecting Values of Input Variables, 1979 (Latin hypercube).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import param

from toyguide.guidance import PerTrajectory, Rule

__all__ = ["design", "main_parameters", "params_of", "span", "text_of", "weight_at", "weight_of"]

_DIGITS = 4
_SEED = 0


def weight_of(cls: type[Rule]) -> str | None:
    """The parameter that says how strongly a rule guides; None for a rule without a real parameter."""
    known = [*(cls.unguided or {}), *cls.off, *cls.declared()]
    return next((name for name in known if _is_real(cls.declared()[name])), None)


def main_parameters(cls: type[Rule]) -> tuple[str, ...]:
    """The parameters that are tried out, the weight first."""
    weight = weight_of(cls)
    others = [
        name
        for name, declared in cls.declared().items()
        if name != weight and _is_real(declared) and (isinstance(declared, PerTrajectory) or name in cls.off)
    ]
    return () if weight is None else (weight, *others)


def span(cls: type[Rule], name: str) -> tuple[float, float]:
    """The ends of a parameter's slider."""
    declared = cls.declared()[name]
    low, high = declared.softbounds or declared.bounds
    return float(low), float(high)


def weight_at(cls: type[Rule], share: float) -> float:
    """The weight at a share of the way from no guidance, at 0, to the farther end of its slider, at 1.

    A rule that is never unguided starts from the lower end.
    """
    name = weight_of(cls)
    assert name is not None, f"{cls.key}: has no weight"
    low, high = span(cls, name)
    start = float({**cls.off, **(cls.unguided or {})}.get(name, low))
    start = start if math.isfinite(start) else low
    end = high if high - start >= start - low else low
    return _rounded(start + share * (end - start))


def design(cls: type[Rule], count: int) -> list[dict[str, Any]]:
    """``count`` settings of a rule, or one if it has nothing to set; the first, empty, is that of its defaults."""
    names = main_parameters(cls)
    if not names or count < 2:
        return [{}]
    # Square: where guidance begins to work is near its beginning.
    shares = [((i + 1) / (count - 1)) ** 2 for i in range(count - 1)]
    found = [{names[0]: weight_at(cls, share)} for share in shares]
    if len(names) > 1:
        spread = found[1::2]
        for setting, place in zip(spread, _hypercube(len(names) - 1, len(spread)), strict=True):
            for name, share in zip(names[1:], place, strict=True):
                low, high = span(cls, name)
                setting[name] = _rounded(low + share * (high - low))
    return [{}, *found]


def text_of(params: Mapping[str, Any]) -> str:
    """A setting in a line, like ``w=3 eta=0.5``; empty for the defaults."""
    return " ".join(f"{name}={value:g}" for name, value in params.items())


def params_of(text: str) -> dict[str, float]:
    """The setting that :func:`text_of` wrote."""
    return {name: float(value) for name, _, value in (part.partition("=") for part in text.split())}


def _hypercube(dimensions: int, count: int) -> list[list[float]]:
    from scipy.stats import qmc

    return qmc.LatinHypercube(dimensions, seed=_SEED).random(count).tolist()


def _is_real(declared: param.Parameter) -> bool:
    bounded = isinstance(declared, param.Number) and not isinstance(declared, param.Integer | param.Boolean)
    return bounded and None not in (declared.softbounds or declared.bounds or (None,))


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
