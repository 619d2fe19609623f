"""What all format readers share: units, limits, and the way from channels to an ECG."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from deri.ecg.leads import canonical_lead, lead_plan
from deri.ecg.recording import ECG
from deri.errors import ReadError

MAX_FILE_BYTES = 2**30
"""Files larger than this are not loaded; a day of 12 leads at 500 Hz in 16 bits is just below."""
MAX_SAMPLES = 50_000_000
"""Samples per lead that the bytes of a file may stand for: a day at 500 Hz."""
MAX_SPREAD_SAMPLES = 2**23
"""Samples per lead where gaps count too, so that a false time in a small file cannot claim all memory."""

_PER_MV = {"mv": 1.0, "uv": 1e3, "µv": 1e3, "μv": 1e3, "nv": 1e6, "v": 1e-3}
_LONG = {"millivolt": "mv", "millivolts": "mv", "microvolt": "uv", "microvolts": "uv", "nanovolt": "nv", "volt": "v"}


class Options(NamedTuple):
    """What the caller states about a file that does not say it itself."""

    fs: float | None = None
    units: str | None = None


class Format(NamedTuple):
    """A row of the table of formats.

    Attributes:
        description: what the format is called, for messages and for users.
        sniff: whether a file is of this format, from its path and its first 4096 bytes.
        read: the recording in a file, from its path and the options that ``takes`` names.
        takes: the fields of :class:`Options` that the format leaves to the caller; others are refused.
    """

    description: str
    sniff: Callable[[str, bytes], bool]
    read: Callable[[str, Options], ECG]
    takes: tuple[str, ...] = ()


@lru_cache(maxsize=256)
def units_per_mv(unit: str) -> float | None:
    """How many of ``unit`` make a millivolt; None for anything that is not a voltage. Case does not matter."""
    key = unit.strip().lower()
    return _PER_MV.get(_LONG.get(key, key))


def require_voltage(path: str, lead: str, unit: str) -> float:
    """Millivolts per ``unit``, or ``bad_units``."""
    per_mv = units_per_mv(unit)
    if per_mv is None:
        shown = repr(unit.strip()[:20]) if unit.strip() else "no unit"
        raise ReadError(f"{path}: lead {lead[:40]} has {shown}; an ECG is in mV, uV, nV or V", "bad_units")
    return 1.0 / per_mv


def stated_rate(path: str, options: Options, kind: str) -> float:
    """The sampling rate the caller gave for a file that has none, or ``bad_sampling_rate`` with the cure."""
    if options.fs is None:
        raise ReadError(
            f"{path}: {kind} does not state its sampling rate; give it: read_ecg(path, fs=500)", "bad_sampling_rate"
        )
    return float(options.fs)


def stated_scale(path: str, options: Options, kind: str) -> float:
    """Millivolts per unit the caller gave for a file that has none, or ``bad_units`` with the cure."""
    if options.units is None:
        raise ReadError(
            f"{path}: {kind} does not state its unit; give it: read_ecg(path, units='mV') (mV, uV, nV or V)",
            "bad_units",
        )
    per_mv = units_per_mv(options.units)
    if per_mv is None:
        raise ReadError(f"{path}: units={options.units!r} is no voltage; use mV, uV, nV or V", "bad_units")
    return 1.0 / per_mv


def optional(path: str, module: str, package: str, kind: str) -> ModuleType:
    """Import a reader library that not every installation has, or ``missing_dependency``."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ReadError(
            f"{path}: reading {kind} needs the package {package}, which is not installed; "
            "`pip install 'deri[formats]'` installs it",
            "missing_dependency",
        ) from error


def brief(error: Exception) -> str:
    """What a library's error says, on one short line."""
    return " ".join(str(error).split())[:160] or type(error).__name__


def load(path: str, limit: int = MAX_FILE_BYTES) -> bytes:
    """The whole file, or ``unreadable_file`` / ``too_long``."""
    try:
        with open(path, "rb") as handle:
            size = os.fstat(handle.fileno()).st_size
            if size > limit:
                raise ReadError(f"{path}: {size} bytes are more than the {limit} that are read at once", "too_long")
            return handle.read()
    except OSError as error:
        raise ReadError(f"{path}: cannot be opened ({error.strerror})", "unreadable_file") from error


def make_ecg(
    path: str, form: str, channels: Sequence[np.ndarray], names: Sequence[str], fs: float, about: Mapping[str, Any]
) -> ECG:
    """The ECG of channels in mV; channels that are none of the twelve leads are dropped, whatever their length.

    Raises:
        ReadError: ``bad_sampling_rate``, ``unknown_leads``, ``duplicate_lead``, ``unequal_lead_lengths``,
            ``truncated_signal`` (no samples), ``too_long``, ``amplitude_out_of_range`` (infinite values).
    """
    if not (math.isfinite(fs) and 0 < fs <= 1e6):
        raise ReadError(f"{path}: a sampling rate of {fs:g} Hz is not that of an ECG", "bad_sampling_rate")
    kept = [i for i, name in enumerate(names) if canonical_lead(name) is not None]
    if kept and channels[kept[0]].size > MAX_SAMPLES:
        raise ReadError(f"{path}: {channels[kept[0]].size} samples per lead are too many to read", "too_long")
    metadata = {"source_file": path, "format": form, "warnings": {}, "comments": [], **about}
    try:
        if not kept:
            lead_plan(tuple(names))  # raises unknown_leads
        if not all(channels[i].size for i in kept):
            raise ReadError("holds no samples", "truncated_signal")
        with np.errstate(over="ignore"):
            ecg = ECG.from_leads([channels[i] for i in kept], [names[i] for i in kept], fs, metadata)
    except ReadError as error:
        raise ReadError(f"{path}: {error}", error.reason) from None
    if np.isinf(ecg.signal).any():
        raise ReadError(f"{path}: holds values beyond any number; its scale is damaged", "amplitude_out_of_range")
    ecg.metadata["dropped_leads"] = [name for i, name in enumerate(names) if i not in kept]
    return ecg


class Strip(NamedTuple):
    """One stretch of one lead."""

    lead: str
    start: float  # seconds
    values: np.ndarray  # mV


def lay_out(path: str, strips: Sequence[Strip], fs: float) -> tuple[list[str], list[np.ndarray], float]:
    """Put strips of leads that were recorded at different times on one time axis; what was not recorded is NaN.

    A printed 12-lead ECG may hold 2.5 s of each lead one after the other and 10 s of a rhythm lead. Of a lead with
    several strips the longest is kept (the earliest, of equally long ones).

    Returns:
        names, channels of equal length, and the start of the axis in seconds.
    """
    chosen: dict[str, Strip] = {}
    for strip in strips:
        name = canonical_lead(strip.lead) or strip.lead
        rival = chosen.get(name)
        if rival and canonical_lead(name) and (strip.start, strip.values.size) == (rival.start, rival.values.size):
            raise ReadError(f"{path}: two channels of the same time are lead {name}", "duplicate_lead")
        if name not in chosen or strip.values.size > chosen[name].values.size:
            chosen[name] = strip
    kept = {name: strip for name, strip in chosen.items() if canonical_lead(name) is not None}
    others = [name for name in chosen if name not in kept]
    if not kept:
        return list(chosen), [strip.values for strip in chosen.values()], 0.0
    begin = min(strip.start for strip in kept.values())
    firsts = {name: (strip.start - begin) * fs for name, strip in kept.items()}
    ends = [firsts[name] + strip.values.size for name, strip in kept.items()]
    if not all(math.isfinite(end) and end <= MAX_SPREAD_SAMPLES for end in ends):
        same = len({strip.start for strip in kept.values()}) == 1
        if not same:
            raise ReadError(f"{path}: its leads lie too far apart in time for one recording", "too_long")
    offsets = {name: round(first) for name, first in firsts.items()}
    if not any(offsets.values()) and len({strip.values.size for strip in kept.values()}) == 1:
        return [*kept, *others], [*(s.values for s in kept.values()), *(chosen[o].values for o in others)], begin
    total = max(offsets[name] + strip.values.size for name, strip in kept.items())
    channels = []
    for name, strip in kept.items():
        channel = np.full(total, np.nan)
        channel[offsets[name] : offsets[name] + strip.values.size] = strip.values
        channels.append(channel)
    return [*kept, *others], [*channels, *(chosen[o].values for o in others)], begin


def note_calibration_pulse(channels: Sequence[np.ndarray], fs: float, notes: dict[str, str]) -> None:
    """Warn where a recording ends with a 1 mV calibration pulse in every lead at once, in place of the ECG.

    Philips carts write 11 s of which the last 0.4 s are that pulse; the values are left as the file has them.

    Args:
        channels: at least eight leads in mV, of equal length.
    """
    if len(channels) < 8 or len({channel.size for channel in channels}) > 1:
        return
    tail = np.stack([channel[-round(fs) :] for channel in channels])
    high = np.asarray((np.abs(tail - 1.0) <= 0.02).all(axis=0))
    part = high | (np.abs(tail) <= 0.02).all(axis=0)
    start = part.size - int(np.argmin(part[::-1])) if not part.all() else 0
    if 0.1 * fs <= high[start:].sum() <= 0.4 * fs and not high[-3:].any():
        seconds = (channels[0].size - part.size + start) / fs
        notes["calibration_pulse"] = (
            f"from {seconds:.2f} s on the leads hold a 1 mV calibration pulse of the device, not the patient's ECG"
        )


_SEXES = {"m": "male", "male": "male", "f": "female", "female": "female"}


def sex_of(text: str) -> str | None:
    """``female``, ``male``, or None for anything else."""
    return _SEXES.get(text.strip().lower())


_YEARS = {"y": 1.0, "a": 1.0, "m": 1 / 12, "mo": 1 / 12, "w": 7 / 365.25, "d": 1 / 365.25, "h": 1 / 8766}


def years(value: float, unit: str = "y") -> float | None:
    """An age in years; ``unit`` is any word that begins like year, annum, month, week, day or hour."""
    key = unit.strip().lower()
    factor = _YEARS.get(key[:2], _YEARS.get(key[:1])) if key else 1.0
    if factor is None or not math.isfinite(value) or value < 0:
        return None
    age = value * factor
    return float(round(age, 2)) if age <= 150 else None


def years_between(born: date | None, recorded: date | None) -> float | None:
    """Whole years from birth to recording; None if either is unknown or they are the wrong way round."""
    if born is None or recorded is None or recorded < born:
        return None
    return float(recorded.year - born.year - ((recorded.month, recorded.day) < (born.month, born.day)))


def to_date(year: int, month: int, day: int) -> date | None:
    """A date, or None where there is no such day."""
    try:
        return date(year, month, day)
    except (ValueError, OverflowError):
        return None


def to_float(text: str | None) -> float | None:
    """A finite number, or None."""
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None
