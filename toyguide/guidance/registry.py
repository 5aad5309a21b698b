"""The rules by name: files of the package, files in the folders of ``TOYGUIDE_RULES``, and classes of this process."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from toyguide.errors import InputError, unknown
from toyguide.guidance import rules as published
from toyguide.guidance.base import DEFINED, FAMILIES, Rule
from toyguide.plugins import import_file, import_plugins

__all__ = ["is_from_file", "register", "rule", "rules", "rules_of_file", "source_of"]

_FOREIGN, _OWN = "toyguide_rules", "toyguide_own_rules"


def rules() -> dict[str, type[Rule]]:
    """All rules by name, family by family.

    A rule comes from a file of ``toyguide.guidance.rules``, from one in a folder named by the environment variable
    ``TOYGUIDE_RULES``, or from a class defined in this process, which replaces an earlier one of its name.

    Raises:
        InputError: If a file on the search path cannot be imported or takes a name that is taken.
    """
    found = rules_in_files(os.environ.get("TOYGUIDE_RULES", ""))
    mine = {k: cls for k, cls in list(DEFINED.items()) if not is_from_file(cls)}
    order = {family: i for i, family in enumerate(FAMILIES)}
    both = sorted({**found, **mine}.values(), key=lambda c: (order.get(c.family, len(order)), c.family, c.key))
    return {"none": found["none"]} | {cls.key: cls for cls in both}


def rule(key: str, /, **params: Any) -> Rule:
    """A rule by name.

    Raises:
        InputError: If there is no such rule or parameter, or a value is out of bounds; the message names it.
    """
    known = rules()
    if key not in known:
        raise unknown("rule", key, known)
    return known[key](**params)


def register(cls: type[Rule]) -> type[Rule]:
    """Make a rule class known in this process under its ``key``, in place of an earlier one of that name.

    Defining the class does the same; this is for going back to a class that was replaced. It can be used as a
    decorator. Processes that a sweep starts know only the rules in files.

    Raises:
        InputError: If it is not a subclass of ``Rule`` with a ``key``.
    """
    if not (isinstance(cls, type) and issubclass(cls, Rule) and cls.key):
        raise InputError(f"register({getattr(cls, '__name__', cls)!r}): expected a subclass of Rule with a key")
    DEFINED[cls.key] = cls
    return cls


def rules_of_file(path: str | Path) -> list[type[Rule]]:
    """The rules that a Python file defines; importing it makes them known in this process, as :func:`register` does.

    Raises:
        InputError: If there is no such file, it cannot be imported, or it defines no rule.
    """
    path = Path(path)
    module = import_file(path, f"{_OWN}.{path.stem}")
    found = list(_defined_in(module))
    if not found:
        raise InputError(f"{path}: defines no rule, expected a subclass of toyguide.guidance.Rule with a key")
    return found


def source_of(key: str) -> str:
    """The source code of the file that defines a rule; empty for a rule of the package, or if there is no file.

    Part of the key of stored results, because a user's rule may be edited between two runs.
    """
    cls = rules()[key]
    if cls.__module__.startswith(f"{published.__name__}."):
        return ""
    try:
        return inspect.getsource(sys.modules[cls.__module__])
    except (OSError, TypeError, KeyError):
        return ""


def is_from_file(cls: type[Rule]) -> bool:
    """Whether other processes find this rule too: in the package, or through ``TOYGUIDE_RULES``."""
    return cls.__module__.startswith((f"{published.__name__}.", f"{_FOREIGN}."))


@lru_cache(maxsize=8)
def rules_in_files(folders: str) -> dict[str, type[Rule]]:
    names = [m.name for m in pkgutil.iter_modules(published.__path__)]
    modules = [importlib.import_module(f"{published.__name__}.{name}") for name in names]
    modules += import_plugins("TOYGUIDE_RULES", folders, _FOREIGN)
    found: dict[str, type[Rule]] = {}
    for module in modules:
        for cls in _defined_in(module):
            if found.setdefault(cls.key, cls) is not cls:
                raise InputError(f"{module.__file__}: the rule name {cls.key!r} is taken")
    return found


def _defined_in(module: ModuleType) -> Iterator[type[Rule]]:
    """The rules that a module defines, without those that it imports."""
    for cls in vars(module).values():
        if isinstance(cls, type) and issubclass(cls, Rule) and cls.__module__ == module.__name__ and cls.key:
            yield cls
