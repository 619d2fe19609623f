"""``deri embed``, ``deri classify`` and ``deri convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deri.cli import options
from deri.cli.console import progress, say, window_option
from deri.cli.findings import print_findings, print_table, with_scores
from deri.cli.inputs import Loaded, Reading, check_table_name, embed_inputs, write_table
from deri.errors import DeriError, some
from deri.files import atomic_path
from deri.workers import open_engine


def classify(
    inputs: options.Inputs,
    labels: Annotated[
        list[str] | None, typer.Option(help="a text, or a code such as AFIB; repeat it [default: all calibrated]")
    ] = None,
    model: Annotated[str | None, typer.Option(help=f"{options.MODEL} [default: deri-open]")] = None,
    prevalence: Annotated[
        list[str] | None, typer.Option(help="how common: 0.05 for every finding, AFIB=0.02 for one; repeat it")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    out: Annotated[Path | None, typer.Option(help="write a table instead: .csv, .parquet or .xlsx")] = None,
    windows: options.Windows = "all",
    per_window: Annotated[bool, typer.Option("--per-window", help="a row per window, with its start in s")] = False,
    strict: options.Strict = False,
    skip_damaged: options.SkipDamaged = False,
    anonymous: options.Anonymous = None,
    fs: options.SamplingRate = None,
    units: options.Units = None,
    gain: options.Gain = None,
    leads: options.LeadNames = None,
    device: options.Device = None,
) -> None:
    """Score recordings against texts; where the model is calibrated, probabilities too. Not a diagnosis.

    A score is a cosine in [-1, 1] that ranks recordings for one text. A model with a head (deri finetune, deri probe
    --save) gives the probabilities of its classes. Without --labels all calibrated findings come in order, with rate,
    intervals and axis. Without --model the built-in deri-open answers, trained on simulated recordings and PTB-XL. A
    file that cannot be used is named and passed over. Subject, split and labels of a folder's CSV or of a store go
    along.
    """
    import numpy as np

    from deri.evaluation.answers import ask, read_priors
    from deri.models import load_model
    from deri.models.builtin import DEFAULT_MODEL

    wanted = window_option(windows)
    reading = Reading.of(fs, units, gain, leads, anonymous, strict=strict, skip_damaged=skip_damaged)
    texts, priors = _texts(labels), read_priors(prevalence or [], "--prevalence")
    if out is not None:
        check_table_name(out)
    if model is None:
        model = DEFAULT_MODEL
        say(f"{model}: a small model, trained on simulated recordings and PTB-XL; for research, not a diagnosis")
    loaded = load_model(model, device=device)
    question = ask(loaded, texts, priors)
    for note in question.notes:
        say(note)
    with progress("classify") as show:
        found = embed_inputs(lambda: loaded, inputs, reading, wanted, show, measure=texts is None)
    scores, table = question.of_windows(found.parts, per_window=per_window), found.table(reading.hidden)
    record, start, _ = map(np.concatenate, zip(*found.parts, strict=True))
    if per_window:
        table = table.iloc[record].reset_index(drop=True)
        table.insert(1, "start_s", start)
    else:
        table["windows"] = np.bincount(record)
    table, columns = with_scores(table, question, scores)
    if out is not None:
        write_table(table, out)
        print(f"{len(table)} rows → {out}")
    elif json:
        print(table.drop(columns="record_id").to_json(orient="records", indent=2))
    elif texts is None:
        print_findings(table, question, scores)
    else:
        print_table(table, columns, per_window=per_window)
    uncalibrated = [label for label, known in zip(question.labels, question.calibrated, strict=True) if not known]
    if uncalibrated and question.bias is None:  # a head gives probabilities, not cosines
        say(f"{some(uncalibrated, 4)}: cosine, for ranking only")


def _texts(labels: list[str] | None) -> list[str] | None:
    """The labels, each once; None where none are given."""
    if not labels:
        return None
    if not all(label.strip() for label in labels):
        raise DeriError("--labels is empty: name a text to score, e.g. 'atrial fibrillation'")
    once = list(dict.fromkeys(labels))
    if len(once) < len(labels):
        say(f"--labels: {len(labels) - len(once)} given twice, scored once")
    return once


def embed(
    inputs: options.Inputs,
    model: Annotated[str, typer.Option(help=f"{options.MODEL}; or FILE.onnx of deri export")],
    out: Annotated[Path, typer.Option(help=".parquet, .csv or .xlsx")],
    windows: options.Windows = "all",
    strict: options.Strict = False,
    skip_damaged: options.SkipDamaged = False,
    anonymous: options.Anonymous = None,
    fs: options.SamplingRate = None,
    units: options.Units = None,
    gain: options.Gain = None,
    leads: options.LeadNames = None,
    device: options.Device = None,
    workers: options.Workers = None,
    engine: options.Engine = options.EngineName.local,
    precision: options.Precision = options.PrecisionName.fp32,
) -> None:
    """Write embeddings, unit length: a row per recording with its file or store and what is known of it.

    In parquet they are a column of lists, elsewhere a column for each dimension. Of a store all windows count.
    """
    import pandas as pd

    from deri.models.export import load_encoder

    wanted = window_option(windows)
    reading = Reading.of(fs, units, gain, leads, anonymous, strict=strict, skip_damaged=skip_damaged)
    check_table_name(out)
    loaded = Loaded(load_encoder, model, device, precision.value)
    with progress("embed") as show, open_engine(engine.value, workers, device=device) as opened:
        found = embed_inputs(loaded, inputs, reading, wanted, show, engine=opened)
    vectors, table = found.pooled(), found.table(reading.hidden)
    if out.suffix == ".parquet":
        table["embedding"] = list(vectors)
    else:
        columns = [f"e{i}" for i in range(vectors.shape[1])]
        table = pd.concat([table, pd.DataFrame(vectors, columns=columns)], axis="columns")
    write_table(table, out)
    print(f"{len(table)} embeddings of {vectors.shape[1]} dimensions → {out}")


def convert(
    checkpoint: Annotated[Path, typer.Argument(help="released DERI or MERL checkpoint (.pth, .safetensors)")],
    out: Annotated[Path, typer.Option(help="new model directory")],
    text_encoder: Annotated[str | None, typer.Option(help="name, hub id or directory")] = None,
) -> None:
    """Turn a released checkpoint into a model directory; every tensor must be accounted for."""
    from deri.models import import_checkpoint

    if out.exists() and any(out.iterdir()):
        raise DeriError(f"--out {out} exists and is not empty; name a new directory")
    model = import_checkpoint(checkpoint, text_encoder)
    with atomic_path(out) as folder:
        model.save_pretrained(folder)
    print(f"{model.family} {model.config.backbone} → {out}")
