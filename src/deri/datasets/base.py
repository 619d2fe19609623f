"""What a data set is to the rest of the library: a table of recordings, their labels, and the rows refused."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from deri.errors import DeriError
from deri.reports import MIN_WORDS

DATASETS = ("mimic-iv-ecg", "ptb-xl", "folder")


@dataclass
class Dataset:
    """A data set as its tables describe it; no signal has been read.

    ``examples``: one row per recording, in an order that depends on the tables alone; columns ``file`` (posix,
    relative to ``root``), ``record_id`` (unique), ``subject_id``, ``study_id``, ``source`` (all str), ``report`` (raw
    text or None), ``split`` ("train", "val", "test" or None), and one column per task with a tuple of class names,
    or None where the recording is no part of that task. ``tasks``: class names of each task, in order. ``rejects``:
    the rows refused, with ``reason`` (a code) and ``detail`` (a sentence). ``val_fraction``, ``test_fraction``: the
    shares held out among the recordings whose ``split`` is None.
    """

    name: str
    root: Path
    examples: pd.DataFrame
    tasks: dict[str, list[str]]
    rejects: pd.DataFrame
    val_fraction: float
    test_fraction: float


def open_dataset(
    name: str,
    root: str | Path,
    *,
    labels: str | Path | None = None,
    limit: int | None = None,
    min_words: int = MIN_WORDS,
) -> Dataset:
    """Open a data set by name: ``mimic-iv-ecg``, ``ptb-xl`` or ``folder``.

    ``labels``: the CSV of a folder. ``limit``: the first N recordings in the order of the data set.
    ``min_words``: shortest report (words after cleaning) of a MIMIC-IV-ECG study; the other sets keep every recording.
    Raises DeriError for an unknown name, a missing folder or table, and a table of another form.
    """
    # Here and not above: those modules take Dataset from this one.
    from deri.datasets.folder import open_folder
    from deri.datasets.mimic import open_mimic
    from deri.datasets.ptbxl import open_ptbxl

    if name not in DATASETS:
        close = difflib.get_close_matches(name.lower(), DATASETS, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]}? " if close else ""
        raise DeriError(f"unknown data set {name!r}: {hint}There are {', '.join(DATASETS)}")
    root = Path(root)
    if not root.is_dir():
        found = "is a file, not a folder" if root.exists() else "does not exist"
        raise DeriError(f"{root} {found}: give the root folder of the {name} data set")
    if name == "folder":
        return open_folder(root, labels=Path(labels) if labels is not None else None, limit=limit)
    if labels is not None:
        raise DeriError(f"--labels {labels}: {name} has its own tables; a label CSV goes with the data set 'folder'")
    if name == "ptb-xl":
        return open_ptbxl(root, limit=limit)
    return open_mimic(root, limit=limit, min_words=min_words)
