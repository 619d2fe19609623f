"""``deri report``: commands about generated reports."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deri.cli import options as opt
from deri.cli import report_evaluate
from deri.cli.console import first_process, open_store, progress, say, window_option
from deri.cli.inputs import (
    REPORT,
    Files,
    FilesTask,
    Loaded,
    Reading,
    Recordings,
    RowsTask,
    open_inputs,
    tell_failed,
    untold,
)
from deri.errors import DeriError
from deri.progress import Progress
from deri.workers import Task, open_engine

if TYPE_CHECKING:
    import pandas as pd

    from deri.ecg import ECG
    from deri.generation.writer import Generated, ReportWriter

app = typer.Typer(help="Generated reports.", no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.callback()
def report() -> None:
    """Generated reports."""


@app.command("train")
def train(
    model: opt.Model,
    data: opt.DataWithReports,
    out: Annotated[Path, typer.Option(help="run directory; the writer will be in its folder writer")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]…", help="e.g. epochs=20")] = None,
    writer: Annotated[
        str | None, typer.Option(help="scratch | distilgpt2 | any GPT-2 | prefix:MODEL | r2gen [default: scratch]")
    ] = None,
    memory: Annotated[str | None, typer.Option(help="tokens | mixed | aligned [default: tokens]")] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="r2gen: scratch | medcpt | pubmedbert | scibert | clinicalbert | minilm | MODEL")
    ] = None,
    lora: Annotated[int | None, typer.Option(min=1, help="prefix:MODEL: train adapters of this rank instead")] = None,
    tune_encoder: Annotated[bool, typer.Option("--tune-encoder", help="train the ECG encoder too")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="continue the run in --out, or start it")] = False,
    skip_damaged: opt.SkipDamaged = False,
    device: opt.Device = None,
) -> None:
    """Train a writer on the ECGs and reports of a store; the best weights by its val split.

    Several processes: torchrun -m deri report train …; shard=true splits a large decoder over them.
    """
    from deri.generation.config import load_config
    from deri.generation.train import stored_config, train_writer
    from deri.generation.writer import calibrate_directory
    from deri.models import load_model

    options: dict[str, Any] = {
        "writer": writer,
        "memory": memory,
        "tokenizer": tokenizer,
        "lora": {"rank": lora} if lora else None,
        "encoder": "tuned" if tune_encoder else None,
    }
    given = {name: value for name, value in options.items() if value}
    config = load_config(overrides or [], **((stored_config(out) if resume else {}) | given))
    store = open_store(data, skip_damaged)
    loaded = load_model(model)
    with progress("report train") as shown:
        train_writer(loaded, store, out, config, model_name=model, resume=resume, device=device, progress=shown)
    if not first_process():
        return
    with progress("report calibrate") as shown:
        calibrate_directory(out / "writer", store, device=device, progress=shown)
    print(out / "writer")


@app.command("generate")
def generate(
    out: Annotated[Path, typer.Option(help=".parquet or .jsonl")],
    writer: Annotated[str, typer.Option(help="writer directory, run of deri report train, or hub id")],
    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="[INPUT]…", help="ECG files, folders of them, or stores")
    ] = None,
    data: Annotated[str | None, typer.Option(help="a store instead of INPUT")] = None,
    split: Annotated[
        str | None, typer.Option(help="of stores: train | val | test | all [default: test of --data, all of INPUT]")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="only the first recordings")] = None,
    windows: Annotated[
        str, typer.Option(help="N | all: of a long file a report for each of so many windows, spread evenly")
    ] = "1",
    strict: opt.Strict = False,
    fs: opt.SamplingRate = None,
    units: opt.Units = None,
    gain: opt.Gain = None,
    leads: opt.LeadNames = None,
    language: Annotated[
        str | None,
        typer.Option(help="en | de | sv; with --data also reference: that of each own report [default: the writer's]"),
    ] = None,
    complete: Annotated[
        bool, typer.Option("--complete", help="add a sentence for each finding that a draft leaves out")
    ] = False,
    beams: Annotated[int | None, typer.Option(min=1, help="1: greedy [default: the writer's, 3]")] = None,
    length_penalty: Annotated[float | None, typer.Option(help="above 0 longer texts win [default: 1]")] = None,
    no_repeat_ngram: Annotated[int | None, typer.Option(min=0, help="no N tokens twice in a report; 0: off")] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="above 1: used tokens become less likely")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="longest report [default: the writer's]")] = None,
    sample: Annotated[bool, typer.Option("--sample", help="draw texts instead of searching the likeliest")] = False,
    temperature: Annotated[float | None, typer.Option(help="of --sample")] = None,
    top_p: Annotated[float | None, typer.Option(help="of --sample: draw among this share of the probability")] = None,
    seed: Annotated[int, typer.Option(min=0, help="of --sample")] = 0,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    skip_damaged: opt.SkipDamaged = False,
    device: opt.Device = None,
    workers: opt.Workers = None,
    engine: opt.Engine = opt.EngineName.local,
) -> None:
    """Write reports of ECG files, folders and stores: drafts for research, not a diagnosis.

    A file that cannot be used is named and passed over. Reports of a folder's CSV or of a store go along as references,
    and so do split and labels.
    """
    import pandas as pd

    from deri.generation.tables import check_name, split_rows, write_table
    from deri.generation.writer import ReportWriter

    if bool(inputs) == (data is not None):
        raise DeriError("report generate takes either INPUT (ECG files, folders, stores) or --data STORE --split test")
    check_name(out)
    if sample and (engine is opt.EngineName.ray or (workers or 1) > 1):
        raise DeriError("--sample draws one sequence for all reports: without --engine ray and --workers")
    if not sample and (temperature is not None or top_p is not None):
        raise DeriError("--temperature and --top-p are for --sample")
    if data is None and language == "reference":
        raise DeriError("--language reference is for --data STORE, whose reports tell it; name a language")
    if data is not None and windows != "1":
        raise DeriError("--windows is for ECG files: a store holds the windows that it was prepared with")
    options: dict[str, Any] = {
        "beams": beams, "length_penalty": length_penalty, "no_repeat_ngram": no_repeat_ngram,
        "repetition_penalty": repetition_penalty, "max_tokens": max_tokens, "sample": sample or None,
        "temperature": temperature, "top_p": top_p, "batch_size": batch_size, "seed": seed,
    }  # fmt: skip
    wanted = window_option(windows)
    reading = Reading.of(fs, units, gain, leads, strict=strict, skip_damaged=skip_damaged)
    if data is None:
        sources, reading = open_inputs(inputs or [], reading, together=True)
    else:
        sources = [open_store(data, skip_damaged)]
    split = split or ("all" if data is None else "test")
    loaded = Loaded(ReportWriter.from_pretrained, writer, device)
    tasks: list[Task[_Reports]] = []
    taken = 0
    with progress("report generate") as shown, open_engine(engine.value, workers, device=device) as opened:
        here = loaded.beside(opened)
        options["embeddings"] = here.calibrated
        if complete and not options["embeddings"]:
            raise DeriError(f"--complete: {writer} is not calibrated; deri report calibrate does it")
        how = _How(options, language, complete)
        for source in sources:
            left = None if limit is None else limit - taken
            if isinstance(source, list):
                files = source[:left]
                for part in opened.pieces(len(files), 4 * batch_size):
                    tasks.append(_OfFiles(Files(files[part], reading), loaded, how, wanted))
                taken += len(files)
            else:
                rows = split_rows(source, split)[:left]
                pieces = opened.pieces(len(rows), 4 * batch_size)
                tasks += [_OfRows(loaded, source, rows[part], how) for part in pieces]
                taken += len(rows)
        found = list(opened.run(tasks, taken, shown))
    failed, longer = sum(part.failed for part in found), [file for part in found for file in part.longer]
    if longer and wanted == 1:
        others = f" and {len(longer) - 1} more" if len(longer) > 1 else ""
        signal = here.encoder.config.signal
        say(
            f"{longer[0]}{others}: longer than {signal.samples / signal.fs:g} s, the report is of its beginning alone "
            "(--windows all: one for each window)"
        )
    tell_failed(failed, taken - failed)
    table = pd.concat([part.table for part in found if len(part.table)], ignore_index=True)
    write_table(table, out)
    if cut := int((~table["finished"]).sum()):
        say(f"{cut} {'report' if cut == 1 else 'reports'} reached the longest length without an end (finished: false)")
    if not table["generated"].any():
        say("warning: all reports are empty")
    print(f"{len(table)} reports → {out}")


@dataclass(frozen=True)
class _How:
    """How reports are written: options of the writer, and what becomes of its drafts."""

    options: dict[str, Any]
    language: str | None
    complete: bool


@dataclass(frozen=True)
class _Reports:
    """A row per report, how many files could not be used, and which are longer than what was read."""

    table: pd.DataFrame
    failed: int = 0
    longer: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _OfFiles(FilesTask):
    """Write the reports of ECG files."""

    writer: Loaded[ReportWriter]
    how: _How
    windows: int | None

    def run(self, progress: Progress) -> _Reports:
        """The reports."""
        from deri.ecg.standardise import window_count

        writer, recordings = self.writer(), Recordings(self.files, progress)
        signal = writer.encoder.config.signal
        longer: list[str] = []

        def read() -> Iterator[ECG]:
            for ecg in recordings:
                if window_count(ecg.n_samples, ecg.fs, signal.samples / signal.fs) > 1:
                    longer.append(recordings.read[-1]["file"])
                yield ecg

        found = writer.generate(
            read(), windows=self.windows, unusable=recordings.reject, language=self.how.language, **self.how.options
        )
        assert found.record is not None
        assert found.start is not None
        known = [recordings.read[i] for i in found.record]
        columns = {
            "record_id": [row["record_id"] for row in known],
            "file": [row["file"] for row in known],
            "subject": [row.get("subject", row["file"]) for row in known],
            "reference": [row.get(REPORT) for row in known],
            "start_s": list(found.start),
        }
        along = dict.fromkeys(name for row in known for name in row if name not in (*columns, *untold(), "leads"))
        columns |= {name: [row.get(name) for row in known] for name in along}
        return _Reports(_table(writer, found, columns, self.how), recordings.failed, longer)


@dataclass(frozen=True)
class _OfRows(RowsTask):
    """Write the reports of recordings of a store."""

    how: _How

    def run(self, progress: Progress) -> _Reports:
        """The reports."""
        from deri.generation.tables import store_columns

        writer, store, rows = self.model(), self.store, self.rows
        progress.update(0, len(rows))
        found = writer.generate_store(store, rows, progress=progress, language=self.how.language, **self.how.options)
        along = {name: store.index[name].iloc[rows].tolist() for name in ("split", *store.tasks)}
        return _Reports(_table(writer, found, store_columns(store, rows) | along, self.how))


def _table(writer: ReportWriter, found: Generated, columns: dict[str, list[Any]], how: _How) -> pd.DataFrame:
    """A row per report, with the findings that the writer's encoder doubts or misses where they were asked for."""
    from deri.generation.completion import completed
    from deri.generation.tables import generated_table

    texts, doubts = found.texts, {}
    if found.embedding is not None:
        of = (found.embedding, found.texts)
        doubts = {"flags": writer.confidence.flags(*of), "left_out": writer.confidence.gaps(*of)}
    if how.complete:
        codes = [[item["finding"] for item in items] for items in doubts["left_out"]]
        asked = None if how.language == "reference" else how.language
        texts = [completed(text, one, asked) for text, one in zip(texts, codes, strict=True)]
    table = generated_table(columns, texts, log_prob=found.log_probs, n_tokens=found.n_tokens, finished=found.finished)
    return table.assign(**doubts)


app.command("evaluate")(report_evaluate.evaluate)
app.command("baselines")(report_evaluate.baselines)
app.command("classify")(report_evaluate.classify)
app.command("calibrate")(report_evaluate.calibrate)
