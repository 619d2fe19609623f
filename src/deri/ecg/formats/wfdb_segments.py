"""Multi-segment WFDB records: segments of one length each, one after the other, with gaps between them.

Every segment is read as a record of its own, so that each may have its own leads, order, gain, unit and format (the
``wfdb`` package takes the unit of one segment for all).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from deri.ecg.formats.common import MAX_SAMPLES, MAX_SPREAD_SAMPLES
from deri.ecg.formats.wfdb_header import Header
from deri.ecg.formats.wfdb_signals import signal_path
from deri.ecg.leads import LEADS
from deri.ecg.recording import ECG
from deri.errors import ReadError


def read_segments(
    path: str, header: Header, load_header: Callable[[str], Header], read: Callable[[str], ECG]
) -> tuple[np.ndarray, int, dict[str, Any]]:
    """Signal (12, n) in mV, NaN where nothing was recorded, samples a frame, and metadata.

    Metadata are ``derived_leads``, ``dropped_leads`` and ``warnings``.

    Raises:
        ReadError: ``bad_header``, ``missing_signal_file``, ``too_long``, ``unequal_lead_lengths`` (rates that differ),
            ``unknown_leads``, and whatever a segment is refused for.
    """
    total = sum(length for _, length in header.segments)
    if len(header.segments) != header.n_segments or total == 0 or header.n_samples not in (None, total):
        raise ReadError(
            f"{path}: states {header.n_segments} segments of {header.n_samples} samples in all, but lists "
            f"{len(header.segments)} of {total}",
            "bad_header",
        )
    empty = sum(length for name, length in header.segments if name == "~")
    if total > MAX_SAMPLES or empty > MAX_SPREAD_SAMPLES:
        raise ReadError(f"{path}: {total} samples per lead, {empty} of them in gaps, are too many to read", "too_long")
    folder = os.path.dirname(path)
    files = [_check(path, folder, header, name, length, load_header) for name, length in header.segments]
    signal = np.empty((len(LEADS), total), dtype=np.float32)
    about: dict[str, Any] = {"derived_leads": {}, "dropped_leads": [], "warnings": {}}
    at, used, per_frame = 0, 0, 1
    for file, (_, length) in zip(files, header.segments, strict=True):
        gap = signal[:, at * per_frame : (at + length) * per_frame]
        at += length
        if file is None:
            gap[...] = np.nan
            continue
        try:
            ecg = read(file)
        except ReadError as error:
            if error.reason == "unknown_leads":  # a segment of other signals alone
                gap[...] = np.nan
                continue
            raise
        times = round(ecg.fs / header.fs)  # samples a frame; lengths of segments are in frames
        if ecg.n_samples != length * times or (used and times != per_frame):
            raise ReadError(f"{path}: a segment of {length} samples, but {file} has {ecg.n_samples}", "bad_header")
        if not used and times > 1:
            if total * times > MAX_SPREAD_SAMPLES:
                raise ReadError(f"{path}: {total * times} samples per lead are too many to read", "too_long")
            per_frame = times
            signal = np.full((len(LEADS), total * times), np.nan, dtype=np.float32)
        signal[:, (at - length) * per_frame : at * per_frame] = ecg.signal
        used += 1
        about["derived_leads"] |= ecg.metadata["derived_leads"]
        about["warnings"] |= ecg.metadata["warnings"]
        about["dropped_leads"] += [n for n in ecg.metadata["dropped_leads"] if n not in about["dropped_leads"]]
    if not used:
        raise ReadError(f"{path}: none of its segments has a lead of a 12-lead ECG", "unknown_leads")
    return signal, per_frame, about


def _check(
    path: str, folder: str, header: Header, name: str, length: int, load_header: Callable[[str], Header]
) -> str | None:
    """The header file of a segment that fits what the record says of it; None for a gap and for the layout segment."""
    if name == "~" or length == 0:
        return None
    file = signal_path(path, folder, f"{name}.hea")
    try:
        segment = load_header(file)
    except ReadError as error:
        if error.reason == "missing_header":
            raise ReadError(f"{path}: its segment {name}.hea is missing", "missing_signal_file") from error
        raise
    if segment.n_segments is not None:
        raise ReadError(f"{path}: its segment {name} is made of segments itself", "bad_header")
    if segment.fs != header.fs:
        raise ReadError(
            f"{path}: segments of different sampling rates ({header.fs:g} and {segment.fs:g} Hz)",
            "unequal_lead_lengths",
        )
    if segment.n_samples not in (None, length):
        raise ReadError(
            f"{path}: says that its segment {name} has {length} samples, which says {segment.n_samples}", "bad_header"
        )
    return file
