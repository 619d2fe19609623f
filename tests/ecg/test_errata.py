from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deri.ecg import read_ecg
from deri.errors import ReadError

Write = Callable[..., Path]
MAT = {"suffix": ".mat", "form": "16+24", "prefix": b"\0" * 24}


@pytest.mark.parametrize(
    ("name", "fs", "stated"),
    [("E00018", "500", "4880/mV"), ("S0001", "1000", "2000000/mV"), ("HR00599", "500", "200/mV")],
)
def test_known_false_gains_are_corrected_and_said(
    tmp_path: Path, write_record: Write, digital: np.ndarray, name: str, fs: str, stated: str
) -> None:
    ecg = read_ecg(write_record(tmp_path, name, digital, gain=stated, fs=fs, **MAT))
    assert np.array_equal(ecg.signal, (digital.T / 1000).astype(np.float32))
    assert f"{float(stated[:-3]):g}/mV" in ecg.metadata["warnings"]["gain_corrected"]


def test_the_record_line_of_the_early_generation_carries_mat(
    tmp_path: Path, write_record: Write, digital: np.ndarray
) -> None:
    path = write_record(tmp_path, "E00001", digital, gain="4880/mV", **MAT)
    path.write_text(path.read_text().replace("E00001 12", "E00001.mat 12", 1))
    assert "gain_corrected" in read_ecg(path).metadata["warnings"]


@pytest.mark.parametrize(
    "change",
    [
        {"name": "X00018"},
        {"fs": "250"},
        {"gain": "4881/mV"},
        {"gain": "4880(1)/mV"},
        {"gain": ["4880/mV"] * 11 + ["1000/mV"]},
        {"suffix": ".dat"},
        {"form": "16"},
    ],
)
def test_anything_else_is_read_as_stated(
    tmp_path: Path, write_record: Write, digital: np.ndarray, change: dict
) -> None:
    options = {"gain": "4880/mV", **MAT, **change}
    if options["form"] == "16":
        options["prefix"] = b""
    ecg = read_ecg(write_record(tmp_path, options.pop("name", "E00018"), digital, **options))
    assert "gain_corrected" not in ecg.metadata["warnings"]
    stated = 4881 if change.get("gain") == "4881/mV" else 4880
    baseline = 1 if "(1)" in change.get("gain", "") else 0
    np.testing.assert_allclose(ecg.signal[0], (digital[:, 0] - baseline) / stated, rtol=1e-6)


def test_a_gain_that_leaves_nanovolts_is_never_read(tmp_path: Path, write_record: Write, digital: np.ndarray) -> None:
    path = write_record(tmp_path, "somebody", digital, gain="2000000/mV", **MAT)
    with pytest.raises(ReadError, match=r"2e\+06 units/mV.*gain or unit is wrong") as caught:
        read_ecg(path)
    assert caught.value.reason == "bad_gain"
