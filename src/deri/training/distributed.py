"""One process or many, on one node or several: started by ``torchrun``, over NCCL on GPUs and gloo on CPUs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, _set_pg_timeout
from torch.distributed.rendezvous import rendezvous

from deri.errors import DeriError
from deri.models.device import choose_device
from deri.training.heartbeat import Heartbeat

T = TypeVar("T")


@dataclass(frozen=True)
class Replica:
    """This process among all that train the same model: ``rank`` of ``world``, on ``device``."""

    rank: int
    world: int
    device: torch.device
    heartbeat: Heartbeat | None = None

    @property
    def main(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """In the block a process that hangs ends all, unless it gives a :meth:`beat` from time to time."""
        with self.heartbeat or nullcontext():
            yield

    def beat(self) -> None:
        """Say that this process goes on."""
        if self.heartbeat is not None:
            self.heartbeat.beat()

    def part(self, n: int) -> slice:
        """The rows of this process among the ``n`` of a batch; no process has two more than another."""
        return slice(self.rank * n // self.world, (self.rank + 1) * n // self.world)

    def sizes(self, n: int) -> list[int]:
        """How many rows of a batch of ``n`` each process has."""
        parts = (replace(self, rank=rank).part(n) for rank in range(self.world))
        return [part.stop - part.start for part in parts]

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
        """The largest ``value`` of all processes, known to each."""
        if self.world == 1:
            return value
        shared = torch.tensor(value)
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return int(shared)


@dataclass(frozen=True)
class Draws:
    """Random numbers for the B rows of this process, drawn for all ``total`` of the batch: two processes equal one."""

    rows: slice
    total: int
    generator: torch.Generator
    device: torch.device

    def uniform(self, *shape: int) -> Tensor:
        """(B, *shape) in [0, 1)."""
        return self._mine(torch.rand, shape)

    def normal(self, *shape: int) -> Tensor:
        """(B, *shape) standard normal."""
        return self._mine(torch.randn, shape)

    def _mine(self, draw: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        return draw(self.total, *shape, generator=self.generator)[self.rows].to(self.device)


@contextmanager
def join_replicas(device: str | None = None, timeout: float = 600.0) -> Iterator[Replica]:
    """Join the group that ``torchrun`` started, or be the only process; leave it in the end.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``; the GPU where there is one when not given.
        timeout: seconds without a sign after which a process hangs, see :meth:`Replica.watched`.

    Raises:
        DeriError: another process ended, so that this one cannot go on, or the others were not reached in ``timeout``.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    where = choose_device(device)
    if where == torch.device("cuda"):
        where = torch.device("cuda", local)
    if where.type == "cuda":
        torch.cuda.set_device(where)
    joined, heartbeat = world > 1 and not dist.is_initialized(), None
    if joined:
        # The text features of a large store are computed by rank 0 while the others wait.
        patience = timedelta(hours=4)
        limit = timedelta(seconds=timeout)
        backend = "cpu:gloo,cuda:nccl" if where.type == "cuda" else "gloo"
        try:
            shared, _, _ = next(rendezvous("env://", timeout=limit))
            # torchrun's store outlives its processes, with the addresses of those that were started before.
            attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            store = PrefixStore(f"attempt {attempt} of {world}", shared)
            dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=limit)
        except RuntimeError as error:
            raise DeriError(
                f"process {rank} did not reach the others within {timeout:g} s (train.timeout): start it again, as "
                "torchrun --max-restarts does; if it stays so, look for a firewall between the nodes"
            ) from error
        # Only from here on: processes that miss each other while they join would wait for hours.
        store.set_timeout(patience)
        _set_pg_timeout(patience)
        heartbeat = Heartbeat(store, rank, world, timeout)
    try:
        yield Replica(rank, world, where, heartbeat)
    except RuntimeError as error:
        if world > 1 and _lost(error):
            raise DeriError(f"process {rank} ends, because another one did: its message says why") from error
        raise
    finally:
        if joined:
            dist.destroy_process_group()


def _lost(error: RuntimeError) -> bool:
    """Whether the error is of a message to a process that is not there any more."""
    return isinstance(error, dist.DistError) or any(
        word in str(error) for word in ("gloo", "Connection closed", "Connection reset", "NCCL")
    )


def average_gradients(parameters: Iterable[nn.Parameter], world: int) -> None:
    """Replace gradients by their mean over processes, in one message."""
    grads = [p.grad for p in parameters if p.grad is not None]
    if world == 1 or any(map(_sharded, grads)):  # whose mean it already is
        return
    flat = torch.cat([g.reshape(-1) for g in grads])
    dist.all_reduce(flat)
    flat /= world
    offset = 0
    for grad in grads:
        grad.copy_(flat[offset : offset + grad.numel()].view_as(grad))
        offset += grad.numel()


def shard(module: nn.Module, world: int, method: str) -> None:
    """Keep a part of the weights, gradients and moments of ``module`` in each process (FSDP).

    Each block of it, an item of a list of modules, is put together where it computes, and the rest where ``method`` is
    called. All processes must call it together.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(next(module.parameters()).device.type, (world,))
    blocks = [block for part in module.modules() if isinstance(part, nn.ModuleList) for block in part]
    for one in (*blocks, module):
        fully_shard(one, mesh=mesh, reshard_after_forward=True)
    register_fsdp_forward_method(module, method)


def _sharded(value: Tensor) -> bool:
    return hasattr(value, "full_tensor")


def whole(value: Tensor) -> Tensor:
    """A tensor of which each process holds a part, put together on the CPU by all; another one as it is."""
    full: Tensor = value.detach().full_tensor().cpu() if _sharded(value) else value  # type: ignore[attr-defined]
    return full


def part_of(full: Tensor, value: Tensor) -> Tensor:
    """What this process holds of ``full`` where ``value`` is its tensor; all of it where that is whole."""
    if not _sharded(value):
        return full
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(value, DTensor)
    at = full.to(value.device)
    return distribute_tensor(at, value.device_mesh, value.placements, src_data_rank=None)


def broadcast_weights(model: nn.Module, world: int) -> None:
    """Start every process from the weights and buffers of rank 0."""
    if world > 1:
        for tensor in [*model.parameters(), *model.buffers()]:
            dist.broadcast(tensor.detach(), 0)
