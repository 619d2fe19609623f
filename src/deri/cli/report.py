"""``deri report``: commands about generated reports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from deri.cli import report_evaluate
from deri.errors import DeriError

app = typer.Typer(help="Generated reports.", no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.callback()
def report() -> None:
    """Generated reports."""


@app.command("train")
def train(
    model: Annotated[str, typer.Option(help="ECG model: directory, run, hub id or random:RECIPE")],
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
    device: Annotated[str | None, typer.Option(help="cpu | cuda | cuda:N")] = None,
) -> None:
    """Train a writer on the ECGs and reports of a store; the best weights by its val split."""
    from deri.cli.console import progress, say
    from deri.generation.confidence import calibrate_directory
    from deri.generation.config import load_config
    from deri.generation.train import stored_config, train_writer
    from deri.models import load_model
    from deri.store import Store

    config = load_config(
        overrides or [],
        **{
            **(stored_config(out) if resume else {}),
            **{
                name: value
                for name, value in {"writer": writer, "memory": memory, "tokenizer": tokenizer}.items()
                if value
            },
            **({"lora": {"rank": lora}} if lora else {}),
            **({"encoder": "tuned"} if tune_encoder else {}),
        },
    )
    store = Store.open(data)
    loaded = load_model(model)
    with progress("report train") as show:
        train_writer(loaded, store, out, config, model_name=model, resume=resume, device=device, say=say, show=show)
    with progress("report calibrate") as show:
        calibrate_directory(out / "writer", store, device=device or "cpu", show=show)
    print(out / "writer")


@app.command("generate")
def generate(
    out: Annotated[Path, typer.Option(help=".parquet or .jsonl")],
    writer: Annotated[str, typer.Option(help="writer directory, run of deri report train, or hub id")],
    files: Annotated[list[str] | None, typer.Argument(metavar="[FILE]…", help="ECG files")] = None,
    data: Annotated[Path | None, typer.Option(help="a store instead of files")] = None,
    split: Annotated[str, typer.Option(help="train | val | test | all")] = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="only the first recordings")] = None,
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
    device: Annotated[str, typer.Option(help="cpu | cuda | cuda:N")] = "cpu",
) -> None:
    """Write the reports of a store's records or of ECG files: drafts for research, not a diagnosis."""
    from deri.cli.console import progress, say
    from deri.generation.data import generated_table, store_columns
    from deri.generation.pairs import check_name, write_table
    from deri.generation.writer import CONFIDENCE_FILE, Generated, ReportWriter

    if bool(files) == (data is not None):
        raise DeriError("report generate takes either ECG files or a store (--data STORE --split test)")
    check_name(out)
    if not sample and (temperature is not None or top_p is not None):
        raise DeriError("--temperature and --top-p are for --sample")
    options = {
        "beams": beams, "length_penalty": length_penalty, "no_repeat_ngram": no_repeat_ngram,
        "repetition_penalty": repetition_penalty, "max_tokens": max_tokens, "sample": sample or None,
        "temperature": temperature, "top_p": top_p,
    }  # fmt: skip
    loaded = ReportWriter.from_pretrained(writer, device=device)
    marked = loaded.directory is not None and (loaded.directory / CONFIDENCE_FILE).is_file()
    embeddings: list[Any] = []
    with progress("report generate") as show:
        if data is not None:
            from deri.store import Store

            store = Store.open(data)
            rows = store.rows(split)[:limit]
            if not len(rows):
                raise DeriError(f"the store {data} has no record in split {split}: choose another --split")
            found = loaded.generate_store(store, rows, batch_size=batch_size, seed=seed, show=show, **options)
            columns = store_columns(store, rows)
            if marked:
                from deri.evaluation.embed import embed_store

                embeddings.append(embed_store(loaded.encoder, store, rows, batch_size=batch_size))
        else:
            from deri.ecg import read_ecg

            names = list(files or [])[:limit]
            parts = []
            for start in range(0, len(names), batch_size):
                ecgs = [read_ecg(name) for name in names[start : start + batch_size]]
                parts.append(loaded.generate(ecgs, batch_size=batch_size, seed=seed + start, **options))
                if marked:
                    embeddings.append(loaded.encoder.encode_ecg(ecgs))
                show(start + len(ecgs), len(names))
            found = Generated.join(parts)
            columns = {
                "record_id": [Path(name).stem for name in names], "file": names, "subject": names,
                "reference": [None] * len(names),
            }  # fmt: skip
    table = generated_table(
        columns, found.texts, log_prob=found.log_probs, n_tokens=found.n_tokens, finished=found.finished
    )
    if marked:
        import numpy as np

        table["flags"] = loaded.confidence.flags(np.concatenate(embeddings), found.texts)
    write_table(table, out)
    if cut := int((~found.finished).sum()):
        say(f"{cut} {'report' if cut == 1 else 'reports'} reached the longest length without an end (finished: false)")
    if not sum(map(bool, found.texts)):
        say("warning: all reports are empty")
    print(f"{len(table)} reports → {out}")


app.command("evaluate")(report_evaluate.evaluate)
app.command("baselines")(report_evaluate.baselines)
app.command("classify")(report_evaluate.classify)
app.command("calibrate")(report_evaluate.calibrate)
