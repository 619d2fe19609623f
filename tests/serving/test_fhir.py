"""The FHIR form of an answer, by hand-written expectations and through our own reader of JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from deri.serving.fhir import bundle
from deri.serving.schema import Classified, ClassifyAnswer, Finding, Measurements
from serving.test_app import files


def answer() -> ClassifyAnswer:
    measured = Measurements(rate_bpm=72.0, pr_ms=None, qrs_ms=90.0, qt_ms=None, qtc_ms=None, axis_deg=-30.0)
    findings = [
        Finding(label="atrial fibrillation", score=0.3, probability=0.83, likelihood_ratio=45.0),
        Finding(label="pizza", score=-0.1, probability=None, likelihood_ratio=None),
    ]
    told = Classified(
        file="Jane.dcm",
        findings=findings,
        measurements=measured,
        duration_s=10,
        fs=500,
        missing_leads=["I", "V6"],
        warnings=["gains are not to be trusted"],
    )
    notes = ["'no SR' denies sinus rhythm"]
    return ClassifyAnswer(model="tiny", notes=notes, calibrated=True, recordings=[told])


def test_bundle_of_a_preliminary_report() -> None:
    found = bundle(answer())
    report, *observations = [entry["resource"] for entry in found["entry"]]
    assert (found["resourceType"], found["type"]) == ("Bundle", "collection")
    assert (report["resourceType"], report["status"]) == ("DiagnosticReport", "preliminary")
    assert report["conclusion"].splitlines() == [
        "Research use, not a diagnosis.", "'no SR' denies sinus rhythm", "Without I, V6: expect less of the findings.",
        "gains are not to be trusted",
    ]  # fmt: skip
    assert report["issued"]
    assert "effective" not in str(found)  # nobody said when the recording was made
    assert [one["reference"] for one in report["result"]] == [entry["fullUrl"] for entry in found["entry"][1:]]
    assert {one["resourceType"] for one in observations} == {"Observation"}
    assert {one["status"] for one in observations} == {"preliminary"}
    rate, qrs, axis, fibrillation, pizza = observations
    assert rate["code"]["coding"][0] == {"system": "http://loinc.org", "code": "8867-4", "display": "Heart rate"}
    assert rate["valueQuantity"]["value"] == 72.0
    assert (qrs["valueQuantity"]["code"], axis["valueQuantity"]["code"]) == ("ms", "deg")
    assert fibrillation["valueQuantity"]["value"] == 0.83
    assert "valueQuantity" not in pizza
    assert pizza["dataAbsentReason"]
    assert pizza["component"][0]["valueQuantity"]["value"] == -0.1
    assert "Jane" not in str(found)


def test_asked_for_by_query_or_header(client: TestClient, ecg_file: Path) -> None:
    asked: list[dict[str, Any]] = [
        {"params": {"format": "fhir"}},
        {"headers": {"accept": "application/fhir+json"}},
    ]
    for how in asked:
        response = client.post("/v1/classify", files=files(ecg_file), data={"labels": "sinus rhythm"}, **how)
        assert response.headers["content-type"] == "application/fhir+json"
        assert response.json()["resourceType"] == "Bundle"
