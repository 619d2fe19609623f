"""Intervals and amplitudes of the recordings of a store, see :mod:`deri.ecg.measure`."""

from __future__ import annotations

import numpy as np

from deri.ecg.measure import FEATURE_NAMES, VERSION, ecg_features, known_features
from deri.progress import SILENT, Progress
from deri.store.beside import arrays_beside
from deri.store.reader import Store

_PART = 512  # recordings that a process measures at a time


def measure_store(store: Store, *, progress: Progress = SILENT) -> np.ndarray:
    """Features (n, len(FEATURE_NAMES)) float32 of all rows, NaN where something cannot be measured or is left out.

    Measured once, by all processors, and kept beside the store, see :func:`deri.store.beside.keep_beside`.
    """

    name = f"measurements/{store.fingerprint[:16]}-{VERSION}"
    return arrays_beside(store, name, lambda: {"values": _in_parallel(store, progress)}, progress)["values"]


def _in_parallel(store: Store, progress: Progress) -> np.ndarray:
    from joblib import Parallel, cpu_count, delayed

    rows = store.rows(windows=True)
    parts = np.split(rows, range(_PART, len(rows), _PART))
    workers = min(cpu_count(), len(parts))
    measured = Parallel(n_jobs=workers, return_as="generator")(delayed(extract_features)(store, rows) for rows in parts)
    out = np.full((len(store), len(FEATURE_NAMES)), np.nan, np.float32)
    done = 0
    for part, values in zip(parts, measured, strict=True):
        out[part] = values
        done += len(part)
        progress.update(done, len(rows))
    return out


def extract_features(store: Store, rows: np.ndarray) -> np.ndarray:
    """Features (n, len(FEATURE_NAMES)) float32 of rows of a store, NaN where something cannot be measured.

    Of a recording with several windows the row that is named is measured.
    """
    out = np.empty((len(rows), len(FEATURE_NAMES)), np.float32)
    valid = store.index["valid_samples"].to_numpy(np.int64)
    for start in range(0, len(rows), 128):
        part = rows[start : start + 128]
        quality, mask = store.table["quality"].take(part).to_pylist(), store.lead_mask(part)
        for i, signal in enumerate(store.signals(part)):
            values = ecg_features(signal[:, : valid[part[i]]], store.fs)
            printed = any(flag.startswith("partial_lead") for flag in quality[i])
            out[start + i] = known_features(values, mask[i], printed)
    return out
