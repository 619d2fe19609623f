"""How SCP-ECG packs samples: Huffman codes, differences, and rhythm data that are decimated outside the QRS complexes.

Source: EN 1064:2005 (ISO 11073-91064), sections 2 and 4 to 6.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

DEFAULT_TABLE = 19999
"""Number of tables that stands for the one printed in the standard."""


class ScpError(ValueError):
    """Damaged content; ``reason`` is the code of the error that the caller raises."""

    def __init__(self, message: str, reason: str = "unreadable_signal") -> None:
        super().__init__(message)
        self.reason = reason


class Code(NamedTuple):
    """What a prefix stands for: a value plus ``extra`` signed bits, or (``switch``) the number of the next table."""

    value: int
    extra: int
    switch: bool


class Table(NamedTuple):
    """Prefix (text of 0 and 1) -> code, and the prefix lengths in ascending order."""

    codes: dict[str, Code]
    lengths: tuple[int, ...]


def _table(codes: dict[str, Code]) -> Table:
    return Table(codes, tuple(sorted({len(prefix) for prefix in codes})))


def default_table() -> Table:
    """The table of the standard: 0, then k ones, a zero and a sign for ±k up to 8, then 8 and 16 bits as they are."""
    codes = {"0": Code(0, 0, False), "1111111110": Code(0, 8, False), "1111111111": Code(0, 16, False)}
    for size in range(1, 9):
        codes["1" * size + "00"] = Code(size, 0, False)
        codes["1" * size + "01"] = Code(-size, 0, False)
    return _table(codes)


def parse_tables(body: bytes) -> list[Table]:
    """The Huffman tables of section 2."""
    count = struct.unpack_from("<H", body)[0]
    if count == DEFAULT_TABLE:
        return [default_table()]
    if not 1 <= count <= 256:
        raise ScpError(f"section 2 states {count} Huffman tables")
    tables = []
    at = 2
    for _ in range(count):
        size = struct.unpack_from("<H", body, at)[0]
        codes: dict[str, Code] = {}
        for entry in range(size):
            prefix, total, mode, value, bits = struct.unpack_from("<BBBhI", body, at + 2 + 9 * entry)
            if not 1 <= prefix <= 32 or not prefix <= total <= prefix + 32:
                raise ScpError("a Huffman code of impossible length")
            # The first bit that is sent is the lowest bit of the stored code.
            text = f"{bits & ((1 << prefix) - 1):0{prefix}b}"[::-1]
            codes[text] = Code(value, total - prefix, mode == 0)
        tables.append(_table(codes))
        at += 2 + 9 * size
    return tables


def decode_values(data: bytes, count: int, tables: Sequence[Table] | None) -> tuple[np.ndarray, int]:
    """``count`` values of one lead, int64, and how many bits are left behind them; −1 where values are missing.

    Without tables the values are int16.
    """
    # A value takes two bytes, or one bit at least: what the bytes cannot hold is not even begun.
    if tables is None:
        values = np.frombuffer(data, dtype="<i2", count=min(count, len(data) // 2)).astype(np.int64)
        return values, 8 * len(data) - 16 * count if values.size == count else -1
    if count > 8 * len(data):
        return np.empty(0, dtype=np.int64), -1
    bits = bin(int.from_bytes(b"\1" + data, "big"))[3:]
    found: list[int] = []
    codes, lengths = tables[0]
    at = 0
    while len(found) < count:
        for length in lengths:
            code = codes.get(bits[at : at + length])
            if code is not None:
                break
        else:
            if len(bits) - at <= lengths[-1]:
                break
            raise ScpError(f"bit {at} begins no Huffman code")
        at += length
        if code.switch:
            if not 1 <= code.value <= len(tables):
                raise ScpError(f"a switch to the Huffman table {code.value} of {len(tables)}")
            codes, lengths = tables[code.value - 1]
            continue
        value = code.value
        if code.extra:
            if at + code.extra > len(bits):
                break
            raw = int(bits[at : at + code.extra], 2)
            value += raw - (1 << code.extra) if raw >> (code.extra - 1) else raw
            at += code.extra
        found.append(value)
    return np.array(found, dtype=np.int64), len(bits) - at if len(found) == count else -1


def undo_differences(values: np.ndarray, order: int) -> np.ndarray:
    """Samples from their first or second differences (order 1 or 2), int64; sums wrap at 16 bits as in the writers."""
    if order == 0:
        return values
    if order == 1:
        total = np.cumsum(values)
    else:
        # The first two values are samples; each later one is the bend at its sample.
        slope = np.cumsum(np.concatenate((np.diff(values[:2]), values[2:])))
        total = np.concatenate((values[:1], values[:1] + np.cumsum(slope)))
    return total.astype(np.int16).astype(np.int64)


class Stretch(NamedTuple):
    """A part of a lead, in samples of full rate from the lead's first on: stored as it is, or decimated."""

    begin: int
    end: int  # the one behind the last
    whole: bool


def stretches(length: int, zones: Sequence[tuple[int, int]]) -> list[Stretch]:
    """Split a lead of ``length`` samples by its protected zones (0-based, end exclusive), in the order of time."""
    parts = []
    at = 0
    for begin, end in sorted(zones):
        begin, end = max(begin, at), min(end, length)
        if begin >= end:
            continue
        if begin > at:
            parts.append(Stretch(at, begin, False))
        parts.append(Stretch(begin, end, True))
        at = end
    if at < length:
        parts.append(Stretch(at, length, False))
    return parts


def stored_count(parts: Sequence[Stretch], factor: int) -> int:
    """How many values a lead of these parts takes; a block that a zone or the end cuts short counts as one."""
    return sum(p.end - p.begin if p.whole else -(-(p.end - p.begin) // factor) for p in parts)


def is_aligned(parts: Sequence[Stretch], factor: int) -> bool:
    """Whether no zone cuts a block short, as the standard wants it; then there is one way only to count the values."""
    return all(p.whole or (p.end - p.begin) % factor == 0 for p in parts[:-1])


def expand(values: np.ndarray, parts: Sequence[Stretch], factor: int) -> np.ndarray:
    """Samples at full rate, float64, of a lead whose unprotected parts hold the mean of each ``factor`` samples.

    Between the middles of two blocks the line through their means is taken, at the ends of a part the mean itself.
    """
    out = np.empty(parts[-1].end)
    at = 0
    for begin, end, whole in parts:
        size = end - begin
        count = size if whole else -(-size // factor)
        stored = values[at : at + count]
        at += count
        if whole:
            out[begin:end] = stored
        else:
            firsts = np.arange(count) * factor
            middles = (firsts + np.minimum(firsts + factor, size) - 1) / 2.0
            out[begin:end] = np.interp(np.arange(size), middles, stored)
    return out
