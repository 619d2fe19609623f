"""FHIR: an ``Observation`` (R4 or R5, JSON) whose components hold leads as ``SampledData``."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np

from deri.ecg.formats.common import (
    Format,
    Options,
    brief,
    load,
    make_ecg,
    refuse_options,
    require_voltage,
    stated_scale,
    to_float,
)
from deri.ecg.formats.scp import LEAD_CODES
from deri.ecg.leads import canonical_lead
from deri.ecg.recording import ECG
from deri.errors import ReadError

_MAX_BYTES = 64 * 2**20
_SECONDS = {"ms": 1e-3, "s": 1.0, "us": 1e-6, "ns": 1e-9}
# MDC_ECG_LEAD_* are 131072 + the number of the lead in SCP-ECG, MDC_ECG_ELEC_POTL_* 256 more.
_MDC_NUMBER, _MDC_NAME = re.compile(r"131\d{3}"), re.compile(r"^MDC_ECG_(?:ELEC_POTL|LEAD)_")
_LEADS, _POTENTIALS = 131072, 131328
_GAPS = {"E": "nan", "L": "nan", "U": "nan"}  # error, below and above what the device can measure


def read_fhir(path: str, options: Options) -> ECG:
    """Read the leads of an Observation; components of one lead follow each other in time, in the order of the file.

    A value is ``origin + factor * number`` in the unit of ``origin``.

    Raises:
        ReadError: ``bad_header`` (no such JSON), ``unsupported_format``, ``no_signals``, ``bad_sampling_rate``,
            ``bad_units``, ``unreadable_signal``, and those of ``make_ecg``.
    """
    try:
        content = json.loads(load(path, _MAX_BYTES).decode("utf-8-sig"))
        kind = content.get("resourceType")
        parts = [part for part in (content, *content.get("component", ())) if "valueSampledData" in part]
        named = [(_lead(part["code"], options), dict(part["valueSampledData"])) for part in parts]
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise ReadError(f"{path}: cannot be read as a FHIR Observation ({brief(error)})", "bad_header") from None
    if kind != "Observation":
        raise ReadError(f"{path}: is a FHIR {str(kind)[:40]}; save the Observation in it alone", "unsupported_format")
    if not named:
        raise ReadError(f"{path}: the Observation has no valueSampledData", "no_signals")
    rates = {_rate(path, data) for _, data in named}
    if len(rates) > 1:
        raise ReadError(f"{path}: leads of different sampling rates ({sorted(rates)})", "unequal_lead_lengths")
    channels: dict[str, list[np.ndarray]] = {}
    for name, data in named:
        channels.setdefault(canonical_lead(name) or name, []).append(_values(path, name, data, options))
    joined = [np.concatenate(pieces) for pieces in channels.values()]
    return make_ecg(path, "FHIR Observation", joined, list(channels), rates.pop(), {})


def _lead(code: dict[str, Any], options: Options) -> str:
    """The name of a lead: by its MDC number, else whatever of code, display and text names one."""
    names = [str(item[key]) for item in code.get("coding", ()) for key in ("code", "display") if key in item]
    names += [str(code["text"])] if "text" in code else []
    for number in (int(name) for name in names if _MDC_NUMBER.fullmatch(name)):
        if number != _POTENTIALS:
            # Another lead of the standard is none of the twelve, whatever the display says.
            found = LEAD_CODES.get(number - (_POTENTIALS if number > _POTENTIALS else _LEADS))
            return found or options.lead(f"MDC {number}")
    names = [options.lead(_MDC_NAME.sub("", name)) for name in reversed(names)]
    return next((name for name in names if canonical_lead(name)), names[0] if names else "unnamed")


def _rate(path: str, data: dict[str, Any]) -> float:
    """Hz, from ``period`` in ms (R4) or ``interval`` in a unit (R5)."""
    step = to_float(str(data.get("period", data.get("interval"))))
    unit = "ms" if "period" in data else str(data.get("intervalUnit"))
    if step is None or step <= 0 or unit not in _SECONDS:
        raise ReadError(f"{path}: states neither a period nor an interval of time between samples", "bad_sampling_rate")
    return 1 / (step * _SECONDS[unit])


def _values(path: str, name: str, data: dict[str, Any], options: Options) -> np.ndarray:
    """The samples of one component in mV; marks of values that were not measured are NaN."""
    shown = name[:40]
    if data.get("dimensions", 1) != 1 or "offsets" in data or "codeMap" in data:
        raise ReadError(f"{path}: {shown} is more than one series at even steps", "unsupported_format")
    origin = data.get("origin")
    origin = origin if isinstance(origin, dict) else {}
    base, factor = to_float(str(origin.get("value", 0))), to_float(str(data.get("factor", 1)))
    if base is None or factor is None or factor == 0:
        raise ReadError(f"{path}: the origin or factor of {shown} is no number", "bad_gain")
    if unit := str(origin.get("code") or origin.get("unit") or ""):
        refuse_options(path, f"{shown} states its unit, {unit[:20]}", options, "units", "gain")
        scale = require_voltage(path, name, unit)
    else:
        scale = stated_scale(path, options, shown)
    words = str(data.get("data") or "").split()
    try:
        numbers = np.array([_GAPS.get(word, word) for word in words], dtype=np.float64)
    except ValueError as error:
        raise ReadError(f"{path}: {shown}: {brief(error)}", "unreadable_signal") from None
    return (base + factor * numbers) * scale


def _sniff(path: str, head: bytes) -> bool:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return text.startswith(b"{") and (
        re.search(rb'"resourceType"\s*:\s*"Observation"', text) is not None or b'"valueSampledData"' in text
    )


FORMAT = Format("FHIR Observation (JSON)", _sniff, read_fhir, takes=("units", "gain"))
