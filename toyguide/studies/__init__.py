"""Studies: tests of claims of papers. One claim per file in ``claims``; ``base`` defines what a study is."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from functools import cache
from types import ModuleType

from toyguide.errors import InputError, unknown
from toyguide.studies import claims
from toyguide.studies.base import Study
from toyguide.studies.plan import Plan
from toyguide.studies.run import Outcome, Progress, run_study

__all__ = ["Outcome", "Plan", "Progress", "Study", "run_study", "studies", "study"]


@cache
def studies() -> dict[str, Study]:
    """All studies by name, in the order of a list: those of ``claims``, then those of the user's folders.

    The environment variable ``TOYGUIDE_CLAIMS`` names the user's folders.

    Raises:
        InputError: If such a folder does not exist, or a file in it cannot be imported or takes a name that is taken.
    """
    modules = [importlib.import_module(f"{claims.__name__}.{m.name}") for m in pkgutil.iter_modules(claims.__path__)]
    found: dict[str, Study] = {}
    for group in (modules, claims.own_claims()):
        for s in sorted((s for module in group for s in _defined_in(module)), key=lambda s: (s.order, s.name)):
            if s.name in found:
                raise InputError(f"{sys.modules[s.__module__].__file__}: the study name {s.name!r} is taken")
            found[s.name] = s
    return found


def study(name: str) -> Study:
    """A study by name.

    Raises:
        InputError: If there is none of that name.
    """
    if name not in studies():
        raise unknown("study", name, studies())
    return studies()[name]


def _defined_in(module: ModuleType) -> list[Study]:
    classes = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Study)]
    return [cls() for cls in classes if cls.name and cls.__module__ == module.__name__]
