"""A task: model, objective, and what they need of a batch. The loop sums the named losses it returns."""

from __future__ import annotations

import torch
from torch import Tensor

from deri.models import EcgTextModel
from deri.objectives import PairObjective
from deri.training.batches import Batch
from deri.training.distributed import Process


class PairTask:
    """Contrastive pre-training on ECG–report pairs."""

    def __init__(self, model: EcgTextModel, objective: PairObjective, process: Process) -> None:
        self.model = model
        self.objective = objective
        self.process = process

    def losses(
        self, batch: Batch, generator: torch.Generator, *, everywhere: bool = True
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses to be summed, and all terms for the log.

        Args:
            batch: on the model's device.
            generator: of the random views, in the same state on every process.
            everywhere: contrast over the batches of all processes; False for what one process computes alone.
        """
        output = self.model(
            batch.ecg,
            batch.input_ids,
            batch.attention_mask,
            features=batch.text,
            valid_samples=batch.valid_samples,
            view_noise=self._view_noise(batch, generator, everywhere),
        )
        return self.objective(output, batch.report_ids, findings=batch.findings, everywhere=everywhere)

    def _view_noise(self, batch: Batch, generator: torch.Generator, everywhere: bool) -> tuple[Tensor, Tensor] | None:
        """Draw for the global batch and take this process's rows: two processes then equal one with both batches."""
        if not self.model.random_views:
            return None
        b = len(batch.ecg)
        world, rank = (self.process.world, self.process.rank) if everywhere else (1, 0)
        n = self.model.n_tokens(batch.ecg.shape[-1])
        first, second = (torch.rand(world * b, n, generator=generator)[rank * b : (rank + 1) * b] for _ in range(2))
        return first.to(batch.ecg.device), second.to(batch.ecg.device)
