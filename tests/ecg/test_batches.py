"""Files of many recordings: each is read by its name, the whole is listed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deri.datasets import open_dataset
from deri.ecg import read_ecg, recordings_in
from deri.errors import ReadError

GIVEN = {"fs": 400, "units": "mV"}


@pytest.fixture
def batch() -> np.ndarray:
    """Five recordings of 12 leads and 1000 samples; the second is filled up with zeros, as CODE-15 does."""
    values = np.random.default_rng(4).normal(0, 0.3, (5, 12, 1000)).astype(np.float32)
    values[1, :, :150] = values[1, :, -250:] = 0
    return values


def expected(batch: np.ndarray, place: int) -> np.ndarray:
    return batch[place, :, 150:-250] if place == 1 else batch[place]


def check(path: Path, batch: np.ndarray, names: list[str]) -> None:
    found = recordings_in(path)
    assert found == [f"{path}::{name}" for name in names]
    for place, name in enumerate(found):
        ecg = read_ecg(name, **GIVEN)
        np.testing.assert_array_equal(ecg.signal, expected(batch, place))
        assert ecg.metadata["source_file"] == name
        assert set(ecg.metadata["warnings"]) == ({"padding_left_out"} if place == 1 else set())
    with pytest.raises(ReadError, match=rf"holds 5 recordings .*{path}::{names[0]}$") as caught:
        read_ecg(path, **GIVEN)
    assert caught.value.reason == "several_recordings"
    for name in ("5", "-1", "x", ""):
        with pytest.raises(
            ReadError, match=rf"^{path}::{name}: .*no recording {name} \(but {names[0]} to {names[-1]}\)"
        ):
            read_ecg(f"{path}::{name}", **GIVEN)


@pytest.mark.parametrize("form", ["n x 12 x samples", "n x samples x 12", "Fortran order", "big-endian"])
def test_npy(batch: np.ndarray, form: str, tmp_path: Path) -> None:
    turned = batch.transpose(0, 2, 1)
    values = {"n x samples x 12": turned, "Fortran order": np.asfortranarray(turned), "big-endian": batch.astype(">f4")}
    np.save(tmp_path / "a.npy", values.get(form, batch))
    check(tmp_path / "a.npy", batch, list("01234"))


@pytest.mark.parametrize("layout", [{}, {"chunks": (2, 300, 12), "compression": "gzip"}, {"chunks": (1, 1000, 1)}])
def test_hdf5_of_code15(batch: np.ndarray, layout: dict[str, object], tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "exams_part0.hdf5"
    with h5py.File(path, "w") as file:
        file.create_dataset("tracings", data=batch.transpose(0, 2, 1), **layout)
        file["exam_id"] = [590673, 11, 12, 13, 3000001]
    check(path, batch, ["590673", "11", "12", "13", "3000001"])
    for ids in ([1, 1, 2, 3, 4], [b"a", b"b", b"c", b"d", b"e"], [1, 2]):
        with h5py.File(path, "a") as file:
            del file["exam_id"]
            file["exam_id"] = ids
        check(path, batch, list("abcde") if len(set(ids)) == 5 else list("01234"))


def test_hdf5_of_matlab_has_its_axes_reversed(batch: np.ndarray, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "a.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["ecg"] = batch.transpose(2, 1, 0)  # n x 12 x samples in MATLAB, samples x 12 x n for others
        file["ecg"].attrs["MATLAB_class"] = np.bytes_("single")
    check(path, batch, list("01234"))


def test_hdf5_of_a_batch_that_was_not_written_to_its_end(batch: np.ndarray, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("tracings", (5, 12, 1000), "f4", chunks=(1, 12, 500))[:3] = batch[:3]
    np.testing.assert_array_equal(read_ecg(f"{tmp_path}/a.h5::2", **GIVEN).signal, batch[2])
    with pytest.raises(ReadError, match="never written") as caught:
        read_ecg(f"{tmp_path}/a.h5::3", **GIVEN)
    assert caught.value.reason == "truncated_signal"


def test_matlab_arrays(batch: np.ndarray, tmp_path: Path) -> None:
    scipy = pytest.importorskip("scipy.io")
    for name, values in (("ecg", batch[0]), ("data", batch[0].T), ("val", batch[:1])):
        scipy.savemat(tmp_path / "a.mat", {name: values, "age": 61})
        np.testing.assert_array_equal(read_ecg(tmp_path / "a.mat", **GIVEN).signal, batch[0])
        with pytest.raises(ReadError) as caught:
            read_ecg(tmp_path / "a.mat")
        assert caught.value.reason == ("missing_header" if name == "val" else "bad_units")
    scipy.savemat(tmp_path / "a.mat", {"ecg": batch})
    np.savez(tmp_path / "a.npz", ecg=batch)
    for path in (tmp_path / "a.mat", tmp_path / "a.npz"):
        with pytest.raises(ReadError, match=r"5 recordings .* save the array as \.npy or HDF5") as caught:
            read_ecg(path, **GIVEN)
        assert caught.value.reason == "several_recordings"
        assert recordings_in(path) == [str(path)]


def test_small_values_of_half_precision_keep_their_digits(tmp_path: Path) -> None:
    values = np.tile(np.float16([1, 3, 7, 11]), (12, 50))
    np.save(tmp_path / "a.npy", values)
    signal = read_ecg(tmp_path / "a.npy", fs=500, units="nV").signal
    np.testing.assert_allclose(signal, values.astype(np.float64) * 1e-6, rtol=1e-6)


def test_a_file_of_one_recording_has_no_names(batch: np.ndarray, tmp_path: Path) -> None:
    for values in (batch[0], batch[:1]):
        np.save(tmp_path / "a.npy", values)
        assert recordings_in(tmp_path / "a.npy") == [str(tmp_path / "a.npy")]
        with pytest.raises(ReadError, match="leave out ::0"):
            read_ecg(f"{tmp_path}/a.npy::0", **GIVEN)
    (tmp_path / "a.csv").write_text("I\n1\n")
    with pytest.raises(ReadError, match="leave out ::0"):
        read_ecg(f"{tmp_path}/a.csv::0", **GIVEN)
    assert recordings_in(tmp_path / "gone.npy") == [str(tmp_path / "gone.npy")]


def test_a_folder_lists_the_recordings_of_its_batches(batch: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    np.save(tmp_path / "deep" / "a.npy", batch)
    np.save(tmp_path / "b.npy", batch[0])
    data = open_dataset("folder", tmp_path)
    assert data.examples["file"].tolist() == ["b.npy", *(f"deep/a.npy::{k}" for k in range(5))]
    assert data.examples["record_id"].tolist() == ["b", *(f"deep/a::{k}" for k in range(5))]
    (tmp_path / "index.csv").write_text("file,labels\ndeep/a.npy::3,AFIB\ndeep/a.npy::0,SR\n")
    data = open_dataset("folder", tmp_path)
    assert data.examples["record_id"].tolist() == ["deep/a::3", "deep/a::0"]
