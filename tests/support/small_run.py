"""A pre-training of seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from deri.progress import Progress
from deri.recipes import Recipe, load_recipe
from deri.store import Store
from deri.training import pretrain

SMALL = [
    "model.base_width=4", "model.dim=32", "model.decoder.hidden=16", "model.decoder.head_dim=8",
    "model.text.pooling=mean", "train.batch_size=16", "train.lr=2e-3", "train.log_steps=1", "train.checkpoint_steps=3",
]  # fmt: skip


def recipe(text_dir: Path, *overrides: str, name: str = "deri") -> Recipe:
    return load_recipe(name, [*SMALL, f"model.text.encoder={text_dir}", *overrides])


def run(store: Path | Sequence[Path | Store], out: Path, content: Recipe, **options: object) -> Path:
    return pretrain(store, out, content, device="cpu", **options)  # type: ignore[arg-type]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "checkpoints" / "last.safetensors")


class StopAt(Progress):
    def __init__(self, step: int) -> None:
        self.step = step

    def update(self, done: int, total: int) -> None:
        if done == self.step:
            raise KeyboardInterrupt
