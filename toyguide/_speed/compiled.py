"""Compiled loops for the hot paths, where the machine has a C compiler. Without one, or with ``TOYGUIDE_NATIVE=0``,
callers compute the same in torch.

``kernels.c`` is compiled for this processor at the first use, which takes about a second, and kept in the user's cache
folder. A call releases the GIL and runs on a thread pool whose idle threads sleep. Torch's own threads spin, and slow
each other down where other programs use the same cores.
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

__all__ = ["Work", "available", "energy_gradient", "loops", "mixture", "run_parallel", "without"]

Work = Callable[[int, int], None]
"""Processes ``points[begin:end]``, given begin and end."""

_FOLDER = Path(__file__).parent
_SOURCE = _FOLDER / "kernels.c"
_FLAGS = ["-O3", "-std=gnu11", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared"]
_TUNING = ["-march=native", "-mcpu=native", None]  # compilers for different processors accept different ones

# Torch's default at the start of the process, so that OMP_NUM_THREADS counts here too.
_THREADS = torch.get_num_threads()


@lru_cache(maxsize=1)
def loops() -> ctypes.CDLL | None:
    """The compiled functions, or None where they are unavailable."""
    if os.environ.get("TOYGUIDE_NATIVE", "1") == "0":
        return None
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CC", "cc"), "cc", "gcc", "clang"))), None)
    if compiler is None:
        return None
    try:
        folder, stem = _folder(), f"kernels-{_fingerprint(compiler)}"
        found = _intact(folder, stem)
        return _declared(ctypes.CDLL(str(_compile(compiler, folder, stem) if found is None else found)))
    except (OSError, AttributeError, RuntimeError, subprocess.SubprocessError):
        return None  # torch gives the same results


def available(x: Tensor) -> bool:
    """Whether there are compiled loops for points on the device of ``x``."""
    return x.is_cpu and not _local.without and loops() is not None


def mixture(
    planes: Tensor,
    x: Tensor,
    noise: Tensor,
    log_density: Tensor | None = None,
    score: Tensor | None = None,
    hessian: Tensor | None = None,
) -> Work:
    """The log-density, score and Hessian of a mixture in two dimensions; see ``mixture.c``.

    All tensors are contiguous and of one dtype, float32 or float64. A result that is None is not computed.

    Args:
        planes: The components' constants, with shape ``(11, K)``.
        x: Points, with shape ``(n, 2)``, finite.
        noise: Sigma squared of each, with shape ``(n,)``.
        log_density: Is written, with shape ``(n,)``.
        score: Is written, with shape ``(n, 2)``.
        hessian: Is written, with shape ``(n, 2, 2)``.
    """
    library, count = loops(), planes.shape[1]
    assert library is not None
    function = library.mixture_float if x.dtype == torch.float32 else library.mixture_double

    def work(begin: int, end: int) -> None:
        buffer = torch.empty(4 * count, dtype=x.dtype, device="cpu")
        results = (_at(log_density, begin), _at(score, 2 * begin), _at(hessian, 4 * begin))
        function(end - begin, count, _at(x, 2 * begin), _at(noise, begin), _at(planes), _at(buffer), *results)

    return work


def energy_gradient(
    weights: Tensor, width: int, layers: int, x: Tensor, level: tuple[Tensor, Tensor, Tensor], out: Tensor
) -> Work:
    """The score of an energy network; see ``kernels.c``. All tensors are contiguous float32.

    Args:
        weights: Of the layers, in the order of their use.
        width: The features of a layer, a multiple of 16.
        layers: The number of layers before the last, at least one.
        x: Points, with shape ``(n, d)``, finite.
        level: Each axis's scale (n or 1, d), the inputs after x* (n or 1, k) and the strength (n or 1, 1).
        out: Is written, with shape ``(n, d)``.
    """
    library, dim = loops(), x.shape[1]
    assert library is not None
    shared = len(level[0]) == 1
    sizes = (dim, dim + level[1].shape[1], width, layers, int(shared))

    def work(begin: int, end: int) -> None:
        own = [_at(part, 0 if shared else begin * part.shape[1]) for part in level]
        arguments = (*sizes, _at(x, begin * dim), *own, _at(weights), _at(out, begin * dim))
        if library.gradient(end - begin, *arguments):
            raise MemoryError

    return work


def run_parallel(work: Work, n: int, smallest: int) -> None:
    """Call ``work`` on ranges that make up ``0 … n``, one per thread.

    Args:
        work: Mostly without the GIL.
        n: The number of items.
        smallest: The smallest range worth its own thread.
    """
    parts = max(1, min(_THREADS, n // smallest))
    ends = [n * i // parts for i in range(parts + 1)]
    others = [_pool().submit(work, *ends[i : i + 2]) for i in range(1, parts)]
    work(0, ends[1])
    for other in others:
        other.result()


@contextmanager
def without() -> Iterator[None]:
    """Compute without the compiled loops, on the calling thread."""
    before, _local.without = _local.without, True
    try:
        yield
    finally:
        _local.without = before


class _Local(threading.local):
    without = False


_local = _Local()


def _at(x: Tensor | None, offset: int = 0) -> int | None:
    """The address of a tensor's element ``offset``; null for None."""
    return None if x is None else x.data_ptr() + x.element_size() * offset


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    """The library with the types of its functions' arguments."""
    size, number, address = ctypes.c_long, ctypes.c_int, ctypes.c_void_p
    for mixture in (library.mixture_float, library.mixture_double):
        mixture.argtypes = [size, size, *[address] * 7]
    library.gradient.argtypes = [size, *[number] * 5, *[address] * 6]
    return library


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, _THREADS - 1), "toyguide-compiled")


if hasattr(os, "register_at_fork"):  # a child process has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)


def _folder() -> Path:
    """The cache folder. Nobody else may write to it, since its files are executed."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "toyguide"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(folder)
    return folder


def _fingerprint(compiler: str) -> str:
    """A hash of everything that decides the result: the sources, the flags, the compiler, the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    processor = sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))})
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=20, check=True).stdout
    sources = [path.read_text(encoding="utf-8") for path in sorted(_FOLDER.glob("*.c"))]
    return _digest("\0".join((*sources, *_FLAGS, compiler, version, platform.machine(), *processor)).encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:20]


def _intact(folder: Path, stem: str) -> Path | None:
    """The cached library whose content still has the hash in its name; damaged ones are removed.

    Loading a truncated library would end the process with SIGBUS.
    """
    for path in folder.glob(f"{stem}-*.so"):
        if path.stem == f"{stem}-{_digest(path.read_bytes())}":
            return path
        path.unlink(missing_ok=True)
    return None


def _compile(compiler: str, folder: Path, stem: str) -> Path:
    """Compile into the folder and return the path, whose name ends with the hash of the content."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        made = Path(temporary) / "kernels.so"
        for tuning in _TUNING:
            flags = _FLAGS if tuning is None else [*_FLAGS, tuning]
            done = subprocess.run(
                [compiler, *flags, "-o", str(made), str(_SOURCE), "-lm"], capture_output=True, timeout=120, check=False
            )
            if done.returncode == 0:
                with made.open("rb+") as file:
                    path = folder / f"{stem}-{_digest(file.read())}.so"
                    os.fsync(file.fileno())
                return made.replace(path)
    raise OSError(f"{compiler} does not compile {_SOURCE.name}")
