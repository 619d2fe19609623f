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
        owner = np.searchsorted(self.starts, rows, side="right") - 1
        for k in np.unique(owner):
            yield self.readers[k], owner == k, rows[owner == k] - self.starts[k]


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
            content[name] = TextFeatures(
                torch.cat([value.pooled for value in values]),
                torch.cat([F.pad(value.tokens, (0, 0, 0, longest - value.tokens.shape[1])) for value in values]),
                torch.cat([F.pad(value.mask, (0, longest - value.mask.shape[1])) for value in values]),
            )
        elif name in ("input_ids", "attention_mask"):
            longest = max(value.shape[1] for value in values)
            content[name] = torch.cat([F.pad(value, (0, longest - value.shape[1])) for value in values])
        else:
            content[name] = torch.cat(values)
    return Batch(**content)


def _valid(part: Batch) -> Tensor:
    full = torch.full((len(part.ecg),), part.ecg.shape[-1])
    return full if part.valid_samples is None else part.valid_samples
