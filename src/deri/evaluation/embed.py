"""Embeddings of the recordings of a store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

from deri.errors import DeriError
from deri.models import EcgTextModel
from deri.store import Store

Show = Callable[[int, int], None]


def embed_store(
    model: EcgTextModel,
    store: Store,
    rows: np.ndarray,
    *,
    batch_size: int = 128,
    normalise: bool = True,
    show: Show | None = None,
) -> np.ndarray:
    """Inference embeddings of the recordings of ``rows``: (n, d) float32, in their order; sets eval mode.

    That of a recording with several windows in the store is their mean, whichever of its rows is named.

    Args:
        model: the encoder.
        store: holds the signals.
        rows: (n,) rows of the store, one per recording as ``store.rows`` and ``store.task_rows`` give them.
        batch_size: windows at once.
        normalise: to unit length, as zero-shot compares them; False for what probes are trained on.
        show: receives (windows done, windows in all).

    Raises:
        DeriError: an embedding is not finite.
    """
    out = np.zeros((len(rows), model.config.dim), np.float32)
    every, owners = store.windows_of(rows)
    valid = store.index["valid_samples"].to_numpy(np.int64)
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(every), batch_size):
            part = every[start : start + batch_size]
            ecg, valid_here = model.preprocess(store.signals(part), store.fs, valid[part], store.lead_mask(part))
            embedding = model.ecg_embedding(
                ecg.to(model.device), None if valid_here is None else valid_here.to(model.device)
            ).float()
            np.add.at(out, owners[start : start + len(part)], embedding.cpu().numpy())
            if show:
                show(start + len(part), len(every))
    out /= np.bincount(owners, minlength=len(rows))[:, None].astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(out).all(axis=1))
    if len(bad):
        record = store.index["record_id"].iloc[int(rows[bad[0]])]
        raise DeriError(
            f"the model's embedding is not finite for {len(bad)} of {len(rows)} recordings of {store.path}, "
            f"the first is {record}: the weights are broken, use another model or an earlier checkpoint"
        )
    return F.normalize(torch.from_numpy(out), dim=-1).numpy() if normalise else out


class Features:
    """What probes are trained on: the inference embeddings of a store, each computed once and kept in memory.

    The embedding is that of zero-shot, not scaled to unit length, from the encoder in eval mode.
    """

    def __init__(self, model: EcgTextModel, store: Store, *, batch_size: int = 128) -> None:
        self.model = model
        self.store = store
        self._batch_size = batch_size
        self._features = np.empty((len(store), model.config.dim), np.float32)
        self._known = np.zeros(len(store), bool)

    def rows(self, rows: np.ndarray, show: Show | None = None) -> np.ndarray:
        """Features (n, d) float32 of ``rows``; those not asked for before are computed now."""
        new = np.unique(rows[~self._known[rows]])
        if len(new):
            self._features[new] = embed_store(
                self.model, self.store, new, batch_size=self._batch_size, normalise=False, show=show
            )
            self._known[new] = True
        return self._features[rows]


def encoder_digest(model: EcgTextModel) -> str:
    """SHA-256 of all weights and buffers outside the text encoder, batch-norm statistics among them."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if not name.startswith("text_encoder."):
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
