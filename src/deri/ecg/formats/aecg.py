"""HL7 annotated ECG (aECG, ANSI/HL7 V3 ECG R1), the XML of drug trials.

A lead is a sequence ``value = origin + scale * digit``; a time sequence in the same set states the sampling interval.
One series may hold several sequence sets, one after the other, each with some leads or with all.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

import numpy as np

from deri.ecg.formats.common import (
    Options,
    Strip,
    device_name,
    lay_out,
    make_ecg,
    note_calibration_pulse,
    require_voltage,
    sex_of,
    stamped,
    to_date,
    to_float,
    years,
    years_between,
)
from deri.ecg.formats.xml_tree import attribute, parse_numbers, parse_xml, text_of, xml_format
from deri.ecg.leads import canonical_lead
from deri.ecg.recording import ECG
from deri.errors import ReadError

_SECONDS = {"min": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_REPORTED_AGE = "21612-7"
_STATEMENT = re.compile(r"MDC_ECG_INTERPRETATION(?:_STATEMENT|_SUMMARY|_COMMENT)?$")


def read_aecg(path: str, options: Options) -> ECG:
    """Read the fullest rhythm series of an aECG file; representative beats are left aside.

    Raises:
        ReadError: ``bad_xml``, ``no_signals``, ``bad_sampling_rate``, ``bad_units``, ``bad_gain``, ``bad_header``
            (times that cannot be compared), ``unreadable_signal`` (digits that are no numbers), and those of
            ``make_ecg``.
    """
    root = parse_xml(path)
    series = [s for s in root.findall("component/series") if "BEAT" not in attribute(s, "code", "code").upper()]
    series = [s for s in series if s.find("component/sequenceSet") is not None]
    if not series:
        raise ReadError(f"{path}: this aECG has no rhythm series", "no_signals")
    notes: dict[str, str] = {}
    if len(series) > 1:
        notes["several_recordings"] = f"the file holds {len(series)} rhythm series; the fullest was read"
    chosen = max(series, key=_fullness)
    sets = [_sequence_set(path, found) for found in chosen.findall("component/sequenceSet")]
    sets = [found for found in sets if found.leads]
    if not sets:
        raise ReadError(f"{path}: the rhythm series of this aECG has no leads", "no_signals")
    rates = sorted({found.fs for found in sets})
    if len(rates) > 1:
        listed = ", ".join(f"{rate:g}" for rate in rates)
        raise ReadError(f"{path}: leads of different sampling rates ({listed} Hz)", "unequal_lead_lengths")
    starts = {found.start is None for found in sets}
    if len(starts) > 1 or len({found.clock for found in sets}) > 1:
        raise ReadError(f"{path}: the times of its sequence sets cannot be compared", "bad_header")
    strips = [Strip(options.lead(name), found.start or 0.0, v) for found in sets for name, v in found.leads]
    names, channels = lay_out(path, strips, rates[0], notes)
    note_calibration_pulse(channels, rates[0], notes)
    return make_ecg(path, "HL7 aECG", channels, names, rates[0], _about(root, chosen, notes))


def _fullness(series: Element) -> tuple[int, int]:
    """How many of the twelve leads a series holds, and how much of them."""
    size: dict[str, int] = {}
    for sequence in series.iterfind("component/sequenceSet/component/sequence"):
        lead = canonical_lead(_lead_name(attribute(sequence, "code", "code")))
        if lead is not None:
            size[lead] = size.get(lead, 0) + len(sequence.findtext("value/digits") or "")
    return len(size), max(size.values(), default=0)


class SequenceSet(NamedTuple):
    """Simultaneous sequences."""

    clock: str  # what ``start`` counts from
    start: float | None  # s; None where it cannot be read
    fs: float
    leads: list[tuple[str, np.ndarray]]  # names and mV


def _sequence_set(path: str, element: Element) -> SequenceSet:
    clock, start, step = "", None, None
    leads = []
    for sequence in element.findall("component/sequence"):
        code = attribute(sequence, "code", "code")
        if code.upper().startswith("TIME_"):
            step = _interval(path, sequence)
            head = attribute(sequence, "value/head", "value")
            unit = attribute(sequence, "value/head", "unit")
            clock, start = _elapsed(head, unit) if code.upper() == "TIME_RELATIVE" else _start(head, unit)
        elif sequence.find("value/digits") is not None:
            leads.append((code, sequence))
    if leads and step is None:
        raise ReadError(f"{path}: no time sequence states the sampling interval", "bad_sampling_rate")
    rate = 1.0 / step if step else 0.0
    # 0.002 s is 500 Hz, not 500.00000000000006.
    rate = round(rate) if abs(rate - round(rate)) < 1e-6 * rate else rate
    found = [(_lead_name(code), _samples(path, code, sequence)) for code, sequence in leads]
    return SequenceSet(clock, start, float(rate), found)


def _interval(path: str, sequence: Element) -> float:
    value = to_float(attribute(sequence, "value/increment", "value"))
    unit = attribute(sequence, "value/increment", "unit")
    if value is None or value <= 0 or unit not in _SECONDS:
        raise ReadError(f"{path}: {value} {unit or '(no unit)'} is not a sampling interval", "bad_sampling_rate")
    return value * _SECONDS[unit]


def _elapsed(value: str, unit: str) -> tuple[str, float | None]:
    """A number of seconds (milliseconds …)."""
    number, factor = to_float(value), _SECONDS.get(unit or "s")
    return "relative", None if number is None or factor is None else number * factor


def _start(value: str, unit: str) -> tuple[str, float | None]:
    """The start of a set in seconds and the clock that it is read from; only differences between sets matter.

    A time stamp of HL7 (``YYYYMMDD`` and as many more digits as are known, whatever unit is written beside it) or of
    ISO 8601, or a number.
    """
    stamp = re.fullmatch(r"(\d{8})(\d{0,6})(?:\.(\d+))?([+-]\d{4}|Z)?", value, re.ASCII)
    try:
        if stamp is None:
            return _since_2000(datetime.fromisoformat(value.replace("Z", "+00:00")))
        day, time, fraction, zone = stamp.groups(default="")
        text = f"{day}{time.ljust(6, '0')}.{fraction[:6] or '0'}{zone.replace('Z', '+0000')}"
        return _since_2000(datetime.strptime(text, "%Y%m%d%H%M%S.%f%z" if zone else "%Y%m%d%H%M%S.%f"))
    except ValueError:
        return _elapsed(value, unit) if stamp is None and value else ("", None)


def _since_2000(moment: datetime) -> tuple[str, float]:
    if moment.tzinfo is None:
        return "local", (moment - datetime(2000, 1, 1)).total_seconds()
    return "absolute", (moment - datetime(2000, 1, 1, tzinfo=timezone.utc)).total_seconds()


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
    about["date"] = stamped(_recorded(root) or _recorded(series))
    author = series.find("author/seriesAuthor")
    about["device"] = device_name(
        text_of(author, "manufacturerOrganization/name"),
        text_of(author, "manufacturedSeriesDevice/manufacturerModelName"),
    )
    statements = []
    for annotation in series.iter("annotation"):
        if not _STATEMENT.match(attribute(annotation, "code", "code").upper()):
            continue
        text = text_of(annotation, "value") or attribute(annotation, "value", "displayName")
        if text and text not in statements:
            statements.append(text)
    return about | {"interpretation": statements}


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
