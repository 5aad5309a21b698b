"""Compiled loops for what everything waits for, where the machine has a C compiler; without one, or with
``TOYGUIDE_NATIVE=0``, callers go their own way in torch.

``kernels.c`` is compiled for this very processor at the first use, in about a second, and kept in the user's cache
folder. A call releases Python's lock and is shared out over threads that sleep when they have nothing to do: torch's
own threads spin, and slow each other down where other programs want the same cores.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["Work", "available", "energy_gradient", "loops", "mixture", "share_out", "without"]

Work = Callable[[int, int], None]
"""Does what is to be done for the points from one to before another."""

_SOURCE = Path(__file__).with_name("kernels.c")
_FLAGS = ["-O3", "-std=gnu11", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared"]
_TUNING = ["-march=native", "-mcpu=native", None]  # what a compiler takes differs from processor to processor

# What torch would use when it starts, so that OMP_NUM_THREADS counts here too.
_THREADS = torch.get_num_threads()


@lru_cache(maxsize=1)
def loops() -> ctypes.CDLL | None:
    """The compiled functions, or None where they cannot be had."""
    if os.environ.get("TOYGUIDE_NATIVE", "1") == "0":
        return None
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CC", "cc"), "cc", "gcc", "clang"))), None)
    if compiler is None:
        return None
    try:
        path = _folder() / f"kernels-{_fingerprint(compiler)}.so"
        if not path.is_file():
            _compile(compiler, path)
        return _declared(ctypes.CDLL(str(path)))
    except (OSError, AttributeError, RuntimeError, subprocess.SubprocessError):
        return None  # torch's way gives the same results, wherever this one is not to be had


def available(x: Tensor) -> bool:
    """Whether there are compiled loops for points like these."""
    return x.is_cpu and x.dtype == torch.float32 and not _local.without and loops() is not None


def mixture(planes: Tensor, x: Tensor, noise: Tensor, log_density: Tensor | None, score: Tensor | None) -> Work:
    """The log-density and score of a mixture in two dimensions; see ``kernels.c``. All are contiguous float32.

    Args:
        planes: The components' numbers, with shape ``(11, K)``.
        x: Points, with shape ``(n, 2)``, finite.
        noise: Sigma squared of each, with shape ``(n,)``.
        log_density: Is written, with shape ``(n,)``, or None.
        score: Is written, with shape ``(n, 2)``, or None.
    """
    found, count = loops(), planes.shape[1]
    assert found is not None

    def work(begin: int, end: int) -> None:
        room = torch.empty(4 * count)
        n, results = end - begin, (_at(log_density, begin), _at(score, 2 * begin))
        found.mixture(n, count, _at(x, 2 * begin), _at(noise, begin), _at(planes), _at(room), *results)

    return work


def energy_gradient(
    weights: Tensor, width: int, layers: int, x: Tensor, level: tuple[Tensor, Tensor, Tensor], out: Tensor
) -> Work:
    """The score of an energy network; see ``kernels.c``. All are contiguous float32.

    Args:
        weights: Of the layers, in the order they are gone through.
        width: The features of a layer, a multiple of 16.
        layers: How many there are before the last, at least one.
        x: Points, with shape ``(n, d)``, finite.
        level: Each axis's scale (n or 1, d), the inputs beside x* (n or 1, k) and the strength (n or 1, 1).
        out: Is written, with shape ``(n, d)``.
    """
    found, dim = loops(), x.shape[1]
    assert found is not None
    shared = len(level[0]) == 1
    sizes = (dim, dim + level[1].shape[1], width, layers, int(shared))

    def work(begin: int, end: int) -> None:
        own = [_at(part, 0 if shared else begin * part.shape[1]) for part in level]
        arguments = (*sizes, _at(x, begin * dim), *own, _at(weights), _at(out, begin * dim))
        if found.gradient(end - begin, *arguments):
            raise MemoryError

    return work


def share_out(work: Work, n: int, least: int) -> None:
    """Do the work for ranges that make up ``0 … n``, on as many threads as are worth it.

    Args:
        work: Mostly outside of Python's lock.
        n: How much there is to do.
        least: How much is worth a thread.
    """
    parts = max(1, min(_THREADS, n // least))
    ends = [n * i // parts for i in range(parts + 1)]
    others = [_pool().submit(work, *ends[i : i + 2]) for i in range(1, parts)]
    work(0, ends[1])
    for other in others:
        other.result()


@contextmanager
def without() -> Iterator[None]:
    """Do as if there were no compiler, on the calling thread."""
    before, _local.without = _local.without, True
    try:
        yield
    finally:
        _local.without = before


class _Local(threading.local):
    without = False


_local = _Local()


def _at(x: Tensor | None, offset: int = 0) -> int | None:
    """Where a tensor's numbers begin, ``offset`` of them on; null for None."""
    return None if x is None else x.data_ptr() + 4 * offset


def _declared(found: ctypes.CDLL) -> ctypes.CDLL:
    """The functions with their arguments' types."""
    size, number, at = ctypes.c_long, ctypes.c_int, ctypes.c_void_p
    found.mixture.argtypes = [size, size, *[at] * 6]
    found.gradient.argtypes = [size, *[number] * 5, *[at] * 6]
    return found


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, _THREADS - 1), "toyguide-compiled")


if hasattr(os, "register_at_fork"):  # a child has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)


def _folder() -> Path:
    """The cache folder, which nobody else may write to: what lies there is executed."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "toyguide"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(folder)
    return folder


def _fingerprint(compiler: str) -> str:
    """Of all that decides what is compiled: the source, the flags, the compiler, the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    processor = sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))})
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=20, check=True).stdout
    parts = (_SOURCE.read_text(encoding="utf-8"), *_FLAGS, compiler, version, platform.machine(), *processor)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def _compile(compiler: str, path: Path) -> None:
    """Compile to ``path``, which is there whole or not at all."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        for tuning in _TUNING:
            flags = _FLAGS if tuning is None else [*_FLAGS, tuning]
            done = subprocess.run(
                [compiler, *flags, "-o", str(made), str(_SOURCE), "-lm"], capture_output=True, timeout=120, check=False
            )
            if done.returncode == 0:
                made.replace(path)
                return
    raise OSError(f"{compiler} does not compile {_SOURCE.name}")
