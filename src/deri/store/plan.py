"""What a preparation was asked to do, so that a second run knows whether it is the same one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deri._version import __version__
from deri.ecg.recording import ABOUT
from deri.errors import DeriError
from deri.files import read_sealed, write_json
from deri.locks import file_lock
from deri.remote import Address
from deri.store.layout import (
    FS,
    INDEX_COLUMNS,
    META_FILE,
    PLAN_FILE,
    SAMPLES,
    UV_PER_UNIT,
    VERSION,
    WORK_DIR,
    chunk_size,
)

if TYPE_CHECKING:
    import pandas as pd

    from deri.datasets import Dataset

TEXT_COLUMNS = ("file", "record_id", "subject_id", "study_id", "source")

# How a difference between two plans is called in a message.
_WORDS = {
    "version": "store version",
    "deri_version": "deri version",
    "dataset": "data set",
    "content": "recordings, labels, reports or --limit",
    "split": "--split",
    "min_leads": "--min-leads",
    "windows": "--windows",
    "duplicates": "--duplicates",
    "report_from": "--report-from",
    "reading": "--fs, --units, --gain or --leads",
}


def check_dataset(dataset: Dataset) -> None:
    """Refuse what would make a wrong index: missing columns, labels without a class, clashing names.

    Raises:
        DeriError: a label is no class of its task, or a task has the name of an index column.
        ValueError: a column is missing or not text; the data set's module is at fault.
    """
    examples = dataset.examples
    needed = [*TEXT_COLUMNS, "report", "split", *dataset.tasks]
    missing = [column for column in needed if column not in examples.columns]
    if missing:
        raise ValueError(f"data set {dataset.name}: the examples have no column {', '.join(missing)}")
    for column in TEXT_COLUMNS:
        if not all(isinstance(value, str) for piece in pieces(examples[column]) for value in piece):
            raise ValueError(f"data set {dataset.name}: column {column} of the examples is not all text")
    for task, classes in dataset.tasks.items():
        if task in INDEX_COLUMNS:
            raise DeriError(f"task {task!r} has the name of an index column: rename it")
        known = set(classes)
        for record, labels in zip(examples["record_id"], examples[task], strict=True):
            for label in labels if isinstance(labels, (tuple, list)) else ():
                if label not in known:
                    raise DeriError(
                        f"recording {record} of {dataset.name} has label {label!r}, which is no class of {task!r}: "
                        "correct the label or add the class"
                    )


def pieces(column: pd.Series) -> Iterator[list[Any]]:
    """Yield the values some thousand at a time: of a column of text a list makes an object per value."""
    for start in range(0, len(column), 4096):
        yield column.iloc[start : start + 4096].tolist()


def label_values(column: pd.Series) -> list[list[str] | None]:
    """Return the labels of each example as a list; None where the recording is not part of the task."""
    return [list(value) if isinstance(value, (tuple, list)) else None for value in column.tolist()]


def text_values(column: pd.Series) -> list[str | None]:
    """Return a text column with None for whatever pandas calls missing."""
    return [value if isinstance(value, str) else None for value in column.tolist()]


def plain_values(column: pd.Series) -> list[Any]:
    """Return numbers and texts with None for what is missing."""
    return [value if isinstance(value, str | int | float) and value == value else None for value in column.tolist()]


def make_plan(
    dataset: Dataset,
    *,
    split: str,
    seed: int,
    repair: str,
    min_leads: int = 1,
    windows: int | None = 1,
    duplicates: str = "keep",
) -> dict[str, Any]:
    """Return all that decides the content of a store. Where the data set lies is not part of it."""
    digest = hashlib.sha256()

    def add(*head: Any, column: pd.Series, values: Callable[[pd.Series], Sequence[Any]]) -> None:
        # The JSON of [*head, values], a piece at a time: for a million recordings it would be hundreds of megabytes.
        digest.update(json.dumps([*head, []]).encode()[:-2])
        for start in range(0, len(column), 4096):
            piece = json.dumps(values(column.iloc[start : start + 4096])).encode()[1:-1]
            digest.update(b", " * (start > 0) + piece)
        digest.update(b"]]\n")

    for frame, columns in (
        (dataset.examples, (*TEXT_COLUMNS, "report", "split")),
        (dataset.rejects, (*TEXT_COLUMNS, "reason", "detail")),
    ):
        for column in columns:
            add(column, column=frame[column], values=text_values)
    for task, classes in dataset.tasks.items():
        add(task, list(classes), column=dataset.examples[task], values=label_values)
    for column in ABOUT:
        if column in dataset.examples:
            add(column, column=dataset.examples[column], values=plain_values)
    n = len(dataset.examples)
    return {
        "format": "deri-store-plan",
        "version": VERSION,
        "deri_version": __version__,
        "dataset": dataset.name,
        "examples": n,
        "rejects": len(dataset.rejects),
        "content": digest.hexdigest(),
        "chunk_size": chunk_size(n),
        "fs": FS,
        "samples": SAMPLES,
        "uv_per_unit": UV_PER_UNIT,
        "split": split,
        "val_fraction": float(dataset.val_fraction),
        "test_fraction": float(dataset.test_fraction),
        "seed": seed,
        "repair": repair,
        "min_leads": min_leads,
        "windows": "all" if windows is None else windows,
        "duplicates": duplicates,
        **({"report_from": dataset.report_from} if dataset.report_from != "table" else {}),
        **({"reading": dataset.reading} if dataset.reading else {}),
    }


def claim(store: Path, plan: dict[str, Any]) -> None:
    """Make ``store`` the place of this plan, or check that it is.

    Raises:
        DeriError: the folder holds other files, or another preparation.
    """
    if store.exists() and not store.is_dir():
        raise DeriError(f"--out {store} is a file: name a folder")
    # Listed before the plan is looked for: another process of the same preparation may be writing right now.
    foreign = [entry.name for entry in store.iterdir() if entry.name != WORK_DIR] if store.exists() else []
    path = store / WORK_DIR / PLAN_FILE
    if foreign and not path.exists() and not (store / META_FILE).exists():
        raise DeriError(f"--out {store} is not empty and no store: choose another --out, or delete it")
    path.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(path.with_suffix(".lock"), wait=True):
        if path.exists():
            refuse_other_plan(store, read_json(path), plan)
        else:
            write_json(path, plan)


def read_json(path: Path | Address) -> dict[str, Any]:
    """The object in a JSON file of a store, see :func:`deri.files.read_sealed`."""
    return read_sealed(path, "restore it, or delete the folder and prepare again")


def refuse_other_plan(store: Path, found: dict[str, Any], plan: dict[str, Any]) -> None:
    """Raise DeriError, naming what differs, unless ``found`` is ``plan``."""
    different = [key for key in {**plan, **found} if found.get(key) != plan.get(key)]
    if not different:
        return
    words = []
    for key in different:
        if key in ("examples", "rejects", "chunk_size"):  # follow from the content
            continue
        word = _WORDS.get(key, key)
        words.append(word if key == "content" else f"{word} {found.get(key)}, now {plan.get(key)}")
    raise DeriError(f"--out {store} holds another preparation ({'; '.join(words)}): choose another --out, or delete it")
