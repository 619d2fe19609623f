"""Findings as FHIR R4: a ``Bundle`` with a preliminary ``DiagnosticReport`` and its ``Observation``s per recording.

No patient stands in it, nor when the recording was made: the service is not told, and what the file says stays in the
file. ``issued`` is when it was answered. What is not as it seems, and leads that are missing, stand in the conclusion.
"""

from __future__ import annotations

import uuid
from datetime import datetime, timezone
from typing import Any

from deri.serving.schema import NOTICE, Classified, ClassifyAnswer, Finding

MEDIA_TYPE = "application/fhir+json"
_LOINC = "http://loinc.org"
_UCUM = "http://unitsofmeasure.org"

MEASURED = {
    "rate_bpm": ("8867-4", "Heart rate", "/min"),
    "pr_ms": ("8625-6", "P-R Interval", "ms"),
    "qrs_ms": ("8633-0", "QRS duration", "ms"),
    "qt_ms": ("8634-8", "Q-T interval", "ms"),
    "qtc_ms": ("8636-3", "Q-T interval corrected", "ms"),
    "axis_deg": ("8632-2", "QRS axis", "deg"),
}
"""LOINC code, its name, and UCUM unit of each interval."""


def bundle(answer: ClassifyAnswer) -> dict[str, Any]:
    """The answer as a Bundle of type ``collection``."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    entries = [entry for recording in answer.recordings for entry in _entries(recording, answer, now)]
    return {"resourceType": "Bundle", "type": "collection", "timestamp": now, "entry": entries}


def _entries(recording: Classified, answer: ClassifyAnswer, now: str) -> list[dict[str, Any]]:
    measured = recording.measurements.model_dump()
    found = [_interval(name, value) for name, value in measured.items() if value is not None]
    found += [_finding(finding) for finding in recording.findings]
    device = {"display": f"deri {answer.version}, model {answer.model}"}
    observations = [_entry({**_common("Observation", now), "device": device, **one}) for one in found]
    told = [NOTICE, *answer.notes]
    if recording.missing_leads:
        told.append(f"Without {', '.join(recording.missing_leads)}: expect less of the findings.")
    told += recording.warnings
    report = {
        **_common("DiagnosticReport", now),
        "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0074", "code": "EC"}]}],
        "code": _code("11524-6", "EKG study"),
        "conclusion": "\n".join(told),
        "result": [{"reference": one["fullUrl"]} for one in observations],
    }
    return [_entry(report), *observations]


def _common(kind: str, now: str) -> dict[str, Any]:
    return {"resourceType": kind, "status": "preliminary", "issued": now}


def _entry(resource: dict[str, Any]) -> dict[str, Any]:
    return {"fullUrl": f"urn:uuid:{uuid.uuid4()}", "resource": resource}


def _code(code: str, display: str) -> dict[str, Any]:
    return {"coding": [{"system": _LOINC, "code": code, "display": display}], "text": display}


def _quantity(value: float, unit: str) -> dict[str, Any]:
    return {"value": round(value, 6), "unit": unit, "system": _UCUM, "code": unit}


def _interval(name: str, value: float) -> dict[str, Any]:
    code, display, unit = MEASURED[name]
    return {"code": _code(code, display), "valueQuantity": _quantity(value, unit)}


def _finding(finding: Finding) -> dict[str, Any]:
    """The probability is the value, the score a component; without a probability the value is absent."""
    parts = {"score, for ranking only": finding.score, "likelihood ratio": finding.likelihood_ratio}
    found: dict[str, Any] = {
        "code": {"text": finding.label},
        "note": [{"text": NOTICE}],
        "component": [
            {"code": {"text": name}, "valueQuantity": _quantity(value, "1")}
            for name, value in parts.items()
            if value is not None
        ],
    }
    if finding.probability is None:
        system = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
        return found | {"dataAbsentReason": {"coding": [{"system": system, "code": "not-performed"}]}}
    return found | {"valueQuantity": _quantity(finding.probability, "1")}
