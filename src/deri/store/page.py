"""``deri info STORE --html``: what was stored, refused and doubted, with ECGs on paper. One file, no scripts."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deri.datasets.tables import outside
from deri.ecg import ECG, LEADS, read_ecg
from deri.ecg.gains import with_common_gain
from deri.ecg.plot import ecg_png
from deri.ecg.quality import wrong_unit
from deri.files import write_text
from deri.html import render
from deri.store.codes import meaning
from deri.store.overview import Flags, content

if TYPE_CHECKING:
    from deri.store.reader import Store

_LISTED = 5  # refused files that are named per reason
_SHAPES = 8  # lengths and rates that are counted each for itself
Picture = tuple[str, str]  # PNG as base64 text, caption


def write_quality_page(store: Store, path: str | Path, *, source: str | Path | None = None, examples: int = 2) -> None:
    """Write the page of a store; the same store and options give the same bytes.

    Args:
        store: any store.
        path: the HTML file.
        source: the root of the data set: refused recordings that can be read are drawn as well. None: they are named.
        examples: recordings drawn per code, spread evenly over all that have it.
    """
    flags = Flags.of(store)
    name = store.name
    root = None if source is None else Path(source)
    good = np.setdiff1d(np.arange(store.recordings), flags.suspicious())
    rows = store.rows()
    values = {
        "name": name,
        "dataset": store.meta["dataset"],
        "written_by": store.meta["deri_version"],
        "fingerprint": store.fingerprint[:16],
        "counts": _counts(store, flags),
        **_content(store),
        "flags": [(code, n, n / max(store.recordings, 1), _sentence(code)) for code, n in flags.counts.items()],
        "suspicions": [
            (
                code,
                meaning(code),
                flags.by_detail(code) if code != "duplicate" else {},
                [_drawn(store, row, _lead_of(store, row, code)) for row in _spread(flags.rows_of(code), examples)],
            )
            for code in flags.suspicions
        ],
        **_rejects(store, root, examples),
        "with_source": root is not None,
        "good_recordings": len(good),
        "good": [_drawn(store, int(rows[recording]), None) for recording in _spread(good, examples)],
    }
    write_text(path, render("store/page.html", f"{name}: quality", **values))


def _counts(store: Store, flags: Flags) -> list[tuple[int, str]]:
    counts = [
        (store.recordings, "recordings stored"),
        (len(store.rejects), "refused"),
        (len(flags.suspicious()), "stored, but with a flag to look at"),
        (len(set(store.table["subject_id"].to_pylist()) - {""}), "patients"),
        (len(store.reports), "distinct reports"),
    ]
    if len(store) > store.recordings:
        counts.insert(1, (len(store), f"windows of {store.samples / store.fs:g} s"))
    return counts


def _content(store: Store) -> dict[str, Any]:
    """Recordings by source, by split, and by length and rate."""
    table = store.table.take(store.rows())
    splits = Counter(table["split"].to_pylist())
    stored, refused = Counter(table["source"].to_pylist()), Counter(store.rejects["source"].tolist())
    shapes = Counter(zip(table["n_samples"].to_pylist(), table["fs"].to_pylist(), strict=True)).most_common()
    lines = [(f"{n / fs:.4g} s at {fs:g} Hz", count) for (n, fs), count in shapes[:_SHAPES]]
    if len(shapes) > _SHAPES:
        others = sum(count for _, count in shapes[_SHAPES:])
        lines.append((f"{len(shapes) - _SHAPES} other lengths and rates", others))
    return {
        "sources": [(source, stored[source], refused[source]) for source in sorted(stored | refused)],
        "splits": [(name, splits[name]) for name in ("train", "val", "test")],
        "shapes": lines,
        "content": [
            (name, list(value.items()) if isinstance(value, dict) else value) for name, value in content(store).items()
        ],
        "notes": store.meta["notes"],
    }


def _rejects(store: Store, source: Path | None, examples: int) -> dict[str, Any]:
    """Refused recordings by reason: their number, some of the files, and pictures of those that can be read."""
    counts = store.rejects["reason"].value_counts()
    reasons = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    total = store.recordings + len(store.rejects)
    refused, reading = [], store.meta.get("plan", {}).get("reading", {})
    for code, n in reasons:
        rejects = store.rejects[store.rejects["reason"] == code]
        pictures: list[Picture] = []
        for place in _spread(np.arange(len(rejects)), 4 * examples):  # some cannot be read at all
            if source and len(pictures) < examples and (picture := _refused(source, rejects.iloc[place], reading)):
                pictures.append(picture)
        files = rejects.head(_LISTED)[["file", "detail"]].to_numpy().tolist()
        refused.append((code, files, max(0, int(n) - _LISTED), pictures))
    lines = [(code, int(n), int(n) / max(total, 1), _sentence(str(code))) for code, n in reasons]
    return {"reasons": lines, "refused": refused}


def _spread(values: np.ndarray, count: int) -> list[int]:
    """At most ``count`` of the values, spread evenly, from the first on."""
    count = min(count, len(values))
    return [int(values[i * len(values) // count]) for i in range(count)]


def _lead_of(store: Store, row: int, code: str) -> str | None:
    """The first lead that a row's flags with the code name, for the rhythm strip; a missing one cannot be drawn."""
    parts = (str(flag).partition(":") for flag in store.table["quality"][row].as_py())
    leads = [detail for found, _, detail in parts if found == code and detail in LEADS]
    return leads[0] if leads and code != "missing_lead" else None


def _drawn(store: Store, row: int, strip: str | None) -> Picture:
    """A stored row on ECG paper, as it was recorded: without padding, and without the leads that are missing."""
    values = {name: store.table[name][row].as_py() for name in ("record_id", "file", "start_sample")}
    flags = ", ".join(store.table["quality"][row].as_py()) or "no flag"
    start = values["start_sample"] / store.table["fs"][row].as_py()
    where = f", from {start:g} s on" if values["start_sample"] else ""
    caption = f"{values['record_id']} ({values['file']}{where}): {flags}"
    return _picture(store.recording(row), values["record_id"], strip), caption


def _refused(source: Path, row: Mapping[str, Any], reading: Mapping[str, Any]) -> Picture | None:
    """A refused recording on ECG paper; None where it cannot be read."""
    if outside([row["file"]]).any():  # refused as bad_path, and not to be opened for a picture either
        return None
    try:
        ecg = with_common_gain(read_ecg(source / row["file"], **reading, fallback=True))
    except Exception:  # of a reader_error whatever the reader failed with; the detail above the pictures says it
        return None
    if not np.isfinite(ecg.signal).any():
        return None
    caption = f"{row['record_id'] or row['file']}: {row['detail']}"
    if row["reason"] == "wrong_unit" and (unit := wrong_unit(ecg.signal[:, : round(10 * ecg.fs)])):
        ecg = ECG(ecg.signal * (1e-3 if unit == "µV" else 1e3), ecg.fs)
        caption += f". Drawn as if the values were {unit}"
    return _picture(ecg, row["record_id"] or row["file"], None), caption


def _picture(ecg: ECG, title: str, strip: str | None) -> str:
    return base64.b64encode(ecg_png(ecg, title=title, strip=strip)).decode()


def _sentence(code: str) -> str:
    return meaning(code) or "see the details below"
