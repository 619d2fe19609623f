"""Philips Sierra ECG XML (``restingecgdata``), versions 1.03, 1.04 and 1.04.01.

Waveforms are base64 text of int16, plain or compressed by "XLI": per lead a 10-bit LZW stream of second differences,
high bytes before low bytes. In XLI the leads III, aVR, aVL and aVF hold only what I and II do not already say.
"""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from deri.ecg.formats.common import (
    MAX_SPREAD_SAMPLES,
    Options,
    device_name,
    make_ecg,
    moment,
    note_calibration_pulse,
    sex_of,
    to_date,
    to_float,
    years,
    years_between,
)
from deri.ecg.formats.xml_tree import attribute, decode_base64, parse_numbers, parse_xml, text_of, xml_format
from deri.ecg.leads import LEADS
from deri.ecg.recording import ECG
from deri.errors import ReadError

# The order of the channels where a file does not name them (version 1.03), by its electrode set.
_UNNAMED_SETS = {"STD-12": LEADS, "10-WIRE": LEADS}
_LIMB = list(LEADS[:6])
_CODE_BITS, _MAX_CODE = 10, 1022


def read_sierra(path: str, options: Options) -> ECG:
    """Read a Sierra XML file.

    Raises:
        ReadError: ``bad_xml``, ``no_signals``, ``bad_header``, ``bad_gain``, ``bad_sampling_rate``, ``unknown_leads``,
            ``unsupported_format``, ``truncated_signal``, ``unreadable_signal``, and those of ``make_ecg``.
    """
    root = parse_xml(path)
    waveforms = root.find("waveforms/parsedwaveforms")
    if waveforms is None:
        raise ReadError(f"{path}: this Sierra XML has no waveforms", "no_signals")
    signal = root.find("dataacquisition/signalcharacteristics")

    def stated(*names: str) -> str:
        """A property of the stored waveform, else of the acquisition; the former holds where both are given."""
        found = [waveforms.get(name, "").strip() for name in names] + [text_of(signal, name) for name in names]
        return next((value for value in found if value), "")

    fs = to_float(stated("samplespersecond", "samplingrate"))
    if fs is None or fs <= 0:
        raise ReadError(f"{path}: states no sampling rate", "bad_sampling_rate")
    resolution = to_float(stated("resolution", "signalresolution"))
    if resolution is None or resolution <= 0:
        raise ReadError(f"{path}: states no resolution (µV per unit)", "bad_gain")
    zero = to_float(stated("signaloffset") or "0")
    milliseconds = to_float(waveforms.get("durationperchannel"))
    if zero is None or milliseconds is None or not 0 < milliseconds * fs / 1000 <= MAX_SPREAD_SAMPLES:
        raise ReadError(f"{path}: its duration per channel or its zero is not a number that fits", "bad_header")
    names = _lead_names(path, waveforms, signal)
    count = round(milliseconds * fs / 1000)
    about = _about(root)
    signed = stated("signalsigned").lower() != "false"
    digital = _digital(path, waveforms, len(names), count, signed, about["warnings"])
    if names[:6] == _LIMB and (_is_compressed(waveforms) or _holds_remainders(digital)):
        if not _is_compressed(waveforms):
            about["warnings"]["limb_leads_restored"] = "III, aVR, aVL and aVF hold what I and II do not say; restored"
        _restore_limb_leads(digital)
    channels = [(values - zero) * (resolution / 1000.0) for values in digital]
    note_calibration_pulse(channels, fs, about["warnings"])
    version = text_of(root, "documentinfo/documentversion")
    names = [options.lead(name) for name in names]
    return make_ecg(path, f"Philips Sierra XML {version}".strip(), channels, names, fs, about)


def _lead_names(path: str, waveforms: Element, signal: Element | None) -> list[str]:
    kinds = [text_of(signal, "acquisitiontype"), text_of(signal, "leadset")]
    if any("EASI" in kind.upper() for kind in kinds):
        raise ReadError(
            f"{path}: was recorded with EASI electrodes, from which the 12 leads can only be estimated", "unknown_leads"
        )
    names = waveforms.get("leadlabels", "").split()
    count = to_float(waveforms.get("numberofleads") if names else text_of(signal, "numberchannelsallocated"))
    if not names:
        kind = kinds[0] or kinds[1]
        names = list(_UNNAMED_SETS.get(kind, ()))
        if not names:
            raise ReadError(
                f"{path}: names no leads, and the order of the set {kind[:40]!r} is not known", "unknown_leads"
            )
    if count is not None and not 0 < count <= len(names):
        raise ReadError(f"{path}: states {count:g} leads but names {len(names)}", "bad_header")
    return names[: int(count)] if count is not None else names


def _is_compressed(waveforms: Element) -> bool:
    method = waveforms.get("compression") or waveforms.get("compressmethod") or ""
    return waveforms.get("compressflag", "").lower() != "false" and method.lower() not in ("", "uncompressed", "none")


def _digital(
    path: str, waveforms: Element, leads: int, count: int, signed: bool, notes: dict[str, str]
) -> list[np.ndarray]:
    """Digital samples per lead, int64, ``count`` each."""
    text = "".join(waveforms.itertext())
    encoding = waveforms.get("dataencoding", "")
    if encoding == "Plain" and not _is_compressed(waveforms):
        values = parse_numbers(path, "parsedwaveforms", text)
        if not np.array_equal(values, np.rint(values)):
            raise ReadError(f"{path}: its plain samples are not whole numbers", "unreadable_signal")
        values = values.astype(np.int64)
    elif encoding == "Base64":
        data = decode_base64(path, text)
        if _is_compressed(waveforms):
            method = waveforms.get("compression") or waveforms.get("compressmethod") or ""
            if method.upper() != "XLI":
                raise ReadError(f"{path}: compression {method[:20]!r} is not supported", "unsupported_format")
            return _read_xli(path, data, leads, count, notes)
        if len(data) % 2:
            raise ReadError(f"{path}: {len(data)} bytes are no whole number of 16-bit samples", "unreadable_signal")
        values = np.frombuffer(data, dtype="<i2" if signed else "<u2").astype(np.int64)
    else:
        raise ReadError(f"{path}: data encoding {encoding[:20]!r} is not supported", "unsupported_format")
    if values.size < leads * count:
        raise ReadError(f"{path}: {values.size} samples where {leads} leads of {count} are stated", "truncated_signal")
    if values.size > leads * count:
        notes["surplus_data"] = f"{values.size - leads * count} samples more than {leads} leads of {count}"
    return list(values[: leads * count].reshape(leads, count))


def _read_xli(path: str, data: bytes, leads: int, count: int, notes: dict[str, str]) -> list[np.ndarray]:
    found = []
    at = 0
    for lead in range(leads):
        size = int.from_bytes(data[at : at + 4], "little", signed=True)
        start = int.from_bytes(data[at + 6 : at + 8], "little", signed=True)
        if at + 8 > len(data) or not 0 < size <= len(data) - at - 8:
            raise ReadError(f"{path}: its compressed data end within lead {lead + 1} of {leads}", "truncated_signal")
        # The stream may run on a little past the stated duration, never to a multiple of it.
        raw = _expand_lzw(data[at + 8 : at + 8 + size], limit=4 * count + 65536)
        if raw is None:
            raise ReadError(f"{path}: the compressed data of lead {lead + 1} are damaged", "unreadable_signal")
        values = _integrate(raw, start)
        if values.size < count:
            raise ReadError(f"{path}: lead {lead + 1} holds {values.size} of {count} samples", "truncated_signal")
        found.append(values[:count])
        at += 8 + size
    if at < len(data):
        notes["surplus_data"] = f"{len(data) - at} bytes follow the data of the {leads} leads"
    return found


def _expand_lzw(data: bytes, limit: int) -> bytes | None:
    """Expand 10-bit LZW codes, most significant bit first; None where a code is not yet defined or the limit is hit."""
    packed = np.frombuffer(data, dtype=np.uint8)
    bits = np.unpackbits(packed)[: len(data) * 8 // _CODE_BITS * _CODE_BITS].reshape(-1, _CODE_BITS)
    codes = bits.astype(np.int64) @ (1 << np.arange(_CODE_BITS - 1, -1, -1))
    strings: list[bytes] = [bytes([value]) for value in range(256)]
    parts: list[bytes] = []
    size = 0
    previous = b""
    for code in codes.tolist():
        if code > _MAX_CODE:  # the end mark
            break
        if code < len(strings):
            entry = strings[code]
        elif code == len(strings) and previous:
            entry = previous + previous[:1]
        else:
            return None
        if previous and len(strings) <= _MAX_CODE:
            strings.append(previous + entry[:1])
        parts.append(entry)
        size += len(entry)
        if size > limit:
            return None
        previous = entry
    return b"".join(parts)


def _integrate(raw: bytes, start: int) -> np.ndarray:
    """Undo the second differences; the samples are int16, the sums wrap as the writer's did.

    The first two words are samples. Each later sample continues the line through the two before it, less the word
    *before* its own: the words are delayed by one, the first of them is ``start``, and all but it are raised by 64.
    """
    if len(raw) % 2:
        raw += b"\0"
    high = np.frombuffer(raw, dtype=np.uint8, count=len(raw) // 2).astype(np.uint16)
    low = np.frombuffer(raw, dtype=np.uint8, offset=len(raw) // 2).astype(np.uint16)
    words = ((high << 8) | low).view(np.int16).astype(np.int64)
    if words.size < 3:
        return words
    bend = np.empty(words.size - 2, dtype=np.int64)
    bend[0] = start
    bend[1:] = words[2:-1] - 64
    slope = (words[1] - words[0]) - np.cumsum(bend)
    rest = words[1] + np.cumsum(slope)
    return np.concatenate((words[:2], rest))


def _holds_remainders(digital: list[np.ndarray]) -> bool:
    """Whether uncompressed leads III, aVR, aVL and aVF are the small remainders that compression stores.

    The law I + III = II holds of recorded leads, of remainders it does not, unless I and II are flat.
    """
    one, two = digital[0], digital[1]
    off = np.percentile(np.abs(one + digital[2] - two), 99)
    rest = max(float(np.percentile(np.abs(lead), 99)) for lead in digital[2:6])
    return bool(off > 10 * max(rest, 1.0))


def _restore_limb_leads(digital: list[np.ndarray]) -> None:
    """III, aVR, aVL and aVF from what is stored, in place; halves are rounded down, as the writer did."""
    one, two = digital[0], digital[1]
    three = two - one - digital[2]
    digital[2] = three
    digital[3] = -digital[3] - (one + two) // 2
    digital[4] = (one - three) // 2 - digital[4]
    digital[5] = (two + three) // 2 - digital[5]


def _about(root: Element) -> dict[str, Any]:
    patient = root.find("patient/generalpatientdata")
    age = to_float(text_of(patient, "age/years"))
    born, recorded = (
        _date(text) for text in (text_of(patient, "age/dateofbirth"), attribute(root, "dataacquisition", "date"))
    )
    about: dict[str, Any] = {
        "warnings": {},
        "sex": sex_of(text_of(patient, "sex")),
        "age": years(age) if age is not None else years_between(born, recorded),
        "date": moment(recorded, attribute(root, "dataacquisition", "time")),
        "device": device_name(text_of(root, "dataacquisition/machine")),
    }
    statements = []
    for statement in root.findall("interpretations/interpretation/statement"):
        left, right = text_of(statement, "leftstatement"), text_of(statement, "rightstatement")
        text = f"{left} ({right})" if left and right else left or right
        if text and text not in statements:
            statements.append(text)
    return about | {"interpretation": statements}


def _date(text: str) -> Any:
    parts = text.split("-")
    return to_date(*map(int, parts)) if len(parts) == 3 and all(p.isascii() and p.isdigit() for p in parts) else None


FORMAT = xml_format("Philips Sierra (XML, restingecgdata)", "restingecgdata", read_sierra)
