"""WFDB signal files in every format: packed, big-endian, differences, FLAC; several files, skews, byte offsets.

Source: https://wfdb.io/spec/signal-files.html . The usual case (format 16, one file) is read faster in ``wfdb``.
Read here because the ``wfdb`` package cannot read format 61, nor leads of unlike formats, and allocates what a damaged
header claims; FLAC is decoded by soundfile.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np

from deri.ecg.formats.common import optional
from deri.ecg.formats.wfdb_header import Header, SignalLine
from deri.errors import ReadError

FLAC_BITS = {508: 8, 516: 16, 524: 24}
# Bytes and samples of a group, per format.
_GROUPS = {
    **{8: (1, 1), 80: (1, 1), 16: (2, 1), 61: (2, 1), 160: (2, 1), 24: (3, 1), 32: (4, 1)},
    **{212: (3, 2), 310: (4, 3), 311: (4, 3)},
}
# Samples that an incomplete group at the end holds, by its bytes.
_RESTS = {212: (0, 0, 1), 310: (0, 0, 1, 2), 311: (0, 0, 1, 2)}
NO_SAMPLE = {
    **{16: -(2**15), 24: -(2**23), 32: -(2**31), 61: -(2**15), 80: -(2**7), 160: -(2**15)},
    **{212: -(2**11), 310: -(2**9), 311: -(2**9), 508: -(2**7), 516: -(2**15), 524: -(2**23)},
}
"""The digital value that means "no sample", per format; format 8 has none."""
NONE = -(2**40)
MAX_VALUES = 2**28
"""Values that a FLAC file may stand for: its size does not bound what a header may claim."""


class Digital(NamedTuple):
    """Samples of some leads of one record."""

    samples: np.ndarray  # (k, n), integers
    no_sample: np.ndarray  # (k, 1): the value that marks a gap
    per_frame: int  # samples per frame of these leads
    surplus: int  # frames in the files beyond what the header states


def samples_in(form: int, size: int) -> int:
    """How many samples ``size`` bytes hold."""
    width, count = _GROUPS[form]
    groups, rest = divmod(size, width)
    return groups * count + (_RESTS[form][rest] if form in _RESTS else 0)


def unpack(data: bytes, form: int) -> np.ndarray:
    """All samples of a file's bytes, integers (n,). Format 8 as it is stored, in differences."""
    count = samples_in(form, len(data))
    width = _GROUPS[form][0]
    if form in (8, 80):
        return np.frombuffer(data, "i1") if form == 8 else np.frombuffer(data, "u1").astype(np.int16) - 128
    if form in (16, 61):
        return np.frombuffer(data, "<i2" if form == 16 else ">i2", count=count).astype(np.int16)
    if form == 160:
        return np.frombuffer(data, "<u2", count=count).astype(np.int32) - 2**15
    if form == 32:
        return np.frombuffer(data, "<i4", count=count)
    raw = np.frombuffer(data + b"\0" * (-len(data) % width), "u1").reshape(-1, width).astype(np.int32)
    if form == 24:
        words = raw[:, 0] | raw[:, 1] << 8 | raw[:, 2] << 16
        bits = 24
    elif form == 212:
        words = np.stack((raw[:, 0] | (raw[:, 1] & 15) << 8, raw[:, 2] | raw[:, 1] >> 4 << 8), axis=1)
        bits = 12
    else:
        low, high = raw[:, 0] | raw[:, 1] << 8, raw[:, 2] | raw[:, 3] << 8
        if form == 310:
            parts = (low >> 1 & 1023, high >> 1 & 1023, low >> 11 | high >> 11 << 5)
        else:
            parts = (low & 1023, low >> 10 | (high & 15) << 6, high >> 4 & 1023)
        words = np.stack(parts, axis=1)
        bits = 10
    values = words.ravel()[:count]
    return np.where(values >> (bits - 1), values - (1 << bits), values).astype(np.int32)


def check_sizes(path: str, folder: str, header: Header, kept: list[SignalLine]) -> dict[str, int | None]:
    """Frames that each file of the kept signals holds (None: compressed), by its size alone.

    Raises:
        ReadError: ``unsupported_format``, ``missing_signal_file``, ``unequal_lead_lengths``, ``truncated_signal``,
            ``too_long``, ``bad_header``.
    """
    lengths: dict[str, int | None] = {}
    for name in dict.fromkeys(signal.file for signal in kept):
        group = [signal for signal in header.signals if signal.file == name]
        forms = {(signal.format, signal.byte_offset) for signal in group}
        form, offset = group[0].format, group[0].byte_offset
        if len(forms) > 1:
            raise ReadError(f"{path}: gives {name} several formats or offsets ({sorted(forms)})", "bad_header")
        if form not in _GROUPS and form not in FLAC_BITS:
            raise ReadError(f"{path}: signal format {form} is not one of WFDB's", "unsupported_format")
        try:
            size = os.stat(signal_path(path, folder, name)).st_size
        except OSError:
            raise ReadError(f"{path}: its signal file {name} is missing", "missing_signal_file") from None
        frame = sum(signal.samples_per_frame for signal in group)
        if form in FLAC_BITS:
            lengths[name] = None
            if (header.n_samples or 0) * frame > MAX_VALUES:
                raise ReadError(f"{path}: {header.n_samples} samples of {len(group)} leads are too many", "too_long")
        else:
            lengths[name] = samples_in(form, max(0, size - offset)) // frame
    known = {name: length for name, length in lengths.items() if length is not None}
    if header.n_samples is None:
        if len(set(known.values())) > 1:
            raise ReadError(f"{path}: its signal files differ in length ({known} samples)", "unequal_lead_lengths")
        return lengths
    short = {name: length for name, length in known.items() if length < header.n_samples}
    if short:
        listed = ", ".join(f"{name} holds {length}" for name, length in sorted(short.items()))
        reason = "truncated_signal" if len(short) == len(lengths) else "unequal_lead_lengths"
        raise ReadError(f"{path}: the header says {header.n_samples} samples per lead, but {listed}", reason)
    return lengths


def signal_path(path: str, folder: str, name: str) -> str:
    """The path of a signal file; a header from elsewhere must not make us open files outside its own folder."""
    if name in ("~", "-", ".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise ReadError(f"{path}: {name[:60]!r} is not the name of a signal file in the same folder", "bad_header")
    file = os.path.join(folder, name)
    if path.endswith(".HEA") and not os.path.exists(file):  # a CD with all names in capitals
        return os.path.join(folder, name.upper())
    return file


def read_digital(path: str, folder: str, header: Header, kept: list[SignalLine]) -> Digital:
    """Digital samples of the kept signals of a single-segment record.

    A lead with skew s has its sample of time t in frame t + s; what lies beyond the end of the file is a gap.

    Raises:
        ReadError: as ``check_sizes``, ``unreadable_signal`` (FLAC that cannot be decoded), ``missing_dependency``.
    """
    rates = {signal.samples_per_frame for signal in kept}
    if len(rates) > 1:
        listed = ", ".join(f"{signal.description}: {signal.samples_per_frame}" for signal in kept)
        raise ReadError(
            f"{path}: leads of different sampling rates (samples per frame {listed})", "unequal_lead_lengths"
        )
    per_frame = rates.pop()
    lengths = check_sizes(path, folder, header, kept)
    columns: dict[int, np.ndarray] = {}
    surplus = 0
    for name, available in lengths.items():
        group = [signal for signal in header.signals if signal.file == name]
        deepest = max(signal.skew for signal in group)
        wanted = None if header.n_samples is None else header.n_samples + deepest
        if available is None:
            channels = _read_flac(path, folder, header, group, wanted)
        else:
            if wanted is not None:
                surplus = max(surplus, available - wanted)
            channels = _read_file(path, folder, group, available if wanted is None else min(wanted, available))
        for signal, channel in zip(group, channels, strict=True):
            for index, one in enumerate(kept):
                if one is signal:
                    columns[index] = channel[signal.skew * per_frame :]
    count = (header.n_samples or 0) * per_frame or max(channel.size for channel in columns.values())
    skewed = any(signal.skew for signal in kept)
    if not skewed and any(channel.size < count for channel in columns.values()):
        raise ReadError(f"{path}: the leads differ in length", "unequal_lead_lengths")
    samples = np.empty((len(kept), count), dtype=np.int64)
    for index, channel in columns.items():
        samples[index, : channel.size] = channel[:count]
        samples[index, channel.size :] = NO_SAMPLE.get(kept[index].format, NONE)
    marks = np.array([[NO_SAMPLE.get(signal.format, NONE)] for signal in kept], dtype=np.int64)
    return Digital(samples, marks, per_frame, surplus)


def _read_file(path: str, folder: str, group: list[SignalLine], count: int) -> list[np.ndarray]:
    """The samples of each signal of one file, ``count`` frames."""
    form, offset = group[0].format, group[0].byte_offset
    frame = sum(signal.samples_per_frame for signal in group)
    width, per_group = _GROUPS[form]
    file = signal_path(path, folder, group[0].file)
    try:
        with open(file, "rb") as handle:
            handle.seek(offset)
            data = handle.read(-(-count * frame // per_group) * width)
    except OSError as error:
        raise ReadError(f"{file}: cannot be opened ({error.strerror})", "unreadable_file") from error
    values = unpack(data, form)[: count * frame].reshape(count, frame)
    channels = []
    first = 0
    for signal in group:
        channel = values[:, first : first + signal.samples_per_frame].ravel()
        first += signal.samples_per_frame
        channels.append(np.cumsum(channel, dtype=np.int64) + signal.initial if form == 8 else channel)
    return channels


def _read_flac(path: str, folder: str, header: Header, group: list[SignalLine], count: int | None) -> list[np.ndarray]:
    soundfile: Any = optional(path, "soundfile", "soundfile", "WFDB in FLAC")
    file = signal_path(path, folder, group[0].file)
    per_frame = group[0].samples_per_frame
    bits = FLAC_BITS[group[0].format]
    try:
        with soundfile.SoundFile(file) as stream:
            channels, length, form = stream.channels, stream.frames, stream.format
            wanted = length if count is None else min(length, count * per_frame)
            sound = channels == len(group) and length * channels <= MAX_VALUES and form == "FLAC"
            values = stream.read(frames=wanted, dtype="int32", always_2d=True) if sound else None
    except Exception as error:  # libsndfile has errors of its own
        detail = " ".join(str(error).split())[:160] or type(error).__name__
        raise ReadError(f"{file}: cannot be read as FLAC ({detail})", "unreadable_signal") from error
    if values is None or any(signal.samples_per_frame != per_frame for signal in group) or group[0].byte_offset:
        raise ReadError(
            f"{path}: describes {len(group)} signals in {group[0].file}, a {form} file of {channels} channels and "
            f"{length} samples",
            "bad_header",
        )
    stated = (header.n_samples or 0) * per_frame
    if len(values) < max(stated, wanted if count is None else 0) or len(values) == 0:
        raise ReadError(f"{file}: holds {len(values)} of {stated} samples", "truncated_signal")
    return [values[:, column] >> (32 - bits) for column in range(channels)]
