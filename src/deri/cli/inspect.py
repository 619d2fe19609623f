"""``deri info``: says what a path is."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deri.cli import options
from deri.cli.console import lead_note, progress, say
from deri.cli.inputs import Reading, is_store
from deri.errors import DeriError
from deri.files import read_sealed
from deri.remote import MANIFESTS, Address, RemoteError, fetch_folder, place

if TYPE_CHECKING:
    from deri.store import Store

_LISTED = 30  # entries of a table that are printed; --json has all


def info(
    source: Annotated[
        str,
        typer.Argument(
            metavar="PATH", help="ECG file (also ARCHIVE::MEMBER or a URL), store, run, model, writer, index"
        ),
    ],
    plot: Annotated[Path | None, typer.Option(help="draw an ECG file on paper: .png, .svg or .pdf")] = None,
    against: Annotated[str | None, typer.Option(help="another store: look for shared patients and recordings")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="store: compare all samples with their checksums")] = False,
    html: Annotated[Path | None, typer.Option(help="store: write a page of counts and examples on ECG paper")] = None,
    root: Annotated[Path | None, typer.Option(help="of the store's data set: --html draws refused recordings")] = None,
    examples: Annotated[int, typer.Option(min=0, max=50, help="recordings that --html draws per code")] = 2,
    fs: options.SamplingRate = None,
    units: options.Units = None,
    gain: options.Gain = None,
    leads: options.LeadNames = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Say what an ECG file, store, run, model, index or report writer is."""
    if against is not None:
        _leakage(source, against, as_json)
        return
    if verify:
        _verify(source, as_json)
        return
    store, path = is_store(source), _local(source)
    if html is not None and not store:
        raise DeriError(
            f"--html {html}: the page is that of a store, and {source} is none; an ECG file has --plot FILE"
        )
    if root is not None and html is None:
        raise DeriError(f"--root {root} goes with --html FILE, which draws the refused recordings in it")
    if root is not None and not root.is_dir():
        raise DeriError(f"--root {root} is no folder: name the one that deri prepare read")
    if store:
        about = _store(source, html, root, examples)
    elif path.is_dir():
        about = _directory(path)
    elif path.suffix == ".onnx":
        about = _exported(path)
    else:
        about = _ecg(source, plot, Reading.of(fs, units, gain, leads).options)
    if as_json:
        print(json.dumps(about, indent=2, default=str, ensure_ascii=False))
    else:
        width = max(len(key) for key in about)
        for key, value in about.items():
            print(f"{key:<{width}}  {_text(value)}")


def _local(source: str) -> Path:
    """The path that ``source`` means: of a directory at an address that of a copy, without weights."""
    from deri.models.builtin import builtin_directory

    path = place(source)
    if isinstance(path, Address):
        listed = False
        with suppress(RemoteError):  # of a recording its reader tells why
            listed = any((path / name).is_file() for name in MANIFESTS[1:])
        return fetch_folder(path, (".json", ".jsonl", ".txt", ".md", ".model")) if listed else Path(source)
    known = builtin_directory(source) if source.startswith("deri-") and not path.exists() else None
    return known or path


def _directory(path: Path) -> dict[str, Any]:
    from deri.models.directory import HEAD, MODEL, WRITER, describe, format_of

    if (path / "index.json").is_file():
        return _index(path)
    table = {"deri-run": _run, WRITER.format: _writer, MODEL.format: _model, HEAD.format: _model}
    for folder in (path, path / WRITER.inside, path / MODEL.inside):
        if tell := table.get(format_of(folder) or ""):
            return tell(folder)
    known = "not a store, run, model, index or report writer; of a folder of ECG files name one"
    raise DeriError(f"{path} is {describe(path)}: {known}")


def _exported(path: Path) -> dict[str, Any]:
    from deri.models.export import ExportedEncoder

    about = ExportedEncoder(path).about
    known = {"what": "ECG encoder of deri export", **{name: about[name] for name in ("recipe", "precision", "weights")}}
    return known | {"preprocessing": about["preprocessing"]}


def _index(path: Path) -> dict[str, Any]:
    from deri.evaluation.search import Index

    index = Index.open(path)
    known = [name for name in index.table.column_names if index.table[name].null_count < len(index.table)]
    about = {"what": "index of deri search", "recordings": len(index), "model": index.meta["model"]["name"]}
    return about | {"windows": index.meta["windows"] or "all", "columns": known}


def _leakage(path: str, against: str, as_json: bool) -> None:
    from deri.evaluation.leakage import find_leakage, leakage_text
    from deri.store import Store

    with progress("reading recordings") as show:
        found = find_leakage(Store.open(path), Store.open(against), show)
    print(json.dumps(found, indent=2, ensure_ascii=False) if as_json else leakage_text(found))


def _verify(path: str, as_json: bool) -> None:
    """Name the rows of a store whose samples are not what was written."""
    from deri.store import Store
    from deri.store.reader import CURE

    with progress("reading recordings") as show:
        store = Store.open(path, skip_damaged=True, progress=show)
    damaged = store.table.take(store.left_out).select(["record_id", "file", "shard", "row"]).to_pylist()
    if as_json:
        print(json.dumps({"rows": len(store), "damaged": damaged}, indent=2, ensure_ascii=False))
    elif not damaged:
        print(f"{path}: tables and the samples of {len(store)} rows are what was written")
    for one in () if as_json else damaged:
        print(f"{one['record_id']} ({one['file']}): row {one['row']} of shard {one['shard']}")
    if damaged:
        raise DeriError(f"{len(damaged)} of {len(store)} rows of {path} are damaged: {CURE}")


def _ecg(path: str, plot: Path | None, given: dict[str, Any]) -> dict[str, Any]:
    import numpy as np

    from deri.ecg import plot_ecg, read_ecg

    ecg = read_ecg(path, **given)
    if note := lead_note(path, ecg):
        say(note)
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


def _store(path: str, html: Path | None, root: Path | None, examples: int) -> dict[str, Any]:
    from deri.store import Store
    from deri.store.overview import Flags, content

    store = Store.open(path)
    if html is not None:
        from deri.store.page import write_quality_page

        write_quality_page(store, html, source=root, examples=examples)
    index = store.index
    return {
        "what": "store",
        "data set": store.meta["dataset"],
        "records": store.recordings,
        "windows": _windows_text(store),
        "missing leads": _missing_leads(store),
        "patients": int(index["subject_id"].nunique()),
        "splits": index["split"].iloc[store.rows()].value_counts().to_dict(),
        "distinct reports": len(store.reports),
        "signal": f"{store.samples} samples at {store.fs:g} Hz",
        "tasks": {task: len(classes) for task, classes in store.tasks.items()},
        **content(store),
        "rejected": store.rejects["reason"].value_counts().to_dict(),
        "flags": Flags.of(store).counts,
        "duplicates": _duplicates(store),
        "version": store.meta["version"],
        "fingerprint": store.fingerprint,
        "verified": "tables; samples when they are read, all of them with --verify",
        **({"page": str(html)} if html is not None else {}),
    }


def _windows_text(store: Store) -> str:
    longer = store.meta["summary"].get("longer", 0)
    if len(store) > store.recordings:
        return f"{len(store)} of {store.samples / store.fs:g} s; {longer} records are longer than one"
    return f"{len(store)}, one per record" + (f"; {longer} records are longer" if longer else "")


def _duplicates(store: Store) -> dict[str, int]:
    """Recordings with the samples of an earlier one, and how many of them leak."""
    found = store.meta["summary"].get("duplicates", {})
    names = ("recordings", "across_splits", "across_subjects")
    return {name.replace("_", " "): found[name] for name in names if found.get(name)}


def _missing_leads(store: Store) -> dict[str, int]:
    """Records without each lead, of those that lack any."""
    mask = store.lead_mask(store.rows())
    counts = {lead: int(n) for lead, n in zip(store.meta["leads"], (~mask).sum(axis=0), strict=True) if n}
    return {"records": int((~mask).any(axis=1).sum()), **counts} if counts else {}


def _run(path: Path) -> dict[str, Any]:
    from deri.training.log import read_metrics

    about = read_sealed(path / "run.json", "copy the run again")
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
    from deri.models.calibration import CALIBRATION
    from deri.models.directory import HEAD, MODEL, format_of, read_manifest

    content = read_manifest(MODEL, path)
    config = content["model"]
    signal = config["signal"]
    head = read_manifest(HEAD, path) if format_of(path) == HEAD.format else None
    return {
        "what": "fine-tuned model" if head else "model",
        **({"task": head["task"], "classes": head["classes"]} if head else {}),
        **({"calibrated": _calibrated(path)} if (path / CALIBRATION).is_file() else {}),
        "family": config["family"],
        "backbone": config["backbone"],
        "recipe": content.get("recipe"),
        "dimensions": config["dim"],
        "text encoder": f"{config['text']['encoder']} ({config['text']['pooling']} pooling)",
        "input": f"{signal['samples']} samples at {signal['fs']:g} Hz, {signal['normalise']}",
        "deri version": content["deri_version"],
    }


def _calibrated(path: Path) -> dict[str, str]:
    """The findings that have probabilities, by task."""
    from deri.models.calibration import parse_calibration

    tasks = parse_calibration(path).tasks
    return {task: f"{', '.join(one.classes)} ({one.n:,} recordings)" for task, one in tasks.items()}


def _writer(path: Path) -> dict[str, Any]:
    from deri.models.directory import WRITER, read_manifest

    content = read_manifest(WRITER, path)
    config, training = content["writer"], content.get("training", {})
    return {
        "what": "report writer",
        "directory": str(path),
        "writer": config["writer"],
        "memory": f"{config['memory']} ({' × '.join(map(str, content['memory_shape']))})",
        "trained on": f"{training['records']:,} records" if training else "unknown",
        "encoder": str(path / "encoder"),
        "deri version": content["deri_version"],
    }


def _text(value: Any) -> str:
    if isinstance(value, dict):
        shown = [f"{k}: {v}" for k, v in list(value.items())[:_LISTED]]
        return ", ".join([*shown, f"{len(value) - _LISTED} more"] if len(value) > _LISTED else shown) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(str(v) for v in value) or "none"
    return str(value)
