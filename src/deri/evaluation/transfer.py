"""Domain transfer: a probe trained on one data set's task, tested on another's, over the classes that both have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from deri.errors import DeriError
from deri.evaluation.features import Features
from deri.evaluation.options import EvalOptions
from deri.evaluation.probe import Method, score_probes
from deri.evaluation.task import Split, Task, TaskData, choose_tasks, lacking_records, load_split
from deri.files import read_yaml
from deri.store import Store


@dataclass(frozen=True)
class Transfer:
    """From a task to another: shared class → the classes of either task that it is made of (any of them counts)."""

    train: Task
    test: Task
    classes: dict[str, tuple[tuple[str, ...], tuple[str, ...]]]

    @property
    def label(self) -> str:
        """``TRAIN:TEST``."""
        return f"{self.train.label}:{self.test.label}"


def choose_transfers(wanted: Sequence[str], stores: list[Store], mapping: str | Path | None = None) -> list[Transfer]:
    """The transfers ``TRAIN:TEST`` between tasks of the stores; classes are shared by equal name, or as mapped.

    Raises:
        DeriError: no such task, no shared class, a split without records, or a mapping of another form.
    """
    if mapping is not None and not wanted:
        raise DeriError(f"--mapping {mapping}: says which classes are shared in a --transfer, and none is asked for")
    maps = read_mapping(mapping) if mapping is not None else {}
    found: list[Transfer] = []
    for text in wanted:
        first, separator, second = text.partition(":")
        if not separator or not first or not second:
            raise DeriError(f"--transfer {text}: give TRAIN:TEST, two tasks of the stores, e.g. ptbxl-super:cpsc2018")
        train, test = (_task(stores, name, text) for name in (first, second))
        if train == test:
            raise DeriError(f"--transfer {text}: a task to itself is no transfer; name two")
        reason = lacking_records(train, ("train", "val", "test")) or lacking_records(test, ("test",))
        if reason:
            raise DeriError(f"--transfer {text}: {reason}")
        if mapping is not None and text not in maps:
            raise DeriError(f"--mapping {mapping}: has no entry for {text}; it has {', '.join(maps) or 'none'}")
        classes = maps.get(text) or {name: ((name,), (name,)) for name in train.classes if name in test.classes}
        if not classes:
            raise DeriError(
                f"--transfer {text}: the tasks have no class of the same name; say with --mapping which are the same"
            )
        for name, sides in classes.items():
            for task, own in zip((train, test), sides, strict=True):
                unknown = [one for one in own if one not in task.classes]
                if unknown:
                    raise DeriError(
                        f"--mapping {mapping}: class {name} of {text} names {unknown[0]!r}, which {task.label} does "
                        f"not have; it has {', '.join(task.classes)}"
                    )
        found.append(Transfer(train, test, classes))
    return found


def _task(stores: list[Store], name: str, text: str) -> Task:
    tasks = [task for task in choose_tasks(stores) if name in (task.label, task.name)]
    exact = [task for task in tasks if task.label == name]
    if exact:
        return exact[0]
    if len(tasks) > 1:
        raise DeriError(f"--transfer {text}: several stores have {name}; give {' or '.join(t.label for t in tasks)}")
    if not tasks:
        have = ", ".join(task.label for task in choose_tasks(stores)) or "none"
        raise DeriError(f"--transfer {text}: no store given has the task {name}; there are {have}")
    return tasks[0]


def read_mapping(path: str | Path) -> dict[str, dict[str, tuple[tuple[str, ...], tuple[str, ...]]]]:
    """Read a mapping: ``TRAIN:TEST`` → shared class → its classes in either task.

    A shared class is ``CLASS: TEST_CLASS`` or ``CLASS: [TEST_CLASS, …]``, where CLASS is one of the training task, or
    ``NAME: {train: [...], test: [...]}``. A recording has a shared class if it has any of those named.

    Raises:
        DeriError: the file cannot be read or has another form.
    """
    content = read_yaml(Path(path), "--mapping")
    if not isinstance(content, dict) or not all(isinstance(one, dict) and one for one in content.values()):
        raise DeriError(f"--mapping {path}: must be a mapping TRAIN:TEST → class → classes of the test task")
    found: dict[str, dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {}
    for transfer, classes in content.items():
        found[str(transfer)] = {}
        for name, value in classes.items():
            train, test = (
                (value.get("train"), value.get("test"))
                if isinstance(value, dict) and set(value) == {"train", "test"}
                else (name, value)
            )
            sides = tuple(tuple(map(str, x)) if isinstance(x, list) else (str(x),) for x in (train, test))
            if any(isinstance(x, dict) or x is None or x == [] for x in (train, test)):
                raise DeriError(
                    f"--mapping {path}: class {name} of {transfer} must be a class, a list of classes, or "
                    "{train: …, test: …}"
                )
            found[str(transfer)][str(name)] = (sides[0], sides[1])
    return found


def merged_labels(labels: np.ndarray, classes: list[str], groups: list[tuple[str, ...]]) -> np.ndarray:
    """(n, classes) → (n, groups): whether a recording has any class of a group."""
    out = np.zeros((len(labels), len(groups)), labels.dtype)
    for g, group in enumerate(groups):
        out[:, g] = labels[:, [classes.index(name) for name in group]].max(axis=1)
    return out


def score_transfer(
    transfer: Transfer,
    train_features: Features,
    test_features: Features,
    fraction: float,
    options: EvalOptions,
    method: Method | None = None,
) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Probes trained and chosen on the training task's data, scored on the test task's test split.

    ``in_domain`` has the same probes' figures on the training task's own test split (null without one). A patient who
    is in both data sets is not looked for: ``deri info STORE --against STORE2`` does.

    Returns:
        The figures, the scores (seeds, n, classes), and the patient of each record (n,).
    """
    train, test = transfer.train, transfer.test
    home = [_shared(transfer, 0, load_split(train_features, train.name, split)) for split in ("train", "val", "test")]
    away = _shared(transfer, 1, load_split(test_features, test.name, "test"))
    classes = list(transfer.classes)
    content, scores = score_probes(TaskData(classes, home[0], home[1], away), fraction, options, method)
    in_domain = None
    if len(home[2].labels):
        own = score_probes(TaskData(classes, *home), fraction, options, method)[0]
        in_domain = {"n": len(home[2].labels), "macro_auroc": own["macro_auroc"]}
    about = {
        "test_store": test.store.provenance,
        "shared_classes": {name: {"train": list(a), "test": list(b)} for name, (a, b) in transfer.classes.items()},
        "in_domain": in_domain,
    }
    return about | content, scores, away.subjects


def _shared(transfer: Transfer, side: Literal[0, 1], split: Split) -> Split:
    """The records with the labels of the shared classes, as one side (0: train, 1: test) has them."""
    own = (transfer.train, transfer.test)[side].classes
    labels = merged_labels(split.labels, own, [sides[side] for sides in transfer.classes.values()])
    return Split(split.features, labels, split.subjects)
