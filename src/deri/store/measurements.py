"""Intervals and amplitudes of the recordings of a store, see :mod:`deri.ecg.measure`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from deri.ecg.measure import FEATURE_NAMES, VERSION, ecg_features, known_features, signal_intervals
from deri.files import atomic_path
from deri.progress import SILENT, Progress
from deri.store.beside import keep_beside
from deri.store.reader import Store

_PART = 512  # recordings that a process measures at a time


def measure_store(store: Store, *, progress: Progress = SILENT) -> np.ndarray:
    """Features (n, len(FEATURE_NAMES)) float32 of all rows, NaN where something cannot be measured.

    Measured once, by all processors, and kept beside the store, see :func:`deri.store.beside.keep_beside`.
    """

    def make(path: Path) -> None:
        values = _in_parallel(store, progress)
        with atomic_path(path) as aside, open(aside, "wb") as handle:
            np.save(handle, values)

    name = f"measurements/{store.fingerprint[:16]}-{VERSION}.npy"
    return np.asarray(np.load(keep_beside(store, name, Path.is_file, make, progress)))


def _in_parallel(store: Store, progress: Progress) -> np.ndarray:
    from joblib import Parallel, cpu_count, delayed

    parts = np.split(np.arange(len(store)), range(_PART, len(store), _PART))
    workers = min(cpu_count(), len(parts))
    measured = Parallel(n_jobs=workers, return_as="generator")(delayed(extract_features)(store, rows) for rows in parts)
    out: list[np.ndarray] = []
    for values in measured:
        out.append(values)
        progress.update(min(len(out) * _PART, len(store)), len(store))
    return np.concatenate(out)


def extract_features(store: Store, rows: np.ndarray) -> np.ndarray:
    """Features (n, len(FEATURE_NAMES)) float32 of rows of a store, NaN where something cannot be measured.

    Of a recording with several windows the row that is named is measured.
    """
    out = np.empty((len(rows), len(FEATURE_NAMES)), np.float32)
    for i, (signal, mask, printed) in enumerate(_signals(store, rows)):
        out[i] = known_features(ecg_features(signal, store.fs), mask, printed)
    return out


def store_intervals(store: Store, rows: np.ndarray) -> list[dict[str, float | None]]:
    """:func:`deri.ecg.measure.intervals` of rows of a store."""
    return [signal_intervals(signal, store.fs, mask, printed) for signal, mask, printed in _signals(store, rows)]


def _signals(store: Store, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, bool]]:
    """Yield the recorded part of each signal, its leads that are there (12,), and whether it is a printed layout."""
    valid = store.index["valid_samples"].to_numpy(np.int64)
    for start in range(0, len(rows), 128):
        part = rows[start : start + 128]
        quality, mask = store.table["quality"].take(part).to_pylist(), store.lead_mask(part)
        for i, signal in enumerate(store.signals(part)):
            printed = any(flag.startswith("partial_lead") for flag in quality[i])
            yield signal[:, : valid[part[i]]], mask[i], printed
