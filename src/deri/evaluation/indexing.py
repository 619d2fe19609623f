"""Writing an index of recordings, see :mod:`deri.evaluation.index_layout`.

What was committed survives any kill: a part's files are written under new names, then ``index.json``, which alone says
what belongs to the index, is replaced. One process writes at a time; others may read meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deri._version import __version__
from deri.errors import DeriError
from deri.evaluation.features import model_identity
from deri.evaluation.index_layout import (
    FORMAT,
    KEY,
    MANIFEST,
    SOURCE,
    STAMP,
    VERSION,
    check_model,
    check_part,
    known_columns,
    part_files,
    read_manifest,
)
from deri.files import AGAIN, atomic_path, digest_of, file_sha256, remove_leftovers, write_sealed, writing
from deri.locks import file_lock
from deri.models import EcgTextModel

JOINED = 50_000
"""Recordings of a part at most, after parts of earlier runs were joined."""


class IndexWriter:
    """The one writer of an index. Open it with :func:`index_writer`.

    Attributes:
        known: stamp of each recording in the index, by its key.
    """

    def __init__(self, path: Path, meta: dict[str, Any]) -> None:
        self.path, self._meta = path, meta
        self._places: dict[str, tuple[dict[str, Any], int]] = {}
        self.known: dict[str, str] = {}
        for part in meta["parts"]:
            table = pq.read_table(part_files(path, part["name"])[0], columns=[KEY, STAMP])
            dropped = set(part["dropped"])
            for row, (key, stamp) in enumerate(zip(*(column.to_pylist() for column in table.columns), strict=True)):
                if row not in dropped:
                    self._places[key], self.known[key] = (part, row), stamp

    def replace(self, keys: Iterable[str], rows: Sequence[dict[str, Any]], vectors: np.ndarray | None = None) -> None:
        """Commit recordings: what is known of ``keys`` is dropped, the ``rows`` are added.

        Args:
            keys: recordings that were tried; one that is not in ``rows`` could not be used.
            rows: what is known of each recording; ``key`` and ``stamp``, ``file`` and ``record_id`` are needed;
                ``source`` is how it is read again.
            vectors: (n, d) float32 of the ``rows``, L2-normalised.

        Raises:
            WriteError: the disk refuses; the index is as it was.
        """
        added: dict[str, Any] = {"name": f"part-{self._meta['next']:06d}", "rows": len(rows), "dropped": []}
        if rows:
            self._write(added, _arrow(rows), np.asarray(vectors, np.float32))
        gone = [key for key in keys if key in self.known]
        for key in gone:
            part, row = self._places.pop(key)
            part["dropped"].append(row)
            del self.known[key]
        if rows:
            self._meta["parts"].append(added)
            self._meta["next"] += 1
            for row, about in enumerate(rows):
                self._places[about[KEY]], self.known[about[KEY]] = (added, row), about[STAMP]
        if rows or gone:
            write_sealed(self.path / MANIFEST, self._meta)

    def join(self) -> None:
        """Join small parts, so that an index of many runs is read as fast as that of one; leave out dropped rows."""
        groups: list[list[dict[str, Any]]] = []
        held = JOINED + 1
        for part in [part for part in self._meta["parts"] if len(part["dropped"]) < part["rows"]]:
            live = part["rows"] - len(part["dropped"])
            if held + live > JOINED:
                groups.append([])
                held = 0
            groups[-1].append(part)
            held += live
        kept = [group[0] if len(group) == 1 else self._joined(group) for group in groups]
        before = {part["name"] for part in self._meta["parts"]}
        gone = before - {part["name"] for part in kept}
        if gone:
            self._meta["parts"] = kept
            write_sealed(self.path / MANIFEST, self._meta)
            self._remove(gone)

    def _joined(self, group: list[dict[str, Any]]) -> dict[str, Any]:
        tables, vectors = [], []
        for part in group:
            check_part(self.path, part)
            table_file, vector_file = part_files(self.path, part["name"])
            live = np.setdiff1d(np.arange(part["rows"]), part["dropped"])
            tables.append(pq.read_table(table_file).take(live))
            vectors.append(np.load(vector_file, mmap_mode="r")[live])
        table = pa.concat_tables(tables, promote_options="default")
        part = {"name": f"part-{self._meta['next']:06d}", "rows": len(table), "dropped": []}
        self._write(part, table, np.concatenate(vectors))
        self._meta["next"] += 1
        return part

    def _write(self, part: dict[str, Any], table: pa.Table, vectors: np.ndarray) -> None:
        table_file, vector_file = part_files(self.path, part["name"])
        with atomic_path(vector_file) as temporary, open(temporary, "wb") as handle:
            np.save(handle, vectors)
        with atomic_path(table_file) as temporary:
            pq.write_table(table, temporary)
        part["sha256"] = [file_sha256(table_file), file_sha256(vector_file)]

    def _remove(self, names: set[str]) -> None:
        for file in (file for name in names for file in part_files(self.path, name)):
            with suppress(OSError):  # Windows keeps what another process reads; the next writer removes it
                file.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove what a killed writer left, and files of parts that were joined."""
        remove_leftovers(self.path)
        there = {file.stem for file in (self.path / "parts").glob("part-*")}
        self._remove(there - {part["name"] for part in self._meta["parts"]})


class Folders:
    """States of files: sizes and times of a file and of those that share its name (a header and its signals)."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, list[tuple[str, int, int]]]] = {}

    def state(self, file: str) -> list[Any]:
        """Empty where there is no such file; of an address, which is taken as it was, the address."""
        if "://" in file:
            return [file]
        folder, name = os.path.split(file.split("::")[0])
        if folder not in self._known:
            names: dict[str, list[tuple[str, int, int]]] = {}
            for entry in os.scandir(folder) if os.path.isdir(folder) else ():
                if entry.is_file():
                    about = entry.stat()
                    state = (entry.name, about.st_size, about.st_mtime_ns)
                    for shared in {entry.name, os.path.splitext(entry.name)[0]}:
                        names.setdefault(shared, []).append(state)
            self._known[folder] = names
        known = self._known[folder]
        return sorted({*known.get(name, ()), *known.get(os.path.splitext(name)[0], ())})


@contextmanager
def index_writer(
    path: str | Path, model: EcgTextModel, *, name: str, windows: int | None = None
) -> Iterator[IndexWriter]:
    """Open the index at ``path`` for writing, or begin one.

    Args:
        path: a folder.
        model: whose embeddings the index holds.
        name: of the model, by which it can be loaded again.
        windows: how many windows of a long recording count; None: all.

    Raises:
        DeriError: another process writes, the folder holds something else, or its index is of another model or rule.
    """
    path = Path(path)
    with writing(path, f"{AGAIN}: what is done is kept"):
        path.mkdir(parents=True, exist_ok=True)
        if not (path / MANIFEST).exists() and any(
            not file.name.startswith((".", "index.lock")) for file in path.iterdir()
        ):
            raise DeriError(f"--out {path} holds files and no index: name a new folder")
        with file_lock(path / "index.lock", wait=False) as held:
            if not held:
                raise DeriError(f"another process writes the index {path}: wait for its end, then run this again")
            if not (path / MANIFEST).exists():
                about = {"name": name, "identity": digest_of(model_identity(model)), "dim": model.config.dim}
                meta: dict[str, Any] = {"format": FORMAT, "version": VERSION, "deri_version": __version__}
                meta |= {"model": about, "windows": windows, "next": 0, "parts": []}
                write_sealed(path / MANIFEST, meta)
            meta = read_manifest(path)
            check_model(path, meta, model, name)
            if meta["windows"] != windows:
                rule = meta["windows"] or "all"
                raise DeriError(f"the index {path} was made with --windows {rule}: use it again, or another --out")
            writer = IndexWriter(path, meta)
            writer.clear()
            yield writer


def _arrow(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """The rows as a table; columns that are not known here are lists of labels."""
    schema = known_columns()
    names = dict.fromkeys(name for row in rows for name in row)
    own = (KEY, STAMP, SOURCE)
    for name in [*own, *(name for name in names if name not in own)]:
        if name not in schema.names:
            schema = schema.append(pa.field(name, pa.string() if name in own else pa.list_(pa.string())))
    arrays = [pa.array([_plain(row.get(field.name), field.type) for row in rows], field.type) for field in schema]
    return pa.table(arrays, schema=schema)


def _plain(value: Any, kind: pa.DataType) -> Any:
    """The value as Arrow takes it: None for NaN, lists for arrays, tuples and, among labels, a single text."""
    if isinstance(value, np.ndarray | tuple):
        return list(value)
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    return [value] if isinstance(value, str) and pa.types.is_list(kind) else value
