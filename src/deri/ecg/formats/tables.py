"""Plain numbers: CSV with the leads as header, NumPy ``.npy`` and ``.npz``."""

from __future__ import annotations

import io
import math
import re
import zipfile
from typing import Any

import numpy as np

from deri.ecg.formats.common import (
    Options,
    load,
    make_ecg,
    require_voltage,
    stated_rate,
    stated_scale,
    to_float,
    twelve_rows,
)
from deri.ecg.leads import LEADS, canonical_lead
from deri.ecg.recording import ECG
from deri.errors import ReadError

_MAX_CSV_BYTES = 128 * 2**20
_MAX_ARRAY_BYTES = 2**28
_UNIT = re.compile(r"^(.*?)[\s_]*[(\[]\s*([^()\[\]]*?)\s*[)\]]$")
_TIME = re.compile(
    r"^(?:time|t|seconds|timestamp)(?:[\s_]*[(\[]?\s*(s|sec|seconds|ms|us|µs)\s*[)\]]?)?$", re.IGNORECASE
)
_TIME_UNITS = {"ms": 1e-3, "us": 1e-6, "µs": 1e-6}
_KEYS = ("signal", "ecg", "data", "arr_0")


def header_cells(head: bytes) -> tuple[list[str], str]:
    """The cells of the first line of a text table and its separator; no cells where it is none."""
    line = head.split(b"\n", 1)[0].removesuffix(b"\r")
    if not line or b"\0" in line:
        return [], ","
    text = line.decode("utf-8-sig", errors="replace")
    separator = max(",;\t", key=text.count)
    return [cell.strip().strip("\"'").strip() for cell in text.split(separator)], separator


def is_csv(head: bytes) -> bool:
    """Whether a file begins with a line that names leads."""
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
        detail = " ".join(str(error).split())[:120]
        raise ReadError(f"{path}: its columns are not all numbers ({detail})", "unreadable_signal") from None
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


def read_npy(path: str, options: Options) -> ECG:
    """Read an array of 12 x n or n x 12 in the order of ``LEADS``; ``fs`` and ``units`` must be given.

    Raises:
        ReadError: ``bad_sampling_rate``, ``bad_units``, ``unsupported_format`` (shape, type), ``truncated_signal``,
            ``several_recordings``, and those of ``make_ecg``.
    """
    data = memoryview(load(path))
    values = twelve_rows(path, parse_npy(path, data), "this array")
    scale, fs = stated_scale(path, options, "a .npy"), stated_rate(path, options, "a .npy")
    return make_ecg(path, "NumPy", list(values * scale), LEADS, fs, {})


def parse_npy(path: str, data: bytes | memoryview) -> np.ndarray:
    """The numeric array of a ``.npy``; never unpickles, and compares its size with its header before using either."""
    stream = io.BytesIO(data[:65536])
    try:
        version = np.lib.format.read_magic(stream)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = reader(stream)
    except Exception as error:  # NumPy raises ValueError, and whatever its literal parser meets
        detail = " ".join(str(error).split())[:120]
        raise ReadError(f"{path}: its NumPy header is damaged ({detail})", "bad_header") from None
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise ReadError(f"{path}: an array of {str(dtype)[:40]} is not supported", "unsupported_format")
    begin, count = stream.tell(), math.prod(int(side) for side in shape)
    if any(side < 0 for side in shape) or count * dtype.itemsize > len(data) - begin:
        raise ReadError(f"{path}: an array of shape {shape} does not fit into the file", "truncated_signal")
    flat = np.frombuffer(data, dtype=dtype, count=count, offset=begin)
    values = flat.reshape(shape, order="F" if fortran else "C")
    return values if dtype.isnative else values.astype(dtype.newbyteorder("="))


def is_npz(archive: zipfile.ZipFile) -> bool:
    """Whether a zip archive is a NumPy one."""
    names = archive.namelist()
    return bool(names) and all(name.endswith(".npy") for name in names)


def read_npz(path: str, archive: zipfile.ZipFile, options: Options) -> ECG:
    """Read the array ``signal``, ``ecg``, ``data`` or ``arr_0`` (or the only 2-D one) of a ``.npz``.

    ``fs``, ``units`` and ``leads`` may be arrays in it; without ``leads`` the order of ``LEADS`` is meant.

    Raises:
        ReadError: as for ``read_npy``; ``too_long`` for members that expand to more than 256 MiB.
    """
    found: dict[str, np.ndarray] = {}
    total = 0
    for info in archive.infolist()[:64]:
        total += info.file_size
        if total > _MAX_ARRAY_BYTES:
            raise ReadError(f"{path}: its arrays expand to more than {_MAX_ARRAY_BYTES} bytes", "too_long")
        with archive.open(info) as member:
            data = member.read(info.file_size)
        if info.filename.removesuffix(".npy") in ("units", "leads"):
            found[info.filename.removesuffix(".npy")] = _parse_text(path, data)
        else:
            found[info.filename.removesuffix(".npy")] = parse_npy(path, data)
    signal = [key for key in _KEYS if key in found] or [
        k for k, v in found.items() if v.ndim == 2 and v.dtype.kind != "U"
    ]
    if len(signal) == 0 or (signal[0] not in _KEYS and len(signal) > 1):
        listed = ", ".join(list(found)[:12])
        raise ReadError(f"{path}: no array named signal, ecg or data among {listed}", "unsupported_format")
    values = found[signal[0]]
    fs = _scalar(found, "fs", "sampling_rate")
    units = str(found["units"].ravel()[0]) if found.get("units", np.empty(0)).size else None
    options = Options(options.fs if options.fs is not None else fs, options.units or units)
    names: Any = LEADS
    if "leads" in found:
        names = [str(name) for name in found["leads"].ravel()]
        if values.ndim != 2 or len(names) not in values.shape:
            raise ReadError(f"{path}: {len(names)} leads do not fit a shape of {values.shape}", "lead_count_mismatch")
        values = values if values.shape[0] == len(names) else values.T
    else:
        values = twelve_rows(path, values, "this array")
    scale, rate = stated_scale(path, options, "this .npz"), stated_rate(path, options, "this .npz")
    return make_ecg(path, "NumPy", list(values * scale), names, rate, {})


def _scalar(found: dict[str, np.ndarray], *keys: str) -> float | None:
    for key in keys:
        if key in found and found[key].size == 1:
            return to_float(str(found[key].ravel()[0]))
    return None


def _parse_text(path: str, data: bytes) -> np.ndarray:
    try:
        return np.load(io.BytesIO(data[:65536]), allow_pickle=False)
    except Exception as error:
        detail = " ".join(str(error).split())[:120]
        raise ReadError(f"{path}: an array of text is damaged ({detail})", "bad_header") from None
