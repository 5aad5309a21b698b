"""Devices, and torch's CPU threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from toyguide.errors import InputError, unknown

__all__ = ["DEVICES", "one_torch_thread", "resolve_device"]

DEVICES = ("auto", "cpu", "cuda")


def resolve_device(device: str) -> torch.device:
    """The device by name; ``auto`` is the GPU if one is available, else the CPU.

    Raises:
        InputError: If the name is unknown or the device is not available.
    """
    if device not in DEVICES:
        raise unknown("device", device, DEVICES)
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise InputError("device 'cuda': no CUDA device is available here; expected auto or cpu")
    return torch.device("cuda" if device != "cpu" and available else "cpu")


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Runs torch's CPU operations on one thread, for callers that use threads of their own.

    Torch's threads synchronise after every operation and spin while they wait. A caller whose threads each process a
    chunk of the points synchronises once.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
