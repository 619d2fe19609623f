"""Rate, PR, QRS, QT and axis of a recording, as they are written on a printed ECG.

Features for models (:mod:`deri.ecg.measure`) measure a PR interval from the peak of P and a QRS complex between its
steep parts. Here waves begin and end where they do for a reader on paper, in the median beat over all leads.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from deri.ecg.gains import with_common_gain
from deri.ecg.leads import LEADS
from deri.ecg.measure import AFTER, BEFORE, find_beats
from deri.ecg.recording import ECG

INTERVALS = ("rate_bpm", "pr_ms", "qrs_ms", "qt_ms", "qtc_ms", "axis_deg")
SECONDS = 10.0
"""What is measured: the beginning of a recording, as much as a sheet shows."""

# Set on 118 recordings in sinus rhythm of nine archives: medians PR 152, QRS 92, QT 372 ms at 65/min.
_RATE, _RATE_LEAST = 250.0, 45.0  # Hz
_QRS_EDGE = 0.04  # share of the steepest slope that begins and ends a QRS complex
_P_EDGE = 0.03  # share of its height at which a P wave begins
_P_SEEN, _P_SEEN_IRREGULAR = 2.0, 3.0  # height of P over what is around it; irregular beats rarely have one
_P_MOST = 6.0  # mV over all leads; more is the spike of a pacemaker
_P_SAME = 0.6  # correlation of what is before QRS in every other beat with the rest: fibrillation has its own each time
_PR_LEAST = 80.0  # ms; less is a spike, or a part of the QRS complex
_QRS_LEAST, _QRS_MOST = 60.0, 240.0  # ms; less is a spike, more is one that runs into ST and T
_QTC_LEAST = 300.0  # ms; less is a T wave that was not found more often than a heart
_IRREGULAR = 0.1  # standard deviation of the RR intervals over their mean


class _Beat(NamedTuple):
    """The median beat (12, samples) at ``fs`` Hz with its QRS complex at ``centre``; RR intervals in s.

    ``halves`` are the medians of every other beat and of the rest, (2, 12, samples).
    """

    signal: np.ndarray
    halves: np.ndarray
    centre: int
    fs: float
    rr: np.ndarray

    def at(self, seconds: float) -> int:
        """The sample so long after the QRS complex, within the beat."""
        return int(np.clip(self.centre + round(seconds * self.fs), 0, self.signal.shape[1] - 1))


def intervals(ecg: ECG) -> dict[str, float | None]:
    """Rate and intervals of the first 10 s of a recording; None where one cannot be measured.

    Leads that were printed for a part of the time are left out, and the axis needs I and aVF. Where a QRS complex would
    be shorter than 60 ms or longer than 240 (a pacemaker's spike; one whose end is not seen), only the rate is given.
    PR needs a P wave that most beats share, and is never below 80 ms.

    Returns:
        ``rate_bpm`` (of the median RR interval), ``pr_ms``, ``qrs_ms``, ``qt_ms``, ``qtc_ms`` (Bazett), ``axis_deg``
        (of the QRS complex in the frontal plane, −180 to 180).
    """
    found: dict[str, float | None] = dict.fromkeys(INTERVALS)
    ecg = with_common_gain(ecg)
    signal, whole = _filled(ecg)
    beat = _median_beat(signal, ecg.fs)
    if beat is None:
        return found
    middle = float(np.median(beat.rr))
    found["rate_bpm"] = 60 / middle
    on, off = _qrs(beat)
    qrs = 1000 * (off - on) / beat.fs
    if not _QRS_LEAST <= qrs <= _QRS_MOST:
        return found
    found["qrs_ms"] = qrs
    if (end := _t_end(beat, on, off)) is not None:
        qt = 1000 * (end - on) / beat.fs
        if qt / middle**0.5 >= _QTC_LEAST:
            found |= {"qt_ms": qt, "qtc_ms": qt / middle**0.5}
    if (begin := _p_onset(beat, on)) is not None and (pr := 1000 * (on - begin) / beat.fs) >= _PR_LEAST:
        found["pr_ms"] = pr
    if whole[LEADS.index("I")] and whole[LEADS.index("aVF")]:
        net = (beat.signal[:, on:off] - _before(beat, on)).sum(axis=1)
        # aVF is 2/√3 of a lead of unit length at 90 degrees.
        found["axis_deg"] = float(np.degrees(np.arctan2(net[LEADS.index("aVF")] * 2 / 3**0.5, net[LEADS.index("I")])))
    return found


def _filled(ecg: ECG) -> tuple[np.ndarray, np.ndarray]:
    """The part that is measured, (12, n) float64 without gaps, and which leads are there all the time, (12,)."""
    signal = ecg.signal[:, : round(SECONDS * ecg.fs)].astype(np.float64)
    known = np.isfinite(signal)
    whole = known.sum(axis=1) > max(0.0, signal.shape[1] - ecg.fs)
    at = np.arange(signal.shape[1])
    for row, there, use in zip(signal, known, whole, strict=True):
        row[~there] = np.interp(at[~there], at[there], row[there]) if use else 0.0
    signal[~whole] = 0.0
    return signal, whole


def _median_beat(signal: np.ndarray, fs: float) -> _Beat | None:
    step = max(1, round(fs / _RATE))
    n = signal.shape[1] // step
    x = signal[:, : n * step].reshape(len(signal), n, step).mean(axis=2)
    rate = fs / step
    if rate <= _RATE_LEAST:
        return None
    beats = find_beats(x, rate)
    first, last = round(BEFORE * rate), round(AFTER * rate)
    whole = beats[(beats >= first) & (beats + last <= n)]
    if len(beats) < 2 or not len(whole):
        return None
    all_beats = np.stack([x[:, b - first : b + last] for b in whole])
    halves = np.stack([np.median(all_beats[i::2] if len(whole) > 1 else all_beats, axis=0) for i in (0, 1)])
    return _Beat(np.median(all_beats, axis=0), halves, first, rate, np.diff(beats) / rate)


def _qrs(beat: _Beat) -> tuple[int, int]:
    """First sample of the QRS complex, and the first after it: where all leads have been calm for two samples."""
    speed = np.abs(np.gradient(beat.signal, axis=1)).sum(axis=0)
    low, high = beat.at(-0.16), beat.at(0.2)
    near = beat.at(-0.1)
    top = near + int(speed[near : beat.at(0.1)].argmax())
    noise = np.percentile(speed, 15)
    calm = speed < noise + _QRS_EDGE * (speed[top] - noise)
    calm = calm[:-1] & calm[1:]
    before, after = np.flatnonzero(calm[low : top - 2]), np.flatnonzero(calm[top + 3 : high])
    on = low + int(before[-1]) + 1 if len(before) else low
    return on, top + 3 + int(after[0]) if len(after) else high


def _before(beat: _Beat, on: int) -> np.ndarray:
    """The level of each lead just before the QRS complex, (12, 1)."""
    return np.asarray(beat.signal[:, max(0, on - 5) : max(1, on - 1)].mean(axis=1, keepdims=True))


def _t_end(beat: _Beat, on: int, off: int) -> float | None:
    """Where the tangent to the steepest part of the end of T meets zero (Lepeschkin and Surawicz 1952).

    None where nothing rises after the QRS complex: without a T wave, or with one lower than the ST segment.
    """
    last = beat.at(min(AFTER, 0.65 * float(np.median(beat.rr)))) + 1
    first = min(off + round(0.06 * beat.fs), last - 5)
    size = np.sqrt(((beat.signal[:, first:last] - _before(beat, on)) ** 2).sum(axis=0))
    peak = min(int(size.argmax()), len(size) - 2)
    steps = np.diff(size[peak:])
    k = int(steps.argmin())
    if peak < 2 or steps[k] >= 0:
        return None
    middle = float(size[peak + k] + size[peak + k + 1]) / 2
    return float(min(first + peak + k + 0.5 - middle / steps[k], beat.signal.shape[1]))


def _p_onset(beat: _Beat, on: int) -> int | None:
    """Where P begins; None where there is none to be seen."""
    first, last = beat.at(-min(0.32, 0.45 * float(np.median(beat.rr)))), on - round(0.02 * beat.fs)
    if last - first < 3:
        return None
    wave = beat.signal[:, first:last]
    size = np.abs(wave - np.median(wave, axis=1, keepdims=True)).sum(axis=0)
    peak, floor = int(size.argmax()), float(np.percentile(size, 20))
    irregular = len(beat.rr) > 2 and beat.rr.std() > _IRREGULAR * beat.rr.mean()
    least = (_P_SEEN_IRREGULAR if irregular else _P_SEEN) * (np.median(size) + 1e-3)
    if not least <= size[peak] <= _P_MOST or _alike(beat, first, last) < _P_SAME:
        return None
    before = np.flatnonzero(size[:peak] < floor + _P_EDGE * (size[peak] - floor))
    return first + int(before[-1]) + 1 if len(before) else first


def _alike(beat: _Beat, first: int, last: int) -> float:
    """Correlation of both halves of the beats in a part of them, over all leads."""
    one, other = (half - half.mean(axis=1, keepdims=True) for half in beat.halves[:, :, first:last])
    return float((one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum() + 1e-12))
