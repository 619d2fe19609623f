"""Arrays of twelve leads without a header: NumPy ``.npy`` and ``.npz``. HDF5 shares the rules."""

from __future__ import annotations

import io
import math

import numpy as np

from deri.ecg.formats.common import (
    Format,
    Options,
    brief,
    load,
    make_ecg,
    refuse_options,
    stated_rate,
    stated_scale,
    to_float,
    units_per_mv,
)
from deri.ecg.formats.container import open_zip
from deri.ecg.leads import LEADS
from deri.ecg.recording import ECG
from deri.errors import ReadError

MAX_BYTES = 2**28
"""Bytes that the arrays of a ``.npz`` may take when unpacked."""
_SIGNALS = ("signal", "ecg", "data", "arr_0")
_TEXTS = ("units", "leads")


def read_npy(path: str, options: Options) -> ECG:
    """Read an array of 12 x n or n x 12 in the order of ``LEADS``; ``fs`` and ``units`` must be given.

    Raises:
        ReadError: ``bad_sampling_rate``, ``bad_units``, ``unsupported_format`` (shape, type), ``truncated_signal``,
            ``several_recordings``, and those of ``make_ecg``.
    """
    return array_ecg(path, "NumPy", "this array", parse_npy(path, memoryview(load(path))), options)


def array_ecg(path: str, form: str, what: str, values: np.ndarray, options: Options) -> ECG:
    """The ECG of an array of 12 x n or n x 12 whose rate and unit the caller states."""
    refuse_options(path, f"{what} has no names of leads", options, "leads")
    rows = twelve_rows(path, values, what)
    scale, fs = stated_scale(path, options, what), stated_rate(path, options, what)
    return make_ecg(path, form, list(rows * scale), LEADS, fs, {})


def twelve_rows(path: str, values: np.ndarray, what: str) -> np.ndarray:
    """An array of one recording as (12, n); which side has the leads is seen from its length."""
    if values.ndim == 3 and values.shape[0] == 1:
        values = values[0]
    if values.ndim == 3 and 12 in values.shape[1:]:
        raise ReadError(
            f"{path}: {what} holds {values.shape[0]} recordings (shape {values.shape}); "
            "save each as a file of its own, 12 x samples",
            "several_recordings",
        )
    if values.ndim != 2 or 12 not in values.shape or values.shape == (12, 12):
        raise ReadError(
            f"{path}: {what} has shape {values.shape}; one recording is 12 x samples or samples x 12 "
            "in the order I II III aVR aVL aVF V1-V6",
            "unsupported_format",
        )
    return values if values.shape[0] == 12 else values.T


def parse_npy(path: str, data: bytes | memoryview) -> np.ndarray:
    """The numeric array of a ``.npy``; never unpickles, and compares its size with its header before using either."""
    stream = io.BytesIO(data[:65536])
    try:
        version = np.lib.format.read_magic(stream)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = reader(stream)
    except Exception as error:  # NumPy raises ValueError, and whatever its literal parser meets
        raise ReadError(f"{path}: its NumPy header is damaged ({brief(error)})", "bad_header") from None
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise ReadError(f"{path}: an array of {str(dtype)[:40]} is not supported", "unsupported_format")
    begin, count = stream.tell(), math.prod(int(side) for side in shape)
    if any(side < 0 for side in shape) or count * dtype.itemsize > len(data) - begin:
        raise ReadError(f"{path}: an array of shape {shape} does not fit into the file", "truncated_signal")
    flat = np.frombuffer(data, dtype=dtype, count=count, offset=begin)
    values = flat.reshape(shape, order="F" if fortran else "C")
    return values if dtype.isnative else values.astype(dtype.newbyteorder("="))


def is_npz(path: str, head: bytes) -> bool:
    """Whether a zip archive is a NumPy one."""
    if not head.startswith(b"PK\3\4"):
        return False
    try:
        with open_zip(path) as archive:
            return all(name.endswith(".npy") for name in archive.namelist())
    except (ReadError, OSError):
        return False  # the reader of archives says what is wrong


def read_npz(path: str, options: Options) -> ECG:
    """Read the array ``signal``, ``ecg``, ``data`` or ``arr_0`` (or the only 2-D one) of a ``.npz``.

    ``fs``, ``units`` and ``leads`` may be arrays in it; without ``leads`` the order of ``LEADS`` is meant.

    Raises:
        ReadError: as for ``read_npy``; ``too_long`` for members that expand to more than 256 MiB.
    """
    found: dict[str, np.ndarray] = {}
    with open_zip(path) as archive:
        members = archive.infolist()[:64]
        if sum(member.file_size for member in members) > MAX_BYTES:
            raise ReadError(f"{path}: its arrays expand to more than {MAX_BYTES} bytes", "too_long")
        for member in members:
            name = member.filename.removesuffix(".npy")
            data = archive.read(member)
            found[name] = _parse_text(path, data) if name in _TEXTS else parse_npy(path, data)
    signals = [key for key in _SIGNALS if key in found]
    signals = signals[:1] or [key for key, values in found.items() if values.ndim == 2 and key not in _TEXTS]
    if len(signals) != 1:
        listed = ", ".join(list(found)[:12])
        raise ReadError(f"{path}: no array named signal, ecg or data among {listed}", "unsupported_format")
    values = found[signals[0]]
    fs = next((to_float(_only(found[key])) for key in ("fs", "sampling_rate") if key in found), None)
    if fs is not None and options.fs is not None and abs(fs - options.fs) > 0.01 * fs:
        refuse_options(path, f"states its own rate, {fs:g} Hz", options, "fs")
    units = _only(found.get("units", np.empty(0)))
    if units is not None and units != options.units:
        refuse_options(path, f"states its own unit, {units[:20]}", options, "units", "gain")
        if units_per_mv(units) is None:
            raise ReadError(f"{path}: units={units[:20]!r} is no voltage; use mV, uV, nV or V", "bad_units")
    options = options._replace(fs=fs if options.fs is None else options.fs, units=units or options.units)
    if "leads" not in found:
        return array_ecg(path, "NumPy", "this array", values, options)
    names = [options.lead(str(name)) for name in found["leads"].ravel()]
    if values.ndim != 2 or len(names) not in values.shape:
        raise ReadError(f"{path}: {len(names)} leads do not fit a shape of {values.shape}", "lead_count_mismatch")
    values = values if values.shape[0] == len(names) else values.T
    scale, rate = stated_scale(path, options, "this .npz"), stated_rate(path, options, "this .npz")
    return make_ecg(path, "NumPy", list(values * scale), names, rate, {})


def _only(values: np.ndarray) -> str | None:
    return str(values.ravel()[0]) if values.size == 1 else None


def _parse_text(path: str, data: bytes) -> np.ndarray:
    try:
        return np.load(io.BytesIO(data[:65536]), allow_pickle=False)
    except Exception as error:
        raise ReadError(f"{path}: an array of text is damaged ({brief(error)})", "bad_header") from None


_TAKES = ("fs", "units", "gain")
NPY = Format("NumPy", lambda path, head: head.startswith(b"\x93NUMPY"), read_npy, _TAKES)
NPZ = Format("NumPy archive (.npz)", is_npz, read_npz, _TAKES)
