"""MATLAB files: ``.mat`` beside a ``.hea`` (PhysioNet/CinC Challenges 2011 to 2021, CSN), and the structs of CPSC 2018.

A level-4 file of int16 is raw samples after a header of 20 bytes and the variable's name, which is what the byte offset
24 of ``16+24`` skips. Anything else is read by SciPy, which believes the sizes that a file claims before it looks at
its bytes: a damaged kilobyte could cost all memory. So every size is compared with the bytes that are there first.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from typing import Any, NamedTuple

import numpy as np

from deri.ecg.formats.common import brief, load
from deri.errors import ReadError

MAX_UNPACKED = 2**27
"""Bytes that the variables of a file may take when inflated."""
_LEVEL4_INT16 = 30  # MOPT: little-endian, int16, full matrix
# Types of data elements and the bytes of a number.
_INT8, _INT32, _UINT32, _MATRIX, _COMPRESSED = 1, 5, 6, 14, 15
_SIZES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}
_TEXTS = {16, 17, 18}
# Classes of arrays. Sparse matrices, objects and function handles are refused: no recording is made of them.
_CELL, _STRUCT, _CHAR, _NUMBERS, _COMPLEX = 1, 2, 4, range(6, 16), 0x800
_MAX_DEPTH = 8


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
        value = load_matlab(path).get("val")
    except ReadError as error:
        reason = error.reason if error.reason in ("too_long", "unreadable_file") else "unsupported_format"
        raise ReadError(str(error), reason) from error
    if not isinstance(value, np.ndarray) or value.ndim != 2 or value.dtype.kind not in "iuf":
        raise ReadError(
            f"{path}: has no numeric matrix `val`; a .mat beside a .hea keeps its samples there", "unsupported_format"
        )
    return value


def load_matlab(path: str) -> dict[str, Any]:
    """The variables of a MATLAB file up to 7.2, as ``scipy.io.loadmat`` gives them.

    Raises:
        ReadError: ``bad_header``, ``unreadable_signal`` (damaged), ``too_long`` (expands to more than 128 MiB).
    """
    from scipy.io import loadmat

    data = load(path)
    if is_level5(data):
        data = _checked(path, data)
    try:
        found = loadmat(io.BytesIO(data), variable_names=None if is_level5(data) else ["val"])
    except Exception as error:  # SciPy passes on what struct, NumPy and zlib find
        raise ReadError(f"{path}: cannot be read as a MATLAB file ({brief(error)})", "unreadable_signal") from None
    return {name: value for name, value in found.items() if not name.startswith("__")}


def _checked(path: str, data: bytes) -> bytes:
    """The file with its variables inflated, once every size in it is known to fit into its bytes."""
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:
        raise ReadError(f"{path}: its MATLAB header is damaged", "bad_header")
    parts = [data[:128]]
    budget, at = MAX_UNPACKED, 128
    try:
        while at + 8 <= len(data):
            kind, size = struct.unpack_from(f"{order}2I", data, at)
            part = data[at : at + 8 + size]
            at += 8 + size
            if kind == _COMPRESSED:
                inflater = zlib.decompressobj()
                part = inflater.decompress(part[8:], budget)
                if inflater.unconsumed_tail:
                    raise ReadError(f"{path}: expands to more than {MAX_UNPACKED} bytes", "too_long")
                budget -= len(part)
            _check_element(memoryview(part), order)
            parts.append(part)
    except (ValueError, struct.error, zlib.error) as error:
        raise ReadError(f"{path}: cannot be read as a MATLAB file ({error})", "unreadable_signal") from None
    return b"".join(parts)


def _check_element(element: memoryview, order: str) -> None:
    [(kind, body)] = _elements(element, order)
    if kind == _MATRIX:
        _check_matrix(body, order, 0)


def _elements(body: memoryview, order: str) -> list[tuple[int, memoryview]]:
    """Type and content of the data elements that fill ``body`` without a rest."""
    found = []
    at = 0
    while at < len(body):
        word = struct.unpack_from(f"{order}I", body, at)[0]
        if word >> 16:  # small element: size and type share a word, the content follows in four bytes
            kind, size, begin, end = word & 0xFFFF, word >> 16, at + 4, at + 8
        else:
            kind, size, begin = word, struct.unpack_from(f"{order}I", body, at + 4)[0], at + 8
            end = begin + size + -size % 8
        if size > min(end, len(body)) - begin:
            raise ValueError("an element reaches beyond its matrix")
        found.append((kind, body[begin : begin + size]))
        at = end
    return found


def _check_matrix(body: memoryview, order: str, depth: int) -> None:
    """Refuse a matrix whose elements are not those of its class, or whose dimensions stand for more than its bytes."""
    if len(body) == 0:
        return
    elements = _elements(body, order)
    kinds = [kind for kind, _ in elements]
    if (
        depth > _MAX_DEPTH
        or kinds[:3] != [_UINT32, _INT32, _INT8]
        or len(elements[0][1]) != 8
        or len(elements[1][1]) % 4
    ):
        raise ValueError("nested too deeply, or a matrix without flags, dimensions or name")
    flags = struct.unpack_from(f"{order}I", elements[0][1])[0]
    dims = struct.unpack(f"{order}{len(elements[1][1]) // 4}i", elements[1][1])
    array_class, count, held = flags & 0xFF, math.prod(dims), len(body)
    rest = elements[3:]
    if array_class in (_CELL, _STRUCT):
        if array_class == _STRUCT:
            if kinds[3:5] != [_INT32, _INT8] or len(rest[0][1]) != 4:
                raise ValueError("a struct without names of its fields")
            width = struct.unpack(f"{order}i", rest[0][1])[0]
            names, left = divmod(len(rest[1][1]), max(width, 1))
            if width < 1 or left or names < 1:
                raise ValueError("a struct without names of its fields")
            count, rest = count * names, rest[2:]
        held = len(rest)
        if any(kind != _MATRIX for kind, _ in rest):
            raise ValueError("a cell or a field that is no matrix")
        for _, inner in rest:
            _check_matrix(inner, order, depth + 1)
        if count != held:
            raise ValueError(f"{held} values where {dims} are stated")
    elif array_class in _NUMBERS or array_class == _CHAR:
        wanted = 2 if flags & _COMPLEX else 1
        if len(rest) != wanted or not set(kinds[3:]) <= (_TEXTS if array_class == _CHAR else set()) | set(_SIZES):
            raise ValueError("a matrix without its values")
        for kind, content in rest:
            if kind in _SIZES and len(content) != count * _SIZES[kind]:
                raise ValueError(f"{len(content)} bytes where {dims} are stated")
    else:
        raise ValueError(f"a variable of class {array_class}")
    if len(dims) < 2 or min(dims) < 0 or count > held:
        raise ValueError(f"a matrix of {dims} in {len(body)} bytes")
