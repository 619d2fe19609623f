"""The usual record, straight from its file into the units of a store.

Most recordings of the large archives are alike: a WFDB header with twelve calibrated leads of one gain, 10 s at 500 Hz
in one 16-bit file, nothing missing and nothing suspicious. For those the way through millivolts in floating point
changes no value: it is a multiplication of integers, several times as fast. Whatever is unusual in any respect is left
to the general path (``read_ecg``, ``standardise``, ``quantise``), which also finds the words for a refusal.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from deri.ecg.formats.common import units_per_mv
from deri.ecg.formats.wfdb_header import HeaderError, parse_header
from deri.ecg.leads import lead_plan
from deri.ecg.standardise import FLAT_MILLIVOLT, LOW_MILLIVOLT
from deri.errors import ReadError
from deri.store.layout import FS, LEAD_COUNT, SAMPLES, UV_PER_UNIT

_HEADER_BYTES = 1 << 16
_SIGNAL_BYTES = 2 * LEAD_COUNT * SAMPLES
_INT16_MAX = 32767
_GAP = -32768  # the digital value that means "no sample"


class _Layout(NamedTuple):
    """What the headers of many records have in common."""

    columns: tuple[int, ...]  # the file's column of each of the twelve leads
    factor: int  # units of the store per digital unit


class _Record(NamedTuple):
    """What the header of a usual record says."""

    file: str
    layout: _Layout
    checksums: list[int]  # in the order of the file


class DirectReader:
    """Reads usual records with buffers that are used again and again; not to be shared between threads."""

    def __init__(self) -> None:
        self._bytes = bytearray(_SIGNAL_BYTES + 1)  # one more, to see whether the file ends where it should
        self._frames = np.frombuffer(self._bytes, "<i2", LEAD_COUNT * SAMPLES).reshape(SAMPLES, LEAD_COUNT)
        self._header = bytearray(_HEADER_BYTES)
        self._units = np.empty((LEAD_COUNT, SAMPLES), np.int16)

    def read(self, path: str | os.PathLike[str]) -> np.ndarray | None:
        """Return the record in units of the store, int16 (12, 5000), valid until the next call; None if it is unusual.

        What is returned equals what the general path stores, and that path would set no flag.

        Args:
            path: as for :func:`deri.read_ecg`. Any error, a missing file say, makes a record unusual.
        """
        name = os.fspath(path)
        stem = name[:-4] if name.endswith((".hea", ".dat")) else name
        if "://" in name or name.endswith(".mat"):
            return None
        size = _read_into(f"{stem}.hea", self._header)
        if not 0 < size < _HEADER_BYTES:
            return None
        record = _parse(self._header[:size])
        if record is None or _read_into(os.path.join(os.path.dirname(stem), record.file), self._bytes) != _SIGNAL_BYTES:
            return None
        columns, factor = record.layout
        units = self._units
        for row, column in enumerate(columns):
            units[row] = self._frames[:, column]
        if any(record.checksums):  # headers written without computing them hold 0 throughout, which says nothing
            sums = np.add.reduce(units, axis=1, dtype=np.int16)  # wraps around, as the checksum does
            stated = [record.checksums[column] for column in columns]
            if any((a - b) & 0xFFFF for a, b in zip(sums.tolist(), stated, strict=True)):
                return None
        if not _is_plain(units.min(axis=1).tolist(), units.max(axis=1).tolist(), factor):
            return None
        if factor != 1:
            np.multiply(units, np.int16(factor), out=units)
        return units


def _is_plain(lowest: list[int], highest: list[int], factor: int) -> bool:
    """Whether no lead has a gap, is flat, or leaves the range of int16; whether the whole is no low amplitude."""
    # A margin of two units around each bound: close to it the rounding of the general path decides.
    peak = max(max(highest), -min(lowest)) * factor
    spans = [factor * (high - low) * UV_PER_UNIT / 1000 for low, high in zip(lowest, highest, strict=True)]
    margin = 2 * UV_PER_UNIT / 1000
    return (
        min(lowest) > _GAP
        and peak <= _INT16_MAX - 2
        and min(spans) >= FLAT_MILLIVOLT + margin
        and max(spans) >= LOW_MILLIVOLT + margin
    )


def _read_into(path: str, buffer: bytearray) -> int:
    """Return how many bytes of the file the buffer took; -1 where it cannot be read."""
    try:
        with open(path, "rb", buffering=0) as handle:
            return handle.readinto(buffer)
    except (OSError, ValueError):
        return -1


# One match for the whole text: printable ASCII, one blank between fields, all signals in one file beside the header,
# then nothing but comments. The groups: rate, length, file; of each signal format to ADC zero, checksum, description.
_INT = rb"-?\d{1,15}"
_FILE = rb"((?!#)[!-.0-[\]-~]+\.dat)"
_HEADER = re.compile(
    rb"(?!#)[!-.0-~]+ 12 ([!-~]+) (\d{1,15})(?: [ -~]*)?\n"
    + rb"".join(
        rb"%b ([!-~]+ [!-~]+ %b %b) %b (%b) %b ([!-~][ -~]*)\n"
        % (_FILE if number == 0 else rb"\3", _INT, _INT, _INT, _INT, _INT)
        for number in range(LEAD_COUNT)
    )
    + rb"(?: *#[ -~]*\n| *\n)*(?: *#[ -~]*)?"
)


def _parse(data: bytearray) -> _Record | None:
    """What a usual record's header says; None for any other header."""
    match = _HEADER.fullmatch(data)
    if match is None:
        return None
    groups = match.groups()
    layout = _layout(groups[0], groups[1], groups[3::3], groups[5::3])
    if layout is None:
        return None
    checksums = [int(value) for value in groups[4::3]]
    return _Record(groups[2].decode(), layout, checksums)


@lru_cache(maxsize=1024)
def _layout(fs: bytes, length: bytes, formats: tuple[bytes, ...], names: tuple[bytes, ...]) -> _Layout | None:
    """How to read the records whose headers have these fields; file, initial values and checksums are each one's own.

    The general parser reads them, so that a field means here what it means there.
    """
    lines = [b"x.dat %b 0 0 0 %b" % pair for pair in zip(formats, names, strict=True)]
    try:
        header = parse_header(b"\n".join([b"x 12 %b %b" % (fs, length), *lines]).decode("ascii"))
        plan = lead_plan(tuple([signal.description for signal in header.signals]))
    except (HeaderError, ReadError):
        return None
    first = header.signals[0]
    usual = ("x.dat", 16, 1, 0, 0, first.gain, True, 0, first.units)
    if header.fs != FS or header.n_samples != SAMPLES or len(plan.recorded) != LEAD_COUNT:
        return None
    if any(signal[: len(usual)] != usual for signal in header.signals):
        return None
    factor = _factor(first.gain, first.units)
    return None if factor is None else _Layout(plan.channels, factor)


@lru_cache(maxsize=256)
def _factor(gain: float, units: str) -> int | None:
    """Units of the store per digital unit, or None where the general path does not multiply by a whole number.

    That it does is not assumed but looked at: all digital values that a store can hold go through it.
    """
    from deri.ecg.formats.wfdb import _scaling_arrays, _to_millivolt
    from deri.store.chunks import quantise

    per_mv = units_per_mv(units)
    if per_mv is None or not 0.5 <= gain * per_mv <= 1000 / UV_PER_UNIT:
        return None
    factor = round(1000 / UV_PER_UNIT / (gain * per_mv))
    if abs(factor * gain * per_mv * UV_PER_UNIT / 1000 - 1) > 1e-6:
        return None
    largest = _INT16_MAX // factor
    digital = np.arange(-largest, largest + 1, dtype=np.int16)
    scaling = _scaling_arrays((gain * per_mv,), (0,))
    stored = quantise(_to_millivolt(digital[:, None], (0,), _GAP, *scaling))
    return factor if np.array_equal(stored[0], digital * np.int16(factor)) else None
