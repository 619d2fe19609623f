"""Pre-training as a module of Lightning, with the store, the model and the objective of this package as pieces.

    pip install lightning
    python examples/lightning_pretrain.py STORE [EPOCHS]

On several GPUs the contrast is over the batch of all processes: ``PairObjective`` gathers it with exact gradients.
"""

from __future__ import annotations

import sys
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader

import deri
from deri.models import build_model
from deri.recipes import Recipe, load_recipe


class Pretraining(lightning.LightningModule):
    """A model of a recipe and its objective."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.model = build_model(recipe.model)
        self.objective = deri.losses.PairObjective(recipe.objective)
        self.fs = recipe.model.signal.fs

    def training_step(self, batch: dict[str, Any], _: int) -> Tensor:
        """The sum of the losses of a batch of :class:`deri.StoreDataset`."""
        signal, valid, leads = (batch[name].cpu().numpy() for name in ("signal", "valid_samples", "lead_mask"))
        ecg, valid = self.model.preprocess(signal, self.fs, valid, leads)
        tokens = [part.to(self.device) for part in self.model.text_encoder.tokenize(batch["text"])]
        valid = None if valid is None else valid.to(self.device)
        output = self.model(ecg.to(self.device), *tokens, valid_samples=valid)
        losses, logged = self.objective(output, deri.losses.PairBatch(report_ids=batch["report_id"]))
        self.log_dict(logged)
        return torch.stack(list(losses.values())).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Of what is trained; the text encoder may be frozen."""
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=1e-3)


def train(store: str, epochs: int = 1, batch_size: int = 16) -> deri.DERI:
    """Train a small model on the pairs of a store."""
    lightning.seed_everything(0)
    module = Pretraining(load_recipe("demo"))
    data = deri.StoreDataset(store, "train", fs=module.fs, reports=True)
    trainer = lightning.Trainer(max_epochs=epochs, logger=False, enable_checkpointing=False)
    trainer.fit(module, DataLoader(data, batch_size, shuffle=True, drop_last=True))
    return module.model


if __name__ == "__main__":
    train(sys.argv[1], *map(int, sys.argv[2:])).save_pretrained("model")
