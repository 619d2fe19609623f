"""WFDB header files (``.hea``): a parser that is fast, strict about numbers and lenient about names.

Source: https://wfdb.io/spec/header-files.html . Deliberate differences to the ``wfdb`` package: a record name may hold
dots (early challenge headers carry ``E00001.mat``), comments may be UTF-8, and every number is bounded, so that a
damaged header gives a sentence instead of an exception from somewhere deep.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from deri.ecg.formats.common import years
from deri.ecg.people import without_names

DEFAULT_FS = 250.0
DEFAULT_GAIN = 200.0  # the specification's default; it marks an uncalibrated signal

# Fifteen digits stay exact in a float and keep int() from being fed megabytes.
_INT = r"\d{1,15}"
_NUMBER = r"(?:\d{1,15}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][+-]?\d{1,2})?"
_FORMAT = re.compile(rf"({_INT})(?:x({_INT}))?(?::({_INT}))?(?:\+({_INT}))?")
_GAIN = re.compile(rf"(-?{_NUMBER})?(?:\((-?{_INT})\))?(?:/(\S{{1,40}}))?")
_FREQUENCY = re.compile(rf"({_NUMBER})(?:/\S*)?")
_INTEGER = re.compile(rf"-?{_INT}")
_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d):([0-5]\d)(?:\.\d*)?", re.ASCII)
_DAY = re.compile(r"(0?[1-9]|[12]\d|3[01])/(0?[1-9]|1[0-2])/(\d{4})", re.ASCII)


class HeaderError(ValueError):
    """A header that breaks the format; the message says what and where."""


class SignalLine(NamedTuple):
    """One signal specification line."""

    file: str
    format: int
    samples_per_frame: int
    skew: int
    byte_offset: int
    gain: float  # digital units per physical unit, never 0
    calibrated: bool  # False where the header states no gain, or 0
    baseline: int  # digital value of physical zero
    units: str
    initial: int  # the first sample; format 8 stores differences from it
    checksum: int | None
    description: str


class Header(NamedTuple):
    """A parsed header."""

    record: str
    n_segments: int | None  # None for a single-segment record
    n_signals: int
    fs: float  # frames per second
    n_samples: int | None  # frames; None where the header does not say
    signals: tuple[SignalLine, ...]
    comments: list[str]  # without "#" and surrounding blanks
    segments: tuple[tuple[str, int], ...] = ()  # record name ("~": a gap) and length of each
    date: str | None = None  # ISO 8601


def parse_header(text: str) -> Header:
    """Parse the text of a header file.

    Raises:
        HeaderError: anything that is not a WFDB header.
    """
    lines: list[str] = []
    comments: list[str] = []
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("#"):
            comments.append(line[1:].strip())
        elif line:
            lines.append(line)
    if not lines:
        raise HeaderError("the header is empty")
    if "\0" in text:
        raise HeaderError("the header is not a text file")
    record, n_segments, n_signals, fs, n_samples = _parse_record_line(lines[0])
    if n_segments is not None:
        segments = tuple([_parse_segment_line(line) for line in lines[1:]])
        return Header(record, n_segments, n_signals, fs, n_samples, (), comments, segments, _date(lines[0]))
    if len(lines) - 1 != n_signals:
        raise HeaderError(f"its first line says {n_signals} signals, but {len(lines) - 1} are described")
    if "/" in record:  # PTB-XL+ writes the folder of the header before all names: the files lie beside it
        folder, _, record = record.rpartition("/")
        lines[1:] = [line.removeprefix(f"{folder}/") for line in lines[1:]]
    signals = tuple([_parse_signal_line(line) for line in lines[1:]])
    return Header(record, None, n_signals, fs, n_samples, signals, comments, (), _date(lines[0]))


def _parse_record_line(line: str) -> tuple[str, int | None, int, float, int | None]:
    tokens = line.split()
    record, slash, segments = tokens[0].partition("/")
    if slash and not _is_count(segments):
        record, slash = tokens[0], ""
    if len(tokens) < 2 or not _is_count(tokens[1]):
        raise HeaderError(f"the first line ({line[:60]!r}) lacks the number of signals")
    fs = DEFAULT_FS
    if len(tokens) > 2:
        match = _FREQUENCY.fullmatch(tokens[2])
        if match is None or not float(match[1]) > 0:
            raise HeaderError(f"the sampling frequency {tokens[2][:40]!r} is not a positive number")
        fs = float(match[1])
    n_samples = None
    if len(tokens) > 3:
        if not _is_count(tokens[3]):
            raise HeaderError(f"the number of samples {tokens[3][:40]!r} is not a number")
        n_samples = int(tokens[3]) or None  # 0 means "not stated"
    return record, int(segments) if slash else None, int(tokens[1]), fs, n_samples


def _date(line: str) -> str | None:
    """Base time and base date of a record line. Challenge headers have the day of their conversion in another form."""
    tokens = line.split()
    clock, day = (_CLOCK.fullmatch(tokens[4]), _DAY.fullmatch(tokens[5])) if len(tokens) > 5 else (None, None)
    if clock is None or day is None:
        return None
    return f"{day[3]}-{day[2]:0>2}-{day[1]:0>2}T{clock[1]:0>2}:{clock[2]}:{clock[3]}"


def _parse_segment_line(line: str) -> tuple[str, int]:
    tokens = line.split()
    if len(tokens) < 2 or not _is_count(tokens[1]):
        raise HeaderError(f"the segment line {line[:60]!r} lacks a number of samples")
    return tokens[0], int(tokens[1])


def _is_count(token: str) -> bool:
    return token.isascii() and token.isdigit() and len(token) <= 15


def _parse_signal_line(line: str) -> SignalLine:
    # Most have all: file, format, gain, ADC resolution, ADC zero, initial value, checksum, block size, description.
    tokens = line.split(None, 8)
    if len(tokens) == 9:
        file, form, gain, resolution, zero, initial, checksum, block, description = tokens
        scale = _parse_scale(form, gain, resolution, zero, block)
        if scale is not None and _INTEGER.fullmatch(initial) and _INTEGER.fullmatch(checksum):
            return SignalLine._make((file, *scale, int(initial), int(checksum), description))
    return _parse_partial_line(line)


@lru_cache(maxsize=4096)
def _parse_scale(
    form: str, gain: str, resolution: str, zero: str, block: str
) -> tuple[int, int, int, int, float, bool, int, str] | None:
    """What the fields of a signal line say that few combinations occur of in a data set; None: some are left out."""
    stated = _parse_gain(gain)
    if stated is None or not all(map(_INTEGER.fullmatch, (resolution, zero, block))):
        return None
    value, calibrated, baseline, units = stated
    return (*_parse_format(form), value, calibrated, int(zero) if baseline is None else baseline, units)


def _parse_partial_line(line: str) -> SignalLine:
    """A line that leaves fields out: they are optional in their order, the first misfit begins the description."""
    tokens = line.split(None, 8)
    if len(tokens) < 2:
        raise HeaderError(f"the signal line {line[:60]!r} lacks a format")
    used, numbers = 2, []
    stated = _parse_gain(tokens[2]) if len(tokens) > 2 else None
    if stated is not None:
        used = 3
        for token in tokens[3:8]:
            if _INTEGER.fullmatch(token) is None:
                break
            numbers.append(int(token))
            used += 1
    gain, calibrated, baseline, units = stated or (DEFAULT_GAIN, False, None, "mV")
    if baseline is None:
        baseline = numbers[1] if len(numbers) > 1 else 0
    # Without an initial value the first sample is that of the ADC's zero.
    initial = numbers[2] if len(numbers) > 2 else numbers[1] if len(numbers) > 1 else 0
    checksum = numbers[3] if len(numbers) > 3 else None
    description = line.split(None, used)[used] if len(tokens) > used else ""
    form = _parse_format(tokens[1])
    return SignalLine(tokens[0], *form, gain, calibrated, baseline, units, initial, checksum, description)


@lru_cache(maxsize=256)
def _parse_format(token: str) -> tuple[int, int, int, int]:
    match = _FORMAT.fullmatch(token)
    if match is None:
        raise HeaderError(f"the signal format {token[:40]!r} is not one of WFDB")
    form, per_frame, skew, offset = match.groups()
    return int(form), int(per_frame or 1) or 1, int(skew or 0), int(offset or 0)


@lru_cache(maxsize=4096)
def _parse_gain(token: str) -> tuple[float, bool, int | None, str] | None:
    match = _GAIN.fullmatch(token)
    if match is None or match[1] is None:
        return None
    gain = float(match[1])
    stated_baseline = None if match[2] is None else int(match[2])
    return gain or DEFAULT_GAIN, gain != 0.0, stated_baseline, match[3] or "mV"


def parse_subject(comments: list[str]) -> dict[str, object]:
    """``age`` (years or None), ``sex`` ("female", "male" or None), ``dx`` and ``interpretation``, where present.

    Understands ``Age: 63``, ``<age>: 63``, ``Sex: F``, ``Dx: code,code`` (challenge headers) and the block that follows
    ``<diagnoses>:`` in LUDB, whose lines are sentences. An empty field gives None or ().
    """
    found: dict[str, object] = {}
    for i, comment in enumerate(comments):
        key, colon, value = comment.partition(":")
        if not colon or len(key) > 20:
            continue
        key, value = key.strip(" <>").lower(), value.strip()
        if key == "age":
            number = re.match(r"\d{1,3}(?:\.\d+)?", value)
            found["age"] = years(float(number[0])) if number else None
        elif key in ("sex", "gender"):
            found["sex"] = {"f": "female", "m": "male"}.get(value[:1].lower())
        elif key == "dx":
            found["dx"] = tuple(code.strip() for code in value.split(",") if code.strip())
        elif key == "diagnoses":
            lines = [line for line in [value, *comments[i + 1 :]] if line]
            found |= {"dx": tuple(lines), "interpretation": without_names(lines)}
            break
    return found
