"""Arrays of twelve leads without a header: NumPy ``.npy`` and ``.npz``. HDF5 shares the rules."""

from __future__ import annotations

import io
import math
import mmap
from collections.abc import Sequence

import numpy as np

from deri.ecg.formats.common import (
    Format,
    Options,
    brief,
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
SIGNAL_NAMES = ("ecg", "signal", "data", "val", "tracings")
"""What the array of signals is called in a file of several arrays."""
_TEXTS = ("units", "leads")


def read_npy(path: str, options: Options) -> ECG:
    """Read an array of 12 x n or n x 12 in the order of ``LEADS``; ``fs`` and ``units`` must be given.

    Raises:
        ReadError: ``bad_sampling_rate``, ``bad_units``, ``unsupported_format`` (shape, type), ``truncated_signal``,
            ``several_recordings``, ``missing_file`` (no such member), and those of ``make_ecg``.
    """
    values, what = parse_npy(path, _mapped(path)), "this array"
    place = place_in_batch(path, what, values.shape, options.member)
    if place is None:
        return array_ecg(path, "NumPy", what, values, options)
    return array_ecg(path, "NumPy", what, values[place], options, of_batch=True)


def _mapped(path: str) -> mmap.mmap:
    """The bytes of a file; of a batch of gigabytes only what is used of them comes into memory."""
    try:
        with open(path, "rb") as handle:
            return mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise ReadError(f"{path}: cannot be opened ({error.strerror})", "unreadable_file") from error


def npy_members(path: str) -> list[str]:
    """The positions of the recordings of a batch."""
    return list(map(str, range(batch_size(parse_npy(path, _mapped(path)).shape))))


def batch_size(shape: Sequence[int]) -> int:
    """How many recordings an array of n x 12 x samples or n x samples x 12 holds; 0 for n = 1 and other shapes."""
    return shape[0] if len(shape) == 3 and shape[0] > 1 and 12 in shape[1:] else 0


def place_in_batch(
    path: str, what: str, shape: Sequence[int], member: str | None, names: Sequence[str] = ()
) -> int | None:
    """Where the recording ``member`` is in a batch; 0 in a batch of one; None for an array that is no batch.

    Args:
        path: the file, for messages.
        what: what it holds, for messages.
        shape: of the array.
        member: the name of the recording.
        names: of all recordings; where there are none, they are their positions.

    Raises:
        ReadError: ``several_recordings`` where no member is named, ``missing_file`` where there is none of the name.
    """
    count = batch_size(shape)
    if not count and member is None:
        return 0 if len(shape) == 3 and shape[0] == 1 else None
    if not count:
        raise ReadError(f"{path}: {what} holds one recording; leave out ::{member}", "missing_file")
    first, last = (names[0], names[-1]) if names else ("0", str(count - 1))
    if member is None:
        raise ReadError(
            f"{path}: {what} holds {count} recordings (shape {tuple(shape)}); name one: {path}::{first}",
            "several_recordings",
        )
    if names and member in names:
        return names.index(member)
    if not names and member.isdecimal() and int(member) < count:
        return int(member)
    raise ReadError(f"{path}: {what} holds no recording {member[:40]} (but {first} to {last})", "missing_file")


def only_recording(path: str, what: str, values: np.ndarray) -> np.ndarray:
    """The array itself, or the recording in a batch of one; ``several_recordings`` for a larger batch."""
    if count := batch_size(values.shape):
        raise ReadError(
            f"{path}: {what} holds {count} recordings (shape {values.shape}); save the array as .npy or HDF5, of which "
            "every recording is read",
            "several_recordings",
        )
    return values[0] if values.ndim == 3 and values.shape[0] == 1 else values


def array_ecg(path: str, form: str, what: str, values: np.ndarray, options: Options, *, of_batch: bool = False) -> ECG:
    """The ECG of an array of 12 x n or n x 12 whose rate and unit the caller states."""
    refuse_options(path, f"{what} has no names of leads", options, "leads")
    rows = twelve_rows(path, values, what)
    scale, fs = stated_scale(path, options, what), stated_rate(path, options, what)
    notes: dict[str, str] = {}
    if of_batch:
        rows = _without_padding(rows, fs, notes)
    with np.errstate(over="ignore", invalid="ignore"):  # make_ecg refuses what is infinite
        channels = [np.multiply(row, scale, dtype=np.float64).astype(np.float32) for row in rows]
    return make_ecg(path, form, channels, LEADS, fs, {"warnings": notes})


def _without_padding(rows: np.ndarray, fs: float, notes: dict[str, str]) -> np.ndarray:
    """Leave out what fills a recording up to the length of its batch: zeros or NaN of all leads at the ends.

    Less than 0.1 s may be the recording's own. CODE-15 fills up 7 s to 10.24 s.
    """
    held = np.flatnonzero(((rows != 0) & ~np.isnan(rows)).any(axis=0))
    if not held.size:
        return rows
    begin, end = int(held[0]), int(held[-1]) + 1
    begin = begin if begin >= 0.1 * fs else 0
    end = end if rows.shape[1] - end >= 0.1 * fs else rows.shape[1]
    if end - begin < rows.shape[1]:
        notes["padding_left_out"] = (
            f"{begin} samples before and {rows.shape[1] - end} behind the recording fill it up to the length of its "
            "batch (all leads zero or NaN); they were left out"
        )
    return rows[:, begin:end]


def twelve_rows(path: str, values: np.ndarray, what: str) -> np.ndarray:
    """An array of one recording as (12, n); which side has the leads is seen from its length."""
    if values.ndim != 2 or 12 not in values.shape or values.shape == (12, 12):
        raise ReadError(
            f"{path}: {what} has shape {values.shape}; one recording is 12 x samples or samples x 12 "
            "in the order I II III aVR aVL aVF V1-V6, several are such arrays in a third axis before them",
            "unsupported_format",
        )
    return values if values.shape[0] == 12 else values.T


def parse_npy(path: str, data: bytes | mmap.mmap) -> np.ndarray:
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
    return flat.reshape(shape, order="F" if fortran else "C")


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
    """Read the array ``ecg``, ``signal``, ``data``, ``val``, ``tracings`` (or the only one of signals) of a ``.npz``.

    ``fs``, ``units`` and ``leads`` may be arrays in it; without ``leads`` the order of ``LEADS`` is meant.

    Raises:
        ReadError: as for :func:`read_npy`; ``too_long`` for members that expand to more than 256 MiB.
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
    signals = [key for key in SIGNAL_NAMES if key in found]
    signals = signals[:1] or [key for key, values in found.items() if values.ndim in (2, 3) and key not in _TEXTS]
    if len(signals) != 1:
        listed = ", ".join(list(found)[:12])
        raise ReadError(f"{path}: no array named {', '.join(SIGNAL_NAMES)} among {listed}", "unsupported_format")
    values = found[signals[0]]
    fs = next((to_float(_only(found[key])) for key in ("fs", "sampling_rate") if key in found), None)
    if fs is not None and options.fs is not None and abs(fs - options.fs) > 0.01 * fs:
        refuse_options(path, f"states its own rate, {fs:g} Hz", options, "fs")
    units = _only(found.get("units", np.empty(0)))
    if units is not None and units != options.units:
        refuse_options(path, f"states its own unit, {units[:20]}", options, "units", "gain")
        if units_per_mv(units) is None:
            raise ReadError(f"{path}: units={units[:20]!r} is no voltage; use mV, uV, nV or V", "bad_units")
    options = options._replace(fs=options.fs if fs is None else fs)
    if units is not None:
        options = options._replace(units=units, gain=None)
    if "leads" not in found:
        return array_ecg(path, "NumPy", "this array", only_recording(path, "this array", values), options)
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
NPY = Format("NumPy", lambda path, head: head.startswith(b"\x93NUMPY"), read_npy, _TAKES, npy_members)
NPZ = Format("NumPy archive (.npz)", is_npz, read_npz, _TAKES)
