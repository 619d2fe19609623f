"""``deri benchmark``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deri.cli import options as opt
from deri.cli.console import open_store, progress
from deri.errors import DeriError


def benchmark(
    out: Annotated[Path, typer.Option(help="directory of the results; an interrupted benchmark continues there")],
    model: Annotated[list[str] | None, typer.Option(help=f"{opt.MODEL}; NAME=… names it")] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="store made by deri prepare; repeat it, or list more behind it")
    ] = None,
    ablation: Annotated[
        Path | None, typer.Option(help="YAML of recipes to train and compare instead, see docs/benchmark.md")
    ] = None,
    more: Annotated[list[str] | None, typer.Argument(metavar="[STORE]…", help="further stores", hidden=True)] = None,
    tasks: Annotated[str | None, typer.Option(help="which tasks, comma between them; all when not given")] = None,
    fraction: opt.Fraction = "1,10,100",
    seeds: opt.Seeds = None,
    seed: opt.FirstSeed = 42,
    protocol: opt.Protocol = opt.ProtocolName.corrected,
    sampling: opt.Sampling = opt.SamplingName.random,
    transfer: Annotated[
        list[str] | None, typer.Option(help="TRAIN:TEST, two tasks: probe trained on one, tested on the other")
    ] = None,
    mapping: Annotated[Path | None, typer.Option(help="YAML: which classes of a transfer are the same")] = None,
    saliency: Annotated[int, typer.Option(min=0, help="of how many recordings to draw occlusion maps")] = 0,
    figures: Annotated[bool, typer.Option("--figures/--no-figures")] = True,
    folds: Annotated[int, typer.Option(min=0, help="cross-validation by patient over all records; 0: splits")] = 0,
    draws: opt.Draws = 1000,
    skip_damaged: opt.SkipDamaged = False,
    device: opt.Device = None,
) -> None:
    """Models × tasks × {zero-shot, probes}, beside random and classical rows: results.json, tables, figures."""
    if ablation is not None:
        if model or data or skip_damaged:
            raise DeriError("--ablation names its own recipes and stores: leave --model, --data and --skip-damaged out")
        _ablation(ablation, out, device)
        return
    if not model or not data:
        raise DeriError("name at least one --model and one --data (or an --ablation FILE)")
    from deri.evaluation.benchmark import Scope, run_benchmark
    from deri.evaluation.options import EvalOptions

    options = EvalOptions(
        fractions=opt.fractions_of(fraction),
        protocol=protocol.value,
        sampling=sampling.value,
        seed=seed,
        seeds=seeds,
        draws=draws,
        folds=folds,
    )
    scope = Scope(
        [one.strip() for one in tasks.split(",")] if tasks else (), transfer or (), mapping, saliency, figures
    )
    stores = [open_store(path, skip_damaged) for path in [*data, *(more or [])]]
    with progress("benchmark: features") as shown:
        results = run_benchmark(model, stores, out, options, scope, device=device, progress=shown)
    print(f"{len(results['cells'])} cells, {len(results['missing'])} missing → {out / 'table.md'}")


def _ablation(file: Path, out: Path, device: str | None) -> None:
    from deri.training.ablation import ablation_table, run_ablation

    with progress("ablation: steps") as show:
        result = run_ablation(file, out, device=device, progress=show)
    print(ablation_table(result))
