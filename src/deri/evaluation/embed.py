"""Embeddings of the recordings of a store."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deri.models import EcgTextModel
from deri.store import Store


def embed_store(
    model: EcgTextModel,
    store: Store,
    rows: np.ndarray,
    *,
    batch_size: int = 128,
    show: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """L2-normalised embeddings of ``rows``: (n, d) float32, in the order of ``rows``."""
    out = np.empty((len(rows), model.config.dim), np.float32)
    valid = store.index["valid_samples"].to_numpy(np.int64)
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        out[start : start + len(part)] = model.embed_signals(store.signals(part), store.fs, valid[part])
        if show:
            show(start + len(part), len(rows))
    return out
