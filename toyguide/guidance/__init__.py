"""Guidance rules, one per file, found by being there. See ``toyguide.guidance.base`` for what a rule is."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import sys
from functools import cache
from pathlib import Path
from typing import Any

from toyguide.errors import InputError, unknown
from toyguide.guidance import rules as published
from toyguide.guidance.base import ROLES, Evaluation, Guided, Rule, Transition
from toyguide.guidance.interval import Interval

__all__ = ["ROLES", "Evaluation", "Guided", "Interval", "Rule", "Transition", "rule", "rules"]


@cache
def rules() -> dict[str, type[Rule]]:
    """All rules by name: those of this folder, then those of the folders in ``TOYGUIDE_RULES``.

    Raises:
        InputError: If a file on the search path cannot be imported or takes a name that is taken.
    """
    for module in pkgutil.iter_modules(published.__path__):
        importlib.import_module(f"{published.__name__}.{module.name}")
    for folder in filter(None, os.environ.get("TOYGUIDE_RULES", "").split(os.pathsep)):
        if not Path(folder).is_dir():
            raise InputError(f"TOYGUIDE_RULES: {folder!r}: expected a folder")
        for path in sorted(Path(folder).glob("*.py")):
            _import_file(path)

    found: dict[str, type[Rule]] = {}
    for cls in sorted(_subclasses(Rule), key=lambda c: (c.__module__.startswith("toyguide_rules."), c.key)):
        if not cls.key:
            continue
        if cls.key in found:
            raise InputError(f"{sys.modules[cls.__module__].__file__}: the rule name {cls.key!r} is taken")
        found[cls.key] = cls
    first = ["none", "cfg", "autoguidance", "cfg+autoguidance", "score-scaling", "sfg", "sfg+autoguidance"]
    return {k: found[k] for k in [*first, *(k for k in found if k not in first)]}


def rule(key: str, /, **params: Any) -> Rule:
    """A rule by name.

    Raises:
        InputError: If there is no such rule or parameter, or a value is out of bounds; the message names it.
    """
    if key not in rules():
        raise unknown("rule", key, rules())
    return rules()[key](**params)


def _import_file(path: Path) -> None:
    name = f"toyguide_rules.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as problem:
        raise InputError(f"{path}: cannot be imported ({type(problem).__name__}: {problem})") from problem


def _subclasses(cls: type[Rule]) -> list[type[Rule]]:
    return [s for direct in cls.__subclasses__() for s in (direct, *_subclasses(direct))]
