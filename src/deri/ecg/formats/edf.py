"""EDF, EDF+ (continuous and discontinuous) and BDF.

Read here and not through pyedflib, which refuses discontinuous files and many that stray from the standard in fields
that do not matter; the tests compare the two.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np

from deri.ecg.formats.common import (
    MAX_SAMPLES,
    MAX_SPREAD_SAMPLES,
    Format,
    Options,
    device_name,
    load,
    make_ecg,
    moment,
    refuse_options,
    require_voltage,
    sex_of,
    to_date,
    to_float,
    years_between,
)
from deri.ecg.leads import canonical_lead
from deri.ecg.recording import ECG
from deri.errors import ReadError

_EDF, _BDF = b"0       ", b"\xffBIOSEMI"
_ANNOTATIONS = ("EDF Annotations", "BDF Annotations")
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_ONSET = re.compile(rb"([+-]\d+(?:\.\d*)?)(?:\x15\d+(?:\.\d*)?)?\x14")


class Channel(NamedTuple):
    """One signal of the header."""

    label: str
    unit: str
    gain: float  # physical units per digital unit; 0 where the header's limits coincide
    offset: float
    samples: int  # per data record
    first: int  # index of its first sample in a data record


def read_edf(path: str, options: Options) -> ECG:
    """Read the ECG leads of an EDF, EDF+ or BDF file; other signals are dropped, gaps of a discontinuous file are NaN.

    Raises:
        ReadError: ``bad_header``, ``bad_gain``, ``bad_units``, ``truncated_signal``, ``unequal_lead_lengths`` (rates
            that differ between leads), ``too_long``, and those of ``make_ecg``.
    """
    data = load(path)
    width = 3 if data[:8] == _BDF else 2
    channels, seconds, stated, begin = _header(path, data)
    channels = [channel._replace(label=options.lead(channel.label)) for channel in channels]
    frame = sum(channel.samples for channel in channels)
    available = (len(data) - begin) // (frame * width) if frame else 0
    notes: dict[str, str] = {}
    count = available if stated == -1 else stated
    if stated == -1:
        notes["unclosed_recording"] = f"the recorder stated no length; {available} complete data records were read"
    if count > available or count <= 0:
        raise ReadError(f"{path}: {available} of {stated} data records are there", "truncated_signal")
    if len(data) - begin > count * frame * width:
        notes["surplus_data"] = f"{len(data) - begin - count * frame * width} bytes follow the stated data records"
    leads = [channel for channel in channels if canonical_lead(channel.label) is not None]
    names = [channel.label for channel in channels if channel.label not in _ANNOTATIONS]
    if len({channel.samples for channel in leads}) > 1:
        listed = ", ".join(f"{c.label}: {c.samples / seconds if seconds else c.samples:g}" for c in leads)
        raise ReadError(f"{path}: leads of different sampling rates ({listed})", "unequal_lead_lengths")
    if leads and seconds <= 0:
        raise ReadError(f"{path}: its data records last {seconds:g} s, so the rate is unknown", "bad_sampling_rate")
    fs = leads[0].samples / seconds if leads else 1.0
    if leads and leads[0].samples * count > MAX_SAMPLES:
        raise ReadError(f"{path}: {leads[0].samples * count} samples per lead are too many to read", "too_long")
    raw = np.frombuffer(data, dtype=np.uint8, count=count * frame * width, offset=begin).reshape(count, frame * width)
    starts, texts = _annotations(raw, channels, width)
    values = {}
    for channel in leads:
        values[channel.label] = _physical(path, channel, raw, width, options)
    if data[192:197] in (b"EDF+D", b"BDF+D") and leads:
        values = _spread(path, values, starts, fs, leads[0].samples)
    ordered = [values.get(name, np.empty(0)) for name in names]
    about = {"warnings": notes, "comments": texts, **_patient(data)}
    return make_ecg(path, "BDF" if width == 3 else "EDF", ordered, names, fs, about)


def _header(path: str, data: bytes) -> tuple[list[Channel], float, int, int]:
    """Channels, seconds per data record, number of data records (−1: unknown), where the data begin."""
    seconds, records, count = (to_float(_text(data, *at)) for at in ((244, 252), (236, 244), (252, 256)))
    if seconds is None or records is None or count is None or not 1 <= count <= 4096 or records < -1:
        raise ReadError(f"{path}: the fixed part of its header is damaged", "bad_header")
    n = int(count)
    begin = 256 * (n + 1)
    if len(data) < begin:
        raise ReadError(f"{path}: cut off within its header", "bad_header")

    def column(start: int, size: int) -> list[str]:
        return [_text(data, 256 + start * n + i * size, 256 + start * n + (i + 1) * size) for i in range(n)]

    labels, units = column(0, 16), column(96, 8)
    limits = [column(start, 8) for start in (104, 112, 120, 128)]
    channels = []
    first = 0
    for i, samples in enumerate(to_float(text) for text in column(216, 8)):
        if samples is None or samples < 0 or samples != int(samples):
            raise ReadError(f"{path}: signal {labels[i]!r} states no number of samples", "bad_header")
        low, high, dlow, dhigh = (to_float(limit[i].replace(",", ".")) for limit in limits)
        gain = offset = 0.0
        if None not in (low, high, dlow, dhigh) and dhigh != dlow and high != low:
            gain = (high - low) / (dhigh - dlow)  # type: ignore[operator]
            offset = low - gain * dlow  # type: ignore[operator]
        channels.append(Channel(labels[i], units[i], gain, offset, int(samples), first))
        first += int(samples)
    return channels, seconds, int(records), begin


def _text(data: bytes, start: int, end: int) -> str:
    part = data[start:end]
    try:
        text = part.decode("utf-8")  # against the standard, but µV is often written so
    except UnicodeDecodeError:
        text = part.decode("latin-1")
    return text.replace("\0", " ").strip()


def _physical(path: str, channel: Channel, raw: np.ndarray, width: int, options: Options) -> np.ndarray:
    """The samples of one channel in mV, float64 (n,)."""
    if channel.unit:
        refuse_options(path, f"lead {channel.label} states its unit, {channel.unit}", options, "units")
    factor = require_voltage(path, channel.label, channel.unit or options.units or "")
    if channel.gain == 0:
        raise ReadError(f"{path}: the physical or digital limits of {channel.label} leave no scale", "bad_gain")
    part = np.ascontiguousarray(raw[:, channel.first * width : (channel.first + channel.samples) * width])
    if width == 2:
        digital = part.view("<i2").ravel().astype(np.float64)
    else:
        wide = np.zeros((part.size // 3, 4), dtype=np.uint8)
        wide[:, 1:] = part.reshape(-1, 3)
        digital = (wide.view("<i4").ravel() >> 8).astype(np.float64)
    return (digital * channel.gain + channel.offset) * factor


def _annotations(raw: np.ndarray, channels: list[Channel], width: int) -> tuple[list[float | None], list[str]]:
    """Start of each data record in seconds (None if not stated) and the texts of EDF+ annotations."""
    starts: list[float | None] = [None] * len(raw)
    texts: list[str] = []
    found = [channel for channel in channels if channel.label in _ANNOTATIONS]
    for number, channel in enumerate(found):
        for index, row in enumerate(raw[:, channel.first * width : (channel.first + channel.samples) * width]):
            for position, item in enumerate(row.tobytes().split(b"\0")):
                match = _ONSET.match(item)
                if not match:
                    continue
                if number == 0 and position == 0:
                    starts[index] = float(match[1])
                lines = [part.decode("utf-8", errors="replace").strip() for part in item[match.end() :].split(b"\x14")]
                texts += [f"{float(match[1]):g} s: {line}" for line in lines if line and len(texts) < 1000]
    return starts, texts


def _spread(
    path: str, values: dict[str, np.ndarray], starts: list[float | None], fs: float, samples: int
) -> dict[str, np.ndarray]:
    """Data records of a discontinuous file at their times, NaN between them."""
    if any(start is None for start in starts):
        raise ReadError(f"{path}: a discontinuous file whose data records do not all state their time", "bad_header")
    at = np.round((np.array(starts, dtype=np.float64) - float(starts[0] or 0.0)) * fs)
    if (np.diff(at) < samples - 1).any() or not np.isfinite(at).all():
        raise ReadError(f"{path}: its data records overlap or are not in the order of time", "bad_header")
    if at[-1] + samples > MAX_SPREAD_SAMPLES:
        raise ReadError(f"{path}: its parts lie {at[-1] / fs:.0f} s apart, too far for one recording", "too_long")
    total = int(at[-1]) + samples
    spread = {}
    for name, channel in values.items():
        row = np.full(total, np.nan)
        for start, part in zip(at.astype(np.int64), channel.reshape(-1, samples), strict=True):
            row[start : start + samples] = part
        spread[name] = row
    return spread


def _patient(data: bytes) -> dict[str, Any]:
    """What the header says: in EDF+ ``code sex dd-MMM-yyyy name`` and ``Startdate dd-MMM-yyyy code person device``."""
    day, clock = re.fullmatch(r"(\d\d)\.(\d\d)\.(\d\d)", _text(data, 168, 176), re.ASCII), _text(data, 176, 184)
    start = None
    if day and day[0] != "01.01.85":  # how an unknown day is written
        start = to_date((1900 if int(day[3]) >= 85 else 2000) + int(day[3]), int(day[2]), int(day[1]))
    if data[192:196] not in (b"EDF+", b"BDF+"):
        return {"date": moment(start, clock)}
    fields, recording = _text(data, 8, 88).split(), _text(data, 88, 168).split()
    born = _date(fields[2]) if len(fields) > 2 else None
    recorded = _date(recording[1]) if len(recording) > 1 and recording[0] == "Startdate" else None
    return {
        "sex": sex_of(fields[1]) if len(fields) > 1 else None,
        "age": years_between(born, recorded),
        "date": moment(recorded or start, clock),
        "device": device_name(recording[4].replace("_", " ")) if len(recording) > 4 and recording[4] != "X" else None,
    }


def _date(text: str) -> Any:
    match = re.fullmatch(r"(\d{1,2})-([A-Za-z]{3})-(\d{4})", text, re.ASCII)
    if not match or match[2].upper() not in _MONTHS:
        return None
    return to_date(int(match[3]), _MONTHS.index(match[2].upper()) + 1, int(match[1]))


def _sniff(path: str, head: bytes) -> bool:
    return head[:8] == _BDF or (head[:8] == _EDF and head[252:256].strip(b" \0").isdigit())


FORMAT = Format("EDF, EDF+ and BDF", _sniff, read_edf, takes=("units",))
