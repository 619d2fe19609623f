"""``deri demo``: the main job on simulated data, in minutes, without a hub, a data set or a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deri.cli import options as opt
from deri.cli.console import progress


def demo(
    out: Annotated[Path, typer.Option(help="an earlier demo in it is replaced")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(min=0)] = 0,
    train_records: Annotated[int, typer.Option(min=200)] = 5200,
    test_records: Annotated[int, typer.Option(min=200)] = 800,
    overrides: opt.Overrides = None,
) -> None:
    """Simulate, prepare, pre-train, classify without labels, probe and write reports; with a page of results."""
    from deri.demo.steps import run_demo

    with progress("demo") as show:
        result = run_demo(
            out,
            train_records=train_records,
            test_records=test_records,
            seed=seed,
            overrides=tuple(overrides or ()),
            progress=show,
        )
    scores = result["reports"]
    print(
        f"zero-shot macro AUROC {result['macro_auroc']:.3f} over {result['findings']} simulated findings "
        f"(random encoder {result['macro_auroc_random']:.3f})\n"
        f"reports of {result['reports_n']} unseen patients' ECGs: finding F1 {scores['writer']['finding_f1']:.3f} "
        f"(best baseline {max(s['finding_f1'] for name, s in scores.items() if name != 'writer'):.3f}), "
        f"BLEU-4 {scores['writer']['bleu_4']:.3f}\n"
        f"{result['seconds']['total']:.0f} s; page: {out / 'index.html'}"
    )
