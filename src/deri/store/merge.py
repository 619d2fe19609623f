"""The tables of a store, chunk by chunk: what was read of the recordings beside what the data set says of them.

Only one chunk's rows are in memory at a time, and what the end of a preparation must know is counted on the way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from deri.store.chunk import DIGEST_KEY, ROW_COLUMNS
from deri.store.duplicates import REASON, Found, Lookup, Repeats, flagged
from deri.store.duplicates import count as count_duplicates
from deri.store.layout import FS, INDEX_COLUMNS, REJECT_COLUMNS, SAMPLES, SPLITS, chunk_file, shard_name
from deri.store.plan import TEXT_COLUMNS, label_values, text_values
from deri.store.summary import Summary

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from deri.datasets import Dataset

ROW_GROUP = 1024
"""Most rows of a Parquet row group: what is joined and encoded at a time."""


def stored_rows(out: Path, chunk: int) -> int:
    """Return how many rows of a finished chunk were stored."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(chunk_file(out, chunk)) as file:
        return int(file.schema_arrow.metadata[b"rows"])


@dataclass(frozen=True)
class Part:
    """Rows of the tables, in their order."""

    index: pa.Table | None
    rejects: pa.Table


@dataclass
class Merged:
    """What the parts that were passed on hold together.

    Attributes:
        drop_duplicates: whether recordings whose samples an earlier one has become rejects.
        duplicates: what was found of them.
        shards: the entries of ``store.json``.
        first_reject: its row, or None.
    """

    drop_duplicates: bool = False
    duplicates: Found = field(default_factory=Found)
    shards: list[dict[str, Any]] = field(default_factory=list)
    first_reject: dict[str, str] | None = None
    rows: int = 0
    _last: int = -1  # example of the row before
    _last_dropped: int = -1
    _reports: _Reports = field(default_factory=lambda: _Reports())
    _read: Counter[str] = field(default_factory=Counter)
    _splits: Counter[str] = field(default_factory=Counter)
    _lengths: Counter[tuple[int, float]] = field(default_factory=Counter)
    _refused: Counter[tuple[str, str]] = field(default_factory=Counter)

    def parts(self, dataset: Dataset, splits: Sequence[str], out: Path, chunks: Sequence[int]) -> Iterator[Part]:
        """Yield the parts of the tables: what the data set refused, then chunk after chunk."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        for start in range(0, len(dataset.rejects), ROW_GROUP):
            piece = dataset.rejects.iloc[start : start + ROW_GROUP]
            values = {column: [value or "" for value in text_values(piece[column])] for column in REJECT_COLUMNS}
            yield Part(None, self._count_rejects(values))
        repeats = Repeats.scan([chunk_file(out, k) for k in chunks])
        self.duplicates = count_duplicates(repeats.first, repeats.recordings, _lookup(dataset, splits))
        for k in chunks:
            with pq.ParquetFile(chunk_file(out, k)) as file:
                self._note_shard(k, file.schema_arrow.metadata)
                for batch in file.iter_batches(batch_size=ROW_GROUP, use_threads=False):
                    yield self._join(dataset, splits, k, pa.Table.from_batches([batch]), repeats)

    def _note_shard(self, chunk: int, metadata: dict[bytes, bytes]) -> None:
        rows = int(metadata[b"rows"])
        if rows:
            digest = metadata[DIGEST_KEY].decode()
            self.shards.append({"shard": chunk, "file": shard_name(chunk), "rows": rows, "rows_sha256": digest})

    def _join(self, dataset: Dataset, splits: Sequence[str], chunk: int, table: pa.Table, repeats: Repeats) -> Part:
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        good = table.filter(pc.is_null(table["reason"]))
        first, dropped = repeats.take(good.num_rows)
        twice = self._dropped(dataset, good, first, dropped) if self.drop_duplicates and dropped.any() else None
        if twice is not None:
            good, first = good.filter(pa.array(~dropped)), first[~dropped]
        self.rows += good.num_rows
        positions = good["example"].to_numpy()
        here = dataset.examples.iloc[positions]
        columns: dict[str, Any] = {column: pa.array(here[column].tolist(), pa.string()) for column in TEXT_COLUMNS}
        columns["report_id"] = pa.array(self._reports.ids(text_values(here["report"])), pa.int32())
        columns["split"] = pa.array([splits[i] for i in positions.tolist()], pa.string())
        columns["shard"] = pa.array(np.full(good.num_rows, chunk, np.int32))
        for name in ("row", *ROW_COLUMNS):
            columns[name] = good[name].combine_chunks()
        columns["quality"] = flagged(columns["quality"], first, _lookup(dataset, splits))
        columns = {name: columns[name] for name in INDEX_COLUMNS}
        for task in dataset.tasks:
            columns[task] = pa.array(label_values(here[task]), pa.list_(pa.string()))
        index = pa.table(columns)
        self._count_recordings(index.filter(pa.array(np.diff(positions, prepend=self._last) != 0)))
        self._last = int(positions[-1]) if len(positions) else self._last

        bad = table.filter(pc.is_valid(table["reason"]))
        if twice is not None:
            bad = pa.concat_tables([bad, twice]).sort_by("example")
        there = dataset.examples.iloc[bad["example"].to_numpy()]
        refused = {
            column: there[column].tolist() if column in TEXT_COLUMNS else bad[column].to_pylist()
            for column in REJECT_COLUMNS
        }
        return Part(index, self._count_rejects(refused))

    def _dropped(self, dataset: Dataset, good: pa.Table, first: np.ndarray, dropped: np.ndarray) -> pa.Table:
        """Return the dropped recordings among the rows of a chunk as refused ones."""
        import numpy as np
        import pyarrow as pa

        positions = good["example"].to_numpy()
        names = dataset.examples["record_id"].iloc
        begins = np.flatnonzero(dropped & (np.diff(positions, prepend=self._last_dropped) != 0))
        self._last_dropped = int(positions[dropped][-1])
        rows = [
            {"example": int(positions[row]), "reason": REASON, "detail": f"has the samples of {names[first[row]]}"}
            for row in begins.tolist()
        ]
        return pa.Table.from_pylist(rows, schema=good.schema)

    def _count_recordings(self, recordings: pa.Table) -> None:
        """Count the first stored windows of recordings."""
        self._read.update(recordings["source"].to_pylist())
        self._splits.update(recordings["split"].to_pylist())
        self._lengths.update(recorded_lengths(recordings))

    def _count_rejects(self, values: dict[str, list[str]]) -> pa.Table:
        import pyarrow as pa

        self._refused.update(zip(values["source"], values["reason"], strict=True))
        if self.first_reject is None and values["reason"]:
            self.first_reject = {column: values[column][0] for column in REJECT_COLUMNS}
        return pa.table({column: pa.array(values[column], pa.string()) for column in REJECT_COLUMNS})

    @property
    def reports(self) -> list[str]:
        """The distinct cleaned reports, in the order of their ids."""
        return list(self._reports.of_clean)

    def summary(self, dataset: str, **rest: Any) -> Summary:
        """Return the counts of what was passed on."""
        return Summary.count(
            dataset,
            self._read,
            self._refused,
            windows=self.rows,
            longer=count_longer(self._lengths),
            reports=len(self._reports.of_clean),
            splits={name: self._splits[name] for name in SPLITS},
            duplicates=self.duplicates.to_dict() | {"dropped": self.drop_duplicates},
            **rest,
        )


def recorded_lengths(recordings: pa.Table) -> Iterator[tuple[int, float]]:
    """Yield samples and sampling rate of each recording, as it was recorded."""
    return zip(recordings["n_samples"].to_pylist(), recordings["fs"].to_pylist(), strict=True)


def count_longer(lengths: Counter[tuple[int, float]]) -> int:
    """Return how many of the recordings of these lengths have a second window of 10 s."""
    from deri.ecg.standardise import window_count

    return sum(n for (samples, fs), n in lengths.items() if window_count(samples, fs, SAMPLES / FS) > 1)


def _lookup(dataset: Dataset, splits: Sequence[str]) -> Lookup:
    """The texts of recordings by their position in the data set."""
    import numpy as np

    def lookup(name: str, numbers: np.ndarray) -> np.ndarray:
        if name == "split":
            return np.array([splits[number] for number in numbers.tolist()], dtype=object)
        return dataset.examples[name].iloc[numbers].to_numpy(dtype=object)

    return lookup


class _Reports:
    """Numbers the distinct cleaned reports in order of appearance."""

    def __init__(self) -> None:
        self._of_raw: dict[str, int] = {}
        self.of_clean: dict[str, int] = {}

    def ids(self, texts: Sequence[str | None]) -> list[int]:
        """Return the report id of each text, -1 for none."""
        from deri.reports import clean_report

        ids = []
        for text in texts:
            if text is None:
                ids.append(-1)
                continue
            if text not in self._of_raw:
                clean = clean_report(text)
                self._of_raw[text] = self.of_clean.setdefault(clean, len(self.of_clean)) if clean else -1
            ids.append(self._of_raw[text])
        return ids


class TableWriter:
    """Writes a Parquet file of which the rows come in pieces, a row group each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: Any = None

    def write(self, table: pa.Table) -> None:
        """Append rows; all pieces have the columns of the first, which may be empty."""
        import pyarrow.parquet as pq

        if self._writer is None:
            # Without dictionaries, which take much memory to make; zstd makes as little of repeated words.
            self._writer = pq.ParquetWriter(self._path, table.schema, compression="zstd", use_dictionary=False)
        if table.num_rows:
            self._writer.write_table(table, row_group_size=ROW_GROUP)

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()


def reports_table(reports: list[str]) -> pa.Table:
    """Return the table of ``reports.parquet``."""
    import pyarrow as pa

    return pa.table({"report_id": pa.array(range(len(reports)), pa.int32()), "text": pa.array(reports, pa.string())})
