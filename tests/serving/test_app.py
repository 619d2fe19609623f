"""Endpoints: what they answer for files of several formats, against the library called directly."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from deri.ecg import LEADS, read_ecg
from deri.ecg.intervals import intervals
from deri.errors import ReadError
from deri.evaluation.search import Index
from deri.generation.review import CheckedFinding, ReviewedReport
from deri.models import EcgTextModel
from serving.conftest import Made


def files(*paths: Path) -> list[tuple[str, Any]]:
    return [("file", (path.name, path.read_bytes())) for path in paths]


def ok(response: Any) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    return response.json()


def test_classify_gives_what_the_library_gives(client: TestClient, model: EcgTextModel, ecg_file: Path) -> None:
    answer = ok(
        client.post("/v1/classify", files=files(ecg_file), data={"labels": ["sinus rhythm", "atrial fibrillation"]})
    )
    expected = model.classify([read_ecg(ecg_file)], ["sinus rhythm", "atrial fibrillation"]).iloc[0]
    [recording] = answer["recordings"]
    assert recording["file"] == "simulated.csv"
    assert [one["label"] for one in recording["findings"]] == ["sinus rhythm", "atrial fibrillation"]
    assert [one["score"] for one in recording["findings"]] == pytest.approx(expected.tolist(), abs=1e-6)
    assert [one["probability"] for one in recording["findings"]] == [None, None]
    assert not answer["calibrated"]
    assert recording["measurements"] == intervals(read_ecg(ecg_file))
    assert (recording["duration_s"], recording["fs"], recording["missing_leads"]) == (10.0, 250.0, [])
    assert "not a diagnosis" in answer["notice"]


def test_classify_without_labels_gives_all_findings_ordered(client: TestClient, ecg_file: Path) -> None:
    findings = ok(client.post("/v1/classify", files=files(ecg_file)))["recordings"][0]["findings"]
    scores = [one["score"] for one in findings]
    assert len(findings) > 40
    assert scores == sorted(scores, reverse=True)


def test_prevalence_needs_a_calibrated_label(client: TestClient, ecg_file: Path) -> None:
    data = {"labels": "atrial fibrillation", "prevalence": "atrial fibrillation=0.02"}
    response = client.post("/v1/classify", files=files(ecg_file), data=data)
    assert response.status_code == 422
    assert "prevalence" in response.json()["detail"]
    response = client.post("/v1/classify", files=files(ecg_file), data={"prevalence": "few"})
    assert "NAME=0.05" in response.json()["detail"]


def test_several_recordings_in_one_request(client: TestClient, model: EcgTextModel, ecg_file: Path) -> None:
    second = ("file", ("other.csv", ecg_file.read_bytes().replace(b",0.1", b",0.2")))
    answer = ok(client.post("/v1/embed", files=[*files(ecg_file), second]))
    assert [one["file"] for one in answer["recordings"]] == ["simulated.csv", "other.csv"]
    first = model.encode_ecg(read_ecg(ecg_file))[0]
    assert answer["recordings"][0]["embedding"] == pytest.approx(first.tolist(), abs=1e-6)
    assert np.linalg.norm(answer["recordings"][1]["embedding"]) == pytest.approx(1, abs=1e-5)


def test_a_wfdb_pair_is_one_recording(client: TestClient, ecg_real: Path) -> None:
    header = ecg_real / "ptbxl" / "04482_hr.hea"
    pair = files(header, header.with_suffix(".dat"))
    for order in (pair, pair[::-1]):
        [recording] = ok(client.post("/v1/measure", files=order))["recordings"]
        assert recording["file"] == header.name
        assert recording["measurements"] == intervals(read_ecg(header))


@pytest.mark.parametrize("name", ["dicom/anonymous_ecg.dcm", "sierra-xml/129DYPRG.XML"])
def test_clinical_formats(client: TestClient, ecg_real: Path, name: str) -> None:
    path = ecg_real / "formats" / name
    [recording] = ok(client.post("/v1/classify", files=files(path)))["recordings"]
    assert recording["duration_s"] == pytest.approx(read_ecg(path).duration)
    assert recording["measurements"]["rate_bpm"] is not None


def test_reading_options(client: TestClient) -> None:
    signal = np.random.default_rng(0).normal(0, 0.1, (12, 5000)).astype(np.float32)
    buffer = io.BytesIO()
    np.save(buffer, signal)
    upload = [("file", ("ecg.npy", buffer.getvalue()))]
    refused = client.post("/v1/signal", files=upload)
    assert refused.status_code == 422
    assert "ecg.npy: " in refused.json()["detail"]
    [found] = ok(client.post("/v1/signal", files=upload, data={"fs": "500", "units": "mV"}))["recordings"]
    assert found["fs"] == 500
    assert found["leads"]["V1"] == np.round(1000 * signal[6].astype(float)).astype(int).tolist()


def test_names_of_leads(client: TestClient) -> None:
    table = "time_s,MLII\n" + "\n".join(f"{i / 200:.3f},{np.sin(i / 20):.3f}" for i in range(2000))
    data = {"units": "mV", "leads": "MLII=II"}
    [found] = ok(client.post("/v1/signal", files=[("file", ("watch.csv", table))], data=data))["recordings"]
    assert list(found["leads"]) == ["II"]
    assert len(found["missing_leads"]) == 11


def test_plot(client: TestClient, ecg_file: Path) -> None:
    response = client.post("/v1/plot", files=files(ecg_file), data={"title": "case $1", "annotations": ["one", "two"]})
    assert response.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(response.content)).width > 2000
    for suffix, kind, head in (("svg", "image/svg+xml", b"<?xml"), ("pdf", "application/pdf", b"%PDF")):
        response = client.post(f"/v1/plot?format={suffix}", files=files(ecg_file))
        assert response.headers["content-type"] == kind
        assert response.content.startswith(head)
    assert client.post("/v1/plot?format=gif", files=files(ecg_file)).status_code == 422


def test_saliency_has_a_value_per_part(client: TestClient, ecg_file: Path) -> None:
    found = ok(client.post("/v1/saliency", files=files(ecg_file), data={"label": "sinus rhythm"}))
    scored = ok(client.post("/v1/classify", files=files(ecg_file), data={"labels": "sinus rhythm"}))
    assert found["score"] == pytest.approx(scored["recordings"][0]["findings"][0]["score"], abs=1e-5)
    assert len(found["time"]) == round(10 / found["step_s"])
    assert list(found["lead"]) == list(found["lead_time"]) == list(LEADS)
    assert {len(parts) for parts in found["lead_time"].values()} == {len(found["time"])}
    assert np.abs(found["time"]).max() > 0


def test_search_by_recording_text_and_filter(client: TestClient, ecg_file: Path) -> None:
    cases = ok(client.post("/v1/search", files=files(ecg_file), data={"top": "2"}))["cases"]
    assert [len(cases), cases[0]["case"], cases[0]["about"]["record_id"]] == [2, 0, "normal"]
    assert cases[0]["score"] == pytest.approx(1, abs=1e-4)
    assert "file" not in cases[0]["about"]
    by_text = ok(client.post("/v1/search", data={"text": "atrial fibrillation", "where": "age > 60"}))["cases"]
    assert [one["about"]["record_id"] for one in by_text] == ["afib"]
    for data in ({}, {"text": "a", "where": "__import__('os')"}, {"text": "a", "top": "0"}):
        assert client.post("/v1/search", data=data or {"top": "3"}).status_code == 422


def test_a_case_is_read_from_where_it_was_indexed(client: TestClient, index: Index) -> None:
    [found] = ok(client.get("/v1/cases/1"))["recordings"]
    expected = read_ecg(index.table["file"][1].as_py())
    assert found["leads"]["II"] == np.round(1000 * expected.signal[1].astype(float)).astype(int).tolist()
    for number in ("3", "-1", "x", "99999999999999999999"):
        assert 400 <= client.get(f"/v1/cases/{number}").status_code < 500


def test_a_case_that_is_gone_is_told_without_its_place(
    made: Made, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = index.table["file"][1].as_py()

    def gone(path: str) -> None:
        raise ReadError(f"{path}: cannot be opened (No such file)", "missing_file")

    monkeypatch.setattr("deri.evaluation.search.read_ecg", gone)
    response = made().get("/v1/cases/1")
    assert response.json()["detail"] == "case 1: cannot be opened (No such file)"
    assert str(Path(file).parent) not in response.text


def test_what_is_not_there_says_how_to_get_it(made: Made, ecg_file: Path) -> None:
    bare = made(with_index=False)
    for path, option in (("/v1/report", "--writer"), ("/v1/search", "--index")):
        response = bare.post(path, files=files(ecg_file))
        assert response.status_code == 404
        assert option in response.json()["detail"]
    assert ok(bare.get("/healthz"))["index"] is None


class Writer:
    """Stands for a calibrated report writer."""

    calibrated = True

    def review(self, ecgs: list[Any]) -> list[ReviewedReport]:
        doubt = CheckedFinding("AFIB", "atrial fibrillation", 0.1, 0.2, 0.03, 0.4, True)
        gap = CheckedFinding("LVH", "left ventricular hypertrophy", 0.3, 0.9, 0.4, 0.2, False)
        return [ReviewedReport(f"text of {ecg.n_samples}", -1.0, True, [doubt], [gap]) for ecg in ecgs]


def test_report_flags_doubts(made: Made, ecg_file: Path) -> None:
    client = made(writer=Writer())
    [found] = ok(client.post("/v1/report", files=files(ecg_file)))["recordings"]
    assert found["text"] == "text of 2500"
    assert [(one["finding"], one["flag"]) for one in found["findings"]] == [("AFIB", True)]
    assert [(one["finding"], one["threshold"]) for one in found["left_out"]] == [("LVH", 0.2)]
    assert ok(client.get("/healthz"))["writer"]


def test_metrics_count_requests_by_route(client: TestClient, ecg_file: Path) -> None:
    client.post("/v1/measure", files=files(ecg_file))
    client.get("/v1/no-such-thing")
    text = client.get("/metrics").text
    assert 'deri_requests_total{method="POST",route="/v1/measure",status="200"}' in text
    assert 'route="none",status="404"' in text
    assert "deri_batch_size_count" in text
    assert "process_resident_memory_bytes" in text


def test_pages_need_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/")
    assert "Research use, not a diagnosis" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for path in ("/", "/docs", "/page/page.js", "/page/paper.js", "/page/page.css", "/example/afib"):
        response = client.get(path)
        assert response.status_code == 200, path
        assert "http://" not in response.text.replace("http://127.0.0.1:8000", ""), path
        assert "https://" not in response.text, path
    docs = client.get("/docs").text
    for path in client.get("/openapi.json").json()["paths"]:
        assert path in docs
