"""``deri info STORE --html``: what was stored, refused and doubted, with ECGs on paper. One file, no scripts."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deri._version import __version__
from deri.datasets.tables import outside
from deri.ecg import ECG, LEADS, read_ecg
from deri.ecg.gains import with_common_gain
from deri.ecg.plot import ecg_png
from deri.ecg.quality import wrong_unit
from deri.files import write_text
from deri.store.codes import meaning
from deri.store.overview import Flags

if TYPE_CHECKING:
    from deri.store.reader import Store

_LISTED = 5  # refused files that are named per reason

_STYLE = """
:root { --ink: #1c2430; --soft: #5b6675; --line: #dfe4ea; --bar: #14756b; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); margin: 0 auto; max-width: 1080px; padding: 2rem 1rem; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.25rem; margin: 2.6rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.8rem 0 .2rem; }
p.soft, td.soft, figcaption { color: var(--soft); } p { margin: .2rem 0 .8rem; }
code { font-size: .92em; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .8rem; margin: 1.4rem 0; }
.tile { border: 1px solid var(--line); border-radius: 8px; padding: .7rem 1rem; }
.tile b { display: block; font-size: 1.6rem; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: .9rem; }
figure { margin: 0 0 1.4rem; } figure img { width: 100%; height: auto; display: block; border: 1px solid var(--line); }
.scroll { overflow-x: auto; margin-bottom: 1.4rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
td.n, th.n { text-align: right; white-space: nowrap; } td.bar { width: 22%; min-width: 6rem; }
td.bar i { display: block; height: .7rem; margin-top: .4rem; min-width: 1px; background: var(--bar); }
ul.files { margin: .2rem 0 .8rem; padding-left: 1.2rem; overflow-wrap: anywhere; }
"""


def write_quality_page(store: Store, path: str | Path, *, source: str | Path | None = None, examples: int = 2) -> None:
    """Write the page of a store; the same store and options give the same bytes.

    Args:
        store: any store.
        path: the HTML file.
        source: the root of the data set: refused recordings that can be read are drawn as well. None: they are named.
        examples: recordings drawn per code, spread evenly over all that have it.
    """
    flags = Flags.of(store)
    body = [
        f"<h1>{escape(store.path.resolve().name)}</h1>",
        f"<p class=soft>A store of {escape(store.meta['dataset'])}, written by deri "
        f"{escape(str(store.meta['deri_version']))}; page by deri {__version__}. "
        f"Fingerprint <code>{store.fingerprint[:16]}</code>. For research; not a medical device.</p>",
        _tiles(store, flags),
        *_content(store),
        *_suspicions(store, flags, examples),
        *_rejects(store, None if source is None else Path(source), examples),
        *_good(store, flags, examples),
    ]
    html = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(store.path.resolve().name)}: quality</title>"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )
    write_text(path, html)


def _tiles(store: Store, flags: Flags) -> str:
    suspicious = len(flags.suspicious())
    tiles = [
        (store.recordings, "recordings stored"),
        (len(store.rejects), "refused"),
        (suspicious, "stored, but with a flag to look at"),
        (len(set(store.table["subject_id"].to_pylist()) - {""}), "patients"),
        (len(store.reports), "distinct reports"),
    ]
    if len(store) > store.recordings:
        tiles.insert(1, (len(store), f"windows of {store.samples / store.fs:g} s"))
    cells = "".join(f"<div class=tile><b>{n:,}</b><span>{escape(text)}</span></div>" for n, text in tiles)
    return f"<div class=tiles>{cells}</div>"


def _content(store: Store) -> Iterator[str]:
    rows = store.rows()
    table = store.table.take(rows)
    splits = Counter(table["split"].to_pylist())
    stored, refused = Counter(table["source"].to_pylist()), Counter(store.rejects["source"].tolist())
    yield "<h2>What is in it</h2>"
    yield _table(
        ("source", "stored", "refused"),
        [(source, stored[source], refused[source]) for source in sorted(stored | refused)],
    )
    yield _table(("split", "recordings"), [(name, splits[name]) for name in ("train", "val", "test")])
    shapes = Counter(zip(table["n_samples"].to_pylist(), table["fs"].to_pylist(), strict=True)).most_common()
    lines = [(f"{n / fs:.4g} s at {fs:g} Hz", count) for (n, fs), count in shapes[:8]]
    if len(shapes) > 8:
        lines.append((f"{len(shapes) - 8} other lengths and rates", sum(count for _, count in shapes[8:])))
    yield _table(("as recorded", "recordings"), lines)
    for note in store.meta["notes"]:
        yield f"<p class=soft>{escape(note)}</p>"


def _suspicions(store: Store, flags: Flags, examples: int) -> Iterator[str]:
    yield "<h2>Stored recordings with flags</h2>"
    if not flags.counts:
        yield "<p>None: no recording has any flag.</p>"
        return
    yield "<p class=soft>Flags stand in the column <code>quality</code> of the index; a recording may have several.</p>"
    lines = [(code, n, _bar(n, store.recordings), _sentence(code)) for code, n in flags.counts.items()]
    yield _table(("code", "recordings", "", "meaning"), lines)
    for code in flags.suspicions:
        yield f"<h3><code>{escape(code)}</code></h3><p class=soft>{escape(meaning(code))}"
        where = flags.by_detail(code) if code != "duplicate" else {}
        if where:
            yield " By lead: " + ", ".join(f"{escape(lead)} {n:,}" for lead, n in where.items()) + "."
        yield "</p>"
        for row in _spread(flags.rows_of(code), examples):
            here = [detail for c, detail in _flags_of(store, row) if c == code and detail in LEADS]
            yield _drawn(store, row, here[0] if here and code != "missing_lead" else None)


def _rejects(store: Store, source: Path | None, examples: int) -> Iterator[str]:
    yield "<h2>Refused recordings</h2>"
    if not len(store.rejects):
        yield "<p>None: every recording that the data set names is stored.</p>"
        return
    counts = store.rejects["reason"].value_counts()
    reasons = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    total = store.recordings + len(store.rejects)
    yield _table(
        ("reason", "recordings", "", "meaning"),
        [(code, int(n), _bar(int(n), total), _sentence(str(code))) for code, n in reasons],
    )
    if source is None:
        yield "<p class=soft>A store does not hold refused signals: <code>--root FOLDER</code> draws them.</p>"
    for code, _ in reasons:
        rejects = store.rejects[store.rejects["reason"] == code]
        yield f"<h3><code>{escape(str(code))}</code></h3><ul class=files>"
        for _, row in rejects.head(_LISTED).iterrows():
            yield f"<li>{escape(row['file'])}: {escape(row['detail'])}</li>"
        if len(rejects) > _LISTED:
            yield f"<li>and {len(rejects) - _LISTED:,} more</li>"
        yield "</ul>"
        if source is not None:
            drawn = 0
            for place in _spread(np.arange(len(rejects)), 4 * examples):  # some cannot be read at all
                figure = _refused(source, rejects.iloc[place]) if drawn < examples else None
                drawn += figure is not None
                yield figure or ""


def _good(store: Store, flags: Flags, examples: int) -> Iterator[str]:
    good = np.setdiff1d(np.arange(store.recordings), flags.suspicious())
    if len(good):
        yield f"<h2>For comparison: {min(examples, len(good))} of the {len(good):,} recordings without such a flag</h2>"
        rows = store.rows()
        for recording in _spread(good, examples):
            yield _drawn(store, int(rows[recording]), None)


def _spread(values: np.ndarray, count: int) -> list[int]:
    """At most ``count`` of the values, spread evenly, from the first on."""
    count = min(count, len(values))
    return [int(values[i * len(values) // count]) for i in range(count)]


def _flags_of(store: Store, row: int) -> list[tuple[str, str]]:
    parts = (str(flag).partition(":") for flag in store.table["quality"][row].as_py())
    return [(code, detail) for code, _, detail in parts]


def _drawn(store: Store, row: int, strip: str | None) -> str:
    """A stored row on ECG paper, as it was recorded: without padding, and without the leads that are missing."""
    values = {name: store.table[name][row].as_py() for name in ("record_id", "file", "valid_samples", "start_sample")}
    signal = store.signals([row])[0][:, : values["valid_samples"]]
    signal[~store.lead_mask([row])[0]] = np.nan
    flags = ", ".join(store.table["quality"][row].as_py()) or "no flag"
    start = values["start_sample"] / store.table["fs"][row].as_py()
    where = f", from {start:g} s on" if values["start_sample"] else ""
    caption = f"{values['record_id']} ({values['file']}{where}): {flags}"
    return _figure(ECG(signal, store.fs), values["record_id"], caption, strip)


def _refused(source: Path, row: Mapping[str, Any]) -> str | None:
    """A refused recording on ECG paper; None where it cannot be read."""
    if outside([row["file"]]).any():  # refused as bad_path, and not to be opened for a picture either
        return None
    try:
        ecg = with_common_gain(read_ecg(source / row["file"]))
    except Exception:  # of a reader_error whatever the reader failed with; the detail above the pictures says it
        return None
    if not np.isfinite(ecg.signal).any():
        return None
    caption = f"{row['record_id'] or row['file']}: {row['detail']}"
    if row["reason"] == "wrong_unit" and (unit := wrong_unit(ecg.signal[:, : round(10 * ecg.fs)])):
        ecg = ECG(ecg.signal * (1e-3 if unit == "µV" else 1e3), ecg.fs)
        caption += f". Drawn as if the values were {unit}"
    return _figure(ecg, row["record_id"] or row["file"], caption, None)


def _figure(ecg: ECG, title: str, caption: str, strip: str | None) -> str:
    data = base64.b64encode(ecg_png(ecg, title=title, strip=strip)).decode()
    text = escape(caption)
    return f'<figure><img alt="ECG {text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'


class _Html(str):
    """Text that is HTML already."""


def _bar(n: int, total: int) -> _Html:
    return _Html(f'<i style="width:{100 * n / max(total, 1):.2f}%" title="{100 * n / max(total, 1):.2g} %"></i>')


def _sentence(code: str) -> str:
    return meaning(code) or "see the details below"


def _table(heads: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """A table; numbers to the right with commas, bars in their own cells, everything else escaped."""

    def cell(value: Any) -> str:
        if isinstance(value, _Html):
            return f"<td class=bar>{value}</td>"
        if isinstance(value, int):
            return f"<td class=n>{value:,}</td>"
        return f"<td>{escape(str(value))}</td>"

    def first(value: Any) -> str:
        return f"<td><code>{escape(value)}</code></td>" if heads[0] in ("code", "reason") else cell(value)

    numeric = [bool(lines) and isinstance(lines[0][i], int) for i in range(len(heads))]
    head = "".join(f"<th{' class=n' if n else ''}>{escape(name)}</th>" for name, n in zip(heads, numeric, strict=True))
    rows = "".join(f"<tr>{first(line[0])}{''.join(map(cell, line[1:]))}</tr>" for line in lines)
    return f"<div class=scroll><table><tr>{head}</tr>{rows}</table></div>"
