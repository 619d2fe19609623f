"""XML of other carts: GE CardioSoft (and MUSE in its wrapper), Schiller, Mortara ELI.

CardioSoft and Schiller write plain numbers and are read here; ecgdatakit does not know them. It reads Mortara ELI; the
tests compare its numbers with those in the file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from deri.ecg.formats.common import (
    Format,
    Options,
    brief,
    device_name,
    make_ecg,
    moment,
    optional,
    require_voltage,
    sex_of,
    stamped,
    to_date,
    to_float,
    years,
)
from deri.ecg.formats.muse import read_waveforms
from deri.ecg.formats.xml_tree import attribute, is_xml, parse_numbers, parse_xml, text_of, xml_format
from deri.ecg.leads import canonical_lead
from deri.ecg.recording import ECG
from deri.errors import ReadError


def read_cardiosoft(path: str, options: Options) -> ECG:
    """Read the strip of a GE CardioSoft file, or the MUSE recording in a ``CardiologyXML`` wrapper.

    Raises:
        ReadError: ``bad_xml``, ``no_signals``, ``bad_sampling_rate``, ``bad_gain``, ``truncated_signal``,
            ``unreadable_signal``, and those of ``make_ecg``.
    """
    root = parse_xml(path)
    muse = root if root.find("Waveform") is not None else root.find(".//RestingECG")
    if muse is not None:
        return read_waveforms(path, muse, options)
    strips = [strip for strip in root.iter("StripData") if strip.find("WaveformData") is not None]
    if not strips:
        raise ReadError(f"{path}: this CardiologyXML has no strip of a resting ECG", "no_signals")
    strip = max(strips, key=lambda one: sum(len(wave.text or "") for wave in one.findall("WaveformData")))
    notes = {}
    if len(strips) > 1:
        notes["several_recordings"] = f"the file holds {len(strips)} strips; the fullest was read"
    unit = attribute(strip, "Resolution", "units")
    scale = _scale(path, text_of(strip, "Resolution"), "uV" if unit.lower() == "uvperlsb" else unit)
    fs = _rate(path, text_of(strip, "SampleRate"), attribute(strip, "SampleRate", "units"))
    stated = to_float(text_of(strip, "ChannelSampleCountTotal"))
    names, channels = [], []
    for wave in strip.findall("WaveformData"):
        name = wave.get("lead", "")
        channels.append(_listed(path, name, wave.text or "") * scale)
        names.append(options.lead(name))
        if stated is not None and canonical_lead(name) and channels[-1].size != stated:
            raise ReadError(
                f"{path}: lead {name[:20]} has {channels[-1].size} of {stated:g} samples", "truncated_signal"
            )
    person = root.find("PatientInfo")
    age = to_float(text_of(person, "Age"))
    about: dict[str, Any] = {
        "sex": sex_of(text_of(person, "Gender")),
        "age": years(age, attribute(person, "Age", "units") or "y") if age else None,
        "date": _observed(root.find("ObservationDateTime")),
        "device": device_name(text_of(root, "ClinicalInfo/DeviceInfo/Desc")),
        "interpretation": [text_of(line) for line in root.iterfind("Interpretation/Diagnosis/DiagnosisText")],
    }
    lines = [text_of(line) for line in root.iterfind("Interpretation/Diagnosis/DiagnosisText")]
    if any(lines):
        about["interpretation"] = [line for line in lines if line]
    return make_ecg(path, "GE CardioSoft XML", channels, names, fs, {"warnings": notes, **about})


def _observed(element: Element | None) -> str | None:
    day = [to_float(text_of(element, name)) for name in ("Year", "Month", "Day")]
    clock = ":".join(text_of(element, name).zfill(2) for name in ("Hour", "Minute", "Second"))
    return moment(to_date(*(int(part) for part in day if part is not None)), clock) if None not in day else None


def read_schiller(path: str, options: Options) -> ECG:
    """Read the rhythm leads of a Schiller file; average beats are left aside.

    Raises:
        ReadError: ``bad_xml``, ``no_signals``, ``bad_sampling_rate``, ``bad_gain``, ``bad_units``,
            ``unsupported_format`` (not plain numbers), ``unreadable_signal``, and those of ``make_ecg``.
    """
    root = parse_xml(path)
    rhythms = [w for w in root.iter("wavedata") if text_of(w, "type").upper() == "ECG_RHYTHMS"]
    if len(rhythms) != 1:
        raise ReadError(
            f"{path}: holds {len(rhythms)} rhythm recordings", "several_recordings" if rhythms else "no_signals"
        )
    resolution = rhythms[0].find("resolution")
    if text_of(resolution, "samplerate/exponent") not in ("", "1", "0"):
        raise ReadError(f"{path}: states its sampling rate in a form that is not known", "bad_sampling_rate")
    fs = _rate(path, text_of(resolution, "samplerate/value"), text_of(resolution, "samplerate/units"))
    scale = _scale(path, text_of(resolution, "yres/unitperbit"), text_of(resolution, "yres/units"))
    names, channels = [], []
    for channel in rhythms[0].findall("channel"):
        form = text_of(channel, "datastype") or text_of(channel, "datatype")
        if form.upper() not in ("", "COMMASEPARATE"):
            raise ReadError(f"{path}: samples in the form {form[:20]!r} are not supported", "unsupported_format")
        names.append(options.lead(text_of(channel, "name")))
        channels.append(_listed(path, names[-1], text_of(channel, "data")) * scale)
    start = root.find(".//examdescript/startdatetime")
    about = {
        "sex": sex_of(text_of(root.find(".//patdata/gender"))),
        "date": stamped(f"{text_of(start, 'date')}{text_of(start, 'time')}"),
    }
    return make_ecg(path, "Schiller XML", channels, names, fs, about)


def read_mortara(path: str, options: Options) -> ECG:
    """Read the rhythm leads of a Mortara ELI file; the typical cycle is left aside.

    Raises:
        ReadError: ``bad_xml``, ``missing_dependency``, ``bad_header``, ``bad_gain``, ``bad_units``,
            ``unequal_lead_lengths``, and those of ``make_ecg``.
    """
    import warnings

    root = parse_xml(path)  # refuses what is no XML of bounded size before others see it
    optional(path, "ecgdatakit", "ecgdatakit", "Mortara ELI XML")
    from ecgdatakit.parsing.parsers.mortara_el250 import MortaraEL250Parser

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what is refused below
            record: Any = MortaraEL250Parser().parse(Path(path))
    except Exception as error:
        raise ReadError(f"{path}: cannot be read as Mortara ELI XML ({brief(error)})", "bad_header") from error
    if record.raw_metadata.get("channel_offsets") or not all(
        lead.is_raw and lead.resolution_unit for lead in record.leads
    ):
        raise ReadError(f"{path}: a channel states no units per mV, or an offset of unknown meaning", "bad_gain")
    # ecgdatakit rounds the rate.
    rates = {to_float(channel.get("SAMPLE_FREQ")) for channel in root.findall("CHANNEL")}
    if len(rates) != 1 or not (fs := rates.pop()):
        raise ReadError(f"{path}: its channels have different sampling rates", "unequal_lead_lengths")
    names = [options.lead(channel.get("NAME", "")) for channel in root.findall("CHANNEL")]
    channels = [
        np.asarray(lead.samples) * (lead.resolution * require_voltage(path, lead.label, lead.resolution_unit))
        for lead in record.leads
    ]
    age = to_float(root.get("AGE"))
    about = {
        "age": years(age, root.get("AGE_UNITS", "y")) if age else None,
        "sex": sex_of(attribute(root, "SUBJECT", "GENDER")),
        "date": stamped(root.get("ACQUISITION_TIME", "")),
        "device": device_name(attribute(root, "SOURCE", "MANUFACTURER"), attribute(root, "SOURCE", "MODEL")),
        "interpretation": [line.get("TEXT", "") for line in root.iterfind("AUTOMATIC_INTERPRETATION/STATEMENT")],
    }
    return make_ecg(path, "Mortara ELI XML", channels, names, fs, about)


def _listed(path: str, name: str, text: str) -> np.ndarray:
    """Numbers separated by commas."""
    if re.search(r",\s*,", text):
        raise ReadError(f"{path}: lead {name[:20]} lacks samples between commas", "unreadable_signal")
    return parse_numbers(path, name, text.strip().strip(",").replace(",", " "))


def _rate(path: str, text: str, unit: str) -> float:
    fs = to_float(text)
    if fs is None or unit.lower() not in ("", "hz"):
        raise ReadError(f"{path}: {text[:20]} {unit[:20]} is no sampling rate", "bad_sampling_rate")
    return fs


def _scale(path: str, text: str, unit: str) -> float:
    """mV per unit."""
    value = to_float(text)
    if not value:
        raise ReadError(f"{path}: states no resolution", "bad_gain")
    return value * require_voltage(path, "resolution", unit)


CARDIOSOFT = xml_format("GE CardioSoft (XML, CardiologyXML)", "CardiologyXML", read_cardiosoft)
MORTARA = xml_format("Mortara ELI (XML, ECG)", "ECG", read_mortara)
SCHILLER = Format("Schiller (XML)", lambda path, head: is_xml(head) and b"examdescript" in head, read_schiller)
