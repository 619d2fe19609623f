"""What a data set is to the rest of the library: a table of recordings, their labels, and the rows refused."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from deri.errors import DeriError
from deri.reports import MIN_WORDS

DATASETS = ("mimic-iv-ecg", "ptb-xl", "cpsc2018", "csn", "folder")


@dataclass
class Dataset:
    """A data set as its tables describe it; no signal has been read.

    ``examples``: one row per recording, in an order that depends on the tables alone; columns ``file`` (posix,
    relative to ``root``), ``record_id`` (unique), ``subject_id``, ``study_id``, ``source`` (all str), ``report`` (raw
    text or None), ``split`` ("train", "val", "test" or None), and one column per task with a tuple of class names,
    or None where the recording is no part of that task. ``tasks``: class names of each task, in order. ``rejects``:
    the rows refused, with ``reason`` (a code) and ``detail`` (a sentence). ``val_fraction``, ``test_fraction``: the
    shares held out among the recordings whose ``split`` is None. ``notes``: sentences that a user should read; the
    store keeps them.
    """

    name: str
    root: Path
    examples: pd.DataFrame
    tasks: dict[str, list[str]]
    rejects: pd.DataFrame
    val_fraction: float
    test_fraction: float
    notes: list[str] = field(default_factory=list)


def open_dataset(
    name: str,
    root: str | Path,
    *,
    labels: str | Path | None = None,
    limit: int | None = None,
    min_words: int = MIN_WORDS,
    splits: str | Path | None = None,
    published_labels: bool = False,
) -> Dataset:
    """Open a data set by name: ``mimic-iv-ecg``, ``ptb-xl``, ``cpsc2018``, ``csn`` or ``folder``.

    ``labels``: the CSV of a folder. ``limit``: the first N recordings in the order of the data set.
    ``min_words``: shortest report (words after cleaning) of a MIMIC-IV-ECG study; the other sets keep every recording.
    ``splits``: folder with the split files behind published numbers (ptb-xl, cpsc2018, csn): splits and labels of the
    tasks are taken from them. ``published_labels``: csn's labels by the substring rule of those files.
    Raises DeriError for an unknown name, a missing folder or table, a table of another form, and an option that the
    data set does not have.
    """
    # Here and not above: those modules take Dataset from this one.
    from deri.datasets.cpsc2018 import open_cpsc2018
    from deri.datasets.csn import open_csn
    from deri.datasets.folder import open_folder
    from deri.datasets.mimic import open_mimic
    from deri.datasets.ptbxl import open_ptbxl
    from deri.datasets.published import DATASETS_WITH_SPLITS

    if name not in DATASETS:
        close = difflib.get_close_matches(name.lower(), DATASETS, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]}? " if close else ""
        raise DeriError(f"unknown data set {name!r}: {hint}There are {', '.join(DATASETS)}")
    root = Path(root)
    if not root.is_dir():
        found = "is a file, not a folder" if root.exists() else "does not exist"
        raise DeriError(f"{root} {found}: give the root folder of the {name} data set")
    if splits is not None and name not in DATASETS_WITH_SPLITS:
        own = "; a folder's CSV has a column split" if name == "folder" else ""
        raise DeriError(f"--splits {splits}: there are no published split files of {name}{own}")
    if published_labels and name != "csn":
        raise DeriError(
            f"--published-labels: only the published labels of csn differ from the data set's, not {name}'s"
        )
    files = Path(splits) if splits is not None else None
    if name == "folder":
        return open_folder(root, labels=Path(labels) if labels is not None else None, limit=limit)
    if labels is not None:
        raise DeriError(f"--labels {labels}: {name} has its own tables; a label CSV goes with the data set 'folder'")
    if name == "ptb-xl":
        return open_ptbxl(root, limit=limit, splits=files)
    if name == "cpsc2018":
        return open_cpsc2018(root, limit=limit, splits=files)
    if name == "csn":
        return open_csn(root, limit=limit, splits=files, published_labels=published_labels)
    return open_mimic(root, limit=limit, min_words=min_words)
