"""Requests at the same time: the same answers as one after the other, in batches, and a slow one holds up nobody."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from deri.serving.pages import example_csv


def test_concurrent_answers_are_those_of_one_after_the_other(address: str) -> None:
    contents = [example_csv(name) for name in ("normal", "afib", "lbbb")] * 6

    def ask(content: str) -> list[float]:
        sent = {"labels": ["sinus rhythm", "atrial fibrillation"]}
        upload = [("file", ("x.csv", content))]
        response = httpx.post(f"{address}/v1/classify", files=upload, data=sent, timeout=120)
        return [one["score"] for one in response.json()["recordings"][0]["findings"]]

    before = encoded(address)
    one_by_one = [ask(content) for content in contents[:3]]
    with ThreadPoolExecutor(len(contents)) as pool:
        together = list(pool.map(ask, contents))
    for found, expected in zip(together, one_by_one * 6, strict=True):
        assert found == pytest.approx(expected, abs=1e-5)
    assert encoded(address) - before == len(one_by_one) + len(together)


def encoded(address: str) -> float:
    """Windows that went through batches."""
    lines = httpx.get(f"{address}/metrics", timeout=120).text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("deri_batch_size_sum"))


def test_a_slow_client_holds_up_nobody(address: str, ecg_file: Path) -> None:
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as slow:
        slow.sendall(
            b"POST /v1/measure HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            b"Content-Length: 1000\r\n\r\n--b"
        )
        upload = [("file", ("x.csv", ecg_file.read_bytes()))]
        assert httpx.post(f"{address}/v1/measure", files=upload, timeout=120).status_code == 200


def test_two_gigabytes_are_refused_by_what_they_announce(address: str) -> None:
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(
            b"POST /v1/measure HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            b"Content-Length: 2147483648\r\n\r\n--b"
        )
        answer = b""
        while part := client.recv(65536):  # it ends: the connection is closed
            answer += part
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"too_large" in answer
