"""The device that computes."""

from __future__ import annotations

import torch

from deri.errors import DeriError


def choose_device(name: str | torch.device | None = None) -> torch.device:
    """``cpu``, ``cuda`` or ``cuda:N``; the GPU where there is one when not given.

    Raises:
        DeriError: the name is none, or there is no such GPU.
    """
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeriError(f"--device {name}: choose cpu, cuda or cuda:N") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count <= (device.index or 0):
            there = f"torch sees {count} GPUs, numbered from 0" if count else "torch sees no GPU here"
            raise DeriError(f"--device {name}: {there}; use --device cpu")
    return device
