"""Writing files whole: to a temporary name beside the target, then renamed, so nothing is ever half-written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from toyguide.errors import InputError

__all__ = ["check_writable", "writing"]


def check_writable(path: str | Path) -> Path:
    """The path, once its folder is known to exist and to be writable: worth knowing before an hour's work.

    Raises:
        InputError: If it cannot be written there.
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
    """A temporary path beside ``path`` to write to; it takes the target's place when all went well."""
    path = check_writable(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as problem:
        raise InputError(f"output {str(path)!r}: cannot be written ({problem.strerror})") from problem
    finally:
        temporary.unlink(missing_ok=True)
