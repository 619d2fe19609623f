"""Input that means harm, or nothing: 4xx with a reason, and nothing left behind."""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from deri.serving.limits import Limits
from deri.serving.problem import Problem
from deri.serving.uploads import Upload, private_folder, read_uploads, safe_name
from serving.conftest import Made
from serving.test_app import files

BOMB = (
    '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY b{i} "{"&a;" * 10}">' for i in range(9))
    + "]><restingecgdata>&b8;</restingecgdata>"
).encode()
EXTERNAL = (
    b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><AnnotatedECG>&a;</AnnotatedECG>'
)


def zipped(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def hdf5_elsewhere(folder: Path) -> bytes:
    """A file whose dataset is another file of this machine."""
    import h5py

    secret = folder / "secret.bin"
    secret.write_bytes(bytes(12 * 5000 * 4))
    with h5py.File(folder / "link.h5", "w") as file:
        file.create_dataset("tracings", (5000, 12), "f4", external=[(str(secret), 0, 12 * 5000 * 4)])
    return (folder / "link.h5").read_bytes()


def hostile(tmp_path: Path) -> dict[str, bytes]:
    return {
        "empty.dcm": b"",
        "letter.pdf": b"%PDF-1.7",
        "noise.scp": np.random.default_rng(0).bytes(5000),
        "bomb.xml": BOMB,
        "external.xml": EXTERNAL,
        "bomb.zip": zipped("x.edf", b"0" + bytes(60 * 2**20)),
        "climb.zip": zipped("../../../tmp/climbed.hea", b"climbed 1 500 5000\n/etc/passwd 16 200 16 0 0 0 0 I\n"),
        "climb.hea": b"climb 1 500 100\n../../../../etc/passwd 16 200 16 0 0 0 0 I\n",
        "itself.hea": b"itself/1 1 500 100\nitself 100\n",
        "array.npy": b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
        + b" " * 55
        + b"\n",
        "huge.npy": b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (12, 10000000000), }"
        + b" " * 46
        + b"\n",
        "deep.json": b'{"resourceType":"Observation","component":' + b"[" * 100_000,
        "link.h5": hdf5_elsewhere(tmp_path),
    }


def test_hostile_files_are_refused(client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    for name, content in hostile(tmp_path).items():
        for path in ("/v1/classify", "/v1/signal"):
            response = client.post(path, files=[("file", (name, content))])
            assert 400 <= response.status_code < 500, (name, response.text)
            problem = response.json()
            assert problem["detail"], name
            assert problem["reason"], name
            assert str(tmp_path) not in response.text, name
    assert os.listdir(tmp_path / "temporary") == []
    assert not Path("/tmp/climbed.hea").exists()


def test_malformed_requests_are_refused(client: TestClient, ecg_file: Path) -> None:
    form = "multipart/form-data; boundary=b"
    bodies: list[tuple[str, bytes]] = [
        ("application/json", b'{"file": ['),
        ("application/json", b"{}"),
        (form, b""),
        (form, b"--b\r\nnonsense"),
        (form, b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\ntext\r\n--b--\r\n'),
        (form, b'--b\r\nContent-Disposition: form-data; name="labels"\r\n\r\n' + b"x" * 2_000_000 + b"\r\n--b--\r\n"),
        ("multipart/form-data", b"--b--"),
        ("text/plain", b"\xff\xfe"),
    ]
    for kind, body in bodies:
        response = client.post("/v1/classify", content=body, headers={"content-type": kind})
        assert 400 <= response.status_code < 500, (kind, body[:40], response.text)
        assert response.headers["content-type"] == "application/problem+json"
    fields: list[dict[str, Any]] = [
        {"unknown": "1"}, {"fs": "-1"}, {"fs": "nan"}, {"fs": "inf"}, {"units": "apples"}, {"leads": "="},
        {"leads": "a=Q"}, {"labels": " "}, {"labels": "x" * 501}, {"labels": ["x"] * 201}, {"prevalence": "a=b"},
        {"prevalence": "0.1"}, {"prevalence": "SR=7"}, {"units": "mV", "gain": "3"}, {"file": "text"},
    ]  # fmt: skip
    for data in fields:
        response = client.post("/v1/classify", files=files(ecg_file), data=data)
        assert response.status_code == 422, (data, response.text)
    assert client.post("/v1/classify?x=1", files=files(ecg_file)).status_code == 422
    assert client.get("/v1/classify").status_code == 405
    assert client.post("/v1/measure?format=fhir", files=files(ecg_file)).status_code == 422
    assert client.get("/page/..%2f..%2fapp.py").status_code in (404, 422)
    assert client.get("/example/%2e%2e").status_code in (404, 422)


def test_too_much_is_refused(made: Made, ecg_file: Path) -> None:
    small = made(files=1, recordings=1, duration_s=5)
    two = [*files(ecg_file), ("file", ("b.csv", ecg_file.read_bytes()))]
    assert small.post("/v1/measure", files=two).json()["reason"] == "too_many"
    response = small.post("/v1/measure", files=files(ecg_file))
    assert (response.status_code, response.json()["reason"]) == (413, "too_long")
    batch = io.BytesIO()
    np.save(batch, np.zeros((3, 12, 5000), np.float32))
    upload = [("file", ("batch.npy", batch.getvalue()))]
    assert small.post("/v1/measure", files=upload, data={"fs": "500", "units": "mV"}).json()["reason"] == "too_many"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("ecg.dcm", "ecg.dcm"),
        ("../../etc/passwd", "passwd"),
        ("C:\\patients\\a b.xml", "a b.xml"),
        ("/", "upload"),
        ("..", "upload"),
        (None, "upload"),
        (".hidden", "hidden"),
        ("a\0b\n.edf", "a_b_.edf"),
        ("s3:__x::y.hea", "s3___x__y.hea"),
        ("x" * 300 + ".edf", "x" * 116 + ".edf"),
        ("心" * 300 + ".edf", "心" * 38 + ".edf"),  # the name of a file has at most 255 bytes
    ],
)
def test_names_are_made_harmless(given: str | None, kept: str) -> None:
    assert safe_name(given) == kept


def test_a_folder_is_private_and_goes(tmp_path: Path) -> None:
    with private_folder([Upload("a/x.dat", io.BytesIO(b"1"))]) as (folder, names):
        assert names == ["x.dat"]
        assert (folder / "x.dat").read_bytes() == b"1"
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()
    with pytest.raises(Problem, match="two files are called x"):
        read_uploads([Upload("a/x", io.BytesIO()), Upload("b/x", io.BytesIO())], {}, Limits())
