"""``deri merge``: several finished stores become one, without reading a recording again."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deri._version import __version__
from deri.errors import DeriError
from deri.files import atomic_path, writing
from deri.locks import file_lock
from deri.remote import Address
from deri.store.duplicates import Duplicates, digest_keys
from deri.store.layout import SIGNALS_DIR, VERSION, shard_name
from deri.store.reader import Store
from deri.store.splits import draw_split
from deri.store.summary import Summary
from deri.store.tables import ROW_GROUP, StoreTables

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
    merge = _Merge(opened, resplit=resplit, seed=seed, drop=duplicates == "drop")
    aside = out.with_name(f".{out.name}.merge")
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(aside.with_suffix(".lock"), wait=False) as held:
            if not held:
                raise DeriError(f"another deri merge writes to {out}: wait for it")
            if aside.exists():  # of a killed run
                shutil.rmtree(aside)
            summary = merge.write(aside)
            os.rename(aside, out)
        aside.with_suffix(".lock").unlink(missing_ok=True)
    return summary


def link_or_copy(source: Path | Address, target: Path) -> None:
    """Make ``target`` a hard link to ``source``, or a synced copy where the file system has no links to it."""
    if isinstance(source, Address):
        with atomic_path(target) as temporary:
            source.download(temporary)
        return
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)


def _check_fit(stores: Sequence[Store]) -> None:
    first = stores[0]
    seen: dict[str, Path | Address] = {}
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


class _Merge:
    """Several stores that become one."""

    def __init__(self, stores: Sequence[Store], *, resplit: bool, seed: int | None, drop: bool) -> None:
        self.stores = stores
        self.resplit = resplit
        self.tasks, self.notes = _united_tasks(stores)
        self.seed = int(stores[0].meta["seed"]) if seed is None else seed
        metas = [store.meta for store in stores]
        drawn = [m for m in metas if m["val_fraction"] > 0 and m["test_fraction"] > 0]
        self.fractions = (drawn[0]["val_fraction"], drawn[0]["test_fraction"]) if drawn else (0.1, 0.1)
        by_patient = resplit or all(meta["split"] == "patient" for meta in metas)
        self.split_rule = "patient" if by_patient else "record"
        if not resplit and by_patient:
            _refuse_leaks(stores)
        self.dataset = "+".join(dict.fromkeys(meta["dataset"] for meta in metas))
        # Recordings and rows of all stores, numbered through.
        begins = np.concatenate([store.begins for store in stores])
        self.texts = {
            name: np.concatenate([store.column(name) for store in stores])[begins]
            for name in ("record_id", "subject_id", "split")
        }
        if resplit:
            self.texts["split"] = self._drawn_splits()
        keys = np.concatenate([digest_keys(store.table["waveform"].to_pylist()) for store in stores])
        self.duplicates = Duplicates.find(
            keys, np.cumsum(begins) - 1, lambda name, numbers: self.texts[name][numbers], drop=drop
        )

    def _drawn_splits(self) -> np.ndarray:
        """Return a new split for every recording."""
        val, test = self.fractions
        drawn = np.empty(len(self.texts["split"]), object)
        for i, (subject, record) in enumerate(zip(self.texts["subject_id"], self.texts["record_id"], strict=True)):
            drawn[i] = draw_split(self.seed, subject or record, val_fraction=val, test_fraction=test)
        return drawn

    def write(self, folder: Path) -> Summary:
        """Write the store in a new folder."""
        (folder / SIGNALS_DIR).mkdir(parents=True)
        shards, numbers = self._link_shards(folder)
        with StoreTables(folder, self.duplicates) as tables:
            for store, number in zip(self.stores, numbers, strict=True):
                self._add(tables, store, number)
        summary = tables.summary(self.dataset)
        tables.finish(summary, self._about(), shards, self._origin())
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

    def _add(self, tables: StoreTables, store: Store, numbers: dict[int, int]) -> None:
        """Add the tables of a store; what is left out as a duplicate follows its other rejects."""
        import pyarrow as pa

        for table in _pieces(store.rejects_table()):
            tables.add_rejects(table)
        left_out = []
        for table in _pieces(store.table):
            columns: dict[str, Any] = {name: table[name] for name in table.column_names if name not in store.tasks}
            texts = [None if i < 0 else store.reports[i] for i in columns.pop("report_id").to_pylist()]
            del columns["split"]
            columns["shard"] = pa.array([numbers[shard] for shard in columns["shard"].to_pylist()], pa.int32())
            for task in self.tasks:
                known = task in store.tasks
                columns[task] = table[task] if known else pa.nulls(table.num_rows, pa.list_(pa.string()))
            left_out.append(tables.add_rows(columns, texts)[0])
        for table in left_out:
            for row in range(table.num_rows):
                tables.add_rejects(table.slice(row, 1).combine_chunks())

    def _about(self) -> dict[str, Any]:
        first = self.stores[0].meta
        return {
            **{key: first[key] for key in ("fs", "samples", "leads", "uv_per_unit")},
            "tasks": self.tasks,
            "split": self.split_rule,
            "val_fraction": self.fractions[0],
            "test_fraction": self.fractions[1],
            "seed": self.seed,
            **{key: first[key] for key in ("repair", "min_leads", "windows")},
            "duplicates": "drop" if self.duplicates.drop else "keep",
        }

    def _origin(self) -> dict[str, Any]:
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
            "duplicates": "drop" if self.duplicates.drop else "keep",
        }
        notes = list(dict.fromkeys([*self.notes, *(note for part in parts for note in part["notes"])]))
        return {"notes": notes, "parts": parts, "plan": plan}


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
                    f"task {task}: {store.recordings:,} recordings of {store.name} come from a store without the "
                    f"{len(lacking)} classes {shown}; they count as not having them"
                )
    return tasks, notes


def _refuse_leaks(stores: Sequence[Store]) -> None:
    where: dict[str, tuple[str, Store]] = {}
    leaking: list[str] = []
    example = ""
    for store in stores:
        subjects, splits = store.column("subject_id"), store.column("split")
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
