"""Signal files that are MATLAB files: ``.mat`` beside a ``.hea`` (PhysioNet/CinC Challenges 2011 to 2021, CSN).

A level-4 file of int16 is raw samples after a header of 20 bytes and the variable's name, which is what the byte offset
24 of ``16+24`` skips. Anything else (level 5, or level 4 of another number type) cannot be read at an offset.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from deri.ecg.formats.common import load
from deri.ecg.formats.mat5 import load_mat5
from deri.errors import ReadError

_LEVEL4_TYPES = ("<f8", "<f4", "<i4", "<i2", "<u2", "u1")
_LEVEL4_INT16 = 30  # MOPT: little-endian, int16, full matrix


class Level4(NamedTuple):
    """The fixed header of a MATLAB level-4 file."""

    kind: int
    rows: int
    columns: int
    data_offset: int


def level4_header(data: bytes) -> Level4 | None:
    """The level-4 header at the start of ``data``, or None if there is none."""
    if len(data) < 24:
        return None
    kind, rows, columns, imaginary, name_length = struct.unpack_from("<5i", data)
    plausible = 0 <= kind <= 52 and kind % 10 in (0, 1, 2) and imaginary in (0, 1)
    if not (plausible and rows > 0 and columns > 0 and 2 <= name_length <= 64):
        return None
    name = data[20 : 20 + name_length]
    if name[-1:] != b"\0" or not name[:-1].isalnum():
        return None
    return Level4(kind, rows, columns, 20 + name_length)


def is_level5(data: bytes) -> bool:
    """Whether ``data`` begins like a MATLAB 5 to 7.2 file."""
    return data.startswith(b"MATLAB 5.0")


def is_raw_int16(header: Level4) -> bool:
    """Whether the samples can be read straight from the bytes behind the header."""
    return header.kind == _LEVEL4_INT16


def load_val(path: str) -> np.ndarray:
    """The 2-D variable ``val`` of a MATLAB file, digital units, (signals, samples).

    Raises:
        ReadError: ``unsupported_format``.
    """
    try:
        data = load(path)
        value = load_mat5(path, data).get("val") if is_level5(data) else _load_level4(path, data)
    except ReadError as error:
        reason = error.reason if error.reason in ("too_long", "unreadable_file") else "unsupported_format"
        raise ReadError(str(error), reason) from error
    if not isinstance(value, np.ndarray) or value.ndim != 2 or value.dtype.kind not in "iuf":
        raise ReadError(
            f"{path}: has no numeric matrix `val`; a .mat beside a .hea keeps its samples there", "unsupported_format"
        )
    return value


def _load_level4(path: str, data: bytes) -> np.ndarray | None:
    header = level4_header(data)
    if header is None or header.kind // 10 % 10 >= len(_LEVEL4_TYPES) or header.kind % 10 != 0:
        raise ReadError(
            f"{path}: cannot be read as a MATLAB file (no numeric matrix at its start)", "unsupported_format"
        )
    dtype = np.dtype(_LEVEL4_TYPES[header.kind // 10 % 10])
    count = header.rows * header.columns
    if count * dtype.itemsize > len(data) - header.data_offset:
        raise ReadError(f"{path}: holds less than its {header.rows} x {header.columns} matrix", "unsupported_format")
    if data[20 : header.data_offset - 1] != b"val":
        return None
    values = np.frombuffer(data, dtype=dtype, count=count, offset=header.data_offset)
    return values.reshape(header.rows, header.columns, order="F")
