"""HDF5 with one recording: the files of SPH, and arrays of 12 leads whose rate and unit the caller states."""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np

from deri.ecg.formats.arrays import array_ecg, twelve_rows
from deri.ecg.formats.common import Format, Options, brief, make_ecg, optional
from deri.ecg.leads import LEADS
from deri.ecg.recording import ECG
from deri.errors import ReadError

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MAX_BYTES = 2**29
_DEFLATE, _SHUFFLE, _FLETCHER = 1, 2, 3
_NAMES = ("ecg", "signal", "data", "val", "tracings")
# The SPH files state neither; their paper says 500 Hz and mV, and their leads obey Einthoven in the canonical order.
_SPH_FS = 500.0


def read_hdf5(path: str, options: Options) -> ECG:
    """Read the dataset ``ecg`` (``signal``, ``data``, ``val``) of 12 x n or n x 12 in the order of ``LEADS``.

    A file of exactly the form of those of the SPH data set is read with the 500 Hz and mV of its paper, and says so in
    the warning ``assumed_sph``.

    Raises:
        ReadError: ``missing_dependency``, ``bad_header`` (damaged), ``unsupported_format``, ``several_recordings``,
            ``truncated_signal``, ``too_long``, ``bad_sampling_rate``, ``bad_units``, and those of ``make_ecg``.
    """
    h5py: Any = optional(path, "h5py", "h5py", "HDF5")
    try:
        with h5py.File(path, "r") as file:
            keys = list(file.keys())[:1000]
            names = [name for name in _NAMES if name in keys and isinstance(file.get(name), h5py.Dataset)]
            if not names:
                listed = ", ".join(str(key)[:20] for key in keys[:8]) or "nothing"
                raise ReadError(
                    f"{path}: no dataset named {', '.join(_NAMES)} (it holds {listed})", "unsupported_format"
                )
            dataset = file[names[0]]
            values, is_sph = _values(path, dataset), keys == ["ecg"] and _has_form_of_sph(dataset)
    except ReadError:
        raise
    except Exception as error:  # h5py passes on whatever libhdf5 finds wrong
        raise ReadError(f"{path}: cannot be read as HDF5 ({brief(error)})", "bad_header") from error
    what = f"dataset {names[0]}"
    if is_sph and options == Options():
        notes = {"assumed_sph": "has the form of the SPH data set and is read as such: 500 Hz, mV; it states neither"}
        rows = list(twelve_rows(path, values, what))
        return make_ecg(path, "SPH HDF5", rows, LEADS, _SPH_FS, {"warnings": notes})
    return array_ecg(path, "HDF5", what, values.astype(np.float64), options)


def _has_form_of_sph(dataset: Any) -> bool:
    # One name says nothing: the files of the data set are also compressed, 12 x n and of whole seconds.
    whole = len(dataset.shape) == 2 and dataset.shape[0] == len(LEADS) and dataset.shape[1] % _SPH_FS == 0
    return whole and dataset.dtype == np.float16 and (dataset.compression, dataset.compression_opts) == ("gzip", 9)


def _values(path: str, dataset: Any) -> np.ndarray:
    shape = tuple(int(side) for side in dataset.shape or ())
    if dataset.dtype.kind not in "iuf":
        raise ReadError(f"{path}: a dataset of {str(dataset.dtype)[:40]} is not supported", "unsupported_format")
    if len(shape) != 2 and not (
        len(shape) == 3 and shape[0] == 1
    ):  # told from the shape alone: the file may hold gigabytes
        twelve_rows(path, np.broadcast_to(np.zeros(1, dtype=np.int8), shape or (0,)), f"dataset {dataset.name}")
    if math.prod(shape) * max(dataset.dtype.itemsize, 4) > _MAX_BYTES:
        raise ReadError(f"{path}: an array of shape {shape} is too large to read", "too_long")
    # What was never written reads as the fill value, zeros that nobody recorded.
    if dataset.chunks is None:
        complete = dataset.id.get_storage_size() >= math.prod(shape) * dataset.dtype.itemsize
    else:
        expected = math.prod(-(-side // chunk) for side, chunk in zip(shape, dataset.chunks, strict=True))
        complete = dataset.id.get_num_chunks() == expected
    if not complete:
        raise ReadError(f"{path}: parts of the dataset were never written", "truncated_signal")
    if dataset.chunks is not None:
        _check_chunks(path, dataset)
    return np.asarray(dataset[...])


def _check_chunks(path: str, dataset: Any) -> None:
    """Refuse a chunk that does not expand to its size: libhdf5 fills it up with whatever lies in its memory."""
    expected = math.prod(dataset.chunks) * dataset.dtype.itemsize
    plist = dataset.id.get_create_plist()
    filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
    if any(code not in (_DEFLATE, _SHUFFLE, _FLETCHER) for code in filters):
        return  # a compression of its own, which states its size
    for index in range(dataset.id.get_num_chunks()):
        info = dataset.id.get_chunk_info(index)
        mask, data = dataset.id.read_direct_chunk(info.chunk_offset)
        data = data[: info.size]
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
                f"{path}: chunk {index + 1} of the dataset is damaged ({len(data)} of {expected} bytes)",
                "unreadable_signal",
            )


def _sniff(path: str, head: bytes) -> bool:
    return any(head[at : at + 8] == _SIGNATURE for at in (0, 512, 1024, 2048))


FORMAT = Format("HDF5 (SPH)", _sniff, read_hdf5, takes=("fs", "units", "gain"))
