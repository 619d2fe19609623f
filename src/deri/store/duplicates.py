"""Recordings that are in a data set twice: equal stored samples, found by the digests in the index.

Equal files are among them, and equal waveforms in files that differ: another name, format, unit or byte order. What
differs by 1 µV in a single sample is another waveform here; ``deri info STORE --against OTHER`` finds near copies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
class Duplicates:
    """The duplicates among all rows of a store that is being written; takes about 60 bytes of memory per row.

    Attributes:
        recordings: int64 (n,), the number of each row's recording.
        first: int64 (n,), see :func:`first_rows`.
        dropped: bool (n,), the rows to leave out.
        drop: whether recordings that are duplicates are left out.
        texts: what the data set says of recordings.
    """

    recordings: np.ndarray
    first: np.ndarray
    dropped: np.ndarray
    drop: bool
    texts: Lookup

    @classmethod
    def find(cls, keys: np.ndarray, recordings: np.ndarray, texts: Lookup, *, drop: bool) -> Duplicates:
        """Look for equal samples by the ``keys`` of :func:`digest_keys`; ``drop`` leaves out :func:`dropped_rows`."""
        first = first_rows(keys, recordings)
        dropped = dropped_rows(first, recordings) if drop else np.zeros(len(first), bool)
        return cls(recordings, first, dropped, drop, texts)

    def firsts(self, rows: np.ndarray) -> np.ndarray:
        """The number of the recording that has the samples of each row first; -1 for none."""
        first = self.first[rows]
        return np.where(first >= 0, self.recordings[first], -1)

    def flagged(self, quality: pa.Array, rows: np.ndarray) -> pa.Array:
        """The column ``quality`` of ``rows`` with ``duplicate:RECORD_ID`` at the end where they are duplicates."""
        import pyarrow as pa

        first = self.firsts(rows)
        hits = np.flatnonzero(first >= 0)
        if not len(hits):
            return quality
        flags = quality.to_pylist()
        for row, name in zip(hits.tolist(), self.texts("record_id", first[hits]), strict=True):
            flags[row] = [*(flag for flag in flags[row] if not flag.startswith(f"{CODE}:")), f"{CODE}:{name}"]
        return pa.array(flags, pa.list_(pa.string()))

    def counts(self) -> dict[str, Any]:
        """Numbers of recordings, for ``store.json``.

        ``recordings``: those with a row that an earlier recording has; ``across_splits`` of these in another split than
        the first (leakage), ``across_subjects`` under another subject; ``examples``: the first of them, as pairs of
        record ids; ``dropped``: whether they were left out. Texts are asked for some thousand at a time.
        """
        recordings = self.recordings
        seen, splits_differ, subjects_differ = np.zeros((3, int(recordings.max(initial=-1)) + 1), bool)
        examples: list[list[str]] = []
        rows = np.flatnonzero(self.first >= 0)
        for start in range(0, len(rows), _PIECE):
            piece = rows[start : start + _PIECE]
            own, other = recordings[piece], recordings[self.first[piece]]
            _, new = np.unique(own, return_index=True)
            new = np.sort(new[~seen[own[new]]])[: _EXAMPLES - len(examples)]
            ids = self.texts("record_id", own[new]), self.texts("record_id", other[new])
            examples += [list(pair) for pair in zip(*ids, strict=True)]
            seen[own] = True
            for name, differ in (("split", splits_differ), ("subject_id", subjects_differ)):
                differ[own[self.texts(name, own) != self.texts(name, other)]] = True
        return {
            "recordings": int(seen.sum()),
            "across_splits": int(splits_differ.sum()),
            "across_subjects": int(subjects_differ.sum()),
            "examples": examples,
            "dropped": self.drop,
        }


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
