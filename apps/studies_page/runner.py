"""Runs studies for the page, one at a time on the server, each in a process of its own.

A run is the command ``toyguide study``. It belongs to the server: all visitors see it, it continues when the visitor
who started it leaves, and it ends with the server. Finished cells are on disk, so that a new run continues there.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import toyguide
from toyguide.errors import InputError
from toyguide.studies import Plan, study
from toyguide.studies.run import folder_of
from toyguide_apps.studies_page.results import output_root

__all__ = ["RUNNER", "Ended", "Run", "Runner"]

_LOG = logging.getLogger(__name__)
_LOOK = 0.3  # seconds between two reads of the progress
_PATIENCE = 5.0  # seconds to wait for the end of a run after each signal


@dataclass
class Run:
    """A study that is being run.

    Attributes:
        name: The study.
        quick: Whether it is a quick look.
        share: The share that is done, from 0 to 1.
        left: Remaining seconds, None until they are known.
        text: The current task.
        stopping: Whether it was cancelled and is about to end.
    """

    name: str
    quick: bool
    share: float = 0.0
    left: float | None = None
    text: str = "starting"
    stopping: bool = False
    process: subprocess.Popen[bytes] = field(init=False, repr=False)
    said: IO[bytes] = field(init=False, repr=False)


@dataclass(frozen=True)
class Ended:
    """How the last run ended.

    Attributes:
        name: The study.
        quick: Whether it was a quick look.
        how: ``done``, ``cancelled`` or ``failed``.
        problem: Why it failed, in one line.
    """

    name: str
    quick: bool
    how: str
    problem: str = ""


def _command(name: str, quick: bool, output: Path) -> list[str]:
    options = ["--quick"] if quick else []
    return [sys.executable, "-P", "-m", "toyguide", "study", name, *options, "--json", "-o", str(output)]


def _environment() -> dict[str, str]:
    """The environment of a run, in which it imports the toyguide that this process has imported.

    With ``-P``, whatever folder named ``toyguide`` the working directory has is left alone.
    """
    location = str(Path(toyguide.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [location, os.environ.get("PYTHONPATH")]))}


class Runner:
    """Holds at most one run.

    Args:
        command: Gives the command of a study, whether it is a quick look, and a folder.
    """

    def __init__(self, command: Callable[[str, bool, Path], list[str]] = _command) -> None:
        self.running: Run | None = None
        self.ended: Ended | None = None
        self._command = command
        self._listeners: list[Callable[[], None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._bound = False

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call a function on every change; returns a function that stops that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def start(self, name: str, quick: bool) -> None:
        """Start a run; must be called in an event loop.

        Raises:
            InputError: If one is running, or the study is not known.
        """
        if self.running is not None:
            raise InputError(f"the study {self.running.name} is being run: expected it to end, or to be cancelled")
        output = output_root()
        folder = folder_of(study(name), Plan(quick=quick), output)
        run = Run(name, quick)
        run.said = tempfile.TemporaryFile()  # noqa: SIM115, closed when the run has ended
        try:
            # In a session of its own, so that Ctrl-C reaches the server alone, which then ends the run.
            run.process = subprocess.Popen(
                self._command(name, quick, output),
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=run.said,
                start_new_session=True,
            )
        except OSError as problem:
            raise InputError(f"the study {name} cannot be started: {problem}") from problem
        if not self._bound:
            atexit.register(self.close)
            self._bound = True
        self.running = run
        self._later(self._follow(run, folder / "progress.json"))
        self._tell()

    def cancel(self) -> None:
        """Stop the run; finished cells are kept."""
        run = self.running
        if run is not None and not run.stopping:
            run.stopping = True
            self._later(_stop(run.process))
            self._tell()

    def close(self) -> None:
        """End the run, if there is one, before this returns."""
        if self.running is None:
            return
        for ask in _asks(self.running.process):
            with contextlib.suppress(ProcessLookupError):
                ask()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.running.process.wait(_PATIENCE)
                return

    async def _follow(self, run: Run, progress: Path) -> None:
        while run.process.poll() is None:
            await asyncio.sleep(_LOOK)
            if _read(run, progress):
                self._tell()
        with contextlib.suppress(OSError):
            progress.unlink()  # a killed run leaves it
        code, self.running = run.process.returncode, None
        how = "done" if code == 0 else "cancelled" if run.stopping else "failed"
        self.ended = Ended(run.name, run.quick, how, _last_line(run.said, code) if how == "failed" else "")
        run.said.close()
        self._tell()

    def _tell(self) -> None:
        for listener in list(self._listeners):
            try:
                listener()
            except Exception:
                _LOG.exception("a page could not be told of a run")  # the run and the other pages continue

    def _later(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # the event loop holds tasks weakly
        task.add_done_callback(self._tasks.discard)


def _asks(process: subprocess.Popen[bytes]) -> list[Callable[[], None]]:
    """Ways to end a process, from the gentlest."""
    return [lambda: process.send_signal(signal.SIGINT), process.terminate, process.kill]


async def _stop(process: subprocess.Popen[bytes]) -> None:
    for ask in _asks(process):
        with contextlib.suppress(ProcessLookupError):
            ask()
        for _ in range(round(_PATIENCE / _LOOK)):
            if process.poll() is not None:
                return
            await asyncio.sleep(_LOOK)


def _read(run: Run, progress: Path) -> bool:
    """Read a run's progress file; whether anything has changed."""
    try:
        told = json.loads(progress.read_text(encoding="utf-8"))
        share, left, text = float(told["share"]), told["left"], str(told["text"])
        new = min(max(share, 0.0), 1.0), None if left is None else float(left), text
    except (OSError, ValueError, LookupError, TypeError):
        return False
    old, (run.share, run.left, run.text) = (run.share, run.left, run.text), new
    return old != new


def _last_line(said: IO[bytes], code: int) -> str:
    """The last line of a process's output that is not its progress bar."""
    said.seek(0)
    lines = re.split(r"[\r\n]+", said.read().decode("utf-8", "replace"))
    words = [line.strip() for line in lines if line.strip() and not re.search(r"\d+%\|", line)]
    return words[-1].removeprefix("toyguide: ")[:300] if words else f"it ended with the exit code {code}"


RUNNER = Runner()
"""The server's."""
