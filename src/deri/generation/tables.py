"""Tables of generated reports: made, written, read, and checked against one another."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deri.errors import DeriError
from deri.files import atomic_path
from deri.reports.labeller import find_mentions, sentence_spans
from deri.store import Store
from deri.tables import read_text_table


def sentences(text: str) -> list[dict[str, Any]]:
    """The sentences of a report, each with the codes of the findings that it asserts or holds possible.

    Sentences and findings are those of :mod:`deri.reports.labeller`, which reads the whole text: a negation counts.
    """
    mentions = [m for m in find_mentions(text) if m.certainty != "absent"]
    out = []
    for start, end in sentence_spans(text):
        part = text[start:end].strip()
        if part:
            codes = sorted({m.finding for m in mentions if start <= m.start < end})
            out.append({"text": part, "findings": codes})
    return out


def split_rows(store: Store, split: str) -> np.ndarray:
    """Rows of a split; DeriError where there are none."""
    rows = store.rows(split)
    if not len(rows):
        raise DeriError(f"the store {store.path} has no record in split {split}: choose another --split")
    return rows


def store_columns(store: Store, rows: np.ndarray) -> dict[str, list[Any]]:
    """record_id, file, subject and reference of rows; the subject of a record without one is the record."""
    table = store.index.iloc[rows]
    records = [str(value) for value in table["record_id"]]
    subjects = [
        record if value is None or value != value or not str(value) else str(value)
        for value, record in zip(table["subject_id"], records, strict=True)
    ]
    references = [store.reports[i] if i >= 0 else None for i in store.report_ids[rows]]
    return {
        "record_id": records,
        "file": [None if value is None else str(value) for value in table["file"]],
        "subject": subjects,
        "reference": references,
    }


def generated_table(columns: dict[str, list[Any]], texts: Sequence[str], **more: Iterable[Any]) -> Any:
    """The table that ``deri report generate`` writes: ``columns``, ``generated``, ``more``, ``sentences``."""
    values = {**columns, "generated": list(texts)} | {name: list(column) for name, column in more.items()}
    return pd.DataFrame(values | {"sentences": [sentences(text) for text in texts]})


def read_pairs(path: str | Path) -> pd.DataFrame:
    """Read ``reference`` and ``generated`` from a CSV, parquet or JSONL file, and what else evaluation can use.

    That is, where the file has them: ``subject``, ``record_id``, ``system``, and ``flags`` as they are.
    All other columns are text; an empty cell or null is ``""``. DeriError for a file that is missing or broken, lacks a
    column, has no row or a CSV row of more or fewer fields than the header, and for rows without a subject (or record
    id, or system) where the column exists.
    """
    path = Path(path)
    if not path.is_file():
        raise DeriError(f"{path} is missing: expected a CSV or parquet file with the columns reference and generated")
    read = _READERS.get(path.suffix.lower(), _read_csv)
    try:
        table = read(path)
    except (ValueError, TypeError, OSError) as error:  # pandas' and pyarrow's own are ValueErrors
        what = "JSONL" if read is _read_lines else "CSV or parquet"
        raise DeriError(f"{path} cannot be read as {what}: {' '.join(str(error).split())}") from error
    missing = [column for column in ("reference", "generated") if column not in table.columns]
    if missing:
        found = ", ".join(map(str, table.columns)) or "none"
        raise DeriError(f"{path} lacks the column {', '.join(missing)}; found {found}")
    if table.empty:
        raise DeriError(f"{path} has no row: there is nothing to evaluate")
    keys = [column for column in ("subject", "record_id", "system") if column in table.columns]
    columns = {
        column: _texts(table[column], path, number=column in keys) for column in ("reference", "generated", *keys)
    }
    for column in keys:
        if "" in columns[column]:
            row = columns[column].index("") + 1
            cure = "; fill the column in, or drop it to draw by row" if column == "subject" else "; fill the column in"
            raise DeriError(f"{path}: row {row} has no {column}{cure}")
    flags = {"flags": list(table["flags"])} if "flags" in table.columns and read is not _read_csv else {}
    return pd.DataFrame(columns | flags)


def _read_lines(path: Path) -> pd.DataFrame:
    # Not by pandas, which makes dates and numbers of texts that look so.
    lines = path.read_text(encoding="utf-8-sig").split("\n")  # splitlines knows other ends, which texts may hold
    rows = [dict(json.loads(line)) for line in lines if line.strip()]
    known = {name for name in ("reference", "generated") if any(name in row for row in rows)}
    for number, row in enumerate(rows, start=1):
        if missing := known - row.keys():
            raise DeriError(f"{path}: row {number} has no {' and no '.join(sorted(missing))}, which others have")
    return pd.DataFrame(rows, dtype=object)


def _read_csv(path: Path) -> pd.DataFrame:
    table = read_text_table(path)
    return pd.DataFrame(list(table.rows()), columns=list(table.columns), dtype=str)


_READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    **dict.fromkeys((".parquet", ".pq"), pd.read_parquet),
    **dict.fromkeys((".jsonl", ".ndjson"), _read_lines),
}


def _texts(column: pd.Series, path: Path, *, number: bool) -> list[str]:
    """A column as texts; ``number``: it may hold numbers, too."""
    values = [None if pd.isna(value) else value for value in column]
    for i, value in enumerate(values):
        if not (number or value is None or isinstance(value, str)):
            raise DeriError(f"{path}: {column.name} of row {i + 1} is {type(value).__name__}, expected text")
    return ["" if value is None else str(value) for value in values]


def read_systems(paths: list[Path]) -> dict[str, pd.DataFrame]:
    """Several systems' reports of the same records, in the same order: by the ``system`` column, else by file name.

    Raises:
        DeriError: a name twice, or systems that do not cover the same records with the same references.
    """
    systems: dict[str, pd.DataFrame] = {}
    source: dict[str, Path] = {}
    for path in paths:
        table = read_pairs(path)
        names = table.pop("system") if "system" in table.columns else pd.Series(path.stem, table.index)
        for name, part in table.groupby(names, sort=False):
            if name in systems:
                raise DeriError(f"system {name!r} is in {source[name]} and again in {path}: rename a file or a system")
            systems[name], source[name] = part.reset_index(drop=True), path
    first = next(iter(systems))
    for name in list(systems)[1:]:
        systems[name] = _aligned(systems[name], systems[first], (first, name), (source[first], source[name]))
    return systems


def _aligned(
    other: pd.DataFrame, first: pd.DataFrame, names: tuple[str, str], files: tuple[Path, Path]
) -> pd.DataFrame:
    """``other`` in the order of ``first``; names and files are those of ``first`` and ``other``."""
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


def write_table(table: pd.DataFrame, path: str | Path) -> None:
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
