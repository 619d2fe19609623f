"""CSV with the leads as header."""

from __future__ import annotations

import io
import re

import numpy as np

from deri.ecg.formats.common import (
    Format,
    Options,
    brief,
    load,
    make_ecg,
    require_voltage,
    stated_rate,
    stated_scale,
)
from deri.ecg.leads import canonical_lead
from deri.ecg.recording import ECG
from deri.errors import ReadError

_MAX_CSV_BYTES = 128 * 2**20
_UNIT = re.compile(r"^(.*?)[\s_]*[(\[]\s*([^()\[\]]*?)\s*[)\]]$")
_TIME = re.compile(
    r"^(?:time|t|seconds|timestamp)(?:[\s_]*[(\[]?\s*(s|sec|seconds|ms|us|µs)\s*[)\]]?)?$", re.IGNORECASE
)
_TIME_UNITS = {"ms": 1e-3, "us": 1e-6, "µs": 1e-6}


def header_cells(head: bytes) -> tuple[list[str], str]:
    """The cells of the first line of a text table and its separator; no cells where it is none."""
    line = head.split(b"\n", 1)[0].removesuffix(b"\r")
    if not line or b"\0" in line:
        return [], ","
    text = line.decode("utf-8-sig", errors="replace")
    separator = max(",;\t", key=text.count)
    return [cell.strip().strip("\"'").strip() for cell in text.split(separator)], separator


def _sniff(path: str, head: bytes) -> bool:
    cells, _ = header_cells(head)
    return len(cells) > 0 and any(canonical_lead(_split_unit(cell)[0]) for cell in cells)


def _split_unit(cell: str) -> tuple[str, str]:
    match = _UNIT.match(cell)
    return (match[1], match[2]) if match else (cell, "")


def read_csv(path: str, options: Options) -> ECG:
    """Read a table with one column per lead, named in the first line: ``I,II,V1`` or ``I (uV),II (uV)``.

    The rate comes from a column ``time`` (s) or ``time_ms``, or from ``fs``; the unit from the header or ``units``.
    An empty cell is a gap.

    Raises:
        ReadError: ``bad_sampling_rate``, ``bad_units`` (both with the cure), ``unreadable_signal``, and those of
            ``make_ecg``.
    """
    import pandas as pd

    data = load(path, _MAX_CSV_BYTES)
    cells, separator = header_cells(data[:65536])
    parts = [_split_unit(cell) for cell in cells]
    leads = [i for i, (name, _) in enumerate(parts) if canonical_lead(name)]
    times = [i for i, cell in enumerate(cells) if _TIME.match(cell)]
    decimal = "," if separator == ";" and b"," in data[:65536] and b"." not in data[:65536] else "."
    columns = [*leads, *times[:1]]
    try:
        table = pd.read_csv(
            io.BytesIO(data), sep=separator, decimal=decimal, header=None, skiprows=1, usecols=columns,
            dtype=np.float64, skipinitialspace=True, encoding="latin-1",
        )  # fmt: skip
    except Exception as error:  # pandas raises ValueError, ParserError, EmptyDataError …
        raise ReadError(f"{path}: its columns are not all numbers ({brief(error)})", "unreadable_signal") from None
    scales = [
        require_voltage(path, parts[i][0], parts[i][1]) if parts[i][1] else stated_scale(path, options, "this CSV")
        for i in leads
    ]
    if times:
        fs = _rate_of(path, table[times[0]].to_numpy(), cells[times[0]])
        if options.fs is not None and abs(options.fs - fs) > 0.01 * fs:
            raise ReadError(f"{path}: its time column means {fs:g} Hz, not fs={options.fs:g}", "bad_sampling_rate")
    else:
        fs = stated_rate(path, options, "this CSV")
    others = [cells[i] for i in range(len(cells)) if i not in columns]
    channels = [table[i].to_numpy() * scale for i, scale in zip(leads, scales, strict=True)]
    names = [parts[i][0] for i in leads] + others
    return make_ecg(path, "CSV", [*channels, *([np.empty(0)] * len(others))], names, fs, {})


def _rate_of(path: str, times: np.ndarray, name: str) -> float:
    match = _TIME.match(name)
    seconds = times * _TIME_UNITS.get((match[1] or "s").lower() if match else "s", 1.0)
    steps = np.diff(seconds)
    if steps.size == 0 or not np.isfinite(seconds).all() or steps.min() <= 0:
        raise ReadError(f"{path}: its column {name!r} is not ascending time", "bad_sampling_rate")
    step = (seconds[-1] - seconds[0]) / steps.size
    if np.abs(steps - step).max() > 0.51 * step:
        raise ReadError(f"{path}: its column {name!r} has gaps; samples at even steps are needed", "bad_sampling_rate")
    fs = float(1.0 / step)
    if not 20 <= fs <= 1e5:
        raise ReadError(f"{path}: its column {name!r} read as seconds means {fs:g} Hz; call it time_ms if it is "
                        "in milliseconds", "bad_sampling_rate")  # fmt: skip
    # Times are written with few digits; 499.98 Hz of rounded times are 500 Hz.
    return float(round(fs)) if abs(fs - round(fs)) < 2e-4 * fs else fs


FORMAT = Format("CSV with leads as header", _sniff, read_csv, takes=("fs", "units", "gain"))
