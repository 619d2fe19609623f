from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import wfdb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deri.ecg import LEADS, canonical_lead, read_ecg
from deri.ecg.formats import wfdb as reader
from deri.ecg.gains import with_common_gain
from deri.errors import ReadError

Write = Callable[..., Path]


def reason_of(path: Path) -> str:
    with pytest.raises(ReadError) as caught:
        read_ecg(path)
    assert str(path.parent) in str(caught.value)  # the message names the file
    return caught.value.reason


def through_wfdb(path: Path, **options) -> np.ndarray:
    """float32 (12, n) by the wfdb package alone; leads that are not there are NaN."""
    record = wfdb.rdrecord(str(path.with_suffix("")), **options)
    out = np.full((12, record.p_signal.shape[0]), np.nan, dtype=np.float32)
    for i, name in enumerate(record.sig_name):
        if canonical_lead(name):
            out[LEADS.index(canonical_lead(name))] = record.p_signal[:, i].astype(np.float32)
    return out


gains = st.one_of(
    st.integers(10, 30000).map(str),
    st.floats(10, 5000).map(lambda value: f"{value:.4f}"),
    st.sampled_from(["1000.0", "0", "-200", "1e3", ".5e3"]),
)
baselines = st.one_of(st.just(""), st.integers(-40000, 40000).map(lambda value: f"({value})"))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_direct_reader_equals_wfdb(tmp_path: Path, write_record: Write, monkeypatch, data: st.DataObject) -> None:
    monkeypatch.setattr(reader, "read_digital", None)  # whatever is read here is read directly
    order = data.draw(st.permutations([*LEADS, "vx", "resp"]))
    names = list(order[: data.draw(st.integers(4, 14))])
    if not any(map(canonical_lead, names)):
        names[0] = "V1"
    n = data.draw(st.integers(1, 230))
    samples = np.random.default_rng(data.draw(st.integers(0, 2**32))).integers(-32768, 32768, (n, len(names)))
    if data.draw(st.booleans()):
        samples[:: data.draw(st.integers(1, 5)), data.draw(st.integers(0, len(names) - 1))] = -32768
    prefix = data.draw(st.sampled_from([b"", b"x" * 24]))
    path = write_record(
        tmp_path,
        "r",
        samples,
        names=names,
        gain=[data.draw(gains) + data.draw(baselines) + data.draw(st.sampled_from(["", "/mV"])) for _ in names],
        zeros=[data.draw(st.integers(-100, 100)) for _ in names],
        form=data.draw(st.sampled_from(["16", "16x1"])) + (f"+{len(prefix)}" if prefix else ""),
        prefix=prefix,
    )
    ecg, expected = read_ecg(path), through_wfdb(path)
    recorded = [LEADS.index(canonical_lead(name)) for name in names if canonical_lead(name)]
    np.testing.assert_array_equal(ecg.signal[recorded], expected[recorded])
    assert set(ecg.missing_leads) <= {LEADS[row] for row in range(12) if row not in recorded} | {
        LEADS[row] for row in recorded if np.isnan(expected[row]).all()
    }
    assert "checksum_mismatch" not in ecg.metadata["warnings"]


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("mV", 1), ("mv", 1), ("MV", 1), ("uV", 1e-3), ("µV", 1e-3), ("UV", 1e-3), ("nV", 1e-6), ("V", 1e3)],
)
def test_units(tmp_path: Path, write_record: Write, digital: np.ndarray, unit: str, factor: float) -> None:
    gain = {1: 400, 1e-3: 0.4, 1e-6: 4e-4, 1e3: 4e5}[factor]
    ecg = read_ecg(write_record(tmp_path, "r", digital, gain=f"{gain:f}/{unit}"))
    np.testing.assert_allclose(ecg.signal, digital.T / gain * factor, rtol=1e-6)


def test_leads_of_a_mimic_record_come_by_name(tmp_path: Path, write_record: Write, digital: np.ndarray) -> None:
    names = ["I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6"]
    ecg = read_ecg(write_record(tmp_path, "4", digital, names=names, gain="200.0(0)/mV"))
    assert np.array_equal(ecg.signal[4], (digital[:, 5] / 200).astype(np.float32))
    assert np.array_equal(ecg.signal[5], (digital[:, 4] / 200).astype(np.float32))


def test_eight_channel_record_derives_the_limb_leads(tmp_path: Path, write_record: Write, digital: np.ndarray) -> None:
    names = ["II", "V1", "I", "V2", "V3", "V4", "V5", "V6"]
    ecg = read_ecg(write_record(tmp_path, "r", digital[:, :8], names=names))
    lead_ii, lead_i = digital[:, 0] / 1000, digital[:, 2] / 1000
    np.testing.assert_allclose(ecg.signal[2], lead_ii - lead_i, atol=1e-6)
    np.testing.assert_allclose(ecg.signal[3], -(lead_i + lead_ii) / 2, atol=1e-6)
    assert list(ecg.metadata["derived_leads"]) == ["III", "aVR", "aVL", "aVF"]
    assert ecg.missing_leads == ()


def test_metadata(tmp_path: Path, write_record: Write, digital: np.ndarray) -> None:
    path = write_record(tmp_path, "r", digital, comments="# Age: 63\n#Sex: Female\n#Dx: \n#free text\n")
    ecg = read_ecg(path)
    assert ecg.fs == 500
    assert ecg.metadata["age"] == 63
    assert ecg.metadata["sex"] == "female"
    assert ecg.metadata["dx"] == ()
    assert ecg.metadata["comments"][-1] == "free text"
    assert ecg.metadata["source_file"] == str(path)
    assert ecg.metadata["warnings"] == {}


def test_wrong_checksums_are_reported_by_lead(tmp_path: Path, write_record: Write, digital: np.ndarray) -> None:
    right = [int(digital[:, i].astype(int).sum()) for i in range(12)]
    wrong = [*right]
    wrong[1], wrong[7] = wrong[1] + 1, 0
    warnings = read_ecg(write_record(tmp_path, "r", digital, checksums=wrong)).metadata["warnings"]
    assert list(warnings) == ["checksum_mismatch"]
    assert warnings["checksum_mismatch"].endswith("II, V2")
    signed = [((value + 2**15) % 2**16) - 2**15 for value in right]
    assert read_ecg(write_record(tmp_path, "s", digital, checksums=signed)).metadata["warnings"] == {}
    nothing_computed = write_record(tmp_path, "z", digital, checksums=[0] * 12)
    assert read_ecg(nothing_computed).metadata["warnings"] == {}


def test_surplus_and_uncalibrated_are_reported(tmp_path: Path, write_record: Write, digital: np.ndarray) -> None:
    path = write_record(tmp_path, "r", digital, gain="0/mV")
    with open(path.with_suffix(".dat"), "ab") as handle:
        handle.write(b"\0" * 10)
    ecg = read_ecg(path)
    assert set(ecg.metadata["warnings"]) == {"surplus_data", "uncalibrated"}
    np.testing.assert_allclose(ecg.signal, digital.T / 200, rtol=1e-6)


def test_length_is_inferred_where_the_header_has_none(tmp_path: Path, write_record: Write, digital: np.ndarray) -> None:
    path = write_record(tmp_path, "r", digital)
    path.write_text(path.read_text().replace("r 12 500 1500", "r 12 500"))
    assert read_ecg(path).n_samples == 1500
    with open(path.with_suffix(".dat"), "ab") as handle:
        handle.write(b"\0" * 2)
    assert reason_of(path) == "unequal_lead_lengths"
    path.with_suffix(".dat").write_bytes(b"")
    assert reason_of(path) == "truncated_signal"


def test_gains_that_break_einthoven_are_reported(tmp_path: Path, write_record: Write, digital: np.ndarray) -> None:
    each_on_its_own = [f"{np.ptp(digital[:, i])}/mV" for i in range(12)]
    ecg = read_ecg(write_record(tmp_path, "r", digital, gain=each_on_its_own))
    assert list(ecg.metadata["warnings"]) == ["inconsistent_gains"]
    np.testing.assert_allclose(np.ptp(ecg.signal, axis=1), 1.0, rtol=1e-5)  # as the header says
    once = with_common_gain(ecg)
    np.testing.assert_allclose(once.signal, digital.T / 1000, rtol=1e-5, atol=1e-6)
    assert list(once.metadata["warnings"]) == ["inconsistent_gains", "common_gain"]
    assert with_common_gain(once) is once
    scaled = digital.copy()
    scaled[:, 1] //= 2  # really recorded with half the gain: consistent
    gains = ["1000/mV"] * 12
    gains[1] = "500/mV"
    assert read_ecg(write_record(tmp_path, "s", scaled, gain=gains)).metadata["warnings"] == {}
    gains = ["1000/mV", "1000/uV", *["1000/mV"] * 10]  # one number, another unit
    assert list(read_ecg(write_record(tmp_path, "t", digital, gain=gains)).metadata["warnings"]) == [
        "inconsistent_gains"
    ]


@pytest.mark.parametrize("form", ["80", "212", "24", "32"])
def test_other_formats_equal_wfdb(tmp_path: Path, form: str) -> None:
    rng = np.random.default_rng(3)
    physical = rng.normal(size=(700, 12)) * 0.2
    physical[5:9, 3] = np.nan
    wfdb.wrsamp("r", 500, ["mV"] * 12, list(LEADS), p_signal=physical, fmt=[form] * 12, write_dir=str(tmp_path))
    ecg = read_ecg(tmp_path / "r")
    np.testing.assert_allclose(ecg.signal, through_wfdb(tmp_path / "r.hea"), rtol=1e-6, atol=1e-7)
    assert np.isnan(ecg.signal[3, 5:9]).all()
    assert np.isfinite(ecg.signal[3, 9:]).all()
    assert ecg.metadata["warnings"] == {}  # also means that wfdb's checksums agree


def test_one_file_per_lead(tmp_path: Path, digital: np.ndarray) -> None:
    lines = ["r 12 500 1500"]
    for i, name in enumerate(LEADS):
        (tmp_path / f"{name}.dat").write_bytes(digital[:, i].astype("<i2").tobytes())
        lines.append(f"{name}.dat 16 500/mV 16 0 0 {int(digital[:, i].astype(int).sum())} 0 {name}")
    path = tmp_path / "r.hea"
    path.write_text("\n".join(lines))
    ecg = read_ecg(path)
    np.testing.assert_allclose(ecg.signal, digital.T / 500, rtol=1e-6)
    assert ecg.metadata["warnings"] == {}
    (tmp_path / "V2.dat").write_bytes(digital[:1000, 7].astype("<i2").tobytes())
    assert reason_of(path) == "unequal_lead_lengths"
    path.write_text("\n".join([lines[0].replace(" 1500", ""), *lines[1:]]))
    assert reason_of(path) == "unequal_lead_lengths"
    (tmp_path / "V2.dat").unlink()
    assert reason_of(path) == "missing_signal_file"


def test_a_missing_file_of_another_channel_does_not_matter(
    tmp_path: Path, write_record: Write, digital: np.ndarray
) -> None:
    path = write_record(tmp_path, "r", digital)
    text = path.read_text().replace("r 12", "r 13") + "frank.xyz 16 1000/mV 16 0 0 0 0 vx\n"
    path.write_text(text)
    ecg = read_ecg(path)
    assert ecg.metadata["dropped_leads"] == ["vx"]
    np.testing.assert_allclose(ecg.signal, digital.T / 1000, rtol=1e-6)


def test_all_leads_at_several_samples_per_frame(tmp_path: Path, digital: np.ndarray) -> None:
    frames = digital[:, :2].reshape(500, 3, 2).transpose(0, 2, 1).reshape(500, 6)  # I I I II II II
    (tmp_path / "r.dat").write_bytes(frames.astype("<i2").tobytes())
    path = tmp_path / "r.hea"
    path.write_text("r 2 100 500\nr.dat 16x3 200/mV 16 0 0 0 0 I\nr.dat 16x3 200/mV 16 0 0 0 0 II\n")
    ecg = read_ecg(path)
    assert ecg.fs == 300
    np.testing.assert_allclose(ecg.signal[:2], digital[:, :2].T / 200, rtol=1e-6)
    path.write_text("r 2 100 500\nr.dat 16x5 200/mV 16 0 0 0 0 I\nr.dat 16 200/mV 16 0 0 0 0 II\n")
    assert reason_of(path) == "unequal_lead_lengths"


def test_segments(tmp_path: Path, write_record: Write, digital: np.ndarray) -> None:
    write_record(tmp_path, "s1", digital[:600])
    write_record(tmp_path, "s2", digital[600:])
    path = tmp_path / "m.hea"
    path.write_text("m/2 12 500 1500\ns1 600\ns2 900\n#Age: 40\n")
    ecg = read_ecg(path)
    np.testing.assert_allclose(ecg.signal, digital.T / 1000, rtol=1e-6)
    assert ecg.metadata["age"] == 40
    (tmp_path / "s2.dat").unlink()
    assert reason_of(path) == "missing_signal_file"
    path.write_text("m/2 12 500 900000000000\ns1 600\ns2 900\n")
    assert reason_of(path) == "bad_header"
    path.write_text("m/2 12 500 900000000000\ns1 600\n~ 899999999400\n")
    assert reason_of(path) == "too_long"
    path.write_text("m/1 12 500 600\nm 600\n")  # a record that contains itself
    assert reason_of(path) == "bad_header"
    path.write_text("m/1 12 500 600\n../s1 600\n")
    assert reason_of(path) == "bad_header"


BROKEN = {
    "no signals": ("r 0 500 1500\n", "no_signals"),
    "nothing": ("", "bad_header"),
    "no lead": ("r 1 500 10\nr.dat 16 200/mV 16 0 0 0 0 PLETH\n", "unknown_leads"),
    "no description": ("r 1 500 10\nr.dat 16\n", "unknown_leads"),
    "twice": ("r 2 500 10\nr.dat 16 200/mV 16 0 0 0 0 II\nr.dat 16 200/mV 16 0 0 0 0 ii\n", "duplicate_lead"),
    "unit": ("r 1 500 10\nr.dat 16 200/mmHg 16 0 0 0 0 II\n", "bad_units"),
    "tiny gain": ("r 1 500 10\nr.dat 16 1e-9/mV 16 0 0 0 0 II\n", "bad_gain"),
    "huge gain": ("r 1 500 10\nr.dat 16 2000000/mV 16 0 0 0 0 II\n", "bad_gain"),
    "folder": ("r 1 500 10\n../r.dat 16 200/mV 16 0 0 0 0 II\n", "bad_header"),
    "absolute": ("r 1 500 10\n/etc/passwd 16 200/mV 16 0 0 0 0 II\n", "bad_header"),
    "dots": ("r 1 500 10\n.. 16 200/mV 16 0 0 0 0 II\n", "bad_header"),
    "packed folder": ("r 1 500 10\n../r.dat 212 200/mV 16 0 0 0 0 II\n", "bad_header"),
    "format": ("r 1 500 10\nr.dat 17 200/mV 16 0 0 0 0 II\n", "unsupported_format"),
    "samples": ("r 1 500 999999999999999\nr.dat 16 200/mV 16 0 0 0 0 II\n", "truncated_signal"),
    "samples packed": ("r 1 500 999999999999999\nr.dat 212 200/mV 16 0 0 0 0 II\n", "truncated_signal"),
    "samples flac": ("r 1 500 999999999999999\nr.dat 516 200/mV 16 0 0 0 0 II\n", "too_long"),
    "not flac": ("r 1 500 10\nr.dat 516 200/mV 16 0 0 0 0 II\n", "unreadable_signal"),
    "offset": ("r 1 500 10\nr.dat 16+999999999999999 200/mV 16 0 0 0 0 II\n", "truncated_signal"),
    "per frame": ("r 1 500 10\nr.dat 16x999999999999999 200/mV 16 0 0 0 0 II\n", "truncated_signal"),
    "other file": ("r 1 500 10\nelse.dat 16 200/mV 16 0 0 0 0 II\n", "missing_signal_file"),
    "is a folder": ("r 1 500 10\nsub 16 200/mV 16 0 0 0 0 II\n", "unreadable_file"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_headers_have_a_true_reason(tmp_path: Path, case: str) -> None:
    text, reason = BROKEN[case]
    (tmp_path / "r.dat").write_bytes(b"\1\0" * 40)
    (tmp_path / "sub").mkdir()
    path = tmp_path / "r.hea"
    path.write_text(text)
    assert reason_of(path) == reason


def test_truncated_file_says_how_much_is_there(tmp_path: Path, write_record: Write, digital: np.ndarray) -> None:
    path = write_record(tmp_path, "r", digital)
    data = path.with_suffix(".dat")
    data.write_bytes(data.read_bytes()[: 24 * 700 + 5])
    with pytest.raises(ReadError, match="700 of 1500") as caught:
        read_ecg(path)
    assert caught.value.reason == "truncated_signal"


def test_binary_header_and_huge_header(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "r.hea"
    path.write_bytes(bytes(range(256)) * 4)
    assert reason_of(path) == "bad_header"
    monkeypatch.setattr(reader, "_MAX_HEADER_BYTES", 100)
    assert reason_of(path) == "bad_header"


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_headers_are_read_or_refused(tmp_path: Path, write_record: Write, data: st.DataObject) -> None:
    path = write_record(tmp_path, "r", np.arange(240).reshape(20, 12))
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(raw) - 1))
        kind = data.draw(st.sampled_from(["change", "drop", "double", "cut"]))
        if kind == "change":
            raw[at] = data.draw(st.sampled_from(list(b"0159x+:()/-. \nIVv#\0\xff")))
        elif kind == "drop":
            del raw[at : at + data.draw(st.integers(1, 9))]
        elif kind == "double":
            raw[at:at] = raw[at : at + 9]
        else:
            del raw[at:]
        if not raw:
            break
    path.write_bytes(bytes(raw))
    try:
        ecg = read_ecg(path)
    except ReadError as error:
        assert error.reason  # noqa: PT017
    else:
        assert ecg.signal.shape[0] == 12
        assert 0 < ecg.fs < math.inf


def test_a_record_in_capitals(tmp_path: Path, write_record: Write) -> None:
    """The header may keep the small letters of its signal file. A record in small letters beside it goes first."""
    usual = write_record(tmp_path, "r1", np.arange(240).reshape(20, 12))
    expected = read_ecg(usual).signal
    usual.rename(tmp_path / "R1.HEA")
    (tmp_path / "r1.dat").rename(tmp_path / "R1.DAT")
    for name in ("R1.HEA", "R1.DAT", "R1"):
        np.testing.assert_array_equal(read_ecg(tmp_path / name).signal, expected)
    other = write_record(tmp_path, "R1", np.ones((20, 12)))
    np.testing.assert_array_equal(read_ecg(tmp_path / "R1").signal, read_ecg(other).signal)
    (tmp_path / "R1.DAT").unlink()
    with pytest.raises(ReadError, match=r"R1\.DAT is missing"):
        read_ecg(tmp_path / "R1.HEA")
