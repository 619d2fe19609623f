"""INPUT of commands: files, folders and stores as one table of recordings with their embeddings.

A file that cannot be used is named, counted and passed over, unless ``--strict`` says to stop there.
"""

from __future__ import annotations

from collections.abc import Iterator
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

TABLES = (".csv", ".parquet", ".xlsx")


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
        given = {"fs": fs, "units": units, "gain": gain, "leads": None if leads is None else lead_names(leads)}
        return cls({name: value for name, value in given.items() if value is not None}, strict)


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


def embed_inputs(
    model: EcgTextModel, inputs: list[str], reading: Reading, windows: int | None, progress: Progress
) -> Embedded:
    """Embed what INPUT names, in its order.

    Raises:
        DeriError: nothing could be used, or with ``strict`` the first file that could not.
    """
    out = Embedded()
    if len(inputs) == 1 and not Path(inputs[0]).is_dir():
        reading = replace(reading, strict=True)  # there is nothing to go on with
    for i, name in enumerate(inputs):
        path = Path(name)
        if (path / "store.json").is_file():
            _embed_store(model, path, out, progress)
        else:
            files = _folder(path) if path.is_dir() else [{"file": name, "record_id": path.stem}]
            _embed_files(model, files, reading, windows, out, progress)
            progress.update(i + 1, len(inputs))
    if out.failed:
        say(f"{out.failed} of {out.failed + len(out.about)} recordings could not be used and were passed over")
    if not out.about:
        raise DeriError("no recording could be used: see the lines above")
    return out


def _folder(path: Path) -> list[dict[str, Any]]:
    """The recordings of a folder, with what its CSV says of them."""
    from deri.datasets import open_dataset

    dataset = open_dataset("folder", path)
    for _, row in dataset.rejects.iterrows():
        say(f"{path}: {row['detail']}")
    names = {"subject_id": "subject", "split": "split", **{task: task for task in dataset.tasks}}
    table = dataset.examples.rename(columns=names)
    table["file"] = [str(path / file) for file in table["file"]]
    told = table[["file", "record_id", *names.values()]]
    if not (table["subject"] != table["record_id"]).any():  # the folder's CSV names no subjects
        told = told.drop(columns="subject")
    rows: list[dict[str, Any]] = told.to_dict("records")
    return rows


def _embed_files(
    model: EcgTextModel,
    files: list[dict[str, Any]],
    reading: Reading,
    windows: int | None,
    out: Embedded,
    progress: Progress,
) -> None:
    import numpy as np

    from deri.ecg import read_ecg

    read: list[dict[str, Any]] = []
    bad: set[int] = set()

    def pass_over(file: str, error: ReadError) -> None:
        if reading.strict:
            raise error
        say(f"passed over: {error}" if str(error).startswith(file) else f"passed over: {file}: {error}")
        out.failed += 1

    def unusable(record: int, error: ReadError) -> None:
        pass_over(read[record]["file"], error)
        bad.add(record)

    def recordings() -> Iterator[ECG]:
        for i, row in enumerate(files):
            try:
                ecg = read_ecg(row["file"], **reading.options)
            except ReadError as error:
                pass_over(row["file"], error)
                continue
            say_lead_note(row["file"], ecg)
            read.append({**row, "leads": [lead for lead in ecg.leads if lead not in ecg.missing_leads]})
            yield ecg
            del ecg  # before the next one is read
            if len(files) > 1:
                progress.update(i + 1, len(files))

    parts = list(model.window_embeddings(recordings(), windows=windows, unusable=unusable))
    kept = [i for i in range(len(read)) if i not in bad]
    position = np.full(len(read), -1)
    position[kept] = len(out.about) + np.arange(len(kept))
    out.about += [read[i] for i in kept]
    out.parts += [part._replace(record=position[part.record]) for part in parts]


def _embed_store(model: EcgTextModel, path: Path, out: Embedded, progress: Progress) -> None:
    import numpy as np

    from deri.evaluation.features import embed_store
    from deri.models.base import WindowEmbeddings
    from deri.store import Store

    store = Store.open(path)
    rows = store.rows("all")
    vectors = embed_store(model, store, rows, normalise=False, progress=progress)
    record, start = len(out.about) + np.arange(len(rows)), np.full(len(rows), np.nan)
    out.parts.append(WindowEmbeddings(record, start, vectors))
    mask = store.lead_mask(rows)
    wanted = ["record_id", "subject_id", "split", *(task for task in store.tasks if task in store.index)]
    table = store.index.iloc[rows][wanted].rename(columns={"subject_id": "subject"})
    for row, leads in zip(table.to_dict("records"), mask, strict=True):
        there = [lead for lead, known in zip(store.meta["leads"], leads, strict=True) if known]
        out.about.append({"file": str(path), **row, "leads": there})


def check_table_name(out: Path) -> None:
    """DeriError, before the work, where ``out`` is no name of a table that can be written here."""
    if out.suffix not in TABLES:
        raise DeriError(f"--out {out}: name a file that ends in {', '.join(TABLES[:-1])} or {TABLES[-1]}")
    if out.suffix == ".xlsx" and find_spec("openpyxl") is None:
        raise DeriError(f"--out {out}: Excel files need openpyxl: pip install openpyxl, or name a .csv")


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
