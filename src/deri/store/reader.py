"""Reading a store: signals by memory map, rows, labels and reports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deri.errors import DeriError
from deri.files import file_sha256, json_digest
from deri.progress import SILENT, Progress
from deri.remote import Address, RemoteError, fetch, place, sizes
from deri.store.layout import (
    FORMAT,
    INDEX_FILE,
    LEAD_COUNT,
    META_FILE,
    PLAN_FILE,
    REJECTS_FILE,
    REPORTS_FILE,
    SPLITS,
    VERSION,
    WORK_DIR,
    about_schema,
)
from deri.store.npy import map_npy, npy_bytes
from deri.store.plan import read_json
from deri.store.ranges import read_rows
from deri.store.shard import waveform_digest

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from deri.ecg import ECG

_UNITS = np.dtype("<i2")
_TABLES = (INDEX_FILE, REJECTS_FILE, REPORTS_FILE)
CURE = "copy the store again, or delete it and prepare the data again"
"""What helps where a file of a store is damaged."""


class Store:
    """A prepared data set. Open one with :meth:`open`.

    Samples come by memory map, from an address by ranges of bytes; the tables of one at an address are copied to the
    cache. The samples of a row are compared with their digest when they are first read, about 0.1 ms a row. Reading is
    safe from several threads; a pickled store is the path alone, opened anew where it is unpickled.

    Attributes:
        path: the folder, a path or an address.
        meta: the content of ``store.json``.
        left_out: rows (int64, ascending) that are damaged and whose recordings :meth:`rows` passes over; none unless
            :meth:`open` was asked to.
    """

    def __init__(self, path: Path | Address, meta: dict[str, Any], left_out: Sequence[int] | np.ndarray = ()) -> None:
        self.path = path
        self.meta = meta
        self.left_out = np.array(left_out, np.int64)
        self._scale = np.float32(meta["uv_per_unit"] / 1000.0)
        self._maps: dict[int, np.ndarray] = {}
        self._shards = {int(shard["shard"]): shard for shard in meta["shards"]}
        self._labels: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._verified = np.zeros(meta["n"], bool)  # rows whose samples were compared with their digest

    @classmethod
    def open(
        cls, path: str | Path | Address | Store, *, skip_damaged: bool = False, progress: Progress = SILENT
    ) -> Store:
        """Open the store in the folder ``path`` and check that it is whole.

        Args:
            path: the folder, or its address (``s3://…``); a store that is open already is returned as it is.
            skip_damaged: read all samples now, and leave out the recordings that are damaged. The fingerprint is that
                of the rest, and :attr:`provenance` counts what is left out.
            progress: is told of the samples that are read, and of what is left out.

        Raises:
            DeriError: there is no store, it is unfinished or of another version, or a file of it is missing,
                cut short or altered; with ``skip_damaged`` a file of samples may be.
        """
        if isinstance(path, Store):
            return path
        path = place(path)
        if isinstance(path, Path) and not (path / META_FILE).is_file():
            if (path / WORK_DIR / PLAN_FILE).is_file():
                raise DeriError(
                    f"the store {path} is unfinished: run the same deri prepare command again, it continues"
                )
            raise DeriError(
                f"{path} is no store (it has no {META_FILE}): make one with deri prepare DATASET SOURCE --out {path}"
            )
        meta = read_json(path / META_FILE)
        if meta.get("format") != FORMAT:
            raise DeriError(f"{path / META_FILE} does not describe a store (format {meta.get('format')!r})")
        if meta.get("version") != VERSION:
            raise DeriError(
                f"the store {path} has version {meta.get('version')} (written by deri "
                f"{meta.get('deri_version', '?')}), this deri reads version {VERSION}: prepare the data again"
            )
        store = cls(path, meta)
        store._check_tables()
        if skip_damaged:
            store.left_out = store.damaged(progress)
        else:
            for shard in meta["shards"]:
                store._check_shard(shard)
        return store

    @property
    def name(self) -> str:
        """Name of the folder."""
        return (self.path if isinstance(self.path, Address) else self.path.resolve()).name

    @cached_property
    def _sizes(self) -> dict[str, int | None]:
        """Bytes of each file of samples, None for one that is not there."""
        files = [shard["file"] for shard in self.meta["shards"]]
        if isinstance(self.path, Address):
            return dict(zip(files, sizes([self.path / file for file in files]), strict=True))
        paths = {file: self.path / file for file in files}
        return {file: path.stat().st_size if path.is_file() else None for file, path in paths.items()}

    @cached_property
    def _tables(self) -> Path:
        """The folder with the tables, or a copy of them, that are not verified yet."""
        if isinstance(self.path, Address):
            return fetch(self.path, {name: self.meta["files"][name] for name in _TABLES})
        return self.path

    def _check_shard(self, shard: dict[str, Any]) -> None:
        """Compare the size of a file of samples with what it should be."""
        file = self.path / shard["file"]
        expected = npy_bytes((shard["rows"], LEAD_COUNT, self.samples), _UNITS)
        found = self._sizes[shard["file"]]
        if found is None:
            raise DeriError(f"the store {self.path} lacks {shard['file']}: {CURE}")
        if found != expected:
            raise DeriError(f"{file} has {found:,} bytes instead of {expected:,}: {CURE}")

    def _check_tables(self) -> None:
        for name in _TABLES:
            file = self._tables / name
            if not file.is_file():
                raise DeriError(f"the store {self.path} lacks {name}: {CURE}")
            if file_sha256(file) != self.meta["files"][name]:
                raise DeriError(f"{self.path / name} is not the file that {META_FILE} describes: {CURE}")

    def damaged(self, progress: Progress = SILENT) -> np.ndarray:
        """Rows whose samples are not those that were written, int64, ascending; reads the whole store."""
        found, done = [], 0
        for shard in self.meta["shards"]:
            rows = np.flatnonzero(self._places[0] == int(shard["shard"]))
            try:
                self._check_shard(shard)
                for position, source in self._in_disk_order(rows):
                    self._verified[rows[position]] = self._is_whole(int(rows[position]), source)
            except RemoteError:  # which says nothing of the rows
                raise
            except DeriError as error:
                progress.message(str(error))
            found.append(rows[~self._verified[rows]])
            done += len(rows)
            progress.update(done, len(self))
        return np.sort(np.concatenate([np.empty(0, np.int64), *found]))

    def _is_whole(self, row: int, source: np.ndarray) -> bool:
        return waveform_digest(source) == self._digests[row]

    def _check(self, row: int, source: np.ndarray) -> None:
        """Compare a row with its digest, once."""
        if not self._is_whole(row, source):
            shard, names = int(self._places[0][row]), self.table.slice(row, 1).to_pylist()[0]
            raise DeriError(
                f"{self.path / self._shards[shard]['file']} is damaged: row {row} of the store ({names['record_id']}, "
                f"{names['file']}) is not what was written;\n{CURE}; deri info {self.path} --verify names all such, "
                "--skip-damaged goes on without them"
            )
        self._verified[row] = True

    @cached_property
    def _digests(self) -> list[str]:
        digests: list[str] = self.table["waveform"].to_pylist()
        return digests

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "meta": self.meta, "left_out": self.left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r}, dataset={self.meta['dataset']!r}, n={len(self)})"

    def __len__(self) -> int:
        return int(self.meta["n"])

    # --- what there is ---------------------------------------------------------------------------------------------

    @property
    def samples(self) -> int:
        """Samples per lead."""
        return int(self.meta["samples"])

    @property
    def fs(self) -> float:
        """Sampling rate of the stored signals, Hz."""
        return float(self.meta["fs"])

    @property
    def tasks(self) -> dict[str, list[str]]:
        """Class names of every task, in the order of the columns of :meth:`labels`."""
        return {task: list(classes) for task, classes in self.meta["tasks"].items()}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the content, as hex: ``store.json`` holds the checksums of the tables and of the signals.

        The same data, options and deri version give the same fingerprint, wherever the store lies. Damaged rows that
        are left out give another one.
        """
        return json_digest([self.meta, self.left_out.tolist()] if len(self.left_out) else self.meta)

    @property
    def provenance(self) -> dict[str, Any]:
        """Which store a result is of: path, data set, fingerprint, and by split the damaged recordings left out."""
        found = {"path": str(self.path), "dataset": self.meta["dataset"], "fingerprint": self.fingerprint}
        if not len(self.left_out):
            return found
        without = self._splits[self.begins & ~self._usable]
        return found | {"left_out": {split: int((without == i).sum()) for i, split in enumerate(SPLITS)}}

    @cached_property
    def table(self) -> pa.Table:
        """The table behind :attr:`index`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pq.read_table(self._tables / INDEX_FILE).combine_chunks()
        for field in about_schema():
            if field.name not in table.column_names:  # a store of an earlier version
                table = table.append_column(field, pa.nulls(len(table), field.type))
        return table

    @cached_property
    def index(self) -> pd.DataFrame:
        """One row per stored window, see ``docs/store.md``; labels and quality are arrays of text or None."""
        frame: pd.DataFrame = self.table.to_pandas()
        return frame

    @cached_property
    def rejects(self) -> pd.DataFrame:
        """The recordings that were refused, each with its reason."""
        import pandas as pd

        return pd.read_parquet(self._tables / REJECTS_FILE)

    def rejects_table(self) -> pa.Table:
        """Return the table behind :attr:`rejects`."""
        import pyarrow.parquet as pq

        return pq.read_table(self._tables / REJECTS_FILE)

    @cached_property
    def reports(self) -> list[str]:
        """The distinct cleaned reports; a row's ``report_id`` is the position here."""
        import pyarrow.parquet as pq

        texts: list[str] = pq.read_table(self._tables / REPORTS_FILE, columns=["text"])["text"].to_pylist()
        return texts

    @cached_property
    def report_ids(self) -> np.ndarray:
        """Position in :attr:`reports` for every row, int64 (n,); -1 where there is no report."""
        return self.column("report_id").astype(np.int64)

    def column(self, name: str) -> np.ndarray:
        """Return a column of the index, (n,); text as objects."""
        values: np.ndarray = self.table[name].to_numpy(zero_copy_only=False)
        return values

    @cached_property
    def _splits(self) -> np.ndarray:
        """Position in ``SPLITS`` for every row."""
        import pyarrow as pa
        import pyarrow.compute as pc

        found = pc.index_in(self.table["split"], value_set=pa.array(SPLITS))
        return np.asarray(found.to_numpy(), np.int8)

    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        return self.column("shard"), self.column("row")

    def rows(self, split: str = "all", *, windows: bool = False) -> np.ndarray:
        """Return the rows of a split (train, val, test, or all of them), int64, ascending, without :attr:`left_out`.

        One row per recording, the first of its windows; with ``windows`` every row, which is what training takes. A
        recording with a damaged window is left out whole.

        Raises:
            DeriError: there is no such split.
        """
        if split not in (*SPLITS, "all"):
            raise DeriError(f"--split {split}: choose one of {', '.join(SPLITS)}, all")
        chosen = self._usable if split == "all" else self._usable & (self._splits == SPLITS.index(split))
        rows: np.ndarray = np.flatnonzero(chosen if windows else chosen & self.begins)
        return rows

    @cached_property
    def _usable(self) -> np.ndarray:
        """Which rows belong to no recording with a damaged row, bool (n,)."""
        recording = np.cumsum(self.begins)
        return ~np.isin(recording, recording[self.left_out])

    @property
    def recordings(self) -> int:
        """Number of recordings; ``len`` is the number of rows, of which a long recording may have several."""
        return int(self.meta["recordings"])

    @cached_property
    def begins(self) -> np.ndarray:
        """Which rows are the first of their recording, bool (n,). The windows of a recording follow each other."""
        begins = np.ones(len(self), bool)
        if self.recordings != len(self):
            window = self.column("window")
            begins[1:] = window[1:] <= window[:-1]
            for name in ("record_id", "file"):
                values = self.column(name)
                begins[1:] |= values[1:] != values[:-1]
        return begins

    def windows_of(self, rows: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return all rows of the recordings that ``rows`` (b,) belong to, and for each the position in ``rows``.

        Both int64 (w,), w ≥ b; ``rows`` and 0 … b − 1 where every recording is one row.

        Raises:
            IndexError: a row is outside 0 … n - 1.
        """
        rows = self._checked(rows)
        first = np.flatnonzero(self.begins)
        recording = np.searchsorted(first, rows, side="right") - 1
        counts = np.diff(first, append=len(self))[recording]
        owners = np.repeat(np.arange(len(rows), dtype=np.int64), counts)
        within = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
        return first[recording][owners] + within, owners

    @cached_property
    def _lead_masks(self) -> np.ndarray:
        import pyarrow as pa
        import pyarrow.compute as pc

        masks = np.ones((len(self), LEAD_COUNT), bool)
        column = self.table["missing_leads"].combine_chunks()
        found = pc.index_in(pc.list_flatten(column), value_set=pa.array(self.meta["leads"], pa.string()))
        masks[pc.list_parent_indices(column).to_numpy(), found.to_numpy()] = False
        return masks

    def lead_mask(self, rows: Any) -> np.ndarray:
        """Return which leads ``rows`` (b,) have, bool (b, 12); the signal of the others is zero.

        Raises:
            IndexError: a row is outside 0 … n - 1.
        """
        mask: np.ndarray = self._lead_masks[self._checked(rows)]
        return mask

    # --- signals ---------------------------------------------------------------------------------------------------

    def signals_int16(self, rows: Any, out: np.ndarray | None = None) -> np.ndarray:
        """Return the stored units, int16 (b, 12, samples), of ``rows`` in their order, repeats allowed.

        Multiply by ``meta["uv_per_unit"] / 1000`` for mV, perhaps on the device that needs it: half the bytes travel.
        ``out`` takes the result; to fill one buffer again and again is faster than to get a new one for each batch.

        Raises:
            IndexError: a row is outside 0 … n - 1.
        """
        rows = self._checked(rows)
        out = self._buffer(out, len(rows), np.int16)
        for position, source in self._sources(rows):
            out[position] = source
        return out

    def signals(self, rows: Any, out: np.ndarray | None = None) -> np.ndarray:
        """Return the signals, float32 (b, 12, samples) in mV, of ``rows`` in their order; see :meth:`signals_int16`.

        Raises:
            IndexError: a row is outside 0 … n - 1.
        """
        rows = self._checked(rows)
        out = self._buffer(out, len(rows), np.float32)
        for position, source in self._sources(rows):
            target: np.ndarray = out[position]
            target[...] = source  # to convert, then to scale in the cache, takes two thirds of np.multiply's time
            target *= self._scale
        return out

    def recording(self, row: int) -> ECG:
        """The signal of a row, as it was before it was filled up to 10 s; leads that were not recorded are NaN.

        Raises:
            IndexError: the row is outside 0 … n - 1.
        """
        from deri.ecg import ECG

        signal = self.signals([row])[0, :, : int(self.column("valid_samples")[row])].copy()
        signal[~self.lead_mask([row])[0]] = np.nan
        return ECG(signal, self.fs, {"source_file": str(self.column("record_id")[row])})

    def _checked(self, rows: Any) -> np.ndarray:
        return checked_numbers(rows, len(self), "row")

    def _buffer(self, out: np.ndarray | None, count: int, dtype: Any) -> np.ndarray:
        shape = (count, LEAD_COUNT, self.samples)
        if out is None:
            return np.empty(shape, dtype)
        if out.shape != shape or out.dtype != dtype:
            raise ValueError(f"out is {out.dtype} {out.shape}, needed is {np.dtype(dtype)} {shape}")
        return out

    def _sources(self, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (position in the batch, memory-mapped (12, samples)) in the order of the disk, as they were written."""
        for position, source in self._in_disk_order(rows):
            if not self._verified[rows[position]] or isinstance(self.path, Address):  # which is read anew each time
                self._check(int(rows[position]), source)
            yield position, source

    def _in_disk_order(self, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        shards, places = self._places[0][rows], self._places[1][rows]
        order = np.lexsort((places, shards))
        if isinstance(self.path, Address):
            files = {shard: (self.path / about["file"], about["rows"]) for shard, about in self._shards.items()}
            read = read_rows(files, shards[order], places[order], (LEAD_COUNT, self.samples), _UNITS)
            yield from zip(order, read, strict=True)
            return
        for position in order:
            yield position, self._map(self.path, int(shards[position]))[places[position]]

    def _map(self, folder: Path, shard: int) -> np.ndarray:
        found = self._maps.get(shard)
        if found is None:  # two threads may both open it; one map is dropped
            about = self._shards[shard]
            shape = (about["rows"], LEAD_COUNT, self.samples)
            found = map_npy(folder / about["file"], shape, _UNITS, CURE)
            self._maps[shard] = found
        return found

    # --- labels ----------------------------------------------------------------------------------------------------

    def labels(self, task: str, rows: Any) -> tuple[list[str], np.ndarray]:
        """Return the class names of a task and, for ``rows``, 0 or 1 per class: uint8 (b, classes).

        Raises:
            DeriError: there is no such task, or a row is not part of it (its labels are unknown, not absent).
        """
        known, marks = self._task(task)
        rows = self._checked(rows)
        outside = rows[~known[rows]]
        if outside.size:
            raise DeriError(
                f"row {outside[0]} of the store {self.path} is not part of task {task!r}: use the rows of task_rows()"
            )
        return self.tasks[task], marks[rows]

    def task_rows(self, task: str, split: str = "all", *, windows: bool = False) -> np.ndarray:
        """Return the rows of ``split`` whose labels for the task are known, int64, ascending; see :meth:`rows`.

        Raises:
            DeriError: there is no such task or split.
        """
        known, _ = self._task(task)
        rows = self.rows(split, windows=windows)
        return rows[known[rows]]

    def _task(self, task: str) -> tuple[np.ndarray, np.ndarray]:
        """Return which rows are part of the task, bool (n,), and their marks, uint8 (n, classes)."""
        if task not in self.meta["tasks"]:
            have = ", ".join(self.meta["tasks"]) or "none"
            raise DeriError(f"the store {self.path} has no task {task!r}; its tasks: {have}")
        if task not in self._labels:
            import pyarrow as pa
            import pyarrow.compute as pc

            classes = self.meta["tasks"][task]
            column = self.table[task].combine_chunks()
            known = np.asarray(column.is_valid().to_numpy(zero_copy_only=False), bool)
            marks = np.zeros((len(self), len(classes)), np.uint8)
            parents = pc.list_parent_indices(column).to_numpy()
            values = pc.index_in(pc.list_flatten(column), value_set=pa.array(classes, pa.string()))
            if values.null_count:
                raise DeriError(f"{self.path / INDEX_FILE} has labels of {task!r} that {META_FILE} does not name")
            marks[parents, values.to_numpy()] = 1
            self._labels[task] = (known, marks)
        return self._labels[task]


def checked_numbers(numbers: Any, count: int, what: str) -> np.ndarray:
    """Return numbers of rows or reports as int64 (b,).

    Raises:
        TypeError: they are no list of integers.
        IndexError: one is outside 0 … ``count`` - 1, as -1 (no report) is.
    """
    found = np.atleast_1d(np.asarray(numbers))
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        raise TypeError(f"{what}s are a list of integers, not {found.dtype} of shape {found.shape}")
    if found.size and (found.min() < 0 or found.max() >= count):
        raise IndexError(f"{what}s {found.min()} … {found.max()}, but there are 0 … {count - 1}")
    checked: np.ndarray = found.astype(np.int64, copy=False)
    return checked
