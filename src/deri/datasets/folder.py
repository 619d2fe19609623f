"""A folder of ECG files, with or without a CSV that describes them.

CSV columns: ``file`` (required, relative to the root), and optionally ``report``, ``labels`` (``;`` between them),
``subject``, ``split`` (train, val or test), ``source``, ``age``, ``sex``, ``date`` and ``device``. Columns of 0 and 1
(or true and false) are classes where ``label_columns`` names them; others are ignored. An empty ``labels`` cell means
"not annotated": the recording is no part of the task.
"""

from __future__ import annotations

import difflib
import posixpath
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from deri.datasets.base import Dataset, DatasetKind, OpenOptions
from deri.datasets.headers import walk
from deri.datasets.tables import (
    ABOUT_COLUMNS,
    Verdicts,
    about,
    as_objects,
    assemble,
    given,
    listed,
    outside,
    read_header,
    read_table,
)
from deri.ecg.read import claims_ecg, reading_options, recordings_in
from deri.errors import DeriError
from deri.reports import clean_report

NAME = "folder"
LABELS = "labels"
DEFAULT_CSVS = ("index.csv", "labels.csv")
SPLITS = ("train", "val", "test")

WFDB_SUFFIXES = (".hea", ".dat", ".mat")
"""Suffixes under which one WFDB record may be named: the header, or its signal file."""

OTHER_SUFFIXES = (".dcm", ".xml", ".h5", ".hdf5", ".edf", ".bdf", ".scp", ".ecg", ".npy", ".npz", ".csv", ".zip")
"""ECG files of other formats. They are listed, so that one that cannot be read is counted and not passed over.

A CSV is listed only where its header names leads: most are tables about recordings. ``.gz`` may follow any of them.
"""

BATCH_SUFFIXES = (".h5", ".hdf5", ".npy", ".mat")
"""Suffixes of files that may hold many recordings, each ``FILE::NAME``."""

_YES, _NO = {"1", "1.0", "true"}, {"0", "0.0", "false"}
_OPTIONAL = ("report", "labels", "subject", "split", "source")


def open_folder(root: Path, options: OpenOptions) -> Dataset:
    """The recordings of a CSV in its order, or without one every ECG file below ``root`` in the order of paths.

    ``record_id`` is the path without its suffix, and ``::NAME`` behind it for a recording of a batch; ``source``
    defaults to the first folder of the path, ``subject`` to the record. Rejects: ``duplicate_file`` (the same recording
    twice). Whether a file is there shows when it is read.
    Raises DeriError for a CSV without ``file``, a path out of the root, an unknown split, and a class column that holds
    something else than 0 and 1.
    """
    reading_options(**options.reading)  # checked before the work
    csv = options.labels or _default_csv(root)
    notes: list[str] = []
    if csv is None:
        if options.label_columns or options.encoding:
            raise DeriError(f"--label-columns and --encoding go with a CSV, and {root} has none; name it with --labels")
        rows = pd.DataFrame({"file": list(_walk(root, notes))}, dtype=object).reindex(columns=["file", *_OPTIONAL])
        if rows.empty:
            kinds = ", ".join((*WFDB_SUFFIXES, *OTHER_SUFFIXES, ".gz of these"))
            raise DeriError(f"{root} holds no ECG files ({kinds}): give the folder that holds them, or --labels CSV")
        annotated = False
    else:
        rows, annotated = _read_csv(csv, options, notes)
    table = pd.DataFrame({column: as_objects(rows[column]) for column in rows}, dtype=object)

    bare = [_without_suffix(file) for file in table["file"]]
    record = np.array([stem for stem, _ in bare], dtype=object)
    wfdb = np.array([is_wfdb for _, is_wfdb in bare], dtype=bool)
    # "a.hea" and "a.dat" name one WFDB record, "a.xml" beside them another recording: that one keeps its suffix.
    repeated = np.zeros(len(table), dtype=bool)
    repeated[wfdb] = pd.Series(record[wfdb]).duplicated()
    repeated |= table["file"].duplicated().to_numpy(dtype=bool)
    once = pd.Series(record)[~repeated]
    clash = once.index[once.duplicated(keep=False) & ~wfdb[once.index]]
    record[clash] = table.loc[clash, "file"]
    verdicts = Verdicts(len(table))
    verdicts.refuse(repeated, "duplicate_file", "the recording is listed before; the first row is kept")

    tasks = {}
    if annotated:
        kept = table.loc[verdicts.reason == "", LABELS]
        if names := sorted({label for cell in kept if cell for label in cell}):
            tasks[LABELS] = names
    first = [file.split("/")[0] if "/" in file else "" for file in table["file"]]
    table = table.assign(
        record_id=record,
        study_id=record,
        subject_id=_filled(table["subject"], record),
        source=_filled(table["source"], np.array(first, dtype=object)),
        report=[text if (text := given(cell)) and clean_report(text) else None for cell in table["report"]],
        reason=verdicts.reason,
        detail=verdicts.detail,
    )
    examples, rejects = assemble(table, None, list(tasks), options.limit)
    return Dataset(NAME, root, examples, tasks, rejects, 0.1, 0.1, notes, dict(options.reading))


def _default_csv(root: Path) -> Path | None:
    there = [root / name for name in DEFAULT_CSVS if (root / name).is_file()]
    if len(there) > 1:
        raise DeriError(f"{root} has both {' and '.join(DEFAULT_CSVS)}: say with --labels which one to use")
    return there[0] if there else None


def _read_csv(path: Path, options: OpenOptions, notes: list[str]) -> tuple[pd.DataFrame, bool]:
    """The known columns of the CSV (absent ones empty), and whether it has labels. Paths are checked and normal."""
    found = read_header(path, "give the CSV of the folder with --labels", options.encoding)
    if "file" not in found:
        raise DeriError(f"{path} has no column 'file' (paths relative to the folder); found {listed(found)}")
    said = [column for column in ABOUT_COLUMNS if column in found and column not in options.label_columns]
    known = [column for column in ("file", *_OPTIONAL, *said) if column in found]
    foreign = [column for column in dict.fromkeys(found) if column and (column not in known or column in said)]
    read = dict.fromkeys((*known, *(column for column in foreign if found.count(column) == 1)))
    rows = read_table(path, "", list(read), options.encoding)
    flags = [
        c
        for c in foreign
        if c in rows and c not in said and set(rows[c].dropna().str.lower()) <= _YES | _NO and rows[c].notna().any()
    ]
    classes = _label_columns(path, options.label_columns, foreign, flags)
    if classes and LABELS in known:
        raise DeriError(f"{path} has a column labels: --label-columns is for a CSV without one")
    for column in set(foreign) - set(classes):
        if close := difflib.get_close_matches(column.strip().lower(), set(_OPTIONAL) - set(known), 1, 0.8):
            notes.append(f"{path.name}: the column {column!r} is ignored; was {close[0]!r} meant?")
    if flags and not classes:
        notes.append(
            f"{path.name}: columns of 0 and 1 are ignored: {listed(flags)}; --label-columns of deri prepare "
            "takes them as labels"
        )
    if classes:
        annotated = rows[classes].notna().any(axis=1)
        names = np.array(classes, dtype=object)
        positive = np.stack([rows[c].str.lower().isin(_YES).to_numpy(dtype=bool) for c in classes], axis=1)
        cells = [tuple(names[row]) if there else None for row, there in zip(positive, annotated, strict=True)]
        rows[LABELS] = pd.Series(cells, dtype=object)
    elif LABELS in known:
        rows[LABELS] = pd.Series([_split_labels(cell) for cell in as_objects(rows[LABELS])], dtype=object)
    for name in said:
        there = rows[name].notna()
        rows[name] = pd.Series(about(name, as_objects(rows[name])), dtype=object)
        if lost := int((there & rows[name].isna()).sum()):
            notes.append(f"{path.name}: {lost} of {len(rows)} cells of the column {name} are not understood")
    rows = rows.reindex(columns=["file", *_OPTIONAL, *said])
    if rows.empty:
        raise DeriError(f"{path} has no rows")
    empty = np.flatnonzero(rows["file"].fillna("").str.strip() == "")
    if len(empty):
        raise DeriError(f"{path}: no file in row {empty[0] + 1} (of {len(rows)}); every row names one")
    files = rows["file"].str.strip().str.replace("\\", "/", regex=False)
    rows["file"] = [posixpath.normpath(file) for file in files]
    escaping = rows.loc[outside(rows["file"]), "file"]
    if len(escaping):
        raise DeriError(f"{path}: {escaping.iloc[0]} is not below the folder; write paths relative to it, without '..'")
    unknown = sorted(set(rows["split"].dropna()) - set(SPLITS))
    if unknown:
        raise DeriError(f"{path}: split must be train, val, test or empty; found {listed(unknown)}")
    return rows, LABELS in known or bool(classes)


def _label_columns(path: Path, asked: Sequence[str], foreign: list[str], flags: list[str]) -> list[str]:
    """The columns that are classes."""
    if list(asked) == ["all"]:
        if not flags:
            raise DeriError(f"--label-columns all: {path} has no column of 0 and 1; found {listed(foreign)}")
        return flags
    for name in asked:
        if name not in foreign:
            raise DeriError(f"--label-columns {name}: {path} has no such column; found {listed(foreign)}")
        if name not in flags:
            raise DeriError(
                f"--label-columns {name}: the column of {path} holds something else than 0 and 1, or nothing"
            )
    return list(asked)


def _without_suffix(file: str) -> tuple[str, bool]:
    """The path without an ECG suffix, and whether it names a WFDB record (by its suffix, or by having none)."""
    batch, separator, member = file.partition("::")
    if separator and posixpath.splitext(batch)[1].lower() in BATCH_SUFFIXES:
        return f"{posixpath.splitext(batch)[0]}::{member}", False
    stem, suffix = posixpath.splitext(file)
    if suffix.lower() in WFDB_SUFFIXES:
        return stem, True
    if _is_other(file):
        return posixpath.splitext(stem)[0] if suffix.lower() == ".gz" else stem, False
    return file, True


def _is_other(name: str) -> bool:
    """Whether the name is that of an ECG file in one of the other formats, packed or not."""
    stem, suffix = posixpath.splitext(name.lower())
    if suffix == ".gz":
        suffix = posixpath.splitext(stem)[1]
    return suffix in OTHER_SUFFIXES


def _split_labels(cell: str | None) -> tuple[str, ...] | None:
    """``"AFIB; LVH"`` → ("AFIB", "LVH"); None where the cell is empty."""
    names = [name.strip() for name in cell.split(";")] if cell else []
    return tuple(dict.fromkeys(name for name in names if name)) or None


def _filled(values: pd.Series, default: np.ndarray) -> np.ndarray:
    return np.where(values.notna().to_numpy(dtype=bool), values.to_numpy(dtype=object), default)


def _walk(root: Path, notes: list[str]) -> Iterator[str]:
    """Every recording below the root, once, as a posix path relative to it, in sorted order of folders and names.

    Of a batch every recording is one (``batch.npy::0``). WFDB records go by their header. A signal file without one is
    listed by itself, unless a header beside it names it. Files of another or no suffix are looked into. Hidden files
    and folders are passed over; links to folders are followed, each folder once. ``notes`` get the number of files
    that are no recordings.
    """
    passed: list[str] = []
    for folder, names in walk(root):
        below = Path(folder).relative_to(root)
        for name, is_recording in _recordings(Path(folder), sorted(names)):
            path = (below / name).as_posix()
            if is_recording and posixpath.splitext(name)[1].lower() in BATCH_SUFFIXES:
                yield from (path + found.removeprefix(str(root / path)) for found in recordings_in(root / path))
            elif is_recording:
                yield path
            else:
                passed.append(path)
    if passed:
        notes.append(f"{len(passed)} files below {root.name} are no ECG by name or content: {listed(passed, 3)}")


def _recordings(folder: Path, names: list[str]) -> Iterator[tuple[str, bool]]:
    """Name, and whether it is that of a recording; signal files of a header are left out."""
    suffixes = {name: posixpath.splitext(name)[1].lower() for name in names}
    headers = [name for name in names if suffixes[name] == ".hea"]
    stems = {posixpath.splitext(name)[0] for name in headers}
    signals = [n for n in names if suffixes[n] in (".dat", ".mat") and posixpath.splitext(n)[0] not in stems]
    named = {line.split(maxsplit=1)[0] for name in headers for line in _lines(folder / name)} if signals else set()
    for name in names:
        if suffixes[name] in (".dat", ".mat"):
            if name in signals and name not in named:
                yield name, True
        elif suffixes[name] == ".hea" or (_is_other(name) and suffixes[name] != ".csv"):
            yield name, True
        elif name not in named:
            yield name, _is_claimed(folder / name)


def _is_claimed(path: Path) -> bool:
    """Whether a reader takes the file for a recording; one that cannot be opened is listed and fails when read."""
    try:
        with open(path, "rb") as handle:
            return claims_ecg(str(path), handle.read(4096))
    except OSError:
        return True


def _lines(header: Path) -> list[str]:
    """The lines of a header that are not blank; a header that cannot be read has none and fails when it is read."""
    try:
        return [line for line in header.read_text(encoding="latin-1").splitlines() if line.strip()]
    except OSError:
        return []


FOLDER = DatasetKind(open_folder, takes=("labels", "label_columns", "encoding", "reading"))
