"""MIMIC-IV-ECG 1.0: ``record_list.csv`` and ``machine_measurements.csv``, paired by study id.

Built for all 800,035 records: the 18 report columns are read as categories, and every step on text runs once per
distinct report.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from deri.datasets.base import Dataset, DatasetKind, OpenOptions, Source
from deri.datasets.tables import (
    REJECT_COLUMNS,
    Verdicts,
    assemble,
    duplicates,
    given,
    listed,
    outside,
    read_header,
    read_pieces,
    repeated,
    sort_keys,
)
from deri.errors import DeriError
from deri.reports import MIN_WORDS, clean_report, count_words, join_report

NAME = "mimic-iv-ecg"
RECORDS = "record_list.csv"
MEASUREMENTS = "machine_measurements.csv"
REPORT_COLUMNS = tuple(f"report_{i}" for i in range(18))

_WHAT = f"the root of {NAME} should contain it, beside files/"


def open_mimic(root: Path, options: OpenOptions) -> Dataset:
    """Pair every record with the report of its study, in the order of subject and study id.

    Rejects: ``no_report`` (no row for the study), ``report_too_short``, ``duplicate_study_id`` (identical rows are
    kept once, contradicting ones not at all), ``subject_mismatch`` (the two tables disagree), ``duplicate_file``,
    ``bad_path`` and ``missing_study_id``.
    """
    min_words = MIN_WORDS if options.min_words is None else options.min_words
    rows = _read_records(root / RECORDS)
    reports, texts = _read_reports(root / MEASUREMENTS)
    verdicts = Verdicts(len(rows))
    refuse = verdicts.refuse

    refuse(
        rows["study_id"].isna() | rows["subject_id"].isna(),
        "missing_study_id",
        f"{RECORDS} has a row without study_id or subject_id",
    )
    no_path = rows["path"].isna() | outside(rows["path"].fillna(""))
    refuse(no_path, "bad_path", f"{RECORDS} names no path below the root")
    again, conflict = duplicates(rows, "study_id", ["subject_id", "path"])
    refuse(conflict, "duplicate_study_id", f"{RECORDS} lists the study with different subjects or paths")
    refuse(again, "duplicate_study_id", f"{RECORDS} lists the study again with the same path; one is kept")
    live = rows["path"].where(verdicts.reason == "")
    refuse(repeated(live), "duplicate_file", f"{RECORDS} gives several studies this file")

    again, conflict = duplicates(reports, "study_id", ["subject_id", "text"])
    kept = reports[~again].assign(conflict=conflict[~again])
    at = pd.Index(kept["study_id"]).get_indexer(pd.Index(rows["study_id"]))
    paired = kept.iloc[at].reset_index(drop=True)  # rows with at == -1 are refused before they are looked at
    refuse(at < 0, "no_report", f"{MEASUREMENTS} has no row for the study")
    refuse(paired["conflict"], "duplicate_study_id", f"{MEASUREMENTS} lists the study with different reports")
    other = (paired["subject_id"] != rows["subject_id"]).fillna(True)
    refuse(other, "subject_mismatch", f"{RECORDS} and {MEASUREMENTS} give the study to different subjects")
    words = np.array([count_words(clean_report(text)) for text in texts], dtype=int)
    text = paired["text"].to_numpy()
    sentences = [
        f"{n} words after cleaning, at least {min_words} wanted: {report!r}" if n < min_words else ""
        for n, report in zip(words, texts, strict=True)
    ]
    refuse(words[text] < min_words, "report_too_short", [sentences[t] for t in text])

    rows = rows.assign(
        file=rows["path"],
        record_id=rows["study_id"],
        # As object columns one text serves many rows; pandas' own text type would make a copy for each.
        source=pd.Series([NAME] * len(rows), dtype=object),
        report=pd.Series(np.array(texts, dtype=object)[text], dtype=object),
        split=None,
        **({"date": rows["ecg_time"].str.replace(" ", "T")} if "ecg_time" in rows else {}),
        **({"device": "cart " + paired["cart_id"]} if "cart_id" in paired else {}),
        reason=verdicts.reason,
        detail=verdicts.detail,
    )
    extra = _second_reports(rows, reports.loc[again & ~conflict, "study_id"])
    examples, rejects = assemble(rows, extra, [], options.limit)
    return Dataset(NAME, root, examples, {}, rejects, val_fraction=0.02, test_fraction=0.0)


def _read_records(path: Path) -> pd.DataFrame:
    columns = ["subject_id", "study_id", "path", *(c for c in ("ecg_time",) if c in read_header(path, _WHAT))]
    rows = pd.concat(list(read_pieces(path, _WHAT, columns)), ignore_index=True)
    if rows.empty:
        raise DeriError(f"{path} has no rows; {_WHAT}")
    order = pd.DataFrame({"subject": sort_keys(rows["subject_id"]), "study": sort_keys(rows["study_id"])})
    return rows.iloc[order.sort_values(["subject", "study"], kind="stable").index].reset_index(drop=True)


def _read_reports(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """Rows (study_id, subject_id, text: position in the list) and the distinct joined report texts."""
    found = read_header(path, _WHAT)
    foreign = [c for c in found if re.match(r"report", c, re.IGNORECASE) and c not in REPORT_COLUMNS]
    missing = [c for c in REPORT_COLUMNS if c not in found]
    if foreign or missing:
        faults = [f"foreign column {listed(foreign)}"] * bool(foreign) + [f"no {listed(missing)}"] * bool(missing)
        raise DeriError(
            f"{path}: {' and '.join(faults)}; expected report_0 … report_17 as in MIMIC-IV-ECG 1.0, "
            f"found {listed(found)}"
        )
    numbers: dict[str, int] = {}
    parts = []
    ids = ["subject_id", "study_id", *(c for c in ("cart_id",) if c in found)]
    for piece in read_pieces(path, _WHAT, [*ids, *REPORT_COLUMNS], REPORT_COLUMNS):
        piece = piece[piece["study_id"].notna()]
        parts.append(piece[ids].assign(text=_number_texts(piece, numbers)))
    reports = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    if reports.empty:
        raise DeriError(f"{path} has no rows; {_WHAT}")
    return reports, list(numbers)


def _number_texts(piece: pd.DataFrame, numbers: dict[str, int]) -> np.ndarray:
    """The number of each row's joined report text, int32 (n,); texts seen for the first time get the next ones."""
    codes = np.stack([piece[c].cat.codes.to_numpy(dtype=np.int32) for c in REPORT_COLUMNS], axis=1)
    phrases = [[*map(given, piece[c].cat.categories), None] for c in REPORT_COLUMNS]  # code -1 is the last: None
    # One opaque key per row: np.unique on it sorts 72-byte strings instead of comparing 18 columns.
    keys = np.ascontiguousarray(codes).view(np.dtype((np.void, codes.dtype.itemsize * codes.shape[1]))).ravel()
    _, where, inverse = np.unique(keys, return_index=True, return_inverse=True)
    joined = [join_report([phrases[j][code] for j, code in enumerate(row)]) for row in codes[where].tolist()]
    found = np.array([numbers.setdefault(text, len(numbers)) for text in joined], dtype=np.int32)
    return found[inverse]


def _second_reports(rows: pd.DataFrame, studies: pd.Series) -> pd.DataFrame:
    """Rejects for reports that stand twice, word for word, in the measurements of a record that is kept."""
    alive = rows[rows["reason"] == ""] if len(studies) else rows[:0]
    at = pd.Index(alive["study_id"]).get_indexer(pd.Index(studies))
    extra = alive.iloc[at[at >= 0]]
    return extra.assign(
        at=extra.index,
        reason="duplicate_study_id",
        detail=f"{MEASUREMENTS} lists the study again with the same report; one is kept",
    )[[*REJECT_COLUMNS, "at"]]


MIMIC_IV_ECG = DatasetKind(
    open_mimic,
    Source("MIMIC-IV-ECG 1.0", "https://physionet.org/files/mimic-iv-ecg/1.0/", "ODbL 1.0", "about 90 GB"),
)
