"""The last step of a preparation: the chunks' rows become the index, and ``store.json`` declares the store done."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deri._version import __version__
from deri.errors import DeriError
from deri.files import atomic_path, write_json
from deri.store.layout import (
    FORMAT,
    FS,
    INDEX_FILE,
    META_FILE,
    REJECTS_FILE,
    REPORTS_FILE,
    SAMPLES,
    SIGNALS_DIR,
    UV_PER_UNIT,
    VERSION,
    WORK_DIR,
    chunk_count,
)
from deri.store.locks import file_lock
from deri.store.merge import Merged, TableWriter, reports_table, stored_rows
from deri.store.summary import Summary

if TYPE_CHECKING:
    from deri.datasets import Dataset


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def partial_summary(
    dataset: Dataset, splits: list[str], out: Path, chunks: list[int], *, drop: bool = False
) -> Summary:
    """Return the counts of the finished ``chunks`` of a store that waits for other shards."""
    return _count(dataset, splits, out, chunks, drop).summary(
        dataset.name, complete=False, chunks_done=len(chunks), chunks=chunk_count(len(dataset.examples))
    )


def _count(dataset: Dataset, splits: list[str], out: Path, chunks: list[int], drop: bool) -> Merged:
    merged = Merged(drop)
    for _ in merged.parts(dataset, splits, out, chunks):
        pass
    return merged


def finish(dataset: Dataset, splits: list[str], out: Path, plan: dict[str, Any]) -> Summary | None:
    """Write the tables and ``store.json`` from all chunks, and remove the work files.

    Returns None where another process has just done so.

    Raises:
        DeriError: no recording at all could be used. Nothing of the store is left then, so that a corrected data
            set can be prepared anew.
    """
    with file_lock(out / WORK_DIR / "finish.lock", wait=True):
        if (out / META_FILE).exists():  # another shard was faster
            return None
        for folder in (out, out / SIGNALS_DIR):
            for leftover in folder.glob(".*.tmp"):  # of killed runs
                leftover.unlink(missing_ok=True)
        chunks = list(range(chunk_count(len(dataset.examples))))
        if not any(stored_rows(out, chunk) for chunk in chunks):
            nothing = _nothing_left(dataset, _count(dataset, splits, out, chunks, drop=False))
            _discard(out)
            raise DeriError(nothing)
        merged = Merged(plan["duplicates"] == "drop")
        with (
            atomic_path(out / INDEX_FILE) as index_file,
            atomic_path(out / REJECTS_FILE) as rejects_file,
            TableWriter(index_file) as index,
            TableWriter(rejects_file) as rejects,
        ):
            for part in merged.parts(dataset, splits, out, chunks):
                rejects.write(part.rejects)
                if part.index is not None:
                    index.write(part.index)
        with atomic_path(out / REPORTS_FILE) as reports_file, TableWriter(reports_file) as reports:
            reports.write(reports_table(merged.reports))
        summary = merged.summary(dataset.name, chunks_done=len(chunks), chunks=len(chunks))
        tables = [INDEX_FILE, REJECTS_FILE, REPORTS_FILE]
        write_json(out / META_FILE, _meta(dataset, plan, merged, summary, out, tables))
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


def _nothing_left(dataset: Dataset, merged: Merged) -> str:
    rejected = merged.summary(dataset.name).rejected
    first = merged.first_reject
    if first is None:
        return f"{dataset.name} in {dataset.root} names no recordings: check the path and the data set's name"
    reasons = ", ".join(f"{reason} {n:,}" for reason, n in rejected.items())
    return (
        f"none of the {sum(rejected.values()):,} recordings of {dataset.name} in {dataset.root} can be used "
        f"({reasons}); no store is written.\nThe first: {first['file']}: {first['reason']}: {first['detail']}"
    )


def _meta(
    dataset: Dataset, plan: dict[str, Any], merged: Merged, summary: Summary, out: Path, tables: list[str]
) -> dict[str, Any]:
    from deri.ecg import LEADS

    return {
        "format": FORMAT,
        "version": VERSION,
        "deri_version": __version__,
        "dataset": dataset.name,
        "n": merged.rows,
        "recordings": summary.read,
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
        "min_leads": plan["min_leads"],
        "windows": plan["windows"],
        "duplicates": plan["duplicates"],
        "reports": len(merged.reports),
        "shards": merged.shards,
        "files": {name: file_sha256(out / name) for name in tables},
        "summary": summary.to_dict(),
        "notes": list(dataset.notes),
        "plan": plan,
    }
