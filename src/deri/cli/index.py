"""``deri index``: recordings of files, folders and stores into an index, of which only what is new is embedded."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deri.cli import options
from deri.cli.console import progress, window_option
from deri.cli.inputs import (
    FILES_OF_A_TASK,
    ROWS_OF_A_TASK,
    Embedded,
    EmbedFiles,
    EmbedRows,
    Files,
    Loaded,
    Model,
    Reading,
    open_inputs,
    store_about,
    tell_failed,
)
from deri.progress import Progress
from deri.workers import Engine, Task, open_engine

if TYPE_CHECKING:
    from deri.evaluation.indexing import IndexWriter
    from deri.store import Store

PART = 1000
"""Recordings that are committed at once: what a killed run loses at most."""


def index(
    inputs: options.Inputs,
    out: Annotated[Path, typer.Option(help="the index, a folder")],
    model: Annotated[str | None, typer.Option(help=f"{options.MODEL} [default: that of --out, else deri-open]")] = None,
    windows: Annotated[
        str | None,
        typer.Option(help="N | all: windows of a long recording that count [default: those of --out, else all]"),
    ] = None,
    prune: Annotated[bool, typer.Option("--prune", help="drop recordings whose files are gone")] = False,
    strict: options.Strict = False,
    skip_damaged: options.SkipDamaged = False,
    fs: options.SamplingRate = None,
    units: options.Units = None,
    gain: options.Gain = None,
    leads: options.LeadNames = None,
    device: options.Device = None,
    workers: options.Workers = None,
    engine: options.Engine = options.EngineName.local,
    precision: options.Precision = options.PrecisionName.fp32,
) -> None:
    """Embed recordings into an index for deri search; run again, it adds what is new and embeds anew what changed.

    A stopped run goes on where it was when it is run again. A file that cannot be used is named and passed over.
    """
    from deri.evaluation.index_layout import MANIFEST, read_manifest
    from deri.evaluation.indexing import index_writer
    from deri.models import load_model
    from deri.models.builtin import DEFAULT_MODEL

    reading = Reading.of(fs, units, gain, leads, strict=strict, skip_damaged=skip_damaged)
    before = read_manifest(out) if (out / MANIFEST).exists() else None
    wanted = before["windows"] if before and windows is None else window_option(windows or "all")
    name = model or (before["model"]["name"] if before else DEFAULT_MODEL)
    loaded = Loaded(load_model, name, device, precision.value)
    sources, reading = open_inputs(inputs, reading, together=True)
    if os.path.isdir(name):
        name = os.path.abspath(name)
    with (
        progress("index") as show,
        open_engine(engine.value, workers, device=device) as opened,
        index_writer(out, loaded.beside(opened), name=name, windows=wanted) as writer,
    ):
        run = _Run(writer, opened, show)
        for source in sources:
            run.take(_Files(source, reading, loaded, wanted) if isinstance(source, list) else _Store(source, loaded))
        if prune:
            run.prune()
        writer.join()
        tell_failed(run.failed, run.added + run.changed + run.unchanged)
        told = ", ".join(f"{getattr(run, what)} {what}" for what in ("added", "changed", "unchanged", "dropped"))
        print(f"{len(writer.known)} recordings ({told}) → {out}")


class _Files:
    """Recordings of files, known by their paths; they have changed where size or time of a file of their name has."""

    piece = FILES_OF_A_TASK

    def __init__(self, files: list[dict[str, Any]], reading: Reading, model: Model, windows: int | None) -> None:
        from deri.evaluation.indexing import Folders

        self.reading, self.model, self.windows, folders = reading, model, windows, Folders()
        self.rows = [{**row, "file": _absolute(row["file"])} for row in files]
        self.keys = [row["file"] for row in self.rows]
        states = [folders.state(row["file"]) for row in self.rows]
        options = sorted(reading.options.items())
        self.stamps = [_stamp(state, options, row) for state, row in zip(states, self.rows, strict=True)]
        self.sources = [json.dumps({"options": reading.options, "state": state}) for state in states]

    def count(self, take: list[int]) -> int:
        """As how much some of them are counted while they are embedded."""
        return len(take)

    def task(self, take: list[int]) -> EmbedFiles:
        """Embeds some of them."""
        from deri.evaluation.index_layout import KEY, SOURCE, STAMP

        rows = [{**self.rows[i], KEY: self.keys[i], STAMP: self.stamps[i], SOURCE: self.sources[i]} for i in take]
        return EmbedFiles(Files(rows, self.reading), self.model, self.windows)

    def told(self, found: Embedded, take: list[int]) -> Embedded:
        """What was found of some of them, complete."""
        return found


class _Store:
    """Recordings of a store, known by store, id and source file; they have changed where samples or metadata have."""

    piece = ROWS_OF_A_TASK

    def __init__(self, store: Store, model: Model) -> None:
        self.store, self.model, self.rows = store, model, store.rows("all")
        place, seen = _absolute(str(store.path)), dict[str, int]()
        self.keys, self.stamps = [], []
        self.waveforms = waveforms = [list[str]() for _ in self.rows]
        for row, owner in zip(*store.windows_of(self.rows), strict=True):
            waveforms[owner].append(store.index["waveform"].iat[row])
        for about, file, samples in zip(
            store_about(store, self.rows), store.column("file")[self.rows], waveforms, strict=True
        ):
            about["file"] = place
            key = f"{place}\t{about['record_id']}\t{file}"
            seen[key] = seen.get(key, 0) + 1  # of two merged data sets that name recordings alike
            self.keys.append(f"{key}\t{seen[key]}")
            self.stamps.append(_stamp(samples, about))

    def count(self, take: list[int]) -> int:
        """As how much some of them are counted while they are embedded."""
        return len(self.task(take))

    def task(self, take: list[int]) -> EmbedRows:
        """Embeds some of them."""
        return EmbedRows(self.model, self.store, self.rows[take])

    def told(self, found: Embedded, take: list[int]) -> Embedded:
        """What was found of some of them, complete."""
        from deri.evaluation.index_layout import KEY, SOURCE, STAMP

        for about, i in zip(found.about, take, strict=True):
            source = json.dumps({"waveform": self.waveforms[i][0]})
            about |= {"file": _absolute(about["file"]), KEY: self.keys[i], STAMP: self.stamps[i], SOURCE: source}
        return found


@dataclass
class _Run:
    """One run of ``deri index``."""

    writer: IndexWriter
    engine: Engine
    show: Progress
    added: int = 0
    changed: int = 0
    unchanged: int = 0
    dropped: int = 0
    failed: int = 0
    seen: set[str] = field(default_factory=set)

    def take(self, source: _Files | _Store) -> None:
        """Embed what is new or has changed of a source, and commit it part by part."""
        from deri.evaluation.index_layout import KEY

        known, due = self.writer.known, []
        for i, (key, stamp) in enumerate(zip(source.keys, source.stamps, strict=True)):
            if key not in self.seen:
                self.seen.add(key)
                due += [i] if known.get(key) != stamp else []
                self.unchanged += known.get(key) == stamp
        parts = [due[start : start + PART] for start in range(0, len(due), PART)]
        pieces = [[part[piece] for piece in self.engine.pieces(len(part), source.piece)] for part in parts]
        tasks: Iterator[Task[Embedded]] = (source.task(piece) for part in pieces for piece in part)
        results = self.engine.run(tasks, source.count(due), self.show)
        for part, cut in zip(parts, pieces, strict=True):
            found = Embedded()
            for piece in cut:
                found.add(source.told(next(results), piece))
            changed = sum(about[KEY] in known for about in found.about)
            self.changed += changed
            self.dropped += sum(source.keys[i] in known for i in part) - changed
            self.added += len(found.about) - changed
            self.failed += found.failed
            self.writer.replace([source.keys[i] for i in part], found.about, found.pooled())

    def prune(self) -> None:
        """Drop recordings whose file or store is gone, or that a store of this run does not hold any more."""
        from deri.evaluation.indexing import Folders

        folders = Folders()
        stores = {key.split("\t")[0] for key in self.seen if "\t" in key}
        gone = []
        for key in self.writer.known.keys() - self.seen:
            place, *record = key.split("\t")
            if record:  # of a store, which at an address is taken as it was
                there = place not in stores and ("://" in place or os.path.isdir(place))
            else:
                there = bool(folders.state(place))
            gone += [] if there else [key]
        self.writer.replace(gone, [])
        self.dropped += len(gone)


def _absolute(name: str) -> str:
    return name if "://" in name else os.path.abspath(name)


def _stamp(*content: Any) -> str:
    text = json.dumps(content, sort_keys=True, default=lambda value: value.tolist())  # of arrays of labels
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
