"""``deri info``: says what a path is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from deri.errors import DeriError


def info(
    source: Annotated[
        str, typer.Argument(metavar="PATH", help="ECG file (also ARCHIVE::MEMBER or a URL), store, run or model")
    ],
    plot: Annotated[Path | None, typer.Option(help="draw an ECG file on paper: .png or .svg")] = None,
    against: Annotated[Path | None, typer.Option(help="another store: look for shared patients and recordings")] = None,
    fs: Annotated[float | None, typer.Option(min=0.1, help="Hz, for files that do not say: CSV, NumPy, HDF5")] = None,
    units: Annotated[str | None, typer.Option(help="mV | uV, for the same files")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Say what an ECG file, store, run or model is."""
    path = Path(source)
    if against is not None:
        _leakage(path, against, as_json)
        return
    if (path / "store.json").is_file():
        about = _store(path)
    elif (path / "run.json").is_file():
        about = _run(path)
    elif (path / "config.json").is_file():
        about = _model(path)
    elif (path / "model" / "config.json").is_file():  # what deri finetune writes
        about = _model(path / "model")
    elif path.is_dir():
        raise DeriError(f"{path} is a directory without store.json, run.json or config.json: not a store, run or model")
    else:
        about = _ecg(source, plot, fs, units)
    if as_json:
        print(json.dumps(about, indent=2, default=str, ensure_ascii=False))
    else:
        width = max(len(key) for key in about)
        for key, value in about.items():
            print(f"{key:<{width}}  {_text(value)}")


def _leakage(path: Path, against: Path, as_json: bool) -> None:
    from deri.cli.console import progress
    from deri.evaluation.leakage import find_leakage, leakage_text
    from deri.store import Store

    with progress("reading recordings") as show:
        found = find_leakage(Store.open(path), Store.open(against), show)
    print(json.dumps(found, indent=2, ensure_ascii=False) if as_json else leakage_text(found))


def _ecg(path: str, plot: Path | None, fs: float | None, units: str | None) -> dict[str, Any]:
    import numpy as np

    from deri.ecg import plot_ecg, read_ecg

    ecg = read_ecg(path, fs=fs, units=units)
    if plot:
        plot_ecg(ecg, plot)
    recorded = [lead for lead in ecg.leads if lead not in ecg.missing_leads]
    finite = np.isfinite(ecg.signal).any(axis=1)
    low, high = np.nanmin(ecg.signal[finite], axis=1), np.nanmax(ecg.signal[finite], axis=1)
    return {
        "what": "ECG recording",
        "file": path,
        "fs": f"{ecg.fs:g} Hz",
        "duration": f"{ecg.duration:.2f} s ({ecg.n_samples} samples)",
        "leads": recorded,
        "missing leads": list(ecg.missing_leads),
        "range": f"{float(low.min()):.2f} to {float(high.max()):.2f} mV" if finite.any() else "no values",
        "non-finite samples": int((~np.isfinite(ecg.signal[finite])).sum()),
        **{key.replace("_", " "): value for key, value in ecg.metadata.items() if value not in (None, [], {}, "")},
        **({"plot": str(plot)} if plot else {}),
    }


def _store(path: Path) -> dict[str, Any]:
    from deri.store import Store

    store = Store.open(path)
    index = store.index
    return {
        "what": "store",
        "data set": store.meta["dataset"],
        "records": len(store),
        "patients": int(index["subject_id"].nunique()),
        "splits": index["split"].value_counts().to_dict(),
        "distinct reports": len(store.reports),
        "signal": f"{store.samples} samples at {store.fs:g} Hz",
        "tasks": {task: len(classes) for task, classes in store.tasks.items()},
        "rejected": store.rejects["reason"].value_counts().to_dict(),
        "version": store.meta["version"],
        "fingerprint": store.fingerprint,
    }


def _run(path: Path) -> dict[str, Any]:
    from deri.training.log import read_metrics

    about = json.loads((path / "run.json").read_text(encoding="utf-8"))
    lines = read_metrics(path)
    val = [line for line in lines if line["split"] == "val" and line["loss"] is not None]
    best = min(val, key=lambda line: float(line["loss"])) if val else None
    return {
        "what": "pre-training run",
        "data": about["data"],
        "store": about["store"],
        "processes": about["processes"],
        "steps": max((line["step"] for line in lines), default=0),
        "best validation": best,
        "model": str(path / "model") if (path / "model" / "config.json").is_file() else "none yet",
        "deri version": about["deri_version"],
    }


def _model(path: Path) -> dict[str, Any]:
    from deri.models.directory import read_config

    content = read_config(path)
    config = content["model"]
    signal = config["signal"]
    return {
        "what": "model",
        "family": config["family"],
        "backbone": config["backbone"],
        "recipe": content.get("recipe"),
        "dimensions": config["dim"],
        "text encoder": f"{config['text']['encoder']} ({config['text']['pooling']} pooling)",
        "input": f"{signal['samples']} samples at {signal['fs']:g} Hz, {signal['normalise']}",
        "deri version": content["deri_version"],
    }


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k}: {v}" for k, v in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(str(v) for v in value) or "none"
    return str(value)
