"""``.npy`` files that grow row by row, so that writing one needs memory for a row only; arrays kept with checksums.

The header has a fixed size and is written last, when the number of rows is known; NumPy reads such a file like any
other. Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html (version 1.0).
"""

from __future__ import annotations

import errno
import io
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np

from deri.errors import DeriError
from deri.files import atomic_path

HEADER_BYTES = 128
_NAMES = "deri-names"


def npy_header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """Return the 128 bytes that precede the data of a C-ordered array."""
    entry = f"{{'descr': {np.lib.format.dtype_to_descr(dtype)!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
    text = entry.encode("latin1").ljust(HEADER_BYTES - 11) + b"\n"
    if len(text) != HEADER_BYTES - 10:
        raise ValueError(f"the .npy header of shape {shape} is longer than {HEADER_BYTES} bytes")
    return b"\x93NUMPY\x01\x00" + (HEADER_BYTES - 10).to_bytes(2, "little") + text


def npy_bytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Return the size of the file that holds an array of this shape."""
    return HEADER_BYTES + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize


class NpyAppender:
    """Append rows to ``path``. A file is valid ``.npy`` only after :meth:`close`.

    Args:
        path: the file; created, or cut to ``rows`` rows and continued.
        row_shape: shape of one row, ``()`` for scalars.
        dtype: little-endian type of the array on disk.
        rows: rows to keep of an existing file; 0 starts anew.
    """

    def __init__(self, path: str | Path, row_shape: tuple[int, ...], dtype: str | np.dtype, rows: int = 0) -> None:
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.row_shape = row_shape
        self.rows = rows
        kept = npy_bytes((rows, *row_shape), self.dtype)
        self._file = open(path, "r+b" if rows else "wb")  # noqa: SIM115 - closed by close()
        if rows and os.fstat(self._file.fileno()).st_size < kept:
            self._file.close()
            raise ValueError(f"{path} holds fewer than {rows} rows")
        self._file.truncate(kept)
        self._file.seek(kept)

    def append(self, rows: np.ndarray) -> None:
        """Append ``rows``, shape (k, *row_shape), of exactly the file's dtype."""
        if rows.shape[1:] != self.row_shape or rows.dtype != self.dtype:
            raise ValueError(f"rows of {rows.shape[1:]} {rows.dtype} do not fit {self.row_shape} {self.dtype}")
        self._file.write(np.ascontiguousarray(rows).data)
        self.rows += len(rows)

    def rewind(self, rows: int) -> None:
        """Keep the first ``rows`` rows only."""
        self._file.truncate(npy_bytes((rows, *self.row_shape), self.dtype))
        self._file.seek(0, os.SEEK_END)
        self.rows = rows

    def sync(self) -> None:
        """Send what the system holds of the file to the disk. May run beside :meth:`append`, in another thread."""
        os.fsync(self._file.fileno())

    def flush(self) -> None:
        """Make everything appended so far survive a kill and a power cut."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Write the header, flush and close."""
        if self._file.closed:
            return
        self._file.seek(0)
        self._file.write(npy_header((self.rows, *self.row_shape), self.dtype))
        self.flush()
        self._file.close()

    def abandon(self) -> None:
        """Close without a header: the file stays invalid. Nothing happens after :meth:`close`."""
        self._file.close()

    def __enter__(self) -> NpyAppender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()


def map_npy(path: Path, shape: tuple[int, ...], dtype: np.dtype, cure: str) -> np.ndarray:
    """The array of a ``.npy`` file by memory map; DeriError that ends with ``cure`` where its header is damaged."""
    with _damage_named(path, cure):
        mapped: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)
    if mapped.shape != shape or mapped.dtype != dtype:
        raise DeriError(f"{path} is damaged (its header says {mapped.dtype} {mapped.shape}): {cure}")
    return mapped


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write arrays as ``.npz``, atomically: a zip file, which holds a CRC-32 of each array, and here their names."""
    with atomic_path(path) as aside, open(aside, "wb") as handle:
        np.savez(handle, **{_NAMES: np.array(list(arrays)), **arrays})  # type: ignore[arg-type]


def older_arrays(path: Path) -> bool:
    """Whether a ``.npz`` file is of a version of deri that did not write the names of its arrays into it."""
    try:
        with zipfile.ZipFile(path) as file:
            return f"{_NAMES}.npy" not in file.namelist()
    except Exception:  # damaged bytes raise anything
        return False


def read_arrays(path: Path, cure: str) -> dict[str, np.ndarray]:
    """The arrays that :func:`write_arrays` wrote, by name; DeriError that ends with ``cure`` where one is damaged."""
    with _damage_named(path, cure), zipfile.ZipFile(path) as file:

        def array(name: str) -> np.ndarray:
            # Whole, since its CRC-32 is compared at its end, which NumPy does not reach where a header is damaged.
            content = io.BytesIO(file.read(f"{name}.npy"))
            found: np.ndarray = np.lib.format.read_array(content, allow_pickle=False)
            return found

        return {name: array(name) for name in array(_NAMES).tolist()}  # a damaged list of a zip file may lack some


@contextmanager
def _damage_named(path: Path, cure: str) -> Iterator[None]:
    """In the block whatever damaged bytes raise becomes a DeriError; errors of the machine stay what they are."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # EINVAL: a damaged offset
            raise
        raise DeriError(f"{path} is damaged ({str(error)[:80]}): {cure}") from None
