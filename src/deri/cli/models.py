"""``deri classify`` and ``deri convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deri.errors import DeriError


def classify(
    files: Annotated[list[Path], typer.Argument(help="ECG files")],
    model: Annotated[str, typer.Option(help="model directory, run or hub id")],
    labels: Annotated[list[str], typer.Option(help="a text to score; repeat it")],
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    device: Annotated[str, typer.Option(help="cpu | cuda | cuda:N")] = "cpu",
) -> None:
    """Score recordings against texts: cosines in [-1, 1] that rank recordings; not probabilities, not a diagnosis."""
    from deri.ecg import read_ecg
    from deri.models import load_model

    loaded = load_model(model, device=device)
    table = loaded.classify([read_ecg(file) for file in files], labels)
    table.insert(0, "file", [str(file) for file in files])
    if json:
        print(table.to_json(orient="records", indent=2))
    else:
        print(table.to_string(index=False, float_format=lambda x: f"{x:.3f}"))


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
    model.save_pretrained(out)
    print(f"{model.family} {model.config.backbone} → {out}")
