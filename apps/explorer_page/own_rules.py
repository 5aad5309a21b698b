"""Rules of one's own: Python files that the one who starts the server names, read again whenever they change.

A file is imported and each of its rules tried on a short run before they take the place of the last version. Whatever
is wrong with it is one line, with the place; the last version goes on. What runs in the file longer than a few seconds
is ended at the line where it is.

Not covered: a call of another library that does not return, code that ends the whole process, and a rule that runs for
ever only at values other than its defaults, which keeps the pictures waiting.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from toyguide.contract import LEVELS, fields_for, points, run
from toyguide.errors import InputError
from toyguide.guidance import Evaluation, Guided, Rule, Scene, register, rules, rules_of_file
from toyguide.guidance.base import DEFINED

__all__ = ["OWN", "OwnRules", "refitted"]

_PAUSE = 1.0  # seconds between two looks at the files
_LONGEST = 10.0  # seconds that reading a file and trying its rules may take
_POINTS = 8


@dataclass
class _File:
    """A file: when it was last changed, what it says, and what is wrong with it, if anything is."""

    changed: int = 0
    rules: tuple[str, ...] = ()
    problem: str = ""


class OwnRules:
    """The files and their rules."""

    def __init__(self) -> None:
        self._files: dict[Path, _File] = {}
        self._successors: dict[str, str] = {}
        self.edition = 0
        """How often something was read."""

    def __bool__(self) -> bool:
        """Whether there are any files."""
        return bool(self._files)

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of the rules, in the order of the files."""
        return tuple(key for file in self._files.values() for key in file.rules)

    @property
    def problems(self) -> list[str]:
        """What is wrong with the files now, one line each."""
        return [file.problem for file in self._files.values() if file.problem]

    def add(self, path: Path) -> None:
        """Follow a file, and read it.

        Raises:
            InputError: If there is no such file, or its name is that of another one.
        """
        path = path.resolve()
        if not path.is_file():
            raise InputError(f"--rules {str(path)!r}: no such file, expected a Python file")
        if path.stem in (known.stem for known in self._files):
            raise InputError(f"--rules {str(path)!r}: expected files of different names")
        self._files[path] = _File()
        self.look()

    def look(self) -> None:
        """Read the files that have changed."""
        for path, file in self._files.items():
            try:
                changed = path.stat().st_mtime_ns
            except OSError:  # while an editor replaces it
                continue
            if changed != file.changed:
                file.changed = changed
                self._read(path, file)
                self.edition += 1

    def watch(self) -> None:
        """Look at the files once a second from now on, on a thread of its own."""

        def go() -> None:
            while True:
                time.sleep(_PAUSE)
                self.look()

        threading.Thread(target=go, name="toyguide-own-rules", daemon=True).start()

    def successor(self, chosen: Rule) -> Rule | None:
        """What stands for a rule that was chosen before its file was last read; None if it is as it was."""
        key = self._successors.get(chosen.key, chosen.key)
        now = rules().get(key)
        if now is None or (key == chosen.key and (key not in self.keys or type(chosen) is now)):
            return None
        return refitted(now, chosen.values())

    def blame(self, problem: BaseException) -> str:
        """A line that says where in a file something went wrong; empty if it was in none."""
        for path in self._files:
            if said := _place(path, problem):
                return said
        return ""

    def _read(self, path: Path, file: _File) -> None:
        try:
            with _limited(path):
                fresh = self._tried(path, file)
        except BaseException as problem:  # whatever a file does, the server goes on
            said = _place(path, problem) or _words(problem)
            file.problem = f"{said}. The last version goes on." if file.rules else said
            return
        file.problem = ""
        gone = set(file.rules) - {cls.key for cls in fresh}
        for cls in fresh:
            register(cls)
        for key in gone:
            DEFINED.pop(key, None)
        self._successors = {k: fresh[0].key if v in gone else v for k, v in self._successors.items()}
        self._successors |= dict.fromkeys(gone, fresh[0].key)
        for cls in fresh:
            self._successors.pop(cls.key, None)
        file.rules = tuple(cls.key for cls in fresh)

    def _tried(self, path: Path, file: _File) -> list[type[Rule]]:
        """The rules of a file, each of which has run; none is registered yet."""
        before = dict(DEFINED)
        try:
            fresh = rules_of_file(path)
        finally:  # importing registers them
            for key in [k for k, cls in DEFINED.items() if before.get(k) is not cls]:
                DEFINED.pop(key)
                if key in before:
                    DEFINED[key] = before[key]
        taken = rules().keys() - set(file.rules)
        for cls in fresh:
            if cls.key in taken:
                raise InputError(f"{path.name}: the rule name {cls.key!r} is taken, expected another one")
            _try(cls, path)
        return fresh


OWN = OwnRules()
"""The files that this server was started with."""


def refitted(cls: type[Rule], values: Mapping[str, Any]) -> Rule:
    """A rule with those of another one's values that it has and that are in its bounds."""
    kept: dict[str, Any] = {}
    for key, value in values.items():
        try:
            cls(**{**kept, key: value})
        except InputError:
            continue
        kept[key] = value
    return cls(**kept)


def _try(cls: type[Rule], path: Path) -> None:
    """Run a rule with its defaults over small random mixtures.

    Raises:
        InputError: If it returns something else than denoised points; and whatever the rule raises.
    """
    chosen, fields, x = cls(), fields_for(cls), points()[:_POINTS]
    at = Evaluation(Scene(fields, tuple(LEVELS.tolist()), label="A"), x, float(LEVELS[0]))
    _, memory = chosen.begin(at, torch.Generator().manual_seed(0))
    guided = chosen.guide(at, memory)
    line = f"{path.name}, line {cls.guide.__code__.co_firstlineno}: guide of {cls.key!r} returns"
    if not isinstance(guided, Guided):
        raise InputError(f"{line} {type(guided).__name__}, expected Guided(denoised)")
    if guided.denoised.shape != x.shape:
        raise InputError(f"{line} the shape {tuple(guided.denoised.shape)} for points of shape {tuple(x.shape)}")
    run(chosen, fields, x)


@contextmanager
def _limited(path: Path) -> Iterator[None]:
    """End what runs in a file for too long, at the line where it is; on this thread alone."""
    end = time.monotonic() + _LONGEST

    def trace(frame: FrameType, _event: str, _argument: Any) -> Any:
        if frame.f_code.co_filename != str(path):
            return None
        frame.f_trace_opcodes = True  # a loop of one line has no other events
        if time.monotonic() > end:
            raise TimeoutError(f"still running after {_LONGEST:g} seconds")
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def _place(path: Path, problem: BaseException) -> str:
    """The last line of a file that a problem came through, and the problem; empty if it came through none."""
    cause = problem.__cause__ if isinstance(problem, InputError) and problem.__cause__ else problem
    if isinstance(cause, SyntaxError) and cause.filename == str(path):
        return f"{path.name}, line {cause.lineno}: {cause.msg}"
    lines = [frame.lineno for frame in traceback.extract_tb(cause.__traceback__) if frame.filename == str(path)]
    return f"{path.name}, line {lines[-1]}: {_words(cause)}" if lines else ""


def _words(problem: BaseException) -> str:
    text = " ".join(str(problem).split())[:300]
    return text if isinstance(problem, InputError) else f"{type(problem).__name__}: {text}".removesuffix(": ")
