"""CSV with the leads as header, and the single lead that an Apple Watch exports."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from deri.ecg.formats.common import (
    Format,
    Options,
    device_name,
    load,
    make_ecg,
    refuse_options,
    require_voltage,
    stated_rate,
    stated_scale,
    units_per_mv,
)
from deri.ecg.leads import canonical_lead
from deri.ecg.recording import ECG
from deri.errors import DeriError, ReadError
from deri.tables import TextTable, decode, parse_text_table

_MAX_BYTES = 128 * 2**20
_MAX_CELL = 64  # characters of a header's cell; patterns take long on a line that is no header
_VOLT = r"(?:[munµμ]V|V|(?:milli|micro|nano)?volts?)"
# "I (uV)", "V1 [mV]", "I, mV", "I_uV", and "ecg uV" where the unit has a prefix.
_UNIT = re.compile(
    rf"^(.*?)(?:[\s_]*[(\[]\s*([^()\[\]]*?)\s*[)\]]|\s*,\s*({_VOLT}|m?s|sec|seconds)|[\s_]+([munµμ]V))$", re.IGNORECASE
)
# What stands in brackets and is no unit: another lead, or how it differs.
_QUALIFIER = re.compile(r"v\d|av|inv|easi|right|left|post|neg|-", re.IGNORECASE)
_TIME = re.compile(
    r"^(?:(?:elapsed[\s_]*)?time|t|sec|seconds|timestamp|zeit|tijd)(?:[\s_]*(s|sec|ms|us|µs|ns))?$", re.IGNORECASE
)
_TIME_UNITS = {"ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_SECONDS = ("", "s", "sec", "second", "seconds")
_CLOCK = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:[.,]\d*)?)", re.ASCII)
_COUNTS = ("counts", "count", "adu", "raw", "lsb", "digital")
_UNNAMED = ("ecg", "ekg", "voltage", "amplitude", "signal")


class Column(NamedTuple):
    """A cell of the header."""

    name: str
    unit: str  # empty where none is stated


def _column(cell: str) -> Column:
    match = _UNIT.match(cell) if len(cell) <= _MAX_CELL else None
    unit = next(filter(None, match.groups()[1:]), "") if match else ""
    if match is None or (unit and units_per_mv(unit) is None and _QUALIFIER.search(unit)):
        return Column(cell, "")
    return Column(match[1].strip(), "" if unit.lower() in _COUNTS else unit)


def _sniff(path: str, head: bytes) -> bool:
    try:
        table = parse_text_table(path, _beginning(path, head))
    except DeriError:
        return False
    names = [_column(cell).name for cell in table.columns]
    if any(canonical_lead(name) for name in names):
        return True
    # A table of numbers that calls a column "ecg": its reader asks for the lead.
    first = table.lines[0].split(table.separator) if table.lines else []
    named = [i for i, name in enumerate(names) if name.lower() in _UNNAMED]
    return any(i < len(first) and re.fullmatch(r"\s*-?\d+([.,]\d+)?\s*", first[i]) for i in named)


def _beginning(path: str, head: bytes) -> str:
    """The whole lines at the beginning of a file of text."""
    end = len(head) - len(head) % 2 if b"\0" in head[:200] else head.rfind(b"\n") + 1 or len(head)
    return decode(path, head[:end])


def read_csv(path: str, options: Options) -> ECG:
    """Read a table with one column per lead, named in the first line: ``I,II,V1`` or ``I (uV),II (uV)``.

    The rate comes from a column ``time`` (s), ``time_ms`` or of clock times, or from ``fs``; the unit from the header,
    a second line of units, ``units`` or ``gain``. An empty cell is a gap. Every row has as many fields as the header.

    Raises:
        ReadError: ``bad_sampling_rate``, ``bad_units`` (both with the cure), ``unreadable_signal`` (naming the line),
            ``unknown_leads``, and those of ``make_ecg``.
    """
    data = load(path, _MAX_BYTES)
    try:
        table = parse_text_table(path, decode(path, data))
        columns, table = _with_units([_column(cell) for cell in table.columns], table)
        names = [
            options.lead(column.name) if options.lead(cell) == cell else options.lead(cell)
            for cell, column in zip(table.columns, columns, strict=True)
        ]
        leads = [i for i, name in enumerate(names) if canonical_lead(name)]
        times = [i for i, column in enumerate(columns) if i not in leads and _TIME.match(column.name)][:1]
        others = [i for i in range(len(columns)) if i not in leads and i not in times]
        if not leads:
            listed = ", ".join(repr(columns[i].name) for i in others[:12])
            raise ReadError(
                f"{path}: no column is named after a lead ({listed}); name it: read_ecg(path, leads={{'ecg': 'I'}}) or "
                '--leads "ecg=I"',
                "unknown_leads",
            )
        values = table.numbers(leads)
        seconds = _seconds(path, table, times[0], columns[times[0]]) if times else None
    except ReadError:
        raise
    except DeriError as error:
        raise ReadError(str(error), "unreadable_signal") from None
    scales = []
    for i in leads:
        if columns[i].unit:
            scales.append(require_voltage(path, columns[i].name, columns[i].unit))
            if options.units is None or scales[-1] != 1 / (units_per_mv(options.units) or 1):
                refuse_options(path, f"column {columns[i].name} states its unit", options, "units", "gain")
        else:
            scales.append(stated_scale(path, options, "this CSV"))
    if seconds is not None:
        fs = _rate_of(path, seconds, table.columns[times[0]])
        if options.fs is not None and abs(options.fs - fs) > 0.01 * fs:
            refuse_options(path, f"its time column means {fs:g} Hz, not {options.fs:g}", options, "fs")
    else:
        fs = stated_rate(path, options, "this CSV")
    channels = [values[:, k] * scale for k, scale in enumerate(scales)] + [np.empty(0)] * len(others)
    return make_ecg(path, "CSV", channels, [names[i] for i in leads] + [table.columns[i] for i in others], fs, {})


def _with_units(columns: list[Column], table: TextTable) -> tuple[list[Column], TextTable]:
    """Columns and table where a second line of units (PhysioNet's ``'seconds','mV'``) is taken into the header."""
    first = next(replace(table, lines=table.lines[:1]).rows(), None)
    if first is None:
        return columns, table
    cells = [cell.strip(" '\"()[]") for cell in first]
    known = [
        units_per_mv(cell) is not None or cell.lower() in (*_SECONDS, *_TIME_UNITS, *_COUNTS) or ":" in cell
        for cell in cells
    ]
    if not all(known) or not any(units_per_mv(cell) is not None for cell in cells):
        return columns, table
    units = ["" if ":" in cell or cell.lower() in _COUNTS else cell for cell in cells]
    merged = [Column(column.name, unit or column.unit) for column, unit in zip(columns, units, strict=True)]
    return merged, replace(table, lines=table.lines[1:], first_line=table.first_line + 1)


def _seconds(path: str, table: TextTable, index: int, column: Column) -> np.ndarray:
    """The time column in seconds."""
    first = next(table.rows(), None)
    if first is None or not _CLOCK.fullmatch(first[index].strip(" '\"[]")):
        match = _TIME.match(column.name)
        unit = (column.unit or (match[1] if match else "") or "").lower()
        return table.numbers([index])[:, 0] * _TIME_UNITS.get(unit, 1.0)
    found = [_CLOCK.fullmatch(row[index].strip(" '\"[]")) for row in table.rows()]
    if not all(found):
        raise ReadError(f"{path}: its column {column.name!r} holds no times", "bad_sampling_rate")
    parts = [(float(m[1] or 0), float(m[2]), float(m[3].replace(",", "."))) for m in found if m]
    return np.array(parts) @ np.array([3600.0, 60.0, 1.0])


def _rate_of(path: str, seconds: np.ndarray, name: str) -> float:
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


# --- Apple Watch

_HERTZ = re.compile(r'^[^,\n]*,\s*"?(\d+(?:[.,]\d+)?)\s*(?:hertz|hz)"?\s*$', re.IGNORECASE | re.MULTILINE)
_SAMPLE = re.compile(r"-?\d+(?:[.,]\d+)?", re.ASCII)


def _sniff_apple(path: str, head: bytes) -> bool:
    try:
        text = _beginning(path, head)
    except DeriError:
        return False
    found = _HERTZ.search(text)
    return found is not None and text.count("\n", 0, found.start()) < 20


def read_apple(path: str, options: Options) -> ECG:
    """Read the export of an Apple Watch: lines ``key,value`` in any language, then one value a line, point or comma.

    Raises:
        ReadError: ``bad_sampling_rate``, ``bad_units``, ``unknown_leads``, ``unreadable_signal`` (naming the line), and
            those of ``make_ecg``.
    """
    try:
        lines = decode(path, load(path, _MAX_BYTES)).splitlines()
    except DeriError as error:
        raise ReadError(str(error), "unreadable_signal") from None
    begin = next((i for i, line in enumerate(lines) if _SAMPLE.fullmatch(line.strip())), len(lines))
    said = [line.partition(",")[2].strip().strip('"') for line in lines[:begin]]
    rates = [match[1] for match in map(_HERTZ.match, lines[:begin]) if match]
    names = [value for value in map(options.lead, said) if canonical_lead(value)]
    units = [value for value in said if units_per_mv(value) is not None]
    if len(rates) != 1 or len(names) != 1 or len(units) != 1:
        raise ReadError(f"{path}: its head does not name one rate, one lead and one unit", "bad_header")
    values = []
    for number, line in enumerate(lines[begin:], start=begin + 1):
        if line.strip() and not _SAMPLE.fullmatch(line.strip()):
            raise ReadError(f"{path}: line {number}: {line[:40]!r} is no number", "unreadable_signal")
        if line.strip():
            values.append(float(line.replace(",", ".")))
    if any("," in line for line in lines[begin:]) and any("." in line for line in lines[begin:]):
        raise ReadError(f"{path}: its samples have decimal points and commas", "unreadable_signal")
    channel = np.array(values) * require_voltage(path, names[0], units[0])
    return make_ecg(path, "Apple Watch CSV", [channel], names, float(rates[0].replace(",", ".")), _about_apple(said))


def _about_apple(said: list[str]) -> dict[str, Any]:
    """Date, watch, and the classification, which follows the date in every language."""
    found = [(i, re.match(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)", value)) for i, value in enumerate(said)]
    dated = next(((i, f"{match[1]}T{match[2]}") for i, match in found if match), None)
    watches = [value for value in said if re.fullmatch(r"Watch\d+,\d+", value)]
    return {
        "date": dated and dated[1],
        "device": device_name("Apple", *watches) if watches else None,
        "interpretation": said[dated[0] + 1 : dated[0] + 2] if dated else [],
    }


APPLE = Format("Apple Watch CSV", _sniff_apple, read_apple)
