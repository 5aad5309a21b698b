"""Atomic writes: to a temporary file in the same folder, which is then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from toyguide.errors import InputError

__all__ = ["check_writable", "writing"]


def check_writable(path: str | Path) -> Path:
    """The path, after a check that its folder exists and is writable; meant to be called before long computations.

    Raises:
        InputError: If a file cannot be written there.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"output {str(path)!r} is a folder: expected a file name")
    if not path.parent.is_dir():
        raise InputError(f"output {str(path)!r}: the folder {str(path.parent)!r} does not exist")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"output {str(path)!r}: the folder {str(path.parent)!r} is not writable")
    return path


@contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path in the folder of ``path`` to write to; it replaces ``path`` if the block succeeds."""
    path = check_writable(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as problem:
        raise InputError(f"output {str(path)!r}: cannot be written ({problem.strerror})") from problem
    finally:
        temporary.unlink(missing_ok=True)
