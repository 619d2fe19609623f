"""HL7 aECG, Philips Sierra and GE MUSE: values, units, rate, leads and text; and XML that is out for harm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deri.ecg import ECG, read_ecg
from deri.errors import ReadError
from ecg.writers import LEADS, aecg, aecg_set, digital_ecg, muse, sierra


def read(folder: Path, text: str | bytes, encoding: str = "utf-8") -> ECG:
    # The suffix says nothing: formats are known by their content.
    path = folder / "recording.bin"
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return read_ecg(path)


def reason_of(folder: Path, text: str | bytes, encoding: str = "utf-8") -> str:
    with pytest.raises(ReadError) as caught:
        read(folder, text, encoding)
    assert "recording.bin" in str(caught.value)
    return caught.value.reason


# --- HL7 aECG


def test_aecg_values(tmp_path: Path) -> None:
    digital = digital_ecg()
    ecg = read(tmp_path, aecg(aecg_set(digital, LEADS, scale="2.5", origin="100")))
    assert (ecg.fs, ecg.metadata["format"]) == (500.0, "HL7 aECG")
    np.testing.assert_allclose(ecg.signal, (100 + 2.5 * digital) / 1000, rtol=1e-6)
    assert (ecg.metadata["sex"], ecg.metadata["age"]) == ("female", 49.0)
    assert ecg.metadata["interpretation"] == ["Sinus rhythm"]


def test_aecg_age_by_other_ways(tmp_path: Path) -> None:
    good = aecg(aecg_set(digital_ecg(50), LEADS))
    centre = good.replace('<effectiveTime><low value="20200101120000"/>', '<effectiveTime><center value="20200103"/>')
    assert read(tmp_path, centre).metadata["age"] == 50.0
    stated = good.replace('<birthTime value="19700102"/>', "").replace(
        "<component><series>",
        '<controlVariable><relatedObservation><code code="21612-7"/><value value="46" unit="a"/></relatedObservation>'
        "</controlVariable><component><series>",
    )
    assert read(tmp_path, stated).metadata["age"] == 46.0


@pytest.mark.parametrize(
    ("unit", "step", "fs"),
    [("s", "0.001", 1000.0), ("ms", "4", 250.0), ("us", "2500", 400.0), ("s", "0.0033", 1 / 0.0033)],
)
def test_aecg_rates(tmp_path: Path, unit: str, step: str, fs: float) -> None:
    ecg = read(tmp_path, aecg(aecg_set(digital_ecg(50), LEADS, unit=unit, step=step)))
    assert ecg.fs == pytest.approx(fs, rel=1e-12)


@pytest.mark.parametrize(("volt", "per_mv"), [("uV", 1000), ("mV", 1), ("nV", 1e6), ("V", 1e-3), ("µV", 1000)])
def test_aecg_units(tmp_path: Path, volt: str, per_mv: float) -> None:
    digital = digital_ecg(50)
    ecg = read(tmp_path, aecg(aecg_set(digital, LEADS, volt=volt, scale="1e-3")))
    np.testing.assert_allclose(ecg.signal, digital * 1e-3 / per_mv, rtol=1e-6)


def test_aecg_of_groups_one_after_the_other(tmp_path: Path) -> None:
    """2.5 s of each group of leads and a rhythm lead: every value at its time, NaN where a lead was not recorded."""
    digital = digital_ecg(2000)
    sets = [aecg_set(digital[9:10], ["V4"], code="TIME_RELATIVE", start="0")]
    for k in range(4):
        part = digital[3 * k : 3 * k + 3, 500 * k : 500 * k + 500]
        sets.append(aecg_set(part, LEADS[3 * k : 3 * k + 3], code="TIME_RELATIVE", start=f"{k}.0"))
    ecg = read(tmp_path, aecg(*sets))
    assert ecg.n_samples == 2000
    expected = np.full((12, 2000), np.nan)
    for row in range(12):
        part = slice(500 * (row // 3), 500 * (row // 3) + 500) if row != 9 else slice(None)
        expected[row, part] = digital[row, part] * 0.005
    np.testing.assert_allclose(ecg.signal, expected, rtol=1e-6)


def test_aecg_by_absolute_times(tmp_path: Path) -> None:
    digital = digital_ecg(500)
    sets = [aecg_set(digital[:6], LEADS[:6]), aecg_set(digital[6:], LEADS[6:], start="20200101120001.500")]
    ecg = read(tmp_path, aecg(*sets))
    assert ecg.n_samples == 1250
    assert np.flatnonzero(np.isfinite(ecg.signal[11]))[0] == 750


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1"])
def test_xml_encodings(tmp_path: Path, encoding: str) -> None:
    """Whatever the declaration says: exports through strings keep a false one."""
    declared = "ISO-8859-1" if encoding == "latin-1" else "utf-16"
    text = aecg(aecg_set(digital_ecg(20), LEADS, volt="µV"), declaration=f'<?xml version="1.0" encoding="{declared}"?>')
    np.testing.assert_allclose(read(tmp_path, text, encoding).signal, digital_ecg(20) * 0.005, rtol=1e-6)


def test_aecg_that_cannot_be_used(tmp_path: Path) -> None:
    digital = digital_ecg(20)
    good = aecg(aecg_set(digital, LEADS))
    assert reason_of(tmp_path, aecg()) == "no_signals"
    assert reason_of(tmp_path, good.replace("MDC_ECG_LEAD_V6", "MDC_ECG_LEAD_V5")) == "duplicate_lead"
    assert reason_of(tmp_path, good.replace('unit="uV"', 'unit="mm"')) == "bad_units"
    assert reason_of(tmp_path, good.replace('scale value="5"', 'scale value="x"')) == "bad_gain"
    assert reason_of(tmp_path, good.replace('value="0.002"', 'value="0"')) == "bad_sampling_rate"
    assert reason_of(tmp_path, good.replace("<digits>", "<digits>1,5 ")) == "unreadable_signal"
    assert reason_of(tmp_path, good.replace("<digits>", "<digits>1e400 ", 1)) in (
        "amplitude_out_of_range",
        "unequal_lead_lengths",
    )
    assert reason_of(tmp_path, good[: len(good) // 2]) == "bad_xml"


# --- Philips Sierra


@pytest.mark.parametrize("version", ["1.03", "1.04", "1.04.01"])
@pytest.mark.parametrize("compressed", [True, False])
def test_sierra_values(tmp_path: Path, version: str, compressed: bool) -> None:
    digital = digital_ecg(1500)
    ecg = read(tmp_path, sierra(digital, version=version, compressed=compressed))
    assert (ecg.fs, ecg.metadata["format"]) == (500.0, f"Philips Sierra XML {version}")
    np.testing.assert_allclose(ecg.signal, digital * 0.005, rtol=1e-6)
    assert (ecg.metadata["sex"], ecg.metadata["age"]) == ("male", 69.0)
    assert ecg.metadata["interpretation"] == ["SINUS RHYTHM (normal P axis)"]


def test_calibration_pulse_is_noted_and_left_alone(tmp_path: Path) -> None:
    digital = digital_ecg(5500)
    digital[:, 5300:] = 0
    digital[:, 5350:5450] = 200  # 1 mV at 5 µV for 0.2 s in all leads
    ecg = read(tmp_path, sierra(digital, compressed=False))
    assert "from 10.60 s on" in ecg.metadata["warnings"]["calibration_pulse"]
    np.testing.assert_allclose(ecg.signal, digital * 0.005, rtol=1e-6)
    digital[3, 5380] = 150
    assert ecg.metadata["warnings"] != read(tmp_path, sierra(digital, compressed=False)).metadata["warnings"]


def test_sierra_that_cannot_be_used(tmp_path: Path) -> None:
    good = sierra(digital_ecg(200))
    plain = sierra(digital_ecg(200), compressed=False)
    assert reason_of(tmp_path, good.replace("parsedwaveforms", "other")) == "no_signals"
    assert reason_of(tmp_path, good.replace("<resolution>5", "<resolution>")) == "bad_gain"
    assert reason_of(tmp_path, good.replace("<samplingrate>500", "<samplingrate>-1")) == "bad_sampling_rate"
    assert reason_of(tmp_path, good.replace('"XLI"', '"ZIP"')) == "unsupported_format"
    assert reason_of(tmp_path, good.replace('"Base64"', '"Hex"')) == "unsupported_format"
    assert (
        reason_of(tmp_path, plain.replace('durationperchannel="400"', 'durationperchannel="402"')) == "truncated_signal"
    )
    assert reason_of(tmp_path, good.replace('durationperchannel="400"', 'durationperchannel="1e99"')) == "bad_header"
    old = sierra(digital_ecg(200), version="1.03")
    assert reason_of(tmp_path, old.replace("STD-12", "FRANK")) == "unknown_leads"


def test_sierra_uncompressed_remainders_are_restored(tmp_path: Path) -> None:
    """Plain recorded leads stay as they are; leads that hold only what I and II do not say are made whole."""
    digital = digital_ecg(400) * 4
    plain = read(tmp_path, sierra(digital, compressed=False))
    assert plain.metadata["warnings"] == {}
    np.testing.assert_allclose(plain.signal, digital * 0.005, rtol=1e-6)
    rest = digital.copy()
    rest[2:6] = np.random.default_rng(0).integers(-1, 2, (4, 400))
    ecg = read(tmp_path, sierra(rest, compressed=False))
    assert "limb_leads_restored" in ecg.metadata["warnings"]
    np.testing.assert_allclose(ecg.signal[2], (digital[1] - digital[0] - rest[2]) * 0.005, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(ecg.signal[3], -(ecg.signal[0] + ecg.signal[1]) / 2, atol=0.011)


# --- GE MUSE


def test_muse_values_and_derived_leads(tmp_path: Path) -> None:
    digital = digital_ecg(400)
    stored = [0, 1, 6, 7, 8, 9, 10, 11]
    ecg = read(tmp_path, muse(digital[stored], [LEADS[i] for i in stored]))
    mv = digital * 4.88e-3
    assert (ecg.fs, ecg.metadata["format"]) == (250.0, "GE MUSE XML")
    np.testing.assert_allclose(ecg.signal[stored], mv[stored], rtol=1e-6)
    np.testing.assert_allclose(ecg.signal[2], mv[1] - mv[0], atol=1e-5)
    np.testing.assert_allclose(ecg.signal[3], -(mv[0] + mv[1]) / 2, atol=1e-5)
    np.testing.assert_allclose(ecg.signal[4], mv[0] - mv[1] / 2, atol=1e-5)
    np.testing.assert_allclose(ecg.signal[5], mv[1] - mv[0] / 2, atol=1e-5)
    assert set(ecg.metadata["derived_leads"]) == {"III", "aVR", "aVL", "aVF"}
    assert ecg.metadata["interpretation"] == ["Sinus rhythm", "Anterior infarct"]
    assert (ecg.metadata["sex"], ecg.metadata["age"]) == ("male", 61.0)
    assert ecg.metadata["warnings"] == {}


def test_muse_that_cannot_be_trusted(tmp_path: Path) -> None:
    good = muse(digital_ecg(100), LEADS)
    damaged = read(tmp_path, good.replace("<LeadDataCRC32>", "<LeadDataCRC32>1"))
    assert "V6" in damaged.metadata["warnings"]["checksum_mismatch"]
    assert reason_of(tmp_path, good.replace("MICROVOLTS", "")) == "bad_units"
    assert reason_of(tmp_path, good.replace("PerBit>4.88", "PerBit>")) == "bad_gain"
    assert reason_of(tmp_path, good.replace("CountTotal>100", "CountTotal>101")) == "truncated_signal"
    assert reason_of(tmp_path, good.replace(">Rhythm<", ">Other<")) == "no_signals"


# --- harm


def test_entities_are_never_expanded(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE b [<!ENTITY a "1 1 1 1"><!ENTITY b "&a;&a;&a;">]>'
    good = aecg(aecg_set(digital_ecg(20), LEADS))
    assert reason_of(tmp_path, good.replace("<AnnotatedECG", bomb + "<AnnotatedECG")) == "bad_xml"
    (tmp_path / "secret").write_text("1 2 3")
    external = f'<!DOCTYPE b [<!ENTITY a SYSTEM "file://{tmp_path}/secret">]>'
    text = good.replace("<AnnotatedECG", external + "<AnnotatedECG").replace("<digits>", "<digits>&a; ")
    assert reason_of(tmp_path, text) == "bad_xml"
    # MUSE files name a DTD, which nobody reads; an entity that it would define is unknown.
    assert reason_of(tmp_path, muse(digital_ecg(20), LEADS).replace("Sinus", "&x;")) == "bad_xml"


def test_xml_out_of_measure(tmp_path: Path) -> None:
    deep = "<AnnotatedECG>" + "<a>" * 100_000 + "</a>" * 100_000 + "</AnnotatedECG>"
    assert reason_of(tmp_path, deep) == "bad_xml"
    assert reason_of(tmp_path, "<AnnotatedECG>" + "<a/>" * 1_000_001 + "</AnnotatedECG>") == "too_long"


def test_foreign_xml_is_named(tmp_path: Path) -> None:
    text = '<?xml version="1.0"?><!-- <AnnotatedECG> --><x:svg xmlns:x="u"/>'
    with pytest.raises(ReadError, match="root <svg>"):
        read(tmp_path, text)


# --- real files


def test_real_sierra_files_equal_another_reader(ecg_real: Path) -> None:
    sierraecg = pytest.importorskip("sierraecg")
    folder = ecg_real / "formats" / "sierra-xml"
    for name in ("129DYPRG.XML", "3191723_ZZDEMOPTONLY_1-04_orig.xml"):
        ecg = read_ecg(folder / name)
        other = sierraecg.read_file(str(folder / name))
        assert [lead.label for lead in other.leads] == list(LEADS)
        np.testing.assert_allclose(ecg.signal, np.stack([lead.samples for lead in other.leads]) * 0.005, atol=1e-6)
        assert (ecg.fs, ecg.n_samples) == (500.0, 5500)
        assert "calibration_pulse" in ecg.metadata["warnings"]


def test_real_sierra_files_obey_goldberger(ecg_real: Path) -> None:
    """Independent of any reader: stored differences would leave III, aVR, aVL and aVF near zero."""
    for path in sorted((ecg_real / "formats" / "sierra-xml").glob("*[Mm][Ll]")):
        s = read_ecg(path).signal[:, :5000].astype(np.float64)
        assert np.ptp(s[2]) > 0.5
        np.testing.assert_allclose(s[0] + s[2], s[1], atol=0.031)
        np.testing.assert_allclose(s[3], -(s[0] + s[1]) / 2, atol=0.021)
        np.testing.assert_allclose(s[4], (s[0] - s[2]) / 2, atol=0.021)
        np.testing.assert_allclose(s[5], (s[1] + s[2]) / 2, atol=0.021)


def test_converted_sierra_file_is_an_aecg(ecg_real: Path) -> None:
    """Its name says Sierra 1.04, its content is an HL7 aECG; values against its text, split by hand."""
    path = ecg_real / "formats" / "sierra-xml" / "ad4d3d80-d165_1-04_converted.xml"
    ecg = read_ecg(path)
    assert ecg.metadata["format"] == "HL7 aECG"
    rhythm = path.read_text(encoding="utf-8").split("REPRESENTATIVE_BEAT")[0]
    for part in rhythm.split('<code code="MDC_ECG_LEAD_')[1:13]:
        row = [lead.upper() for lead in LEADS].index(part.partition('"')[0])
        digits = part.split("<digits>")[1].split("</digits>")[0].split()
        np.testing.assert_allclose(ecg.signal[row], np.array(digits, dtype=float) * 0.005, atol=1e-5)
    assert ecg.fs == 500.0
    assert ecg.metadata["interpretation"][0] == "(SB) SINUS BRADYCARDIA, V-rate<60,"
