"""The folder of an index: ``index.json`` says which model made it and which parts belong to it.

Each part is a table of what is known of its recordings (parquet) and their embeddings (float32 ``.npy``, unit length).
Rows that a later run replaced are ``dropped`` in ``index.json``, which has the checksums of both files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from deri.errors import DeriError
from deri.evaluation.features import model_identity
from deri.files import digest_of, file_sha256, read_sealed
from deri.models import EcgTextModel
from deri.store.layout import about_schema

FORMAT = "deri-index"
VERSION = 1
MANIFEST = "index.json"
CURE = "copy it again, or delete it and index again"
KEY, STAMP = "key", "stamp"
"""Columns of a part that its writer knows a recording by: which one it is, and of which content."""
SOURCE = "source"
"""Column of a part, JSON, by which a recording is found and read again: of a file the ``options`` it was read with and
its ``state`` (:class:`deri.evaluation.indexing.Folders`), of a store the digest ``waveform`` of its first window."""


def read_manifest(path: Path) -> dict[str, Any]:
    """The content of ``index.json``.

    Raises:
        DeriError: there is none, or it is of another format or version.
    """
    if not (path / MANIFEST).is_file():
        raise DeriError(f"{path} is no index (it has no {MANIFEST}): make one with deri index INPUT --out {path}")
    meta: dict[str, Any] = read_sealed(path / MANIFEST, CURE)
    if meta.get("format") != FORMAT:
        raise DeriError(f"{path / MANIFEST} does not describe an index (format {meta.get('format')!r})")
    if meta.get("version") != VERSION:
        raise DeriError(f"the index {path} has version {meta.get('version')}, this deri reads {VERSION}: index again")
    return meta


def check_model(path: Path, meta: dict[str, Any], model: EcgTextModel, name: str) -> None:
    """DeriError where ``model`` is not the one that made the index: its embeddings mean something else."""
    if digest_of(model_identity(model)) != meta["model"]["identity"]:
        raise DeriError(
            f"the model {name} is not the one that made the index {path} ({meta['model']['name']}): other weights or "
            "another configuration\nname that one, or make an index of this one in another --out"
        )


def known_columns() -> pa.Schema:
    """The columns of every index; those of tasks come after them, lists of labels."""
    text, texts = pa.string(), pa.list_(pa.string())
    return pa.schema(
        [
            *(("file", text), ("record_id", text), ("subject", text), ("split", text)),
            *(("leads", texts), *about_schema(), ("report", text), (SOURCE, text)),
        ]
    )


def part_files(path: Path, name: str) -> tuple[Path, Path]:
    """Table and vectors of a part."""
    return path / "parts" / f"{name}.parquet", path / "parts" / f"{name}.npy"


def check_part(path: Path, part: dict[str, Any]) -> None:
    """DeriError where a file of a part has another checksum than the manifest says; about 1 ms per MB."""
    for file, digest in zip(part_files(path, part["name"]), part["sha256"], strict=True):
        if file_sha256(file) != digest:
            raise DeriError(f"{file} is damaged: its content does not have its checksum: {CURE}")
