"""Where tensors live."""

from __future__ import annotations

import torch

from toyguide.errors import InputError, unknown

__all__ = ["DEVICES", "resolve_device"]

DEVICES = ("auto", "cpu", "cuda")


def resolve_device(device: str) -> torch.device:
    """The device by name; ``auto`` is the GPU where there is one.

    Raises:
        InputError: If the name is unknown or there is no such device here.
    """
    if device not in DEVICES:
        raise unknown("device", device, DEVICES)
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise InputError("device 'cuda': no CUDA device is available here; expected auto or cpu")
    return torch.device("cuda" if device != "cpu" and available else "cpu")
