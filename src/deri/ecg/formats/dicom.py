"""DICOM waveforms: 12-lead ECG, general ECG and ambulatory ECG objects.

The value of a sample is ``sample * sensitivity * correction factor + baseline`` in the channel's unit. Multiplex groups
that are derived (median beats) are left aside.
"""

from __future__ import annotations

import io
import re
import zlib
from datetime import date
from typing import Any

import numpy as np

from deri.ecg.formats.common import (
    Format,
    Options,
    Strip,
    brief,
    device_name,
    lay_out,
    load,
    make_ecg,
    optional,
    refuse_options,
    require_voltage,
    sex_of,
    stamped,
    to_float,
    years,
    years_between,
)
from deri.ecg.formats.scp import LEAD_CODES
from deri.ecg.leads import canonical_lead
from deri.ecg.recording import ECG
from deri.errors import ReadError

_TYPES = {"SB": "i", "UB": "u", "SS": "i", "US": "u", "SL": "i", "UL": "u"}
_BEAT_SECONDS, _RHYTHM_SECONDS = 2.0, 5.0
_DEFLATED = "1.2.840.10008.1.2.1.99"
_OTHER_LEAD = re.compile(r"\bV[1-9]R\b|\bV[789]\b|EASI|derived|bipolar|\b[XYZ]\b", re.IGNORECASE)
MAX_INFLATED = 128 * 2**20


def read_dicom(path: str, options: Options) -> ECG:
    """Read a DICOM ECG.

    Strips of all original groups of one sampling rate are placed at their time offsets, those that follow each other
    joined. ``options.gain`` holds for leads that state no sensitivity.

    Raises:
        ReadError: ``missing_dependency``, ``bad_header`` (not DICOM, or damaged), ``no_signals``, ``bad_units``,
            ``bad_gain``, ``truncated_signal``, ``unsupported_format``, ``bad_sampling_rate``, ``too_long``, and those
            of ``make_ecg``.
    """
    optional(path, "pydicom", "pydicom", "DICOM")
    data = _load(path)
    # pydicom decodes an element when it is first used, and then raises whatever its value parsers raise.
    try:
        groups = [group for group in data.get("WaveformSequence") or [] if _is_original(group)]
        modality = str(data.get("Modality", "") or "unknown")[:16]
    except Exception as error:
        raise ReadError(f"{path}: its waveforms are damaged ({brief(error)})", "bad_header") from error
    if not groups:
        raise ReadError(f"{path}: this DICOM object (modality {modality}) has no original waveform", "no_signals")
    notes: dict[str, str] = {}
    strips: dict[float, list[Strip]] = {}
    for group in groups:
        try:
            fs, found = _read_group(path, data, group, options, notes)
        except ReadError:
            raise
        except Exception as error:
            raise ReadError(f"{path}: a waveform group is damaged ({brief(error)})", "bad_header") from error
        strips.setdefault(fs, []).extend(found)
    # Groups of another rate (a rhythm strip of an old cart, a test pulse) cannot share a time axis with the main one.
    fs = max(strips, key=lambda rate: _coverage(strips[rate]))
    if len(strips) > 1:
        others = ", ".join(f"{rate:g}" for rate in strips if rate != fs)
        notes["groups_left_out"] = f"waveform groups of other sampling rates ({others} Hz) were not read"
    names, channels = lay_out(path, _without_beats(strips[fs], fs, notes), fs, notes)
    return make_ecg(path, "DICOM", channels, names, fs, {"warnings": notes, **_about(data)})


def _without_beats(strips: list[Strip], fs: float, notes: dict[str, str]) -> list[Strip]:
    """Leave out what is shorter than two heart beats beside a recording of many: it is an average beat, unlabelled."""
    longest = max((strip.values.size for strip in strips), default=0) / fs
    long = [strip for strip in strips if not 0 < strip.values.size < _BEAT_SECONDS * fs]
    if longest < _RHYTHM_SECONDS or len(long) == len(strips):
        return strips
    notes["groups_left_out"] = f"groups shorter than {_BEAT_SECONDS:g} s beside a rhythm of {longest:g} s were not read"
    return long


def _load(path: str) -> Any:
    import warnings

    import pydicom

    content = load(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about value representations of elements that are not used here
            force = content[128:132] != b"DICM"
            if not force:
                meta = pydicom.filereader.read_file_meta_info(path)
                if str(meta.get("TransferSyntaxUID", "")) == _DEFLATED:
                    _check_deflated(path, content, meta)
            return pydicom.dcmread(io.BytesIO(content), force=force)
    except ReadError:
        raise
    except Exception as error:  # pydicom raises what struct, codecs and its own parsers raise on damaged files
        raise ReadError(f"{path}: cannot be read as DICOM ({brief(error)})", "bad_header") from error


def _check_deflated(path: str, content: bytes, meta: Any) -> None:
    """Refuse a deflated data set that is out of measure, before pydicom inflates the whole of it."""
    # Preamble, prefix, the element that states the length (12 bytes), and what it states.
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    rest = content[128 + 4 + 12 + int(meta.FileMetaInformationGroupLength) :]
    total = 0
    while rest and not inflater.eof:
        total += len(inflater.decompress(rest, 2**20))
        if total > MAX_INFLATED:
            raise ReadError(f"{path}: expands from {len(content)} to more than {MAX_INFLATED} bytes", "too_long")
        rest = inflater.unconsumed_tail
    if not inflater.eof:
        raise ReadError(f"{path}: its deflated content is cut off", "truncated_signal")


def _is_original(group: Any) -> bool:
    label = str(group.get("MultiplexGroupLabel", "") or "").upper()
    is_beat = any(word in label for word in ("MEDIAN", "REPRESENTATIVE", "AVERAGE", "TEMPLATE", "TYPICAL", "MEAN"))
    return str(group.get("WaveformOriginality", "ORIGINAL") or "").upper() != "DERIVED" and not is_beat


def _coverage(strips: list[Strip]) -> tuple[int, int]:
    known = {canonical_lead(strip.lead) for strip in strips} - {None}
    return len(known), max((strip.values.size for strip in strips), default=0)


def _read_group(path: str, data: Any, group: Any, options: Options, notes: dict[str, str]) -> tuple[float, list[Strip]]:
    fs = to_float(str(group.SamplingFrequency))
    if fs is None or fs <= 0:
        raise ReadError(f"{path}: a waveform group states no sampling rate", "bad_sampling_rate")
    count, length = int(group.NumberOfWaveformChannels), int(group.NumberOfWaveformSamples)
    definitions = list(group.ChannelDefinitionSequence)
    if count != len(definitions) or count < 1 or length < 0:
        raise ReadError(f"{path}: {count} channels are stated, {len(definitions)} are defined", "bad_header")
    raw, padding = _raw(path, data, group, count, length, notes)
    offset = (to_float(str(group.get("MultiplexGroupTimeOffset", 0) or 0)) or 0.0) / 1000.0
    strips = []
    for index, channel in enumerate(definitions):
        name = options.lead(_name(channel))
        if canonical_lead(name) is None:
            strips.append(Strip(name, offset, np.empty(0)))
            continue
        gaps = raw[:, index] == padding if padding is not None else np.zeros(length, dtype=bool)
        values = _scale(path, name, channel, _stored(path, name, channel, raw[:, index], gaps), options)
        values[gaps] = np.nan
        strips.append(Strip(name, offset + _skew(path, name, channel, fs), values))
    return fs, strips


def _stored(path: str, name: str, channel: Any, raw: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """Samples of one channel; bits beyond those that are stored may be the sign's or 0, else ``bad_header``."""
    bits, allocated = int(channel.get("WaveformBitsStored", 0) or 0), 8 * raw.dtype.itemsize
    if not 0 < bits < allocated:
        return raw
    wide = raw.astype(np.int64)
    low = wide & ((1 << bits) - 1)
    extended = np.where(low >> (bits - 1), low - (1 << bits), low) if raw.dtype.kind == "i" else low
    if not (gaps | (wide == extended)).all() and not (gaps | (wide == low)).all():
        raise ReadError(f"{path}: samples of lead {name[:40]} do not fit into the {bits} bits stored", "bad_header")
    return extended


def _skew(path: str, name: str, channel: Any, fs: float) -> float:
    """How many seconds after its group a channel begins."""
    time, samples = (to_float(str(channel.get(f"Channel{kind}Skew", 0) or 0)) for kind in ("Time", "Sample"))
    if time is None or samples is None:
        raise ReadError(f"{path}: the skew of lead {name[:40]} is no number", "bad_header")
    return time or samples / fs


def _raw(
    path: str, data: Any, group: Any, count: int, length: int, notes: dict[str, str]
) -> tuple[np.ndarray, int | None]:
    """Digital samples (n, channels) and the value that stands for "no sample"."""
    bits, kind = int(group.WaveformBitsAllocated), str(group.WaveformSampleInterpretation)
    if kind not in _TYPES or bits not in (8, 16, 32):
        raise ReadError(f"{path}: {bits}-bit samples of type {kind[:8]!r} are not supported", "unsupported_format")
    order = "<" if getattr(data, "is_little_endian", True) is not False else ">"
    dtype = np.dtype(f"{order}{_TYPES[kind]}{bits // 8}")
    content = bytes(group.WaveformData)
    if count * length * dtype.itemsize > len(content):
        raise ReadError(
            f"{path}: {len(content)} bytes of waveform where {count} channels of {length} samples need "
            f"{count * length * dtype.itemsize}",
            "truncated_signal",
        )
    surplus = len(content) - count * length * dtype.itemsize
    if surplus > 1:  # one byte makes the length even
        notes["surplus_data"] = f"{surplus} bytes of waveform more than {count} channels of {length} samples"
    raw = np.frombuffer(content, dtype=dtype, count=count * length).reshape(length, count)
    stated = group.get("WaveformPaddingValue")
    padding = None
    if isinstance(stated, bytes) and len(stated) >= dtype.itemsize:
        padding = int(np.frombuffer(stated, dtype=dtype, count=1)[0])
    elif isinstance(stated, int):
        padding = stated
    return raw, padding


def _scale(path: str, name: str, channel: Any, raw: np.ndarray, options: Options) -> np.ndarray:
    """Samples of one channel in mV."""
    sensitivity = to_float(str(channel.get("ChannelSensitivity", "")))
    if not sensitivity and options.gain is None:
        raise ReadError(
            f"{path}: lead {name[:40]} states no sensitivity, so its amplitude is unknown; give counts per mV with "
            "read_ecg(path, gain=1000) or --gain 1000",
            "bad_gain",
        )
    if not sensitivity:
        return raw / float(options.gain or 1)
    refuse_options(path, f"lead {name[:40]} states its sensitivity", options, "gain")
    units = channel.get("ChannelSensitivityUnitsSequence")
    factor = require_voltage(path, name, str(units[0].CodeValue) if units else "")
    correction = to_float(str(channel.get("ChannelSensitivityCorrectionFactor", 1) or 1))
    baseline = to_float(str(channel.get("ChannelBaseline", 0) or 0))
    if correction is None or baseline is None or correction == 0:
        raise ReadError(f"{path}: the correction or baseline of lead {name[:40]} is no number", "bad_gain")
    return raw * (sensitivity * correction * factor) + baseline * factor


def _name(channel: Any) -> str:
    """The lead of a channel: by its code, else by the meaning of the code, else by its label."""
    source = channel.get("ChannelSourceSequence")
    code, meaning = (str(source[0].get(f"Code{part}", "") or "") if source else "" for part in ("Value", "Meaning"))
    # SCP-ECG "5.6.3-9-61" and MDC "2:61" end with the same lead number; MDC also as one number, 2 * 65536 + 61.
    match = re.fullmatch(r"5\.6\.3-9-(\d+)|2:(\d+)|(131\d{3})", code, re.ASCII)
    number = int(match[1] or match[2] or int(match[3]) - 131072) if match else 0
    if number in LEAD_CODES:
        return LEAD_CODES[number]
    if number or _OTHER_LEAD.search(meaning):  # another lead, whatever the label says
        return code if canonical_lead(meaning) else meaning or code
    label = str(channel.get("ChannelLabel", "") or "")
    candidates = (code, meaning, label)
    return next((name for name in candidates if canonical_lead(name)), meaning or label or code or "unnamed")


def _about(data: Any) -> dict[str, Any]:
    about: dict[str, Any] = {}
    try:
        age = re.fullmatch(r"(\d{1,3})([DWMY])", str(data.get("PatientAge", "") or "").strip(), re.ASCII)
        about["date"] = _recorded(data)
        about["age"] = years(float(age[1]), age[2]) if age else _age(data, about["date"])
        about["sex"] = sex_of(str(data.get("PatientSex", "") or ""))
        about["device"] = device_name(data.get("Manufacturer"), data.get("ManufacturerModelName"))
        texts = [_annotation(item) for item in data.get("WaveformAnnotationSequence") or []]
        filters = _filters(data)
    except Exception as error:
        about["comments"] = [f"the annotations could not be read: {brief(error)}"]
        return about
    about["interpretation"] = list(dict.fromkeys(texts))
    if filters:
        about["filters"] = filters
    return about


def _recorded(data: Any) -> str | None:
    """Day and time of the acquisition, else of the content, else of the study."""
    stamps = [str(data.get("AcquisitionDateTime", "") or "")]
    for kind in ("Acquisition", "Content", "Study"):
        stamps.append("".join(str(data.get(f"{kind}{part}", "") or "") for part in ("Date", "Time")))
    return next(filter(None, map(stamped, stamps)), None)


def _age(data: Any, recorded: str | None) -> float | None:
    days = (stamped(str(data.get("PatientBirthDate", "") or "")), recorded)
    return years_between(*(date.fromisoformat(day[:10]) if day else None for day in days))


def _annotation(item: Any) -> str:
    # Measurements carry a concept and a number; free text is the interpretation.
    if item.get("NumericValue") is not None:
        return ""
    return " ".join(str(item.get("UnformattedTextValue", "") or "").split())


def _filters(data: Any) -> str:
    channel = data.WaveformSequence[0].ChannelDefinitionSequence[0]
    names = {"FilterLowFrequency": "high-pass", "FilterHighFrequency": "low-pass", "NotchFilterFrequency": "notch"}
    parts = [f"{word} {channel.get(tag)} Hz" for tag, word in names.items() if channel.get(tag)]
    return ", ".join(parts)


def _sniff(path: str, head: bytes) -> bool:
    # Without the preamble: the waveform classes' identifier early in a file that begins with group 0002 or 0008.
    bare = head[:2] in (b"\x02\0", b"\x08\0") and b"1.2.840.10008.5.1.4.1.1.9." in head
    return head[128:132] == b"DICM" or bare


FORMAT = Format("DICOM", _sniff, read_dicom, takes=("gain",))
