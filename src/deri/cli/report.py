"""``deri report``: commands about generated reports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deri.cli import options as opt
from deri.cli import report_evaluate
from deri.cli.console import progress, recordings, say, window_option
from deri.errors import DeriError

if TYPE_CHECKING:
    from deri.ecg import ECG
    from deri.generation.writer import Generated, ReportWriter
    from deri.progress import Progress

app = typer.Typer(help="Generated reports.", no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.callback()
def report() -> None:
    """Generated reports."""


@app.command("train")
def train(
    model: opt.Model,
    data: Annotated[Path, typer.Option(help="store made by deri prepare")],
    out: Annotated[Path, typer.Option(help="run directory; the writer will be in its folder writer")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]…", help="e.g. epochs=20")] = None,
    writer: Annotated[
        str | None, typer.Option(help="scratch | distilgpt2 | any GPT-2 | prefix:MODEL | r2gen [default: scratch]")
    ] = None,
    memory: Annotated[str | None, typer.Option(help="tokens | mixed | aligned [default: tokens]")] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="r2gen: medcpt | pubmedbert | scibert | clinicalbert | minilm | scratch | MODEL")
    ] = None,
    lora: Annotated[int | None, typer.Option(min=1, help="prefix:MODEL: train adapters of this rank instead")] = None,
    tune_encoder: Annotated[bool, typer.Option("--tune-encoder", help="train the ECG encoder too")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="continue the run in --out, or start it")] = False,
    device: opt.Device = None,
) -> None:
    """Train a writer on the ECGs and reports of a store; the best weights by its val split."""
    from deri.generation.config import load_config
    from deri.generation.train import stored_config, train_writer
    from deri.generation.writer import calibrate_directory
    from deri.models import load_model
    from deri.store import Store

    options: dict[str, Any] = {
        "writer": writer,
        "memory": memory,
        "tokenizer": tokenizer,
        "lora": {"rank": lora} if lora else None,
        "encoder": "tuned" if tune_encoder else None,
    }
    given = {name: value for name, value in options.items() if value}
    config = load_config(overrides or [], **((stored_config(out) if resume else {}) | given))
    store = Store.open(data)
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
    files: Annotated[list[str] | None, typer.Argument(metavar="[FILE]…", help="ECG files")] = None,
    data: Annotated[Path | None, typer.Option(help="a store instead of files")] = None,
    split: Annotated[str, typer.Option(help="train | val | test | all")] = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="only the first recordings")] = None,
    windows: Annotated[
        str, typer.Option(help="N | all: of a long file a report for each of so many windows, spread evenly")
    ] = "1",
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
    device: opt.Device = None,
) -> None:
    """Write the reports of a store's records or of ECG files: drafts for research, not a diagnosis."""
    from deri.generation.tables import check_name, generated_table, write_table
    from deri.generation.writer import CONFIDENCE_FILE, ReportWriter

    if bool(files) == (data is not None):
        raise DeriError("report generate takes either ECG files or a store (--data STORE --split test)")
    check_name(out)
    if not sample and (temperature is not None or top_p is not None):
        raise DeriError("--temperature and --top-p are for --sample")
    if data is not None and windows != "1":
        raise DeriError("--windows is for ECG files: a store holds the windows that it was prepared with")
    options: dict[str, Any] = {
        "beams": beams, "length_penalty": length_penalty, "no_repeat_ngram": no_repeat_ngram,
        "repetition_penalty": repetition_penalty, "max_tokens": max_tokens, "sample": sample or None,
        "temperature": temperature, "top_p": top_p, "batch_size": batch_size, "seed": seed,
    }  # fmt: skip
    wanted = window_option(windows)
    loaded = ReportWriter.from_pretrained(writer, device=device)
    flagged = loaded.directory is not None and (loaded.directory / CONFIDENCE_FILE).is_file()
    with progress("report generate") as shown:
        if data is not None:
            found, columns = _of_store(loaded, data, split, limit, options, flagged, shown)
        else:
            names = list(files or [])[:limit]
            found, columns = _of_files(loaded, names, options | {"windows": wanted, "embeddings": flagged}, shown)
    table = generated_table(
        columns, found.texts, log_prob=found.log_probs, n_tokens=found.n_tokens, finished=found.finished
    )
    if found.embedding is not None:
        table["flags"] = loaded.confidence.flags(found.embedding, found.texts)
    write_table(table, out)
    if cut := int((~found.finished).sum()):
        say(f"{cut} {'report' if cut == 1 else 'reports'} reached the longest length without an end (finished: false)")
    if not sum(map(bool, found.texts)):
        say("warning: all reports are empty")
    print(f"{len(table)} reports → {out}")


def _of_store(
    writer: ReportWriter,
    data: Path,
    split: str,
    limit: int | None,
    options: dict[str, Any],
    embeddings: bool,
    shown: Progress,
) -> tuple[Generated, dict[str, list[Any]]]:
    """Reports of records of a store, and the columns that tell which."""
    from deri.evaluation.features import embed_store
    from deri.generation.tables import store_columns
    from deri.store import Store

    store = Store.open(data)
    rows = store.rows(split)[:limit]
    if not len(rows):
        raise DeriError(f"the store {data} has no record in split {split}: choose another --split")
    found = writer.generate_store(store, rows, progress=shown, **options)
    if embeddings:
        found.embedding = embed_store(writer.encoder, store, rows, batch_size=options["batch_size"])
    return found, store_columns(store, rows)


def _of_files(
    writer: ReportWriter, names: list[str], options: dict[str, Any], shown: Progress
) -> tuple[Generated, dict[str, list[Any]]]:
    """Reports of ECG files, and the columns that tell which; says of which files a part was not read."""
    from deri.ecg.standardise import window_count

    signal = writer.encoder.config.signal
    seconds = signal.samples / signal.fs
    longer: list[str] = []

    def read() -> Iterator[ECG]:
        for i, ecg in enumerate(recordings(names)):
            if window_count(ecg.n_samples, ecg.fs, seconds) > 1:
                longer.append(names[i])
            yield ecg
            shown.update(i + 1, len(names))

    found = writer.generate(read(), **options)
    if longer and options["windows"] == 1:
        others = f" and {len(longer) - 1} more" if len(longer) > 1 else ""
        say(
            f"{longer[0]}{others}: longer than {seconds:g} s, the report is of its beginning alone "
            "(--windows all: one for each window)"
        )
    assert found.record is not None
    assert found.start is not None
    of = [names[i] for i in found.record]
    stems, nothing = [Path(name).stem for name in of], [None] * len(of)
    return found, {"record_id": stems, "file": of, "subject": of, "reference": nothing, "start_s": list(found.start)}


app.command("evaluate")(report_evaluate.evaluate)
app.command("baselines")(report_evaluate.baselines)
app.command("classify")(report_evaluate.classify)
app.command("calibrate")(report_evaluate.calibrate)
