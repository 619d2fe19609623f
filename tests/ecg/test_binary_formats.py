"""DICOM, EDF, ISHNE, HDF5 and MATLAB structs, against hand-made files and other readers."""

from __future__ import annotations

import re
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from deri.ecg import read_ecg
from deri.errors import DeriError, ReadError, install
from ecg.in_bytes import read, reason_of
from ecg.writers import LEADS, annotation_signal, digital_ecg, edf, ishne

# --- DICOM

MDC = {"I": "2:1", "II": "2:2", "III": "2:61", "aVR": "2:62", "aVL": "2:63", "aVF": "2:64"} | {
    f"V{k}": f"2:{k + 2}" for k in range(1, 7)
}


def dicom_group(
    digital: np.ndarray,
    names: Any,
    *,
    fs: float = 500,
    offset: float = 0,
    label: str = "RHYTHM",
    units: str = "uV",
    baseline: float = 0,
    meaning: bool = True,
    correction: float = 1.0,
) -> Any:
    from pydicom.dataset import Dataset

    group = Dataset()
    group.MultiplexGroupLabel, group.WaveformOriginality = label, "DERIVED" if label == "MEDIAN" else "ORIGINAL"
    group.MultiplexGroupTimeOffset, group.SamplingFrequency = offset, fs
    group.NumberOfWaveformChannels, group.NumberOfWaveformSamples = digital.shape
    group.WaveformBitsAllocated, group.WaveformSampleInterpretation = 16, "SS"
    channels = []
    for name in names:
        channel, source, unit = Dataset(), Dataset(), Dataset()
        source.CodeValue, source.CodingSchemeDesignator = MDC.get(name, "x"), "MDC"
        source.CodeMeaning = f"Lead {name}" if meaning else "?"
        unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = units, "UCUM", units
        channel.ChannelSourceSequence, channel.ChannelSensitivityUnitsSequence = [source], [unit]
        channel.ChannelSensitivity, channel.ChannelBaseline = 2.5, baseline
        channel.ChannelSensitivityCorrectionFactor = correction
        channels.append(channel)
    group.ChannelDefinitionSequence = channels
    group.WaveformData = digital.T.astype("<i2").tobytes()
    return group


def dicom(folder: Path, *groups: Any, syntax: str = "ExplicitVRLittleEndian") -> bytes:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import Dataset, FileMetaDataset

    data, text = Dataset(), Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.9.1.1"
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    data.Modality, data.PatientAge, data.PatientSex = "ECG", "018M", "M"
    text.UnformattedTextValue = "Sinus rhythm"
    data.WaveformAnnotationSequence = [text]
    data.WaveformSequence = list(groups)
    data.save_as(folder / "made.dcm", enforce_file_format=True)
    return (folder / "made.dcm").read_bytes()


def test_dicom_scaling_equals_pydicom(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    digital = digital_ecg(600)
    ecg = read(tmp_path, dicom(tmp_path, dicom_group(digital, LEADS, baseline=40, correction=1.1)))
    np.testing.assert_allclose(ecg.signal, (digital * 2.5 * 1.1 + 40) / 1000, rtol=1e-6)
    theirs = pydicom.dcmread(tmp_path / "made.dcm").waveform_array(0).T
    np.testing.assert_allclose(ecg.signal, theirs / 1000, rtol=1e-5)
    assert (ecg.fs, ecg.metadata["age"], ecg.metadata["sex"]) == (500.0, 1.5, "male")
    assert ecg.metadata["interpretation"] == ["Sinus rhythm"]


@pytest.mark.parametrize("syntax", ["ImplicitVRLittleEndian", "ExplicitVRBigEndian", "DeflatedExplicitVRLittleEndian"])
def test_dicom_of_every_transfer_syntax(tmp_path: Path, syntax: str) -> None:
    digital = digital_ecg(600)
    group = dicom_group(digital, LEADS)
    if syntax == "ExplicitVRBigEndian":
        group.WaveformData = digital.T.astype(">i2").tobytes()
    data = dicom(tmp_path, group, syntax=syntax)
    np.testing.assert_allclose(read(tmp_path, data).signal, digital * 2.5e-3, rtol=1e-6)
    pydicom = pytest.importorskip("pydicom")
    theirs = pydicom.dcmread(tmp_path / "made.dcm").waveform_array(0).T
    if syntax != "ExplicitVRBigEndian":  # pydicom does not swap the bytes of a waveform
        np.testing.assert_allclose(theirs, digital * 2.5, rtol=1e-6)


@pytest.mark.parametrize(
    ("bits", "kind", "dtype"), [(8, "SB", "i1"), (8, "UB", "u1"), (16, "US", "<u2"), (32, "SL", "<i4")]
)
def test_dicom_sample_types(tmp_path: Path, bits: int, kind: str, dtype: str) -> None:
    digital = digital_ecg(60) % 100
    group = dicom_group(digital, LEADS)
    group.WaveformBitsAllocated, group.WaveformSampleInterpretation = bits, kind
    group.WaveformData = digital.T.astype(dtype).tobytes()
    np.testing.assert_allclose(read(tmp_path, dicom(tmp_path, group)).signal, digital * 2.5e-3, rtol=1e-6)


def test_dicom_deflated_bomb_and_stump(tmp_path: Path) -> None:
    good = dicom(tmp_path, dicom_group(digital_ecg(600), LEADS), syntax="DeflatedExplicitVRLittleEndian")
    assert reason_of(tmp_path, good[:-30]) == "truncated_signal"
    at = 128 + 4 + 12 + int.from_bytes(good[140:144], "little")
    packer = zlib.compressobj(1, wbits=-15)
    zeros = bytes(2**20)
    bomb = good[:at] + b"".join(packer.compress(zeros) for _ in range(140)) + packer.flush()
    assert reason_of(tmp_path, bomb) == "too_long"


def test_dicom_leads_by_code_alone(tmp_path: Path) -> None:
    digital = digital_ecg(60)
    ecg = read(tmp_path, dicom(tmp_path, dicom_group(digital[::-1], LEADS[::-1], meaning=False, units="mV")))
    np.testing.assert_allclose(ecg.signal, digital * 2.5, rtol=1e-6)


def test_dicom_of_four_groups_in_a_row_and_a_median(tmp_path: Path) -> None:
    digital = digital_ecg(400)
    groups = [dicom_group(digital[:, :50], LEADS, label="MEDIAN")]
    for k in range(4):
        part = digital[3 * k : 3 * k + 3, 100 * k : 100 * k + 100]
        groups.append(dicom_group(part, LEADS[3 * k : 3 * k + 3], offset=200.0 * k))
    ecg = read(tmp_path, dicom(tmp_path, *groups))
    assert ecg.n_samples == 400
    for row in range(12):
        inside = np.zeros(400, dtype=bool)
        inside[100 * (row // 3) : 100 * (row // 3) + 100] = True
        np.testing.assert_allclose(ecg.signal[row, inside], digital[row, inside] * 2.5e-3, rtol=1e-6)
        assert np.isnan(ecg.signal[row, ~inside]).all()


def test_dicom_padding_is_a_gap(tmp_path: Path) -> None:
    digital = digital_ecg(60)
    digital[:, 10:20] = -32768
    group = dicom_group(digital, LEADS)
    group.WaveformPaddingValue = b"\x00\x80"
    assert np.isnan(read(tmp_path, dicom(tmp_path, group)).signal).sum() == 120


def test_dicom_that_cannot_be_used(tmp_path: Path) -> None:
    digital = digital_ecg(60)
    assert reason_of(tmp_path, dicom(tmp_path, dicom_group(digital, LEADS, units="mm[Hg]"))) == "bad_units"
    group = dicom_group(digital, LEADS)
    del group.ChannelDefinitionSequence[3].ChannelSensitivity
    assert reason_of(tmp_path, dicom(tmp_path, group)) == "bad_gain"
    group = dicom_group(digital, LEADS)
    group.NumberOfWaveformSamples = 61
    assert reason_of(tmp_path, dicom(tmp_path, group)) == "truncated_signal"
    group.WaveformSampleInterpretation = "MB"
    assert reason_of(tmp_path, dicom(tmp_path, group)) == "unsupported_format"
    assert reason_of(tmp_path, dicom(tmp_path, dicom_group(digital, LEADS, label="MEDIAN"))) == "no_signals"
    assert reason_of(tmp_path, b"\0" * 128 + b"DICM" + b"\xff" * 50) in ("bad_header", "no_signals")


def test_real_dicom_equals_pydicom(ecg_real: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    path = ecg_real / "formats" / "dicom" / "anonymous_ecg.dcm"
    ecg = read_ecg(path)
    np.testing.assert_allclose(ecg.signal, pydicom.dcmread(path).waveform_array(0).T / 1000, atol=1e-6)
    assert (ecg.fs, ecg.n_samples, ecg.metadata["age"]) == (1000.0, 10_000, 42.0)
    assert ecg.metadata["interpretation"] == ["RITMO SINUSALE", "ECG NORMALE"]
    np.testing.assert_allclose(ecg.signal[0] + ecg.signal[2], ecg.signal[1], atol=0.003)


def test_missing_library_names_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dicom(tmp_path, dicom_group(digital_ecg(60), LEADS))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ReadError, match=re.escape(install("formats"))) as caught:
        read(tmp_path, data)
    assert caught.value.reason == "missing_dependency"


# --- EDF

LIMITS = (-3276.8, 3276.7, -32768, 32767)


def edf_of(digital: np.ndarray, per_record: int = 100, **options: Any) -> bytes:
    rows = [row.reshape(-1, per_record) for row in digital]
    return edf(rows, [f"ECG {name}" for name in LEADS], units=["uV"] * 12, limits=[LIMITS] * 12, **options)


def test_edf_values_equal_pyedflib(tmp_path: Path) -> None:
    pyedflib = pytest.importorskip("pyedflib")
    digital = digital_ecg(1000)
    ecg = read(tmp_path, edf_of(digital, seconds=0.25))
    assert (ecg.fs, ecg.metadata["format"]) == (400.0, "EDF")
    np.testing.assert_allclose(ecg.signal, digital * 1e-4, atol=2e-6)
    path = tmp_path / "theirs.edf"
    with pyedflib.EdfWriter(str(path), 12, file_type=pyedflib.FILETYPE_EDFPLUS) as writer:
        writer.setSignalHeaders(
            [pyedflib.highlevel.make_signal_header(name, "mV", 250, -5.0, 5.0, -32768, 32767) for name in LEADS]
        )
        writer.setSex("Female")
        writer.writeSamples([row * 1e-3 for row in digital])
        writer.writeAnnotation(1.5, -1, "chest pain")
    ecg = read_ecg(path)
    with pyedflib.EdfReader(str(path)) as reader:
        theirs = np.stack([reader.readSignal(i) for i in range(12)])
    assert ecg.fs == 250.0
    np.testing.assert_allclose(ecg.signal, theirs, atol=1e-6)
    assert ecg.metadata["comments"] == ["1.5 s: chest pain"]
    assert ecg.metadata["sex"] == "female"


def test_edf_micro_signs(tmp_path: Path) -> None:
    digital = digital_ecg(300)
    good = edf_of(digital)
    for micro in ("µV".encode("latin-1"), "µV".encode(), "μV".encode()):
        ecg = read(
            tmp_path, good.replace(b"uV".ljust(len(micro)), micro) if len(micro) == 2 else good.replace(b"uV ", micro)
        )
        np.testing.assert_allclose(ecg.signal, digital * 1e-4, rtol=1e-5, atol=1e-8)


def test_edf_discontinuous(tmp_path: Path) -> None:
    digital = digital_ecg(300)
    marks = annotation_signal([b"+0\x14\x14\0", b"+1\x14\x14\0+1.1\x14fall\x14\0", b"+2.5\x14\x14\0"])
    rows = [*(row.reshape(3, 100) for row in digital), marks]
    labels = [*LEADS, "EDF Annotations"]
    limits = [LIMITS] * 12 + [(-1, 1, -32768, 32767)]
    data = edf(rows, labels, units=["mV"] * 12 + [""], limits=limits, seconds=1, reserved="EDF+D")
    ecg = read(tmp_path, data)
    assert (ecg.fs, ecg.n_samples) == (100.0, 350)
    np.testing.assert_allclose(ecg.signal[:, :200], digital[:, :200] * 0.1, rtol=1e-4)
    np.testing.assert_allclose(ecg.signal[:, 250:], digital[:, 200:] * 0.1, rtol=1e-4)
    assert np.isnan(ecg.signal[:, 200:250]).all()
    assert (ecg.metadata["comments"], ecg.metadata["sex"], ecg.metadata["age"]) == (["1.1 s: fall"], "female", 49.0)
    assert reason_of(tmp_path, data.replace(b"+2.5", b"+1.5")) == "bad_header"
    assert reason_of(tmp_path, data.replace(b"+2.5\x14\x14\0", b"+9e9\x14\x14\0")) == "bad_header"
    assert reason_of(tmp_path, data.replace(b"+2.5\x14\x14\0\0\0\0\0\0", b"+99999999\x14\x14\0")) == "too_long"


def test_edf_other_signals_are_dropped_whatever_their_rate(tmp_path: Path) -> None:
    digital = digital_ecg(200)
    rows = [digital[0].reshape(2, 100), np.zeros((2, 7), dtype=int), digital[1].reshape(2, 100)]
    data = edf(rows, ["EKG I", "SpO2", "Lead II"], units=["uV", "%", "mV"], limits=[LIMITS] * 3)
    ecg = read(tmp_path, data)
    np.testing.assert_allclose(ecg.signal[1], digital[1] * 0.1, rtol=1e-4)
    assert ecg.metadata["dropped_leads"] == ["SpO2"]
    assert ecg.missing_leads == LEADS[6:]


def test_bdf_values(tmp_path: Path) -> None:
    digital = digital_ecg(200).astype(int) * 300
    limits = [(-8388608, 8388607, -8388608, 8388607)] * 12
    data = edf([row.reshape(2, 100) for row in digital], LEADS, units=["uV"] * 12, limits=limits, bdf=True)
    np.testing.assert_allclose(read(tmp_path, data).signal, digital * 1e-3, rtol=1e-5)


def test_edf_that_cannot_be_used(tmp_path: Path) -> None:
    digital = digital_ecg(400)
    good = edf_of(digital)
    assert read(tmp_path, good + b"\0" * 7).metadata["warnings"]["surplus_data"].startswith("7 bytes")
    assert "unclosed_recording" in read(tmp_path, edf_of(digital, records=-1)).metadata["warnings"]
    assert reason_of(tmp_path, good[:-1]) == "truncated_signal"
    assert reason_of(tmp_path, edf_of(digital, records=10**7)) == "truncated_signal"
    assert reason_of(tmp_path, edf_of(digital, seconds=0)) == "bad_sampling_rate"
    assert reason_of(tmp_path, good.replace(b"uV      ", b"mmHg    ")) == "bad_units"
    assert reason_of(tmp_path, good.replace(b"32767   ", b"-32768  ")) == "bad_gain"
    rows = [digital[0].reshape(4, 100), digital[1].reshape(4, 100)[:, :50]]
    assert reason_of(tmp_path, edf(rows, ["I", "II"], units=["mV"] * 2, limits=[LIMITS] * 2)) == "unequal_lead_lengths"


# --- ISHNE


def test_ishne_values(tmp_path: Path) -> None:
    digital = digital_ecg(300)
    digital[2, 5] = -32768
    ecg = read(tmp_path, ishne(digital, LEADS))
    expected = digital * 2.5e-3
    expected[2, 5] = np.nan
    np.testing.assert_allclose(ecg.signal, expected, rtol=1e-6)
    assert (ecg.fs, ecg.metadata["sex"], ecg.metadata["age"]) == (200.0, "female", 59.0)
    assert (ecg.metadata["comments"], ecg.metadata["warnings"]) == (["note"], {})


def test_ishne_with_three_leads(tmp_path: Path) -> None:
    digital = digital_ecg(300)
    ecg = read(tmp_path, ishne(digital[[0, 1, 6]], ["I", "II", "X"]))
    assert ecg.missing_leads == LEADS[6:]
    assert ecg.metadata["dropped_leads"] == ["X"]
    np.testing.assert_allclose(ecg.signal[2], (digital[1] - digital[0].astype(int)) * 2.5e-3, atol=1e-5)


def test_ishne_equals_another_reader(tmp_path: Path) -> None:
    parser = pytest.importorskip("ecgdatakit").FileParser
    ecg = read(tmp_path, ishne(digital_ecg(300), LEADS, gain=1234))
    theirs = parser.parse(tmp_path / "recording.bin")
    np.testing.assert_allclose(ecg.signal, np.stack([lead.samples for lead in theirs.leads]), atol=1e-6)


def test_ishne_that_cannot_be_used(tmp_path: Path) -> None:
    good = ishne(digital_ecg(300), LEADS)
    assert reason_of(tmp_path, good[:-1]) == "truncated_signal"
    assert reason_of(tmp_path, good[:400]) == "bad_header"
    assert reason_of(tmp_path, ishne(digital_ecg(300), LEADS, gain=0)) == "bad_gain"
    assert reason_of(tmp_path, ishne(digital_ecg(300), LEADS, fs=0)) == "bad_sampling_rate"
    damaged = good[:40] + b"!" + good[41:]
    assert "checksum_mismatch" in read(tmp_path, damaged).metadata["warnings"]


# --- HDF5 and MATLAB


def test_hdf5(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    digital = digital_ecg(500)
    path = tmp_path / "a.bin"
    with h5py.File(path, "w") as file:
        values = (digital * 1e-3).astype(np.float16)
        file.create_dataset("ecg", data=values, chunks=(12, 100), compression="gzip", compression_opts=9)
    ecg = read_ecg(path)
    assert set(ecg.metadata["warnings"]) == {"assumed_sph"}
    assert (ecg.fs, ecg.metadata["format"]) == (500.0, "SPH HDF5")
    np.testing.assert_array_equal(ecg.signal, (digital * 1e-3).astype(np.float16).astype(np.float32))
    with h5py.File(path, "w") as file:
        file["signal"] = digital.T
    np.testing.assert_allclose(read_ecg(path, fs=250, units="uV").signal, digital * 1e-3, rtol=1e-6)
    for options, reason in (({"fs": 250}, "bad_units"), ({"units": "uV"}, "bad_sampling_rate")):
        with pytest.raises(ReadError) as caught:
            read_ecg(path, **options)
        assert caught.value.reason == reason
    with h5py.File(path, "w") as file:
        file.create_dataset("ecg", (12, 500), dtype=np.float16, chunks=(12, 100))[:, :300] = 1
    assert reason_of_path(path) == "truncated_signal"
    with h5py.File(path, "w") as file:
        file.create_dataset("tracings", (3, 4096, 12), dtype=np.float32, chunks=True)
    assert reason_of_path(path) == "several_recordings"
    with h5py.File(path, "w") as file:
        file.create_dataset("ecg", (12, 10**12), dtype=np.float16, chunks=(12, 1000))
    assert reason_of_path(path) == "too_long"


@pytest.mark.parametrize(
    "filters", [{}, {"compression": "gzip"}, {"compression": "gzip", "shuffle": True, "fletcher32": True}]
)
def test_hdf5_whole_chunks_are_read(tmp_path: Path, filters: dict[str, Any]) -> None:
    h5py = pytest.importorskip("h5py")
    values = (digital_ecg(300) * 1e-3).astype(np.float16)
    path = tmp_path / "a.bin"
    with h5py.File(path, "w") as file:
        file.create_dataset("ecg", data=values, chunks=(12, 70), **filters)
    np.testing.assert_array_equal(read_ecg(path, fs=500, units="mV").signal, values.astype(np.float32))


def test_hdf5_chunks_that_are_too_short(tmp_path: Path) -> None:
    """Libhdf5 would fill them up with what lies in its memory: another value in every run."""
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "a.bin"
    for content in (zlib.compress(bytes(1000)), zlib.compress(bytes(3000))):
        with h5py.File(path, "w") as file:
            dataset = file.create_dataset("ecg", (12, 100), dtype=np.float16, chunks=(12, 100), compression="gzip")
            dataset.id.write_direct_chunk((0, 0), content)
        assert reason_of_path(path) in ("unreadable_signal", "bad_header")
    with h5py.File(path, "w") as file:  # no filter at all
        dataset = file.create_dataset("ecg", (12, 100), dtype=np.float16, chunks=(12, 100))
        dataset.id.write_direct_chunk((0, 0), bytes(1000))
    assert reason_of_path(path) == "unreadable_signal"


def test_hdf5_whose_values_lie_in_another_file(tmp_path: Path) -> None:
    """A file of a stranger could else show any file of the machine that reads it."""
    h5py = pytest.importorskip("h5py")
    other, path = tmp_path / "other.h5", tmp_path / "a.bin"
    with h5py.File(other, "w") as file:
        file["tracings"] = np.zeros((12, 5000), np.float32)
    layout = h5py.VirtualLayout((12, 5000), np.float32)
    layout[:] = h5py.VirtualSource(str(other), "tracings", (12, 5000))
    makers = (
        lambda file: file.__setitem__("tracings", h5py.ExternalLink(str(other), "tracings")),
        lambda file: file.create_dataset("tracings", (12, 5000), np.float32, external=[(str(other), 0, 240_000)]),
        lambda file: file.create_virtual_dataset("tracings", layout),
    )
    for make in makers:
        with h5py.File(path, "w") as file:
            make(file)
        with pytest.raises(ReadError, match="lies in another file"):
            read_ecg(path, fs=500, units="mV")


def reason_of_path(path: Path) -> str:
    with pytest.raises(ReadError) as caught:
        read_ecg(path)
    return caught.value.reason


def test_real_sph_files_equal_h5py(ecg_real: Path) -> None:
    h5py = pytest.importorskip("h5py")
    paths = sorted((ecg_real / "sph").glob("*.h5"))
    assert len(paths) == 4
    for path in paths:
        ecg = read_ecg(path)
        with h5py.File(path) as file:
            np.testing.assert_array_equal(ecg.signal, file["ecg"][...].astype(np.float32))
        # The order of the leads: only this one obeys Einthoven and Goldberger.
        s = ecg.signal
        np.testing.assert_allclose(s[0] + s[2], s[1], atol=0.002)
        np.testing.assert_allclose(s[3], -(s[0] + s[1]) / 2, atol=0.002)
        np.testing.assert_allclose(s[4], (s[0] - s[2]) / 2, atol=0.002)
        np.testing.assert_allclose(s[5], (s[1] + s[2]) / 2, atol=0.002)
        assert 0.5 < np.median(np.ptp(s, axis=1)) < 4


@pytest.mark.parametrize("compressed", [True, False])
def test_cpsc_struct(tmp_path: Path, compressed: bool) -> None:
    digital = digital_ecg(500)
    path = tmp_path / "A0001.mat"
    savemat(path, {"ECG": {"sex": "Female", "age": 74.0, "data": digital * 1e-3}}, do_compression=compressed)
    for name in (path, tmp_path / "A0001"):
        ecg = read_ecg(name)
        assert (ecg.fs, ecg.metadata["sex"], ecg.metadata["age"]) == (500.0, "female", 74.0)
        np.testing.assert_allclose(ecg.signal, digital * 1e-3, rtol=1e-6)
    savemat(path, {"ECG": {"sex": "Female", "age": np.nan, "data": digital[:8] * 1e-3}})
    assert reason_of_path(path) == "unsupported_format"


def test_real_cpsc_structs_equal_scipy(ecg_real: Path) -> None:
    from scipy.io import loadmat

    paths = [path for path in sorted((ecg_real / "cpsc2018").glob("*.mat")) if not path.with_suffix(".hea").exists()]
    assert len(paths) == 5
    for path in paths:
        theirs = loadmat(path)["ECG"][0, 0]
        ecg = read_ecg(path)
        np.testing.assert_array_equal(ecg.signal, theirs["data"].astype(np.float32))
        assert ecg.metadata["sex"] == theirs["sex"][0].lower()
        assert ecg.metadata["age"] == theirs["age"][0, 0]
        s = ecg.signal
        np.testing.assert_allclose(s[0] + s[2], s[1], atol=1e-5)
        np.testing.assert_allclose(s[3], -(s[0] + s[1]) / 2, atol=2e-3)
        np.testing.assert_allclose(s[4], (s[0] - s[2]) / 2, atol=2e-3)


def test_options_are_for_files_that_leave_them_open(tmp_path: Path) -> None:
    (tmp_path / "a.ecg").write_bytes(ishne(digital_ecg(300), LEADS))
    with pytest.raises(DeriError, match="states its own rate"):
        read_ecg(tmp_path / "a.ecg", fs=500)
