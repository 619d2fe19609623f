"""The published linear probe: one linear layer by AdamW with a cosine schedule, on features computed once.

As the papers state it: learning rate 0.01, batches of 16, 100 epochs, 5 of them warm-up, binary cross-entropy, and the
epoch of the best macro AUROC on validation. Flaws of the released code that the papers do not state are left out: the
encoder's batch-norm statistics do not move, the schedule spans the whole run, and test decides nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from deri.evaluation.metrics import aurocs
from deri.evaluation.task import Split


@dataclass(frozen=True)
class Training:
    """How the linear layer is trained: the last batch of an epoch is smaller, and the warm-up is part of the epochs."""

    epochs: int = 100
    warmup_epochs: int = 5
    batch: int = 16
    lr: float = 0.01
    # Not stated for the probe; that of the published pre-training. At this size it does nothing.
    weight_decay: float = 1e-8


def fit_published(
    train: Split, val: Split, *, seed: int, training: Training | None = None
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Train a linear layer and keep the first epoch of the highest validation macro AUROC.

    Where no class has an AUROC on validation, the lowest validation loss decides. ``seed`` is that of the initial
    weights and of the order of the records. Returns weights (classes, d) and biases (classes,), float64, on features as
    they are, and the epoch (1-based).
    """
    how = training or Training()
    (n, d), classes = train.features.shape, train.labels.shape[1]
    generator = torch.Generator().manual_seed(seed)
    x, x_val = _with_ones(train.features), _with_ones(val.features)  # the bias is the weight of a feature that is 1
    y = torch.from_numpy(np.ascontiguousarray(train.labels, np.float32))
    bound = 1 / math.sqrt(d)
    weight = (torch.rand(classes, d + 1, generator=generator) * 2 - 1) * bound  # as torch.nn.Linear starts
    first, second = torch.zeros_like(weight), torch.zeros_like(weight)
    steps_per_epoch = -(-n // how.batch)
    total, warmup = how.epochs * steps_per_epoch, how.warmup_epochs * steps_per_epoch
    best: tuple[float, int, torch.Tensor] | None = None
    step = 0
    for epoch in range(1, how.epochs + 1):
        order = torch.randperm(n, generator=generator)
        for rows in order.split(how.batch):
            x_batch = x[rows]
            residual = (x_batch @ weight.T).sigmoid_().sub_(y[rows]).div_(len(rows) * classes)
            rate = _rate(step, total, warmup, how.lr)
            step += 1
            _adamw(weight, residual.T @ x_batch, first, second, step, rate, how.weight_decay)
        value = _quality((x_val @ weight.T).double().numpy(), val.labels)
        if best is None or value > best[0]:
            best = (value, epoch, weight.clone())
    assert best is not None
    chosen = best[2].numpy()
    return chosen[:, :-1].astype(np.float64), chosen[:, -1].astype(np.float64), {"epoch": best[1]}


def _with_ones(features: np.ndarray) -> torch.Tensor:
    x = torch.from_numpy(np.ascontiguousarray(features, np.float32))
    return torch.cat([x, x.new_ones(len(x), 1)], dim=1)


def _rate(step: int, total: int, warmup: int, lr: float) -> float:
    """Learning rate of 0-based ``step``: linear warm-up, then half a cosine to 0."""
    if step < warmup:
        return lr * (step + 1) / warmup
    return lr * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup))) / 2


def _adamw(
    weight: torch.Tensor,
    gradient: torch.Tensor,
    first: torch.Tensor,
    second: torch.Tensor,
    step: int,
    lr: float,
    weight_decay: float,
) -> None:
    """One AdamW step (Loshchilov & Hutter 2019) in place, by hand: a step of 16 records is all overhead otherwise."""
    first.mul_(0.9).add_(gradient, alpha=0.1)
    second.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
    weight.mul_(1 - lr * weight_decay)
    denominator = (second / (1 - 0.999**step)).sqrt_().add_(1e-8)
    weight.addcdiv_(first, denominator, value=-lr / (1 - 0.9**step))


def _quality(logits: np.ndarray, labels: np.ndarray) -> float:
    """Macro AUROC; where no class has one, minus the mean cross-entropy minus 1, which is below any AUROC."""
    values = aurocs(labels, logits)
    if np.isfinite(values).any():
        return float(np.nanmean(values))
    return -1 - float((np.logaddexp(0, logits) - labels * logits).mean()) if labels.size else -1.0
