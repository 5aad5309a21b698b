"""The exception for invalid input.

Everything that comes from outside (a flag, a name, a file, a URL) is checked on entry. Invalid input raises an
:class:`InputError` with a one-line message: the bad value, what was expected, and the nearest valid name. The CLI turns
it into exit code 2, the app into a notification.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["InputError", "unknown"]


class InputError(ValueError):
    """Invalid input; the message is one line that can be shown to a user."""


def unknown(kind: str, value: object, valid: Iterable[str]) -> InputError:
    """An :class:`InputError` for an unknown name, which suggests the nearest valid one."""
    names = list(valid)
    folded = {name.casefold(): name for name in names}
    near = difflib.get_close_matches(str(value).casefold(), folded, n=1, cutoff=0.4)
    hint = f"; did you mean {folded[near[0]]!r}?" if near else ""
    return InputError(f"unknown {kind} {str(value)!r}: expected one of {', '.join(names) or '(none)'}{hint}")
