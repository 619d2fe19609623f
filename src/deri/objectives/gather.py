"""Gathering a batch across processes with exact gradients."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def gather(x: Tensor) -> Tensor:
    """Concatenate ``x`` (B, …) of all processes in rank order: (world·B, …); ``x`` itself in a single process.

    Every process must compute the *same* function of the gathered batch, as a global contrastive loss is. Each then
    holds the full derivative for its own rows; that is scaled by the number of processes, because gradients of the
    weights are averaged over processes afterwards. Together they equal those of one process with the whole batch.
    All processes need equal B.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return x
    gathered: Tensor = _Gather.apply(x)
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        start = dist.get_rank() * ctx.rows
        return grads[0][start : start + ctx.rows] * dist.get_world_size()
