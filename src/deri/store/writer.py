"""``prepare``: from a data set to a store, in parallel, to be continued after a kill."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deri.datasets.anonymous import capped, year
from deri.errors import DeriError
from deri.files import AGAIN, WriteError, writing
from deri.locks import file_lock
from deri.progress import SILENT, Progress, Shifted
from deri.store.chunk import DIGEST_KEY, ROW_COLUMNS, ChunkJob, chunk_done
from deri.store.duplicates import Duplicates, digest_keys
from deri.store.layout import (
    FORMAT,
    FS,
    LEAD_COUNT,
    META_FILE,
    REJECT_COLUMNS,
    SAMPLES,
    SIGNALS_DIR,
    UV_PER_UNIT,
    WORK_DIR,
    about_schema,
    chunk_count,
    chunk_file,
    chunk_size,
    shard_name,
)
from deri.store.plan import (
    TEXT_COLUMNS,
    check_dataset,
    claim,
    label_values,
    make_plan,
    plain_values,
    read_json,
    refuse_other_plan,
    text_values,
)
from deri.store.splits import assign_splits
from deri.store.summary import Summary
from deri.store.tables import ROW_GROUP, StoreTables
from deri.workers import Engine, open_engine

if TYPE_CHECKING:
    import pyarrow as pa

    from deri.datasets import Dataset


def prepare(
    dataset: Dataset,
    out: str | Path,
    *,
    workers: int | None = None,
    engine: str = "local",
    shard: tuple[int, int] = (0, 1),
    split: str = "patient",
    repair: str = "lead",
    min_leads: int = 1,
    windows: int | None = 1,
    duplicates: str = "keep",
    seed: int = 0,
    progress: Progress = SILENT,
) -> Summary:
    """Read, standardise and store every recording of ``dataset`` in the folder ``out``.

    The same data set and options give the same bytes, whatever ``workers``, ``engine`` and ``shard``. A run that was
    killed is continued by running it again; on a finished store the same call only returns its summary.

    Args:
        dataset: the data set.
        out: folder of the store: new, empty, or of an earlier run of the same preparation.
        workers: processes that read recordings; 1 reads in this process. Where there are more, one that dies is
            replaced, and a recording that two died of is refused (``worker_died``). None: 1, or all of the cluster.
        engine: ``"local"``, or ``"ray"`` for workers on a Ray cluster, see :func:`deri.workers.open_engine`.
        shard: ``(i, n)`` does only the chunks k with ``k % n == i``, for a preparation spread over n jobs that share
            ``out``. Whoever comes last finishes the store.
        split: ``"patient"`` keeps all recordings of a patient in one split; ``"record"`` (the published way) draws,
            and accepts given splits, record by record.
        repair: how gaps are filled, see :func:`deri.ecg.standardise`.
        min_leads: a recording with fewer leads, recorded or derived, is refused (``missing_leads``).
        windows: how many windows of 10 s to store of a longer recording; None: all. 1 (the published way) is its
            first 10 s; see :func:`deri.ecg.standardise.choose_windows`.
        duplicates: ``"keep"`` flags a recording that has the samples of an earlier one, ``"drop"`` refuses it
            (``duplicate_recording``): its row stays in the shard, but not in the index.
        seed: of the split.
        progress: is told recordings looked at, of those of this call.

    Returns:
        The counts. ``complete`` is False where other shards are still missing.

    Raises:
        DeriError: ``out`` holds something else; the options do not fit; no recording can be used; the disk is full;
            worker processes die again and again, or there is no such cluster.
    """
    out, opening = Path(out), open_engine(engine, workers)
    _check_options(shard, split, repair)
    if not 1 <= min_leads <= LEAD_COUNT:
        raise DeriError(f"--min-leads {min_leads}: a number from 1 to {LEAD_COUNT}")
    if windows is not None and windows < 1:
        raise DeriError(f"--windows {windows}: at least 1, or all")
    if duplicates not in ("keep", "drop"):
        raise DeriError(f"--duplicates {duplicates}: choose keep or drop")
    check_dataset(dataset)
    splits = assign_splits(
        dataset.examples,
        rule=split,
        seed=seed,
        val_fraction=dataset.val_fraction,
        test_fraction=dataset.test_fraction,
    )
    plan = make_plan(
        dataset, split=split, seed=seed, repair=repair, min_leads=min_leads, windows=windows, duplicates=duplicates
    )
    work = _Preparation(dataset, splits, out, plan)
    with writing(out, f"{AGAIN}: finished chunks are kept"):
        options = {"repair": repair, "min_leads": min_leads, "windows": windows, "reading": dataset.reading}
        return _prepare(work, shard, opening, options, progress)


def _prepare(
    work: _Preparation,
    shard: tuple[int, int],
    engine: AbstractContextManager[Engine],
    reading: dict[str, Any],
    progress: Progress,
) -> Summary:
    dataset, out = work.dataset, work.out
    try:
        if (out / META_FILE).exists():
            return work.finished()
        claim(out, work.plan)
        if work.due(shard):
            with engine as opened:
                work.convert(opened, shard, reading, progress)
        chunks = range(chunk_count(len(dataset.examples)))
        done = [k for k in chunks if chunk_done(out, k)]
        if (out / META_FILE).exists():
            return work.finished()
        if len(done) < len(chunks):
            return work.count(done).summary(dataset.name, complete=False, chunks_done=len(done), chunks=len(chunks))
        return work.finish() or work.finished()
    except (FileNotFoundError, WriteError):
        # Another shard finished the store and removed the work files while they were looked at here.
        if (out / META_FILE).exists():
            return work.finished()
        raise


def _check_options(shard: tuple[int, int], split: str, repair: str) -> None:
    index, count = shard
    if count < 1 or not 0 <= index < count:
        raise DeriError(f"--shard {index}/{count}: of N shards, I runs from 0 to N-1")
    if split not in ("patient", "record"):
        raise DeriError(f"--split {split}: choose patient or record")
    if repair not in ("lead", "published"):
        raise DeriError(f"--repair {repair}: choose lead or published")


class _Preparation:
    """What is prepared, and where."""

    def __init__(self, dataset: Dataset, splits: Sequence[str], out: Path, plan: dict[str, Any]) -> None:
        self.dataset = dataset
        self.splits = splits
        self.out = out
        self.plan = plan

    def finished(self) -> Summary:
        """Return the summary of the store that is there, if it is this one."""
        meta = read_json(self.out / META_FILE)
        if meta.get("format") != FORMAT:
            raise DeriError(f"--out {self.out} is not empty and no store: choose another --out, or delete it")
        refuse_other_plan(self.out, meta.get("plan", {}) | {"version": meta.get("version")}, self.plan)
        self._remove(WORK_DIR)  # a run killed right after store.json was written leaves it
        return Summary(**meta["summary"])

    def due(self, shard: tuple[int, int]) -> list[int]:
        """The chunks of a shard that are not done yet."""
        mine = range(shard[0], chunk_count(len(self.dataset.examples)), shard[1])
        return [k for k in mine if not chunk_done(self.out, k)]

    def convert(self, engine: Engine, shard: tuple[int, int], reading: dict[str, Any], progress: Progress) -> None:
        """Convert the chunks of a shard that are not done yet."""
        n = len(self.dataset.examples)
        size = chunk_size(n)
        mine = range(shard[0], chunk_count(n), shard[1])
        total = sum(min(size, n - k * size) for k in mine)
        told = Shifted(progress, 0, total)
        # A chunk that another process has locked is skipped at first, and waited for when nothing else is left to do.
        for wait in (False, True):
            todo = self.due(shard)
            done = total - sum(min(size, n - k * size) for k in todo)
            told.update(done, total)
            deque(engine.run(self._jobs(todo, {"wait": wait, **reading}), total, Shifted(told, done, total)), 0)

    def _jobs(self, chunks: Sequence[int], options: dict[str, Any]) -> Iterator[ChunkJob]:
        """Each job is made when its turn comes: the names of all files are many."""
        root, paths = Path(self.dataset.root), self.dataset.paths
        files = self.dataset.examples["file"]
        size = chunk_size(len(files))
        for k in chunks:
            part = slice(k * size, (k + 1) * size)
            names = tuple(files.iloc[part].tolist() if paths is None else paths[part])
            yield ChunkJob(self.out, k, k * size, root, names, **options)

    def _duplicates(self, chunks: Sequence[int]) -> Duplicates:
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        keys, recordings = [np.empty((0, 2), "<u8")], [np.empty(0, np.int64)]
        for k in chunks:
            with pq.ParquetFile(chunk_file(self.out, k)) as file:
                for batch in file.iter_batches(columns=["example", "reason", "waveform"], use_threads=False):
                    stored = batch.filter(pc.is_null(batch["reason"]))
                    keys.append(digest_keys(stored["waveform"].to_pylist()))
                    recordings.append(stored["example"].to_numpy())
        drop = self.plan["duplicates"] == "drop"
        return Duplicates.find(np.concatenate(keys), np.concatenate(recordings), self._texts, drop=drop)

    def _texts(self, name: str, numbers: np.ndarray) -> np.ndarray:
        """The texts of recordings by their position in the data set."""
        if name == "split":
            return np.array([self.splits[number] for number in numbers.tolist()], dtype=object)
        return self.dataset.examples[name].iloc[numbers].to_numpy(dtype=object)

    def count(self, chunks: Sequence[int]) -> StoreTables:
        """Count what the finished ``chunks`` hold."""
        with StoreTables(None, self._duplicates(chunks)) as tables:
            self._add(tables, chunks)
        return tables

    def _add(self, tables: StoreTables, chunks: Sequence[int]) -> list[dict[str, Any]]:
        """Add what the data set refused, then chunk after chunk; return the shards."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        rejects = self.dataset.rejects
        for start in range(0, len(rejects), ROW_GROUP):
            piece = rejects.iloc[start : start + ROW_GROUP]
            texts = {name: [value or "" for value in text_values(piece[name])] for name in REJECT_COLUMNS}
            tables.add_rejects(pa.table({name: pa.array(texts[name], pa.string()) for name in REJECT_COLUMNS}))
        shards = []
        cleaned: dict[str, str | None] = {}
        for k in chunks:
            with pq.ParquetFile(chunk_file(self.out, k)) as file:
                about = file.schema_arrow.metadata
                if rows := int(about[b"rows"]):
                    digest = about[DIGEST_KEY].decode()
                    shards.append({"shard": k, "file": shard_name(k), "rows": rows, "rows_sha256": digest})
                for batch in file.iter_batches(batch_size=ROW_GROUP, use_threads=False):
                    self._add_batch(tables, k, pa.Table.from_batches([batch]), cleaned)
        return shards

    def _add_batch(self, tables: StoreTables, chunk: int, table: pa.Table, cleaned: dict[str, str | None]) -> None:
        """Add rows of a chunk beside what the data set says of them."""
        import pyarrow as pa
        import pyarrow.compute as pc

        from deri.reports import join_report

        good = table.filter(pc.is_null(table["reason"]))
        here = self.dataset.examples.iloc[good["example"].to_numpy()]
        columns: dict[str, Any] = {name: pa.array(here[name].tolist(), pa.string()) for name in TEXT_COLUMNS}
        columns["shard"] = pa.array(np.full(good.num_rows, chunk, np.int32))
        columns |= {name: good[name] for name in ("row", *ROW_COLUMNS)}
        for field in about_schema():
            if field.name in here:  # what the tables of the data set say comes before what the file does
                said = pa.array(plain_values(here[field.name]), field.type)
                columns[field.name] = pc.coalesce(said, good[field.name].combine_chunks())
        if self.dataset.paths is not None:
            for name, coarse in (("date", year), ("age", capped)):
                known = columns[name]
                columns[name] = pa.array(list(map(coarse, known.to_pylist())), known.type)
        texts = text_values(here["report"])
        if self.dataset.report_from == "file":
            texts = [join_report(lines or ()) or None for lines in good["interpretation"].to_pylist()]
        columns |= {task: pa.array(label_values(here[task]), pa.list_(pa.string())) for task in self.dataset.tasks}
        refused, numbers = tables.add_rows(columns, _clean(texts, cleaned))

        bad = table.filter(pc.is_valid(table["reason"]))
        there = self.dataset.examples.iloc[bad["example"].to_numpy()]
        values = {name: there[name].tolist() if name in TEXT_COLUMNS else bad[name] for name in REJECT_COLUMNS}
        if self.dataset.paths is not None:
            values["detail"] = [""] * bad.num_rows
        rejects = pa.table({name: pa.array(values[name], pa.string()) for name in REJECT_COLUMNS})
        if len(numbers):
            order = np.argsort(np.concatenate([bad["example"].to_numpy(), numbers]))
            rejects = pa.concat_tables([rejects, refused]).take(pa.array(order)).combine_chunks()
        tables.add_rejects(rejects)

    def finish(self) -> Summary | None:
        """Write the tables and ``store.json`` from all chunks, and remove the work files.

        Returns None where another process has just done so.

        Raises:
            DeriError: no recording at all could be used. Nothing of the store is left then, so that a corrected data
                set can be prepared anew.
        """
        out, dataset = self.out, self.dataset
        chunks = range(chunk_count(len(dataset.examples)))
        with file_lock(out / WORK_DIR / "finish.lock", wait=True):
            if (out / META_FILE).exists():  # another shard was faster
                return None
            for folder in (out, out / SIGNALS_DIR):
                for leftover in folder.glob(".*.tmp"):  # of killed runs
                    leftover.unlink(missing_ok=True)
            duplicates = self._duplicates(chunks)
            if not len(duplicates.first):
                nothing = self._nothing_left(self.count(chunks))
                self._remove(SIGNALS_DIR, WORK_DIR)
                if not any(out.iterdir()):
                    out.rmdir()
                raise DeriError(nothing)
            with StoreTables(out, duplicates) as tables:
                shards = self._add(tables, chunks)
            summary = tables.summary(dataset.name, chunks_done=len(chunks), chunks=len(chunks))
            tables.finish(summary, self._about(), shards, {"notes": list(dataset.notes), "plan": self.plan})
            self._remove(WORK_DIR)
        return summary

    def _about(self) -> dict[str, Any]:
        from deri.ecg import LEADS

        drawn = ("split", "val_fraction", "test_fraction", "seed", "repair", "min_leads", "windows", "duplicates")
        return {
            "fs": FS,
            "samples": SAMPLES,
            "leads": list(LEADS),
            "uv_per_unit": UV_PER_UNIT,
            "tasks": {task: list(classes) for task, classes in self.dataset.tasks.items()},
            **{key: self.plan[key] for key in drawn},
        }

    def _remove(self, *folders: str) -> None:
        for folder in folders:
            shutil.rmtree(self.out / folder, ignore_errors=True)

    def _nothing_left(self, tables: StoreTables) -> str:
        dataset, first = self.dataset, tables.first_reject
        if first is None:
            return f"{dataset.name} in {dataset.root} names no recordings: check the path and the data set's name"
        rejected = tables.summary(dataset.name).rejected
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in rejected.items())
        return (
            f"none of the {sum(rejected.values()):,} recordings of {dataset.name} in {dataset.root} can be used "
            f"({reasons}); no store is written.\nThe first: {first['file']}: {first['reason']}: {first['detail']}"
        )


def _clean(texts: Sequence[str | None], known: dict[str, str | None]) -> list[str | None]:
    """The cleaned reports, None for those of which nothing is left; ``known`` remembers them."""
    from deri.reports import clean_report

    for text in texts:
        if text is not None and text not in known:
            known[text] = clean_report(text) or None
    return [None if text is None else known[text] for text in texts]
