"""Features of the recordings of a store: a model's embeddings, or intervals and amplitudes; each computed once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deri._version import __version__
from deri.ecg import measure
from deri.errors import DeriError
from deri.files import MADE_AGAIN, digest_of
from deri.models import EcgTextModel
from deri.models.base import EcgEncoder
from deri.models.calibration import encoder_digest
from deri.models.device import to_device
from deri.progress import SILENT, Progress, Shifted
from deri.store import Store
from deri.store.measurements import measure_store
from deri.store.npy import read_arrays, write_arrays

MEASURED = f"{len(measure.FEATURE_NAMES)} intervals and amplitudes"
_PART = 2048  # recordings per file of features: what a killed run loses at most


class Features:
    """What probes are trained on, computed when asked for and kept in memory, or in files where a folder is given.

    Those of a model are its inference embeddings, as zero-shot uses them but not of unit length, from the encoder in
    eval mode. Without a model they are the intervals and amplitudes of :mod:`deri.ecg.measure`.

    Args:
        model: the encoder; None measures intervals and amplitudes.
        store: the recordings.
        folder: where files of features are kept; whole files are computed at once.
        progress: is told how many recordings are done.

    Attributes:
        encoder: the model, or None.
        content: what they are, in words.
    """

    def __init__(
        self,
        model: EcgTextModel | None,
        store: Store,
        folder: Path | None = None,
        *,
        progress: Progress = SILENT,
        batch_size: int = 128,
    ) -> None:
        self.store, self.encoder, self._progress, self._batch_size = store, model, progress, batch_size
        width = len(measure.FEATURE_NAMES) if model is None else model.config.dim
        self.content = "inference embedding, not normalised" if model is not None else MEASURED
        self._values = np.empty((len(store), width), np.float32)
        self._known = np.zeros(len(store), bool)
        self._folder = None
        if folder is not None:
            self._folder = folder / f"{'classical' if model is None else 'model'}-{self.key}"

    @property
    def model(self) -> EcgTextModel:
        """The encoder whose embeddings these are."""
        if self.encoder is None:
            raise ValueError("intervals and amplitudes are of no model")
        return self.encoder

    @cached_property
    def digest(self) -> str:
        """Of the encoder's weights, or the version of the measurements."""
        return f"classical-{measure.VERSION}" if self.encoder is None else encoder_digest(self.encoder)

    @property
    def key(self) -> str:
        """Stands for all that decides the features: weights, configuration, store and version."""
        config = None if self.encoder is None else self.encoder.config.model_dump(mode="json")
        return digest_of(
            {"features": self.digest, "config": config, "store": self.store.fingerprint, "deri": __version__}
        )

    def rows(self, rows: np.ndarray, progress: Progress | None = None) -> np.ndarray:
        """Features (n, d) float32 of ``rows``; those not asked for before are computed now.

        Raises:
            DeriError: an embedding is not finite.
            RuntimeError: embedding changed the weights or statistics of the encoder.
        """
        progress = progress or self._progress
        missing = np.unique(rows[~self._known[rows]])
        if self._folder is None:
            if len(missing):
                self._keep(missing, self._compute(missing, progress))
            return self._values[rows]
        parts = np.unique(missing // _PART)
        every = self.store.rows(windows=True)
        for done, part in enumerate(parts):
            first, last = np.searchsorted(every, (part * _PART, (part + 1) * _PART))
            whole = every[first:last]
            file = self._folder / f"part-{part:05d}.npz"
            if file.is_file():
                self._keep(whole, read_arrays(file, MADE_AGAIN)["values"])
                continue
            total = min(len(parts) * _PART, len(self.store))
            values = self._compute(whole, Shifted(progress, done * _PART, total))
            write_arrays(file, values=values)
            self._keep(whole, values)
        return self._values[rows]

    def _keep(self, rows: np.ndarray, values: np.ndarray) -> None:
        self._values[rows] = values
        self._known[rows] = True

    def _compute(self, rows: np.ndarray, progress: Progress) -> np.ndarray:
        if self.encoder is None:
            return measure_store(self.store, progress=progress)[rows]
        before = encoder_digest(self.encoder)
        values = embed_store(
            self.encoder, self.store, rows, batch_size=self._batch_size, normalise=False, progress=progress
        )
        if encoder_digest(self.encoder) != before:
            raise RuntimeError(f"embedding {self.store.path} changed the weights or statistics of the frozen encoder")
        return values


class FeaturesAndMeasurements(Features):
    """A model's embeddings beside intervals and amplitudes, NaN where one cannot be measured."""

    def __init__(self, model: EcgTextModel, store: Store, *, progress: Progress = SILENT) -> None:
        super().__init__(model, store, progress=progress)
        self._measured = Features(None, store, progress=progress)
        self.content += f", and {self._measured.content}"

    @cached_property
    def digest(self) -> str:
        """Of the encoder's weights, and the version of the measurements."""
        return f"{super().digest} {self._measured.digest}"

    def rows(self, rows: np.ndarray, progress: Progress | None = None) -> np.ndarray:
        """See :meth:`Features.rows`: (n, d + m)."""
        return np.hstack([super().rows(rows, progress), self._measured.rows(rows, progress)])


def embed_store(
    model: EcgEncoder,
    store: Store,
    rows: np.ndarray,
    *,
    batch_size: int = 128,
    normalise: bool = True,
    progress: Progress = SILENT,
) -> np.ndarray:
    """Inference embeddings of the recordings of ``rows``: (n, d) float32, in their order; sets eval mode.

    That of a recording with several windows in the store is their mean, whichever of its rows is named.

    Args:
        model: the encoder.
        store: holds the signals.
        rows: (n,) rows of the store, one per recording as ``store.rows`` and ``store.task_rows`` give them.
        batch_size: windows at once.
        normalise: to unit length, as zero-shot compares them; False for what probes are trained on.
        progress: is told how many windows are done.

    Raises:
        DeriError: an embedding is not finite.
    """
    out, count = np.zeros((len(rows), model.config.dim), np.float32), np.zeros((len(rows), 1), np.float32)
    for owners, embedding in embed_windows(model, store, rows, batch_size=batch_size, progress=progress):
        np.add.at(out, owners, embedding.cpu().numpy())
        np.add.at(count, owners, 1)
    out /= count
    bad = np.flatnonzero(~np.isfinite(out).all(axis=1))
    if len(bad):
        record = store.index["record_id"].iloc[int(rows[bad[0]])]
        raise DeriError(
            f"the model's embedding is not finite for {len(bad)} of {len(rows)} recordings of {store.path}, "
            f"the first is {record}: the weights are broken, use another model or an earlier checkpoint"
        )
    return unit(out) if normalise else out


@torch.inference_mode()
def embed_windows(
    model: EcgEncoder, store: Store, rows: np.ndarray, *, batch_size: int = 128, progress: Progress = SILENT
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Yield, for windows of the recordings of ``rows``, the position of each recording there, and embeddings (b, d)."""
    every, owners = store.windows_of(rows)
    model.eval()
    for start in range(0, len(every), batch_size):
        part = every[start : start + batch_size]
        ecg, valid = to_device(model.preprocess.of_store(store, part), model.device)
        yield owners[start : start + len(part)], model.embed_prepared(ecg, valid)
        progress.update(start + len(part), len(every))


def unit(x: np.ndarray) -> np.ndarray:
    """Rows at unit length; a row of zeros stays."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def model_identity(model: EcgTextModel) -> dict[str, Any]:
    """All of a model that decides its embeddings.

    Models of equal weights read and compare recordings differently where their configuration differs.
    """
    return {
        "weights": encoder_digest(model),
        "config": model.config.model_dump(mode="json"),
        "text_encoder": model.text_encoder.fingerprint,
        "recipe": model.recipe_name,
    }
