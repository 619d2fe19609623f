"""Files of eight leads and of one, in every format that can hold them."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from deri.ecg import LEADS, read_ecg
from ecg.wfdb_writer import record
from ecg.writers import aecg, aecg_set, digital_ecg, edf, ishne, muse, scp

EIGHT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
Make = Callable[[np.ndarray, Sequence[str]], dict[str, bytes]]


def _csv(digital: np.ndarray, names: Sequence[str]) -> dict[str, bytes]:
    lines = [",".join(["time", *(f"{name} (uV)" for name in names)])]
    lines += [",".join(map(str, [i / 500, *(5 * row)])) for i, row in enumerate(digital.T.astype(int))]
    return {"a.csv": "\n".join(lines).encode()}


def _npz(digital: np.ndarray, names: Sequence[str]) -> dict[str, bytes]:
    stream = io.BytesIO()
    np.savez(stream, signal=digital * 5.0, fs=500.0, units="uV", leads=np.array(names))
    return {"a.npz": stream.getvalue()}


def _dicom(digital: np.ndarray, names: Sequence[str]) -> dict[str, bytes]:
    pytest.importorskip("pydicom")
    from ecg.dicom_writer import dicom_bytes

    return {"a.dcm": dicom_bytes(digital * 2, names=names)}


MAKE: dict[str, Make] = {
    "wfdb": lambda digital, names: record(digital.T, 16, gain="200/mV", names=names),
    "wfdb-212": lambda digital, names: record(np.clip(digital, -2000, 2000).T, 212, gain="200/mV", names=names),
    "aecg": lambda digital, names: {"a.xml": aecg(aecg_set(digital, names)).encode()},
    "muse": lambda digital, names: {"a.xml": muse(digital, names, gain="5").encode()},
    "scp": lambda digital, names: {"a.scp": scp(digital, names, avm=5000)},
    "ishne": lambda digital, names: {"a.ecg": ishne(digital, names, fs=500, gain=5000)},
    "edf": lambda digital, names: {
        "a.edf": edf(
            [row.reshape(3, 100) for row in digital],
            names,
            units=["uV"] * len(names),
            limits=[(-163840, 163835, -32768, 32767)] * len(names),
            seconds=0.2,
        )
    },
    "dicom": _dicom,
    "csv": _csv,
    "npz": _npz,
}


def read(folder: Path, files: dict[str, bytes]):
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return read_ecg(folder / next(iter(files)))


@pytest.mark.parametrize("form", MAKE)
def test_eight_leads(tmp_path: Path, form: str) -> None:
    """III, aVR, aVL and aVF follow from I and II and are derived by every reader."""
    digital = digital_ecg(300)
    ecg = read(tmp_path, MAKE[form](digital[[LEADS.index(name) for name in EIGHT]], EIGHT))
    assert (ecg.fs, ecg.n_samples, ecg.missing_leads) == (250.0 if form == "muse" else 500.0, 300, ())
    assert set(ecg.metadata["derived_leads"]) == {"III", "aVR", "aVL", "aVF"}
    one, two = digital[0] * 5e-3, digital[1] * 5e-3
    for name in EIGHT:
        row = LEADS.index(name)
        np.testing.assert_allclose(ecg.signal[row], digital[row] * 5e-3, rtol=1e-5, atol=1e-6)
    expected = {2: two - one, 3: -(one + two) / 2, 4: one - two / 2, 5: two - one / 2}
    for row, values in expected.items():
        np.testing.assert_allclose(ecg.signal[row], values, atol=1e-5)


@pytest.mark.parametrize("form", MAKE)
@pytest.mark.parametrize("names", [("II",), ("V5",), ("I", "V1")])
def test_leads_that_are_not_there_are_nan(tmp_path: Path, form: str, names: tuple[str, ...]) -> None:
    digital = digital_ecg(300)
    ecg = read(tmp_path, MAKE[form](digital[[LEADS.index(name) for name in names]], names))
    assert ecg.metadata["derived_leads"] == {}
    assert ecg.missing_leads == tuple(lead for lead in LEADS if lead not in names)
    for row, lead in enumerate(LEADS):
        if lead in names:
            np.testing.assert_allclose(ecg.signal[row], digital[row] * 5e-3, rtol=1e-5, atol=1e-6)
        else:
            assert np.isnan(ecg.signal[row]).all()
