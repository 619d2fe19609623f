"""Recordings that are in a data set twice: equal stored samples, found by the digests in the index.

Equal files are among them, and equal waveforms in files that differ: another name, format, unit or byte order. What
differs by 1 µV in a single sample is another waveform here; ``deri info STORE --against OTHER`` finds near copies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa


Lookup = Callable[[str, np.ndarray], np.ndarray]
"""(``record_id``, ``subject_id`` or ``split``; numbers of recordings (k,)) → texts, object (k,)."""

CODE = "duplicate"
REASON = "duplicate_recording"
_EXAMPLES = 5
_PIECE = 4096  # duplicates whose texts are in memory at a time


def digest_keys(waveforms: Sequence[str]) -> np.ndarray:
    """Return the digests of the column ``waveform`` (32 hex digits each) as numbers, uint64 (n, 2)."""
    keys: np.ndarray = np.frombuffer(bytes.fromhex("".join(waveforms)), "<u8").reshape(len(waveforms), 2)
    return keys


def first_rows(keys: np.ndarray, recordings: np.ndarray) -> np.ndarray:
    """Return for each row the first row of equal samples if that is of another recording, else -1; int64 (n,).

    Equal windows of one recording are no duplicates: it may repeat itself.

    Args:
        keys: uint64 (n, 2), see :func:`digest_keys`.
        recordings: (n,), the recording of each row as a number from 0 on.
    """
    first = np.full(len(keys), -1, np.int64)
    ordered = np.sort(keys[:, 0])
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(twice):
        return first
    rows = np.flatnonzero(np.isin(keys[:, 0], twice))  # usually few, and only these are compared in full
    order = rows[np.lexsort((rows, keys[rows, 1], keys[rows, 0]))]
    begins = np.ones(len(order), bool)
    begins[1:] = (keys[order[1:]] != keys[order[:-1]]).any(axis=1)
    earliest = order[np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))]
    repeated = recordings[order] != recordings[earliest]
    first[order[repeated]] = earliest[repeated]
    return first


def dropped_rows(first: np.ndarray, recordings: np.ndarray) -> np.ndarray:
    """Return which rows belong to a recording of which every row is a duplicate, bool (n,).

    No recording is lost: the first row of equal samples is no duplicate, so that its recording stays.
    """
    kept = np.zeros(int(recordings.max(initial=-1)) + 1, bool)
    kept[recordings[first < 0]] = True
    dropped: np.ndarray = ~kept[recordings]
    return dropped


@dataclass(frozen=True)
class Found:
    """Duplicates of a store, counted in recordings.

    Attributes:
        recordings: those with a row that an earlier recording has.
        across_splits: of these, in another split than the first: leakage.
        across_subjects: of these, under another subject than the first.
        examples: the first of them, as (record_id, record_id of the first).
    """

    recordings: int = 0
    across_splits: int = 0
    across_subjects: int = 0
    examples: tuple[tuple[str, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "recordings": self.recordings,
            "across_splits": self.across_splits,
            "across_subjects": self.across_subjects,
            "examples": [list(pair) for pair in self.examples],
        }


def count(first: np.ndarray, recordings: np.ndarray, lookup: Lookup) -> Found:
    """Count duplicates; ``lookup`` is asked for texts of duplicates only, some thousand at a time."""
    seen, splits_differ, subjects_differ = np.zeros((3, int(recordings.max(initial=-1)) + 1), bool)
    examples: list[tuple[str, str]] = []
    rows = np.flatnonzero(first >= 0)
    for start in range(0, len(rows), _PIECE):
        piece = rows[start : start + _PIECE]
        own, other = recordings[piece], recordings[first[piece]]
        _, new = np.unique(own, return_index=True)
        new = np.sort(new[~seen[own[new]]])[: _EXAMPLES - len(examples)]
        examples += zip(lookup("record_id", own[new]), lookup("record_id", other[new]), strict=True)
        seen[own] = True
        for name, differ in (("split", splits_differ), ("subject_id", subjects_differ)):
            differ[own[lookup(name, own) != lookup(name, other)]] = True
    return Found(int(seen.sum()), int(splits_differ.sum()), int(subjects_differ.sum()), tuple(examples))


class Repeats:
    """The duplicates among the rows of finished chunks; takes about 60 bytes of memory per row.

    Attributes:
        first: int64 (n,), the rows of all chunks one after the other, see :func:`first_rows`.
        recordings: int64 (n,), the position of each row's recording in the data set.
        dropped: bool (n,), see :func:`dropped_rows`.
    """

    def __init__(self, keys: Sequence[np.ndarray], recordings: Sequence[np.ndarray]) -> None:
        self._taken = 0
        self.recordings = np.concatenate([np.empty(0, np.int64), *recordings])
        self.first = first_rows(np.concatenate([np.empty((0, 2), "<u8"), *keys]), self.recordings)
        self.dropped = dropped_rows(self.first, self.recordings)

    @classmethod
    def scan(cls, files: Sequence[Path]) -> Repeats:
        """Read the rows of chunks, see ``chunks.py``."""
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        keys, recordings = [], []
        for file in files:
            with pq.ParquetFile(file) as chunk:
                for batch in chunk.iter_batches(columns=["example", "reason", "waveform"], use_threads=False):
                    stored = batch.filter(pc.is_null(batch["reason"]))
                    keys.append(digest_keys(stored["waveform"].to_pylist()))
                    recordings.append(stored["example"].to_numpy())
        return cls(keys, recordings)

    def take(self, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Return for the next ``rows`` rows the position of their first recording, -1 for none, and what is dropped.

        Both (rows,).
        """
        part = slice(self._taken, self._taken + rows)
        self._taken += rows
        first = self.first[part]
        return np.where(first >= 0, self.recordings[first], -1), self.dropped[part]


def flagged(quality: pa.Array, first: np.ndarray, lookup: Lookup) -> pa.Array:
    """Return the column ``quality`` with ``duplicate:RECORD_ID`` at the end of the rows where ``first`` ≥ 0.

    Args:
        quality: lists of text.
        first: (n,), the number of the recording that has the row's samples first; -1 for none.
        lookup: as in :func:`count`.
    """
    import pyarrow as pa

    hits = np.flatnonzero(first >= 0)
    if not len(hits):
        return quality
    rows = quality.to_pylist()
    for row, name in zip(hits.tolist(), lookup("record_id", first[hits]), strict=True):
        rows[row] = [*(flag for flag in rows[row] if not flag.startswith(f"{CODE}:")), f"{CODE}:{name}"]
    return pa.array(rows, pa.list_(pa.string()))


def sentences(found: dict[str, Any]) -> list[str]:
    """Return what ``deri prepare`` and ``deri merge`` say of duplicates; nothing where there are none."""
    n = found.get("recordings", 0)
    if not n:
        return []
    dropped = found.get("dropped", False)
    pairs = ", ".join(f"{own} = {other}" for own, other in found["examples"])
    what = "left out of the index" if dropped else "kept and flagged; --duplicates drop leaves them out"
    lines = [f"duplicates: {n:,} recordings have the samples of an earlier one ({what}), e.g. {pairs}"]
    if found["across_splits"]:
        verdict = "would have been LEAKAGE" if dropped else "LEAKAGE"
        lines.append(f"  {verdict}: {found['across_splits']:,} of them lie in another split than the first")
    if found["across_subjects"]:
        lines.append(f"  {found['across_subjects']:,} of them have another subject than the first: are the ids right?")
    return lines
