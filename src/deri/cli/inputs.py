"""INPUT of commands: files, folders and stores as one table of recordings with their embeddings.

A file that cannot be used is named, counted and passed over, unless ``--strict`` says to stop there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from deri.cli.console import open_store, say, say_doubts
from deri.errors import DeriError, ReadError, install
from deri.remote import RemoteError, place
from deri.workers import DIED, HERE, Engine, Task

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from typing_extensions import Self

    from deri.datasets.anonymous import Pseudonyms
    from deri.ecg import ECG
    from deri.models.base import EcgEncoder, WindowEmbeddings
    from deri.progress import Progress
    from deri.store import Store

TABLES = (".csv", ".parquet", ".xlsx")
REPORT = "report"
FILES_OF_A_TASK = 256  # whole batches of 64, as they would be without workers
ROWS_OF_A_TASK = 2048

Model = Callable[[], "EcgEncoder"]
"""Gives the model where it is needed, which may be another process."""
T_co = TypeVar("T_co", covariant=True)


class Loaded(Generic[T_co]):
    """A model that is loaded by its name when it is first asked for, in this process or once in a worker.

    Args:
        load: takes the name, and ``device``.
        name: of the model.
        device: where it computes.
        precision: what an encoder embeds in; None leaves it.
    """

    def __init__(self, load: Callable[..., T_co], name: str, device: str | None, precision: str | None = None) -> None:
        self._given = load, name, device, precision

    @cached_property
    def _model(self) -> T_co:
        return self._on(self._given[2])

    def _on(self, device: str | None) -> T_co:
        load, name, _, precision = self._given
        model: Any = load(name, device=device)
        loaded: T_co = model if precision is None else model.compute_in(precision)
        return loaded

    def __call__(self) -> T_co:
        """The model."""
        return self._model

    def beside(self, engine: Engine) -> T_co:
        """The model in the process that gives out the tasks, where the GPU may be missing that workers have."""
        device = self._given[2]
        own = engine.device(device)
        return self() if own == device else self._on(own)

    def __reduce__(self) -> Any:
        return _in_worker, self._given


@lru_cache(maxsize=1)
def _in_worker(*given: Any) -> Loaded[Any]:
    """The same for all tasks that a worker receives."""
    return Loaded(*given)


@dataclass(frozen=True)
class Reading:
    """How files are read: what they do not say themselves, and what follows a bad one; ``skip_damaged`` of stores."""

    options: dict[str, Any]
    strict: bool = False
    skip_damaged: bool = False
    hidden: Pseudonyms | None = None

    @classmethod
    def of(
        cls,
        fs: float | None,
        units: str | None,
        gain: float | None,
        leads: str | None,
        anonymous: Path | None = None,
        **follows: bool,
    ) -> Reading:
        """From the options ``--fs --units --gain --leads --anonymous``, and ``--strict --skip-damaged``."""
        from deri.datasets.anonymous import Pseudonyms
        from deri.ecg.read import given_options

        hidden = None if anonymous is None else Pseudonyms(anonymous)
        return cls(given_options(fs, units, gain, leads), hidden=hidden, **follows)

    def told(self, file: str) -> str:
        """A file as messages name it."""
        return file if self.hidden is None else str(self.hidden(file))


def tell_fallback(reading: Reading) -> None:
    """Say what becomes of options that files do not need."""
    if given := [f"--{name}" for name in reading.options]:
        say(f"{', '.join(given)}: for files that do not say it; what a file states itself holds")


@dataclass
class Embedded:
    """Recordings of INPUT and the embeddings of their windows, not normalised.

    Attributes:
        about: of each recording ``file``, ``record_id``, ``leads``, and what is known of ``subject``, ``split``, tasks,
            ``report``, and patient and recording (``deri.ecg.recording.ABOUT``).
        parts: of the windows, by positions in ``about``; a store's recording counts as one whose start is NaN.
        failed: files that could not be used.
    """

    about: list[dict[str, Any]] = field(default_factory=list)
    parts: list[WindowEmbeddings] = field(default_factory=list)
    failed: int = 0

    def add(self, more: Embedded) -> None:
        """Take over the recordings of ``more`` behind one's own."""
        self.parts += [part._replace(record=len(self.about) + part.record) for part in more.parts]
        self.about += more.about
        self.failed += more.failed

    def pooled(self) -> np.ndarray:
        """Embedding of each recording, (n, d) float32, L2-normalised."""
        import numpy as np

        from deri.models.base import pool_windows

        return pool_windows(self.parts) if self.parts else np.empty((0, 0), np.float32)

    def table(self, hidden: Pseudonyms | None) -> pd.DataFrame:
        """A row per recording; only the columns of which something is known, without :func:`untold`."""
        import pandas as pd

        table = pd.DataFrame(self.about).drop(columns=untold(), errors="ignore").dropna(axis="columns", how="all")
        return table if hidden is None else hidden.hide(table)


def untold() -> list[str]:
    """What is known of recordings and stays out of tables: report, age, sex, date, device, interpretation."""
    from deri.ecg.recording import ABOUT

    return [REPORT, *ABOUT]


def open_inputs(
    inputs: list[str], reading: Reading, *, together: bool = False
) -> tuple[list[Store | list[dict[str, Any]]], Reading]:
    """What INPUT names, in its order: stores, and of files and folders what is known of each recording; the reading.

    A single recording must be usable: there is nothing to go on with. Of more than one, options hold for those that do
    not say it themselves. With ``together`` files and folders that follow one another are one source.
    """
    from deri.ecg import recordings_in

    if len(inputs) == 1 and not Path(inputs[0]).is_dir() and len(recordings_in(inputs[0])) == 1:
        reading = replace(reading, strict=True)
    elif reading.options:
        tell_fallback(reading)
        reading = replace(reading, options={**reading.options, "fallback": True})
    sources: list[Store | list[dict[str, Any]]] = []
    for name in inputs:
        path = Path(name)
        if is_store(name):
            sources.append(open_store(name, reading.skip_damaged))
            continue
        if path.is_dir():
            files = _folder(path, reading)
        else:
            files = [{"file": file, "record_id": path.stem + file[len(name) :]} for file in recordings_in(name)]
        last = sources[-1] if sources and together else None
        if isinstance(last, list):
            last += files
        else:
            sources.append(files)
    return sources, reading


def is_store(name: str) -> bool:
    """Whether a name is that of a store; where its address gives no answer, what reads it says why."""
    with suppress(RemoteError):
        return (place(name) / "store.json").is_file()
    return False


def _folder(path: Path, reading: Reading) -> list[dict[str, Any]]:
    """The recordings of a folder, with what its CSV says of them."""
    from deri.datasets import open_dataset

    dataset = open_dataset("folder", path)
    remarks = [*dataset.notes, *(f"{path}: {row['detail']}" for _, row in dataset.rejects.iterrows())]
    if reading.hidden is not None and remarks:
        remarks = [f"{path}: {len(remarks)} remarks on its table are not shown, they may name people"]
    for remark in remarks:
        say(remark)
    known = [name for name in untold() if name in dataset.examples]
    names = {"subject_id": "subject", **{name: name for name in (*known, "split", *dataset.tasks)}}
    table = dataset.examples.rename(columns=names)
    table["file"] = [str(path / file) for file in table["file"]]
    told = table[["file", "record_id", *names.values()]]
    if not (table["subject"] != table["record_id"]).any():  # the folder's CSV names no subjects
        told = told.drop(columns="subject")
    rows: list[dict[str, Any]] = told.to_dict("records")
    return rows


@dataclass(frozen=True)
class Files:
    """Recordings of files that are yet to be read.

    Attributes:
        rows: what is known of each, ``file`` among it.
        reading: how.
        measure: whether the intervals of a recording are to be among what is known of it.
        refused: why a file, by its position, is not to be read at all.
    """

    rows: list[dict[str, Any]]
    reading: Reading
    measure: bool = False
    refused: dict[int, str] = field(default_factory=dict)


class Recordings:
    """The recordings of files, read one after the other.

    A file that cannot be used is named and counted; where the reading is strict, it raises its ReadError.

    Attributes:
        read: what is known of each recording that was read, ``leads`` among it, in the order of reading.
        unusable: positions in ``read`` of those that :meth:`reject` was told of.
        failed: how many files could not be used.
    """

    def __init__(self, files: Files, progress: Progress) -> None:
        self.files, self.reading, self.progress = files, files.reading, progress
        self.read: list[dict[str, Any]] = []
        self.unusable: set[int] = set()
        self.failed = 0

    def __iter__(self) -> Iterator[ECG]:
        from deri.ecg import read_ecg
        from deri.ecg.intervals import intervals
        from deri.ecg.recording import ABOUT

        rows = self.files.rows
        for i, row in enumerate(rows):
            self.progress.update(i, len(rows))
            try:
                if i in self.files.refused:
                    raise ReadError(f"{row['file']}: {self.files.refused[i]}", DIED)
                ecg = read_ecg(row["file"], **self.reading.options)
            except ReadError as error:
                self._pass_over(row["file"], error)
                continue
            say_doubts(self.reading.told(row["file"]), ecg, self.progress)
            missing = ecg.missing_leads
            leads = [lead for lead in ecg.leads if lead not in missing]
            said = {name: ecg.metadata[name] for name in ABOUT if row.get(name) is None and ecg.metadata.get(name)}
            self.read.append({**row, **said, "leads": leads, **(intervals(ecg) if self.files.measure else {})})
            yield ecg
            del ecg  # before the next one is read
        self.progress.update(len(rows), len(rows))

    def reject(self, record: int, error: ReadError) -> None:
        """Pass over the recording at position ``record`` of ``read``."""
        self._pass_over(self.read[record]["file"], error)
        self.unusable.add(record)

    def _pass_over(self, file: str, error: ReadError) -> None:
        if self.reading.hidden is not None:
            file = self.reading.told(file)
            error = ReadError(f"{file}: {error.reason}", error.reason)
        if self.reading.strict:
            raise error
        named = str(error) if str(error).startswith(file) else f"{file}: {error}"
        self.progress.message(f"passed over: {named}")
        self.failed += 1


def tell_failed(failed: int, used: int) -> None:
    """Say how many recordings were passed over; DeriError where none could be used."""
    if failed:
        say(f"{failed} of {failed + used} recordings could not be used and were passed over")
    if not used:
        raise DeriError("no recording could be used: see the lines above")


def embed_inputs(
    model: Model,
    inputs: list[str],
    reading: Reading,
    windows: int | None,
    progress: Progress,
    *,
    measure: bool = False,
    engine: Engine = HERE,
) -> Embedded:
    """Embed what INPUT names, in its order; with ``measure`` the intervals of a recording are told of it.

    Raises:
        DeriError: nothing could be used, or with ``strict`` the first file that could not.
    """
    sources, reading = open_inputs(inputs, reading)
    tasks: list[Task[Embedded]] = []
    for source in sources:
        if isinstance(source, list):
            for part in engine.pieces(len(source), FILES_OF_A_TASK):
                tasks.append(EmbedFiles(Files(source[part], reading, measure), model, windows))
        else:
            rows = source.rows("all")
            pieces = engine.pieces(len(rows), ROWS_OF_A_TASK)
            tasks += [EmbedRows(model, source, rows[part], measure) for part in pieces]
    out = Embedded()
    for found in engine.run(tasks, sum(map(len, tasks)), progress):
        out.add(found)
    tell_failed(out.failed, len(out.about))
    return out


@dataclass(frozen=True)
class FilesTask:
    """A task on files of which single ones can be refused."""

    files: Files

    def __len__(self) -> int:
        return len(self.files.rows)

    def without(self, record: int, why: str) -> Self:
        """The same task, of which a file is refused."""
        return replace(self, files=replace(self.files, refused={**self.files.refused, record: why}))


@dataclass(frozen=True)
class EmbedFiles(FilesTask):
    """Embed the recordings of files that can be used."""

    model: Model
    windows: int | None

    def run(self, progress: Progress) -> Embedded:
        """Their embeddings."""
        import numpy as np

        model, recordings = self.model(), Recordings(self.files, progress)
        parts = list(model.window_embeddings(recordings, windows=self.windows, unusable=recordings.reject))
        read = recordings.read
        kept = [i for i in range(len(read)) if i not in recordings.unusable]
        position = np.full(len(read), -1)
        position[kept] = np.arange(len(kept))
        shifted = [part._replace(record=position[part.record]) for part in parts]
        return Embedded([read[i] for i in kept], shifted, recordings.failed)


@dataclass(frozen=True)
class RowsTask:
    """A task on recordings of a store, which cannot be refused: they were read before."""

    model: Callable[[], Any]
    store: Store
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def without(self, record: int, why: str) -> None:
        """There is no such task."""


@dataclass(frozen=True)
class EmbedRows(RowsTask):
    """Embed recordings of a store."""

    measure: bool = False

    def __len__(self) -> int:  # they are counted by their windows
        return len(self.store.windows_of(self.rows)[0])

    def run(self, progress: Progress) -> Embedded:
        """Their embeddings."""
        import numpy as np

        from deri.ecg.intervals import intervals
        from deri.evaluation.features import embed_store
        from deri.models.base import WindowEmbeddings

        model, store, rows = self.model(), self.store, self.rows
        progress.update(0, len(self))
        vectors = embed_store(model, store, rows, normalise=False, progress=progress)
        part = WindowEmbeddings(np.arange(len(rows)), np.full(len(rows), np.nan), vectors)
        about = store_about(store, rows)
        if self.measure:
            measured = [intervals(store.recording(row)) for row in rows.tolist()]
            about = [{**known, **more} for known, more in zip(about, measured, strict=True)]
        return Embedded(about, [part])


def store_about(store: Store, rows: np.ndarray) -> list[dict[str, Any]]:
    """What a store knows of the recordings of ``rows``, see :class:`Embedded`."""
    known = [name for name in untold() if name in store.index]
    wanted = ["record_id", "subject_id", "split", *known, *(task for task in store.tasks if task in store.index)]
    table = store.index.iloc[rows][wanted].rename(columns={"subject_id": "subject"})
    table[REPORT] = [store.reports[i] if i >= 0 else None for i in store.report_ids[rows]]
    out = []
    for row, leads in zip(table.to_dict("records"), store.lead_mask(rows), strict=True):
        there = [lead for lead, known in zip(store.meta["leads"], leads, strict=True) if known]
        out.append({"file": str(store.path), **row, "leads": there})
    return out


def check_table_name(out: Path) -> None:
    """DeriError, before the work, where ``out`` is no name of a table that can be written here."""
    if out.suffix not in TABLES:
        raise DeriError(f"--out {out}: name a file that ends in {', '.join(TABLES[:-1])} or {TABLES[-1]}")
    if out.suffix == ".xlsx" and find_spec("openpyxl") is None:
        raise DeriError(f"--out {out}: Excel files need openpyxl: {install('formats')}, or name a .csv")


def write_table(table: pd.DataFrame, out: Path) -> None:
    """Write a table by the suffix of ``out``, atomically; lists become texts with ``;`` where there are no lists."""
    from deri.files import atomic_path

    with atomic_path(out) as temporary:
        if out.suffix == ".parquet":
            table.to_parquet(temporary, index=False)
            return
        flat = table.map(lambda x: ";".join(map(str, x)) if isinstance(x, list | tuple) or hasattr(x, "tolist") else x)
        if out.suffix == ".csv":
            flat.to_csv(temporary, index=False)
        else:
            flat.to_excel(temporary, index=False, engine="openpyxl")
