"""Reading the tables of a data set, and turning rows with a verdict into a Dataset's examples and rejects."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deri.errors import DeriError, some

ID_COLUMNS = ("file", "record_id", "subject_id", "study_id", "source")
EXAMPLE_COLUMNS = (*ID_COLUMNS, "report", "split")
REJECT_COLUMNS = (*ID_COLUMNS, "reason", "detail")
PIECE = 8192
"""Rows that are parsed at a time."""


def read_header(path: Path, what: str) -> list[str]:
    """Column names of a CSV. ``what`` says what the file belongs to, for the error when it is not there."""
    return [str(column) for column in _read(path, what, nrows=0).columns]


def read_table(path: Path, what: str, columns: Sequence[str], **options: Any) -> pd.DataFrame:
    """Read these columns of a CSV as text (empty cells are NaN); DeriError names the columns that lack."""
    _require(path, what, columns)
    return _read(path, what, usecols=list(columns), **{"dtype": str, **options})[list(columns)]


def read_pieces(path: Path, what: str, columns: Sequence[str], **options: Any) -> Iterator[pd.DataFrame]:
    """As :func:`read_table`, some thousand rows at a time: what a parser needs besides its result stays small."""
    _require(path, what, columns)
    with _reading(path, what):
        pieces = _open(path, usecols=list(columns), chunksize=PIECE, **{"dtype": str, **options})
        for piece in pieces:
            yield piece[list(columns)]


def _require(path: Path, what: str, columns: Sequence[str]) -> None:
    found = read_header(path, what)
    missing = [column for column in columns if column not in found]
    if missing:
        raise DeriError(f"{path} lacks the column {', '.join(missing)}; found {listed(found)}")


def _read(path: Path, what: str, **options: Any) -> pd.DataFrame:
    with _reading(path, what):
        frame: pd.DataFrame = _open(path, **options)
    return frame


def _open(path: Path, **options: Any) -> Any:
    # Only an empty cell is empty: "NA" and "None" may be a label or an id. utf-8-sig drops the mark of Excel.
    return pd.read_csv(path, encoding="utf-8-sig", keep_default_na=False, na_values=[""], **options)


@contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    if not path.is_file():
        raise DeriError(f"{path} is missing: {what}")
    try:
        yield
    except (ValueError, UnicodeDecodeError) as error:  # ParserError and EmptyDataError are ValueErrors
        raise DeriError(f"{path} cannot be read as CSV: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise DeriError(f"{path} cannot be read: {error.strerror}") from error


def listed(names: Sequence[str], most: int = 40) -> str:
    """The names with commas, the tail of a long list as a count."""
    return some([str(name) for name in names], most) or "none"


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
    examples = pd.DataFrame({c: rows[c][accepted].reset_index(drop=True) for c in (*EXAMPLE_COLUMNS, *tasks)})
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
