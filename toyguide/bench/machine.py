"""What it was measured on: the machine and the versions, without its name or anything else that is private."""

from __future__ import annotations

import datetime
import os
import platform
import shutil
from pathlib import Path
from typing import Any

import torch

from toyguide import __version__

__all__ = ["describe"]


def describe(device: torch.device) -> dict[str, Any]:
    """The date, the machine and the versions, ready for JSON."""
    return {
        "date": datetime.date.today().isoformat(),
        "device": device.type,
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "compiler": any(map(shutil.which, ("c++", "g++", "clang++"))),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "toyguide": __version__,
    }


def _processor() -> str:
    """The processor's own name where the system tells it, else its architecture."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
