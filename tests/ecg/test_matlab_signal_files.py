from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from deri.ecg import read_ecg
from deri.errors import ReadError

Write = Callable[..., Path]


def level4(rows: int, columns: int, name: bytes = b"val\0", kind: int = 30) -> bytes:
    return struct.pack("<5i", kind, rows, columns, 0, len(name)) + name


def reason_of(path: Path) -> str:
    with pytest.raises(ReadError) as caught:
        read_ecg(path)
    assert path.parent.name in str(caught.value)
    return caught.value.reason


def test_level4_is_read_at_the_offset(tmp_path: Path, write_record: Write, digital: np.ndarray) -> None:
    path = write_record(tmp_path, "A1", digital, suffix=".mat", form="16+24", prefix=level4(12, 1500))
    for given in (path, path.with_suffix(".mat"), tmp_path / "A1"):
        ecg = read_ecg(given)
        assert np.array_equal(ecg.signal, (digital.T / 1000).astype(np.float32))
        assert ecg.metadata["warnings"] == {}


def test_level4_by_scipy_and_with_another_variable_name(
    tmp_path: Path, write_record: Write, digital: np.ndarray
) -> None:
    path = write_record(tmp_path, "A1", digital, suffix=".mat", form="16+24", prefix=level4(12, 1500))
    savemat(path.with_suffix(".mat"), {"val": digital.T}, format="4")
    assert np.array_equal(read_ecg(path).signal, (digital.T / 1000).astype(np.float32))
    # A longer name shifts the samples; the offset of the header would read them two bytes early.
    savemat(path.with_suffix(".mat"), {"signal": digital.T}, format="4")
    ecg = read_ecg(path)
    assert np.array_equal(ecg.signal, (digital.T / 1000).astype(np.float32))
    assert ecg.metadata["warnings"] == {}


@pytest.mark.parametrize(("dtype", "form"), [(np.int16, "5"), (np.float64, "5"), (np.float64, "4")])
def test_val_of_other_matlab_files(
    tmp_path: Path, write_record: Write, digital: np.ndarray, dtype: type, form: str
) -> None:
    path = write_record(tmp_path, "A1", digital, suffix=".mat", form="16+24", gain="500(3)/mV")
    savemat(path.with_suffix(".mat"), {"val": digital.T.astype(dtype)}, format=form)
    ecg = read_ecg(path)
    np.testing.assert_allclose(ecg.signal, (digital.T - 3.0) / 500, rtol=1e-6, atol=1e-8)
    assert ecg.metadata["warnings"] == {}
    assert ecg.n_samples == 1500


def test_gaps_in_val(tmp_path: Path, write_record: Write, digital: np.ndarray) -> None:
    path = write_record(tmp_path, "A1", digital, suffix=".mat", form="16+24", checksums=[0] * 12)
    values = digital.T.astype(float)
    values[2, 7] = np.nan
    savemat(path.with_suffix(".mat"), {"val": values})
    assert np.argwhere(np.isnan(read_ecg(path).signal)).tolist() == [[2, 7]]
    whole = digital.T.copy()
    whole[3, 9] = -32768
    savemat(path.with_suffix(".mat"), {"val": whole})
    assert np.argwhere(np.isnan(read_ecg(path).signal)).tolist() == [[3, 9]]


@pytest.mark.parametrize("form", ["4", "5"])
@pytest.mark.parametrize(
    ("shape", "reason"), [((12, 1499), "truncated_signal"), ((12, 1501), "bad_header"), ((11, 1500), "bad_header")]
)
def test_matrix_that_is_not_what_the_header_says(
    tmp_path: Path, write_record: Write, digital: np.ndarray, form: str, shape: tuple[int, int], reason: str
) -> None:
    path = write_record(tmp_path, "A1", digital, suffix=".mat", form="16+24")
    savemat(path.with_suffix(".mat"), {"val": np.ones(shape, dtype=np.int16)}, format=form)
    with pytest.raises(ReadError, match=f"holds {shape[0]} of {shape[1]}") as caught:
        read_ecg(path)
    assert caught.value.reason == reason


def test_files_without_a_usable_val(tmp_path: Path, write_record: Write, digital: np.ndarray) -> None:
    path = write_record(tmp_path, "A1", digital, suffix=".mat", form="16+24")
    mat = path.with_suffix(".mat")
    savemat(mat, {"ECG": {"sex": "Male", "age": 40.0, "data": digital.T}})
    assert reason_of(path) == "unsupported_format"
    savemat(mat, {"val": "text"})
    assert reason_of(path) == "unsupported_format"
    whole = mat.read_bytes()
    mat.write_bytes(whole[:130] + b"\xff" * 40)
    assert reason_of(path) == "unsupported_format"
    mat.write_bytes(level4(12, 1500) + b"\0" * 100)
    assert reason_of(path) == "truncated_signal"


def test_matlab_file_without_header(tmp_path: Path) -> None:
    savemat(tmp_path / "A1980.mat", {"val": np.zeros((12, 100), dtype=np.int16)})
    assert reason_of(tmp_path / "A1980.mat") == "missing_header"
    assert reason_of(tmp_path / "A1980") == "missing_header"
