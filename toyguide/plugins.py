"""Importing the user's Python files: one by its path, or all of the folders that an environment variable names."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from toyguide.errors import InputError

__all__ = ["import_file", "import_plugins"]


def import_plugins(variable: str, folders: str, package: str) -> list[ModuleType]:
    """Import every Python file in the folders that an environment variable names.

    Args:
        variable: The environment variable's name, for messages.
        folders: Its value: folders separated as in ``PATH``.
        package: The prefix of the modules' names, before the files' stems.

    Returns:
        The modules, folder by folder, by name within each.

    Raises:
        InputError: If a folder does not exist, or a file cannot be imported or has the name of another one.
    """
    found: dict[str, ModuleType] = {}
    for folder in filter(None, folders.split(os.pathsep)):
        if not Path(folder).is_dir():
            raise InputError(f"{variable}: {folder!r}: expected a folder")
        for path in sorted(Path(folder).glob("*.py")):
            name = f"{package}.{path.stem}"
            if name in found:
                raise InputError(f"{path}: the file name {path.stem!r} is taken by {found[name].__file__}")
            found[name] = import_file(path, name)
    return list(found.values())


def import_file(path: Path, name: str) -> ModuleType:
    """Import a Python file, again if it was imported before.

    Args:
        path: The file.
        name: The module's name.

    Raises:
        InputError: If there is no such file, or it cannot be imported.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected a Python file")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as problem:
        del sys.modules[name]
        raise InputError(f"{path}: cannot be imported ({type(problem).__name__}: {problem})") from problem
    return module
