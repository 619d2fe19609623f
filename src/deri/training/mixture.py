"""Pairs of several stores as one source of batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from deri.models import TextFeatures
from deri.training.batches import Batch, PairReader


class Mixture:
    """Rows of several stores, numbered one store after the other."""

    def __init__(self, readers: Sequence[PairReader]) -> None:
        self.readers = tuple(readers)
        self.starts = np.cumsum([0, *(len(reader.store) for reader in self.readers)])

    def rows(self, split: str) -> list[np.ndarray]:
        """Rows of ``split`` that have a report, of each store."""
        return [start + reader.rows(split) for start, reader in zip(self.starts, self.readers, strict=False)]

    def order(self, rows: np.ndarray) -> np.ndarray:
        """Positions that sort ``rows`` store by store, as :meth:`batch` gives them."""
        return np.argsort(self._owner(rows), kind="stable")

    def batch(self, rows: np.ndarray, draws: np.ndarray | None = None) -> Batch:
        """See :meth:`PairReader.batch`; pairs come store by store."""
        parts = [
            reader.batch(own, None if draws is None else draws[places]) for reader, places, own in self._by_store(rows)
        ]
        return parts[0] if len(parts) == 1 else _joined(parts)

    def records(self, rows: np.ndarray) -> pd.DataFrame:
        """Subject, study and file of ``rows``."""
        return pd.concat(
            reader.store.index.iloc[own][["subject_id", "study_id", "file"]] for reader, _, own in self._by_store(rows)
        )

    def _by_store(self, rows: np.ndarray) -> Iterator[tuple[PairReader, np.ndarray, np.ndarray]]:
        """The stores of ``rows`` (B,): their reader, which of the rows are theirs (bool), and these in its numbers."""
        owner = self._owner(rows)
        for k in np.unique(owner):
            yield self.readers[k], owner == k, rows[owner == k] - self.starts[k]

    def _owner(self, rows: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.starts, rows, side="right") - 1


def padded(text: TextFeatures, longest: int) -> TextFeatures:
    """The features with tokens padded to ``longest``."""
    missing = longest - text.tokens.shape[1]
    return TextFeatures(text.pooled, F.pad(text.tokens, (0, 0, 0, missing)), F.pad(text.mask, (0, missing)))


def _joined(parts: Sequence[Batch]) -> Batch:
    """One batch of all pairs; texts are padded to the longest."""
    content: dict[str, Any] = {}
    for name in (field.name for field in fields(Batch)):
        values = [getattr(part, name) for part in parts]
        if name == "valid_samples" and any(value is not None for value in values):
            values = [_valid(part) for part in parts]
        if values[0] is None:
            continue
        if name == "text":
            longest = max(value.tokens.shape[1] for value in values)
            values = [padded(value, longest) for value in values]
            names = ("pooled", "tokens", "mask")
            content[name] = TextFeatures(*(torch.cat([getattr(value, part) for value in values]) for part in names))
        elif name in ("input_ids", "attention_mask"):
            longest = max(value.shape[1] for value in values)
            content[name] = torch.cat([F.pad(value, (0, longest - value.shape[1])) for value in values])
        else:
            content[name] = torch.cat(values)
    return Batch(**content)


def _valid(part: Batch) -> Tensor:
    full = torch.full((len(part.ecg),), part.ecg.shape[-1])
    return full if part.valid_samples is None else part.valid_samples
