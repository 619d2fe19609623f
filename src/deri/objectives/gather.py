"""Gathering a batch, and sums, across processes with exact gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def gather(x: Tensor, sizes: Sequence[int] | None = None) -> Tensor:
    """Concatenate ``x`` (B, …) of all processes in rank order: (ΣB, …); ``x`` itself in a single process.

    Every process must compute the *same* function of the gathered batch, as a global contrastive loss is. Each then
    holds the full derivative for its own rows; that is scaled by the number of processes, because gradients of the
    weights are averaged over processes afterwards. Together they equal those of one process with the whole batch.
    ``sizes`` are the rows of each process; None: all have as many.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return x
    gathered: Tensor = _Gather.apply(x, list(sizes or [len(x)] * dist.get_world_size()))
    return gathered


def summed(x: Tensor) -> Tensor:
    """The sum of ``x`` over processes, which all receive; ``x`` itself in a single process.

    The derivative is the sum of what all send back: as with :func:`gather`, gradients that are averaged over processes
    afterwards equal those of one process.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return x
    total: Tensor = _Sum.apply(x)
    return total


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].clone()
        dist.all_reduce(grad)
        return grad


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, sizes: list[int]) -> Tensor:
        start = sum(sizes[: dist.get_rank()])
        ctx.rows = slice(start, start + len(x))
        missing = max(sizes) - len(x)  # messages of one size
        padded = torch.cat([x, x.new_zeros(missing, *x.shape[1:])]) if missing else x.contiguous()
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0][ctx.rows] * dist.get_world_size(), None
