"""Recordings of several groups, sets or waveforms: every value at its time, no average beat in a rhythm lead."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deri.ecg import ECG, read_ecg
from deri.errors import ReadError
from ecg.in_bytes import read, reason_of
from ecg.test_binary_formats import dicom, dicom_group
from ecg.writers import LEADS, aecg, aecg_set, digital_ecg, muse

EIGHT = ["I", "II", *LEADS[6:]]
ROWS = [LEADS.index(lead) for lead in EIGHT]


def read_aecg(folder: Path, *sets: str) -> ECG:
    return read(folder, aecg(*sets).encode())


@given(
    cuts=st.sets(st.integers(1, 999), max_size=5),
    groups=st.lists(st.integers(0, 3), min_size=12, max_size=12),
    form=st.sampled_from(["aecg", "dicom"]),
    data=st.data(),
)
@settings(max_examples=40)
def test_any_split_into_groups_gives_the_same_recording(
    cuts: set[int], groups: list[int], form: str, data: Any
) -> None:
    """Cut in time and by leads, in any order."""
    if form == "dicom":
        pytest.importorskip("pydicom")
    digital = digital_ecg(1000)
    parts = []
    edges = [0, *sorted(cuts), 1000]
    for begin, end in itertools.pairwise(edges):
        for group in set(groups):
            rows = [row for row in range(12) if groups[row] == group]
            names = [LEADS[row] for row in rows]
            if form == "aecg":
                stamp = f"20200101120000.{2 * begin:03d}" if begin < 500 else f"20200101120001.{2 * begin - 1000:03d}"
                parts.append(aecg_set(digital[rows, begin:end], names, start=stamp))
            else:
                parts.append(dicom_group(digital[rows, begin:end], names, offset=2.0 * begin))
    parts = data.draw(st.permutations(parts))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        ecg = read(path, aecg(*parts).encode() if form == "aecg" else dicom(path, *parts))
    assert ecg.n_samples == 1000
    np.testing.assert_allclose(ecg.signal, digital * (5e-3 if form == "aecg" else 2.5e-3), rtol=1e-6)
    assert ecg.metadata["warnings"] == {}


def test_a_gap_between_consecutive_sets_is_nan(tmp_path: Path) -> None:
    digital = digital_ecg(500)
    sets = [aecg_set(digital[:, :200], LEADS), aecg_set(digital[:, 300:], LEADS, start="20200101120000.600")]
    signal = read_aecg(tmp_path, *sets).signal
    assert np.isnan(signal[:, 200:300]).all()
    np.testing.assert_allclose(signal[:, 300:], digital[:, 300:] * 5e-3, rtol=1e-6)


def test_overlapping_strips_are_told(tmp_path: Path) -> None:
    digital = digital_ecg(500)
    sets = [aecg_set(digital[:, :300], LEADS), aecg_set(digital[:, 200:400], LEADS, start="20200101120000.400")]
    ecg = read_aecg(tmp_path, *sets)
    np.testing.assert_allclose(ecg.signal, digital[:, :300] * 5e-3, rtol=1e-6)
    assert set(ecg.metadata["warnings"]) == {"strips_left_out"}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("20200101120000.000", "20200101120001.500"),
        ("20200101120059.000", "20200101120100.500"),  # across a minute
        ("20191231235959.5", "20200101000001"),  # across a year
        ("20200101120000.000+0100", "20200101110001.500Z"),
        ("2020-01-01T12:00:00", "2020-01-01T12:00:01.500"),
        ("10.5", "12"),
    ],
)
@pytest.mark.parametrize("unit", ["", "s"])
def test_aecg_times_in_every_form(tmp_path: Path, first: str, second: str, unit: str) -> None:
    digital = digital_ecg(500)
    sets = [aecg_set(digital[:6], LEADS[:6], start=first), aecg_set(digital[6:], LEADS[6:], start=second)]
    text = aecg(*sets)
    for start in (first, second) if unit else ():
        text = text.replace(f'<head value="{start}"/>', f'<head value="{start}" unit="{unit}"/>')
    ecg = read(tmp_path, text.encode())
    assert ecg.n_samples == 1250
    assert np.flatnonzero(np.isfinite(ecg.signal[11]))[0] == 750


def test_aecg_times_that_cannot_be_compared(tmp_path: Path) -> None:
    digital = digital_ecg(100)
    for start in ("noon", "5", "20209901120000"):
        text = aecg(aecg_set(digital[:6], LEADS[:6]), aecg_set(digital[6:], LEADS[6:], start=start))
        assert reason_of(tmp_path, text.encode()) == "bad_header"


def test_the_fullest_rhythm_series_is_read(tmp_path: Path) -> None:
    digital = digital_ecg(400)
    short, whole = (aecg(aecg_set(digital[:, :n], LEADS)) for n in (100, 400))
    series = short[short.index("<component><series>") : short.rindex("</series></component>") + 21]
    text = whole.replace("<component><series>", series + "<component><series>", 1)
    ecg = read(tmp_path, text.encode())
    assert ecg.n_samples == 400
    assert set(ecg.metadata["warnings"]) == {"several_recordings"}


def test_the_fullest_muse_waveform_is_read(tmp_path: Path) -> None:
    digital = digital_ecg(500)[ROWS]
    text, one = muse(digital, EIGHT), muse(digital[1:2, :300], ["II"])
    wave = one[one.index("<Waveform><WaveformType>Rhythm") : one.rindex("</Waveform>") + 11]
    text = text.replace("<Waveform><WaveformType>Median", wave + "<Waveform><WaveformType>Median", 1)
    ecg = read(tmp_path, text.encode())
    assert (ecg.n_samples, ecg.missing_leads) == (500, ())
    assert set(ecg.metadata["warnings"]) == {"several_recordings"}


@pytest.mark.parametrize("label", ["MEDIAN BEAT", "REPRESENTATIVE BEAT", "AVERAGE", "Template", "RHYTHM"])
@pytest.mark.parametrize("originality", ["ORIGINAL", "DERIVED"])
def test_average_beats_never_fill_a_rhythm_lead(tmp_path: Path, label: str, originality: str) -> None:
    """Limb leads follow from the 10 s of I and II, whatever 12-lead beat is in the file and what it is called."""
    digital = digital_ecg(5000)
    beat = dicom_group(digital[:, :300] + np.int16(99), LEADS, label=label)
    beat.WaveformOriginality = originality
    ecg = read(tmp_path, dicom(tmp_path, dicom_group(digital[ROWS], EIGHT), beat))
    assert list(ecg.metadata["derived_leads"]) == ["III", "aVR", "aVL", "aVF"]
    np.testing.assert_allclose(ecg.signal[2], (digital[1] - digital[0].astype(float)) * 2.5e-3, atol=1e-5)
    np.testing.assert_allclose(ecg.signal[ROWS], digital[ROWS] * 2.5e-3, rtol=1e-6)


def test_dicom_skew_is_obeyed(tmp_path: Path) -> None:
    digital = digital_ecg(100)
    group = dicom_group(digital, LEADS)
    group.ChannelDefinitionSequence[3].ChannelSampleSkew = "5"
    group.ChannelDefinitionSequence[4].ChannelTimeSkew = "0.004"
    signal = read(tmp_path, dicom(tmp_path, group)).signal
    assert signal.shape == (12, 105)
    np.testing.assert_allclose(signal[3, 5:], digital[3] * 2.5e-3, rtol=1e-6)
    np.testing.assert_allclose(signal[4, 2:102], digital[4] * 2.5e-3, rtol=1e-6)
    assert np.isnan(signal[3, :5]).all()


@pytest.mark.parametrize("extended", [True, False])
def test_dicom_bits_beyond_the_stored_ones(tmp_path: Path, extended: bool) -> None:
    digital = np.clip(digital_ecg(100), -2048, 2047)
    assert digital.min() < 0
    group = dicom_group(digital if extended else digital & 0xFFF, LEADS)
    for channel in group.ChannelDefinitionSequence:
        channel.WaveformBitsStored = 12
    np.testing.assert_allclose(read(tmp_path, dicom(tmp_path, group)).signal, digital * 2.5e-3, rtol=1e-6)
    digital[0, 50] = 3000  # neither the sign's nor 0
    group.WaveformData = digital.T.astype("<i2").tobytes()
    assert reason_of(tmp_path, dicom(tmp_path, group)) == "bad_header"


@pytest.mark.parametrize(
    ("code", "meaning", "label", "lead"),
    [
        ("2:11", "Lead V3R", "V3", None),
        ("5.6.3-9-11", "", "V3", None),
        ("x", "Lead V3R", "V3", None),
        ("2:5", "Lead V3R", "V3R", "V3"),  # the code is what is defined
        ("131077", "", "", "V3"),
        ("2:0", "Unspecified lead", "V3", "V3"),
        ("MDC_ECG_LEAD_V3", "", "", "V3"),
        ("x", "", "ECG-V3", "V3"),
        ("x", "Lead V3", "channel 1", "V3"),
    ],
)
def test_a_code_of_dicom_beats_its_label(tmp_path: Path, code: str, meaning: str, label: str, lead: str | None) -> None:
    digital = digital_ecg(60)
    group = dicom_group(digital[[0, 1, 8]], ["I", "II", "V3"])
    channel = group.ChannelDefinitionSequence[2]
    channel.ChannelLabel = label
    channel.ChannelSourceSequence[0].CodeValue = code
    channel.ChannelSourceSequence[0].CodeMeaning = meaning
    ecg = read(tmp_path, dicom(tmp_path, group))
    assert ("V3" not in ecg.missing_leads) == (lead == "V3")
    assert len(ecg.metadata["dropped_leads"]) == (lead is None)


def test_gain_of_a_dicom_lead_without_sensitivity(tmp_path: Path) -> None:
    digital = digital_ecg(60)
    group = dicom_group(digital, LEADS)
    path = tmp_path / "a.dcm"
    path.write_bytes(dicom(tmp_path, group))
    with pytest.raises(ReadError, match="--gain") as caught:
        read_ecg(path, gain=500)
    assert caught.value.reason == "stated_by_file"
    for channel in group.ChannelDefinitionSequence:
        del channel.ChannelSensitivity
    path.write_bytes(dicom(tmp_path, group))
    with pytest.raises(ReadError, match="--gain 1000"):
        read_ecg(path)
    np.testing.assert_allclose(read_ecg(path, gain=500).signal, digital / 500, rtol=1e-6)
