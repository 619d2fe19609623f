"""CPSC2018: the training set of the China Physiological Signal Challenge 2018, in either of its two forms.

- as published by the challenge: ``A0001.mat`` (a struct ``ECG`` of sex, age, data) and ``REFERENCE.csv``;
- the copy on PhysioNet (CinC Challenges 2020 and 2021): ``A0001.mat`` + ``A0001.hea`` with SNOMED CT codes in ``#Dx``.

Which form a recording has is seen by the header beside it; folders (``TrainingSet1``, ``g1``) may lie in between.
Liu et al., J Med Imaging Health Inform 2018;8:1368, https://doi.org/10.1166/jmihi.2018.2442.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from deri.datasets.base import Dataset, DatasetKind, OpenOptions, Source, SplitFiles
from deri.datasets.headers import Recording, find_recordings, read_diagnosis
from deri.datasets.published import read_published, stem_of, use_published
from deri.datasets.tables import Verdicts, assemble, read_table
from deri.errors import DeriError
from deri.reports import load_prompts

NAME = "cpsc2018"
TASK = "cpsc2018"
REFERENCE = "REFERENCE.csv"
NO_REFERENCE = "no_reference"

REFERENCE_CLASSES = ("NORM", "AFIB", "1AVB", "CLBBB", "CRBBB", "PAC", "VPC", "STD", "STE")
"""The classes 1 to 9 of ``REFERENCE.csv`` by the names of the published split files."""

SNOMED = {
    **{"426783006": "NORM", "164889003": "AFIB", "270492004": "1AVB", "164909002": "CLBBB", "733534002": "CLBBB"},
    **{"59118001": "CRBBB", "713427006": "CRBBB", "284470004": "PAC", "63593006": "PAC", "164884008": "VPC"},
    **{"17338001": "VPC", "427172004": "VPC", "429622005": "STD", "164931005": "STE"},
}
"""Codes of the PhysioNet copy, with those that the CinC Challenges score as the same."""

SPLIT_FILES = (SplitFiles(TASK, "icbeb", "filename", stem_of),)
_COLUMNS = ("Recording", "First_label", "Second_label", "Third_label")
_STEM = re.compile(r"A\d{4}")


def open_cpsc2018(root: Path, options: OpenOptions) -> Dataset:
    """The recordings in the order of their names; task ``cpsc2018``.

    A header's codes beyond the nine classes are passed over; a recording without any of the nine is no part of the
    task. ``splits``: see :func:`deri.datasets.published.use_published`; a recording that the files list needs no
    reference of its own.

    Rejects: ``no_reference`` (neither a header nor a row of ``REFERENCE.csv``), ``bad_label`` (a class that is not 1 to
    9), ``conflicting_labels`` (header and ``REFERENCE.csv`` disagree, or two rows do), ``duplicate_file``,
    ``bad_header``, ``unreadable_file``. A recording that ``REFERENCE.csv`` lists and that is not there is found when it
    is read.
    """
    splits = options.splits
    found = find_recordings(root, ".", _STEM)
    references = sorted(path for path in root.rglob(REFERENCE) if path.is_file())
    if not found:
        raise DeriError(
            f"{root} holds no recordings A0001.mat …: give the folder of {NAME} ({REFERENCE} or .hea files beside them)"
        )
    listed = _read_references(references)
    present = {recording.stem.rsplit("/", 1)[-1] for recording in found}
    home = references[0].parent.relative_to(root).as_posix() if references else "."
    absent = sorted(set(listed) - present)
    found += [Recording(name if home == "." else f"{home}/{name}", False, True) for name in absent]
    found.sort(key=lambda recording: (recording.stem.rsplit("/", 1)[-1], recording.stem))

    record = pd.Series([recording.stem.rsplit("/", 1)[-1] for recording in found], dtype=object)
    verdicts = Verdicts(len(found))
    verdicts.refuse(record.duplicated(), "duplicate_file", "a recording of this name is listed before, and kept")
    published = read_published(splits, NAME, SPLIT_FILES) if splits is not None else {}
    elsewhere = published[TASK].split if published else {}
    values: list[tuple[str, ...] | None] = []
    for i, recording in enumerate(found):
        labels, reason, detail = _labels(root, recording, listed.get(record[i]), bool(references))
        values.append(labels)
        if reason and not (reason == NO_REFERENCE and record[i] in elsewhere):
            verdicts.refuse(record.index == i, reason, detail)

    classes = list(load_prompts(TASK))
    in_order = [tuple(c for c in classes if c in (labels or ())) or None for labels in values]
    notes: list[str] = []
    split: list[str | None] = [None] * len(found)
    if splits is not None:
        kept = [i for i in range(len(found)) if verdicts.reason[i] == ""]
        own = {record[i]: in_order[i] for i in kept if values[i] is not None}
        taken = use_published(published, [record[i] for i in kept], {TASK: own}, splits)
        in_order = [taken.labels[TASK].get(name) for name in record]
        split = [taken.split.get(name) for name in record]
        notes = taken.notes
    rows = pd.DataFrame(
        {
            # A struct is named by its file: without a header beside it, the bare name would mean a WFDB record.
            "file": [r.stem if r.header else f"{r.stem}.mat" for r in found],
            "record_id": record,
            "study_id": record,
            "subject_id": record,  # one recording per patient, as far as the challenge says
            "source": NAME,
            "report": None,
            "split": split,
            TASK: pd.Series(in_order, dtype=object),
            "reason": verdicts.reason,
            "detail": verdicts.detail,
        }
    )
    examples, rejects = assemble(rows, None, [TASK], options.limit)
    return Dataset(NAME, root, examples, {TASK: classes}, rejects, val_fraction=0.08, test_fraction=0.2, notes=notes)


def _labels(
    root: Path, recording: Recording, row: set[str] | None, any_reference: bool
) -> tuple[tuple[str, ...] | None, str, str]:
    """The labels of a recording, or (None, reason, detail). ``row``: its cells in the reference files."""
    coded: set[str] | None = None
    if recording.header:
        note = read_diagnosis(root / f"{recording.stem}.hea")
        if note.reason:
            return None, note.reason, note.detail
        coded = {SNOMED[code] for code in note.codes if code in SNOMED}
    if row is None:
        if coded is None:
            where = f"{REFERENCE} does not list the recording" if any_reference else f"there is no {REFERENCE}"
            return None, NO_REFERENCE, f"the recording has no header, and {where}"
        return tuple(coded), "", ""
    if "" in row:
        return None, "conflicting_labels", f"{REFERENCE} lists the recording with different labels"
    foreign = sorted(row - {str(number) for number in range(1, len(REFERENCE_CLASSES) + 1)})
    if foreign:
        return None, "bad_label", f"{REFERENCE} gives class {', '.join(foreign)}; there are 1 to 9"
    named = {REFERENCE_CLASSES[int(number) - 1] for number in row}
    if coded is not None and coded != named:
        shown = [", ".join(sorted(labels)) or "none" for labels in (coded, named)]
        return None, "conflicting_labels", f"the header says {shown[0]}, {REFERENCE} says {shown[1]}"
    return tuple(named), "", ""


def _read_references(paths: list[Path]) -> dict[str, set[str]]:
    """Recording → its class numbers as text; ``{""}`` where two rows contradict each other."""
    rows: dict[str, set[str]] = {}
    for path in paths:
        table = read_table(path, "", _COLUMNS)
        for name, *cells in table.fillna("").itertuples(index=False):
            record = str(name).strip()
            if not _STEM.fullmatch(record):
                raise DeriError(f"{path}: {record!r} is not the name of a recording, such as A0001")
            labels = {str(cell).strip().removesuffix(".0") for cell in cells} - {""}
            if rows.setdefault(record, labels) != labels:
                rows[record] = {""}
    return rows


CPSC2018 = DatasetKind(
    open_cpsc2018,
    Source(
        "CPSC2018, the copy in the CinC Challenge 2021 1.0.3",
        "https://physionet.org/files/challenge-2021/1.0.3/",
        "CC BY 4.0",
        "about 1.3 GB",
        "training/cpsc_2018/",
    ),
    SPLIT_FILES,
)
