"""HL7 annotated ECG (aECG, ANSI/HL7 V3 ECG R1), the XML of drug trials.

A lead is a sequence ``value = origin + scale * digit``; a time sequence in the same set states the sampling interval.
One series may hold several sequence sets, one after the other, each with some leads.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from deri.ecg.formats.common import (
    Strip,
    lay_out,
    make_ecg,
    note_calibration_pulse,
    require_voltage,
    sex_of,
    to_date,
    to_float,
    years,
    years_between,
)
from deri.ecg.formats.xml_tree import attribute, parse_numbers, parse_xml, text_of, xml_format
from deri.ecg.recording import ECG
from deri.errors import ReadError

_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}
_REPORTED_AGE = "21612-7"
_BEAT = "REPRESENTATIVE_BEAT"
_STATEMENT = re.compile(r"MDC_ECG_INTERPRETATION(?:_STATEMENT|_SUMMARY|_COMMENT)?$")


def read_aecg(path: str) -> ECG:
    """Read the rhythm series of an aECG file; representative beats are left aside.

    Raises:
        ReadError: ``bad_xml``, ``no_signals``, ``bad_sampling_rate``, ``bad_units``, ``bad_gain``,
            ``unreadable_signal`` (digits that are no numbers), and those of ``make_ecg``.
    """
    root = parse_xml(path)
    series = [s for s in root.findall("component/series") if attribute(s, "code", "code").upper() != _BEAT]
    series = [s for s in series if s.find("component/sequenceSet") is not None]
    if not series:
        raise ReadError(f"{path}: this aECG has no rhythm series", "no_signals")
    notes: dict[str, str] = {}
    if len(series) > 1:
        notes["several_recordings"] = f"the file holds {len(series)} rhythm series; the first was read"
    strips: list[Strip] = []
    rates = set()
    for found in series[0].findall("component/sequenceSet"):
        start, fs, leads = _sequence_set(path, found)
        if leads:
            rates.add(fs)
            strips += [Strip(name, start, values) for name, values in leads]
    if not strips:
        raise ReadError(f"{path}: the rhythm series of this aECG has no leads", "no_signals")
    if len(rates) > 1:
        listed = ", ".join(f"{rate:g}" for rate in sorted(rates))
        raise ReadError(f"{path}: leads of different sampling rates ({listed} Hz)", "unequal_lead_lengths")
    fs = rates.pop()
    names, channels, _ = lay_out(path, strips, fs)
    note_calibration_pulse(channels, fs, notes)
    return make_ecg(path, "HL7 aECG", channels, names, fs, _about(root, series[0], notes))


def _sequence_set(path: str, element: Element) -> tuple[float, float, list[tuple[str, np.ndarray]]]:
    """Start in seconds, sampling rate and leads (name, mV) of one set of simultaneous sequences."""
    start, step = 0.0, None
    leads = []
    for sequence in element.findall("component/sequence"):
        code = attribute(sequence, "code", "code")
        if code.upper().startswith("TIME_"):
            step = _interval(path, sequence)
            head = attribute(sequence, "value/head", "value")
            start = _seconds(head, attribute(sequence, "value/head", "unit"), code.upper() == "TIME_RELATIVE")
        elif sequence.find("value/digits") is not None:
            leads.append((code, sequence))
    if leads and step is None:
        raise ReadError(f"{path}: no time sequence states the sampling interval", "bad_sampling_rate")
    rate = 1.0 / step if step else 0.0
    # 0.002 s is 500 Hz, not 500.00000000000006.
    rate = round(rate) if abs(rate - round(rate)) < 1e-6 * rate else rate
    return start, float(rate), [(_lead_name(code), _samples(path, code, sequence)) for code, sequence in leads]


def _interval(path: str, sequence: Element) -> float:
    value = to_float(attribute(sequence, "value/increment", "value"))
    unit = attribute(sequence, "value/increment", "unit")
    if value is None or value <= 0 or unit not in _SECONDS:
        raise ReadError(f"{path}: {value} {unit or '(no unit)'} is not a sampling interval", "bad_sampling_rate")
    return value * _SECONDS[unit]


def _seconds(value: str, unit: str, relative: bool) -> float:
    """The start of a set; only differences between the sets of one file matter."""
    if relative or unit:
        return (to_float(value) or 0.0) * _SECONDS.get(unit, 1.0)
    digits, _, fraction = value.partition("+")[0].partition("-")[0].partition(".")
    try:
        moment = datetime.strptime(digits[:14].ljust(14, "0"), "%Y%m%d%H%M%S")
    except ValueError:
        return 0.0
    return (moment - datetime(2000, 1, 1)).total_seconds() + (to_float(f"0.{fraction}") or 0.0 if fraction else 0.0)


def _lead_name(code: str) -> str:
    # Vendors put their own prefix before the standard's: "MINDRAY_ECG_LEAD_V1".
    at = code.upper().find("_ECG_LEAD_")
    return f"MDC{code[at:]}" if at >= 0 else code


def _samples(path: str, code: str, sequence: Element) -> np.ndarray:
    scale = to_float(attribute(sequence, "value/scale", "value"))
    if scale is None or scale == 0:
        raise ReadError(f"{path}: {code[:40]} states no scale", "bad_gain")
    factor = require_voltage(path, code, attribute(sequence, "value/scale", "unit"))
    origin = to_float(attribute(sequence, "value/origin", "value") or "0")
    if origin is None:
        raise ReadError(f"{path}: the origin of {code[:40]} is no number", "bad_gain")
    unit = attribute(sequence, "value/origin", "unit") if origin else ""
    shift = origin * (require_voltage(path, code, unit) if unit else factor)
    element = sequence.find("value/digits")
    digits = parse_numbers(path, code, (element.text or "") if element is not None else "")
    return digits * (scale * factor) + shift


def _about(root: Element, series: Element, notes: dict[str, str]) -> dict[str, Any]:
    about: dict[str, Any] = {"warnings": notes}
    person = root.find(".//subjectDemographicPerson")
    if person is not None:
        about["sex"] = sex_of(attribute(person, "administrativeGenderCode", "code"))
        born = _date(attribute(person, "birthTime", "value"))
        about["age"] = years_between(born, _date(_recorded(root) or _recorded(series)))
    stated = _stated_age(root)
    if stated is not None and about.get("age") is None:
        about["age"] = stated
    statements = []
    for annotation in series.iter("annotation"):
        if not _STATEMENT.match(attribute(annotation, "code", "code").upper()):
            continue
        text = text_of(annotation, "value") or attribute(annotation, "value", "displayName")
        if text and text not in statements:
            statements.append(text)
    if statements:
        about["interpretation"] = statements
    return about


def _recorded(element: Element) -> str:
    found = [attribute(element, f"effectiveTime/{part}", "value") for part in ("low", "center")]
    return next(filter(None, found), "") or attribute(element, "effectiveTime", "value")


def _stated_age(root: Element) -> float | None:
    """The age of a control variable (LOINC 21612-7, "Reported Age"), where the birth date is left out."""
    for variable in root.findall("controlVariable/relatedObservation"):
        if attribute(variable, "code", "code") == _REPORTED_AGE:
            value = to_float(attribute(variable, "value", "value"))
            return None if value is None else years(value, attribute(variable, "value", "unit") or "a")
    return None


def _date(value: str) -> Any:
    return to_date(int(value[:4]), int(value[4:6]), int(value[6:8])) if re.match(r"\d{8}", value, re.ASCII) else None


FORMAT = xml_format("HL7 aECG (XML, AnnotatedECG)", "AnnotatedECG", read_aecg)
