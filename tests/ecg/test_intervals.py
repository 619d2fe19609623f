"""Intervals, on beats whose waves begin and end at known times, and on files whose maker states them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deri.ecg import ECG, LEADS, read_ecg
from deri.ecg.intervals import INTERVALS, intervals


def bump(t: np.ndarray, begin: float, end: float) -> np.ndarray:
    """A wave of height 1 between two times, zero elsewhere."""
    phase = (t - begin) / (end - begin)
    return np.where((phase > 0) & (phase < 1), np.sin(np.pi * phase) ** 2, 0.0)


def beats(*, rr: float = 0.8, pr: float = 0.16, qrs: float = 0.1, qt: float = 0.4, p: float = 0.15) -> ECG:
    """Lead I and aVF 1 : √3/2 in the QRS complex: an axis of 45°."""
    t = np.mod(np.arange(5000) / 500, rr)
    at = 0.3  # of the QRS complex
    part = p * bump(t, at - pr, at - pr + 0.09) + 1.2 * bump(t, at, at + qrs) + 0.3 * bump(t, at + qt - 0.18, at + qt)
    weights = dict.fromkeys(LEADS, 0.5) | {"I": 1.0, "aVF": 3**0.5 / 2}
    return ECG(np.stack([weights[lead] * part for lead in LEADS]).astype(np.float32), 500.0)


def test_known_waves() -> None:
    found = intervals(beats())
    assert tuple(found) == INTERVALS
    assert found["rate_bpm"] == pytest.approx(75, abs=0.5)
    assert found["pr_ms"] == pytest.approx(160, abs=15)
    assert found["qrs_ms"] == pytest.approx(100, abs=12)
    assert found["qt_ms"] == pytest.approx(400, abs=25)
    assert found["qtc_ms"] == pytest.approx(found["qt_ms"] / 0.8**0.5, rel=0.01)
    assert found["axis_deg"] == pytest.approx(45, abs=1)


@pytest.mark.parametrize(
    ("name", "change", "by"), [("pr_ms", {"pr": 0.22}, 60), ("qrs_ms", {"qrs": 0.15}, 50), ("qt_ms", {"qt": 0.44}, 40)]
)
def test_each_interval_follows_its_wave(name: str, change: dict[str, float], by: float) -> None:
    assert intervals(beats(**change))[name] - intervals(beats())[name] == pytest.approx(by, abs=9)


def test_a_complex_whose_begin_is_not_seen_has_no_intervals() -> None:
    """A slope of 3 mV/s runs into it from 250 ms before."""
    ecg = beats(p=0.0)
    t = np.mod(np.arange(5000) / 500, 0.8)
    slope = np.interp(t, [0.05, 0.3, 0.35], [0, 0.75, 0], left=0, right=0)
    found = intervals(ECG(ecg.signal + slope.astype(np.float32), 500.0))
    assert found["rate_bpm"] == pytest.approx(75, abs=0.5)
    assert {found[name] for name in INTERVALS if name != "rate_bpm"} == {None}


def test_what_is_not_there_is_none() -> None:
    assert intervals(beats(p=0.0))["pr_ms"] is None
    one = beats()
    one.signal[1:] = np.nan
    found = intervals(one)
    assert found["axis_deg"] is None
    assert found["rate_bpm"] == pytest.approx(75, abs=0.5)
    for signal, fs in (
        (np.zeros((12, 5000)), 500.0),
        (np.full((12, 5000), np.nan), 500.0),
        (np.ones((12, 3)), 500.0),
        (np.zeros((12, 300)), 30.0),
    ):
        assert set(intervals(ECG(signal.astype(np.float32), fs)).values()) == {None}


def test_an_interval_that_is_not_to_be_trusted_is_none() -> None:
    wide = beats()
    ramp = 1.2 * np.clip(1 - np.abs(np.mod(np.arange(5000) / 500, 0.8) - 0.4) / 0.16, 0, None)  # never calm for 320 ms
    wide.signal[:] = np.stack([(0.5 + 0.04 * i) * ramp for i in range(12)])
    for found in (intervals(beats(qrs=0.03)), intervals(wide)):
        assert found["rate_bpm"] == pytest.approx(75, abs=0.5)
        assert {value for name, value in found.items() if name != "rate_bpm"} == {None}
    assert intervals(beats(pr=0.05))["pr_ms"] is None
    paced = beats(p=0.0)
    paced.signal[:, np.arange(5000) % 400 == 100] += 3.0  # 100 ms before the QRS complex
    assert intervals(paced)["pr_ms"] is None


def test_waves_that_differ_from_beat_to_beat_are_no_p_wave() -> None:
    ecg = beats(p=0.0)
    t = np.arange(5000) / 500
    for k in range(12):  # a wave before each QRS complex, each time at another place and of another sign
        begin = 0.8 * k + 0.08 + 0.05 * (k % 3)
        ecg.signal[:] += (0.15 * (-1) ** k * bump(t, begin, begin + 0.09)).astype(np.float32)
    assert intervals(ecg)["pr_ms"] is None


def test_printed_sheets_are_measured_in_the_rhythm_strip() -> None:
    sheet = beats()
    for i, lead in enumerate(LEADS):
        if lead != "II":
            sheet.signal[i, : 1250 * (i % 4)] = np.nan
            sheet.signal[i, 1250 * (i % 4 + 1) :] = np.nan
    found = intervals(sheet)
    assert found["rate_bpm"] == pytest.approx(75, abs=0.5)
    assert found["axis_deg"] is None


def test_a_philips_file_states_nearly_the_same(ecg_real: Path) -> None:
    """Its own figures: 41/min, PR 140, QRS 96, QT 488 ms."""
    found = intervals(read_ecg(ecg_real / "formats/sierra-xml/ad4d3d80-d165_1-04_converted.xml"))
    assert found["rate_bpm"] == pytest.approx(41, abs=1)
    assert found["pr_ms"] == pytest.approx(140, abs=20)
    assert found["qrs_ms"] == pytest.approx(96, abs=15)
    assert found["qt_ms"] == pytest.approx(488, abs=20)
