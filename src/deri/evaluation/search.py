"""Search over an index of recordings: the nearest to a text, to an ECG, or to both, by the cosine of embeddings.

Exact: every embedding is compared. The index is a folder, see :mod:`deri.evaluation.index_layout`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deri.ecg import ECG, read_ecg
from deri.errors import DeriError, ReadError
from deri.evaluation.features import unit
from deri.evaluation.index_layout import (
    CURE,
    KEY,
    MANIFEST,
    SOURCE,
    STAMP,
    check_model,
    check_part,
    known_columns,
    part_files,
    read_manifest,
)
from deri.evaluation.indexing import Folders, index_writer
from deri.evaluation.where import rows_where
from deri.models import EcgTextModel, load_model
from deri.store import Store

if TYPE_CHECKING:
    import pandas as pd


class Index:
    """Embeddings of recordings and what is known of these. Open one with :meth:`open`.

    What is opened stays as it is while another process adds to the index.

    Attributes:
        path: the folder.
        meta: the content of ``index.json``.
        table: a row per recording: ``file`` (of a recording in a store, the store), ``record_id`` and metadata, null
            where unknown.
    """

    def __init__(self, path: Path, meta: dict[str, Any], table: pa.Table, vectors: list[np.ndarray]) -> None:
        self.path, self.meta, self._vectors = path, meta, vectors
        self._sources, self.table = table[SOURCE], table.drop_columns([SOURCE])
        self._live = np.ones(len(table), bool)
        start = 0
        for part in meta["parts"]:
            self._live[start + np.array(part["dropped"], np.int64)] = False
            start += part["rows"]

    @classmethod
    def open(cls, path: str | Path) -> Index:
        """Open the index in the folder ``path``.

        Raises:
            DeriError: there is none, it is of another version, or a file of it is missing or damaged.
        """
        path = Path(path)
        meta = read_manifest(path)
        while True:
            try:
                return cls(path, meta, *_read_parts(path, meta))
            except FileNotFoundError as error:
                before, meta = meta, read_manifest(path)
                if meta == before:  # else a writer has just joined parts
                    raise DeriError(f"the index {path} lacks {error.filename or error}: {CURE}") from None

    def __len__(self) -> int:
        return int(self._live.sum())

    def __repr__(self) -> str:
        return f"Index({str(self.path)!r}, model={self.meta['model']['name']!r}, n={len(self)})"

    def model(self, name: str | None = None, *, device: str | None = "cpu") -> EcgTextModel:
        """Load the model ``name``, or the one that made the index.

        Raises:
            DeriError: it is not to be had, or has other weights or another configuration.
        """
        made_by = self.meta["model"]["name"]
        try:
            model = load_model(name or made_by, device=device)
        except DeriError as error:
            if name is not None:
                raise
            raise DeriError(
                f"{error}\nthe index {self.path} was made by it: name where it is now with --model"
            ) from None
        check_model(self.path, self.meta, model, name or made_by)
        return model

    def search(self, query: np.ndarray, *, top: int = 10, where: str | None = None) -> pd.DataFrame:
        """The recordings that are nearest to a query, nearest first.

        Args:
            query: (d,) of any length, see :func:`query_vector`.
            top: how many at most.
            where: only among recordings of which this is true, e.g. ``age > 60 and sex == "female"``; see
                :func:`deri.evaluation.where.rows_where`.

        Returns:
            A row per recording: ``score``, its cosine with the query, and the columns of :attr:`table`; the index of
            the rows is their place there.

        Raises:
            DeriError: a query of another width or without direction, or a filter that is not understood.
        """
        dim = self.meta["model"]["dim"]
        if np.shape(query) != (dim,):
            raise DeriError(f"a query of the index {self.path} has shape ({dim},), not {np.shape(query)}")
        if not np.isfinite(query).all() or not np.any(query):
            raise DeriError("the query has no direction: its numbers are zero or not finite")
        direction = unit(np.asarray(query, np.float32)[None])[0]
        scores = np.concatenate([part @ direction for part in self._vectors] or [np.empty(0, np.float32)])
        np.clip(scores, -1, 1, out=scores)
        wanted = self._live if where is None else self._live & rows_where(self.table, where)
        scores[~wanted] = -np.inf
        count = min(top, int(wanted.sum()))
        rows = np.argpartition(-scores, count - 1)[:count] if count else np.empty(0, np.int64)
        rows = rows[np.lexsort((rows, -scores[rows]))]
        found: pd.DataFrame = self.table.take(rows).to_pandas()
        found.insert(0, "score", scores[rows])
        return found.set_index(rows)

    def recording(self, row: int) -> ECG:
        """Read the recording at a place of :attr:`table` from where it was indexed, and as it was read then.

        Raises:
            ReadError: it is not there any more, or was changed.
        """
        file, record_id = (self.table[name][row].as_py() for name in ("file", "record_id"))
        source = json.loads(self._sources[row].as_py() or "{}")
        if (Path(file) / "store.json").is_file():
            return recording_of_store(Store.open(file), record_id, source.get("waveform"))
        if "state" in source and json.loads(json.dumps(Folders().state(file))) != source["state"]:
            raise ReadError(f"{file}: is gone, or was changed since it was indexed; index it again", "missing_file")
        return read_ecg(file, **source.get("options", {}))


def recording_of_store(store: Store, record_id: str, waveform: str | None = None) -> ECG:
    """The first window of a recording in a store; leads that were not recorded are NaN.

    Args:
        store: a store.
        record_id: of the recording; in a merged store two may have the same.
        waveform: digest of its samples.

    Raises:
        ReadError: the store does not hold it.
    """
    of_record = store.index["record_id"] == record_id
    if waveform is not None:
        of_record &= store.index["waveform"] == waveform
    rows = np.flatnonzero(of_record.to_numpy())
    if not len(rows):
        cause = "any more; index the store again" if waveform is not None else f"of the id {record_id}"
        raise ReadError(f"{store.path}: does not hold the recording {cause}", "missing_file")
    return store.recording(int(rows[0]))


def query_vector(
    model: EcgTextModel, texts: Sequence[str] = (), ecgs: Sequence[ECG] = (), *, windows: int | None = None
) -> tuple[np.ndarray, list[str]]:
    """The direction (d,) of texts and ECGs, the mean of their unit embeddings; and what is not as it seems of texts.

    Texts are taken as labels are: codes, German, denied findings (:meth:`EcgTextModel.encode_labels`).

    Raises:
        DeriError: neither text nor ECG, an empty text, or queries that cancel each other.
    """
    if (not texts and not ecgs) or not all(text.strip() for text in texts):
        raise DeriError("the query is empty: name a text, e.g. 'atrial fibrillation', or an ECG file")
    labels, notes = model.encode_labels(texts) if texts else (np.empty((0, model.config.dim), np.float32), [])
    return direction_of(np.concatenate([labels, model.encode_ecg(ecgs, windows=windows)])), notes


def direction_of(vectors: np.ndarray) -> np.ndarray:
    """The direction (d,) of the mean of unit vectors (n, d).

    Raises:
        DeriError: they cancel each other.
    """
    mean = vectors.mean(axis=0)
    if np.linalg.norm(mean) < 1e-3:
        raise DeriError("the queries are opposites and cancel each other: ask for them one by one")
    direction: np.ndarray = mean / np.linalg.norm(mean)
    return direction


def build_index(path: str | Path, model: EcgTextModel, about: pd.DataFrame, vectors: np.ndarray, *, name: str) -> Index:
    """Add recordings that were embedded to the index at ``path``, or begin one.

    Args:
        path: a folder.
        model: the encoder.
        about: a row per recording: ``file``, and what else is known of it (``record_id``, ``age``, ``sex``, ``date``,
            ``report``; columns of other names are labels). A file that is in the index is replaced.
        vectors: (n, d) embeddings, L2-normalised, as :meth:`EcgTextModel.encode_ecg` gives them.
        name: of the model, by which it can be loaded again.

    Raises:
        DeriError: as :func:`index_writer`.
    """
    rows: list[dict[str, Any]] = about.to_dict("records")  # type: ignore[assignment]
    for row in rows:
        row[KEY], row[STAMP] = row["file"], ""
        row.setdefault("record_id", row["file"])
    with index_writer(path, model, name=name) as writer:
        writer.replace([row[KEY] for row in rows], rows, vectors)
    return Index.open(path)


def _read_parts(path: Path, meta: dict[str, Any]) -> tuple[pa.Table, list[np.ndarray]]:
    tables, vectors = [], []
    for part in meta["parts"]:
        table_file, vector_file = part_files(path, part["name"])
        try:
            check_part(path, part)
            tables.append(pq.read_table(table_file).drop_columns([KEY, STAMP]))
            vectors.append(np.load(vector_file, mmap_mode="r").view(np.ndarray))
        except (FileNotFoundError, DeriError):
            raise
        except Exception as error:  # damaged bytes raise anything
            raise DeriError(f"{table_file.with_suffix('.*')} cannot be read ({error}): {CURE}") from None
        if not len(tables[-1]) == part["rows"] or vectors[-1].shape != (part["rows"], meta["model"]["dim"]):
            raise DeriError(f"{table_file.with_suffix('.*')} are not what {MANIFEST} describes: {CURE}")
    return pa.concat_tables([known_columns().empty_table(), *tables], promote_options="default"), vectors
