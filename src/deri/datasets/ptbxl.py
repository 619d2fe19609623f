"""PTB-XL 1.0.x: ``ptbxl_database.csv`` and ``scp_statements.csv``.

Label rule, equal to the published split files of all four tasks: every statement in ``scp_codes`` counts, whatever its
likelihood, 0 included (rhythm statements have no other). Superclass and subclass come from the statements with
``diagnostic == 1``, form and rhythm are the statements with that flag. A recording without a label in a task is
no part of it. Class names are written as the published files do, without outer underscores (NT_ → NT, _AVB → AVB).
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pandas as pd

from deri.datasets.base import Dataset, DatasetKind, OpenOptions, Source, SplitFiles
from deri.datasets.published import read_published, use_published
from deri.datasets.tables import (
    Verdicts,
    about,
    as_objects,
    assemble,
    duplicates,
    given,
    listed,
    outside,
    read_header,
    read_table,
    sort_keys,
)
from deri.errors import DeriError
from deri.reports import clean_report, load_prompts

NAME = "ptb-xl"
DATABASE = "ptbxl_database.csv"
STATEMENTS = "scp_statements.csv"
LABELS = "labels"
HIGH, LOW = "records500", "records100"

_WHAT = f"the root of {NAME} should contain it, beside {HIGH}/ or {LOW}/"


def _number(cell: str) -> str:
    """An id; pandas writes a column of whole numbers with a gap as 15709.0."""
    return cell.removesuffix(".0")


SPLIT_FILES = tuple(
    SplitFiles(task, stem, "ecg_id", _number)
    for task, stem in (
        ("ptbxl-super", "ptbxl_super_class"),
        ("ptbxl-sub", "ptbxl_sub_class"),
        ("ptbxl-form", "ptbxl_form"),
        ("ptbxl-rhythm", "ptbxl_rhythm"),
    )
)
_FLAGS = ("diagnostic", "form", "rhythm")
_ABOUT = {"age": "age", "sex": "sex", "date": "recording_date", "device": "device"}
_SEXES = {"0": "male", "1": "female"}


def open_ptbxl(root: Path, options: OpenOptions) -> Dataset:
    """The 500 Hz recordings in the order of ``ecg_id``; folds 1–8 / 9 / 10 are train / val / test.

    Where only the recordings of 100 Hz are there, they are taken, and a note says so.
    Tasks ptbxl-super, -sub, -form, -rhythm, and ``labels``: all statement codes of the recording. Rejects:
    ``duplicate_study_id``, ``missing_record_id``, ``bad_path``, ``bad_scp_codes``. ``splits``: split and labels of
    the tasks that have files there, see :func:`deri.datasets.published.use_published`; what they do not list keeps its
    fold. Raises DeriError for a statement that ``scp_statements.csv`` does not know.
    """
    only_low = not (root / HIGH).is_dir() and (root / LOW).is_dir()
    file = "filename_lr" if only_low else "filename_hr"
    columns = ["ecg_id", "patient_id", "report", "scp_codes", "strat_fold", file]
    there = set(read_header(root / DATABASE, _WHAT))
    about_columns = {name: column for name, column in _ABOUT.items() if column in there}
    rows = read_table(root / DATABASE, _WHAT, [*columns, *about_columns.values()])
    rows = rows.iloc[sort_keys(rows["ecg_id"]).sort_values(kind="stable").index].reset_index(drop=True)
    classes_of = read_statements(root / STATEMENTS)
    verdicts = Verdicts(len(rows))
    refuse = verdicts.refuse
    refuse(rows["ecg_id"].isna(), "missing_record_id", f"{DATABASE} has a row without ecg_id")
    no_path = rows[file].isna() | outside(rows[file].fillna(""))
    refuse(no_path, "bad_path", f"{DATABASE} names no path below the root")
    again, conflict = duplicates(rows, "ecg_id", columns)
    refuse(conflict, "duplicate_study_id", f"{DATABASE} lists the ecg_id with different contents")
    refuse(again, "duplicate_study_id", f"{DATABASE} lists the ecg_id again; one is kept")
    codes = _parse_codes(as_objects(rows["scp_codes"]), classes_of)
    refuse([c is None for c in codes], "bad_scp_codes", f"scp_codes in {DATABASE} is no dictionary of statements")

    tasks = {task: list(load_prompts(task)) for task in next(iter(classes_of.values()))}
    labels: dict[str, list[tuple[str, ...] | None]] = {}
    for task, classes in tasks.items():
        labels[task] = [_in_order(classes, [classes_of[c][task] for c in found or ()]) for found in codes]
    occurring = {code for found in codes for code in found or ()}
    tasks[LABELS] = [code for code in classes_of if code in occurring]
    labels[LABELS] = [_in_order(tasks[LABELS], list(found or ())) for found in codes]

    record = rows["ecg_id"].str.replace(r"\.0$", "", regex=True)
    split = _splits(rows["strat_fold"], root / DATABASE)
    notes = [f"{root} has no {HIGH}/: the recordings of 100 Hz in {LOW}/ are taken"] if only_low else []
    if options.splits is not None:
        published = read_published(options.splits, NAME, SPLIT_FILES)
        kept = [i for i in range(len(rows)) if verdicts.reason[i] == ""]
        own = {task: {record[i]: labels[task][i] for i in kept} for task in tasks}
        taken = use_published(published, [record[i] for i in kept], own, options.splits)
        for task, found in taken.labels.items():
            labels[task] = [found.get(name) for name in record]
        split = [taken.split.get(name, fold) for name, fold in zip(record, split, strict=True)]
        notes += taken.notes
    rows = rows.assign(
        file=rows[file],
        record_id=record,
        study_id=record,
        # Pandas writes a column of whole numbers with a gap as 15709.0. A recording without a patient is its own.
        subject_id=rows["patient_id"].str.replace(r"\.0$", "", regex=True).fillna("ecg " + record),
        source=NAME,
        report=[text if (text := given(cell)) and clean_report(text) else None for cell in rows["report"]],
        split=split,
        reason=verdicts.reason,
        detail=verdicts.detail,
        **{name: _about(name, rows[column]) for name, column in about_columns.items()},
        **{task: pd.Series(values, dtype=object) for task, values in labels.items()},
    )
    examples, rejects = assemble(rows, None, list(tasks), options.limit)
    return Dataset(NAME, root, examples, tasks, rejects, val_fraction=0.1, test_fraction=0.1, notes=notes)


def _about(name: str, cells: pd.Series) -> list[Any]:
    return about(name, cells.str.replace(r"\.0$", "", regex=True).replace(_SEXES) if name == "sex" else cells)


def read_statements(path: Path) -> dict[str, dict[str, str | None]]:
    """Statement code → task → its class in that task, or None. Codes in the order of the file."""
    code = read_header(path, _WHAT)[0]  # it has no name in the release
    table = read_table(path, _WHAT, [code, *_FLAGS, "diagnostic_class", "diagnostic_subclass"])
    table = table.rename(columns={code: "code"})
    for flag in _FLAGS:
        table[flag] = pd.to_numeric(table[flag], errors="coerce") == 1
    statements: dict[str, dict[str, str | None]] = {}
    for row in table.itertuples(index=False):
        diagnostic = bool(row.diagnostic)
        statements[str(row.code)] = {
            "ptbxl-super": _class_name(row.diagnostic_class) if diagnostic else None,
            "ptbxl-sub": _class_name(row.diagnostic_subclass) if diagnostic else None,
            "ptbxl-form": _class_name(row.code) if row.form else None,
            "ptbxl-rhythm": _class_name(row.code) if row.rhythm else None,
        }
    if not statements:
        raise DeriError(f"{path} has no rows; take it from the PTB-XL release")
    for task in next(iter(statements.values())):
        named = {classes[task] for classes in statements.values()} - {None}
        unknown = sorted(str(name) for name in named - set(load_prompts(task)))
        if unknown:
            raise DeriError(f"{path}: {task} has no class {listed(unknown)}; take the file of PTB-XL 1.0.x")
    return statements


def _class_name(value: object) -> str | None:
    return value.strip("_") or None if isinstance(value, str) else None


def _parse_codes(cells: pd.Series, known: dict[str, dict[str, str | None]]) -> list[tuple[str, ...] | None]:
    """The statement codes of each cell ``{'NORM': 100.0, 'SR': 0.0}``; None where it is no such dictionary."""
    parsed: dict[object, tuple[str, ...] | None] = {}
    for cell in cells.unique():
        try:
            value = ast.literal_eval(cell) if isinstance(cell, str) else None
        except (ValueError, SyntaxError):
            value = None
        parsed[cell] = tuple(map(str, value)) if isinstance(value, dict) else None
    unknown = sorted({code for codes in parsed.values() for code in codes or () if code not in known})
    if unknown:
        raise DeriError(
            f"{DATABASE} uses statements that {STATEMENTS} does not list: {listed(unknown)}; "
            "take both files from one release"
        )
    return [parsed[cell] for cell in cells]


def _in_order(classes: list[str], found: list[str | None]) -> tuple[str, ...] | None:
    return tuple(c for c in classes if c in found) or None


def _splits(folds: pd.Series, path: Path) -> list[str]:
    names = {str(fold): "train" for fold in range(1, 9)} | {"9": "val", "10": "test"}
    plain = folds.fillna("").str.replace(r"\.0$", "", regex=True)
    foreign = sorted(set(plain) - names.keys())
    if foreign:
        raise DeriError(f"{path}: strat_fold must be 1 to 10, found {listed([f or 'an empty cell' for f in foreign])}")
    return [names[fold] for fold in plain]


PTB_XL = DatasetKind(
    open_ptbxl,
    Source("PTB-XL 1.0.3", "https://physionet.org/files/ptb-xl/1.0.3/", "CC BY 4.0", "about 3 GB"),
    SPLIT_FILES,
)
