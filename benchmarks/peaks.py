"""What a device can do, and what a step of training asks of it; used by other benchmarks."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from deri.progress import Progress


class Products(Progress):
    """Counts the products of the second step of a training: ``flops``."""

    def __init__(self) -> None:
        self.counter = FlopCounterMode(display=False)

    def update(self, done: int, total: int) -> None:
        if done == 1:
            self.counter.__enter__()
        elif done == 2:
            self.counter.__exit__(None, None, None)

    @property
    def flops(self) -> int:
        return int(self.counter.get_total_flops())


def matrix_peak(device: torch.device, precision: str) -> float:
    """TFLOP/s of a large matrix product in fp32 (TF32 off) or bf16."""
    n = 8192 if device.type == "cuda" else 1024
    a = torch.randn(n, n, device=device).to({"fp32": torch.float32, "bf16": torch.bfloat16}[precision])
    return round(2 * n**3 / _seconds(lambda: a @ a, device) / 1e12, 4)


def copy_peak(device: torch.device) -> float:
    """GB/s of a copy, read and written."""
    source = torch.empty((8192 if device.type == "cuda" else 512) ** 2 * 4, device=device)
    return round(2 * 4 * source.numel() / _seconds(source.clone, device) / 1e9, 4)


def wait(device: torch.device) -> None:
    """Until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    """The shortest of five runs, after one that warms up."""
    times = []
    for _ in range(6):
        wait(device)
        start = time.perf_counter()
        run()
        wait(device)
        times.append(time.perf_counter() - start)
    return min(times[1:])
