"""Batches of ECG–report pairs from a store, in an order that depends on seed and epoch alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from deri.errors import DeriError
from deri.models import EcgTextModel, TextFeatures
from deri.recipes import schema
from deri.reports.statements import Statements
from deri.store import Store
from deri.store import TextFeatures as TextFeatureCache


@dataclass
class Batch:
    """B pairs: ``ecg`` (B, 12, n), ``report_ids`` (B,), ``valid_samples`` (B,) or None, and ``text`` or token ids.

    ``findings`` (B, 2): bits of the findings that the text shown and the whole report name, where the objective asks.
    ``view_noise``: two (B, tokens) of uniform draws for the masked views, on the device.
    """

    ecg: Tensor
    report_ids: Tensor
    valid_samples: Tensor | None = None
    text: TextFeatures | None = None
    input_ids: Tensor | None = None
    attention_mask: Tensor | None = None
    findings: Tensor | None = None
    view_noise: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class SingleStatements:
    """What :class:`PairReader` needs to show one statement in place of a report: to the ``share`` of the pairs."""

    statements: Statements
    features: TextFeatureCache | None
    share: float


class PairReader:
    """Turns rows of a store into a :class:`Batch` as a model needs it.

    Args:
        store: of the pairs.
        model: whose input is made.
        cache: features of the store's reports, where the text encoder is frozen.
        single: where pairs share texts by what these say, see :class:`deri.recipes.schema.Objective`.
    """

    def __init__(
        self,
        store: Store,
        model: EcgTextModel,
        cache: TextFeatureCache | None,
        single: SingleStatements | None = None,
    ) -> None:
        self.store = store
        self.model = model
        self.cache = cache
        self.single = single
        self._report_ids = store.index["report_id"].to_numpy(np.int64)

    def rows(self, split: str) -> np.ndarray:
        """Rows of ``split`` that have a report, int64; of a long recording every stored window is a row."""
        rows = self.store.rows(split, windows=True)
        return rows[self._report_ids[rows] >= 0]

    def batch(self, rows: np.ndarray, draws: np.ndarray | None = None) -> Batch:
        """Read ``rows`` (B,) into memory; ``draws`` (B, 2) in [0, 1) choose who shows one statement, and which."""
        ids = self._report_ids[rows]
        ecg, valid = self.model.preprocess.of_store(self.store, rows)
        batch = Batch(ecg, torch.from_numpy(ids), valid)
        shown = np.full(len(ids), -1, np.int64)
        if self.single is not None:
            statements = self.single.statements
            known = statements.report_bits[ids]
            if draws is not None and self.single.features is not None:
                shown = np.where(draws[:, 0] < self.single.share, statements.draw(ids, draws[:, 1]), -1)
            stated = np.where(shown >= 0, statements.bits[shown], known) if len(statements.bits) else known
            batch.findings = torch.from_numpy(np.stack([stated, known], axis=1))
        if self.cache is not None:
            batch.text = self._features(self.cache, ids, shown)
        else:
            texts = [self.store.reports[i] for i in ids]
            batch.input_ids, batch.attention_mask = self.model.text_encoder.tokenize(texts)
        return batch

    def _features(self, cache: TextFeatureCache, ids: np.ndarray, shown: np.ndarray) -> TextFeatures:
        """Of the reports ``ids`` (B,), or of the statements ``shown`` (B,) where one is (-1: none)."""
        pooled, (tokens, mask) = cache.pooled(ids), cache.tokens(ids)
        rows = np.flatnonzero(shown >= 0)
        if len(rows) and self.single is not None and self.single.features is not None:
            pooled[rows] = self.single.features.pooled(shown[rows])
            short, real = self.single.features.tokens(shown[rows])
            missing = short.shape[1] - tokens.shape[1]
            if missing > 0:  # a full stop may have been added
                tokens, mask = np.pad(tokens, ((0, 0), (0, missing), (0, 0))), np.pad(mask, ((0, 0), (0, missing)))
            tokens[rows], mask[rows] = 0.0, False
            tokens[rows, : short.shape[1]], mask[rows, : real.shape[1]] = short, real
        return TextFeatures(torch.from_numpy(pooled), torch.from_numpy(tokens), torch.from_numpy(mask))


@dataclass(frozen=True)
class BatchPlan:
    """Which rows form which batch, for every process."""

    rows: np.ndarray
    batch_size: int
    rank: int
    world: int
    seed: int
    shuffle: str

    @classmethod
    def make(cls, rows: np.ndarray, config: schema.Train, rank: int, world: int) -> BatchPlan:
        """A plan for ``rows``; a store smaller than one batch is one batch. An incomplete last batch is left out."""
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

    @cached_property
    def _permutation(self) -> Callable[[int], np.ndarray]:
        # Kept for an epoch: a permutation of a million rows takes as long as a step.
        return lru_cache(1)(lambda epoch: np.random.default_rng([self.seed, epoch]).permutation(len(self.rows)))


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
