"""``deri embed``, ``deri classify`` and ``deri convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deri.cli.console import progress, recordings, say, window_option
from deri.errors import DeriError

WINDOWS = "N | all: windows of a long recording to take, spread evenly; their mean embedding counts"


def classify(
    files: Annotated[list[str], typer.Argument(help="ECG files; also ARCHIVE::MEMBER or a URL")],
    labels: Annotated[list[str], typer.Option(help="a text to score; repeat it")],
    model: Annotated[str | None, typer.Option(help="model directory, run, hub id or built-in name")] = None,
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    windows: Annotated[str, typer.Option(help=WINDOWS)] = "all",
    per_window: Annotated[bool, typer.Option("--per-window", help="a row per window, with its start in s")] = False,
    device: Annotated[str, typer.Option(help="cpu | cuda | cuda:N")] = "cpu",
) -> None:
    """Score recordings against texts: cosines in [-1, 1] that rank recordings; not probabilities, not a diagnosis.

    Without --model the built-in deri-sim answers, which was trained on simulated recordings alone.
    """
    import numpy as np
    import pandas as pd

    from deri.models import load_model
    from deri.models.base import pool_windows
    from deri.models.builtin import DEFAULT_MODEL

    wanted = window_option(windows)
    if model is None:
        model = DEFAULT_MODEL
        say(f"{model}: trained on simulated recordings alone; for research, not a diagnosis")
    loaded = load_model(model, device=device)
    texts = loaded.encode_text(labels)
    leads: list[list[str]] = []
    parts = list(loaded.window_embeddings(recordings(files, leads), windows=wanted))
    record = np.concatenate([part.record for part in parts])
    if per_window:
        vectors = np.concatenate([part.embedding for part in parts])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        table = pd.DataFrame(vectors @ texts.T, columns=labels)
        table.insert(0, "start_s", np.concatenate([part.start for part in parts]))
        table.insert(0, "file", [files[i] for i in record])
    else:
        table = pd.DataFrame(pool_windows(parts) @ texts.T, columns=labels)
        table.insert(0, "file", files)
        if json:
            table.insert(1, "leads", leads)
            table.insert(2, "windows", np.bincount(record))
    if json:
        print(table.to_json(orient="records", indent=2))
    else:
        decimals = dict.fromkeys(labels, "{:.3f}".format)
        print(table.to_string(index=False, formatters={**decimals, "start_s": "{:g}".format}))


def embed(
    inputs: Annotated[list[str], typer.Argument(help="ECG files, or stores made by deri prepare")],
    model: Annotated[str, typer.Option(help="model directory, run or hub id")],
    out: Annotated[Path, typer.Option(help="parquet file")],
    windows: Annotated[str, typer.Option(help=f"{WINDOWS}; of a store all that it holds")] = "all",
    device: Annotated[str, typer.Option(help="cpu | cuda | cuda:N")] = "cpu",
) -> None:
    """Write embeddings, unit length: a row per recording with its file or store, its record and a list of floats."""
    import pandas as pd

    from deri.evaluation.features import embed_store
    from deri.files import atomic_path
    from deri.models import load_model
    from deri.store import Store

    wanted = window_option(windows)
    loaded = load_model(model, device=device)
    tables = []
    with progress("embed") as show:
        for i, path in enumerate(inputs):
            if (Path(path) / "store.json").is_file():
                store = Store.open(path)
                rows = store.rows("all")
                vectors = embed_store(loaded, store, rows, progress=show)
                ids = store.index["record_id"].iloc[rows].astype(str).tolist()
            else:
                vectors, ids = loaded.encode_ecg(recordings([path], []), windows=wanted), [Path(path).stem]
                show.update(i + 1, len(inputs))
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
