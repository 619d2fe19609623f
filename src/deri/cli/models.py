"""``deri embed``, ``deri classify`` and ``deri convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deri.cli.console import progress
from deri.errors import DeriError


def classify(
    files: Annotated[list[str], typer.Argument(help="ECG files; also ARCHIVE::MEMBER or a URL")],
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
    table.insert(0, "file", files)
    if json:
        print(table.to_json(orient="records", indent=2))
    else:
        print(table.to_string(index=False, float_format=lambda x: f"{x:.3f}"))


def embed(
    inputs: Annotated[list[str], typer.Argument(help="ECG files, or stores made by deri prepare")],
    model: Annotated[str, typer.Option(help="model directory, run or hub id")],
    out: Annotated[Path, typer.Option(help="parquet file")],
    device: Annotated[str, typer.Option(help="cpu | cuda | cuda:N")] = "cpu",
) -> None:
    """Write embeddings, unit length: a row per recording with its file or store, its record and a list of floats."""
    import pandas as pd

    from deri.ecg import read_ecg
    from deri.evaluation.embed import embed_store
    from deri.files import atomic_path
    from deri.models import load_model
    from deri.store import Store

    loaded = load_model(model, device=device)
    tables = []
    with progress("embed") as show:
        for i, path in enumerate(inputs):
            if (Path(path) / "store.json").is_file():
                store = Store.open(path)
                vectors = embed_store(loaded, store, store.rows("all"), show=show)
                ids = store.index["record_id"].astype(str).tolist()
            else:
                vectors, ids = loaded.encode_ecg(read_ecg(path)), [Path(path).stem]
                show(i + 1, len(inputs))
            tables.append(pd.DataFrame({"file": path, "record_id": ids, "embedding": list(vectors)}))
    table = pd.concat(tables, ignore_index=True)
    with atomic_path(out) as temporary:
        table.to_parquet(temporary, index=False)
    print(f"{len(table)} embeddings of {loaded.config.dim} dimensions → {out}")


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
