"""``deri pretrain``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deri.cli import options as opt
from deri.cli.console import first_process, open_store, progress


def pretrain(
    data: Annotated[
        list[str], typer.Option(help="store made by deri prepare, with reports; several are mixed, see train.mix")
    ],
    out: Annotated[Path, typer.Option(help="run directory")],
    overrides: opt.Overrides = None,
    recipe: Annotated[str | None, typer.Option(help="a shipped recipe or a .yaml file [default: deri]")] = None,
    init: Annotated[
        str | None, typer.Option(help="start from the weights of a model: directory, run or built-in name")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue the run in --out, or start it")] = False,
    skip_damaged: opt.SkipDamaged = False,
    device: opt.Device = None,
) -> None:
    """Pre-train on the ECG–report pairs of a store; several processes: torchrun -m deri pretrain …"""
    from deri.recipes import load_recipe
    from deri.training import pretrain as run

    stored = out / "recipe.yaml"
    if recipe is None and resume and stored.is_file():
        recipe = str(stored)
    content = load_recipe(recipe or "deri", overrides or [])
    stores = [open_store(path, skip_damaged) for path in data]
    with progress("pretrain") as bar:
        run(stores, out, content, init=init, resume=resume, device=device, progress=bar)
    if first_process():
        print(out)
