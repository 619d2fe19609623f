"""``deri index``: recordings of files, folders and stores into an index, of which only what is new is embedded."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deri.cli import options
from deri.cli.console import progress, window_option
from deri.cli.inputs import (
    Embedded,
    Reading,
    Recordings,
    embed_files,
    embed_store,
    open_inputs,
    store_about,
    tell_failed,
)
from deri.progress import Progress, Shifted

if TYPE_CHECKING:
    from deri.evaluation.indexing import IndexWriter
    from deri.models import EcgTextModel
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
    loaded = load_model(name, device=device).compute_in(precision.value)
    sources, reading = open_inputs(inputs, reading, together=True)
    if os.path.isdir(name):
        name = os.path.abspath(name)
    with progress("index") as show, index_writer(out, loaded, name=name, windows=wanted) as writer:
        run = _Run(writer, loaded, wanted, reading, show)
        for source in sources:
            run.take(_Files(source, reading) if isinstance(source, list) else _Store(source))
        if prune:
            run.prune()
        writer.join()
        tell_failed(run.failed, run.added + run.changed + run.unchanged)
        told = ", ".join(f"{getattr(run, what)} {what}" for what in ("added", "changed", "unchanged", "dropped"))
        print(f"{len(writer.known)} recordings ({told}) → {out}")


class _Files:
    """Recordings of files, known by their paths; they have changed where size or time of a file of their name has."""

    def __init__(self, files: list[dict[str, Any]], reading: Reading) -> None:
        from deri.evaluation.indexing import Folders

        self.reading, folders = reading, Folders()
        self.rows = [{**row, "file": _absolute(row["file"])} for row in files]
        self.keys = [row["file"] for row in self.rows]
        states = [folders.state(row["file"]) for row in self.rows]
        options = sorted(reading.options.items())
        self.stamps = [_stamp(state, options, row) for state, row in zip(states, self.rows, strict=True)]
        self.sources = [json.dumps({"options": reading.options, "state": state}) for state in states]

    def embed(self, take: list[int], model: EcgTextModel, windows: int | None, show: Progress) -> Embedded:
        from deri.evaluation.index_layout import KEY, SOURCE, STAMP

        rows = [{**self.rows[i], KEY: self.keys[i], STAMP: self.stamps[i], SOURCE: self.sources[i]} for i in take]
        return embed_files(model, Recordings(rows, self.reading, show), windows)


class _Store:
    """Recordings of a store, known by store, id and source file; they have changed where samples or metadata have."""

    def __init__(self, store: Store) -> None:
        self.store, self.rows = store, store.rows("all")
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

    def embed(self, take: list[int], model: EcgTextModel, _: int | None, show: Progress) -> Embedded:
        from deri.evaluation.index_layout import KEY, SOURCE, STAMP

        found = embed_store(model, self.store, self.rows[take], show)
        for about, i in zip(found.about, take, strict=True):
            source = json.dumps({"waveform": self.waveforms[i][0]})
            about |= {"file": _absolute(about["file"]), KEY: self.keys[i], STAMP: self.stamps[i], SOURCE: source}
        return found


@dataclass
class _Run:
    """One run of ``deri index``."""

    writer: IndexWriter
    model: EcgTextModel
    windows: int | None
    reading: Reading
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
        for start in range(0, len(due), PART):
            part = due[start : start + PART]
            found = source.embed(part, self.model, self.windows, Shifted(self.show, start, len(due)))
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
            there = place not in stores and os.path.isdir(place) if record else bool(folders.state(place))
            gone += [] if there else [key]
        self.writer.replace(gone, [])
        self.dropped += len(gone)


def _absolute(name: str) -> str:
    return name if "://" in name else os.path.abspath(name)


def _stamp(*content: Any) -> str:
    text = json.dumps(content, sort_keys=True, default=lambda value: value.tolist())  # of arrays of labels
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
