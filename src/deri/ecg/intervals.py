"""Rate, PR, QRS, QT and axis of a recording, as they are written on a printed ECG.

Waves begin and end where they do for a reader on paper, in the median beat over all leads. Features for models
(:mod:`deri.ecg.measure`) are measured between the same ends.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from deri.ecg.beats import AFTER, Beat, at_beat_rate, find_beats, median_beat
from deri.ecg.gains import with_common_gain
from deri.ecg.leads import LEADS
from deri.ecg.recording import ECG

INTERVALS = ("rate_bpm", "pr_ms", "qrs_ms", "qt_ms", "qtc_ms", "axis_deg")
SECONDS = 10.0
"""What is measured: the beginning of a recording, as much as a sheet shows."""

# Set on 118 recordings in sinus rhythm of nine archives: medians PR 152, QRS 92, QT 372 ms at 65/min.
_RATE_LEAST = 45.0  # Hz
_QRS_EDGE = 0.04  # share of the steepest slope that begins and ends a QRS complex
_P_EDGE = 0.03  # share of its height at which a P wave begins
_P_SEEN, _P_SEEN_IRREGULAR = 2.0, 3.0  # height of P over what is around it; irregular beats rarely have one
_P_MOST = 6.0  # mV over all leads; more is the spike of a pacemaker
_P_SAME = 0.6  # correlation of what is before QRS in every other beat with the rest: fibrillation has its own each time
_PR_LEAST = 80.0  # ms; less is a spike, or a part of the QRS complex
_QRS_LEAST, _QRS_MOST = 60.0, 240.0  # ms; less is a spike, more is one that runs into ST and T
_QTC_LEAST = 300.0  # ms; less is a T wave that was not found more often than a heart
_IRREGULAR = 0.1  # standard deviation of the RR intervals over their mean


class Waves(NamedTuple):
    """Where the waves of a median beat begin and end, in samples of it; None where one is not seen.

    ``qrs``: the first sample of the QRS complex and the first after it, at least one apart. ``whole``: whether both are
    seen; else −160 and 200 ms stand for them. ``base``: the level of each lead just before it, (leads, 1).
    """

    p_onset: int | None
    qrs: tuple[int, int]
    whole: bool
    t_end: float | None
    base: np.ndarray

    def lengths(self, beat: Beat) -> dict[str, float | None]:
        """``pr_ms``, ``qrs_ms``, ``qt_ms``, ``qtc_ms`` (Bazett); None where one cannot be measured.

        Where an end of the QRS complex is not seen, or it would be shorter than 60 ms (a pacemaker's spike) or longer
        than 240, there is none of them. PR needs a P wave that most beats share, and is never below 80 ms.
        """
        found: dict[str, float | None] = dict.fromkeys(("pr_ms", "qrs_ms", "qt_ms", "qtc_ms"))
        on, off = self.qrs
        qrs = 1000 * (off - on) / beat.fs
        if not self.whole or not _QRS_LEAST <= qrs <= _QRS_MOST:
            return found
        found["qrs_ms"] = qrs
        if self.t_end is not None:
            qt = 1000 * (self.t_end - on) / beat.fs
            qtc = qt / beat.middle_rr**0.5
            if qtc >= _QTC_LEAST:
                found |= {"qt_ms": qt, "qtc_ms": qtc}
        if self.p_onset is not None and (pr := 1000 * (on - self.p_onset) / beat.fs) >= _PR_LEAST:
            found["pr_ms"] = pr
        return found


def intervals(ecg: ECG) -> dict[str, float | None]:
    """Rate and intervals of the first 10 s of a recording; None where one cannot be measured.

    Leads that were printed for a part of the time are left out, and the axis needs I and aVF. Where an end of the QRS
    complex is not seen, or it would be shorter than 60 ms (a pacemaker's spike) or longer than 240, only the rate is
    given. PR needs a P wave that most beats share, and is never below 80 ms.

    Returns:
        ``rate_bpm`` (of the median RR interval), ``pr_ms``, ``qrs_ms``, ``qt_ms``, ``qtc_ms`` (Bazett), ``axis_deg``
        (of the QRS complex in the frontal plane, −180 to 180).
    """
    found: dict[str, float | None] = dict.fromkeys(INTERVALS)
    ecg = with_common_gain(ecg)
    signal, whole = _filled(ecg)
    x, fs = at_beat_rate(signal, ecg.fs)
    beat = median_beat(x, fs, find_beats(x, fs)) if fs > _RATE_LEAST else None
    if beat is None or not len(beat.rr):
        return found
    found["rate_bpm"] = 60 / beat.middle_rr
    waves = find_waves(beat)
    found |= waves.lengths(beat)
    if found["qrs_ms"] is not None and whole[LEADS.index("I")] and whole[LEADS.index("aVF")]:
        net = (beat.signal[:, slice(*waves.qrs)] - waves.base).sum(axis=1)
        found["axis_deg"] = float(np.degrees(frontal_axis(net)))
    return found


def find_waves(beat: Beat) -> Waves:
    """Where P begins, the QRS complex begins and ends, and T ends."""
    on, off, whole = _qrs(beat)
    base = np.asarray(beat.signal[:, max(0, on - 5) : max(1, on - 1)].mean(axis=1, keepdims=True))
    return Waves(_p_onset(beat, on), (on, off), whole, _t_end(beat, off, base), base)


def p_limits(beat: Beat, on: int) -> tuple[int, int]:
    """Where P is looked for before a QRS complex that begins at ``on``: the first sample, and the first after it."""
    return beat.at(-min(0.32, 0.45 * beat.middle_rr)), on - round(0.02 * beat.fs)


def t_limits(beat: Beat, off: int) -> tuple[int, int]:
    """Where T is looked for after a QRS complex that ends at ``off``: the first sample, and the last of the beat."""
    return off + round(0.06 * beat.fs), beat.at(min(AFTER, 0.65 * beat.middle_rr))


def frontal_axis(net: np.ndarray) -> float:
    """Axis in the frontal plane, radians, of the values (12,) of a wave in the canonical leads."""
    # aVF is 2/√3 of a lead of unit length at 90 degrees.
    return float(np.arctan2(net[LEADS.index("aVF")] * 2 / np.sqrt(3), net[LEADS.index("I")]))


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


def _qrs(beat: Beat) -> tuple[int, int, bool]:
    """First sample of the QRS complex, the first after it, and whether both are seen.

    They are seen where all leads are calm for two samples.
    """
    speed = np.abs(np.gradient(beat.signal, axis=1)).sum(axis=0)
    low, high = beat.at(-0.16), beat.at(0.2)
    near = beat.at(-0.1)
    top = near + int(speed[near : beat.at(0.1)].argmax())
    noise = np.percentile(speed, 15)
    calm = speed < noise + _QRS_EDGE * (speed[top] - noise)
    calm = calm[:-1] & calm[1:]
    before, after = np.flatnonzero(calm[low : top - 2]), np.flatnonzero(calm[top + 3 : high])
    on = low + int(before[-1]) + 1 if len(before) else low
    off = top + 3 + int(after[0]) if len(after) else high
    return on, off, bool(len(before) and len(after))


def _t_end(beat: Beat, off: int, base: np.ndarray) -> float | None:
    """Where the tangent to the steepest part of the end of T meets zero (Lepeschkin and Surawicz 1952).

    None where nothing rises after the QRS complex: without a T wave, or with one lower than the ST segment.
    """
    first, last = t_limits(beat, off)
    first, last = min(first, last - 4), last + 1
    size = np.sqrt(((beat.signal[:, first:last] - base) ** 2).sum(axis=0))
    peak = min(int(size.argmax()), len(size) - 2)
    steps = np.diff(size[peak:])
    k = int(steps.argmin())
    if peak < 2 or steps[k] >= 0:
        return None
    middle = float(size[peak + k] + size[peak + k + 1]) / 2
    return float(min(first + peak + k + 0.5 - middle / steps[k], beat.signal.shape[1]))


def _p_onset(beat: Beat, on: int) -> int | None:
    """Where P begins; None where there is none to be seen."""
    first, last = p_limits(beat, on)
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


def _alike(beat: Beat, first: int, last: int) -> float:
    """Correlation of both halves of the beats in a part of them, over all leads."""
    one, other = (half - half.mean(axis=1, keepdims=True) for half in (h[:, first:last] for h in beat.halves()))
    return float((one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum() + 1e-12))
