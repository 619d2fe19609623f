"""SCP-ECG (EN 1064:2005, ISO 11073-91064), resting ECGs of protocol versions 1 to 3.

Read here and not through ecgdatakit, which lacks decimated rhythm data (bimodal compression) and allocates what a
damaged file claims; the tests compare the two.
"""

from __future__ import annotations

import binascii
import struct
from typing import Any, NamedTuple

import numpy as np

from deri.ecg.formats import scp_codec
from deri.ecg.formats.common import (
    Format,
    Options,
    Strip,
    device_name,
    lay_out,
    load,
    make_ecg,
    moment,
    sex_of,
    to_date,
    years,
    years_between,
)
from deri.ecg.formats.scp_codec import ScpError
from deri.ecg.recording import ECG
from deri.errors import ReadError

LEAD_CODES = {
    **{1: "I", 2: "II", 3: "V1", 4: "V2", 5: "V3", 6: "V4", 7: "V5", 8: "V6"},
    **{61: "III", 62: "aVR", 63: "aVL", 64: "aVF"},
}
"""Lead identification of the standard, shared by DICOM (SCPECG and MDC codes)."""

_MAX_BYTES = 64 * 2**20
_HEADER = 16  # of a section: CRC, number, length, version, protocol, reserved
_NEEDED = (2, 3, 4, 5, 6)
_MAX_FACTOR = 8
_PADDING_BITS = 32  # leads end at even bytes; some writers add a word
# Tag 14 of section 1, byte 17: the encoding of texts. Latin-1 where nothing is stated.
_ENCODINGS = {
    **{0x03: "iso8859_2", 0x0B: "iso8859_4", 0x13: "iso8859_5", 0x1B: "iso8859_6", 0x23: "iso8859_7"},
    **{0x2B: "iso8859_8", 0x33: "iso8859_11", 0x3B: "iso8859_15", 0x07: "utf-16-le", 0x0F: "shift_jis"},
    **{0x17: "euc_jp", 0x1F: "euc_jp", 0x27: "gb2312", 0x2F: "cp949", 0x37: "utf-8"},
}
_AGE_UNITS = {1: "y", 2: "m", 3: "w", 4: "d", 5: "h"}


class Lead(NamedTuple):
    """A line of section 3; samples count from 1, the last one included."""

    first: int
    last: int
    code: int


class Beat(NamedTuple):
    """A line of section 4: where the reference beat was subtracted, and the zone kept at full rate."""

    kind: int
    first: int
    fiducial: int
    last: int
    protected: tuple[int, int]


class Packed(NamedTuple):
    """The head of section 5 or 6 and the bytes of its leads."""

    nanovolts: int  # per unit
    interval: int  # µs
    order: int  # of the differences
    flag: int  # section 6: 1 where samples outside the protected zones are decimated
    leads: list[bytes]


def read_scp(path: str, options: Options) -> ECG:
    """Read the rhythm data (section 6) of an SCP-ECG file, reference beats added back where they were subtracted.

    Raises:
        ReadError: ``bad_header`` and ``unreadable_signal`` (damaged), ``truncated_signal``, ``no_signals``,
            ``bad_gain``, ``bad_sampling_rate``, ``unsupported_format`` (long-term data of version 3), and those of
            ``make_ecg``.
    """
    data = load(path, _MAX_BYTES)
    stated = struct.unpack_from("<I", data, 2)[0] if len(data) >= 6 else 0
    if len(data) < 6 + _HEADER or stated > len(data):
        raise ReadError(f"{path}: {len(data)} of {stated} bytes are there", "truncated_signal")
    notes: dict[str, str] = {}
    try:
        sections = _sections(data[: stated or len(data)], notes)
        strips, fs = _rhythm(sections, data[15], notes)
        about = _about(sections)
    except ScpError as error:
        raise ReadError(f"{path}: {error}", error.reason) from None
    except (struct.error, IndexError) as error:
        raise ReadError(f"{path}: a section is cut off or damaged ({error})", "unreadable_signal") from None
    if len({strip.lead for strip in strips}) < len(strips):
        raise ReadError(f"{path}: two channels are the same lead", "duplicate_lead")
    strips = [strip._replace(lead=options.lead(strip.lead)) for strip in strips]
    names, channels = lay_out(path, strips, fs, notes)
    return make_ecg(path, "SCP-ECG", channels, names, fs, {"warnings": notes, **about})


def _sections(data: bytes, notes: dict[str, str]) -> dict[int, bytes]:
    """Section number -> its content, by the pointers of section 0."""
    length = struct.unpack_from("<I", data, 10)[0]
    if length < _HEADER + 10 or 6 + length > len(data):
        raise ScpError("its table of sections is damaged", "bad_header")
    wrong = ["the file"] if binascii.crc_hqx(data[2:], 0xFFFF) != struct.unpack_from("<H", data)[0] else []
    found: dict[int, bytes] = {}
    lost: list[int] = []
    for at in range(6 + _HEADER, 6 + length - 9, 10):
        number, size, index = struct.unpack_from("<HII", data, at)
        begin = index - 1
        if size <= _HEADER:
            continue
        inside = begin >= 6 and begin + size <= len(data)
        if not inside or number in found or struct.unpack_from("<H", data, begin + 2)[0] != number:
            if number not in _NEEDED:  # texts, measurements, what a manufacturer added
                lost.append(number)
                continue
            if not inside:
                raise ScpError(f"section {number} reaches beyond the end of the file", "truncated_signal")
            raise ScpError(f"its table of sections is damaged (section {number})", "bad_header")
        if binascii.crc_hqx(data[begin + 2 : begin + size], 0xFFFF) != struct.unpack_from("<H", data, begin)[0]:
            wrong.append(f"section {number}")
        found[number] = data[begin + _HEADER : begin + size]
    if lost:
        listed = ", ".join(map(str, lost[:8]))
        notes["inconsistent_header"] = f"sections that are not where the table of sections says: {listed}"
    if wrong:
        notes["checksum_mismatch"] = f"the checksums (CRC) do not fit: {', '.join(wrong)}"
    return found


def _rhythm(sections: dict[int, bytes], protocol: int, notes: dict[str, str]) -> tuple[list[Strip], float]:
    """The leads in mV with their start in seconds, and the sampling rate."""
    if 6 not in sections:
        if 12 in sections and protocol >= 30:
            raise ScpError("long-term rhythm data (section 12 of version 3) are not supported", "unsupported_format")
        raise ScpError("this SCP-ECG file has no rhythm data (section 6)", "no_signals")
    if 3 not in sections:
        raise ScpError("its lead definition (section 3) is missing", "bad_header")
    leads, subtracted = _leads(sections[3])
    tables = scp_codec.parse_tables(sections[2]) if 2 in sections else None
    rhythm = _packed(sections[6], 6, len(leads))
    bimodal = rhythm.flag == 1 and protocol < 30
    interval, factor, zones = rhythm.interval, 1, []
    if bimodal or subtracted:
        if 4 not in sections or 5 not in sections:
            raise ScpError("its rhythm data need section 4 and 5 (reference beat), which are missing", "bad_header")
        duration, fiducial, beats = _beats(sections[4])
        median = _packed(sections[5], 5, len(leads))
        interval = median.interval
        factor, rest = divmod(rhythm.interval, interval)
        if rest or not 1 <= factor <= _MAX_FACTOR:
            raise ScpError(
                f"samples of the rhythm ({rhythm.interval} µs) and of the reference beat ({interval} µs) do not fit "
                "together",
                "bad_sampling_rate",
            )
        zones = [beat.protected for beat in beats] if bimodal else []
    if factor > 1:
        where = "outside the QRS complexes" if bimodal else "throughout"
        notes["lossy_compression"] = f"{where} the file holds the mean of each {factor} samples; read by interpolation"
    signals = []
    surplus = []
    for number, (lead, data) in enumerate(zip(leads, rhythm.leads, strict=True), start=1):
        length = lead.last - lead.first + 1
        parts = [scp_codec.Stretch(0, length, True)]
        if factor > 1:
            parts = scp_codec.stretches(length, [(first - lead.first, last - lead.first + 1) for first, last in zones])
        values, left = _decode(f"lead {number}", data, scp_codec.stored_count(parts, factor), tables, rhythm.order)
        if left >= _PADDING_BITS:
            if not scp_codec.is_aligned(parts, factor):
                raise ScpError(
                    f"the zones at full rate of lead {number} are no multiple of {factor} samples apart and its values "
                    "do not end with its bytes",
                    "unsupported_format",
                )
            surplus.append(number)
        signals.append(scp_codec.expand(values, parts, factor) * rhythm.nanovolts)
    if surplus:
        notes["surplus_data"] = f"more bytes than samples in {len(surplus)} of {len(leads)} leads"
    if subtracted:
        count = round(duration * 1000 / interval)
        for number, (lead, data, signal) in enumerate(zip(leads, median.leads, signals, strict=True), start=1):
            shape, _ = _decode(f"the reference beat of lead {number}", data, count, tables, median.order)
            _add_beats(signal, shape * float(median.nanovolts), lead, beats, fiducial)
    # 0.002 s is 500 Hz; an interval of 3003 µs keeps its exact rate.
    fs = 1e6 / interval
    names = [LEAD_CODES.get(lead.code, f"SCP lead {lead.code}") for lead in leads]
    return [Strip(n, (lead.first - 1) / fs, s * 1e-6) for n, lead, s in zip(names, leads, signals, strict=True)], fs


def _leads(body: bytes) -> tuple[list[Lead], bool]:
    """The leads, and whether reference beats were subtracted from them."""
    count, flags = body[0], body[1]
    leads = [Lead(*struct.unpack_from("<IIB", body, 2 + 9 * i)) for i in range(count)]
    for number, lead in enumerate(leads, start=1):
        if not 1 <= lead.first <= lead.last:
            raise ScpError(f"lead {number} has samples {lead.first} to {lead.last}", "bad_header")
    if not leads:
        raise ScpError("defines no leads", "no_signals")
    return leads, bool(flags & 1)


def _beats(body: bytes) -> tuple[int, int, list[Beat]]:
    """Length of the reference beat in ms, its fiducial sample, and where it lies in the rhythm."""
    duration, fiducial, count = struct.unpack_from("<3H", body)
    beats = []
    for i in range(count):
        kind, first, middle, last = struct.unpack_from("<H3I", body, 6 + 14 * i)
        beats.append(Beat(kind, first, middle, last, struct.unpack_from("<2I", body, 6 + 14 * count + 8 * i)))
    return duration, fiducial, beats


def _packed(body: bytes, section: int, leads: int) -> Packed:
    nanovolts, interval, order, flag = struct.unpack_from("<HHBB", body)
    if order > 2:
        raise ScpError(f"section {section} has differences of order {order}", "bad_header")
    if interval == 0:
        raise ScpError(f"section {section} states no sampling interval", "bad_sampling_rate")
    if nanovolts == 0:
        raise ScpError(f"section {section} states no amplitude per unit", "bad_gain")
    sizes = struct.unpack_from(f"<{leads}H", body, 6)
    at = 6 + 2 * leads
    if at + sum(sizes) > len(body):
        raise ScpError(f"the leads of section {section} reach beyond its end", "truncated_signal")
    parts = []
    for size in sizes:
        parts.append(body[at : at + size])
        at += size
    return Packed(nanovolts, interval, order, flag, parts)


def _decode(
    what: str, data: bytes, count: int, tables: list[scp_codec.Table] | None, order: int
) -> tuple[np.ndarray, int]:
    """``count`` samples, int64, and the number of bits behind them."""
    values, left = scp_codec.decode_values(data, count, tables)
    if left < 0:
        raise ScpError(f"{what} holds {values.size} of {count} samples", "truncated_signal")
    return scp_codec.undo_differences(values, order), left


def _add_beats(signal: np.ndarray, shape: np.ndarray, lead: Lead, beats: list[Beat], fiducial: int) -> None:
    """Add the reference beat (type 0) back where it was subtracted, in place."""
    for beat in beats:
        if beat.kind != 0:
            continue
        origin = beat.fiducial - fiducial + 1  # the sample of the rhythm that the beat's first one belongs to
        first = max(beat.first, lead.first, origin)
        last = min(beat.last, lead.last, origin + shape.size - 1)
        if first <= last:
            signal[first - lead.first : last - lead.first + 1] += shape[first - origin : last - origin + 1]


def _about(sections: dict[int, bytes]) -> dict[str, Any]:
    tags = _tags(sections.get(1, b""))
    device = tags.get(14, [b""])[0] or tags.get(15, [b""])[0]
    encoding = _ENCODINGS.get(device[16], "latin-1") if len(device) > 16 else "latin-1"
    age = None
    if len(tags.get(4, [b""])[0]) >= 3:
        value, unit = struct.unpack_from("<HB", tags[4][0])
        age = years(float(value), _AGE_UNITS[unit]) if value and unit in _AGE_UNITS else None
    day, clock = _date(tags.get(25, [b""])[0]), tags.get(26, [b""])[0]
    if age is None:
        age = years_between(_date(tags.get(5, [b""])[0]), day)
    sex = tags.get(8, [b""])[0][:1]
    return {
        "age": age,
        "sex": {b"\1": sex_of("male"), b"\2": sex_of("female")}.get(sex),
        "date": moment(day, "".join(f"{part:02d}" for part in clock[:3])),
        "device": device_name(device[8:14].split(b"\0")[0].decode("latin-1")),
        "interpretation": _statements(sections.get(8, b""), encoding, 0)
        or _statements(sections.get(11, b""), encoding, 1),
    }


def _tags(body: bytes) -> dict[int, list[bytes]]:
    """The fields of section 1: tag -> values."""
    found: dict[int, list[bytes]] = {}
    at = 0
    while at + 3 <= len(body) and body[at] != 255:
        size = struct.unpack_from("<H", body, at + 1)[0]
        found.setdefault(body[at], []).append(body[at + 3 : at + 3 + size])
        at += 3 + size
    return found


def _statements(body: bytes, encoding: str, skip: int) -> list[str]:
    """Sentences of section 8 or 11; each of the latter begins with ``skip`` bytes that say what it is."""
    lines = []
    at = 9
    for _ in range(body[8] if len(body) > 8 else 0):
        if at + 3 > len(body):
            break
        size = struct.unpack_from("<H", body, at + 1)[0]
        text = body[at + 3 + skip : at + 3 + size].decode(encoding, errors="replace")
        line = " ".join(" ".join(text.split("\0")).split())
        if line and line not in lines:
            lines.append(line)
        at += 3 + size
    return lines


def _date(value: bytes) -> Any:
    return to_date(*struct.unpack_from("<HBB", value)) if len(value) >= 4 else None


def _sniff(path: str, head: bytes) -> bool:
    # Section 0 at byte 7 lists itself first.
    if len(head) < 32 or struct.unpack_from("<H", head, 8)[0] != 0:
        return False
    if head[16:22] == b"SCPECG":
        return True
    return struct.unpack_from("<H", head, 22)[0] == 0 and struct.unpack_from("<I", head, 28)[0] == 7


FORMAT = Format("SCP-ECG", _sniff, read_scp)
