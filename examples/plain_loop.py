"""Pre-training in a loop of one's own: the store, the model and the objective of this package as pieces.

    python examples/plain_loop.py STORE [STEPS]

`deri pretrain` does more: several processes, mixed precision, a schedule, features of texts computed once, resuming.
"""

from __future__ import annotations

import sys

import torch
from torch.utils.data import DataLoader

import deri
from deri.models import build_model
from deri.recipes import load_recipe


def train(store: str, steps: int = 20, batch_size: int = 16) -> list[float]:
    """Train a small model on the pairs of a store; returns the loss of each step."""
    recipe = load_recipe("demo")
    model = build_model(recipe.model)
    objective = deri.losses.PairObjective(recipe.objective)
    data = deri.StoreDataset(store, "train", fs=recipe.model.signal.fs, reports=True)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    torch.manual_seed(0)
    history: list[float] = []
    model.train()
    while len(history) < steps:
        for batch in DataLoader(data, batch_size, shuffle=True, drop_last=True):
            valid, leads = batch["valid_samples"].numpy(), batch["lead_mask"].numpy()
            ecg, valid = model.preprocess(batch["signal"].numpy(), data.fs, valid, leads)
            output = model(ecg, *model.text_encoder.tokenize(batch["text"]), valid_samples=valid)
            losses, _ = objective(output, deri.losses.PairBatch(report_ids=batch["report_id"]))
            loss = torch.stack(list(losses.values())).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            history.append(loss.item())
            if len(history) == steps:
                break
    return history


if __name__ == "__main__":
    losses = train(sys.argv[1], *map(int, sys.argv[2:]))
    print("\n".join(f"step {i + 1}: {loss:.3f}" for i, loss in enumerate(losses)))
