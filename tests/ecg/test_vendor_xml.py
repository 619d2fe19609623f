"""XML of CardioSoft, MUSE in its wrapper, Schiller and Mortara, against the numbers that stand in the file."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest

from ecg.in_bytes import read, reason_of
from ecg.writers import LEADS, digital_ecg, muse


def cardiosoft(digital: np.ndarray) -> str:
    """The form of files of CardioSoft 6.7: median beats first, samples in lines that begin with tabs."""
    lines = [",\n\t\t\t".join(",".join(map(str, part)) for part in np.split(row, [200])) for row in digital]
    leads = "".join(
        f'<WaveformData lead="{name}">\t\t\t{line}</WaveformData>' for name, line in zip(LEADS, lines, strict=True)
    )
    return (
        '<?xml version="1.0" encoding="ISO8859-1"?><CardiologyXML><ObservationType>RestECG</ObservationType>'
        "<PatientInfo><Age units='YEARS'>61</Age><Gender>MALE</Gender></PatientInfo><Interpretation><Diagnosis>"
        "<DiagnosisText>Normal sinus rhythm</DiagnosisText><DiagnosisText/></Diagnosis></Interpretation>"
        "<RestingECGMeasurements><MedianSamples><SampleRate units='Hz'>250</SampleRate>"
        "<WaveformData lead='I'>1,2,3</WaveformData></MedianSamples></RestingECGMeasurements>"
        f'<StripData><SampleRate units="Hz">500</SampleRate><ChannelSampleCountTotal>{digital.shape[1]}'
        f'</ChannelSampleCountTotal><Resolution units="uVperLsb">5</Resolution>{leads}</StripData></CardiologyXML>'
    )


def mortara(digital: np.ndarray, per_mv: str = "200", offset: str = "0") -> str:
    channels = "".join(
        f'<CHANNEL NAME="{name}" BITS="16" FORMAT="SIGNED" UNITS_PER_MV="{per_mv}" DURATION="{row.size}" '
        f'OFFSET="{offset}" SAMPLE_FREQ="1000" ENCODING="BASE64" DATA="{base64.b64encode(row.tobytes()).decode()}"/>'
        for name, row in zip(LEADS, digital.astype("<i2"), strict=True)
    )
    return (
        '<?xml version="1.0"?><ECG ACQUISITION_TIME="20200101120000" AGE="40" AGE_UNITS="YEARS"><SUBJECT GENDER="F"/>'
        f'<AUTOMATIC_INTERPRETATION><STATEMENT TEXT="Sinus rhythm"/></AUTOMATIC_INTERPRETATION>{channels}</ECG>'
    )


def schiller(digital: np.ndarray, form: str = "COMMASEPARATE") -> str:
    channels = "".join(
        f"<channel><name>{name}</name><datastype>{form}</datastype><data>{','.join(map(str, row))}</data></channel>"
        for name, row in zip(LEADS, digital, strict=True)
    )
    wave = (
        "<wavedata><type>{}</type><resolution><samplerate><value>500</value><exponent>1</exponent><units>Hz</units>"
        "</samplerate><yres><unitperbit>2.5</unitperbit><units>uV</units></yres></resolution>{}</wavedata>"
    )
    average = wave.format("ECG_AVERAGES", channels.replace("<data>", "<data>99,"))
    return (
        '<?xml version="1.0"?><examdata><examdescript/><eventdata><event>'
        f"{average}{wave.format('ECG_RHYTHMS', channels)}</event></eventdata></examdata>"
    )


def test_cardiosoft(tmp_path: Path) -> None:
    digital = digital_ecg(400)
    ecg = read(tmp_path, cardiosoft(digital).encode())
    assert (ecg.fs, ecg.metadata["age"], ecg.metadata["sex"]) == (500, 61, "male")
    assert ecg.metadata["interpretation"] == ["Normal sinus rhythm"]
    np.testing.assert_allclose(ecg.signal, digital * 5e-3, rtol=1e-6)
    good = cardiosoft(digital)
    assert reason_of(tmp_path, good.replace(">400<", ">401<").encode()) == "truncated_signal"
    assert reason_of(tmp_path, good.replace('units="uVperLsb"', 'units="mm"').encode()) == "bad_units"
    assert reason_of(tmp_path, good.replace('lead="II">\t', 'lead="II">1,,').encode()) == "unreadable_signal"
    assert reason_of(tmp_path, b"<CardiologyXML><StripData/></CardiologyXML>") == "no_signals"


def test_muse_in_its_wrapper(tmp_path: Path) -> None:
    digital = digital_ecg(400)
    text = muse(digital, LEADS)
    inner = text[text.index("<RestingECG") :]
    ecg = read(tmp_path, f"<CardiologyXML>{inner}</CardiologyXML>".encode())
    np.testing.assert_array_equal(ecg.signal, read(tmp_path, text.encode()).signal)
    assert ecg.metadata["format"] == "GE MUSE XML"


def test_mortara(tmp_path: Path) -> None:
    pytest.importorskip("ecgdatakit")
    digital = digital_ecg(400)
    ecg = read(tmp_path, mortara(digital).encode())
    assert (ecg.fs, ecg.metadata["age"], ecg.metadata["sex"]) == (1000, 40, "female")
    assert ecg.metadata["interpretation"] == ["Sinus rhythm"]
    np.testing.assert_allclose(ecg.signal, digital / 200, rtol=1e-6)
    assert reason_of(tmp_path, mortara(digital, per_mv="").encode()) == "bad_gain"
    assert reason_of(tmp_path, mortara(digital, offset="7").encode()) == "bad_gain"
    text = mortara(digital).replace('SAMPLE_FREQ="1000"', 'SAMPLE_FREQ="500"', 1)
    assert reason_of(tmp_path, text.encode()) == "unequal_lead_lengths"
    assert reason_of(tmp_path, mortara(digital)[:-300].encode()) == "bad_xml"


def test_schiller(tmp_path: Path) -> None:
    digital = digital_ecg(400)
    ecg = read(tmp_path, schiller(digital).encode())
    assert ecg.fs == 500
    np.testing.assert_allclose(ecg.signal, digital * 2.5e-3, rtol=1e-6)
    assert reason_of(tmp_path, schiller(digital, "BASE64").encode()) == "unsupported_format"
    text = schiller(digital).replace("<exponent>1<", "<exponent>3<")
    assert reason_of(tmp_path, text.encode()) == "bad_sampling_rate"
    assert reason_of(tmp_path, schiller(digital).replace("ECG_RHYTHMS", "OTHER").encode()) == "no_signals"
