"""Reading the tables of a data set, and turning rows with a verdict into a Dataset's examples and rejects."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deri.errors import DeriError

ID_COLUMNS = ("file", "record_id", "subject_id", "study_id", "source")
EXAMPLE_COLUMNS = (*ID_COLUMNS, "report", "split")
REJECT_COLUMNS = (*ID_COLUMNS, "reason", "detail")


def read_header(path: Path, what: str) -> list[str]:
    """Column names of a CSV. ``what`` says what the file belongs to, for the error when it is not there."""
    return [str(column) for column in _read(path, what, nrows=0).columns]


def read_table(path: Path, what: str, columns: Sequence[str], **options: Any) -> pd.DataFrame:
    """Read these columns of a CSV as text (empty cells are NaN); DeriError names the columns that lack."""
    found = read_header(path, what)
    missing = [column for column in columns if column not in found]
    if missing:
        raise DeriError(f"{path} lacks the column {', '.join(missing)}; found {listed(found)}")
    return _read(path, what, usecols=list(columns), **{"dtype": str, **options})[list(columns)]


def _read(path: Path, what: str, **options: Any) -> pd.DataFrame:
    if not path.is_file():
        raise DeriError(f"{path} is missing: {what}")
    try:
        # Only an empty cell is empty: "NA" and "None" may be a label or an id. utf-8-sig drops the mark of Excel.
        return pd.read_csv(path, encoding="utf-8-sig", keep_default_na=False, na_values=[""], **options)
    except (ValueError, UnicodeDecodeError) as error:  # ParserError and EmptyDataError are ValueErrors
        raise DeriError(f"{path} cannot be read as CSV: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise DeriError(f"{path} cannot be read: {error.strerror}") from error


def listed(names: Sequence[str], most: int = 40) -> str:
    """The names with commas, the tail of a long list as a count."""
    shown = ", ".join(map(str, names[:most])) or "none"
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def outside(paths: pd.Series) -> np.ndarray:
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
    again = (table.duplicated(key) & table[key].notna()).to_numpy(dtype=bool)
    several = table[table[key].notna() & table.duplicated(key, keep=False)]
    distinct = several.drop_duplicates([key, *content])
    contradicting = distinct.loc[distinct.duplicated(key, keep=False), key]
    return again, table[key].isin(contradicting).to_numpy(dtype=bool)


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
    """``as_objects`` with "" for what is missing. The texts stay the same objects: fillna would copy each of them."""
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
    examples = rows.loc[accepted, [*EXAMPLE_COLUMNS, *tasks]].reset_index(drop=True)
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
