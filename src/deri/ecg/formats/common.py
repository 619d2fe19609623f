"""What all format readers share: units, limits, and the way from channels to an ECG."""

from __future__ import annotations

import importlib
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from deri.ecg.leads import canonical_lead, lead_plan
from deri.ecg.people import without_names
from deri.ecg.recording import ECG
from deri.errors import ReadError, install

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
    gain: float | None = None  # counts per mV
    leads: Mapping[str, str] | None = None  # name in the file -> one of the twelve leads
    fallback: bool = False  # what the file states holds, and is no reason to refuse
    member: str | None = None  # of a file of many recordings the one that is wanted

    def lead(self, name: str) -> str:
        """What a channel of this name is called."""
        given, key = self.leads or {}, name.strip()
        return given.get(key) or given.get(key.removeprefix("MDC_ECG_LEAD_")) or name


NO_OPTIONS = Options()


class Format(NamedTuple):
    """A row of the table of formats.

    Attributes:
        description: what the format is called, for messages and for users.
        sniff: whether a file is of this format, from its path and its first 4096 bytes.
        read: the recording in a file, from its path and the options that ``takes`` names.
        takes: the fields of :class:`Options` that the format may leave to the caller; others are refused. Every reader
            gives its channels the names of :meth:`Options.lead`.
        members: the names of the recordings in a file of many, none where it holds one; ``Options.member`` is one of
            them. None: files of the format hold one recording.
    """

    description: str
    sniff: Callable[[str, bytes], bool]
    read: Callable[[str, Options], ECG]
    takes: tuple[str, ...] = ()
    members: Callable[[str], Sequence[str]] | None = None


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


def stated_rate(path: str, options: Options, what: str) -> float:
    """The sampling rate the caller gave for a file that has none, or ``bad_sampling_rate`` with the cure."""
    if options.fs is None:
        raise ReadError(
            f"{path}: {what} does not state its sampling rate; give it with read_ecg(path, fs=500) or --fs 500",
            "bad_sampling_rate",
        )
    return float(options.fs)


def stated_scale(path: str, options: Options, what: str) -> float:
    """Millivolts per unit the caller gave for a file that has none, or ``bad_units`` with the cure."""
    if options.gain is not None:
        return 1.0 / options.gain
    if options.units is None:
        raise ReadError(
            f"{path}: {what} does not state its unit; give it with read_ecg(path, units='mV') or --units mV (mV, uV, "
            "nV or V), or counts per mV with gain=1000 or --gain 1000",
            "bad_units",
        )
    return 1.0 / (units_per_mv(options.units) or math.nan)


def refuse_options(path: str, what: str, options: Options, *names: str) -> None:
    """Refuse what the caller says about a file that says it itself; as a fallback it is passed over."""
    given = [name for name in names if getattr(options, name) is not None]
    if given and not options.fallback:
        flags = ", ".join(f"--{name}" for name in given)
        raise ReadError(f"{path}: {what}; leave out {' and '.join(given)} ({flags})", "stated_by_file")


def optional(path: str, module: str, package: str, kind: str) -> ModuleType:
    """Import a reader library that not every installation has, or ``missing_dependency``."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ReadError(
            f"{path}: reading {kind} needs the package {package}, which is not installed; "
            f"`{install('formats')}` installs it",
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
    if sentences := without_names(metadata.pop("interpretation", ())):
        metadata["interpretation"] = sentences
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


def lay_out(path: str, strips: Sequence[Strip], fs: float, notes: dict[str, str]) -> tuple[list[str], list[np.ndarray]]:
    """Put strips of leads that were recorded at different times on one time axis; what was not recorded is NaN.

    A printed 12-lead ECG may hold 2.5 s of each lead one after the other and 10 s of a rhythm lead; a recorder may
    write a long recording in parts. Strips of a lead that follow each other are joined. Of strips that overlap the
    longest is kept (the earliest, of equally long ones), with the note ``strips_left_out`` where another held more.

    Returns:
        names, and channels of equal length.
    """
    pieces: dict[str, list[Strip]] = {}
    for strip in strips:
        pieces.setdefault(canonical_lead(strip.lead) or strip.lead, []).append(strip)
    known = {name: found for name, found in pieces.items() if canonical_lead(name) is not None}
    others = {name: found[0].values for name, found in pieces.items() if name not in known}
    if not known:
        return list(others), list(others.values())
    begin = min(strip.start for found in known.values() for strip in found)
    placed: dict[str, list[tuple[int, np.ndarray]]] = {}
    for name, found in known.items():
        placed[name] = _place(path, name, [((s.start - begin) * fs, s.values) for s in found], notes)
    total = max(at + values.size for found in placed.values() for at, values in found)
    channels = []
    for parts in placed.values():
        if len(parts) == 1 and parts[0][1].size == total:
            channels.append(parts[0][1])
            continue
        channel = np.full(total, np.nan)
        for at, values in parts:
            channel[at : at + values.size] = values
        channels.append(channel)
    return [*placed, *others], [*channels, *others.values()]


def _place(
    path: str, name: str, found: list[tuple[float, np.ndarray]], notes: dict[str, str]
) -> list[tuple[int, np.ndarray]]:
    """The strips of one lead that are kept, each with the sample it begins at."""
    kept: list[tuple[int, np.ndarray]] = []
    for first, values in sorted(found, key=lambda strip: (-strip[1].size, strip[0])):
        if not math.isfinite(first) or (first and first + values.size > MAX_SPREAD_SAMPLES):
            raise ReadError(f"{path}: its leads lie too far apart in time for one recording", "too_long")
        begin, end = round(first), round(first) + values.size
        for other, those in kept:  # times are rounded: the next part may seem to begin a sample early
            if other < begin == other + those.size - 1:
                begin, end = begin + 1, end + 1
        rivals = [(other, other + those.size) for other, those in kept if other < end and begin < other + those.size]
        if not rivals:
            kept.append((begin, values))
        elif (begin, end) in rivals:
            raise ReadError(f"{path}: two channels of the same time are lead {name}", "duplicate_lead")
        elif not any(low <= begin and end <= high for low, high in rivals):
            notes["strips_left_out"] = f"of strips of lead {name} that overlap in time the longest was read"
    return kept


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

_OVER_89 = 300.0


def years(value: float, unit: str = "y") -> float | None:
    """An age in years; ``unit`` is any word that begins like year, annum, month, week, day or hour.

    300 years stand for any age above 89 (PTB-XL, in its table and in headers made of it) and become 90.
    """
    key = unit.strip().lower()
    factor = _YEARS.get(key[:2], _YEARS.get(key[:1])) if key else 1.0
    if factor is None or not math.isfinite(value) or value < 0:
        return None
    age = 90.0 if value * factor == _OVER_89 else value * factor
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


def moment(day: date | None, clock: str = "") -> str | None:
    """Day and time of a recording as ISO 8601; ``clock`` is hours, minutes and seconds, with or without colons."""
    if day is None:
        return None
    match = re.match(r"([01]\d|2[0-3])[:.]?([0-5]\d)(?:[:.]?([0-5]\d))?", clock.strip(), re.ASCII)
    return f"{day.isoformat()}T{match[1]}:{match[2]}:{match[3] or '00'}" if match else day.isoformat()


def stamped(stamp: str) -> str | None:
    """:func:`moment` of a time stamp of digits, ``YYYYMMDDhhmmss`` or its beginning."""
    match = re.match(r"(\d{4})(\d\d)(\d\d)", stamp.strip(), re.ASCII)
    return moment(to_date(*map(int, match.groups())), stamp.strip()[8:]) if match else None


def device_name(*parts: object) -> str | None:
    """Maker and model of a device in one line; None where nothing is known."""
    words = dict.fromkeys(" ".join(str(part).split()) for part in parts if part)
    return " ".join(word for word in words if word)[:80] or None


def to_float(text: str | None) -> float | None:
    """A finite number, or None."""
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None
