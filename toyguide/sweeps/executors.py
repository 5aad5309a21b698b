"""Executors for sweeps: processes of this machine, or a Dask cluster's workers."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, ProcessPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlsplit

from toyguide.errors import InputError

__all__ = ["dask", "processes"]

_PATIENCE = "5s"  # that a scheduler has to answer in


@contextmanager
def processes(workers: int) -> Iterator[Executor]:
    """Processes of this machine, each with one thread for its tensors; to be entered in the main thread.

    They leave Ctrl-C to this process, and end with it, however it ends.

    Args:
        workers: How many.
    """
    others = multiprocessing.active_children()
    spawn = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_end_with_parent)
    threads, answer = os.environ.get("OMP_NUM_THREADS"), signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        for _ in range(workers):
            executor.submit(os.getpid)  # a process starts when there is something for it
    finally:  # what they have inherited stays with them
        signal.signal(signal.SIGINT, answer)
        del os.environ["OMP_NUM_THREADS"]
        os.environ |= {} if threads is None else {"OMP_NUM_THREADS": threads}
    try:
        yield executor
    except BaseException:  # what they are at is not waited for
        for process in multiprocessing.active_children():
            if process not in others:
                process.terminate()
        raise
    finally:
        executor.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """A process whose parent was killed would wait for work for ever."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def dask(address: str) -> Iterator[Executor]:
    """The workers of a Dask cluster. What a worker was at when it died is done again by another one, by Dask.

    Args:
        address: The scheduler's, like ``tcp://127.0.0.1:8786``.

    Raises:
        InputError: If dask.distributed is not installed, or no scheduler answers there.
        BrokenExecutor: If the scheduler is lost, or gives up on a batch because worker after worker died of it.
    """
    try:
        import distributed
    except ImportError as problem:
        raise InputError(
            "--scheduler needs dask.distributed, which is not installed: expected pip install 'toyguide[distributed]'"
        ) from problem
    expected = f"scheduler {address!r}: expected an address like tcp://HOST:8786"
    if not _is_address(address, distributed.comm.registry.backends):  # of which a client would not recover
        raise InputError(expected)
    with _silenced("distributed.client", "distributed.utils"):  # what they say at length is one line here
        try:
            client = distributed.Client(address, timeout=_PATIENCE, set_as_default=False)
        except OSError as problem:
            raise InputError(f"{expected}; nobody answers there") from problem
        with client:
            try:
                yield client.get_executor()
            except (distributed.scheduler.KilledWorker, CancelledError, distributed.comm.CommClosedError) as problem:
                text = " ".join(str(problem).split()) or "the scheduler does not answer any more"
                raise BrokenExecutor(text) from problem


@contextmanager
def _silenced(*names: str) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _is_address(text: str, schemes: Iterable[str]) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in schemes and bool(parts.hostname and parts.port)
    except ValueError:  # the port
        return False
