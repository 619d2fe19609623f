"""Files of generated reports: read, checked against one another, written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deri.errors import DeriError
from deri.files import atomic_path

_PARQUET, _LINES = (".parquet", ".pq"), (".jsonl", ".ndjson")


def read_pairs(path: str | Path) -> pd.DataFrame:
    """Read ``reference`` and ``generated`` from a CSV, parquet or JSONL file, and what else evaluation can use.

    That is, where the file has them: ``subject``, ``record_id``, ``system``, and ``flags`` as they are.
    All other columns are text; an empty cell or null is ``""``. DeriError for a file that is missing or broken, lacks a
    column or has no row, and for rows without a subject (or record id, or system) where the column exists.
    """
    path = Path(path)
    if not path.is_file():
        raise DeriError(f"{path} is missing: expected a CSV or parquet file with the columns reference and generated")
    kind = "parquet" if path.suffix.lower() in _PARQUET else "JSONL" if path.suffix.lower() in _LINES else "CSV"
    try:
        if kind == "parquet":
            table = pd.read_parquet(path)
        elif kind == "JSONL":
            # Not by pandas, which makes dates and numbers of texts that look so.
            lines = path.read_text(encoding="utf-8-sig").splitlines()
            table = pd.DataFrame([dict(json.loads(line)) for line in lines if line.strip()], dtype=object)
        else:
            table = pd.read_csv(path, dtype=str, encoding="utf-8-sig", keep_default_na=False)
    except (
        ValueError,
        TypeError,
        OSError,
    ) as error:  # ParserError, UnicodeDecodeError and ArrowInvalid are ValueErrors
        what = "CSV or parquet" if kind != "JSONL" else kind
        raise DeriError(f"{path} cannot be read as {what}: {' '.join(str(error).split())}") from error
    missing = [column for column in ("reference", "generated") if column not in table.columns]
    if missing:
        found = ", ".join(map(str, table.columns)) or "none"
        raise DeriError(f"{path} lacks the column {', '.join(missing)}; found {found}")
    if table.empty:
        raise DeriError(f"{path} has no row: there is nothing to evaluate")
    keys = [column for column in ("subject", "record_id", "system") if column in table.columns]
    wanted = ["reference", "generated", *keys]
    table = table[[*wanted, *(["flags"] if "flags" in table.columns and kind != "CSV" else [])]]
    for column in wanted:
        values = [None if pd.isna(value) else value for value in table[column]]
        wrong = next((i for i, v in enumerate(values) if v is not None and not isinstance(v, str)), None)
        if wrong is not None and column not in keys:
            raise DeriError(f"{path}: {column} of row {wrong + 1} is {type(values[wrong]).__name__}, expected text")
        table = table.assign(**{column: ["" if value is None else str(value) for value in values]})
    for column in keys:
        if (table[column] == "").any():
            row = int(np.flatnonzero(table[column] == "")[0]) + 1
            cure = "; fill the column in, or drop it to draw by row" if column == "subject" else "; fill the column in"
            raise DeriError(f"{path}: row {row} has no {column}{cure}")
    return table


def read_systems(paths: list[Path]) -> dict[str, pd.DataFrame]:
    """Several systems' reports of the same records, in the same order: by the ``system`` column, else by file name.

    Raises:
        DeriError: a name twice, or systems that do not cover the same records with the same references.
    """
    systems: dict[str, pd.DataFrame] = {}
    source: dict[str, Path] = {}
    for path in paths:
        table = read_pairs(path)
        groups: list[tuple[str, pd.DataFrame]]
        if "system" in table.columns:
            groups = [(str(name), part) for name, part in table.groupby("system", sort=False)]
        else:
            groups = [(path.stem, table)]
        for name, part in groups:
            if name in systems:
                raise DeriError(f"system {name!r} is in {source[name]} and again in {path}: rename a file or a system")
            systems[name], source[name] = part.drop(columns="system", errors="ignore").reset_index(drop=True), path
    names = list(systems)
    for name in names[1:]:
        systems[name] = _aligned(systems[names[0]], systems[name], (names[0], name), (source[names[0]], source[name]))
    return systems


def _aligned(
    first: pd.DataFrame, other: pd.DataFrame, names: tuple[str, str], files: tuple[Path, Path]
) -> pd.DataFrame:
    """``other`` in the order of ``first``."""
    if "record_id" in first.columns and "record_id" in other.columns:
        for table, name, file in ((first, names[0], files[0]), (other, names[1], files[1])):
            if (twice := table["record_id"].duplicated()).any():
                record = table["record_id"][twice].iloc[0]
                raise DeriError(f"{file}: record {record} of system {name} is there twice")
        only = set(first["record_id"]) ^ set(other["record_id"])
        if only:
            raise DeriError(
                f"{files[1]}: system {names[1]} and {names[0]} do not have the same records "
                f"({len(first)} and {len(other)}; {min(only)} is in one of them alone); a table needs the same test set"
            )
        other = other.set_index("record_id").loc[first["record_id"]].reset_index()
    elif len(first) != len(other):
        raise DeriError(
            f"{files[1]}: system {names[1]} has {len(other)} records, {names[0]} has {len(first)}; "
            "a table needs the same test set"
        )
    differs = np.flatnonzero(first["reference"].to_numpy() != other["reference"].to_numpy())
    if len(differs):
        raise DeriError(
            f"{files[1]}: reference {int(differs[0]) + 1} of system {names[1]} is not that of {names[0]}; a table "
            "needs the same test records in the same order, or a column record_id"
        )
    return other


def write_table(table: Any, path: str | Path) -> None:
    """Write a table of generated reports as ``.parquet`` or ``.jsonl``, atomically."""
    path = Path(path)
    check_name(path)
    with atomic_path(path) as temporary:
        if path.suffix == ".parquet":
            table.to_parquet(temporary, index=False)
        else:
            table.to_json(temporary, orient="records", lines=True, force_ascii=False)


def check_name(path: Path) -> None:
    """DeriError where ``path`` is no name of a table."""
    if path.suffix not in (".parquet", ".jsonl"):
        raise DeriError(f"--out {path}: name a file that ends in .parquet or .jsonl")
