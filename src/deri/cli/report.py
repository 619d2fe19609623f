"""``deri report``: commands about generated reports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Generated reports.", no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.callback()
def report() -> None:
    """Generated reports."""


@app.command("evaluate")
def evaluate(
    pairs: Annotated[Path, typer.Argument(help="CSV or parquet: reference, generated, optionally subject")],
    out: Annotated[Path, typer.Option(help="result file, JSON")],
    raw: Annotated[bool, typer.Option("--raw", help="compare the texts as they are, without cleaning")] = False,
    certain: Annotated[bool, typer.Option("--certain", help="findings held possible do not count")] = False,
    min_count: Annotated[int, typer.Option(min=1, help="references a finding needs for the macro average")] = 1,
    draws: Annotated[int, typer.Option(min=0, help="bootstrap samples; 0: no intervals")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="of the bootstrap")] = 0,
) -> None:
    """Score generated reports: BLEU, ROUGE-L, METEOR, CIDEr-D, and findings by an independent labeller."""
    from deri.cli.console import say
    from deri.files import write_json
    from deri.generation import evaluate_reports, read_pairs

    table = read_pairs(pairs)
    result = evaluate_reports(
        list(table["reference"]),
        list(table["generated"]),
        list(table["subject"]) if "subject" in table.columns else None,
        clean=not raw,
        uncertain=not certain,
        min_count=min_count,
        draws=draws,
        seed=seed,
    )
    write_json(out, result)
    for name, why in result["left_out"].items():
        say(f"{name} left out: {why}")
    if lost := result["without_reference"]:
        say(f"{lost} {'row' if lost == 1 else 'rows'} without a reference left out")
    words = " · ".join(f"{name} {entry['value']:.3f}" for name, entry in result["metrics"].items())
    macro = result["findings"]["macro"]
    f1 = "none asserted" if macro["f1"] is None else f"macro-F1 {macro['f1']:.3f} over {macro['findings']}"
    print(f"{result['pairs']} reports · {words} · findings {f1} → {out}")
