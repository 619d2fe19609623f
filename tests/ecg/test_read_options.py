"""What a file does not say, said by the caller: obeyed, or refused with the option's name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deri.ecg import read_ecg
from deri.errors import DeriError, ReadError
from ecg.writers import LEADS, aecg, aecg_set, digital_ecg, edf, ishne, muse, scp, sierra

LIMITS = (-3276.8, 3276.7, -32768, 32767)
OTHER = ["MLII", "I", "III", "aVR", "aVL", "aVF", "CHEST 1", *LEADS[7:]]
NAMES = {"MLII": "II", "CHEST 1": "V1"}


def test_an_array_takes_a_rate_and_a_unit_or_a_gain(tmp_path: Path) -> None:
    digital = digital_ecg(200)
    np.save(tmp_path / "a.npy", digital)
    expected = digital / 200.0
    for options in ({"gain": 200}, {"gain": 200.0}):
        ecg = read_ecg(tmp_path / "a.npy", fs=360, **options)
        assert ecg.fs == 360
        np.testing.assert_allclose(ecg.signal, expected, rtol=1e-6)
    with pytest.raises(DeriError, match="one of them"):
        read_ecg(tmp_path / "a.npy", fs=360, gain=200, units="mV")
    for options, words in (
        ({"fs": 360}, ["--units mV", "units='mV'", "--gain"]),
        ({"gain": 1}, ["--fs 500", "fs=500"]),
    ):
        with pytest.raises(ReadError) as caught:
            read_ecg(tmp_path / "a.npy", **options)
        assert all(word in str(caught.value) for word in words)
    with pytest.raises(ReadError, match="no names of leads"):
        read_ecg(tmp_path / "a.npy", fs=360, gain=200, leads={"1": "I"})


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"fs": 0}, "--fs"),
        ({"fs": float("nan")}, "--fs"),
        ({"gain": -1}, "--gain"),
        ({"units": "mm"}, "--units"),
        ({"leads": {"a": "MLII"}}, "--leads"),
    ],
)
def test_options_that_no_file_could_need(tmp_path: Path, options: dict[str, object], match: str) -> None:
    with pytest.raises(DeriError, match=match):
        read_ecg(tmp_path / "a.npy", **options)


def test_an_array_of_one_recording_in_a_batch(tmp_path: Path) -> None:
    digital = digital_ecg(200)
    for values in (digital[None], digital.T[None]):
        np.save(tmp_path / "a.npy", values)
        np.testing.assert_allclose(read_ecg(tmp_path / "a.npy", fs=500, gain=1).signal, digital, rtol=1e-6)
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["tracings"] = digital.T[None]
    np.testing.assert_allclose(read_ecg(tmp_path / "a.h5", fs=400, gain=1).signal, digital, rtol=1e-6)


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_no_data_set_is_guessed_from_the_name_of_an_array(tmp_path: Path, compression: str | None) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("ecg", data=digital_ecg(4000).astype(np.float16), compression=compression)
    with pytest.raises(ReadError) as caught:
        read_ecg(tmp_path / "a.h5")
    assert caught.value.reason == "bad_units"
    ecg = read_ecg(tmp_path / "a.h5", fs=400, units="V")
    assert (ecg.fs, ecg.signal[0, 1]) == (400, 1000 * np.float16(digital_ecg(4000)[0, 1]))


def test_what_a_npz_states_is_not_overruled(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", ecg=digital_ecg(100), fs=250.0, units="uV")
    assert read_ecg(tmp_path / "a.npz", fs=250, units="uV").fs == 250
    for options in ({"fs": 500}, {"units": "mV"}, {"gain": 200}):
        with pytest.raises(ReadError, match="--") as caught:
            read_ecg(tmp_path / "a.npz", **options)
        assert caught.value.reason == "stated_by_file"


def test_an_edf_without_a_unit_takes_one(tmp_path: Path) -> None:
    digital = digital_ecg(200)
    path = tmp_path / "a.edf"
    for units in (["uV"] * 12, [""] * 12):
        path.write_bytes(edf([row.reshape(1, -1) for row in digital], LEADS, units=units, limits=[LIMITS] * 12))
        if units[0]:
            with pytest.raises(ReadError, match="--units") as caught:
                read_ecg(path, units="mV")
            assert caught.value.reason == "stated_by_file"
    with pytest.raises(ReadError):
        read_ecg(path)
    np.testing.assert_allclose(read_ecg(path, units="uV").signal, digital * 1e-4, atol=1e-6)


def _npz(folder: Path) -> Path:
    np.savez(folder / "a.npz", signal=digital_ecg(200), fs=500.0, units="mV", leads=OTHER)
    return folder / "a.npz"


def _edf(folder: Path) -> Path:
    rows = [row.reshape(1, -1) for row in digital_ecg(200)]
    (folder / "a.edf").write_bytes(edf(rows, OTHER, units=["uV"] * 12, limits=[LIMITS] * 12))
    return folder / "a.edf"


def _written(make: Callable[[], str | bytes]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        content = make()
        (folder / "a.bin").write_bytes(content.encode() if isinstance(content, str) else content)
        return folder / "a.bin"

    return write


def _csv(folder: Path) -> Path:
    rows = "\n".join(",".join(map(str, row)) for row in digital_ecg(200).T)
    (folder / "a.csv").write_text(",".join(OTHER) + "\n" + rows)
    return folder / "a.csv"


@pytest.mark.parametrize(
    ("write", "options"),
    [
        (_npz, {}),
        (_edf, {}),
        (_csv, {"fs": 500, "units": "mV"}),
        (_written(lambda: muse(digital_ecg(200), OTHER)), {}),
        (_written(lambda: aecg(aecg_set(digital_ecg(200), OTHER))), {}),
    ],
    ids=["npz", "edf", "csv", "muse", "aecg"],
)
def test_names_of_leads_are_mapped(tmp_path: Path, write: Callable[[Path], Path], options: dict[str, object]) -> None:
    path = write(tmp_path)
    plain, mapped = read_ecg(path, **options), read_ecg(path, leads=NAMES, **options)
    assert [name.removeprefix("MDC_ECG_LEAD_") for name in plain.metadata["dropped_leads"]] == list(NAMES)
    assert mapped.missing_leads == ()
    assert mapped.metadata["dropped_leads"] == []
    assert mapped.metadata["derived_leads"] == {}
    np.testing.assert_array_equal(mapped.signal[0], plain.signal[0])
    first = digital_ecg(200)[0]  # the channel MLII
    scale = np.abs(mapped.signal[1]).max() / np.abs(first).max()
    np.testing.assert_allclose(mapped.signal[1], first * scale, rtol=1e-5)


@pytest.mark.parametrize(
    "write",
    [
        _written(lambda: sierra(digital_ecg(500))),
        _written(lambda: ishne(digital_ecg(500), LEADS)),
        _written(lambda: aecg(aecg_set(digital_ecg(500), LEADS))),
        _written(lambda: scp(digital_ecg(500), LEADS)),
    ],
    ids=["sierra", "ishne", "aecg", "scp"],
)
@pytest.mark.parametrize("options", [{"fs": 500}, {"units": "mV"}, {"gain": 200}])
def test_formats_that_state_everything_refuse(
    tmp_path: Path, write: Callable[[Path], Path], options: dict[str, object]
) -> None:
    path = write(tmp_path)
    with pytest.raises(ReadError, match=f"--{next(iter(options))}") as caught:
        read_ecg(path, **options)
    assert caught.value.reason == "stated_by_file"
    assert str(path) in str(caught.value)


def test_wfdb_takes_names_and_a_gain_where_the_header_states_none(
    tmp_path: Path, write_record: Callable[..., Path], digital: np.ndarray
) -> None:
    path = write_record(tmp_path, "r", digital, names=OTHER, gain="0")
    for given in (path, tmp_path / "r.dat", tmp_path / "r"):
        ecg = read_ecg(given, gain=500, leads=NAMES)
        assert (ecg.metadata["dropped_leads"], ecg.metadata["warnings"]) == ([], {})
        order = [[NAMES.get(name, name) for name in OTHER].index(lead) for lead in LEADS]
        np.testing.assert_allclose(ecg.signal, digital.T[order] / 500, rtol=1e-6)
    assert set(read_ecg(path, leads=NAMES).metadata["warnings"]) == {"uncalibrated"}
    path = write_record(tmp_path, "s", digital)
    with pytest.raises(ReadError, match="--gain") as caught:
        read_ecg(path, gain=500)
    assert caught.value.reason == "stated_by_file"
    with pytest.raises(ReadError, match="--fs"):
        read_ecg(path, fs=500)
