"""When the atria and the ventricles are excited: beat times from findings."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deri.simulate.patient import Patient, clamp

Array = NDArray[np.float64]

CONDUCTED, ECTOPIC = 0, 1
_LEAD_IN = 2.0  # s simulated before the recording starts, so that its first beat is none in particular
_LEAD_OUT = 1.0


@dataclass(frozen=True)
class Rhythm:
    """Beats of a recording (and a little before and after). Times in s from its start."""

    p_times: Array  # (n_p,) onsets of P waves
    p_ectopic: NDArray[np.bool_]  # (n_p,) from elsewhere than the sinus node
    qrs_times: Array  # (n,) onsets of QRS complexes
    qrs_kind: NDArray[np.int64]  # (n,) CONDUCTED (or paced, or junctional escape) or ECTOPIC (from the ventricle)
    pr: float | None  # s from P to QRS where they are coupled (of Wenckebach the shortest)
    atrial: str | None = None  # "fibrillation" | "flutter": atrial activity without P waves
    atrial_rate: float = 0.0  # Hz, of that activity
    atrial_phase: float = 0.0  # cycles, at time 0

    def rr(self) -> Array:
        """(n,) the RR interval before each QRS in s; the first beat takes the second's."""
        rr = np.diff(self.qrs_times)
        return np.concatenate([rr[:1], rr])

    def mean_rr(self, seconds: float) -> float:
        """Mean RR interval (s) of the beats within the recording."""
        inside = self.qrs_times[(self.qrs_times >= 0) & (self.qrs_times < seconds)]
        return float(np.diff(inside).mean()) if len(inside) > 1 else float(np.diff(self.qrs_times).mean())


def _sinus_times(
    rng: np.random.Generator,
    rr: float,
    patient: Patient,
    seconds: float,
    *,
    rsa: float,
    slow: float = 0.008,
    jitter: float = 0.004,
) -> Array:
    """P onsets of the sinus node: mean interval ``rr`` s, modulated by respiration, a 0.1 Hz wave and chance.

    ``rsa``, ``slow`` and ``jitter`` are the relative depths of the three. The first two bands are HF and LF of the Task
    Force on heart rate variability, Circulation 1996.
    """
    count = int(np.ceil((seconds + _LEAD_IN + _LEAD_OUT) / (rr * (1 - rsa - slow - 3 * jitter)))) + 2
    nominal = rr * np.arange(count)
    phase = rng.uniform(0, 2 * np.pi, 2)
    intervals = rr * (
        1
        + rsa * np.sin(2 * np.pi * patient.respiration * nominal + phase[0])
        + slow * np.sin(2 * np.pi * 0.1 * nominal + phase[1])
        + jitter * rng.standard_normal(count).clip(-3, 3)
    )
    times: Array = np.cumsum(intervals) - _LEAD_IN - rr * rng.uniform(0.5, 1.5)
    return times


def _coupled(p: Array, pr: float, ectopic_p: Array | None = None) -> Rhythm:
    kinds = np.zeros(len(p), dtype=np.int64)
    flags = np.zeros(len(p), dtype=bool) if ectopic_p is None else ectopic_p.astype(bool)
    return Rhythm(p, flags, p + pr, kinds, pr)


def _slots(rng: np.random.Generator, times: Array, seconds: float, count: int, after: float) -> list[int]:
    """Indices of up to ``count`` beats, no two within three, such that ``after`` s later is well inside."""
    candidates = [i for i in range(1, len(times) - 2) if times[i] > 0.5 and times[i] + after < seconds - 1.0]
    chosen: list[int] = []
    for i in rng.permutation(candidates):
        if len(chosen) < count and all(abs(int(i) - j) > 2 for j in chosen):
            chosen.append(int(i))
    return sorted(chosen)


def _premature_atrial(rng: np.random.Generator, p: Array, pr: float, seconds: float) -> Rhythm:
    """Early P from elsewhere at 66-76 % of the interval; the sinus node is reset: no full pause (Chou)."""
    p = p.copy()
    ectopic = np.zeros(len(p), dtype=bool)
    for i in _slots(rng, p, seconds, int(rng.integers(1, 4)), 0.5):
        interval = p[i + 1] - p[i]
        p[i + 1 :] -= interval * (1 - rng.uniform(0.66, 0.76))
        p[i + 2 :] += 0.08 * interval
        ectopic[i + 1] = True
    return _coupled(p, pr, ectopic)


def _premature_ventricular(rng: np.random.Generator, p: Array, pr: float, seconds: float, *, bigeminy: bool) -> Rhythm:
    """A wide beat 52-62 % into the interval; the next sinus beat finds the ventricle refractory (Chou)."""
    qrs, kind, keep_p = p + pr, np.zeros(len(p), dtype=np.int64), np.ones(len(p), dtype=bool)
    coupling = rng.uniform(0.52, 0.62)
    if bigeminy:
        slots = list(range(int(rng.integers(0, 2)), len(p) - 1, 2))
    else:
        slots = _slots(rng, qrs, seconds, int(rng.integers(1, 4)), 0.5)
    for i in slots:
        interval = qrs[i + 1] - qrs[i]
        qrs[i + 1] = qrs[i] + max(coupling * interval * rng.uniform(0.98, 1.02), 0.33)
        kind[i + 1], keep_p[i + 1] = ECTOPIC, False
    return Rhythm(p[keep_p], np.zeros(int(keep_p.sum()), dtype=bool), qrs, kind, pr)


def _wenckebach(rng: np.random.Generator, p: Array) -> Rhythm:
    """PR grows by ever smaller steps until a P wave is not conducted (Mobitz I; ACC 2018)."""
    first, steps = rng.uniform(0.17, 0.21), rng.uniform(0.9, 1.2) * np.array([0.0, 0.09, 0.13, 0.15])
    length = int(rng.integers(3, 6))  # P waves per group: 3:2 to 5:4
    offset = int(rng.integers(length))
    position = (np.arange(len(p)) + offset) % length
    conducted = position < length - 1
    qrs = p[conducted] + first + steps[position[conducted]]
    return Rhythm(p, np.zeros(len(p), dtype=bool), qrs, np.zeros(len(qrs), dtype=np.int64), float(first))


def _complete_block(rng: np.random.Generator, patient: Patient, seconds: float, *, ventricular: bool) -> Rhythm:
    """Escape beats that know nothing of the P waves: junctional 40-50/min or ventricular 32-40/min (ACC 2018)."""
    rr = 60 / (rng.uniform(32, 40) if ventricular else rng.uniform(40, 50))
    count = int((seconds + _LEAD_IN + _LEAD_OUT) / rr) + 3
    qrs: Array = np.cumsum(rr * (1 + 0.008 * rng.standard_normal(count))) - _LEAD_IN - rr * rng.uniform(0.5, 1.5)
    # Two and a bit P waves to a QRS, never a whole number: by chance ten seconds could look coupled.
    per_beat = np.floor(rr / 0.7) + rng.uniform(0.25, 0.7)
    p = _sinus_times(rng, rr / per_beat, patient, seconds, rsa=0.01)
    kind = np.full(count, ECTOPIC if ventricular else CONDUCTED, dtype=np.int64)
    return Rhythm(p, np.zeros(len(p), dtype=bool), qrs, kind, None)


_NONE: Array = np.zeros(0)
_NO_P = np.zeros(0, dtype=bool)


def _fibrillation(rng: np.random.Generator, seconds: float) -> Rhythm:
    """RR without order: gamma intervals, coefficient of variation 0.23-0.32, mean rate 65-120/min (ESC 2020)."""
    mean, cv = 60 / rng.uniform(65, 120), rng.uniform(0.23, 0.32)
    floor = 0.6 * mean  # what the AV node lets through at most
    count = int((seconds + _LEAD_IN + _LEAD_OUT) / mean * 1.6) + 6
    shape = ((mean - floor) / (cv * mean)) ** 2
    intervals = floor + rng.gamma(shape, (mean - floor) / shape, count).clip(0, 1.6 * mean)
    qrs = np.cumsum(intervals) - _LEAD_IN - mean
    return Rhythm(_NONE, _NO_P, qrs, np.zeros(count, dtype=np.int64), None, "fibrillation", rng.uniform(4.5, 8.0))


def _flutter(rng: np.random.Generator, seconds: float) -> Rhythm:
    """Atrial circuit at 240-320/min, every second to fourth wave conducted, or in changing ratio (ESC 2019)."""
    rate = rng.uniform(240, 320) / 60
    ratio = int(rng.choice([2, 3, 4, 0], p=[0.35, 0.15, 0.3, 0.2]))  # 0: changing
    count = int((seconds + _LEAD_IN + _LEAD_OUT) * rate / 2) + 4
    steps = np.full(count, ratio) if ratio else rng.choice([2, 3, 4], count)
    qrs: Array = np.cumsum(steps) / rate - _LEAD_IN - rng.uniform(0.8, 1.6)
    # A fixed phase between flutter wave and QRS: the ratio is fixed by the AV node, and so is its delay.
    phase = float(rng.uniform(0, 1) - qrs[0] * rate)
    return Rhythm(_NONE, _NO_P, qrs, np.zeros(count, dtype=np.int64), None, "flutter", rate, phase)


def _paced(rng: np.random.Generator, patient: Patient, seconds: float) -> Rhythm:
    """Ventricular pacing: at a fixed rate without P waves (VVI), or behind each sinus P wave (VDD/DDD)."""
    if patient.variant < 0.5:
        rr = 60 / float(rng.choice(np.array([60, 65, 70, 75])))
        beats = np.arange(int((seconds + _LEAD_IN + _LEAD_OUT) / rr) + 3, dtype=np.float64)
        qrs = rr * (beats - float(rng.uniform(0.5, 1.5))) - _LEAD_IN
        return Rhythm(_NONE, _NO_P, qrs, np.zeros(len(qrs), dtype=np.int64), None)
    return _coupled(
        _sinus_times(rng, 60 / rng.uniform(62, 85), patient, seconds, rsa=0.01), float(rng.uniform(0.14, 0.18))
    )


def _rate(rng: np.random.Generator, patient: Patient, low: float, high: float, around: float) -> float:
    return clamp(rng.normal(around + 0.3 * (patient.rate - 72), 0.18 * (high - low)), low, high)


_SINUS_RR: dict[str, Callable[[np.random.Generator, Patient], float]] = {
    "SR": lambda rng, patient: 60 / clamp(rng.normal(patient.rate, 5), 63, 95),
    "SBRAD": lambda rng, patient: 60 / _rate(rng, patient, 42, 56, 50),
    "STACH": lambda rng, patient: 60 / _rate(rng, patient, 105, 145, 118),
    "SARRH": lambda rng, patient: 60 / _rate(rng, patient, 62, 75, 67),
}


def draw_rhythm(
    codes: Collection[str], patient: Patient, rng: np.random.Generator, seconds: float, *, ventricular_escape: bool
) -> Rhythm:
    """Beat times for the findings ``codes`` (complete, see `findings.complete`) over ``seconds``.

    ``ventricular_escape``: in complete AV block the escape comes from the ventricle, not the junction.
    """
    if "AFIB" in codes:
        return _fibrillation(rng, seconds)
    if "AFLT" in codes:
        return _flutter(rng, seconds)
    if "PACE" in codes:
        return _paced(rng, patient, seconds)
    if "3AVB" in codes:
        return _complete_block(rng, patient, seconds, ventricular=ventricular_escape)
    name = next(code for code in _SINUS_RR if code in codes)
    rr = _SINUS_RR[name](rng, patient)
    if "2AVB" in codes:  # room for the longest PR
        rr = max(rr, 0.72)
    # Respiratory arrhythmia wanes with age; a swing beyond 0.12-0.16 s is called sinus arrhythmia.
    rsa = rng.uniform(0.14, 0.20) if name == "SARRH" else clamp(0.03 - 0.0003 * (patient.age - 30), 0.008, 0.03)
    p = _sinus_times(rng, rr, patient, seconds, rsa=rsa)
    pr = patient.pr * (0.88 if name == "STACH" else 1.0)
    if "1AVB" in codes:
        pr = clamp(rng.normal(0.245, 0.022), 0.216, 0.30)
    elif "WPW" in codes:
        pr = clamp(patient.pr - 0.05, 0.096, 0.114)
    # The P wave ends before the QRS begins.
    pr = max(pr, 0.152 if "LAO/LAE" in codes else min(patient.p_duration, 0.092 if "WPW" in codes else 1.0) + 0.006)
    if "2AVB" in codes:
        return _wenckebach(rng, p)
    if "PAC" in codes:
        return _premature_atrial(rng, p, pr, seconds)
    if "PVC" in codes or "BIGU" in codes:
        return _premature_ventricular(rng, p, pr, seconds, bigeminy="BIGU" in codes)
    return _coupled(p, pr)
