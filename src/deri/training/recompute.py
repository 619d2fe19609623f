"""Less memory for more time: activations, or whole parts of a batch, are computed a second time for the gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from deri.models.output import Output

B = TypeVar("B")


@contextmanager
def unmoved_statistics(model: nn.Module) -> Iterator[None]:
    """In the block the batch norms of ``model`` use the statistics of their batch, and do not keep them."""
    # With a momentum of 0, and not without running statistics: the graph must hold the same tensors.
    before = [
        (module, module.momentum, module.num_batches_tracked.clone())
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.num_batches_tracked is not None
    ]
    for module, _, _ in before:
        module.momentum = 0.0
    try:
        yield
    finally:
        for module, momentum, batches in before:
            module.momentum = momentum
            cast(Tensor, module.num_batches_tracked).copy_(batches)


def checkpoint_blocks(blocks: Iterable[nn.Module]) -> None:
    """Let each block keep its input alone in training; the backward pass computes the rest of it again, exactly."""
    for block in blocks:
        contexts = partial(_contexts, block)
        block.forward = partial(  # type: ignore[method-assign]
            checkpoint, block.forward, use_reentrant=False, context_fn=contexts
        )


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), unmoved_statistics(block)


def cached_backward(
    pieces: Sequence[B],
    embed: Callable[[B], Output],
    loss: Callable[[Output], Tensor],
    model: nn.Module,
) -> Output:
    """Add the gradients of one loss over all pieces, with the memory of one; returns the output of all, detached.

    Each piece is embedded without a graph; the loss over all embeddings gives their gradients; then each piece is
    embedded again with a graph, which these gradients go back through (Gao et al. 2021, gradient caching). The last
    piece keeps the graph of its first time.

    Args:
        pieces: of a batch.
        embed: the output of a piece; it must draw the same random numbers when it is called again.
        loss: a scalar, scaled as the gradients shall be, of the output of all.
        model: whose batch norms count a piece once. Their statistics are those of each piece.
    """
    with torch.no_grad():
        parts = [embed(piece) for piece in pieces[:-1]]
    last = embed(pieces[-1])
    parts.append(last.map(Tensor.detach))
    whole = parts[0].map(lambda *values: torch.cat(values).requires_grad_(values[0].is_floating_point()), *parts[1:])
    loss(whole).backward()  # type: ignore[no-untyped-call]
    ends = np.cumsum([0, *(len(part.ecg_aligned) for part in parts)])
    *others, own = map(slice, ends, ends[1:])
    _backward(last, whole, own)
    del last  # and with it its graph
    with unmoved_statistics(model):
        for piece, rows in zip(pieces, others, strict=False):
            _backward(embed(piece), whole, rows)
    return whole.map(Tensor.detach)


def _backward(output: Output, whole: Output, rows: slice) -> None:
    """Let the gradients of ``rows`` of ``whole`` go back through ``output``, where it has a graph."""
    outputs: list[Tensor] = []
    grads: list[Tensor] = []

    def collect(value: Tensor, over_all: Tensor) -> Tensor:
        if value.requires_grad and over_all.grad is not None:
            outputs.append(value)
            grads.append(over_all.grad[rows])
        return value

    output.map(collect, whole)
    torch.autograd.backward(outputs, grads)
