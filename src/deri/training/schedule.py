"""Learning rate as a function of the step alone, so that resuming needs no scheduler state."""

from __future__ import annotations

import math

from deri.progress import Progress
from deri.recipes import schema


def learning_rate(step: int, total: int, config: schema.Train) -> float:
    """Learning rate of 0-based ``step`` out of ``total``.

    ``cosine``: linear warm-up over ``warmup_steps``, then one half cosine down to ``min_lr``.
    ``restarts``: half cosines of ``restart_steps`` (Loshchilov & Hutter 2017), as the released code has.
    ``constant``: ``lr`` after the warm-up.
    """
    if config.schedule == "restarts":
        return _cosine((step % config.restart_steps) / config.restart_steps, config)
    warmup = config.warmup_steps
    if step < warmup:
        return config.lr * (step + 1) / warmup
    if config.schedule == "constant":
        return config.lr
    return _cosine((step - warmup) / max(1, total - warmup), config)


def _cosine(done: float, config: schema.Train) -> float:
    return config.min_lr + (config.lr - config.min_lr) * (1 + math.cos(math.pi * done)) / 2


def with_warmup(config: schema.Train, total: int, progress: Progress) -> schema.Train:
    """``config`` with its warm-up, or with a tenth of a short run of ``total`` steps."""
    if config.schedule == "restarts" or config.warmup_steps <= total // 10:
        return config
    progress.message(f"warm-up over {total // 10} of {total} steps, a tenth, instead of {config.warmup_steps}")
    return config.model_copy(update={"warmup_steps": total // 10})
