"""CSN, also "ecg-arrhythmia" 1.0.0 (Chapman, Shaoxing and Ningbo hospitals): ``WFDBRecords/NN/NNN/JSnnnnn.{mat,hea}``.

The labels are SNOMED CT codes in each header; ``ConditionNames_SNOMED-CT.csv`` gives them acronyms. Several acronyms
share a code there (LBBB, LBBBB, LFBBB): the first one of the file stands for it, as in the published split files.
Zheng et al., Sci Data 2020;7:48, https://doi.org/10.13026/wgex-er52.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pandas as pd

from deri.datasets.base import Dataset, DatasetKind, OpenOptions, Source, SplitFiles
from deri.datasets.headers import find_recordings, read_diagnosis
from deri.datasets.published import PublishedTask, read_published, stem_of, use_published
from deri.datasets.tables import Verdicts, assemble, listed, read_header, read_table
from deri.errors import DeriError
from deri.reports import load_prompts

NAME = "csn"
TASK = "csn"
LABELS = "labels"
CONDITIONS = "ConditionNames_SNOMED-CT.csv"
RECORDS = "WFDBRecords"
MIN_RECORDS = 10
SPLIT_FILES = (SplitFiles(TASK, "chapman", "ecg_path", stem_of),)

_WHAT = f"the root of {NAME} should contain it, beside {RECORDS}/"
_COLUMNS = {"acronymname": "acronym", "fullname": "name", "snomedct": "code"}
_STEM = re.compile(r"JS\d{5}")


def open_csn(root: Path, options: OpenOptions) -> Dataset:
    """The recordings in the order of their names.

    Task ``csn``: of the 38 classes of the published task those with at least ten recordings (counted over the whole
    data set, whatever ``limit``). A recording has a class where one of its codes stands for it: an exact match. One
    without any class is no part of the task. Task ``labels``: every condition that occurs, by its full name in the
    condition table.

    ``published_labels`` makes the task as the published files have it: a class counts where its acronym is *part of* an
    acronym of the recording (AF in AFIB, SA in LVQRSAL), recordings with a code that the condition table does not list
    are left out, and all 38 classes stay. ``splits``: see :func:`deri.datasets.published.use_published`.

    Rejects: ``missing_header``, ``unreadable_file``, ``bad_header``, ``duplicate_file``.
    """
    splits, published_labels = options.splits, options.published_labels
    conditions = read_conditions(root / CONDITIONS)
    if not (root / RECORDS).is_dir():
        raise DeriError(f"{root / RECORDS} is missing: {_WHAT.replace('it, ', 'it and ')}")
    found = find_recordings(root, RECORDS, _STEM)
    if not found:
        raise DeriError(f"{root / RECORDS} holds no recordings JSnnnnn.hea: give the root of {NAME}")
    notes = [read_diagnosis(root / f"{recording.stem}.hea") for recording in found]
    record = pd.Series([recording.stem.rsplit("/", 1)[1] for recording in found], dtype=object)
    verdicts = Verdicts(len(found))
    for reason in sorted({note.reason for note in notes} - {""}):
        verdicts.refuse([note.reason == reason for note in notes], reason, [note.detail for note in notes])
    verdicts.refuse(record.duplicated(), "duplicate_file", "a recording of this name is listed before, and kept")

    usable = verdicts.reason == ""
    codes = [note.codes if good else () for note, good in zip(notes, usable, strict=True)]
    acronyms = [tuple(conditions[code][0] for code in found if code in conditions) for found in codes]
    classes = list(load_prompts(TASK))
    if published_labels:
        complete = [all(code in conditions for code in found) for found in codes]
        values = [
            substring_labels(classes, names) or None if whole else None
            for names, whole in zip(acronyms, complete, strict=True)
        ]
    else:
        values = [tuple(c for c in classes if c in names) or None for names in acronyms]
    notice: list[str] = []
    split: list[str | None] = [None] * len(found)
    if published_labels:
        notice.append("csn: labels match as substrings, as in the published split files")
    if splits is not None:
        published = read_published(splits, NAME, SPLIT_FILES)
        if not published_labels:
            published = {task: _exact(content, classes) for task, content in published.items()}
        own = {record[i]: values[i] for i in range(len(found)) if usable[i]}
        taken = use_published(published, list(own), {TASK: own}, splits)
        values = [taken.labels[TASK].get(name) for name in record]
        split = [taken.split.get(name) for name in record]
        notice += taken.notes
    elif not published_labels:
        counts = Counter(c for labels in values for c in labels or ())
        classes = [c for c in classes if counts[c] >= MIN_RECORDS]
        values = [tuple(c for c in labels or () if c in classes) or None for labels in values]
    names = {code: name for code, (_, name) in conditions.items()}
    full = [tuple(dict.fromkeys(names[code] for code in found if code in names)) or None for found in codes]
    occurring = {name for labels in full for name in labels or ()}
    tasks = {TASK: classes} if classes else {}
    if occurring:
        tasks[LABELS] = [name for name in dict.fromkeys(names.values()) if name in occurring]
    rows = pd.DataFrame(
        {
            "file": [recording.stem for recording in found],
            "record_id": record,
            "study_id": record,
            "subject_id": record,  # one recording per patient
            "source": NAME,
            "report": None,
            "split": split,
            TASK: pd.Series(values, dtype=object),
            LABELS: pd.Series(full, dtype=object),
            "reason": verdicts.reason,
            "detail": verdicts.detail,
        }
    )
    examples, rejects = assemble(rows, None, list(tasks), options.limit)
    return Dataset(NAME, root, examples, tasks, rejects, val_fraction=0.08, test_fraction=0.2, notes=notice)


def substring_labels(classes: list[str], acronyms: tuple[str, ...]) -> tuple[str, ...]:
    """The rule of the published files: a class counts wherever its acronym occurs in the joined ones."""
    joined = ",".join(acronyms)
    return tuple(c for c in classes if c in joined)


def read_conditions(path: Path) -> dict[str, tuple[str, str]]:
    """SNOMED code → (acronym, full name) from the condition table, in its order; the first row of a code counts."""
    header = read_header(path, _WHAT)
    # Copies differ in the blanks and underscores of the column names.
    columns = {_COLUMNS.get(re.sub(r"[\W_]", "", name.lower()), ""): name for name in header}
    missing = [name for name in _COLUMNS.values() if name not in columns]
    if missing:
        raise DeriError(
            f"{path} lacks a column for {', '.join(missing)}; expected Acronym Name, Full Name, Snomed_CT, "
            f"found {listed(header)}"
        )
    table = read_table(path, _WHAT, [columns[name] for name in _COLUMNS.values()])
    table.columns = pd.Index(list(_COLUMNS.values()))
    table = table.dropna()
    conditions: dict[str, tuple[str, str]] = {}
    for acronym, name, code in zip(table["acronym"], table["name"], table["code"], strict=True):
        conditions.setdefault(code.strip(), (acronym.strip(), " ".join(name.split())))
    if not conditions:
        raise DeriError(f"{path} has no rows; take it from the {NAME} release")
    return conditions


def _exact(content: PublishedTask, classes: list[str]) -> PublishedTask:
    """The published recordings and splits with labels that match exactly, from the acronyms beside them."""
    if content.acronyms is None:
        raise DeriError("the split files of csn have no column diagnose: add --published-labels to take their labels")
    labels = {name: tuple(c for c in classes if c in found) for name, found in content.acronyms.items()}
    return content._replace(labels=labels)


CSN = DatasetKind(
    open_csn,
    Source(
        "CSN (ecg-arrhythmia 1.0.0)", "https://physionet.org/files/ecg-arrhythmia/1.0.0/", "CC BY 4.0", "about 5 GB"
    ),
    SPLIT_FILES,
    ("published_labels",),
)
