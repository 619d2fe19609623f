"""INPUT of commands: files, folders and stores as one table of recordings with their embeddings.

A file that cannot be used is named, counted and passed over, unless ``--strict`` says to stop there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deri.cli.console import say, say_lead_note
from deri.errors import DeriError, ReadError

if TYPE_CHECKING:
    import pandas as pd

    from deri.ecg import ECG
    from deri.models import EcgTextModel
    from deri.models.base import WindowEmbeddings
    from deri.progress import Progress
    from deri.store import Store

TABLES = (".csv", ".parquet", ".xlsx")
REPORT = "report"


@dataclass(frozen=True)
class Reading:
    """How files are read: what they do not say themselves, and what follows a bad one."""

    options: dict[str, Any]
    strict: bool = False

    @classmethod
    def of(
        cls, fs: float | None, units: str | None, gain: float | None, leads: str | None, strict: bool = False
    ) -> Reading:
        """From the options ``--fs --units --gain --leads --strict``."""
        from deri.ecg.read import reading_options

        given: dict[str, Any] = {
            "fs": fs,
            "units": units,
            "gain": gain,
            "leads": None if leads is None else lead_names(leads),
        }
        options = {name: value for name, value in given.items() if value is not None}
        reading_options(**options)  # checked before the work
        return cls(options, strict)


def tell_fallback(reading: Reading) -> None:
    """Say what becomes of options that files do not need."""
    if given := [f"--{name}" for name in reading.options]:
        say(f"{', '.join(given)}: for files that do not say it; what a file states itself holds")


def lead_names(text: str) -> dict[str, str]:
    """``"MLII=II,ecg=I"`` → {"MLII": "II", "ecg": "I"}."""
    pairs = [part.split("=") for part in text.split(",")]
    if not all(len(pair) == 2 and all(name.strip() for name in pair) for pair in pairs):
        raise DeriError(f"--leads {text}: write NAME=LEAD, several with commas, e.g. MLII=II,ecg=I")
    return {name.strip(): lead.strip() for name, lead in pairs}


@dataclass
class Embedded:
    """Recordings of INPUT and the embeddings of their windows, not normalised.

    Attributes:
        about: of each recording ``file``, ``record_id``, ``leads``, and what is known of ``subject``, ``split``, tasks.
        parts: of the windows, by positions in ``about``; a store's recording counts as one whose start is NaN.
        failed: files that could not be used.
    """

    about: list[dict[str, Any]] = field(default_factory=list)
    parts: list[WindowEmbeddings] = field(default_factory=list)
    failed: int = 0

    def table(self) -> pd.DataFrame:
        """A row per recording; only the columns of which something is known."""
        import pandas as pd

        return pd.DataFrame(self.about).dropna(axis="columns", how="all")


def open_inputs(
    inputs: list[str], reading: Reading, *, together: bool = False
) -> tuple[list[Store | list[dict[str, Any]]], Reading]:
    """What INPUT names, in its order: stores, and of files and folders what is known of each recording; the reading.

    A single recording must be usable: there is nothing to go on with. Of more than one, options hold for those that do
    not say it themselves. With ``together`` files and folders that follow one another are one source.
    """
    from deri.ecg import recordings_in
    from deri.store import Store

    if len(inputs) == 1 and not Path(inputs[0]).is_dir() and len(recordings_in(inputs[0])) == 1:
        reading = replace(reading, strict=True)
    elif reading.options:
        tell_fallback(reading)
        reading = replace(reading, options={**reading.options, "fallback": True})
    sources: list[Store | list[dict[str, Any]]] = []
    for name in inputs:
        path = Path(name)
        if (path / "store.json").is_file():
            sources.append(Store.open(path))
            continue
        if path.is_dir():
            files = _folder(path)
        else:
            files = [{"file": file, "record_id": path.stem + file[len(name) :]} for file in recordings_in(name)]
        last = sources[-1] if sources and together else None
        if isinstance(last, list):
            last += files
        else:
            sources.append(files)
    return sources, reading


def _folder(path: Path) -> list[dict[str, Any]]:
    """The recordings of a folder, with what its CSV says of them."""
    from deri.datasets import open_dataset

    dataset = open_dataset("folder", path)
    for note in dataset.notes:
        say(note)
    for _, row in dataset.rejects.iterrows():
        say(f"{path}: {row['detail']}")
    names = {"subject_id": "subject", **{name: name for name in (REPORT, "split", *dataset.tasks)}}
    table = dataset.examples.rename(columns=names)
    table["file"] = [str(path / file) for file in table["file"]]
    told = table[["file", "record_id", *names.values()]]
    if not (table["subject"] != table["record_id"]).any():  # the folder's CSV names no subjects
        told = told.drop(columns="subject")
    rows: list[dict[str, Any]] = told.to_dict("records")
    return rows


class Recordings:
    """The recordings of files, read one after the other.

    A file that cannot be used is named and counted; where the reading is strict, it raises its ReadError. With
    ``measure`` the intervals of a recording are among what is known of it.

    Attributes:
        read: what is known of each recording that was read, ``leads`` among it, in the order of reading.
        unusable: positions in ``read`` of those that :meth:`reject` was told of.
        failed: how many files could not be used.
    """

    def __init__(
        self, files: list[dict[str, Any]], reading: Reading, progress: Progress, *, measure: bool = False
    ) -> None:
        self.files, self.reading, self.progress, self.measure = files, reading, progress, measure
        self.read: list[dict[str, Any]] = []
        self.unusable: set[int] = set()
        self.failed = 0

    def __iter__(self) -> Iterator[ECG]:
        from deri.ecg import read_ecg

        for i, row in enumerate(self.files):
            try:
                ecg = read_ecg(row["file"], **self.reading.options)
            except ReadError as error:
                self._pass_over(row["file"], error)
                continue
            say_lead_note(row["file"], ecg)
            leads = [lead for lead in ecg.leads if lead not in ecg.missing_leads]
            self.read.append({**row, "leads": leads, **(_measured(ecg) if self.measure else {})})
            yield ecg
            del ecg  # before the next one is read
            if len(self.files) > 1:
                self.progress.update(i + 1, len(self.files))

    def reject(self, record: int, error: ReadError) -> None:
        """Pass over the recording at position ``record`` of ``read``."""
        self._pass_over(self.read[record]["file"], error)
        self.unusable.add(record)

    def _pass_over(self, file: str, error: ReadError) -> None:
        if self.reading.strict:
            raise error
        say(f"passed over: {error}" if str(error).startswith(file) else f"passed over: {file}: {error}")
        self.failed += 1


def _measured(ecg: ECG) -> dict[str, float | None]:
    """The intervals of a recording; none of one that cannot be used, which is passed over for it later."""
    from deri.ecg.measure import intervals

    with suppress(ReadError):
        return intervals(ecg)
    return {}


def tell_failed(failed: int, used: int) -> None:
    """Say how many recordings were passed over; DeriError where none could be used."""
    if failed:
        say(f"{failed} of {failed + used} recordings could not be used and were passed over")
    if not used:
        raise DeriError("no recording could be used: see the lines above")


def embed_inputs(
    model: EcgTextModel,
    inputs: list[str],
    reading: Reading,
    windows: int | None,
    progress: Progress,
    *,
    measure: bool = False,
) -> Embedded:
    """Embed what INPUT names, in its order; with ``measure`` the intervals of a recording are told of it.

    Raises:
        DeriError: nothing could be used, or with ``strict`` the first file that could not.
    """
    out = Embedded()
    sources, reading = open_inputs(inputs, reading)
    for i, source in enumerate(sources):
        if isinstance(source, list):
            _embed_files(model, Recordings(source, reading, progress, measure=measure), windows, out)
            progress.update(i + 1, len(sources))
        else:
            _embed_store(model, source, out, progress, measure=measure)
    tell_failed(out.failed, len(out.about))
    return out


def _embed_files(model: EcgTextModel, recordings: Recordings, windows: int | None, out: Embedded) -> None:
    import numpy as np

    parts = list(model.window_embeddings(recordings, windows=windows, unusable=recordings.reject))
    read = recordings.read
    kept = [i for i in range(len(read)) if i not in recordings.unusable]
    position = np.full(len(read), -1)
    position[kept] = len(out.about) + np.arange(len(kept))
    out.about += [{name: value for name, value in read[i].items() if name != REPORT} for i in kept]
    out.parts += [part._replace(record=position[part.record]) for part in parts]
    out.failed += recordings.failed


def _embed_store(model: EcgTextModel, store: Store, out: Embedded, progress: Progress, *, measure: bool) -> None:
    import numpy as np

    from deri.evaluation.features import embed_store
    from deri.models.base import WindowEmbeddings
    from deri.store.measurements import store_intervals

    rows = store.rows("all")
    vectors = embed_store(model, store, rows, normalise=False, progress=progress)
    record, start = len(out.about) + np.arange(len(rows)), np.full(len(rows), np.nan)
    out.parts.append(WindowEmbeddings(record, start, vectors))
    mask = store.lead_mask(rows)
    wanted = ["record_id", "subject_id", "split", *(task for task in store.tasks if task in store.index)]
    table = store.index.iloc[rows][wanted].rename(columns={"subject_id": "subject"})
    measured = store_intervals(store, rows) if measure else [{}] * len(rows)
    for row, leads, values in zip(table.to_dict("records"), mask, measured, strict=True):
        there = [lead for lead, known in zip(store.meta["leads"], leads, strict=True) if known]
        out.about.append({"file": str(store.path), **row, "leads": there, **values})


def check_table_name(out: Path) -> None:
    """DeriError, before the work, where ``out`` is no name of a table that can be written here."""
    if out.suffix not in TABLES:
        raise DeriError(f"--out {out}: name a file that ends in {', '.join(TABLES[:-1])} or {TABLES[-1]}")
    if out.suffix == ".xlsx" and find_spec("openpyxl") is None:
        raise DeriError(f"--out {out}: Excel files need openpyxl: pip install 'deri[formats]', or name a .csv")


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
