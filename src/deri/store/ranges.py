"""Rows of files at an address, by ranges of bytes: neighbours in one request, many requests at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from deri.errors import DeriError
from deri.remote import Address, read_ranges
from deri.store.npy import HEADER_BYTES, npy_header

MOST = 64
"""Rows of a request at most: 7.7 MB of recordings of 10 s."""
AT_ONCE = 512
"""Rows that are in memory at a time: 61 MB."""


def read_rows(
    files: Mapping[int, tuple[Address, int]],
    numbers: np.ndarray,
    places: np.ndarray,
    shape: tuple[int, ...],
    dtype: np.dtype,
) -> Iterator[np.ndarray]:
    """Yield rows, each of ``shape`` and ``dtype``, of ``.npy`` files that :class:`NpyAppender` wrote.

    The header of a file is compared with what it should be whenever its first row of a call is read.

    Args:
        files: of each file its address and number of rows, by its own number.
        numbers: of the files, ascending.
        places: rows in them, ascending in each file; repeats are read once.
        shape: of a row.
        dtype: of the values.

    Raises:
        DeriError: a file is not there, cannot be read, is shorter, or has another header.
    """
    row_bytes = int(np.prod(shape)) * dtype.itemsize
    checked: set[int] = set()
    for start in range(0, len(numbers), AT_ONCE):
        number, place = numbers[start : start + AT_ONCE], places[start : start + AT_ONCE]
        new = [int(n) for n in np.unique(number) if n not in checked]
        checked.update(new)
        ends = (np.diff(number) != 0) | (np.diff(place) > 1) | (np.diff(place // MOST) != 0)
        runs = np.split(np.arange(len(number)), np.flatnonzero(ends) + 1)
        wanted = [(files[n][0], 0, HEADER_BYTES) for n in new]
        for run in runs:
            first, last = int(place[run[0]]), int(place[run[-1]])
            begin, end = HEADER_BYTES + first * row_bytes, HEADER_BYTES + (last + 1) * row_bytes
            wanted.append((files[int(number[run[0]])][0], begin, end))
        read = read_ranges(wanted)
        for n, header in zip(new, read, strict=False):
            address, rows = files[n]
            if header != npy_header((rows, *shape), dtype):
                raise DeriError(f"{address} is damaged (its header is another one): upload the store again")
        for run, content in zip(runs, read[len(new) :], strict=True):
            values = np.frombuffer(content, dtype).reshape(-1, *shape)
            yield from values[place[run] - place[run[0]]]
