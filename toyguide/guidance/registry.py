"""The rules by name: files of the package, files in the folders of ``TOYGUIDE_RULES``, and classes of this process."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from toyguide.errors import InputError, unknown
from toyguide.guidance import rules as published
from toyguide.guidance.base import DEFINED, FAMILIES, Rule

__all__ = ["is_from_file", "register", "rule", "rules"]

_FOREIGN = "toyguide_rules"


def rules() -> dict[str, type[Rule]]:
    """All rules by name, family by family.

    A rule comes from a file of ``toyguide.guidance.rules``, from one in a folder named by the environment variable
    ``TOYGUIDE_RULES``, or from a class defined in this process, which replaces an earlier one of its name.

    Raises:
        InputError: If a file on the search path cannot be imported or takes a name that is taken.
    """
    found = _from_files(os.environ.get("TOYGUIDE_RULES", ""))
    mine = {k: cls for k, cls in DEFINED.items() if not is_from_file(cls)}
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


def is_from_file(cls: type[Rule]) -> bool:
    """Whether other processes find this rule too: by the package, or by ``TOYGUIDE_RULES``."""
    return cls.__module__.startswith((f"{published.__name__}.", f"{_FOREIGN}."))


@lru_cache(maxsize=8)
def _from_files(search_path: str) -> dict[str, type[Rule]]:
    modules = [
        importlib.import_module(f"{published.__name__}.{m.name}") for m in pkgutil.iter_modules(published.__path__)
    ]
    for folder in filter(None, search_path.split(os.pathsep)):
        if not Path(folder).is_dir():
            raise InputError(f"TOYGUIDE_RULES: {folder!r}: expected a folder")
        modules += [_import_file(path) for path in sorted(Path(folder).glob("*.py"))]
    found: dict[str, type[Rule]] = {}
    for module in modules:
        for cls in vars(module).values():
            if not (isinstance(cls, type) and issubclass(cls, Rule) and cls.__module__ == module.__name__ and cls.key):
                continue
            if found.setdefault(cls.key, cls) is not cls:
                raise InputError(f"{module.__file__}: the rule name {cls.key!r} is taken")
    return found


def _import_file(path: Path) -> Any:
    name = f"{_FOREIGN}.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as problem:
        raise InputError(f"{path}: cannot be imported ({type(problem).__name__}: {problem})") from problem
    return module
