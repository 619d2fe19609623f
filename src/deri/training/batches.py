"""Batches of ECG–report pairs from a store, in an order that depends on seed and epoch alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from deri.errors import DeriError
from deri.models import EcgTextModel, TextFeatures
from deri.recipes import schema
from deri.store import Store
from deri.store import TextFeatures as TextFeatureCache


@dataclass
class Batch:
    """B pairs: ``ecg`` (B, 12, n), ``report_ids`` (B,), ``valid_samples`` (B,) or None, and ``text`` or token ids."""

    ecg: Tensor
    report_ids: Tensor
    valid_samples: Tensor | None = None
    text: TextFeatures | None = None
    input_ids: Tensor | None = None
    attention_mask: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The batch on ``device``."""
        if device.type == "cpu":
            return self

        def move(x: Tensor) -> Tensor:
            return x.to(device, non_blocking=True)

        moved = {
            field.name: move(value) for field in fields(self) if isinstance(value := getattr(self, field.name), Tensor)
        }
        text = self.text and TextFeatures(move(self.text.pooled), move(self.text.tokens), move(self.text.mask))
        return replace(self, **moved, text=text)


class Pairs:
    """Turns rows of a store into a :class:`Batch` as a model needs it."""

    def __init__(self, store: Store, model: EcgTextModel, cache: TextFeatureCache | None) -> None:
        self.store = store
        self.model = model
        self.cache = cache
        self._report_ids = store.index["report_id"].to_numpy(np.int64)
        self._valid = store.index["valid_samples"].to_numpy(np.int64)

    def rows(self, split: str) -> np.ndarray:
        """Rows of ``split`` that have a report, int64; of a long recording every stored window is a row."""
        rows = self.store.rows(split, windows=True)
        return rows[self._report_ids[rows] >= 0]

    def batch(self, rows: np.ndarray) -> Batch:
        """Read ``rows`` (B,) into memory."""
        valid = self._valid[rows]
        full = bool((valid >= self.store.meta["samples"]).all())
        ecg, valid_here = self.model.preprocess(
            self.store.signals(rows),
            float(self.store.meta["fs"]),
            None if full else valid,
            self.store.lead_mask(rows),
        )
        ids = self._report_ids[rows]
        batch = Batch(ecg, torch.from_numpy(ids), valid_here)
        if self.cache is not None:
            tokens, mask = self.cache.tokens(ids)
            batch.text = TextFeatures(
                torch.from_numpy(self.cache.pooled(ids)), torch.from_numpy(tokens), torch.from_numpy(mask)
            )
        else:
            texts = [self.store.reports[i] for i in ids]
            batch.input_ids, batch.attention_mask = self.model.text_encoder.tokenize(texts)
        return batch


@dataclass(frozen=True)
class Order:
    """Which rows form which batch, for every process."""

    rows: np.ndarray
    batch_size: int
    rank: int
    world: int
    seed: int
    shuffle: str

    @classmethod
    def make(cls, rows: np.ndarray, config: schema.Train, rank: int, world: int) -> Order:
        """An order over ``rows``; a store smaller than one batch is one batch. An incomplete last batch is left out."""
        if len(rows) < 2 * world:
            raise DeriError(
                f"the training split has {len(rows)} records with a report; at least {2 * world} are needed "
                "(contrastive batches): check the splits with deri info STORE"
            )
        return cls(rows, min(config.batch_size, len(rows) // world), rank, world, config.seed, config.shuffle)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return len(self.rows) // (self.batch_size * self.world)

    def step_rows(self, step: int) -> np.ndarray:
        """Rows of this process in 0-based ``step``, (batch_size,)."""
        epoch, i = divmod(step, self.steps_per_epoch)
        order = self._permutation(epoch if self.shuffle == "epoch" else 0)
        start = (i * self.world + self.rank) * self.batch_size
        return self.rows[order[start : start + self.batch_size]]

    def _permutation(self, epoch: int) -> np.ndarray:
        # Kept for one epoch: a permutation of a million rows takes as long as a step.
        cached: tuple[int, np.ndarray] | None = self.__dict__.get("_last")
        if cached is None or cached[0] != epoch:
            cached = (epoch, np.random.default_rng([self.seed, epoch]).permutation(len(self.rows)))
            self.__dict__["_last"] = cached
        return cached[1]


T = TypeVar("T")


def prefetch(make: Callable[[int], T], steps: range, ahead: int) -> Iterator[T]:
    """``make(step)`` for every step, up to ``ahead`` of them computed in a thread before they are asked for."""
    if ahead < 1:
        yield from map(make, steps)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="deri-batches") as pool:
        pending: list[Future[T]] = [pool.submit(make, step) for step in steps[:ahead]]
        try:
            for step in steps:
                result = pending.pop(0).result()
                if step + ahead < steps.stop:
                    pending.append(pool.submit(make, step + ahead))
                yield result
        finally:
            for future in pending:
                future.cancel()
