"""The folder of an index: ``index.json`` says which model made it and which parts belong to it.

Each part is a table of what is known of its recordings (parquet) and their embeddings (float32 ``.npy``, unit length).
Rows that a later run replaced are ``dropped`` in ``index.json``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from deri.errors import DeriError
from deri.evaluation.features import digest_of, model_identity
from deri.models import EcgTextModel
from deri.store.layout import about_schema
from deri.store.plan import read_json

FORMAT = "deri-index"
VERSION = 1
MANIFEST = "index.json"
KEY, STAMP = "key", "stamp"
"""Columns of a part that its writer knows a recording by: which one it is, and of which content."""


def read_manifest(path: Path) -> dict[str, Any]:
    """The content of ``index.json``.

    Raises:
        DeriError: there is none, or it is of another format or version.
    """
    if not (path / MANIFEST).is_file():
        raise DeriError(f"{path} is no index (it has no {MANIFEST}): make one with deri index INPUT --out {path}")
    meta: dict[str, Any] = read_json(path / MANIFEST)
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
            *(("leads", texts), *about_schema(), ("report", text)),
        ]
    )


def part_files(path: Path, name: str) -> tuple[Path, Path]:
    """Table and vectors of a part."""
    return path / "parts" / f"{name}.parquet", path / "parts" / f"{name}.npy"
