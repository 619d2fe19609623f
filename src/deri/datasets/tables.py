"""Reading the tables of a data set, and turning rows with a verdict into a Dataset's examples and rejects."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deri.ecg.formats.common import device_name, sex_of, to_float, years
from deri.ecg.recording import ABOUT
from deri.errors import DeriError, some
from deri.tables import TextTable, decode, parse_text_table, read_text_table

ID_COLUMNS = ("file", "record_id", "subject_id", "study_id", "source")
EXAMPLE_COLUMNS = (*ID_COLUMNS, "report", "split")
REJECT_COLUMNS = (*ID_COLUMNS, "reason", "detail")
ABOUT_COLUMNS = tuple(name for name in ABOUT if name != "interpretation")
PIECE = 8192
"""Rows whose texts are looked at at a time."""
PIECE_BYTES = 1 << 20
"""Bytes of a large table that are parsed at a time."""
_HEAD_BYTES = 1 << 16
_TEXT = "str" if pd.Series([None]).astype("str").isna().all() else object  # before pandas 3 None became the word "None"


def read_header(path: Path, what: str, encoding: str | None = None) -> list[str]:
    """Column names of a CSV. ``what`` says what the file belongs to, for the error when it is not there."""
    return list(_head(path, what, encoding).columns)


def read_table(path: Path, what: str, columns: Sequence[str], encoding: str | None = None) -> pd.DataFrame:
    """Read these columns of a CSV as text (empty cells are NaN).

    Raises DeriError for columns that lack or stand twice, and for the first row that has more or fewer cells than the
    header.
    """
    _there(path, what)
    table = read_text_table(path, encoding)
    at = _positions(table, columns)
    cells = [[row[i] or None for i in at] for row in table.rows()]
    return pd.DataFrame(cells, columns=list(columns), dtype=object).astype(_TEXT)


def read_pieces(
    path: Path, what: str, columns: Sequence[str], categories: Sequence[str] = ()
) -> Iterator[pd.DataFrame]:
    """As :func:`read_table`, some thousand rows at a time, for UTF-8 tables of any size.

    ``categories``: those of the columns in which few texts occur.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow

    head = _head(path, what, None)
    at = _positions(head, columns)
    _check_quotes(path, head)
    few = pa.dictionary(pa.int32(), pa.string())
    kinds = {str(i): few if name in categories else pa.string() for i, name in zip(at, columns, strict=True)}
    try:
        pieces = arrow.open_csv(
            path,
            arrow.ReadOptions(
                use_threads=False,  # else Arrow does not say which row is uneven
                block_size=PIECE_BYTES,
                skip_rows=head.first_line - 1,
                column_names=list(map(str, range(len(head.columns)))),
            ),
            arrow.ParseOptions(delimiter=head.separator, quote_char=head.quote, newlines_in_values=True),
            arrow.ConvertOptions(
                column_types=kinds, include_columns=list(kinds), null_values=[""], strings_can_be_null=True
            ),
        )
        for piece in pieces:
            yield piece.to_pandas().set_axis(list(columns), axis=1)
    except pa.ArrowInvalid as error:
        uneven = re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", str(error))
        if uneven is None:
            raise DeriError(f"{path} cannot be read as CSV in UTF-8: {' '.join(str(error).split())}") from error
        raise DeriError(
            f"{path}: row {uneven[1]} (the header is the first) has {uneven[3]} fields, the header {uneven[2]}; "
            "quote cells that hold the separator"
        ) from None


def _check_quotes(path: Path, head: TextTable) -> None:
    """Refuse a quote that is not closed, with which Arrow takes all rows behind it for one cell.

    Lines without a quote cannot open or close one: they are passed over.
    """
    row: list[int] = []  # numbers of its lines

    def lines() -> Iterator[str]:
        for number, line in enumerate(handle, start=1):
            if head.quote in line and number >= head.first_line:
                row.append(number)
                yield line

    with open(path, encoding="utf-8", errors="replace", newline="") as handle:
        try:
            for _ in csv.reader(lines(), delimiter=head.separator, quotechar=head.quote, strict=True):
                row.clear()
        except csv.Error as error:
            raise DeriError(f"{path}: line {row[0]} is no row of a table ({error})") from None


def _head(path: Path, what: str, encoding: str | None) -> TextTable:
    """The table's header; of its rows only some."""
    _there(path, what)
    try:
        with open(path, "rb") as handle:
            data = handle.read(_HEAD_BYTES)
    except OSError as error:
        raise DeriError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) == _HEAD_BYTES:  # a letter of several bytes may be cut
        data = data[: data.rfind(b"\n") + 1 + data.startswith(codecs.BOM_UTF16_LE)]
    return parse_text_table(str(path), decode(str(path), data, encoding))


def _there(path: Path, what: str) -> None:
    if not path.is_file():
        raise DeriError(f"{path} is missing: {what}")


def _positions(table: TextTable, columns: Sequence[str]) -> list[int]:
    found = table.columns
    if missing := [column for column in columns if column not in found]:
        raise DeriError(f"{table.path} lacks the column {', '.join(missing)}; found {listed(found)}")
    if twice := [column for column in columns if found.count(column) > 1]:
        raise DeriError(f"{table.path} has the column {twice[0]} more than once; give one of them another name")
    return [found.index(column) for column in columns]


def given(text: object) -> str | None:
    """A report, or None where the cell says in the words of some program that there is none ("nan", "None")."""
    if not isinstance(text, str) or text.strip(" .").lower() in ("nan", "none"):
        return None
    return text


def listed(names: Sequence[str], most: int = 40) -> str:
    """The names with commas, the tail of a long list as a count."""
    return some([str(name) for name in names], most) or "none"


def about(name: str, cells: pd.Series) -> list[Any]:
    """Cells as values of the column ``name`` of ``ABOUT``; None where they are empty or not understood.

    An age in years, a word or letter for the sex, a day as YYYY-MM-DD with or without a time, any text for a device.
    """
    known: dict[str, Callable[[str], Any]] = {"age": _age, "sex": sex_of, "date": _iso, "device": device_name}
    return [known[name](cell) if isinstance(cell, str) else None for cell in cells.tolist()]


def _age(cell: str) -> float | None:
    value = to_float(cell.strip())
    return None if value is None else years(value)


def _iso(cell: str) -> str | None:
    try:
        found = datetime.fromisoformat(cell.strip())
    except ValueError:
        return None
    return found.date().isoformat() if len(cell.strip()) <= len("YYYY-MM-DD") else found.strftime("%Y-%m-%dT%H:%M:%S")


def outside(paths: Iterable[str]) -> np.ndarray:
    """Which posix paths are absolute or climb out of the root: bool (n,)."""
    pattern = re.compile(r"^/|^[A-Za-z]:|(?:^|/)\.\.(?:/|$)")
    return np.array([bool(pattern.search(path)) for path in paths], dtype=bool)


class Verdicts:
    """Why rows are refused: per row a reason (``""`` = accepted) and a sentence. The first verdict on a row stands."""

    def __init__(self, n: int) -> None:
        self.reason = np.full(n, "", dtype=object)
        self.detail = np.full(n, "", dtype=object)

    def refuse(self, mask: Any, reason: str, detail: str | Sequence[str]) -> None:
        """Refuse the rows of ``mask`` that are still accepted; ``detail`` is one sentence or one per row."""
        rows = np.flatnonzero(np.asarray(mask, dtype=bool) & (self.reason == ""))
        self.reason[rows] = reason
        for row in rows.tolist():
            self.detail[row] = detail if isinstance(detail, str) else detail[row]


def duplicates(table: pd.DataFrame, key: str, content: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Which rows repeat an earlier row's key, and which share their key with a row of other content: bool (n,).

    Rows without a key are neither.
    """
    several = table[repeated(table[key])]
    again = np.zeros(len(table), dtype=bool)
    again[table.index.get_indexer(several.index[several.duplicated(key)])] = True
    distinct = several.drop_duplicates([key, *content])
    contradicting = distinct.loc[distinct.duplicated(key, keep=False), key]
    conflict = np.zeros(len(table), dtype=bool)
    conflict[table.index.get_indexer(several.index[several[key].isin(contradicting)])] = True
    return again, conflict


def repeated(values: pd.Series) -> np.ndarray:
    """Which values stand more than once, bool (n,); missing ones are not values.

    By their hashes, a piece at a time, since a table of a million texts takes a hundred bytes for each; what shares a
    hash is compared itself.
    """
    hashes = np.empty(len(values), dtype=np.uint64)
    for start in range(0, len(values), PIECE):
        piece = values.iloc[start : start + PIECE].to_numpy(dtype=object)
        hashes[start : start + PIECE] = pd.util.hash_array(piece, categorize=False)
    ordered = np.sort(hashes)
    likely = np.isin(hashes, ordered[1:][ordered[1:] == ordered[:-1]])
    likely &= values.notna().to_numpy(dtype=bool)
    found = np.zeros(len(values), dtype=bool)
    found[likely] = values[likely].duplicated(keep=False).to_numpy(dtype=bool)
    return found


def sort_keys(values: pd.Series) -> pd.Series:
    """Keys that sort ids by number where all are digits, else by text; rows without an id come first."""
    text = values.fillna("")
    given = text[text != ""]
    if given.str.fullmatch(r"\d{1,18}").all():
        return pd.to_numeric(text.where(text != "", "-1"))
    return text.astype(object)


def as_objects(values: pd.Series) -> pd.Series:
    """Text as plain ``str`` objects, missing values as None, whatever pandas' own text type is."""
    plain = values.astype(object)
    return plain.where(plain.notna(), None)


def _text(values: pd.Series) -> pd.Series:
    """``as_objects`` with "" for what is missing. The texts stay the same objects: fillna would copy each of them.

    Columns of pandas' own text type stay what they are: without an object per text they take a third of the memory.
    """
    if values.dtype == "str":
        return values.fillna("")
    texts = np.array([value if isinstance(value, str) else "" for value in values.tolist()], dtype=object)
    return pd.Series(texts, index=values.index, dtype=object)


def assemble(
    rows: pd.DataFrame, extra: pd.DataFrame | None, tasks: Sequence[str], limit: int | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split rows in their final order into examples (``reason == ""``) and rejects.

    ``extra`` holds rejects beside the rows (a second report of a record): it has the columns of a reject and ``at``,
    the position of the row that it belongs to. With ``limit`` the first N accepted rows stay, and of the
    rejects those up to there: what a limited run says is true of the part that it looked at.
    """
    if limit is not None and limit < 1:
        raise DeriError(f"--limit {limit}: give a number of recordings of at least 1")
    accepted = (rows["reason"] == "").to_numpy(dtype=bool)
    end = len(rows)
    if limit is not None and accepted.sum() > limit:
        end = int(np.flatnonzero(accepted)[limit - 1]) + 1
    rows, accepted = rows.iloc[:end], accepted[:end]
    # Column by column: a frame would copy its columns together, and the texts of a million rows are large.
    columns = (*EXAMPLE_COLUMNS, *(name for name in ABOUT_COLUMNS if name in rows), *tasks)
    examples = pd.DataFrame({c: rows[c][accepted].reset_index(drop=True) for c in columns})
    rejects = rows.loc[~accepted, list(REJECT_COLUMNS)].assign(at=np.flatnonzero(~accepted))
    if extra is not None and len(extra):
        rejects = pd.concat([rejects, extra[extra["at"] < end]]).sort_values("at", kind="stable")
    rejects = rejects[list(REJECT_COLUMNS)].reset_index(drop=True)
    for column in rejects:
        rejects[column] = _text(rejects[column])
    for column in ID_COLUMNS:
        examples[column] = _text(examples[column])
    for column in ("report", "split"):
        examples[column] = as_objects(examples[column])
    return examples, rejects
