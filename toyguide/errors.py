"""The exception for invalid input.

Everything that comes from outside (a flag, a name, a file, a URL) is checked on entry. Invalid input raises an
:class:`InputError` with a one-line message: the bad value, what was expected, and the nearest valid name. The CLI turns
it into exit code 2, the app into a notification.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["InputError", "nearest", "unknown"]

_LONGEST = 240  # characters of a list that is printed whole
_FEW = 5  # names of a longer one
_WHERE = {"rule": " (toyguide rules lists them)"}


class InputError(ValueError):
    """Invalid input; the message is one line that can be shown to a user."""


def unknown(kind: str, value: object, valid: Iterable[str]) -> InputError:
    """An :class:`InputError` for an unknown name, which suggests the nearest valid one."""
    names = list(valid)
    near = nearest(str(value), names)
    hint = f"; did you mean {near!r}?" if near else ""
    listed = ", ".join(names) or "(none)"
    if len(listed) > _LONGEST:
        listed = f"{len(names)} names, like {', '.join(_alike(str(value), names))}"
    return InputError(f"unknown {kind} {str(value)!r}: expected one of {listed}{hint}{_WHERE.get(kind, '')}")


def nearest(value: str, valid: Iterable[str]) -> str | None:
    """The valid name that is most like a value; None if none is."""
    folded = {name.casefold(): name for name in valid}
    near = difflib.get_close_matches(value.casefold(), folded, n=1, cutoff=0.4)
    return folded[near[0]] if near else None


def _alike(value: str, names: list[str]) -> list[str]:
    """A few names, those most like a value first."""
    folded = {name.casefold(): name for name in names}
    near = difflib.get_close_matches(value.casefold(), folded, n=_FEW, cutoff=0.0)
    return [folded[name] for name in near]
