"""What is scored: the tasks of stores, with features, labels and patients, divided by splits or by folds.

Splits and folds are both a list of parts, each with records to train on, to choose on and to score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deri.errors import DeriError
from deri.evaluation.contributions import patient_numbers
from deri.evaluation.result import count_patients
from deri.store import Store

if TYPE_CHECKING:
    from deri.evaluation.features import Features


@dataclass(frozen=True)
class Split:
    """Features (n, d), labels (n, classes) and patients (n,) of some records of a task."""

    features: np.ndarray
    labels: np.ndarray
    subjects: np.ndarray

    def take(self, rows: np.ndarray | slice) -> Split:
        """The records at ``rows``."""
        return Split(self.features[rows], self.labels[rows], self.subjects[rows])


@dataclass(frozen=True)
class TaskData:
    """A task with its features, ready for any number of probes; for folds all records are test records."""

    classes: list[str]
    train: Split
    val: Split
    test: Split


@dataclass(frozen=True)
class Part:
    """What one probe is trained, chosen and tested on; ``positions`` are those of its test records."""

    train: Split
    val: Split
    test: Split
    positions: np.ndarray


def load_split(features: Features, task: str, split: str) -> Split:
    """Features, labels and patients of a split of a task; it may be empty."""
    store = features.store
    rows = store.task_rows(task, split)
    subjects = store.index["subject_id"].to_numpy().astype(str)
    return Split(features.rows(rows), store.labels(task, rows)[1], subjects[rows])


def load_task(features: Features, task: str, *, whole: bool = False) -> TaskData:
    """A task for the splits of its store, or ``whole`` for folds; an empty split is an error."""
    store = features.store
    if whole:
        test = load_split(features, task, "all")
        nothing = test.take(slice(0))
        return TaskData(store.tasks[task], nothing, nothing, test)
    rows = {split: store.task_rows(task, split) for split in ("train", "val", "test")}
    for split, those in rows.items():
        if not len(those):
            why = {"train": "to train on", "val": "to choose strength, epoch and thresholds on", "test": "to score"}
            raise DeriError(
                f"task {task}: {store.path} has no {split} records {why[split]}; see deri info {store.path}, "
                "and prepare it with a split"
            )
    features.rows(np.concatenate(list(rows.values())))  # all of them in one go
    return TaskData(store.tasks[task], *(load_split(features, task, split) for split in rows))


def task_parts(data: TaskData, folds: int, seed: int) -> list[Part]:
    """The one part of a task with splits (``folds`` 0), or the parts of its folds, over the records of ``data.test``.

    Of a fold, the next one serves as validation and the others as training records.
    """
    if not folds:
        return [Part(data.train, data.val, data.test, np.arange(len(data.test.labels)))]
    fold = patient_folds(data.test.subjects, folds, seed)
    found = []
    for k in range(folds):
        test, val = fold == k, fold == (k + 1) % folds
        train, chosen_on, scored = (data.test.take(inside) for inside in (~test & ~val, val, test))
        found.append(Part(train, chosen_on, scored, np.flatnonzero(test)))
    return found


def patient_folds(subjects: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Fold 0 … folds − 1 of each record, (n,): patients are shuffled and dealt out in turn, never divided."""
    patient, n_patients = patient_numbers(subjects)
    if n_patients < folds:
        raise DeriError(f"--folds {folds}: the task has only {n_patients} patients; use fewer folds")
    of_patient = np.empty(n_patients, np.int64)
    of_patient[np.random.default_rng(seed).permutation(n_patients)] = np.arange(n_patients) % folds
    return of_patient[patient]


@dataclass(frozen=True)
class Task:
    """A task of a store; ``label`` is its name, with the store's where several stores have it."""

    store: Store
    name: str
    label: str

    @property
    def classes(self) -> list[str]:
        """Names of its classes."""
        return self.store.tasks[self.name]


def choose_tasks(stores: list[Store], wanted: Sequence[str] = ()) -> list[Task]:
    """The tasks of the stores, or those of them that are ``wanted`` (by name or by STORE/TASK).

    Raises:
        DeriError: no store has a wanted task, or there are two stores of the same name with the same task.
    """
    names = [name for store in stores for name in store.tasks]
    tasks = [
        Task(store, name, name if names.count(name) == 1 else f"{store.name}/{name}")
        for store in stores
        for name in store.tasks
    ]
    labels = [task.label for task in tasks]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise DeriError(f"--data: two stores of the same folder name have the task {twice[0]}; rename one of them")
    for one in wanted:
        if one not in labels and one not in names:
            raise DeriError(f"--tasks {one}: no such task in the stores given; there are {', '.join(labels) or 'none'}")
    return [task for task in tasks if not wanted or task.label in wanted or task.name in wanted]


def lacking_records(task: Task, splits: tuple[str, ...], *, folds: int = 0) -> str | None:
    """Why a task cannot be scored: which of ``splits`` are empty, or that patients are too few for ``folds``."""
    if folds:
        rows = task.store.task_rows(task.name)
        patients = count_patients(task.store.index["subject_id"].to_numpy()[rows])
        enough = patients >= (folds if "train" in splits else 1)
        return None if enough else f"{patients} patients in {task.store.path}, too few for {folds} folds"
    empty = [split for split in splits if not len(task.store.task_rows(task.name, split))]
    return f"no {' and no '.join(empty)} records in {task.store.path}" if empty else None
