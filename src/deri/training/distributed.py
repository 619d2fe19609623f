"""One process or many: started by ``torchrun``, over NCCL on GPUs and gloo on CPUs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from deri.errors import DeriError
from deri.models.device import choose_device

T = TypeVar("T")


@dataclass(frozen=True)
class Replica:
    """This process among all that train the same model: ``rank`` of ``world``, on ``device``."""

    rank: int
    world: int
    device: torch.device

    @property
    def main(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for all processes."""
        self.most(0)

    def first(self, compute: Callable[[], T]) -> T:
        """What ``compute`` gives: the main process computes it, then the others, who find on disk what it kept."""
        if not self.main:
            self.barrier()
        value = compute()
        if self.main:
            self.barrier()
        return value

    def most(self, value: int) -> int:
        """The largest ``value`` of all processes, known to each.

        Raises:
            DeriError: another process ended.
        """
        if self.world == 1:
            return value
        shared = torch.tensor(value)
        try:
            dist.all_reduce(shared, dist.ReduceOp.MAX)
        except RuntimeError as error:
            raise DeriError(f"process {self.rank} ends, because another one did: its message says why") from error
        return int(shared)


@dataclass(frozen=True)
class Draws:
    """Random numbers for the B rows of this process, drawn for the global batch: two processes equal one."""

    rows: int
    generator: torch.Generator
    replica: Replica

    def uniform(self, *shape: int) -> Tensor:
        """(B, *shape) in [0, 1)."""
        return self._mine(torch.rand, shape)

    def normal(self, *shape: int) -> Tensor:
        """(B, *shape) standard normal."""
        return self._mine(torch.randn, shape)

    def _mine(self, draw: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        start = self.replica.rank * self.rows
        values = draw(self.replica.world * self.rows, *shape, generator=self.generator)
        return values[start : start + self.rows].to(self.replica.device)


@contextmanager
def join_replicas(device: str | None = None) -> Iterator[Replica]:
    """Join the group that ``torchrun`` started, or be the only process; leave it in the end."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    where = choose_device(device)
    if where == torch.device("cuda"):
        where = torch.device("cuda", local)
    if where.type == "cuda":
        torch.cuda.set_device(where)
    joined = world > 1 and not dist.is_initialized()
    if joined:
        # The text features of a large store are computed by rank 0 while the others wait.
        backend = "cpu:gloo,cuda:nccl" if where.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(hours=4))
    try:
        yield Replica(rank, world, where)
    finally:
        if joined:
            dist.destroy_process_group()


def average_gradients(parameters: Iterable[nn.Parameter], world: int) -> None:
    """Replace gradients by their mean over processes, in one message."""
    if world == 1:
        return
    grads = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in grads])
    dist.all_reduce(flat)
    flat /= world
    offset = 0
    for grad in grads:
        grad.copy_(flat[offset : offset + grad.numel()].view_as(grad))
        offset += grad.numel()


def broadcast_weights(model: nn.Module, world: int) -> None:
    """Start every process from the weights and buffers of rank 0."""
    if world > 1:
        for tensor in [*model.parameters(), *model.buffers()]:
            dist.broadcast(tensor.detach(), 0)


class SyncBatchNorm1d(nn.BatchNorm1d):
    """Batch norm whose training statistics span all processes; also on CPUs, where torch's own does not run."""

    def forward(self, input: Tensor) -> Tensor:
        """input: (B, C) or (B, C, n) → same shape; every process holds as many values."""
        if not self.training or not dist.is_initialized():
            return super().forward(input)
        x = input.float()
        dims = [d for d in range(x.dim()) if d != 1]
        shape = [1, -1] + [1] * (x.dim() - 2)
        count = x.numel() / x.shape[1] * dist.get_world_size()
        mean: Tensor = _AllReduce.apply(x.sum(dims)) / count
        centred = x - mean.view(shape)
        variance: Tensor = _AllReduce.apply(centred.square().sum(dims)) / count
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        with torch.no_grad():
            momentum = self.momentum if self.momentum is not None else 0.1
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), momentum)
            self.num_batches_tracked += 1
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale.view(shape) + self.bias.view(shape)).to(input.dtype)


def synchronise_batchnorm(model: nn.Module) -> None:
    """Turn the model's batch norms into :class:`SyncBatchNorm1d`; parameters, buffers and names stay."""
    for module in model.modules():
        if type(module) is nn.BatchNorm1d:
            module.__class__ = SyncBatchNorm1d


class _AllReduce(torch.autograd.Function):
    """Sum over processes; the derivative of a sum that all receive is the sum of what all send back."""

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
