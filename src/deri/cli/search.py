"""``deri search``: the recordings of an index that are nearest to texts and ECGs."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deri.cli import options
from deri.cli.console import progress, say, say_doubts
from deri.cli.inputs import REPORT, Reading, check_table_name, write_table
from deri.errors import DeriError

if TYPE_CHECKING:
    import pandas as pd

    from deri.ecg import ECG

_PATH = re.compile(r"(?:/|\.{1,2}/|~)\S*$|\S+\.[A-Za-z]\w{1,4}$")
"""What is meant as a path, even where there is no such file."""

WHERE = """only recordings of which this is true, e.g. 'age > 60 and sex == "female" and "AFIB" in labels'"""


def search(
    queries: Annotated[
        list[str], typer.Argument(metavar="QUERY…", help="texts and ECG files; of several the mean of their embeddings")
    ],
    index: Annotated[Path, typer.Option(help="made by deri index")],
    model: Annotated[str | None, typer.Option(help=f"{options.MODEL} [default: that of the index]")] = None,
    top: Annotated[int, typer.Option(min=1, help="how many recordings")] = 10,
    where: Annotated[str | None, typer.Option(help=WHERE)] = None,
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    out: Annotated[Path | None, typer.Option(help="write a table instead: .csv, .parquet or .xlsx")] = None,
    fs: options.SamplingRate = None,
    units: options.Units = None,
    gain: options.Gain = None,
    leads: options.LeadNames = None,
    device: options.Device = None,
) -> None:
    """Find the recordings nearest to a text, an ECG, or several of them: cosines in [-1, 1] that rank, no diagnosis.

    A query that is a file is read as an ECG. Another is a text: words, a code such as AFIB, German, a denied finding.
    """
    import numpy as np

    from deri.evaluation.search import Index, query_vector

    reading = Reading.of(fs, units, gain, leads)
    if out is not None:
        check_table_name(out)
    opened = Index.open(index)
    if not len(opened):
        raise DeriError(f"the index {index} is empty: add recordings with deri index INPUT --out {index}")
    texts, ecgs = _asked(queries, reading)
    loaded = opened.model(model, device=device)
    direction, notes = query_vector(loaded, texts, ecgs, windows=opened.meta["windows"])
    for note in notes:
        say(note)
    found = opened.search(direction, top=top, where=where)
    if found.empty:
        say(f"none of {len(opened)} recordings fits --where {where}")
    else:
        found = found.dropna(axis="columns", how="all")
    found.insert(0, "rank", np.arange(1, len(found) + 1))
    if out is not None:
        write_table(found, out)
        print(f"{len(found)} recordings → {out}")
    elif json:
        print(found.to_json(orient="records", indent=2, force_ascii=False))
    elif not found.empty:
        _print(found)


def _asked(queries: list[str], reading: Reading) -> tuple[list[str], list[ECG]]:
    """Texts and recordings of the queries; says which is which."""
    from deri.ecg import read_ecg, recordings_in

    texts, ecgs = [], []
    for query in queries:
        file = query.split("::")[0]
        if not ("://" in query or os.path.isfile(file) or os.path.isfile(f"{file}.hea")):
            if _PATH.match(query) or (os.sep in query and os.path.isdir(query)):
                raise DeriError(f"{query}: is no ECG file; name one, or write a text in words")
            texts.append(query)
            continue
        if len(members := recordings_in(query)) > 1:
            raise DeriError(f"{query} holds {len(members)} recordings: name one of them, e.g. {members[0]}")
        ecgs.append(read_ecg(query, **reading.options))
    with progress("search") as show:
        for query, ecg in zip([query for query in queries if query not in texts], ecgs, strict=True):
            say_doubts(query, ecg, show)
    say(
        "query: "
        + " + ".join([*(f'text "{text}"' for text in texts), *(f"ECG {ecg.metadata['source_file']}" for ecg in ecgs)])
    )
    return texts, ecgs


def _print(found: pd.DataFrame) -> None:
    """The columns that people look at; long texts are cut."""
    hidden = ["leads", "split", "interpretation" if REPORT in found else ""]
    if not found["file"].duplicated().any():  # no store
        hidden.append("record_id")
    shown = found.drop(columns=hidden, errors="ignore")
    for name in shown.columns.drop(["rank", "score"]):
        cells = ["" if _unknown(cell) else _cell(cell) for cell in shown[name]]
        shown[name] = cells if name in ("file", "record_id", "subject") else [_cut(cell) for cell in cells]
    print(shown.to_string(index=False, formatters={"score": "{:.3f}".format}))


def _unknown(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _cell(cell: Any) -> str:
    return f"{cell:g}" if isinstance(cell, float) else cell if isinstance(cell, str) else ";".join(map(str, cell))


def _cut(text: str) -> str:
    return text if len(text) <= 70 else f"{text[:69]}…"
