"""Writers of small clinical files, made from the formats' standards and independent of the readers under test."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Callable, Sequence

import numpy as np

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
SCP_CODES = {"I": 1, "II": 2, "III": 61, "aVR": 62, "aVL": 63, "aVF": 64} | {f"V{k}": 2 + k for k in range(1, 7)}
ISHNE_CODES = {name: 5 + k for k, name in enumerate(LEADS)}


def digital_ecg(n: int = 1000, seed: int = 3) -> np.ndarray:
    """Twelve leads of small integers, int16 (12, n), that obey Einthoven; aVR, aVL, aVF are rounded down."""
    rng = np.random.default_rng(seed)
    walk = np.cumsum(rng.integers(-9, 10, (8, n)), axis=1)
    one, two = walk[0], walk[1]
    three = two - one
    limbs = [one, two, three, -((one + two) // 2), (one - three) // 2, (two + three) // 2]
    return np.stack([*limbs, *walk[2:]]).astype(np.int16)


# --- XML -------------------------------------------------------------------------------------------------------------


def aecg_set(
    digital: np.ndarray,
    names: Sequence[str],
    *,
    start: str = "20200101120000.000",
    step: str = "0.002",
    unit: str = "s",
    scale: str = "5",
    volt: str = "uV",
    origin: str = "0",
    code: str = "TIME_ABSOLUTE",
) -> str:
    head = f'<head value="{start}"/>' if code == "TIME_ABSOLUTE" else f'<head value="{start}" unit="s"/>'
    text = f'<component><sequence><code code="{code}"/><value>{head}<increment value="{step}" unit="{unit}"/></value>'
    text += "</sequence></component>"
    for name, row in zip(names, digital, strict=True):
        text += f'<component><sequence><code code="MDC_ECG_LEAD_{name.upper()}"/><value xsi:type="SLIST_PQ">'
        text += f'<origin value="{origin}" unit="{volt}"/><scale value="{scale}" unit="{volt}"/>'
        text += f"<digits>{' '.join(map(str, row))}</digits></value></sequence></component>"
    return f"<component><sequenceSet>{text}</sequenceSet></component>"


def aecg(*sets: str, declaration: str = '<?xml version="1.0" encoding="UTF-8"?>', extra: str = "") -> str:
    return f"""{declaration}
<AnnotatedECG xmlns="urn:hl7-org:v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
<effectiveTime><low value="20200101120000"/></effectiveTime>
<componentOf><timepointEvent><componentOf><subjectAssignment><subject><trialSubject><subjectDemographicPerson>
<administrativeGenderCode code="F"/><birthTime value="19700102"/>
</subjectDemographicPerson></trialSubject></subject></subjectAssignment></componentOf></timepointEvent></componentOf>
<component><series><code code="RHYTHM"/>{"".join(sets)}
<subjectOf><annotationSet><component><annotation><code code="MDC_ECG_INTERPRETATION"/><component><annotation>
<code code="MDC_ECG_INTERPRETATION_STATEMENT"/><value xsi:type="ST">Sinus rhythm</value></annotation></component>
</annotation></component></annotationSet></subjectOf>{extra}</series></component></AnnotatedECG>"""


def lzw_literals(data: bytes) -> bytes:
    """A valid LZW stream of 10-bit codes that never uses its dictionary."""
    bits = "".join(f"{value:010b}" for value in data) + f"{1023:010b}"
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def xli_chunk(samples: np.ndarray) -> bytes:
    """One lead of XLI: second differences delayed by one word, raised by 64, high bytes before low bytes."""
    x = samples.astype(np.int64)
    bends = 2 * x[1:-1] - x[:-2] - x[2:]  # x[k] = 2 x[k-1] - x[k-2] - bend
    words = np.concatenate((x[:2], bends[1:] + 64, [64]))
    packed = words.astype(np.int16).view(np.uint16)
    raw = (packed >> 8).astype(np.uint8).tobytes() + (packed & 255).astype(np.uint8).tobytes()
    body = lzw_literals(raw)
    return struct.pack("<ihh", len(body), 1, int(bends[0])) + body


def sierra(digital: np.ndarray, *, version: str = "1.04", compressed: bool = True, resolution: str = "5") -> str:
    """Twelve leads in the canonical order, int16 (12, n), 500 Hz."""
    stored = digital.astype(np.int64).copy()
    if compressed:
        one, two, three = stored[0].copy(), stored[1].copy(), stored[2].copy()
        stored[2] = two - one - three
        stored[3] = -((one + two) // 2) - stored[3]
        stored[4] = (one - three) // 2 - stored[4]
        stored[5] = (two + three) // 2 - stored[5]
        data = b"".join(xli_chunk(row) for row in stored)
    else:
        data = stored.astype("<i2").tobytes()
    text = base64.encodebytes(data).decode()
    duration = digital.shape[1] * 2
    if version == "1.03":
        scale = f"<signalresolution>{resolution}</signalresolution>"
        attributes = f'compressflag="{compressed}" compressmethod="XLI" dataencoding="Base64"'
    else:
        scale = f"<resolution>{resolution}</resolution>"
        method = "XLI" if compressed else "Uncompressed"
        labels = " ".join(LEADS)
        attributes = f'dataencoding="Base64" compression="{method}" numberofleads="12" leadlabels="{labels}"'
    return f"""<?xml version="1.0" encoding="UTF-8"?><restingecgdata xmlns="http://www3.medical.philips.com">
<documentinfo><documenttype>SierraECG</documenttype><documentversion>{version}</documentversion></documentinfo>
<dataacquisition date="2020-01-01"><signalcharacteristics><samplingrate>500</samplingrate>{scale}
<acquisitiontype>STD-12</acquisitiontype><signaloffset>0</signaloffset><signalsigned>True</signalsigned>
<numberchannelsallocated>12</numberchannelsallocated></signalcharacteristics></dataacquisition>
<patient><generalpatientdata><age><dateofbirth>1950-01-02</dateofbirth></age><sex>Male</sex></generalpatientdata></patient>
<interpretations><interpretation><statement><leftstatement>SINUS RHYTHM</leftstatement>
<rightstatement>normal P axis</rightstatement></statement></interpretation></interpretations>
<waveforms><parsedwaveforms durationperchannel="{duration}" {attributes}>{text}</parsedwaveforms></waveforms>
</restingecgdata>"""


def muse(digital: np.ndarray, names: Sequence[str], *, gain: str = "4.88", units: str = "MICROVOLTS") -> str:
    leads = ""
    for name, row in zip(names, digital, strict=True):
        data = row.astype("<i2").tobytes()
        leads += f"""<LeadData><LeadByteCountTotal>{len(data)}</LeadByteCountTotal><LeadSampleCountTotal>{len(row)}
</LeadSampleCountTotal><LeadAmplitudeUnitsPerBit>{gain}</LeadAmplitudeUnitsPerBit><LeadAmplitudeUnits>{units}
</LeadAmplitudeUnits><LeadID>{name}</LeadID><LeadDataCRC32>{binascii.crc32(data)}</LeadDataCRC32>
<LeadSampleSize>2</LeadSampleSize><WaveFormData>{base64.encodebytes(data).decode()}</WaveFormData></LeadData>"""
    median = leads.replace(f"<LeadSampleCountTotal>{digital.shape[1]}", "<LeadSampleCountTotal>1")
    return f"""<?xml version="1.0" encoding="ISO-8859-1"?><!DOCTYPE RestingECG SYSTEM "restecg.dtd"><RestingECG>
<PatientDemographics><PatientAge>61</PatientAge><AgeUnits>YEARS</AgeUnits><Gender>MALE</Gender></PatientDemographics>
<Diagnosis><DiagnosisStatement><StmtFlag>ENDSLINE</StmtFlag><StmtText>Sinus rhythm</StmtText></DiagnosisStatement>
<DiagnosisStatement><StmtText>Anterior</StmtText></DiagnosisStatement>
<DiagnosisStatement><StmtFlag>ENDSLINE</StmtFlag><StmtText>infarct</StmtText></DiagnosisStatement></Diagnosis>
<Waveform><WaveformType>Median</WaveformType><SampleBase>500</SampleBase>{median}</Waveform>
<Waveform><WaveformType>Rhythm</WaveformType><SampleBase>25</SampleBase><SampleExponent>1</SampleExponent>{leads}
</Waveform></RestingECG>"""


# --- binary ----------------------------------------------------------------------------------------------------------


def ishne(
    digital: np.ndarray, names: Sequence[str], *, fs: int = 200, gain: int = 2500, text: bytes = b"note\0"
) -> bytes:
    """``digital`` int16 (k, n), ``gain`` in nV per unit."""
    k, n = digital.shape
    pad = [-9] * (12 - k)
    body = struct.pack("<4ih", len(text), n, 522, 522 + len(text), 1)
    body += b"Ann".ljust(40, b"\0") + b"Doe".ljust(40, b"\0") + b"42".ljust(20, b"\0")
    body += struct.pack("<2h9h3h", 2, 0, 3, 2, 1960, 1, 2, 2020, 1, 2, 2020, 12, 0, 0)
    body += struct.pack("<h12h", k, *[ISHNE_CODES.get(name, 2) for name in names], *pad)
    body += struct.pack("<12h12h", *[1] * k, *pad, *[gain] * k, *pad)
    body += struct.pack("<h40sh", 0, b"digital", fs) + b"\0" * (80 + 80 + 88) + text
    return b"ISHNE1.0" + struct.pack("<H", binascii.crc_hqx(body, 0xFFFF)) + body + digital.T.astype("<i2").tobytes()


def edf(
    signals: Sequence[np.ndarray],
    labels: Sequence[str],
    *,
    units: Sequence[str],
    limits: Sequence[tuple[float, float, int, int]],
    seconds: float = 1.0,
    reserved: str = "",
    bdf: bool = False,
    records: int | None = None,
) -> bytes:
    """``signals``: integers (data records, samples per record) each; limits: physical and digital minimum, maximum."""

    def field(value: object, size: int) -> bytes:
        return str(value).encode("latin-1")[:size].ljust(size)

    n, count = len(signals), len(signals[0])
    head = (b"\xffBIOSEMI" if bdf else b"0       ") + field("X F 02-JAN-1970 X", 80)
    head += field("Startdate 01-JAN-2020 X X X", 80) + b"01.01.2012.00.00" + field(256 * (n + 1), 8)
    head += (
        field(reserved, 44) + field(count if records is None else records, 8) + field(f"{seconds:g}", 8) + field(n, 4)
    )
    columns: list[tuple[Sequence[object], int]] = [(labels, 16), ([""] * n, 80), (units, 8)]
    columns += [([limit[i] for limit in limits], 8) for i in range(4)]
    columns += [([""] * n, 80), ([signal.shape[1] for signal in signals], 8), ([""] * n, 32)]
    head += b"".join(field(value, size) for values, size in columns for value in values)
    body = b""
    for record in range(count):
        for signal in signals:
            row = signal[record]
            if bdf:
                body += b"".join(int(value).to_bytes(3, "little", signed=True) for value in row)
            else:
                body += row.astype("<i2").tobytes()
    return head + body


def annotation_signal(texts: Sequence[bytes], samples: int = 30) -> np.ndarray:
    """An ``EDF Annotations`` signal of one text per data record."""
    return np.stack([np.frombuffer(text.ljust(2 * samples, b"\0"), dtype="<i2") for text in texts])


# --- SCP-ECG ---------------------------------------------------------------------------------------------------------


def huffman(values: Sequence[int]) -> bytes:
    """The default table of the standard: 0; 10s0 …: ``k`` ones, a zero, a sign for ±k up to 8; then 8 and 16 bits."""
    bits = ""
    for value in values:
        if value == 0:
            bits += "0"
        elif abs(value) <= 8:
            bits += "1" * abs(value) + "0" + ("0" if value > 0 else "1")
        elif -128 <= value <= 127:
            bits += "1111111110" + f"{value & 0xFF:08b}"
        else:
            bits += "1111111111" + f"{value & 0xFFFF:016b}"
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big") if bits else b""


def differences(row: np.ndarray, order: int) -> list[int]:
    x = row.astype(int)
    if order == 0:
        return [int(v) for v in x]
    if order == 1:
        return [int(x[0]), *(int(v) for v in np.diff(x))]
    return [int(x[0]), int(x[1]), *(int(v) for v in x[2:] - 2 * x[1:-1] + x[:-2])]


def decimated(row: np.ndarray, factor: int, protected: Sequence[tuple[int, int]]) -> np.ndarray:
    """The samples within the zones, and the floored mean of every ``factor`` (or fewer, at the end) outside."""
    inside = np.zeros(row.size, dtype=bool)
    for first, last in protected:
        inside[first - 1 : last] = True
    out: list[int] = []
    at = 0
    while at < row.size:
        if inside[at]:
            out.append(int(row[at]))
            at += 1
            continue
        size = 1
        while size < factor and at + size < row.size and not inside[at + size]:
            size += 1
        out.append(int(row[at : at + size].sum()) // size)
        at += size
    return np.array(out)


def scp(
    digital: np.ndarray,
    names: Sequence[str],
    *,
    coded: bool = True,
    order: int = 2,
    avm: int = 2500,
    interval: int = 2000,
    beat: np.ndarray | None = None,
    beats_at: Sequence[int] = (),
    bimodal: int = 0,
    factor: int = 1,
    protected: Sequence[tuple[int, int]] | None = None,
    tables: bytes | None = None,
    encode: Callable[[Sequence[int]], bytes] | None = None,
) -> bytes:
    """SCP-ECG of rhythm data; with ``beat`` (k, m) that reference beat is subtracted at the 1-based ``beats_at``.

    With a ``factor`` the samples outside the zones ``protected`` (1-based, last included) are means of so many; with
    ``tables`` that is section 2 and ``encode`` packs by it.
    """
    k, n = digital.shape

    def section(number: int, body: bytes) -> bytes:
        body += b"\0" * (len(body) % 2)
        head = struct.pack("<HIBB6s", number, 16 + len(body), 13, 13, b"SCPECG" if number == 0 else b"")
        return struct.pack("<H", binascii.crc_hqx(head + body, 0xFFFF)) + head + body

    def tag(code: int, value: bytes) -> bytes:
        return struct.pack("<BH", code, len(value)) + value

    def lead_data(rows: np.ndarray) -> bytes:
        if coded:
            parts = [(encode or huffman)(differences(row, order)) for row in rows]
        else:
            parts = [np.array(differences(row, order)).astype("<i2").tobytes() for row in rows]
        parts = [part + b"\0" * (len(part) % 2) for part in parts]
        sizes = b"".join(struct.pack("<H", len(part)) for part in parts)
        return sizes + b"".join(parts)

    device = struct.pack("<HHHBB6sBBBBB", 0, 0, 0, 0, 0, b"TEST", 13, 0xA0, 0, 0, 0) + b"\0" * 16 + b"\0\0\0\0\0"
    clinical = tag(4, struct.pack("<HB", 63, 1)) + tag(8, b"\2") + tag(14, device)
    clinical += tag(25, struct.pack("<HBB", 2020, 1, 2)) + tag(26, bytes([12, 0, 0])) + tag(255, b"")
    sections = {1: clinical}
    if coded:
        sections[2] = tables or struct.pack("<H", 19999)
    flags = 4 | (k << 3 & 0xF8) | (1 if beat is not None else 0)
    sections[3] = struct.pack("<BB", k, flags) + b"".join(struct.pack("<IIB", 1, n, SCP_CODES[name]) for name in names)
    residual = digital.astype(int).copy()
    zones_kept: Sequence[tuple[int, int]] = ()
    if beat is not None:
        m = beat.shape[1]
        zones = b""
        for start in beats_at:
            residual[:, start - 1 : start - 1 + m] -= beat
            zones += struct.pack("<HIII", 0, start, start, start + m - 1)
        kept = protected if protected is not None else [(start, start + m - 1) for start in beats_at]
        zones_kept = kept if bimodal else ()
        assert len(kept) == len(beats_at)
        areas = b"".join(struct.pack("<II", *zone) for zone in kept)
        sections[4] = struct.pack("<HHH", m * interval // 1000, 1, len(beats_at)) + zones + areas
        sections[5] = struct.pack("<HHBB", avm, interval, order, 0) + lead_data(beat)
    if factor > 1:
        residual = np.stack([decimated(row, factor, zones_kept) for row in residual])
    sections[6] = struct.pack("<HHBB", avm, interval * factor, order, bimodal) + lead_data(residual)
    sections[8] = struct.pack("<BHBB3sB", 0, 2020, 1, 2, bytes(3), 1) + struct.pack("<BH", 1, 13) + b"Sinus rhythm\0"
    size = 16 + 10 * 12
    at = 6 + size
    pointers = {0: (size, 7)}
    blocks = b""
    for number, body in sections.items():
        block = section(number, body)
        pointers[number] = (len(block), at + len(blocks) + 1)
        blocks += block
    table = b"".join(struct.pack("<HII", number, *pointers.get(number, (0, 0))) for number in range(12))
    content = section(0, table) + blocks
    whole = struct.pack("<I", 6 + len(content)) + content
    return struct.pack("<H", binascii.crc_hqx(whole, 0xFFFF)) + whole
