from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from deri.ecg import ECG, read_ecg
from deri.ecg.formats import FORMATS, Format, Options, find_format
from deri.ecg.read import claims_ecg
from deri.errors import DeriError


def read_json(path: str, options: Options) -> ECG:
    content = json.loads(Path(path).read_text())
    return ECG.from_leads(
        np.array(list(content["leads"].values())), list(content["leads"]), options.fs or 250, {"source_file": path}
    )


@pytest.fixture
def registered() -> Iterator[Format]:
    """A format of another package."""
    row = Format("JSON of leads", lambda path, head: head.startswith(b'{"leads"'), read_json, takes=("fs",))
    FORMATS.register("json-leads")(row)
    yield row
    del FORMATS._rows["json-leads"]


def test_a_format_of_another_package_is_read(tmp_path: Path, registered: Format) -> None:
    path = tmp_path / "a.bin"
    path.write_text(json.dumps({"leads": {"II": [1.0, 2.0, 3.0], "I": [0.5, 0.25, 0.0]}}))
    assert find_format(str(path), path.read_bytes()) is registered
    assert claims_ecg(str(path), path.read_bytes())
    ecg = read_ecg(path)
    assert ecg.signal[:3].tolist() == [[0.5, 0.25, 0.0], [1.0, 2.0, 3.0], [0.5, 1.75, 3.0]]
    assert ecg.fs == 250
    assert read_ecg(path, fs=500).fs == 500
    with pytest.raises(DeriError, match="JSON of leads"):
        read_ecg(path, units="mV")


def test_an_unknown_file_lists_every_format(tmp_path: Path, registered: Format) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"nothing")
    with pytest.raises(DeriError) as caught:
        read_ecg(path)
    assert all(FORMATS[name].description in str(caught.value) for name in FORMATS)


def test_a_name_is_given_once(registered: Format) -> None:
    with pytest.raises(DeriError, match="registered already"):
        FORMATS.register("dicom")(registered)
