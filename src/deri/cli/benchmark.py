"""``deri benchmark``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deri.cli.console import progress, say
from deri.cli.evaluate import ProtocolName, SamplingName
from deri.errors import DeriError


def benchmark(
    out: Annotated[Path, typer.Option(help="directory of the results; an interrupted benchmark continues there")],
    model: Annotated[
        list[str] | None, typer.Option(help="model directory, run, hub id or random:RECIPE; NAME=… names it")
    ] = None,
    data: Annotated[
        list[Path] | None, typer.Option(help="store made by deri prepare; repeat it, or list more behind it")
    ] = None,
    ablation: Annotated[
        Path | None, typer.Option(help="YAML of recipes to train and compare instead, see docs/benchmark.md")
    ] = None,
    more: Annotated[list[Path] | None, typer.Argument(metavar="[STORE]…", help="further stores", hidden=True)] = None,
    tasks: Annotated[str | None, typer.Option(help="which tasks, comma between them; all when not given")] = None,
    fraction: Annotated[str, typer.Option(help="of the training records, percent")] = "1,10,100",
    seeds: Annotated[int, typer.Option(min=1, help="how many training samples; figures are means over them")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="the first seed")] = 42,
    protocol: Annotated[ProtocolName, typer.Option(help="of zero-shot and probes")] = ProtocolName.corrected,
    sampling: Annotated[SamplingName, typer.Option(help="of a fraction: records, or whole patients")] = (
        SamplingName.random
    ),
    transfer: Annotated[
        list[str] | None, typer.Option(help="TRAIN:TEST, two tasks: probe trained on one, tested on the other")
    ] = None,
    mapping: Annotated[Path | None, typer.Option(help="YAML: which classes of a transfer are the same")] = None,
    saliency: Annotated[int, typer.Option(min=0, help="of how many recordings to draw occlusion maps")] = 0,
    figures: Annotated[bool, typer.Option("--figures/--no-figures")] = True,
    folds: Annotated[int, typer.Option(min=0, help="cross-validation by patient over all records; 0: splits")] = 0,
    draws: Annotated[int, typer.Option(min=0, help="of the bootstrap; 0: no intervals")] = 1000,
    device: Annotated[str, typer.Option(help="cpu | cuda | cuda:N")] = "cpu",
) -> None:
    """Models × tasks × {zero-shot, probes}, beside random and classical rows: results.json, tables, figures."""
    if ablation is not None:
        if model or data:
            raise DeriError("--ablation names its own recipes and stores: leave --model and --data out")
        _ablation(ablation, out, device)
        return
    if not model or not data:
        raise DeriError("name at least one --model and one --data (or an --ablation FILE)")
    from deri.evaluation.benchmark import run_benchmark
    from deri.evaluation.systems import Options

    if folds in (1, 2):
        raise DeriError(f"--folds {folds}: give 3 or more (training, validation and test are different folds), or 0")
    options = Options(
        fractions=fractions_of(fraction),
        protocol=protocol.value,
        sampling=sampling.value,
        seed=seed,
        seeds=seeds,
        draws=draws,
        folds=folds,
    )
    with progress("benchmark: features") as show:
        results = run_benchmark(
            model,
            [*data, *(more or [])],
            out,
            options,
            tasks=[one.strip() for one in tasks.split(",")] if tasks else None,
            transfers=transfer or (),
            mapping=mapping,
            saliency=saliency,
            figures=figures,
            device=device,
            say=say,
            show=show.update,
        )
    print(f"{len(results['cells'])} cells, {len(results['missing'])} missing → {out / 'table.md'}")


def _ablation(file: Path, out: Path, device: str) -> None:
    from deri.training.ablation import ablation_table, run_ablation

    with progress("ablation: steps") as show:
        result = run_ablation(file, out, device=device, progress=show)
    print(ablation_table(result))


def fractions_of(text: str) -> tuple[float, ...]:
    """``1,10,100`` as percentages, ascending."""
    try:
        values = sorted(float(part) for part in text.split(","))
    except ValueError:
        raise DeriError(f"--fraction {text}: give percentages such as 100 or 1,10,100") from None
    if any(not 0 < value <= 100 for value in values) or len(set(values)) < len(values):
        raise DeriError(f"--fraction {text}: give different percentages above 0 and up to 100")
    return tuple(values)
