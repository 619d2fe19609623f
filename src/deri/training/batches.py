"""Batches of ECG–report pairs from a store, in an order that depends on seed and epoch alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from deri.errors import DeriError
from deri.models import EcgTextModel, TextFeatures
from deri.recipes import schema
from deri.reports.statements import Statements
from deri.store import Store
from deri.store import TextFeatures as TextFeatureCache
from deri.training.class_texts import ClassTexts


@dataclass
class Batch:
    """B pairs: ``ecg`` (B, 12, n), ``report_ids`` (B,), ``valid_samples`` (B,) or None, and ``text`` or token ids.

    ``findings`` (B, 2, words): bits of what the text shown and the whole pair name, where the objective asks.
    ``measurements`` (B, m): of the ECGs, standardised, NaN where there is none.
    ``view_noise``: two (B, tokens) of uniform draws for the masked views, on the device.
    ``first``: number of the first pair in the batch of all processes.
    """

    ecg: Tensor
    report_ids: Tensor
    valid_samples: Tensor | None = None
    text: TextFeatures | None = None
    input_ids: Tensor | None = None
    attention_mask: Tensor | None = None
    findings: Tensor | None = None
    measurements: Tensor | None = None
    view_noise: tuple[Tensor, Tensor] | None = None
    first: int | None = None


def rows_of(value: Any, rows: slice) -> Any:
    """``rows`` of a batch: of all tensors in a dataclass or tuple; other values stay."""
    if isinstance(value, Tensor):
        return value[rows]
    if isinstance(value, tuple):
        return tuple(rows_of(part, rows) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: rows_of(getattr(value, f.name), rows) for f in fields(value)})
    return value


@dataclass(frozen=True)
class SingleStatements:
    """What :class:`PairReader` needs to show one statement in place of a report: to the ``share`` of the pairs."""

    statements: Statements
    features: TextFeatureCache | None
    share: float


@dataclass(frozen=True)
class ClassPrompts:
    """What :class:`PairReader` needs to show a prompt of a class to the ``share`` of the pairs."""

    texts: ClassTexts
    features: TextFeatureCache
    share: float


class PairReader:
    """Turns rows of a store into a :class:`Batch` as a model needs it.

    Args:
        store: of the pairs.
        model: whose input is made.
        cache: features of the store's reports, where the text encoder is frozen.
        single: where pairs share texts by what these say, see :class:`deri.recipes.schema.Objective`.
        classes: where prompts of classes are shown.
        shared_ids: (reports,) numbers of the store's reports among those of all stores, where there are several.
        measurements: (n, m) of all rows, NaN where there is none, for a model that reads them.
    """

    def __init__(
        self,
        store: Store,
        model: EcgTextModel,
        cache: TextFeatureCache | None,
        single: SingleStatements | None = None,
        *,
        classes: ClassPrompts | None = None,
        shared_ids: np.ndarray | None = None,
        measurements: np.ndarray | None = None,
    ) -> None:
        self.store = store
        self.model = model
        self.cache = cache
        self.single = single
        self.classes = classes
        self._shared_ids, self._measurements = shared_ids, measurements
        self._report_ids = store.index["report_id"].to_numpy(np.int64)

    def rows(self, split: str) -> np.ndarray:
        """Rows of ``split`` that have a report, int64; of a long recording every stored window is a row."""
        rows = self.store.rows(split, windows=True)
        return rows[self._report_ids[rows] >= 0]

    def measured(self, split: str) -> np.ndarray:
        """Measurements (n, m) of the rows of ``split``."""
        assert self._measurements is not None
        return self._measurements[self.rows(split)]

    def batch(self, rows: np.ndarray, draws: np.ndarray | None = None) -> Batch:
        """Read ``rows`` (B,) into memory; ``draws`` (B, 2) in [0, 1) choose who shows one statement or a class."""
        ids = self._report_ids[rows]
        ecg, valid = self.model.preprocess.of_store(self.store, rows)
        shared = ids if self._shared_ids is None else self._shared_ids[ids]
        batch = Batch(ecg, torch.from_numpy(shared), valid)
        if self._measurements is not None and self.model.measured is not None:
            batch.measurements = self.model.measured.standardise(self._measurements[rows])
        shown: list[tuple[TextFeatureCache, np.ndarray]] = []
        if self.single is not None:
            batch.findings, shown = self._stated(self.single, rows, ids, draws)
        if self.cache is not None:
            batch.text = self._features(self.cache, ids, shown)
        else:
            texts = [self.store.reports[i] for i in ids]
            batch.input_ids, batch.attention_mask = self.model.text_encoder.tokenize(texts)
        return batch

    def _stated(
        self, single: SingleStatements, rows: np.ndarray, ids: np.ndarray, draws: np.ndarray | None
    ) -> tuple[Tensor, list[tuple[TextFeatureCache, np.ndarray]]]:
        """What texts and pairs name, and which texts replace the report: (B,) positions in each list of texts or -1."""
        statements, classes = single.statements, self.classes
        known = statements.report_bits[ids][:, None]
        stated, shown = known, []
        if draws is not None and single.features is not None:
            chosen = np.where(draws[:, 0] < single.share, statements.draw(ids, draws[:, 1]), -1)
            if len(statements.bits):
                stated = np.where((chosen >= 0)[:, None], statements.bits[chosen][:, None], known)
            shown.append((single.features, chosen))
        if classes is not None:
            words = classes.texts.row_bits.shape[1]
            stated, known = np.pad(stated, ((0, 0), (0, words))), np.hstack([known, classes.texts.row_bits[rows]])
            if draws is not None:
                wanted = (draws[:, 0] >= single.share) & (draws[:, 0] < single.share + classes.share)
                chosen = np.where(wanted, classes.texts.draw(rows, draws[:, 1]), -1)
                stated = np.where((chosen >= 0)[:, None], classes.texts.bits[chosen], stated)
                shown.append((classes.features, chosen))
        return torch.from_numpy(np.stack([stated, known], axis=1)), shown

    def _features(
        self, cache: TextFeatureCache, ids: np.ndarray, shown: list[tuple[TextFeatureCache, np.ndarray]]
    ) -> TextFeatures:
        """Of the reports ``ids`` (B,), or of the texts ``shown`` in their place."""
        pooled, (tokens, mask) = cache.pooled(ids), cache.tokens(ids)
        for features, chosen in shown:
            rows = np.flatnonzero(chosen >= 0)
            if not len(rows):
                continue
            pooled[rows] = features.pooled(chosen[rows])
            short, real = features.tokens(chosen[rows])
            missing = short.shape[1] - tokens.shape[1]
            if missing > 0:  # a full stop may have been added
                tokens, mask = np.pad(tokens, ((0, 0), (0, missing), (0, 0))), np.pad(mask, ((0, 0), (0, missing)))
            tokens[rows], mask[rows] = 0.0, False
            tokens[rows, : short.shape[1]], mask[rows, : real.shape[1]] = short, real
        return TextFeatures(torch.from_numpy(pooled), torch.from_numpy(tokens), torch.from_numpy(mask))


@dataclass(frozen=True)
class BatchPlan:
    """Which rows form which batch: of all processes together, however many there are.

    Attributes:
        rows: of each stream. One stream is gone through once an epoch, but for an incomplete last batch; of several,
            each gives ``counts`` rows to every batch and begins anew by itself, and an epoch ends with the first.
        counts: rows of each stream in a batch.
    """

    rows: tuple[np.ndarray, ...]
    counts: tuple[int, ...]
    seed: int
    shuffle: str

    @classmethod
    def make(cls, rows: Sequence[np.ndarray], config: schema.Train, world: int = 1) -> BatchPlan:
        """A plan for the rows of stores, mixed by ``config.mix``; fewer than one batch are one batch."""
        if config.mix and len(config.mix) != len(rows):
            raise DeriError(f"train.mix names {len(config.mix)} shares for {len(rows)} stores: one for each --data")
        if not config.mix:
            rows = [np.concatenate(rows)]
        fewest, least = min(map(len, rows)), 2 * world * config.accumulate
        if fewest < least:
            raise DeriError(
                f"the training split has {fewest} records with a report; at least {least} are needed "
                "(contrastive batches): check the splits with deri info STORE"
            )
        if config.batch_size < least:
            raise DeriError(
                f"train.batch_size={config.batch_size} is of all processes together: {world} of them with "
                f"train.accumulate={config.accumulate} need {least} at least"
            )
        size = min(config.batch_size, sum(map(len, rows)))
        return cls(tuple(rows), _apportion(config.mix or (1.0,), size), config.seed, config.shuffle)

    @property
    def batch_size(self) -> int:
        """Rows in a batch."""
        return sum(self.counts)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return max(1, len(self.rows[0]) // self.counts[0])

    def step_rows(self, step: int) -> np.ndarray:
        """Rows of 0-based ``step``, (batch_size,), stream by stream."""
        if len(self.rows) > 1:
            return np.concatenate([self._continued(k, step) for k in range(len(self.rows))])
        rows, size = self.rows[0], self.counts[0]
        epoch, i = divmod(step, self.steps_per_epoch)
        return rows[self._order(len(rows), epoch)[i * size : (i + 1) * size]]

    def _continued(self, stream: int, step: int) -> np.ndarray:
        """The rows of a stream that goes on from epoch to epoch of its own."""
        rows, count = self.rows[stream], self.counts[stream]
        first = step * count
        epochs, places = np.divmod(np.arange(first, first + count), len(rows))
        return rows[[self._order(len(rows), epoch)[place] for epoch, place in zip(epochs, places, strict=True)]]

    def _order(self, n: int, epoch: int) -> np.ndarray:
        return _permutation(n, self.seed, epoch if self.shuffle == "epoch" else 0)


def _apportion(shares: Sequence[float], total: int) -> tuple[int, ...]:
    """Whole numbers that sum to ``total`` in proportion to ``shares``, by largest remainder; each is 1 at least."""
    exact = np.array(shares) / sum(shares) * total
    counts = np.maximum(np.floor(exact), 1).astype(int)
    for i in np.argsort(counts - exact, kind="stable")[: max(0, total - counts.sum())]:
        counts[i] += 1
    return tuple(counts.tolist())


@lru_cache(8)  # a permutation of a million rows takes as long as a step
def _permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(n)


T = TypeVar("T")
