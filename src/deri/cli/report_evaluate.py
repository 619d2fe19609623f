"""The commands of ``deri report`` that judge reports: evaluate, baselines, classify, calibrate."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deri.cli import options as opt
from deri.cli.console import open_store, progress, say, task_summary
from deri.errors import DeriError

if TYPE_CHECKING:
    from deri.generation.efficacy import TextSpace


class Kind(str, Enum):
    """What writes the baseline's reports."""

    frequent = "frequent"
    neighbour = "neighbour"
    template = "template"
    all = "all"


class ByName(str, Enum):
    """How a report becomes scores of classes."""

    text = "text"
    labeller = "labeller"


def evaluate(
    pairs: Annotated[
        list[Path], typer.Argument(help="CSV, parquet or JSONL: reference, generated [, subject, system]")
    ],
    out: Annotated[Path, typer.Option(help="result file, JSON; of several systems also a table beside it, .md")],
    raw: Annotated[bool, typer.Option("--raw", help="compare the texts as they are, without cleaning")] = False,
    certain: Annotated[bool, typer.Option("--certain", help="findings held possible do not count")] = False,
    min_count: Annotated[int, typer.Option(min=1, help="references a finding needs for the macro average")] = 1,
    draws: opt.Draws = 1000,
    seed: opt.BootstrapSeed = 0,
    model: Annotated[str | None, typer.Option(help="also clinical efficacy, in this model's text space")] = None,
    task: Annotated[str | None, typer.Option(help="--model: classes of this task [default: all known ones]")] = None,
    prompts: Annotated[Path | None, typer.Option(help="--model: class texts of this file instead")] = None,
    device: opt.Device = None,
) -> None:
    """Score generated reports: BLEU, ROUGE-L, METEOR, CIDEr-D, and findings by an independent labeller."""
    if model is None and (task or prompts):
        raise DeriError("--task and --prompts are for clinical efficacy: give --model too")
    if task and prompts:
        raise DeriError("--task or --prompts, not both")
    from deri.files import write_json, write_text
    from deri.generation.comparison import evaluate_systems, evaluate_table, markdown
    from deri.generation.tables import read_pairs, read_systems

    options = {"clean": not raw, "uncertain": not certain, "min_count": min_count, "draws": draws, "seed": seed}
    single = read_pairs(pairs[0]) if len(pairs) == 1 else None
    systems = read_systems(pairs) if single is None or "system" in single.columns else {}
    space = _text_space(model, task, prompts, device) if model is not None else None
    if single is not None and not systems:
        result = evaluate_table(single, space, **options)
        write_json(out, result)
        _notes(result)
        print(f"{_line(result)} → {out}")
        return
    table = evaluate_systems(systems, space, **options)
    write_json(out, table)
    text = markdown(table)
    write_text(out.with_suffix(".md"), text)
    _notes(next(iter(table["systems"].values())))
    print(text, end="")
    print(f"{len(systems)} systems → {out}, {out.with_suffix('.md')}")


def _text_space(model: str, task: str | None, prompts: Path | None, device: str | None) -> TextSpace:
    from deri.generation.efficacy import TextSpace
    from deri.models import load_model

    return TextSpace(load_model(model, device=device), model, task, prompts)


def _notes(result: dict[str, Any]) -> None:
    for name, why in result["left_out"].items():
        say(f"{name} left out: {why}")
    if lost := result["without_reference"]:
        say(f"{lost} {'row' if lost == 1 else 'rows'} without a reference left out")


def _line(result: dict[str, Any]) -> str:
    words = " · ".join(f"{name} {entry['value']:.3f}" for name, entry in result["metrics"].items())
    macro = result["findings"]["macro"]
    f1 = "none asserted" if macro["f1"] is None else f"macro-F1 {macro['f1']:.3f} over {macro['findings']}"
    line = f"{result['pairs']} reports · {words} · findings {f1}"
    if efficacy := result.get("clinical_efficacy"):
        line += f" · clinical efficacy F1 {efficacy['f1']:.3f} over {efficacy['classes']} classes"
    if flags := result.get("flags"):
        shown = [
            f"{of} {flags[of]} assertions"
            + (f", precision {p:.3f}" if (p := flags[f"precision_{of}"]) is not None else "")
            for of in ("flagged", "unflagged")
        ]
        line += " · " + " · ".join(shown)
    return line


def baselines(
    model: opt.Model,
    data: opt.DataWithReports,
    out: Annotated[Path, typer.Option(help=".parquet or .jsonl")],
    split: Annotated[str, typer.Option(help="train | val | test | all")] = "test",
    kind: Annotated[Kind, typer.Option(help="frequent report, nearest neighbour's, template of findings")] = Kind.all,
    language: Annotated[
        str | None, typer.Option(help="en | de | sv | reference: that of each own report [default: whichever comes]")
    ] = None,
    skip_damaged: opt.SkipDamaged = False,
    device: opt.Device = None,
) -> None:
    """Write the reports of baselines: what a writer has to beat."""
    import pandas as pd

    from deri.generation.baselines import KINDS, baseline_reports
    from deri.generation.tables import check_name, generated_table, split_rows, store_columns, write_table
    from deri.models import load_model

    check_name(out)
    store = open_store(data, skip_damaged)
    rows = split_rows(store, split)
    kinds = KINDS if kind is Kind.all else (kind.value,)
    with progress("report baselines") as shown:
        loaded = load_model(model, device=device)
        found = baseline_reports(loaded, store, rows, kinds, language=language, progress=shown)
    columns = store_columns(store, rows)
    nothing = [None] * len(rows)
    parts = [
        generated_table(
            {"system": [name] * len(rows), **columns}, texts, log_prob=nothing, n_tokens=nothing,
            finished=[True] * len(rows),
        )
        for name, texts in found.items()
    ]  # fmt: skip
    write_table(pd.concat(parts, ignore_index=True), out)
    print(f"{len(rows)} records, {', '.join(found)} → {out}")


def classify(
    generated: Annotated[Path, typer.Option(help="reports by deri report generate --data, of the records to score")],
    generated_val: Annotated[Path, typer.Option(help="the same of the val split: thresholds are chosen there")],
    data: Annotated[str, typer.Option(help="the store with the labels")],
    task: opt.Task,
    out: opt.ResultFile,
    model: Annotated[str | None, typer.Option(help="gives the text space of --by text")] = None,
    by: Annotated[ByName, typer.Option(help="cosine with class prompts, or the labeller's findings")] = ByName.text,
    prompts: opt.Prompts = None,
    draws: opt.Draws = 1000,
    seed: opt.BootstrapSeed = 0,
    device: opt.Device = None,
) -> None:
    """Score generated reports as a multi-label classifier of a task."""
    from deri.files import write_json
    from deri.generation.classify import classify_reports
    from deri.generation.tables import read_pairs
    from deri.store import Store

    store = Store.open(data)
    scored, chosen_on = read_pairs(generated), read_pairs(generated_val)
    space = None
    if by is ByName.text:
        if model is None:
            raise DeriError("--by text needs --model: the cosine is taken in its text space")
        space = _text_space(model, None, prompts, device)
    result = classify_reports(store, task, scored, chosen_on, space, seed=seed, draws=draws) | {"model": model}
    write_json(out, result)
    print(task_summary(result, out))
    if result["macro_f1"] is not None:
        print(f"  macro F1 {result['macro_f1']:.3f}, accuracy {result['accuracy']:.3f}")


def calibrate(
    writer: Annotated[str, typer.Option(help="writer directory, or run of deri report train")],
    data: opt.DataWithReports,
    split: Annotated[str, typer.Option(help="whose reports are held against the scores")] = "val",
    skip_damaged: opt.SkipDamaged = False,
    device: opt.Device = None,
) -> None:
    """Let the writer say which of its findings the ECG model doubts: confidence.json beside its weights."""
    from deri.generation.writer import calibrate_directory

    store = open_store(data, skip_damaged)
    with progress("report calibrate") as shown:
        confidence = calibrate_directory(writer, store, split=split, device=device, progress=shown)
    known = [entry for entry in confidence.findings.values() if entry.threshold is not None]
    print(
        f"{len(known)} of {len(confidence.findings)} findings calibrated on {confidence.about['records']} records of "
        f"{split} → confidence.json of {writer}"
    )
