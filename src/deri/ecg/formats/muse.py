"""GE MUSE XML (``RestingECG``): base64 text of int16 per lead; usually I, II and V1 to V6, the rest is derived."""

from __future__ import annotations

import re
import zlib
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from deri.ecg.formats.common import (
    Options,
    device_name,
    make_ecg,
    moment,
    require_voltage,
    sex_of,
    to_date,
    to_float,
    years,
    years_between,
)
from deri.ecg.formats.xml_tree import decode_base64, parse_xml, text_of, xml_format
from deri.ecg.leads import canonical_lead
from deri.ecg.recording import ECG
from deri.errors import ReadError


def read_muse(path: str, options: Options) -> ECG:
    """Read the fullest rhythm waveform of a MUSE XML file; median beats are left aside.

    Raises:
        ReadError: ``bad_xml``, ``no_signals``, ``bad_sampling_rate``, ``bad_gain``, ``bad_units``,
            ``unsupported_format`` (sample size), ``truncated_signal``, ``unreadable_signal``, and those of
            ``make_ecg``.
    """
    return read_waveforms(path, parse_xml(path), options)


def read_waveforms(path: str, root: Element, options: Options) -> ECG:
    """The recording in a ``RestingECG`` element."""
    rhythms = [w for w in root.findall("Waveform") if text_of(w, "WaveformType").lower() in ("rhythm", "")]
    if not rhythms:
        raise ReadError(f"{path}: this MUSE XML has no rhythm waveform", "no_signals")
    notes: dict[str, str] = {}
    if len(rhythms) > 1:
        notes["several_recordings"] = f"the file holds {len(rhythms)} rhythm waveforms; the fullest was read"
    rhythm = max(rhythms, key=_fullness)
    base = to_float(text_of(rhythm, "SampleBase"))
    exponent = to_float(text_of(rhythm, "SampleExponent") or "0")
    if base is None or exponent is None or base <= 0 or abs(exponent) > 6:
        raise ReadError(f"{path}: states no sampling rate", "bad_sampling_rate")
    names, channels = [], []
    for lead in rhythm.findall("LeadData"):
        names.append(options.lead(text_of(lead, "LeadID")))
        channels.append(_samples(path, names[-1], lead, notes))
        if to_float(text_of(lead, "LeadTimeOffset")):
            notes["lead_time_offset"] = "leads are said to begin at different times; they were read as simultaneous"
    return make_ecg(path, "GE MUSE XML", channels, names, base * 10.0**exponent, {"warnings": notes, **_about(root)})


def _fullness(rhythm: Element) -> tuple[int, int]:
    """How many of the twelve leads a waveform holds, and how much of them."""
    leads = [lead for lead in rhythm.findall("LeadData") if canonical_lead(text_of(lead, "LeadID"))]
    return len(leads), min((len(lead.findtext("WaveFormData", "")) for lead in leads), default=0)


def _samples(path: str, name: str, lead: Element, notes: dict[str, str]) -> np.ndarray:
    size = text_of(lead, "LeadSampleSize") or "2"
    if size != "2":
        raise ReadError(
            f"{path}: lead {name[:20]} has samples of {size[:8]} bytes; 2 are supported", "unsupported_format"
        )
    gain = to_float(text_of(lead, "LeadAmplitudeUnitsPerBit"))
    if gain is None or gain == 0:
        raise ReadError(f"{path}: lead {name[:20]} states no amplitude per bit", "bad_gain")
    factor = gain * require_voltage(path, name, text_of(lead, "LeadAmplitudeUnits"))
    data = decode_base64(path, text_of(lead, "WaveFormData"))
    stated = to_float(text_of(lead, "LeadSampleCountTotal"))
    if len(data) % 2 or (stated is not None and stated != len(data) // 2):
        raise ReadError(
            f"{path}: lead {name[:20]} has {len(data)} bytes where {stated or 0:g} samples are stated",
            "truncated_signal",
        )
    checksum = text_of(lead, "LeadDataCRC32")
    if checksum.isascii() and checksum.isdigit() and int(checksum) and int(checksum) != zlib.crc32(data):
        wrong = notes.get("checksum_mismatch", "the checksums do not fit the samples of")
        notes["checksum_mismatch"] = f"{wrong} {name[:20]}"
    return np.frombuffer(data, dtype="<i2") * factor


def _about(root: Element) -> dict[str, Any]:
    person, test = root.find("PatientDemographics"), root.find("TestDemographics")
    age, day = to_float(text_of(person, "PatientAge")), _date(text_of(test, "AcquisitionDate"))
    if age is not None:
        found = years(age, text_of(person, "AgeUnits") or "years")
    else:
        found = years_between(_date(text_of(person, "DateofBirth")), day)
    return {
        "age": found,
        "sex": sex_of(text_of(person, "Gender")),
        "date": moment(day, text_of(test, "AcquisitionTime")),
        "device": device_name(text_of(test, "AcquisitionDevice")),
        # "Diagnosis" is what stands after overreading; "OriginalDiagnosis" is the machine's.
        "interpretation": _statements(root.find("Diagnosis")) or _statements(root.find("OriginalDiagnosis")),
    }


def _statements(diagnosis: Element | None) -> list[str]:
    """Statements, each joined from its parts up to the one flagged ENDSLINE."""
    lines: list[str] = []
    parts: list[str] = []
    for statement in diagnosis.findall("DiagnosisStatement") if diagnosis is not None else []:
        parts.append(text_of(statement, "StmtText"))
        if any(text_of(flag).upper() == "ENDSLINE" for flag in statement.findall("StmtFlag")):
            lines.append(" ".join(part for part in parts if part))
            parts = []
    lines.append(" ".join(part for part in parts if part))
    return [line for line in lines if line]


def _date(text: str) -> Any:
    match = re.fullmatch(r"(\d{1,2})[-/](\d{1,2})[-/](\d{4})", text.strip(), re.ASCII)
    return to_date(int(match[3]), int(match[1]), int(match[2])) if match else None


FORMAT = xml_format("GE MUSE (XML, RestingECG)", "RestingECG", read_muse)
