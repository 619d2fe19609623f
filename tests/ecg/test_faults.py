"""Inputs that users of such tools reported (shared/faults): right, or refused with the reason."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import numpy as np
import pytest

from deri.ecg import ECG, LEADS, canonical_lead, read_ecg, standardise
from deri.errors import ReadError

LIMB = ("III", "aVR", "aVL", "aVF")


def begins(ecg: ECG) -> list[float]:
    """Second at which each lead begins."""
    return [float(np.flatnonzero(np.isfinite(row))[0]) / ecg.fs for row in ecg.signal]


def test_consecutive_sets(faults: Path) -> None:
    ecg = read_ecg(faults / "A02" / "a.xml")
    digits = re.findall(r"<digits>([^<]*)<", (faults / "A02" / "a.xml").read_text())
    first = np.concatenate([np.array(digits[k].split(), float) for k in (0, 12)])
    assert ecg.duration == 4
    np.testing.assert_allclose(ecg.signal[0], first * 5e-3, rtol=1e-6)
    assert np.isfinite(ecg.signal).all()


@pytest.mark.parametrize("name", ["with_unit.xml", "without_unit.xml"])
def test_stamps_with_a_unit(faults: Path, name: str) -> None:
    ecg = read_ecg(faults / "A09" / name)
    assert (ecg.duration, begins(ecg)) == (10, [0.0] * 3 + [2.5] * 3 + [5.0] * 3 + [7.5] * 3)


def test_printed_layout(faults: Path) -> None:
    ecg = read_ecg(faults / "D08" / "a.dcm")
    assert begins(ecg) == [0.0] * 3 + [2.5] * 3 + [5.0] * 3 + [7.5] * 3
    assert np.isfinite(ecg.signal[1]).all()
    done = standardise(ecg)
    there = np.isfinite(ecg.signal)
    np.testing.assert_array_equal(done.signal[there], ecg.signal[there])
    assert done.flags == tuple(f"partial_lead:{lead}" for lead in LEADS if lead != "II")


def test_bits_stored(faults: Path) -> None:
    a, b = (read_ecg(faults / "D02" / name) for name in ("a.dcm", "b.dcm"))
    np.testing.assert_array_equal(a.signal, b.signal)
    assert a.signal.min() < 0


@pytest.mark.parametrize("name", ["a", "b", "c", "d"])
def test_average_beats(faults: Path, name: str) -> None:
    ecg = read_ecg(faults / "D04" / f"{name}.dcm")
    assert (ecg.duration, tuple(ecg.metadata["derived_leads"])) == (10, LIMB)
    np.testing.assert_allclose(ecg.signal[2], ecg.signal[1] - ecg.signal[0], atol=1e-6)


def test_right_sided_leads(faults: Path) -> None:
    assert "V3" in read_ecg(faults / "D11" / "a.dcm").missing_leads
    for name in ("r.hea", "a.csv"):
        assert {"V1", "V4"} <= set(read_ecg(faults / "L01" / name).missing_leads)


def test_spellings() -> None:
    spelt = {"ECG-V1": "V1", "II-Ref": "II", "EKG-I": "I", "I_uV": "I", "Lead 1": "I", "LII": "II", "Ableitung I": "I"}
    assert {name: canonical_lead(name) for name in spelt} == spelt


def test_exchanged_arms(faults: Path) -> None:
    assert "arm_reversal" in standardise(read_ecg(faults / "Q01" / "r.hea")).flags


def test_apple_watch(faults: Path) -> None:
    for name, fs in (("en.csv", 512.0), ("nl.csv", 511.844)):
        ecg = read_ecg(faults / "C01" / name)
        assert ecg.fs == fs
        assert "I" not in ecg.missing_leads
        assert 0.1 < np.ptp(ecg.signal[0]) < 3


def test_physionet_csv(faults: Path) -> None:
    for name in ("a.csv", "b.csv"):
        ecg = read_ecg(faults / "C03" / name)
        assert ecg.fs == 500
        np.testing.assert_allclose(ecg.signal[1, :2], [0, 0.008], atol=1e-6)


@pytest.mark.parametrize("name", ["C11/a.csv", "C11/b.csv", "C11/c.csv", "C18/a.csv", "C18/b.tsv"])
def test_uneven_rows(faults: Path, name: str) -> None:
    with pytest.raises(ReadError, match=r"line \d+ has \d+ fields"):
        read_ecg(faults / name, fs=500, units="mV")


def test_csv_of_a_single_lead(faults: Path) -> None:
    assert read_ecg(faults / "C15" / "kardia.csv").fs == 300
    for name, leads, options in (
        ("polar.csv", {"ecg": "I"}, {}),
        ("voltage.csv", {"Voltage": "I"}, {}),
        ("ecgonly.csv", {"ecg": "I"}, {"units": "uV"}),
    ):
        with pytest.raises(ReadError, match="--leads"):
            read_ecg(faults / "C15" / name, **options)
        assert "I" not in read_ecg(faults / "C15" / name, leads=leads, **options).missing_leads


@pytest.mark.parametrize("name", ["a.csv", "b.csv", "c.csv"])
def test_separator_in_a_quoted_header(faults: Path, name: str) -> None:
    path = faults / "C16" / name
    ecg = read_ecg(path, units="mV")
    rows = np.array([line.split(",")[:4] for line in path.read_text().splitlines()[1:]], float)
    for column, lead in ((1, "I"), (2, "II"), (3, "V1")):
        np.testing.assert_allclose(ecg.signal[LEADS.index(lead)], rows[:, column], atol=1e-6)


def test_arrays(faults: Path) -> None:
    for name in ("one.npy", "f16.npy", "i16.npy"):
        assert read_ecg(faults / "N01" / name, fs=500, units="uV").n_samples == 5000
    with pytest.raises(ReadError, match="shape"):
        read_ecg(faults / "N01" / "single.npy", fs=500, units="uV")
    pytest.importorskip("h5py")
    assert read_ecg(faults / "N03" / "one.hdf5", fs=400, units="mV").n_samples == 4096
    for name in ("a.h5", "b.h5"):
        with pytest.raises(ReadError, match="--units"):
            read_ecg(faults / "N05" / name)
        assert read_ecg(faults / "N05" / name, fs=400, units="V").duration == 10


def test_cardiosoft_and_mortara(faults: Path) -> None:
    text, ecg = (faults / "V01" / "a.xml").read_text(), read_ecg(faults / "V01" / "a.xml")
    for lead, digits in re.findall(r'lead="(\w+)">([^<]*)<', text):
        np.testing.assert_allclose(ecg.signal[LEADS.index(lead)], np.array(digits.split(","), float) * 5e-3, rtol=1e-6)
    pytest.importorskip("ecgdatakit")
    text, ecg = (faults / "V03" / "a.xml").read_text(), read_ecg(faults / "V03" / "a.xml")
    for lead, data in re.findall(r'NAME="(\w+)"[^>]*UNITS_PER_MV="200"[^>]*DATA="([^"]*)"', text):
        counts = np.frombuffer(base64.b64decode(data), "<i2")
        np.testing.assert_allclose(ecg.signal[LEADS.index(lead)], counts / 200, rtol=1e-6)


def test_wfdb_segments_of_several_samples_a_frame(faults: Path) -> None:
    wfdb = pytest.importorskip("wfdb")
    ecg = read_ecg(faults / "B19" / "m")
    segments = [wfdb.rdrecord(str(faults / "B19" / name), smooth_frames=False).e_p_signal for name in ("s0", "s1")]
    assert (ecg.fs, ecg.n_samples) == (500, 4000)
    for row, lead in enumerate(("I", "II", "V1")):
        expected = np.concatenate([segment[row] for segment in segments])
        np.testing.assert_allclose(ecg.signal[LEADS.index(lead)], expected, atol=1e-6)


def test_wfdb_names_that_carry_a_folder(faults: Path) -> None:
    ecg = read_ecg(faults / "B17" / "r.hea")
    counts = np.fromfile(faults / "B17" / "r.dat", "<i4").reshape(-1, 3).T.astype(float)
    gains = np.array([[6344117.125], [9481164.0], [12413200.271062272]])
    baselines = np.array([[-1842966025], [-2062153171], [1241320027]])
    np.testing.assert_allclose(ecg.signal[:3], (counts - baselines) / gains, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(ecg.signal, read_ecg(faults / "B17" / "plain.hea").signal)


@pytest.mark.parametrize("name", ["R1.HEA", "R1.DAT", "R1"])
def test_wfdb_names_in_capitals(faults: Path, name: str) -> None:
    counts = np.fromfile(faults / "B11" / "R1.DAT", "<i2").reshape(-1, 12).T
    np.testing.assert_allclose(read_ecg(faults / "B11" / name).signal, counts / 1000, rtol=1e-6)
