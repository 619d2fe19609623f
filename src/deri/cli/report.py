"""``deri report``: commands about generated reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deri.cli import options as opt
from deri.cli import report_evaluate
from deri.cli.console import open_store, progress, say, window_option
from deri.cli.inputs import REPORT, Reading, Recordings, open_inputs, tell_failed, untold
from deri.errors import DeriError

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
    """Train a writer on the ECGs and reports of a store; the best weights by its val split."""
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
    data: Annotated[Path | None, typer.Option(help="a store instead of INPUT")] = None,
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
) -> None:
    """Write reports of ECG files, folders and stores: drafts for research, not a diagnosis.

    A file that cannot be used is named and passed over. Reports of a folder's CSV or of a store go along as references,
    and so do split and labels.
    """
    import pandas as pd

    from deri.generation.tables import check_name, split_rows, store_columns, write_table
    from deri.generation.writer import ReportWriter

    if bool(inputs) == (data is not None):
        raise DeriError("report generate takes either INPUT (ECG files, folders, stores) or --data STORE --split test")
    check_name(out)
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
        "language": language,
    }  # fmt: skip
    wanted = window_option(windows)
    reading = Reading.of(fs, units, gain, leads, strict=strict, skip_damaged=skip_damaged)
    if data is None:
        sources, reading = open_inputs(inputs or [], reading, together=True)
    else:
        sources = [open_store(data, skip_damaged)]
    split = split or ("all" if data is None else "test")
    loaded = ReportWriter.from_pretrained(writer, device=device)
    options["embeddings"] = loaded.calibrated
    if complete and not loaded.calibrated:
        raise DeriError(f"--complete: {writer} is not calibrated; deri report calibrate does it")
    finish = partial(_table, loaded, language=language, complete=complete)
    tables: list[pd.DataFrame] = []
    taken = failed = 0
    with progress("report generate") as shown:
        for source in sources:
            left = None if limit is None else limit - taken
            if isinstance(source, list):
                recordings = Recordings(source[:left], reading, shown)
                tables.append(_of_files(loaded, recordings, wanted, options, finish))
                taken, failed = taken + len(recordings.files), failed + recordings.failed
            else:
                rows = split_rows(source, split)[:left]
                found = loaded.generate_store(source, rows, progress=shown, **options)
                along = {name: source.index[name].iloc[rows].tolist() for name in ("split", *source.tasks)}
                tables.append(finish(found, store_columns(source, rows) | along))
                taken += len(rows)
    tell_failed(failed, taken - failed)
    table = pd.concat([table for table in tables if len(table)], ignore_index=True)
    write_table(table, out)
    if cut := int((~table["finished"]).sum()):
        say(f"{cut} {'report' if cut == 1 else 'reports'} reached the longest length without an end (finished: false)")
    if not table["generated"].any():
        say("warning: all reports are empty")
    print(f"{len(table)} reports → {out}")


def _of_files(
    writer: ReportWriter,
    recordings: Recordings,
    windows: int | None,
    options: dict[str, Any],
    finish: Callable[[Generated, dict[str, list[Any]]], pd.DataFrame],
) -> pd.DataFrame:
    """The reports of ECG files; says of which files a part was not read."""
    from deri.ecg.standardise import window_count

    signal = writer.encoder.config.signal
    seconds = signal.samples / signal.fs
    longer: list[str] = []

    def read() -> Iterator[ECG]:
        for ecg in recordings:
            if window_count(ecg.n_samples, ecg.fs, seconds) > 1:
                longer.append(recordings.read[-1]["file"])
            yield ecg

    found = writer.generate(read(), windows=windows, unusable=recordings.reject, **options)
    if longer and windows == 1:
        others = f" and {len(longer) - 1} more" if len(longer) > 1 else ""
        say(
            f"{longer[0]}{others}: longer than {seconds:g} s, the report is of its beginning alone "
            "(--windows all: one for each window)"
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
    return finish(found, columns | {name: [row.get(name) for row in known] for name in along})


def _table(
    writer: ReportWriter, found: Generated, columns: dict[str, list[Any]], *, language: str | None, complete: bool
) -> pd.DataFrame:
    """A row per report, with the findings that the writer's encoder doubts or misses where they were asked for."""
    from deri.generation.completion import completed
    from deri.generation.tables import generated_table

    texts, doubts = found.texts, {}
    if found.embedding is not None:
        of = (found.embedding, found.texts)
        doubts = {"flags": writer.confidence.flags(*of), "left_out": writer.confidence.gaps(*of)}
    if complete:
        codes = [[item["finding"] for item in items] for items in doubts["left_out"]]
        asked = None if language == "reference" else language
        texts = [completed(text, one, asked) for text, one in zip(texts, codes, strict=True)]
    table = generated_table(columns, texts, log_prob=found.log_probs, n_tokens=found.n_tokens, finished=found.finished)
    return table.assign(**doubts)


app.command("evaluate")(report_evaluate.evaluate)
app.command("baselines")(report_evaluate.baselines)
app.command("classify")(report_evaluate.classify)
app.command("calibrate")(report_evaluate.calibrate)
