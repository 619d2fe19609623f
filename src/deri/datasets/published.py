"""The split files behind published numbers: one CSV per task and split, a 0/1 column per class.

``ptbxl_<task>_<split>.csv`` (key ``ecg_id``), ``icbeb_<split>.csv`` (CPSC2018, key ``filename``) and
``chapman_<split>.csv`` (CSN, key ``ecg_path``), split = train, val, test. They are looked for in the folder given and
below it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from deri.datasets.base import SplitFiles
from deri.datasets.tables import listed, read_header, read_table
from deri.errors import DeriError
from deri.reports import load_prompts

SPLITS = ("train", "val", "test")
MOST_DIFFERENT = 0.05
"""Share of recordings whose labels may differ from the data set's own; more means that the files belong elsewhere."""

Labels = tuple[str, ...]


class PublishedTask(NamedTuple):
    """The content of the three files of a task, by record id."""

    split: dict[str, str]
    labels: dict[str, Labels]  # in the order of the task's classes
    acronyms: dict[str, Labels] | None  # CSN: the column ``diagnose``
    source: str  # the files, by folder and name: what a store says of its labels must not depend on the machine


@dataclass(frozen=True)
class Taken:
    """What a data set takes from the files. ``notes``: sentences for the user."""

    split: dict[str, str]
    labels: dict[str, dict[str, Labels]]
    notes: list[str]


def stem_of(cell: str) -> str:
    """The name of a recording's file without folders and suffix."""
    return PurePosixPath(cell).stem


def read_published(folder: Path, dataset: str, split_files: Sequence[SplitFiles]) -> dict[str, PublishedTask]:
    """Read the ``split_files`` of ``dataset`` in or below ``folder``: task → content, for the tasks that have files.

    Raises DeriError where there are none, several of one name (two publications), a class lacks, a value is neither 0
    nor 1, or a recording is in two splits.
    """
    if not folder.is_dir():
        raise DeriError(f"--splits {folder}: no such folder; give the one with the published split files")
    tasks = {}
    for files in split_files:
        paths = _locate(folder, files.stem)
        if paths:
            tasks[files.task] = _read_task(paths, files)
    if not tasks:
        wanted = ", ".join(f"{files.stem}_train.csv" for files in split_files)
        raise DeriError(f"--splits {folder}: holds no split files of {dataset} ({wanted} …)")
    return tasks


def _locate(folder: Path, stem: str) -> dict[str, Path]:
    found: dict[str, list[Path]] = {split: sorted(folder.rglob(f"{stem}_{split}.csv")) for split in SPLITS}
    homes = sorted({path.parent for paths in found.values() for path in paths})
    if len(homes) > 1:
        raise DeriError(
            f"--splits {folder}: several publications have {stem}_*.csv: {', '.join(map(str, homes))}; name one of them"
        )
    missing = [f"{stem}_{split}.csv" for split, paths in found.items() if not paths]
    if homes and missing:
        raise DeriError(f"--splits {homes[0]}: lacks {', '.join(missing)}")
    return {split: paths[0] for split, paths in found.items() if paths}


def _read_task(paths: dict[str, Path], files: SplitFiles) -> PublishedTask:
    classes = list(load_prompts(files.task))
    source = f"{paths['train'].parent.resolve().name}/{files.stem}_*.csv"
    content = PublishedTask({}, {}, {} if files.task == "csn" else None, source)
    for split, path in paths.items():
        header = read_header(path, "")
        missing = [name for name in (files.key, *classes) if name not in header]
        if missing:
            raise DeriError(f"{path}: lacks the column {listed(missing)}; found {listed(header)}")
        extra = ["diagnose"] if content.acronyms is not None and "diagnose" in header else []
        table = read_table(path, "", [files.key, *classes, *extra])
        flags = table[classes].fillna("").to_numpy(dtype=object)
        odd = sorted({str(flag) for flag in flags.ravel()} - {"0", "1", "0.0", "1.0"})
        if odd:
            raise DeriError(f"{path}: a class column holds {odd[0]!r}; expected 0 or 1")
        positive = flags.astype(float) == 1
        keys = table[files.key].fillna("").tolist()
        for i, (key, row) in enumerate(zip(keys, positive, strict=True)):
            record = files.record(key)
            if not record:
                raise DeriError(f"{path}: row {i + 1} has no {files.key}")
            if record in content.split:
                where = content.split[record]
                raise DeriError(f"{path}: {record} is listed twice (before in {where}); every recording has one split")
            content.split[record] = split
            content.labels[record] = tuple(c for c, on in zip(classes, row, strict=True) if on)
        if content.acronyms is not None and extra:
            cells = table["diagnose"].fillna("").tolist()
            for key, cell in zip(keys, cells, strict=True):
                content.acronyms[files.record(key)] = tuple(name.strip() for name in cell.split(","))
    if content.acronyms is not None and len(content.acronyms) != len(content.split):
        return content._replace(acronyms=None)
    return content


def use_published(
    published: Mapping[str, PublishedTask],
    records: Sequence[str],
    own: Mapping[str, Mapping[str, Labels | None]],
    folder: Path,
) -> Taken:
    """Take splits and labels of the files. A recording in none of a task's files is no part of that task.

    Args:
        published: task → content, of :func:`read_published`.
        records: ids of the data set's recordings.
        own: task → record id → the labels that the data set itself gives (None: not part of the task), where it gives
            any. They are compared: archives number their recordings differently, and the labels of other recordings
            must not pass in silence.
        folder: for messages.

    Raises DeriError where no recording is in the files, where more than 5 % of the labels differ, and where two tasks
    give a recording to different splits.
    """
    split: dict[str, str] = {}
    notes = []
    for task, content in published.items():
        shared = [record for record in records if record in content.split]
        if not shared:
            raise DeriError(
                f"--splits {folder}: none of the {len(records)} recordings is in the files of task {task}; "
                "they belong to another data set or naming"
            )
        known = [record for record in shared if record in own[task]]
        different = [record for record in known if set(own[task][record] or ()) != set(content.labels[record])]
        if len(different) > MOST_DIFFERENT * len(known):
            first = different[0]
            raise DeriError(
                f"--splits {folder}: the labels of task {task} do not fit the recordings: {len(different)} of "
                f"{len(known)} differ ({first}: {listed(content.labels[first])} in the files, "
                f"{listed(own[task][first] or ())} in the data set). The files number other recordings"
            )
        notes.append(f"{task}: splits and labels of {content.source}")
        if different:
            notes.append(
                f"{task}: {len(different)} of {len(known)} recordings have other labels in the split files than in "
                f"the data set ({listed(different, 5)}); the files' are used"
            )
        for record in shared:
            if split.setdefault(record, content.split[record]) != content.split[record]:
                raise DeriError(f"--splits {folder}: {record} is in different splits of different tasks")
    return Taken(split, {task: content.labels for task, content in published.items()}, notes)
