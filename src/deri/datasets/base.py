"""What a data set is to the rest of the library: a table of recordings, their labels, and the rows refused."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from deri.errors import DeriError
from deri.registry import Registry

if TYPE_CHECKING:
    import pandas as pd


def _no_rejects() -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(columns=["file", "record_id", "subject_id", "study_id", "source", "reason", "detail"])


@dataclass
class Dataset:
    """A data set as its tables describe it; no signal has been read.

    ``examples``: one row per recording, in an order that depends on the tables alone; columns ``file`` (posix,
    relative to ``root``), ``record_id`` (unique), ``subject_id``, ``study_id``, ``source`` (all str), ``report`` (raw
    text or None), ``split`` ("train", "val", "test" or None), and one column per task with a tuple of class names,
    or None where the recording is no part of that task. ``tasks``: class names of each task, in order. ``rejects``:
    the rows refused, with ``reason`` (a code) and ``detail`` (a sentence). ``val_fraction``, ``test_fraction``: the
    shares held out among the recordings whose ``split`` is None. ``notes``: sentences that a user should read; the
    store keeps them. ``report_from``: ``"table"``, or ``"file"`` where the interpretation in the files is the report.
    ``reading``: what the files may not say, as options of :func:`deri.read_ecg` (``fs``, ``units``, ``gain``,
    ``leads``); what a file states itself holds. ``paths``: the files themselves, where ``file`` is a pseudonym of each
    (:mod:`deri.datasets.anonymous`); the store then says nothing that could name people.

    Examples may have columns of ``deri.ecg.recording.ABOUT`` (``age``, ``sex``, ``date``, ``device``), None where
    nothing is known: they come before what the file says.
    """

    name: str
    root: Path
    examples: pd.DataFrame
    tasks: dict[str, list[str]]
    rejects: pd.DataFrame = field(default_factory=_no_rejects)
    val_fraction: float = 0.1
    test_fraction: float = 0.1
    notes: list[str] = field(default_factory=list)
    report_from: str = "table"
    reading: dict[str, Any] = field(default_factory=dict)
    paths: list[str] | None = None


@dataclass(frozen=True)
class Source:
    """Where a data set is and on which terms. ``prefix``: the part of the project that is fetched; it is cut off."""

    title: str
    url: str  # ends in "/"; holds SHA256SUMS.txt
    licence: str
    size: str
    prefix: str = ""

    def terms(self) -> str:
        """What a user should know before the download starts."""
        return (
            f"{self.title}, {self.size}, from {self.url}{self.prefix}\n"
            f"licence: {self.licence}; open access, no account or credentials are needed"
        )


class SplitFiles(NamedTuple):
    """The published files of a task, ``STEM_train.csv``, ``_val`` and ``_test``."""

    task: str
    stem: str
    key: str  # the column that names the recording
    record: Callable[[str], str]  # a cell of it → record id


@dataclass(frozen=True)
class OpenOptions:
    """What :func:`open_dataset` was asked for."""

    limit: int | None = None
    labels: Path | None = None
    splits: Path | None = None
    published_labels: bool = False
    min_words: int | None = None
    label_columns: Sequence[str] = ()
    encoding: str | None = None
    reading: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DatasetKind:
    """A data set that can be opened by name: a row of ``DATASETS``.

    Attributes:
        open: reads the tables below a root folder.
        source: where it can be downloaded; None: nowhere.
        split_files: published splits that ``--splits`` reads; none: the option is refused.
        takes: which of ``labels``, ``label_columns``, ``encoding``, ``reading`` and ``published_labels`` it knows.
    """

    open: Callable[[Path, OpenOptions], Dataset]
    source: Source | None = None
    split_files: tuple[SplitFiles, ...] = ()
    takes: tuple[str, ...] = ()


BUILT_IN = {
    "mimic-iv-ecg": "deri.datasets.mimic:MIMIC_IV_ECG",
    "ptb-xl": "deri.datasets.ptbxl:PTB_XL",
    "cpsc2018": "deri.datasets.cpsc2018:CPSC2018",
    "csn": "deri.datasets.csn:CSN",
    "folder": "deri.datasets.folder:FOLDER",
}
DATASETS: Registry[DatasetKind] = Registry("data set", "deri.datasets", BUILT_IN)
"""All data sets. Another package adds one by ``DATASETS.register(NAME)(DatasetKind(…))`` or an entry point."""


def open_dataset(
    name: str,
    root: str | Path,
    *,
    labels: str | Path | None = None,
    limit: int | None = None,
    min_words: int | None = None,
    splits: str | Path | None = None,
    published_labels: bool = False,
    label_columns: Sequence[str] = (),
    encoding: str | None = None,
    report_from: str = "table",
    reading: Mapping[str, Any] | None = None,
) -> Dataset:
    """Open a data set of the table ``DATASETS`` by name.

    ``labels``: the CSV of a folder. ``label_columns``: the columns of 0 and 1 in it that are classes, or ``["all"]``.
    ``encoding``: of its text, where that is not found. ``reading``: options of :func:`deri.read_ecg` for what the files
    of a folder do not say, see :class:`Dataset`. ``limit``: the first N recordings in the order of the data set.
    ``min_words``: shortest report (words after cleaning) of a MIMIC-IV-ECG study, ``deri.reports.MIN_WORDS`` where not
    given; the other sets keep every recording.
    ``splits``: folder with the split files behind published numbers (ptb-xl, cpsc2018, csn): splits and labels of the
    tasks are taken from them. ``published_labels``: csn's labels by the substring rule of those files.
    ``report_from``: see :class:`Dataset`.
    Raises DeriError for an unknown name, a missing folder or table, a table of another form, and an option that the
    data set does not have.
    """
    kind = DATASETS.get(name)
    if kind is None:
        close = difflib.get_close_matches(name.lower(), DATASETS.names(), n=1, cutoff=0.4)
        hint = f"did you mean {close[0]}? " if close else ""
        raise DeriError(f"unknown data set {name!r}: {hint}There are {', '.join(DATASETS)}")
    root = Path(root)
    if not root.is_dir():
        found = "is a file, not a folder" if root.exists() else "does not exist"
        raise DeriError(f"{root} {found}: give the root folder of the {name} data set")
    if splits is not None and not kind.split_files:
        own = "; a folder's CSV has a column split" if "labels" in kind.takes else ""
        raise DeriError(f"--splits {splits}: there are no published split files of {name}{own}")
    if published_labels and "published_labels" not in kind.takes:
        raise DeriError(
            f"--published-labels: only the published labels of csn differ from the data set's, not {name}'s"
        )
    if labels is not None and "labels" not in kind.takes:
        raise DeriError(f"--labels {labels}: {name} has its own tables; a label CSV goes with the data set 'folder'")
    options_of_a_folder = {"label_columns": label_columns, "encoding": encoding, "reading": reading}
    for option, value in options_of_a_folder.items():
        if value and option not in kind.takes:
            flag = next(iter(reading)) if reading and option == "reading" else option.replace("_", "-")
            raise DeriError(
                f"--{flag}: {name} has its own tables and files; the option goes with the data set 'folder'"
            )
    options = OpenOptions(
        limit=limit,
        labels=None if labels is None else Path(labels),
        splits=None if splits is None else Path(splits),
        published_labels=published_labels,
        min_words=min_words,
        label_columns=tuple(label_columns),
        encoding=encoding,
        reading=dict(reading or {}),
    )
    dataset = kind.open(root, options)
    dataset.report_from = report_from
    return dataset
