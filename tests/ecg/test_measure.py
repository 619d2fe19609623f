"""Intervals of a recording, on beats whose waves begin and end where we put them."""

from __future__ import annotations

import numpy as np
import pytest

from deri.ecg import ECG
from deri.ecg.leads import LEADS
from deri.ecg.measure import INTERVALS, intervals


def beats(*, p_wave: bool = True, seconds: float = 10, fs: float = 500.0) -> ECG:
    """75 beats a minute: P from -180 to -80 ms, QRS from -40 to 40 ms, T from 200 to 360 ms about the R peak."""
    time = np.arange(round(seconds * fs)) / fs % 0.8 - 0.4

    def wave(begin: float, end: float, height: float) -> np.ndarray:
        inside = (time >= begin) & (time <= end)
        return height * inside * np.sin(np.pi * (time - begin) / (end - begin)) ** 2

    signal = wave(-0.04, 0.04, 1.0) + wave(0.2, 0.36, 0.3) + (wave(-0.18, -0.08, 0.15) if p_wave else 0)
    scale = np.array([1.0 if lead in ("I", "II", "aVF") else 0.7 for lead in LEADS])
    return ECG(scale[:, None] * signal, fs)


def test_intervals_by_construction() -> None:
    """To 25 ms: waves are found a little within their feet."""
    found = intervals(beats())
    assert list(found) == list(INTERVALS)
    assert found["rate_bpm"] == pytest.approx(75, abs=0.5)
    assert found["pr_ms"] == pytest.approx(140, abs=25)
    assert found["qrs_ms"] == pytest.approx(80, abs=25)
    assert found["qt_ms"] == pytest.approx(400, abs=50)
    assert found["qtc_ms"] == pytest.approx(found["qt_ms"] / np.sqrt(0.8))
    # Equal net areas in I and aVF: atan2(2/√3, 1) is 49.1 degrees.
    assert found["axis_deg"] == pytest.approx(49.1, abs=0.5)


def test_what_cannot_be_measured_is_none() -> None:
    assert intervals(beats(p_wave=False))["pr_ms"] is None
    without = beats()
    signal = without.signal.copy()
    signal[LEADS.index("aVF")] = np.nan
    found = intervals(ECG(signal, without.fs))
    assert found["axis_deg"] is None
    assert found["rate_bpm"] == pytest.approx(75, abs=0.5)


def test_a_long_recording_is_measured_by_its_first_minute() -> None:
    assert intervals(beats(seconds=150)) == intervals(beats(seconds=60))
