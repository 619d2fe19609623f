"""Leakage between two stores: patients that are in both, and recordings that are in both.

Two tests find recordings. *Exact*: equal stored samples (by the digests in the index). *Near*: equal
shape. Each recording is averaged over blocks of 40 ms (25 Hz), the mean of every lead is removed, and the eight
independent leads together are scaled to unit length; two recordings are near duplicates if the cosine of these
signatures is 0.98 or more. So copies in other units or gains, at another sampling rate, quantised anew, with another
offset or a little noise are found; copies that are cut at another moment, that lost a strong baseline wander to a
filter, or whose leads are in another order are not.

All pairs are compared in a random projection to 64 dimensions (cosine 0.95 or more, from a fixed seed), and what that
leaves is verified with the whole signature.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from deri.ecg.leads import LEADS
from deri.errors import DeriError
from deri.evaluation.features import unit
from deri.progress import SILENT, Progress
from deri.store import Store

NEAR = 0.98
"""Cosine of two signatures from which on recordings count as near duplicates."""

METHOD = (
    f"exact: equal int16 samples of 12 leads; near: cosine ≥ {NEAR} of leads averaged over 40 ms, mean removed, "
    "scaled to unit length (a copy cut at another moment is not found)"
)

_INDEPENDENT = [LEADS.index(lead) for lead in ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")]
_BLOCK_SECONDS = 0.04
_PROJECTED = 64
_CANDIDATE = 0.95
_EXAMPLES = 5


def signatures(store: Store, rows: np.ndarray) -> np.ndarray:
    """Signatures (n, 8 × blocks) float32 of unit length; a row of zeros for a flat recording."""
    step = max(1, round(_BLOCK_SECONDS * store.fs))
    signal = store.signals(rows)[:, _INDEPENDENT]
    blocks = signal.shape[2] // step
    means = signal[:, :, : blocks * step].reshape(len(rows), len(_INDEPENDENT), blocks, step).mean(axis=3)
    means -= means.mean(axis=2, keepdims=True)
    flat = means.reshape(len(rows), -1)
    size = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.divide(flat, size, out=np.zeros_like(flat), where=size > 1e-6)


def find_leakage(store: Store, against: Store, progress: Progress = SILENT) -> dict[str, Any]:
    """Patients and recordings that two stores share.

    Args:
        store: e.g. that of pre-training.
        against: e.g. that of a test.
        progress: is told how many recordings are read.

    Returns:
        ``subjects``: how many ids both have, and how many recordings of either store those patients have.
        ``exact`` and ``near`` (without the exact ones): pairs of recordings, how many distinct ones of either store,
        those of ``against`` by split, and the first pairs. ``same_dataset``: whether ids of patients are comparable.

    Raises:
        DeriError: both are the same store, or they have signals of different length.
    """
    if store.fingerprint == against.fingerprint:
        raise DeriError(f"--against {against.path}: has the same content as {store.path}; name another store")
    if store.samples / store.fs != against.samples / against.fs:
        raise DeriError(
            f"--against {against.path}: its recordings last {against.samples / against.fs:g} s, those of {store.path} "
            f"{store.samples / store.fs:g} s; they cannot be compared"
        )
    total = len(store) + len(against)
    projected = _projected(store, progress, 0, total)
    other_projected = _projected(against, progress, len(store), total)
    exact = _equal_pairs(*(s.index["waveform"].to_numpy().astype("S") for s in (store, against)))
    known = set(map(tuple, exact.tolist()))
    close = _close_pairs(projected, other_projected)
    near = np.array([pair for pair in _verified(store, against, close) if pair not in known], np.int64).reshape(-1, 2)
    return {
        "store": str(store.path),
        "against": str(against.path),
        "n": [store.recordings, against.recordings],
        "method": METHOD,
        "same_dataset": store.meta["dataset"] == against.meta["dataset"],
        "subjects": _shared_subjects(store, against),
        "exact": _pairs(store, against, exact),
        "near": _pairs(store, against, near),
    }


def _projected(store: Store, progress: Progress, before: int, total: int) -> np.ndarray:
    """Projected signature (n, 64) of unit length of every recording; ``before`` of ``total`` are read already."""
    projected = np.zeros((len(store), _PROJECTED), np.float32)
    matrix: np.ndarray | None = None
    for start in range(0, len(store), 256):
        rows = np.arange(start, min(start + 256, len(store)))
        signature = signatures(store, rows)
        if matrix is None:
            matrix = np.random.default_rng(0).standard_normal((signature.shape[1], _PROJECTED)).astype(np.float32)
        projected[rows] = unit(signature @ matrix)
        progress.update(before + int(rows[-1]) + 1, total)
    return projected


def _equal_pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(pairs, 2): positions of equal values in a and in b."""
    order = np.argsort(a, kind="stable")
    low, high = (np.searchsorted(a[order], b, side) for side in ("left", "right"))
    return np.array(
        [(int(order[k]), j) for j in np.flatnonzero(high > low) for k in range(low[j], high[j])], np.int64
    ).reshape(-1, 2)


def _close_pairs(a: np.ndarray, b: np.ndarray, chunk: int = 4096) -> np.ndarray:
    """(pairs, 2): rows of a and of b whose cosine is at least that of a candidate."""
    found: list[np.ndarray] = [np.zeros((0, 2), np.int64)]
    for i in range(0, len(a), chunk):
        for j in range(0, len(b), chunk):
            hits = np.argwhere(a[i : i + chunk] @ b[j : j + chunk].T >= _CANDIDATE)
            found.append(hits + np.array([i, j]))
    return np.concatenate(found)


def _verified(store: Store, against: Store, pairs: np.ndarray) -> list[tuple[int, int]]:
    found = []
    for start in range(0, len(pairs), 256):
        part = pairs[start : start + 256]
        cosine = np.einsum("nd,nd->n", signatures(store, part[:, 0]), signatures(against, part[:, 1]))
        found += [(int(i), int(j)) for i, j in part[cosine >= NEAR]]
    return found


def _subjects(store: Store) -> np.ndarray:
    return store.index["subject_id"].fillna("").to_numpy().astype(str)


def _shared_subjects(store: Store, against: Store) -> dict[str, Any]:
    own, other = _subjects(store), _subjects(against)
    shared = sorted((set(own) & set(other)) - {""})
    inside = against.rows()[np.isin(other[against.rows()], shared)]
    return {
        "n": len(shared),
        "records": [int(np.isin(own[store.rows()], shared).sum()), len(inside)],
        "against_by_split": _by_split(against, inside),
        "examples": shared[:_EXAMPLES],
    }


def _pairs(store: Store, against: Store, pairs: np.ndarray) -> dict[str, Any]:
    ids, other_ids = (s.index["record_id"].to_numpy() for s in (store, against))
    other = _recordings(against, pairs[:, 1])
    return {
        "pairs": len(pairs),
        "records": [len(_recordings(store, pairs[:, 0])), len(other)],
        "against_by_split": _by_split(against, other),
        "examples": [[str(ids[i]), str(other_ids[j])] for i, j in pairs[:_EXAMPLES]],
    }


def _recordings(store: Store, rows: np.ndarray) -> np.ndarray:
    """The first rows of the recordings that ``rows`` (windows, perhaps) belong to, each once."""
    first = store.rows()
    return first[np.unique(np.searchsorted(first, rows, side="right") - 1)]


def _by_split(store: Store, rows: np.ndarray) -> dict[str, int]:
    counts = store.index["split"].iloc[rows].value_counts()
    return {str(split): int(n) for split, n in counts.sort_index().items()}


def leakage_text(found: dict[str, Any]) -> str:
    """The findings in sentences, the verdict first."""
    subjects, exact, near = found["subjects"], found["exact"], found["near"]
    duplicates = exact["pairs"] + near["pairs"]
    trusted = found["same_dataset"]
    if duplicates or (subjects["n"] and trusted):
        head = "LEAKAGE: the stores share " + " and ".join(
            what for what, there in (("patients", subjects["n"] and trusted), ("recordings", duplicates)) if there
        )
    elif subjects["n"]:
        head = "No shared recordings found; patients have equal ids, but in different data sets"
    else:
        head = "No shared patients and no shared recordings found"
    lines = [f"{head}: {found['store']} ({found['n'][0]:,} recordings), {found['against']} ({found['n'][1]:,})"]
    if subjects["n"]:
        doubt = "" if trusted else "; ids of different data sets may be equal by chance"
        lines.append(
            f"  equal patient ids: {subjects['n']:,}, with {subjects['records'][0]:,} and {subjects['records'][1]:,} "
            f"recordings ({_splits(subjects)}), e.g. {', '.join(subjects['examples'])}{doubt}"
        )
    for name, what in (("exact", "equal recordings"), ("near", "nearly equal recordings")):
        one = found[name]
        if one["pairs"]:
            examples = ", ".join(f"{a} = {b}" for a, b in one["examples"])
            lines.append(f"  {what}: {one['records'][0]:,} and {one['records'][1]:,} ({_splits(one)}), e.g. {examples}")
    return "\n".join([*lines, f"  method: {found['method']}"])


def _splits(one: dict[str, Any]) -> str:
    return "in the second: " + ", ".join(f"{split} {n:,}" for split, n in one["against_by_split"].items())
