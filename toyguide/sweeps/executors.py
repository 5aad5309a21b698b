"""Running calls in this process, in processes of this machine or on the workers of a Dask cluster."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

from toyguide.errors import InputError

__all__ = ["completed", "dask", "processes"]

_PATIENCE = "5s"  # how long a scheduler has to answer

T = TypeVar("T")


def completed(
    function: Callable[..., T], arguments: Sequence[tuple[Any, ...]], executor: Executor | None
) -> Iterator[tuple[int, T]]:
    """Call a function with each of several sets of arguments.

    Args:
        function: A function of a module's top level, so that workers find it.
        arguments: The arguments of each call; plain values where there is an executor.
        executor: Any of ``concurrent.futures``; None to call one after the other in this process.

    Yields:
        The index of a call and its result, as calls are completed. Calls not yet begun are cancelled when the
        iterator is closed or a call fails.
    """
    if executor is None:
        for index, call in enumerate(arguments):
            yield index, function(*call)
        return
    futures = {executor.submit(function, *call): index for index, call in enumerate(arguments)}
    try:
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        for future in futures:
            future.cancel()


@contextmanager
def processes(workers: int) -> Iterator[Executor]:
    """Processes of this machine, each computing with one thread; to be entered in the main thread.

    They ignore Ctrl-C, which is for this process, and end when this process ends, also if it is killed.

    Args:
        workers: How many processes.
    """
    others = multiprocessing.active_children()
    spawn = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_end_with_parent)
    threads, answer = os.environ.get("OMP_NUM_THREADS"), signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        for _ in range(workers):
            executor.submit(os.getpid)  # a process starts with its first task
    finally:  # they keep what they have inherited
        signal.signal(signal.SIGINT, answer)
        del os.environ["OMP_NUM_THREADS"]
        os.environ |= {} if threads is None else {"OMP_NUM_THREADS": threads}
    try:
        yield executor
    except BaseException:  # do not wait for running tasks
        for process in multiprocessing.active_children():
            if process not in others:
                process.terminate()
        raise
    finally:
        executor.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Leave when the parent process is gone: it may have been killed, and would never send the order to stop."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def dask(address: str) -> Iterator[Executor]:
    """The workers of a Dask cluster. Dask reruns a dead worker's task.

    Args:
        address: The scheduler's address, such as ``tcp://127.0.0.1:8786``.

    Raises:
        InputError: If dask.distributed is not installed, or no scheduler answers there.
        BrokenExecutor: If the scheduler is lost, or gives up on a task that killed several workers.
    """
    try:
        import distributed
    except ImportError as problem:
        raise InputError(
            "--scheduler needs dask.distributed, which is not installed: expected pip install 'toyguide[distributed]'"
        ) from problem
    expected = f"scheduler {address!r}: expected an address like tcp://HOST:8786"
    if not _is_address(address, distributed.comm.registry.backends):  # a client would not recover from it
        raise InputError(expected)
    with _silenced("distributed.client", "distributed.utils"):  # our one line says it
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
