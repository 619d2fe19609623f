"""``deri export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deri.cli import options


def export(
    model: options.Model,
    out: Annotated[Path, typer.Option(help=".onnx, or .pt2 for torch.export.load")],
    int8: Annotated[bool, typer.Option("--int8", help="8-bit weights and activations, .onnx alone")] = False,
) -> None:
    """Write the ECG encoder as one file for other programs, and compare the file with the model.

    The file holds what it expects: rate, samples, leads, units and scaling. deri embed --model FILE.onnx takes it.
    """
    from deri.models import load_model
    from deri.models.export import check_export, export_model

    check_export(out, int8)
    found = export_model(load_model(model), out, int8=int8)
    print(f"{model} → {out}: {'int8' if int8 else 'fp32'}, {out.stat().st_size / 1e6:.1f} MB")
    print(
        f"on {found.recordings} simulated recordings: cosine to the model {found.median:.6f} in the median, "
        f"at least {found.cosine:.6f}; values of unit-length embeddings differ by at most {found.largest:.1e}"
    )
