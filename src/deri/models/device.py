"""Where models compute: the device that a name means, and how values get there."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from deri.errors import DeriError

T = TypeVar("T")


def choose_device(name: str | None = None) -> torch.device:
    """The device called ``name`` (``cpu``, ``cuda``, ``cuda:N``); None: the GPU where there is one, else the CPU.

    Raises:
        DeriError: no such name, or no such GPU.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    try:
        device = torch.device(name or ("cuda" if gpus else "cpu"))
    except RuntimeError:
        raise DeriError(f"--device {name}: name cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise DeriError(f"--device {name}: torch {torch.__version__} finds {gpus or 'no'} GPU here; use cpu")
    return device


def to_device(value: T, device: torch.device) -> T:
    """``value`` with its tensors on ``device``: a tensor, or a tuple or dataclass of such; other values stay."""
    moved: Any = value
    if isinstance(value, Tensor):
        moved = value.to(device, non_blocking=True)
    elif is_dataclass(value) and not isinstance(value, type):
        moved = replace(value, **{f.name: to_device(getattr(value, f.name), device) for f in fields(value)})
    elif isinstance(value, tuple):
        moved = tuple(to_device(part, device) for part in value)
    result: T = moved
    return result
