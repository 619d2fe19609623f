"""Token, host, rate, size and time of a request, and what is logged of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from deri.serving.gate import Access
from serving.conftest import Made
from serving.test_app import files, ok

TOKEN = "secret-of-this-test"


def test_token_guards_interface_and_metrics_not_the_page(made: Made, ecg_file: Path) -> None:
    client = made(Access(TOKEN))
    for wrong in ({}, {"authorization": "Bearer wrong"}, {"authorization": TOKEN}, {"authorization": "Bearer é"}):
        sent = {name: value.encode("latin-1") for name, value in wrong.items()}
        response = client.post("/v1/measure", files=files(ecg_file), headers=sent)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert client.get("/metrics", headers=sent).status_code == 401
    ok(client.post("/v1/measure", files=files(ecg_file), headers={"authorization": f"Bearer {TOKEN}"}))
    assert client.get("/").status_code == client.get("/healthz").status_code == client.get("/docs").status_code == 200


def test_hosts_keep_other_names_out(made: Made) -> None:
    client = made(Access(hosts=frozenset({"127.0.0.1", "localhost"})))
    for host in ("127.0.0.1", "127.0.0.1:8000", "localhost:1"):
        assert client.get("/healthz", headers={"host": host}).status_code == 200
    for host in ("evil.example", "127.0.0.1.evil.example:8000", ""):
        assert client.get("/healthz", headers={"host": host}).status_code == 421


def test_rate_holds_per_client(made: Made) -> None:
    client = made(rate=3)
    status = [client.get("/v1/cases/0").status_code for _ in range(5)]
    assert status == [200, 200, 200, 429, 429]
    response = client.get("/v1/cases/0")
    assert 1 <= int(response.headers["retry-after"]) <= 21
    assert client.get("/healthz").status_code == 200


def test_size_is_refused_before_and_while_it_comes(made: Made, ecg_file: Path) -> None:
    client = made(body_bytes=10_000)
    response = client.post("/v1/measure", files=files(ecg_file))
    assert response.status_code == 413
    assert response.headers["connection"] == "close"

    def endless() -> Any:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        for _ in range(100):
            yield bytes(1000)

    chunked = client.post("/v1/measure", content=endless(), headers={"content-type": "multipart/form-data; boundary=b"})
    assert chunked.status_code == 413
    assert chunked.json()["reason"] == "too_large"


def asked(app: FastAPI, messages: list[dict[str, Any]], **scope: Any) -> tuple[int, dict[str, Any]]:
    """What an application answers to a request whose body never ends after ``messages``."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        await asyncio.sleep(3600)
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    form = (b"content-type", b"multipart/form-data; boundary=b")
    whole = {
        "type": "http", "method": "POST", "path": "/v1/measure", "raw_path": b"/v1/measure", "query_string": b"",
        "headers": [(b"host", b"127.0.0.1"), form], "client": ("1.2.3.4", 5), "server": ("127.0.0.1", 80),
        "scheme": "http", "root_path": "", "http_version": "1.1", "app": app, **scope,
    }  # fmt: skip
    asyncio.run(asyncio.wait_for(app(whole, receive, send), 60))
    return sent[0]["status"], json.loads(sent[1]["body"])


def test_a_slow_body_ends(made: Made) -> None:
    client = made(body_s=0.2)
    status, problem = asked(client.app, [{"type": "http.request", "body": b"--b\r\n", "more_body": True}])
    assert (status, problem["reason"]) == (408, "slow_body")


def test_work_that_takes_too_long_ends(made: Made, ecg_file: Path) -> None:
    response = made(work_s=1e-6).post("/v1/measure", files=files(ecg_file))
    assert (response.status_code, response.json()["reason"]) == (504, "too_slow")


def test_a_full_queue_sends_away(made: Made, ecg_file: Path) -> None:
    response = made(waiting=0).post("/v1/measure", files=files(ecg_file))
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")


def test_log_lines_say_nothing_of_a_recording(client: TestClient, logged: list[dict[str, Any]], ecg_file: Path) -> None:
    logged.clear()
    upload = [("file", ("Jane Doe 1950.csv", ecg_file.read_bytes()))]
    client.post("/v1/classify?format=fhir", files=upload, data={"labels": "private words"})
    client.get("/v1/private/Jane")
    broken = [("file", ("Jane.dcm", b"private"))]
    client.post("/v1/classify", files=broken)
    text = json.dumps(logged)
    assert [line["status"] for line in logged] == [200, 404, 415]
    assert [line["route"] for line in logged] == ["/v1/classify", "none", "/v1/classify"]
    assert {"id", "method", "route", "status", "ms", "bytes_in", "bytes_out"} == set(logged[0])
    assert not any(word in text for word in ("Jane", "private", "1950", "127.0.0.1", "testclient"))


def test_a_defect_is_told_by_place_alone(
    made: Made, logged: list[dict[str, Any]], ecg_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise KeyError("Jane Doe")

    client = made()
    monkeypatch.setattr("deri.serving.service.read_uploads", broken)
    logged.clear()
    response = client.post("/v1/measure", files=files(ecg_file))
    assert response.status_code == 500
    assert response.json()["detail"].endswith(response.headers["x-request-id"])
    assert logged[0]["error"].startswith("KeyError at ")
    assert "Jane" not in response.text + json.dumps(logged)
