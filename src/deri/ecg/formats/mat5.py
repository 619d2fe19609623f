"""MATLAB 5 to 7.2 files, as far as recordings need them: numbers, text, structs, cells.

``scipy.io.loadmat`` believes the sizes that a file claims before it looks at its bytes; a damaged kilobyte can cost
all memory. Here nothing is allocated that the file (or its inflated content, bounded) does not hold.
"""

from __future__ import annotations

import math
import struct
import zlib
from typing import Any

import numpy as np

from deri.errors import ReadError

MAX_INFLATED = 2**27
_MAX_DEPTH = 8
_COMPRESSED, _MATRIX = 15, 14
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXT_TYPES = {16: "utf-8", 17: "utf-16", 18: "utf-32"}
_CELL, _STRUCT, _OBJECT, _CHAR = 1, 2, 3, 4
_NUMERIC = range(6, 16)


class MatError(ValueError):
    """Damaged content."""


def load_mat5(path: str, data: bytes) -> dict[str, Any]:
    """Variables of a file: arrays (float or integer, 2-D and more), str, dict for a 1x1 struct, list for a cell.

    Raises:
        ReadError: ``unreadable_signal`` (damaged), ``too_long`` (expands to more than 128 MiB).
    """
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:
        raise ReadError(f"{path}: its MATLAB header is damaged", "bad_header")
    variables: dict[str, Any] = {}
    budget = MAX_INFLATED
    at = 128
    try:
        while at + 8 <= len(data):
            kind, size = struct.unpack_from(f"{order}2I", data, at)
            if kind == _COMPRESSED:
                inflater = zlib.decompressobj()
                content = inflater.decompress(data[at + 8 : at + 8 + size], budget)
                if inflater.unconsumed_tail:
                    raise ReadError(f"{path}: expands to more than {MAX_INFLATED} bytes", "too_long")
                budget -= len(content)
                if len(content) < 8:
                    raise MatError("an empty compressed element")
                kind, inner = struct.unpack_from(f"{order}2I", content)
                if inner > len(content) - 8:
                    raise MatError("a compressed element is cut off")
                body = memoryview(content)[8 : 8 + inner]
            else:
                if size > len(data) - at - 8:
                    raise MatError("an element is cut off")
                body = memoryview(data)[at + 8 : at + 8 + size]
            if kind == _MATRIX:
                name, value = _matrix(body, order, 0)
                variables[name] = value
            at += 8 + size
    except (MatError, struct.error, zlib.error, UnicodeDecodeError, IndexError) as error:
        raise ReadError(f"{path}: cannot be read as a MATLAB file ({error})", "unreadable_signal") from None
    return variables


def _element(body: memoryview, at: int, order: str) -> tuple[int, memoryview, int]:
    """Type, content and the position behind one data element."""
    word = struct.unpack_from(f"{order}I", body, at)[0]
    if word >> 16:  # small element: size and type share a word, the content follows in four bytes
        size = word >> 16
        if size > 4:
            raise MatError("a small element of more than four bytes")
        return word & 0xFFFF, body[at + 4 : at + 4 + size], at + 8
    size = struct.unpack_from(f"{order}I", body, at + 4)[0]
    if size > len(body) - at - 8:
        raise MatError("an element reaches beyond its matrix")
    return word, body[at + 8 : at + 8 + size], at + 8 + size + (-size) % 8


def _numbers(kind: int, content: memoryview, order: str) -> np.ndarray:
    if kind not in _TYPES:
        raise MatError(f"data of type {kind}")
    dtype = np.dtype(order + _TYPES[kind])
    return np.frombuffer(content[: len(content) // dtype.itemsize * dtype.itemsize], dtype=dtype)


def _matrix(body: memoryview, order: str, depth: int) -> tuple[str, Any]:
    if depth > _MAX_DEPTH:
        raise MatError("nested too deeply")
    if len(body) == 0:
        return "", np.empty((0, 0))
    kind, content, at = _element(body, 0, order)
    flags = _numbers(kind, content, order)
    kind, content, at = _element(body, at, order)
    dims = tuple(int(side) for side in _numbers(kind, content, order))
    if not flags.size or not 2 <= len(dims) <= 8 or any(side < 0 for side in dims):
        raise MatError("a matrix without flags or dimensions")
    _, content, at = _element(body, at, order)
    name = bytes(content).split(b"\0")[0].decode("latin-1")
    array_class, count = int(flags[0]) & 0xFF, math.prod(dims)
    if array_class in _NUMERIC or array_class == _CHAR:
        kind, content, at = _element(body, at, order)
        if array_class == _CHAR and kind in _TEXT_TYPES:
            return name, bytes(content).decode(_TEXT_TYPES[kind], errors="replace")
        values = _numbers(kind, content, order)
        if array_class == _CHAR:
            return name, "".join(map(chr, values[:100_000].tolist()))
        if values.size != count:
            raise MatError(f"{values.size} values where {dims} are stated")
        if int(flags[0]) & 0x800:
            raise MatError("complex numbers")
        return name, values.reshape(dims, order="F")
    if array_class == _STRUCT and count == 1:
        kind, content, at = _element(body, at, order)
        width = int(_numbers(kind, content, order)[0])
        _, content, at = _element(body, at, order)
        if width < 1:
            raise MatError("field names without length")
        labels = bytes(content)
        fields = {}
        for start in range(0, len(labels) - width + 1, width):
            _, inner, at = _element(body, at, order)
            fields[labels[start : start + width].split(b"\0")[0].decode("latin-1")] = _matrix(inner, order, depth + 1)[
                1
            ]
        return name, fields
    if array_class == _CELL:
        items: list[Any] = []
        while at + 8 <= len(body) and len(items) < count:
            _, inner, at = _element(body, at, order)
            items.append(_matrix(inner, order, depth + 1)[1])
        return name, items
    return name, None  # sparse matrices, objects, struct arrays: nothing an ECG is made of
