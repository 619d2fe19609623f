"""``deri simulate``, ``prepare``, ``merge`` and ``download``."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from deri.cli import options
from deri.cli.console import progress, say, window_option
from deri.cli.inputs import Reading, tell_fallback
from deri.datasets.base import BUILT_IN
from deri.errors import DeriError


class SplitRule(str, Enum):
    """What a random split keeps together."""

    patient = "patient"
    record = "record"


class Duplicates(str, Enum):
    """What becomes of a recording that has the samples of an earlier one."""

    keep = "keep"
    drop = "drop"


class ReportFrom(str, Enum):
    """Where the reports come from."""

    table = "table"
    file = "file"


class Repair(str, Enum):
    """How gaps in a lead are filled."""

    lead = "lead"
    published = "published"


def simulate(
    layout: Annotated[str, typer.Argument(help="mimic-iv-ecg | ptb-xl | cpsc2018 | csn")],
    out: Annotated[Path, typer.Option(help="new directory for the data set")],
    records: Annotated[int, typer.Option(min=1, help="how many recordings")] = 1000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Write simulated recordings and reports in the exact layout of a public data set."""
    from deri.simulate import simulate as run

    with progress(f"simulate {layout}") as show:
        summary = run(layout, records, out, seed=seed, progress=show)
    print(summary.text())


def prepare(
    dataset: Annotated[str, typer.Argument(help=" | ".join(BUILT_IN))],
    source: Annotated[Path, typer.Argument(help="root of the data set on disk")],
    out: Annotated[Path | None, typer.Option(help="the store; stores/NAME-OF-SOURCE when not given")] = None,
    workers: options.Workers = None,
    engine: options.Engine = options.EngineName.local,
    shard: Annotated[str, typer.Option(help="I/N: do the I-th of N parts (1 ≤ I ≤ N); the last one merges")] = "1/1",
    fs: options.SamplingRate = None,
    units: options.Units = None,
    gain: options.Gain = None,
    leads: options.LeadNames = None,
    labels: Annotated[Path | None, typer.Option(help="folder: CSV of file, report, labels, subject, split")] = None,
    label_columns: Annotated[
        str | None, typer.Option(help="folder: columns of 0 and 1 in its CSV that are labels: A,B,… | all")
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="folder: encoding of its CSV, when it is not found")] = None,
    report_from: Annotated[
        ReportFrom, typer.Option(help="reports: those of the tables, or the interpretation in the files")
    ] = ReportFrom.table,
    splits: Annotated[Path | None, typer.Option(help="folder of published split files: splits and labels")] = None,
    published_labels: Annotated[
        bool, typer.Option("--published-labels", help="csn: labels match as substrings, as in the published files")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="only the first recordings")] = None,
    split: Annotated[SplitRule, typer.Option(help="what a random split keeps together")] = SplitRule.patient,
    repair: Annotated[Repair, typer.Option(help="gaps: per lead, or as published (mixes leads)")] = Repair.lead,
    min_leads: Annotated[int, typer.Option(min=1, max=12, help="refuse recordings with fewer of the 12 leads")] = 1,
    windows: Annotated[str, typer.Option(help="N | all: windows of 10 s to store of longer recordings")] = "1",
    duplicates: Annotated[Duplicates, typer.Option(help="recordings stored before")] = Duplicates.keep,
    seed: Annotated[int, typer.Option(min=0, help="of the random split")] = 0,
    anonymous: options.Anonymous = None,
) -> None:
    """Read a data set once into a store that trains at memory speed; continues where a killed run stopped."""
    from deri.datasets import open_dataset
    from deri.datasets.anonymous import Pseudonyms
    from deri.store import Store
    from deri.store import prepare as run
    from deri.store.overview import content_text

    out = out or Path("stores") / source.resolve().name
    part, wanted = _shard(shard), window_option(windows)
    reading = Reading.of(fs, units, gain, leads)
    opened = open_dataset(
        dataset,
        source,
        labels=labels,
        limit=limit,
        splits=splits,
        published_labels=published_labels,
        label_columns=[name.strip() for name in label_columns.split(",")] if label_columns else (),
        encoding=encoding,
        report_from=report_from.value,
        reading=reading.options,
    )
    if anonymous is not None:
        Pseudonyms(anonymous).anonymise(opened)
    tell_fallback(reading)
    for note in opened.notes:
        say(note)
    say(f"{dataset}: {len(opened.examples)} recordings in {source} → {out}")
    with progress("prepare") as show:
        summary = run(
            opened,
            out,
            workers=workers,
            engine=engine.value,
            shard=part,
            split=split.value,
            repair=repair.value,
            min_leads=min_leads,
            windows=wanted,
            duplicates=duplicates.value,
            seed=seed,
            progress=show,
        )
    print(summary.text())
    if summary.complete:
        print(content_text(Store.open(out)))
        if report_from is ReportFrom.file and not summary.reports:
            say("--report-from file: no file holds an interpretation, so that no recording has a report")


def merge(
    stores: Annotated[list[str], typer.Argument(help="finished stores; their order is that of the recordings")],
    out: Annotated[Path, typer.Option(help="the new store")],
    resplit: Annotated[bool, typer.Option("--resplit", help="draw all splits anew, by patient")] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="of --resplit; the first store's when not given")] = None,
    duplicates: Annotated[Duplicates, typer.Option(help="recordings stored before")] = Duplicates.keep,
) -> None:
    """Make one store of several, without reading a recording again; signals are shared through hard links."""
    from deri.store import Store
    from deri.store.merge import merge_stores
    from deri.store.overview import content_text

    summary = merge_stores(stores, out, resplit=resplit, seed=seed, duplicates=duplicates.value)
    for note in json.loads((out / "store.json").read_text(encoding="utf-8"))["notes"]:
        say(note)
    print(summary.text())
    print(content_text(Store.open(out)))


def download(
    name: Annotated[str, typer.Argument(help=" | ".join(name for name in BUILT_IN if name != "folder"))],
    to: Annotated[Path, typer.Option(help="folder for the data set; an earlier download in it is continued")],
    connections: Annotated[int, typer.Option(min=1, max=16, help="files fetched at a time")] = 4,
    url: Annotated[str | None, typer.Option(help="a mirror: address of the folder with SHA256SUMS.txt")] = None,
) -> None:
    """Fetch a public data set from PhysioNet; resumable, checksums verified. States the licence first."""
    from deri.datasets.download import download as run
    from deri.datasets.download import source_of

    source = source_of(name, url)
    say(source.terms())
    with progress(f"download {name}") as show:
        summary = run(source, to, connections=connections, progress=show)
    print(summary.text())


def _shard(text: str) -> tuple[int, int]:
    first, _, second = text.partition("/")
    if first.isdigit() and second.isdigit() and 1 <= int(first) <= int(second):
        return int(first) - 1, int(second)
    raise DeriError(f"--shard {text!r} is not of the form I/N with 1 ≤ I ≤ N, e.g. 2/8")
