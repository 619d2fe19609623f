"""Modules of a model whose batch is spread over processes, or over parts that are computed one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from deri.models.layers import DropPath
from deri.objectives.gather import summed


@dataclass
class Drawn:
    """Which values dropout keeps of the whole batch of a step, a bit each, for parts that come after the first.

    They are found by the state of torch's generator before they were drawn, which is set to the state behind them.
    """

    known: dict[Any, tuple[np.ndarray, torch.Size, Tensor]] = field(default_factory=dict)

    def rows(self, part: slice, draw: Callable[[], Tensor], *about: Any) -> Tensor:
        """Rows ``part`` of the values other than 0 that ``draw`` returns, bool; ``about`` tells draws apart."""
        key = (torch.get_rng_state().numpy().tobytes(), *about)
        if key not in self.known:
            kept = draw().ne(0)
            bits = np.packbits(kept.reshape(len(kept), -1).numpy(), axis=1)
            self.known[key] = bits, kept.shape[1:], torch.get_rng_state()
        bits, shape, after = self.known[key]
        torch.set_rng_state(after)
        return torch.from_numpy(np.unpackbits(bits[part], axis=1, count=shape.numel())).view(-1, *shape).bool()


@dataclass
class Rows:
    """Which rows of the whole batch are being computed.

    ``drawn``: where they are computed in several parts; whoever calls the model makes it anew for each batch.
    """

    part: slice
    total: int
    drawn: Drawn | None = None

    def are(self, n: int) -> bool:
        """Whether they are ``n``."""
        return self.part.stop - self.part.start == n


def spread(model: nn.Module, rows: Rows, *, batchnorm: bool) -> None:
    """Let dropout draw for the whole batch, of which ``rows`` says what is computed, so that two parts equal one.

    Parameters, buffers and names stay. The text encoder keeps its own dropout: its rows are windows of texts.

    Args:
        model: changed in place.
        rows: changed by whoever calls the model.
        batchnorm: batch norms become :class:`SyncBatchNorm1d`.
    """
    for name, module in model.named_modules():
        if batchnorm and type(module) is nn.BatchNorm1d:
            module.__class__ = SyncBatchNorm1d
        own = {nn.Dropout: RowDropout, DropPath: RowDropPath}.get(type(module))
        if own is not None and not name.startswith("text_encoder."):
            module.__class__ = own
            module.rows = rows  # type: ignore[assignment]


class RowDropout(nn.Dropout):
    """Dropout that draws for the whole batch; where the first axis is not of its rows, torch's own."""

    rows: Rows

    def forward(self, input: Tensor) -> Tensor:
        """(B, …) → same shape."""
        if not self.training or not self.p or not self.rows.are(len(input)):
            return super().forward(input)
        shape = input.shape[1:]

        def draw() -> Tensor:
            return F.dropout(input.new_ones(self.rows.total, *shape), self.p)

        drawn, part = self.rows.drawn, self.rows.part
        if drawn is None or input.device.type != "cpu" or self.p == 1:
            return input * draw()[part]
        kept = drawn.rows(part, draw, shape, input.dtype, self.p)
        return input * kept.to(input.dtype).div_(1 - self.p)


class RowDropPath(DropPath):
    """Stochastic depth that draws for the whole batch."""

    rows: Rows

    def _draw(self, rows: int, x: Tensor) -> Tensor:
        if not self.rows.are(rows):
            return super()._draw(rows, x)
        return super()._draw(self.rows.total, x)[self.rows.part]


class SyncBatchNorm1d(nn.BatchNorm1d):
    """Batch norm whose training statistics span all processes; also on CPUs, where torch's own does not run.

    Sums are in float64: then they hardly depend on how many processes share them, and neither does what Adam makes of
    gradients near zero.
    """

    def forward(self, input: Tensor) -> Tensor:
        """input: (B, C) or (B, C, n) → same shape; processes may hold different numbers of values."""
        if not self.training or not dist.is_initialized():
            return super().forward(input)
        x = input.float()
        dims = [d for d in range(x.dim()) if d != 1]
        shape = [1, -1] + [1] * (x.dim() - 2)
        own = x.new_full((1,), x.numel() // x.shape[1], dtype=torch.float64)
        total = summed(torch.cat([x.sum(dims, dtype=torch.float64), own]))
        count = total[-1].detach()
        mean = (total[:-1] / count).float()
        centred = x - mean.view(shape)
        variance = summed(centred.square().sum(dims, dtype=torch.float64)) / count
        self._track(mean, variance.float(), count.float())
        scale = self.weight * torch.rsqrt(variance + self.eps).float()
        return (centred * scale.view(shape) + self.bias.view(shape)).to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        momentum = self.momentum if self.momentum is not None else 0.1
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), momentum)
        self.num_batches_tracked += 1
