"""The tables of a store and ``store.json``: one builder, for the chunks of a preparation and the stores of a merge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deri._version import __version__
from deri.files import atomic_path, file_sha256, write_sealed
from deri.store.duplicates import REASON, Duplicates
from deri.store.layout import (
    FORMAT,
    FS,
    INDEX_COLUMNS,
    INDEX_FILE,
    META_FILE,
    REJECT_COLUMNS,
    REJECTS_FILE,
    REPORTS_FILE,
    SAMPLES,
    SPLITS,
    VERSION,
)
from deri.store.summary import Summary

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUP = 1024
"""Most rows of a Parquet row group: what is joined and encoded at a time."""


class StoreTables:
    """Writes ``index.parquet`` and ``rejects.parquet`` piece by piece, and counts what a summary needs on the way.

    A context: the files get their names when it is left without an error. The rows of all pieces, one after the other,
    are those of ``duplicates``, whose ``texts`` tell each recording's split.

    Args:
        folder: of the store; None to count only.
        duplicates: of all rows.
    """

    def __init__(self, folder: Path | None, duplicates: Duplicates) -> None:
        self.folder = folder
        self.duplicates = duplicates
        self.reports: dict[str, int] = {}
        self.first_reject: dict[str, str] | None = None
        self._given = 0  # rows so far, the dropped ones included
        self._written = 0
        self._last = -1  # recording of the row before
        self._sources: Counter[str] = Counter()
        self._splits: Counter[str] = Counter()
        self._lengths: Counter[tuple[int, float]] = Counter()
        self._refused: Counter[tuple[str, str]] = Counter()
        self._files = ExitStack()
        self._index = self._rejects = _ParquetWriter(None)

    def __enter__(self) -> StoreTables:
        if self.folder is not None:
            paths = [self._files.enter_context(atomic_path(self.folder / n)) for n in (INDEX_FILE, REJECTS_FILE)]
            self._index, self._rejects = [self._files.enter_context(_ParquetWriter(path)) for path in paths]
        return self

    def __exit__(self, *error: Any) -> None:
        self._files.__exit__(*error)

    def add_rows(self, columns: Mapping[str, pa.Array], texts: Sequence[str | None]) -> tuple[pa.Table, np.ndarray]:
        """Write the next rows, but for those that are left out as duplicates.

        Args:
            columns: those of the index without ``split`` and ``report_id``, and one of labels for each task. The rows
                of a recording follow each other.
            texts: the cleaned report of each row; None for none.

        Returns:
            The recordings that are left out, as rows for :meth:`add_rejects`, and their numbers.
        """
        import pyarrow as pa

        count = len(texts)
        rows = np.arange(self._given, self._given + count)
        recordings = self.duplicates.recordings[rows]
        begins = np.diff(recordings, prepend=self._last) != 0
        if count:
            self._given, self._last = self._given + count, int(recordings[-1])
        dropped = self.duplicates.dropped[rows]
        table = pa.table(dict(columns))
        refused, left_out = self._left_out(table, rows, begins & dropped), recordings[begins & dropped]
        if dropped.any():
            table, rows, begins = table.filter(pa.array(~dropped)), rows[~dropped], begins[~dropped]
            texts = [text for text, gone in zip(texts, dropped.tolist(), strict=True) if not gone]
        found: dict[str, Any] = {name: table[name].combine_chunks() for name in table.column_names}
        ids = [-1 if text is None else self.reports.setdefault(text, len(self.reports)) for text in texts]
        found["report_id"] = pa.array(ids, pa.int32())
        split = self.duplicates.texts("split", self.duplicates.recordings[rows])
        found["split"] = pa.array(split.tolist(), pa.string())
        found["quality"] = self.duplicates.flagged(found["quality"], rows)
        tasks = [name for name in found if name not in INDEX_COLUMNS]
        index = pa.table({name: found[name] for name in (*INDEX_COLUMNS, *tasks)})
        self._index.write(index)
        self._written += len(rows)
        stored = index.filter(pa.array(begins))
        self._sources.update(stored["source"].to_pylist())
        self._splits.update(stored["split"].to_pylist())
        self._lengths.update(zip(stored["n_samples"].to_pylist(), stored["fs"].to_pylist(), strict=True))
        return refused, left_out

    def _left_out(self, table: pa.Table, rows: np.ndarray, begins: np.ndarray) -> pa.Table:
        """The recordings that begin where ``begins`` says, as refused ones."""
        import pyarrow as pa

        first = self.duplicates.firsts(rows[begins])
        details = [f"has the samples of {name}" for name in self.duplicates.texts("record_id", first)]
        left_out = table.filter(pa.array(begins))
        columns = {name: left_out[name] for name in REJECT_COLUMNS if name in left_out.column_names}
        columns["reason"] = pa.array([REASON] * len(details), pa.string())
        columns["detail"] = pa.array(details, pa.string())
        return pa.table({name: columns[name] for name in REJECT_COLUMNS})

    def add_rejects(self, table: pa.Table) -> None:
        """Write the next refused recordings, with the columns ``REJECT_COLUMNS``."""
        self._refused.update(zip(table["source"].to_pylist(), table["reason"].to_pylist(), strict=True))
        if self.first_reject is None and table.num_rows:
            self.first_reject = table.slice(0, 1).to_pylist()[0]
        self._rejects.write(table)

    def summary(self, dataset: str, **rest: Any) -> Summary:
        """Return the counts of what was added."""
        from deri.ecg.standardise import window_count

        longer = (n for (samples, fs), n in self._lengths.items() if window_count(samples, fs, SAMPLES / FS) > 1)
        return Summary.count(
            dataset,
            self._sources,
            self._refused,
            windows=self._written,
            longer=sum(longer),
            reports=len(self.reports),
            splits={name: self._splits[name] for name in SPLITS},
            duplicates=self.duplicates.counts(),
            **rest,
        )

    def finish(
        self, summary: Summary, about: Mapping[str, Any], shards: list[dict[str, Any]], origin: Mapping[str, Any]
    ) -> None:
        """Write ``reports.parquet`` and, last, ``store.json``: the store is whole then.

        Args:
            summary: of :meth:`summary`.
            about: how the store was made: signals, tasks, splits, options.
            shards: number, file, rows and checksum of each.
            origin: notes, parts and plan.
        """
        import pyarrow as pa

        assert self.folder is not None
        numbers = pa.array(range(len(self.reports)), pa.int32())
        table = pa.table({"report_id": numbers, "text": pa.array(list(self.reports), pa.string())})
        with atomic_path(self.folder / REPORTS_FILE) as path, _ParquetWriter(path) as reports:
            reports.write(table)
        meta = {
            "format": FORMAT,
            "version": VERSION,
            "deri_version": __version__,
            "dataset": summary.dataset,
            "n": summary.windows,
            "recordings": summary.read,
            **about,
            "reports": summary.reports,
            "shards": shards,
            "files": {name: file_sha256(self.folder / name) for name in (INDEX_FILE, REJECTS_FILE, REPORTS_FILE)},
            "summary": summary.to_dict(),
            **origin,
        }
        write_sealed(self.folder / META_FILE, meta)


class _ParquetWriter:
    """Writes a Parquet file of which the rows come in pieces, a row group each; nothing without a path."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._writer: Any = None

    def write(self, table: pa.Table) -> None:
        """Append rows; all pieces have the columns of the first, which may be empty."""
        import pyarrow.parquet as pq

        if self._path is None:
            return
        if self._writer is None:
            # Without dictionaries, which take much memory to make; zstd makes as little of repeated words.
            self._writer = pq.ParquetWriter(self._path, table.schema, compression="zstd", use_dictionary=False)
        if table.num_rows:
            self._writer.write_table(table, row_group_size=ROW_GROUP)

    def __enter__(self) -> _ParquetWriter:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._writer is not None:
            self._writer.close()
