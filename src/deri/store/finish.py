"""The last step of a preparation: the chunks' rows become the index, and ``store.json`` declares the store done."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deri._version import __version__
from deri.errors import DeriError
from deri.files import atomic_path, write_json
from deri.store.chunks import SHA_KEY
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
    SIGNALS_DIR,
    SPLITS,
    UV_PER_UNIT,
    VERSION,
    WORK_DIR,
    chunk_count,
    chunk_file,
    shard_name,
)
from deri.store.locks import file_lock
from deri.store.plan import TEXT_COLUMNS, label_values, text_values
from deri.store.summary import Summary

if TYPE_CHECKING:
    import pyarrow as pa

    from deri.datasets import Dataset

ROW_GROUP = 16_384
"""Rows of a Parquet row group: what is encoded in memory at a time."""


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@dataclass
class _Merged:
    """The tables of the store, and the shards that hold its signals."""

    index: pa.Table
    rejects: pa.Table
    reports: list[str]
    shards: list[dict[str, Any]]

    def summary(self, dataset: str, **rest: Any) -> Summary:
        refused = zip(self.rejects["source"].to_pylist(), self.rejects["reason"].to_pylist(), strict=True)
        splits = _value_counts(self.index["split"])
        return Summary.count(
            dataset,
            _value_counts(self.index["source"]),
            refused,
            reports=len(self.reports),
            splits={name: splits.get(name, 0) for name in SPLITS},
            **rest,
        )


def _value_counts(column: pa.ChunkedArray) -> dict[str, int]:
    import pyarrow.compute as pc

    return {str(item["values"]): int(item["counts"]) for item in pc.value_counts(column).to_pylist()}


def partial_summary(dataset: Dataset, splits: list[str], out: Path, chunks: list[int]) -> Summary:
    """Return the counts of the finished ``chunks`` of a store that waits for other shards."""
    merged = _merge(dataset, splits, out, chunks)
    return merged.summary(
        dataset.name, complete=False, chunks_done=len(chunks), chunks=chunk_count(len(dataset.examples))
    )


def finish(dataset: Dataset, splits: list[str], out: Path, plan: dict[str, Any]) -> Summary | None:
    """Write the tables and ``store.json`` from all chunks, and remove the work files.

    Returns None where another process has just done so.

    Raises:
        DeriError: no recording at all could be used. Nothing of the store is left then, so that a corrected data
            set can be prepared anew.
    """
    import pyarrow.parquet as pq

    with file_lock(out / WORK_DIR / "finish.lock", wait=True):
        if (out / META_FILE).exists():  # another shard was faster
            return None
        for folder in (out, out / SIGNALS_DIR):
            for leftover in folder.glob(".*.tmp"):  # of killed runs
                leftover.unlink(missing_ok=True)
        chunks = list(range(chunk_count(len(dataset.examples))))
        merged = _merge(dataset, splits, out, chunks)
        summary = merged.summary(dataset.name, chunks_done=len(chunks), chunks=len(chunks))
        if not summary.read:
            _discard(out)
            raise DeriError(_nothing_left(dataset, merged, summary))
        tables = {
            INDEX_FILE: merged.index,
            REJECTS_FILE: merged.rejects,
            REPORTS_FILE: _reports_table(merged.reports),
        }
        for name, table in tables.items():
            with atomic_path(out / name) as temporary:
                pq.write_table(table, temporary, compression="zstd", row_group_size=ROW_GROUP)
        write_json(out / META_FILE, _meta(dataset, plan, merged, summary, out, list(tables)))
        remove_work(out)
    return summary


def remove_work(out: Path) -> None:
    """Remove the work files of a finished store."""
    shutil.rmtree(out / WORK_DIR, ignore_errors=True)


def _discard(out: Path) -> None:
    for name in (SIGNALS_DIR, WORK_DIR):
        shutil.rmtree(out / name, ignore_errors=True)
    if not any(out.iterdir()):
        out.rmdir()


def _nothing_left(dataset: Dataset, merged: _Merged, summary: Summary) -> str:
    if not merged.rejects.num_rows:
        return f"{dataset.name} in {dataset.root} names no recordings: check the path and the data set's name"
    reasons = ", ".join(f"{reason} {n:,}" for reason, n in summary.rejected.items())
    first = {name: merged.rejects[name][0].as_py() for name in ("file", "reason", "detail")}
    return (
        f"none of the {merged.rejects.num_rows:,} recordings of {dataset.name} in {dataset.root} can be used "
        f"({reasons}); no store is written.\nThe first: {first['file']}: {first['reason']}: {first['detail']}"
    )


def _meta(
    dataset: Dataset, plan: dict[str, Any], merged: _Merged, summary: Summary, out: Path, tables: list[str]
) -> dict[str, Any]:
    from deri.ecg import LEADS

    return {
        "format": FORMAT,
        "version": VERSION,
        "deri_version": __version__,
        "dataset": dataset.name,
        "n": summary.read,
        "fs": FS,
        "samples": SAMPLES,
        "leads": list(LEADS),
        "uv_per_unit": UV_PER_UNIT,
        "tasks": {task: list(classes) for task, classes in dataset.tasks.items()},
        "split": plan["split"],
        "val_fraction": plan["val_fraction"],
        "test_fraction": plan["test_fraction"],
        "seed": plan["seed"],
        "repair": plan["repair"],
        "reports": len(merged.reports),
        "shards": merged.shards,
        "files": {name: file_sha256(out / name) for name in tables},
        "summary": summary.to_dict(),
        "notes": list(dataset.notes),
        "plan": plan,
    }


def _merge(dataset: Dataset, splits: list[str], out: Path, chunks: list[int]) -> _Merged:
    """Join the rows of the chunks with what the data set says of the same examples."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    read, refused, shards = [], [], []
    for k in chunks:
        table = pq.read_table(chunk_file(out, k), use_threads=False)
        rows = int(table.schema.metadata[b"rows"])
        if rows:
            sha256 = table.schema.metadata[SHA_KEY].decode()
            shards.append({"shard": k, "file": shard_name(k), "rows": rows, "sha256": sha256})
        stored = table.filter(pc.is_null(table["reason"]))
        number = pa.array(np.full(stored.num_rows, k, np.int32))
        read.append(stored.append_column("shard", number).replace_schema_metadata(None))
        refused.append(table.filter(pc.is_valid(table["reason"])).replace_schema_metadata(None))

    examples = dataset.examples.reset_index(drop=True)
    columns: dict[str, Any] = {}
    reports: list[str] = []
    good = pa.concat_tables(read) if read else None
    positions = good["example"].to_numpy() if good is not None else np.empty(0, np.int64)
    here = examples.iloc[positions]
    for column in TEXT_COLUMNS:
        columns[column] = pa.array(here[column].tolist(), pa.string())
    report_ids, reports = _distinct_reports(text_values(here["report"]))
    columns["report_id"] = pa.array(report_ids, pa.int32())
    columns["split"] = pa.array([splits[i] for i in positions], pa.string())
    for name in ("shard", "row", "valid_samples", "repaired_samples", "quality", "fs", "n_samples"):
        columns[name] = good[name].combine_chunks() if good is not None else pa.array([])
    columns = {name: columns[name] for name in INDEX_COLUMNS}
    for task in dataset.tasks:
        columns[task] = pa.array(label_values(here[task]), pa.list_(pa.string()))

    bad = pa.concat_tables(refused) if refused else None
    there = examples.iloc[bad["example"].to_numpy() if bad is not None else []]
    rejects = {}
    for column in REJECT_COLUMNS:
        first = [value or "" for value in text_values(dataset.rejects[column])]
        if column in TEXT_COLUMNS:
            second = there[column].tolist()
        else:
            second = bad[column].to_pylist() if bad is not None else []
        rejects[column] = pa.array(first + second, pa.string())
    return _Merged(pa.table(columns), pa.table(rejects), reports, shards)


def _distinct_reports(texts: list[str | None]) -> tuple[list[int], list[str]]:
    """Return the report id of each row (-1: none) and the cleaned texts in order of their first row."""
    from deri.reports import clean_report

    of_raw: dict[str, int] = {}
    of_clean: dict[str, int] = {}
    ids = []
    for text in texts:
        if text is None:
            ids.append(-1)
            continue
        if text not in of_raw:
            clean = clean_report(text)
            of_raw[text] = of_clean.setdefault(clean, len(of_clean)) if clean else -1
        ids.append(of_raw[text])
    return ids, list(of_clean)


def _reports_table(reports: list[str]) -> pa.Table:
    import pyarrow as pa

    return pa.table({"report_id": pa.array(range(len(reports)), pa.int32()), "text": pa.array(reports, pa.string())})
