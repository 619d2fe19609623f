"""``deri merge``: several finished stores become one, without reading a recording again."""

from __future__ import annotations

import errno
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deri._version import __version__
from deri.errors import DeriError
from deri.files import atomic_path, write_json
from deri.store.duplicates import REASON, digest_keys, dropped_rows, first_rows, flagged
from deri.store.duplicates import count as count_duplicates
from deri.store.finish import file_sha256
from deri.store.layout import (
    FORMAT,
    INDEX_FILE,
    META_FILE,
    REJECT_COLUMNS,
    REJECTS_FILE,
    REPORTS_FILE,
    SIGNALS_DIR,
    SPLITS,
    VERSION,
    shard_name,
)
from deri.store.locks import file_lock
from deri.store.merge import ROW_GROUP, TableWriter, count_longer, recorded_lengths, reports_table
from deri.store.plan import TEXT_COLUMNS
from deri.store.reader import Store
from deri.store.splits import draw_split
from deri.store.summary import Summary

if TYPE_CHECKING:
    import pyarrow as pa

_EQUAL = ("fs", "samples", "leads", "uv_per_unit", "repair", "min_leads", "windows")
_NO_LINKS = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


def merge_stores(
    stores: Sequence[str | Path],
    out: str | Path,
    *,
    resplit: bool = False,
    seed: int | None = None,
    duplicates: str = "keep",
) -> Summary:
    """Write a store that has the recordings of all ``stores``, in their order.

    Shards are hard links (copies on another file system) under new numbers. Tasks are united: classes by their names in
    order of appearance, and null where a recording's store does not have the task. The same stores in the same order
    give the same bytes. The new store is built aside and renamed, so that a kill leaves nothing under its name.

    Args:
        stores: two finished stores or more.
        out: new folder.
        resplit: draw all splits anew, by patient, by the rule of ``docs/store.md`` with the fractions of the first
            store that has any. Otherwise every recording keeps its split.
        seed: of ``resplit``; None: the first store's.
        duplicates: ``"keep"`` flags a recording with the samples of an earlier one, ``"drop"`` leaves it out.

    Raises:
        DeriError: the stores do not fit together, or a subject lies in different splits of two of them.
    """
    out = Path(out)
    if duplicates not in ("keep", "drop"):
        raise DeriError(f"--duplicates {duplicates}: choose keep or drop")
    if len(stores) < 2:
        raise DeriError("name two stores or more to merge")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DeriError(f"--out {out} exists: name a new folder")
    opened = [Store.open(path) for path in stores]
    _check_fit(opened)
    union = _Union(opened, resplit=resplit, seed=seed, drop=duplicates == "drop")
    aside = out.with_name(f".{out.name}.merge")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(aside.with_suffix(".lock"), wait=False) as held:
            if not held:
                raise DeriError(f"another deri merge writes to {out}: wait for it")
            if aside.exists():  # of a killed run
                shutil.rmtree(aside)
            summary = union.write(aside)
            os.rename(aside, out)
        aside.with_suffix(".lock").unlink(missing_ok=True)
    except OSError as error:
        raise DeriError(f"cannot write to --out {out}: {error}. Make room, or choose another folder") from error
    return summary


def link_or_copy(source: Path, target: Path) -> None:
    """Make ``target`` a hard link to ``source``, or a synced copy where the file system has no links to it."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)


def _check_fit(stores: Sequence[Store]) -> None:
    first = stores[0]
    seen: dict[str, Path] = {}
    for store in stores:
        if store.fingerprint in seen:
            raise DeriError(f"{store.path} has the same content as {seen[store.fingerprint]}: name each store once")
        seen[store.fingerprint] = store.path
        for key in _EQUAL:
            if store.meta.get(key) != first.meta.get(key):
                raise DeriError(
                    f"{store.path} has {key} {store.meta.get(key)}, {first.path} has {first.meta.get(key)}: "
                    "prepare both with the same options"
                )


class _Union:
    """What several stores are together."""

    def __init__(self, stores: Sequence[Store], *, resplit: bool, seed: int | None, drop: bool) -> None:
        self.stores = stores
        self.resplit = resplit
        self.drop = drop
        self.tasks, self.notes = _united_tasks(stores)
        self.seed = int(stores[0].meta["seed"]) if seed is None else seed
        metas = [store.meta for store in stores]
        drawn = [m for m in metas if m["val_fraction"] > 0 and m["test_fraction"] > 0]
        self.fractions = (drawn[0]["val_fraction"], drawn[0]["test_fraction"]) if drawn else (0.1, 0.1)
        by_patient = resplit or all(meta["split"] == "patient" for meta in metas)
        self.split_rule = "patient" if by_patient else "record"
        if not resplit and by_patient:
            _refuse_leaks(stores)
        names = list(dict.fromkeys(meta["dataset"] for meta in metas))
        self.dataset = "+".join(names)
        # Recordings and rows of all stores, numbered through.
        begins = [store._begins for store in stores]
        self.recordings = np.cumsum(np.concatenate(begins)) - 1
        offsets = np.cumsum([0, *(len(store) for store in stores)])
        self.rows = [slice(a, b) for a, b in pairwise(offsets)]
        keys = np.concatenate([digest_keys(store._table["waveform"].to_pylist()) for store in stores])
        self.first = first_rows(keys, self.recordings)
        self.dropped = dropped_rows(self.first, self.recordings) if drop else np.zeros(len(keys), bool)
        firsts = np.concatenate(begins)
        self.record_ids = np.concatenate([store._column_objects("record_id") for store in stores])[firsts]
        self.subjects = np.concatenate([store._column_objects("subject_id") for store in stores])[firsts]
        self.splits = self._split_of(np.concatenate([store._column_objects("split") for store in stores])[firsts])

    def _lookup(self, name: str, numbers: np.ndarray) -> np.ndarray:
        texts: np.ndarray = {"record_id": self.record_ids, "subject_id": self.subjects, "split": self.splits}[name]
        return texts[numbers]

    def _split_of(self, kept: np.ndarray) -> np.ndarray:
        """Return the split of every recording."""
        if not self.resplit:
            return kept
        val, test = self.fractions
        drawn = np.empty(len(kept), object)
        for i, (subject, record) in enumerate(zip(self.subjects, self.record_ids, strict=True)):
            drawn[i] = draw_split(self.seed, subject or record, val_fraction=val, test_fraction=test)
        return drawn

    def write(self, folder: Path) -> Summary:
        (folder / SIGNALS_DIR).mkdir(parents=True)
        shards, numbers = self._link_shards(folder)
        reports: dict[str, int] = {}
        read: Counter[str] = Counter()
        splits: Counter[str] = Counter()
        refused: Counter[tuple[str, str]] = Counter()
        lengths: Counter[tuple[int, float]] = Counter()
        written = 0
        with (
            atomic_path(folder / INDEX_FILE) as index_file,
            atomic_path(folder / REJECTS_FILE) as rejects_file,
            TableWriter(index_file) as index,
            TableWriter(rejects_file) as rejects,
        ):
            for store, rows, number in zip(self.stores, self.rows, numbers, strict=True):
                for table in _pieces(store.rejects_table()):
                    rejects.write(table)
                    refused.update(zip(table["source"].to_pylist(), table["reason"].to_pylist(), strict=True))
                for start in range(rows.start, rows.stop, ROW_GROUP):
                    piece = slice(start, min(start + ROW_GROUP, rows.stop))
                    table, begins = self._piece(store, rows.start, piece, number, reports)
                    index.write(table)
                    first = table.filter(begins)
                    read.update(first["source"].to_pylist())
                    splits.update(first["split"].to_pylist())
                    lengths.update(recorded_lengths(first))
                    written += table.num_rows
                for row in np.flatnonzero(self.dropped[rows] & store._begins).tolist():
                    table = self._reject(store, rows.start, row)
                    rejects.write(table)
                    refused.update([(table["source"][0].as_py(), REASON)])
        with atomic_path(folder / REPORTS_FILE) as reports_file, TableWriter(reports_file) as texts:
            texts.write(reports_table(list(reports)))
        found = count_duplicates(self.first, self.recordings, self._lookup)
        summary = Summary.count(
            self.dataset,
            read,
            refused,
            windows=written,
            longer=count_longer(lengths),
            reports=len(reports),
            splits={name: splits[name] for name in SPLITS},
            duplicates=found.to_dict() | {"dropped": self.drop},
        )
        write_json(folder / META_FILE, self._meta(folder, summary, shards))
        return summary

    def _link_shards(self, folder: Path) -> tuple[list[dict[str, Any]], list[dict[int, int]]]:
        """Return the entries of ``store.json``, and for each store the new number of each shard."""
        shards: list[dict[str, Any]] = []
        numbers: list[dict[int, int]] = []
        for store in self.stores:
            numbers.append({})
            for shard in store.meta["shards"]:
                number = len(shards)
                numbers[-1][int(shard["shard"])] = number
                link_or_copy(store.path / shard["file"], folder / shard_name(number))
                shards.append({**shard, "shard": number, "file": shard_name(number)})
        return shards, numbers

    def _piece(
        self, store: Store, offset: int, piece: slice, numbers: dict[int, int], reports: dict[str, int]
    ) -> tuple[pa.Table, pa.Array]:
        """Return rows of the index, and which of them begin a recording."""
        import pyarrow as pa

        kept = ~self.dropped[piece]
        table = store._table.slice(piece.start - offset, piece.stop - piece.start).filter(pa.array(kept))
        recordings = self.recordings[piece][kept]
        first = self.first[piece][kept]
        columns: dict[str, Any] = {}
        for name in table.column_names:
            if name not in store.tasks:
                columns[name] = table[name].combine_chunks()
        shards = [numbers[shard] for shard in columns["shard"].to_pylist()]
        columns["shard"] = pa.array(shards, pa.int32())
        columns["split"] = pa.array(self.splits[recordings].tolist(), pa.string())
        number = np.where(first >= 0, self.recordings[first], -1)
        columns["quality"] = flagged(columns["quality"], number, self._lookup)
        texts = store.reports
        ids = [
            -1 if old < 0 else reports.setdefault(texts[old], len(reports)) for old in columns["report_id"].to_pylist()
        ]
        columns["report_id"] = pa.array(ids, pa.int32())
        for task in self.tasks:
            known = task in store.tasks
            kind = pa.list_(pa.string())
            columns[task] = table[task].combine_chunks() if known else pa.nulls(table.num_rows, kind)
        begins = store._begins[piece.start - offset : piece.stop - offset][kept]
        return pa.table(columns), pa.array(begins)

    def _reject(self, store: Store, offset: int, row: int) -> pa.Table:
        import pyarrow as pa

        values = {name: store._table[name][row].as_py() for name in TEXT_COLUMNS}
        first = self.record_ids[self.recordings[self.first[offset + row]]]
        values |= {"reason": REASON, "detail": f"has the samples of {first}"}
        return pa.table({name: pa.array([values[name]], pa.string()) for name in REJECT_COLUMNS})

    def _meta(self, folder: Path, summary: Summary, shards: list[dict[str, Any]]) -> dict[str, Any]:
        first = self.stores[0].meta
        parts = [
            {
                "dataset": store.meta["dataset"],
                "deri_version": store.meta["deri_version"],
                "fingerprint": store.fingerprint,
                "n": len(store),
                "recordings": store.recordings,
                "notes": store.meta["notes"],
                **({"parts": store.meta["parts"]} if "parts" in store.meta else {}),
            }
            for store in self.stores
        ]
        plan = {
            "format": "deri-store-merge",
            "version": VERSION,
            "deri_version": __version__,
            "parts": [part["fingerprint"] for part in parts],
            "resplit": self.resplit,
            "seed": self.seed,
            "duplicates": "drop" if self.drop else "keep",
        }
        return {
            "format": FORMAT,
            "version": VERSION,
            "deri_version": __version__,
            "dataset": self.dataset,
            "n": summary.windows,
            "recordings": summary.read,
            **{key: first[key] for key in ("fs", "samples", "leads", "uv_per_unit")},
            "tasks": self.tasks,
            "split": self.split_rule,
            "val_fraction": self.fractions[0],
            "test_fraction": self.fractions[1],
            "seed": self.seed,
            **{key: first[key] for key in ("repair", "min_leads", "windows")},
            "duplicates": plan["duplicates"],
            "reports": summary.reports,
            "shards": shards,
            "files": {name: file_sha256(folder / name) for name in (INDEX_FILE, REJECTS_FILE, REPORTS_FILE)},
            "summary": summary.to_dict(),
            "notes": list(dict.fromkeys([*self.notes, *(note for part in parts for note in part["notes"])])),
            "parts": parts,
            "plan": plan,
        }


def _pieces(table: pa.Table) -> Iterator[pa.Table]:
    for start in range(0, max(table.num_rows, 1), ROW_GROUP):
        yield table.slice(start, ROW_GROUP).combine_chunks()


def _united_tasks(stores: Sequence[Store]) -> tuple[dict[str, list[str]], list[str]]:
    """Return the classes of every task, and a sentence for each class that only some stores of the task know."""
    tasks: dict[str, list[str]] = {}
    for store in stores:
        for task, classes in store.tasks.items():
            known = tasks.setdefault(task, [])
            known.extend(name for name in classes if name not in known)
    notes = []
    for task, classes in tasks.items():
        for store in stores:
            lacking = [name for name in classes if task in store.tasks and name not in store.tasks[task]]
            if lacking:
                shown = ", ".join(lacking[:5]) + (", …" if len(lacking) > 5 else "")
                notes.append(
                    f"task {task}: {store.recordings:,} recordings of {store.path.name} come from a store without the "
                    f"{len(lacking)} classes {shown}; they count as not having them"
                )
    return tasks, notes


def _refuse_leaks(stores: Sequence[Store]) -> None:
    where: dict[str, tuple[str, Store]] = {}
    leaking: list[str] = []
    example = ""
    for store in stores:
        subjects, splits = store._column_objects("subject_id"), store._column_objects("split")
        for subject, split in set(zip(subjects.tolist(), splits.tolist(), strict=True)):
            if not subject:
                continue
            other, owner = where.setdefault(subject, (split, store))
            if other != split and owner is not store:
                leaking.append(subject)
                found = f"{subject} is in {other} of {owner.path} and in {split} of {store.path}"
                example = min(filter(None, (example, found)))
    if leaking:
        raise DeriError(
            f"{len(set(leaking)):,} subjects lie in different splits of the stores, which leaks ({example}): "
            "--resplit draws all splits anew, by patient; where equal ids are different people, rename them first"
        )
