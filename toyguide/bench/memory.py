"""The largest memory of one piece of work, in a process of its own: ``python -m toyguide.bench.memory cpu 1000000``.

The work is to draw points of the fractal and to compute the exact score at each with a noise level of its own. For a
million points, a number for each pair of a point and a component would take gigabytes.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import torch

from toyguide.datasets import load_dataset

__all__ = ["peak_bytes"]

_STATUS = Path("/proc/self/status")


def peak_bytes(device: torch.device, points: int) -> int:
    """How much more memory the work takes at its worst than the library and the dataset; on a GPU, the GPU's memory."""
    command = [sys.executable, "-m", "toyguide.bench.memory", device.type, str(points)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _measure(device: torch.device, points: int) -> int:
    data = load_dataset("fractal")
    field, generator = data.field("A"), torch.Generator().manual_seed(0)
    before = _peak(device)
    sigma = data.noise.sample(points, generator).to(device)
    field.score(field.sample(points, generator=generator).float().to(device), sigma)
    return _peak(device) - before


def _peak(device: torch.device) -> int:
    """The most bytes that this process has had so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if _STATUS.is_file():
        # Where there is this file, getrusage counts from before the exec: the memory of the parent process, too.
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    print(_measure(torch.device(sys.argv[1]), int(sys.argv[2])))
