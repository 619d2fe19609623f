"""HDF5: the files of SPH, and arrays of 12 leads, one or many (CODE-15), whose rate and unit the caller states."""

from __future__ import annotations

import itertools
import math
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np

from deri.ecg.formats.arrays import SIGNAL_NAMES, array_ecg, batch_size, place_in_batch, twelve_rows
from deri.ecg.formats.common import Format, Options, brief, make_ecg, optional
from deri.ecg.leads import LEADS
from deri.ecg.recording import ECG
from deri.errors import ReadError

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MAX_BYTES = 2**29
_DEFLATE, _SHUFFLE, _FLETCHER = 1, 2, 3
_IDS = "exam_id"
# The SPH files state neither; their paper says 500 Hz and mV, and their leads obey Einthoven in the canonical order.
_SPH_FS = 500.0


def read_hdf5(path: str, options: Options) -> ECG:
    """Read the dataset ``ecg`` (``signal``, ``data``, ``val``, ``tracings``) in the order of ``LEADS``.

    It is 12 x n or n x 12, or a batch of those, of which ``options.member`` is read. A file of exactly the form of
    those of the SPH data set is read with the 500 Hz and mV of its paper, and says so in the warning ``assumed_sph``.

    Raises:
        ReadError: ``missing_dependency``, ``bad_header`` (damaged), ``unsupported_format``, ``several_recordings``,
            ``missing_file`` (no such member), ``truncated_signal``, ``too_long``, ``bad_sampling_rate``,
            ``bad_units``, and those of ``make_ecg``.
    """
    with _opened(path) as (file, dataset):
        what, shape = f"dataset {dataset.name[1:]}", _shape(dataset)
        names = _named(path, os.stat(path).st_mtime_ns) if batch_size(shape) else ()
        place = place_in_batch(path, what, shape, options.member, names)
        values, is_sph = _values(path, dataset, place), list(file) == ["ecg"] and _has_form_of_sph(dataset)
    if is_sph and options.fs is None and options.units is None and options.gain is None:
        notes = {"assumed_sph": "has the form of the SPH data set and is read as such: 500 Hz, mV; it states neither"}
        rows = list(twelve_rows(path, values, what))
        return make_ecg(path, "SPH HDF5", rows, LEADS, _SPH_FS, {"warnings": notes})
    return array_ecg(path, "HDF5", what, values, options, of_batch=place is not None)


def hdf5_members(path: str) -> list[str]:
    """The ids of the recordings of a batch, else their positions."""
    with _opened(path) as (file, dataset):
        count = batch_size(_shape(dataset))
        return _ids(file, count) or list(map(str, range(count)))


@lru_cache(4)  # each recording of a batch of thousands asks for them
def _named(path: str, changed: int) -> tuple[str, ...]:
    """The ids of the recordings of a batch, none where there are none; ``changed``: when the file was, in ns."""
    with _opened(path) as (file, dataset):
        return tuple(_ids(file, batch_size(_shape(dataset))))


@contextmanager
def _opened(path: str) -> Iterator[tuple[Any, Any]]:
    """The file and its dataset of signals."""
    h5py: Any = optional(path, "h5py", "h5py", "HDF5")
    try:
        with h5py.File(path, "r") as file:
            keys = list(file.keys())[:1000]
            names = [name for name in SIGNAL_NAMES if name in keys and isinstance(file.get(name), h5py.Dataset)]
            if not names:
                listed = ", ".join(str(key)[:20] for key in keys[:8]) or "nothing"
                raise ReadError(
                    f"{path}: no dataset named {', '.join(SIGNAL_NAMES)} (it holds {listed})", "unsupported_format"
                )
            yield file, _inside(path, file, file[names[0]])
    except ReadError:
        raise
    except Exception as error:  # h5py passes on whatever libhdf5 finds wrong
        raise ReadError(f"{path}: cannot be read as HDF5 ({brief(error)})", "bad_header") from error


def _inside(path: str, file: Any, dataset: Any) -> Any:
    """The dataset; ReadError where its values lie in another file, which may be any that this process can read."""
    if dataset.file.filename != file.filename or dataset.external or dataset.is_virtual:
        raise ReadError(f"{path}: its dataset lies in another file; save it in this one", "unsupported_format")
    return dataset


def _ids(file: Any, count: int) -> list[str]:
    """The ids of the recordings of a batch; none where the file gives each recording no id of its own."""
    found = file.get(_IDS) if count else None
    if found is None or getattr(found, "shape", None) != (count,) or found.dtype.kind not in "iuSO":
        return []
    _inside(file.filename, file, found)
    ids = [value.decode() if isinstance(value, bytes) else str(value) for value in found[...].tolist()]
    return ids if len(set(ids)) == count else []


def _is_matlab(dataset: Any) -> bool:
    """Whether MATLAB wrote it, whose axes HDF5 shows in reverse order."""
    return "MATLAB_class" in dataset.attrs


def _shape(dataset: Any) -> tuple[int, ...]:
    """The shape as whoever wrote the file sees it."""
    shape = tuple(int(side) for side in dataset.shape or ())
    return shape[::-1] if _is_matlab(dataset) else shape


def _has_form_of_sph(dataset: Any) -> bool:
    # One name says nothing: the files of the data set are also compressed, 12 x n and of whole seconds.
    whole = len(dataset.shape) == 2 and dataset.shape[0] == len(LEADS) and dataset.shape[1] % _SPH_FS == 0
    return whole and dataset.dtype == np.float16 and (dataset.compression, dataset.compression_opts) == ("gzip", 9)


def _values(path: str, dataset: Any, place: int | None) -> np.ndarray:
    """The whole array, or of a batch the recording at ``place``: two axes."""
    if dataset.dtype.kind not in "iuf":
        raise ReadError(f"{path}: a dataset of {str(dataset.dtype)[:40]} is not supported", "unsupported_format")
    shape = _shape(dataset) if place is None else _shape(dataset)[1:]
    if len(shape) != 2:  # told from the shape alone: the file may hold gigabytes
        return np.broadcast_to(np.zeros(1, dtype=np.int8), shape or (0,))
    if math.prod(shape) * max(dataset.dtype.itemsize, 4) > _MAX_BYTES:
        raise ReadError(f"{path}: an array of shape {shape} is too large to read", "too_long")
    part: tuple[Any, ...] = (...,)
    if place is not None:
        part = (..., place) if _is_matlab(dataset) else (place, ...)
    _check_complete(path, dataset, part)
    return np.asarray(dataset[part])


def _check_complete(path: str, dataset: Any, part: tuple[Any, ...]) -> None:
    """Refuse samples that nobody wrote, which read as the fill value, and chunks that do not expand to their size."""
    if dataset.chunks is None:
        if dataset.id.get_storage_size() < math.prod(dataset.shape) * dataset.dtype.itemsize:
            raise ReadError(f"{path}: parts of the dataset were never written", "truncated_signal")
        return
    axes = [range(0, side, chunk) for side, chunk in zip(dataset.shape, dataset.chunks, strict=True)]
    for axis, place in ((0, part[0]), (-1, part[-1])):
        if place is not ...:
            axes[axis] = range(place // dataset.chunks[axis] * dataset.chunks[axis], place + 1, dataset.chunks[axis])
    for corner in itertools.product(*axes):
        info = dataset.id.get_chunk_info_by_coord(corner)
        if info.byte_offset is None:
            raise ReadError(f"{path}: parts of the dataset were never written", "truncated_signal")
        _check_chunk(path, dataset, corner, int(info.size))


def _check_chunk(path: str, dataset: Any, corner: tuple[int, ...], size: int) -> None:
    """Refuse a chunk that does not expand to its size: libhdf5 fills it up with whatever lies in its memory."""
    expected = math.prod(dataset.chunks) * dataset.dtype.itemsize
    plist = dataset.id.get_create_plist()
    filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
    if any(code not in (_DEFLATE, _SHUFFLE, _FLETCHER) for code in filters):
        return  # a compression of its own, which states its size
    mask, data = dataset.id.read_direct_chunk(corner)
    data = data[:size]
    # Filters were applied in their order, those with a bit in the mask not at all.
    for place, code in reversed(list(enumerate(filters))):
        if mask >> place & 1:
            continue
        if code == _FLETCHER:
            data = data[:-4]  # a checksum, which libhdf5 compares
        elif code == _DEFLATE:
            data = zlib.decompressobj().decompress(data, expected + 5)
    if len(data) != expected:
        raise ReadError(
            f"{path}: the chunk of the dataset at {corner} is damaged ({len(data)} of {expected} bytes)",
            "unreadable_signal",
        )


def _sniff(path: str, head: bytes) -> bool:
    return any(head[at : at + 8] == _SIGNATURE for at in (0, 512, 1024, 2048))


FORMAT = Format("HDF5", _sniff, read_hdf5, takes=("fs", "units", "gain"), members=hdf5_members)
