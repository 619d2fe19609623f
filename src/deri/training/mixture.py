"""Pairs of several stores as one source of batches."""

from __future__ import annotations

from collections.abc import Sequence
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
        owner = np.searchsorted(self.starts, rows, side="right") - 1
        parts = []
        for k in np.unique(owner):
            own = owner == k
            parts.append(self.readers[k].batch(rows[own] - self.starts[k], None if draws is None else draws[own]))
        return parts[0] if len(parts) == 1 else _joined(parts)

    def records(self, rows: np.ndarray) -> pd.DataFrame:
        """Subject, study and file of ``rows``."""
        owner = np.searchsorted(self.starts, rows, side="right") - 1
        return pd.concat(
            self.readers[k].store.index.iloc[rows[owner == k] - self.starts[k]][["subject_id", "study_id", "file"]]
            for k in np.unique(owner)
        )


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
