"""What files say of patient and recording, beside the signal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deri.ecg import read_ecg
from deri.ecg.formats.common import device_name, moment, stamped
from deri.ecg.formats.common import to_date as day
from deri.ecg.formats.wfdb_header import parse_header
from ecg import writers
from ecg.in_bytes import read

NOON = "2020-01-01T12:00:00"


def about(folder: Path, data: str | bytes) -> tuple[str | None, str | None, list[str]]:
    found = read(folder, data.encode() if isinstance(data, str) else data).metadata
    return found["date"], found["device"], found.get("interpretation", [])


def test_moments() -> None:
    assert moment(day(2020, 3, 4), "08:13:11") == "2020-03-04T08:13:11"
    assert [moment(day(2020, 3, 4), text) for text in ("0813", "8 Uhr", "25:00", "")] == [
        "2020-03-04T08:13:00",
        *["2020-03-04"] * 3,
    ]
    assert (moment(None, "08:13"), stamped("20200230"), stamped("")) == (None, None, None)
    assert (stamped("20081223194446.000"), stamped("2008122319")) == ("2008-12-23T19:44:46", "2008-12-23")
    assert (device_name("GE", "", None, "MAC  55", "GE"), device_name("", None)) == ("GE MAC 55", None)


def test_muse(tmp_path: Path) -> None:
    text = writers.muse(writers.digital_ecg(), writers.LEADS).replace(
        "<Diagnosis>",
        "<TestDemographics><AcquisitionDevice>MAC55</AcquisitionDevice><AcquisitionTime>08:13:11</AcquisitionTime>"
        "<AcquisitionDate>05-09-2016</AcquisitionDate><OverreaderLastName>DOE</OverreaderLastName></TestDemographics>"
        "<Diagnosis>",
    )
    text = text.replace(
        "</Diagnosis>",
        "<DiagnosisStatement><StmtFlag>ENDSLINE</StmtFlag><StmtText>Confirmed by DOE, JOHN (7) on 5/9/2016</StmtText>"
        "</DiagnosisStatement></Diagnosis>",
    )
    assert about(tmp_path, text) == ("2016-05-09T08:13:11", "MAC55", ["Sinus rhythm", "Anterior infarct"])


def test_sierra(tmp_path: Path) -> None:
    text = writers.sierra(writers.digital_ecg()).replace(
        'date="2020-01-01">', 'date="2020-01-01" time="12:00:00"><machine machineid="7">PageWriter</machine>'
    )
    assert about(tmp_path, text) == (NOON, "PageWriter", ["SINUS RHYTHM (normal P axis)"])


def test_aecg(tmp_path: Path) -> None:
    author = (
        "<author><seriesAuthor><manufacturedSeriesDevice><manufacturerModelName>MAC</manufacturerModelName>"
        "</manufacturedSeriesDevice><manufacturerOrganization><name>GE</name></manufacturerOrganization>"
        "</seriesAuthor></author>"
    )
    text = writers.aecg(writers.aecg_set(writers.digital_ecg(), writers.LEADS), extra=author)
    text = text.replace("Sinus rhythm", "Sinus rhythm. Befundet von Dr. Müller")
    assert about(tmp_path, text) == (NOON, "GE MAC", ["Sinus rhythm."])


def test_holter_and_edf(tmp_path: Path) -> None:
    digital = writers.digital_ecg()
    assert about(tmp_path, writers.ishne(digital[:3], writers.LEADS[:3])) == ("2020-02-01T12:00:00", "digital", [])
    signal = digital[0].reshape(2, -1)
    limits = [(-1.0, 1.0, -1000, 1000)]
    for reserved, date in (("EDF+C", NOON), ("", NOON)):
        data = writers.edf([signal], ["I"], units=["mV"], limits=limits, reserved=reserved)
        assert read(tmp_path, data).metadata["date"] == date


@pytest.mark.parametrize(
    ("line", "date"),
    [
        ("a 1 500 5000 16:56:02 28/06/1987", "1987-06-28T16:56:02"),
        ("a 1 500 5000 9:05:00.5 1/2/2180", "2180-02-01T09:05:00"),
        ("a 1 500 5000 23-Mar-2021 20:20:55", None),  # when a challenge header was written
        ("a 1 500 5000 16:56:02", None),
        ("a 1 500 5000 16:56:02 28/13/1987", None),
    ],
)
def test_wfdb(line: str, date: str | None) -> None:
    assert parse_header(f"{line}\na.dat 16 1000/mV 16 0 0 0 0 I\n").date == date


def test_real_files(shared: Path) -> None:
    formats = shared / "ecg-real" / "formats"
    if not formats.is_dir():
        pytest.skip(f"no real files in {formats}")
    found = {path.name: read_ecg(path).metadata for path in formats.rglob("*.*") if path.suffix in (".xml", ".dcm")}
    said = {name: (meta["age"], meta["sex"], meta["date"], meta["device"]) for name, meta in found.items()}
    assert said == {
        "anonymous_ecg.dcm": (42, "female", "2013-01-25T10:59:19", "Mortara Instrument, Inc. el250"),
        "3191723_ZZDEMOPTONLY_1-04_orig.xml": (60, "male", "2010-01-19T15:19:22", "PageWriter Touch"),
        "ad4d3d80-d165_1-04_converted.xml": (
            32,
            "female",
            "2008-12-23T19:44:46",
            "Philips Medical Systems PageWriter Touch",
        ),
    }
    watch = read_ecg(shared / "faults" / "C01" / "en.csv").metadata
    assert (watch["date"], watch["device"]) == ("2023-06-28T13:03:46", "Apple Watch4,2")
    assert watch["interpretation"] == ["Sinus Rhythm"]
    assert np.isfinite(found["anonymous_ecg.dcm"]["age"])
