"""Rhythms that the sinus node does not lead: fibrillation, flutter, tachycardias, junction, pacemakers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from deri.simulate.beats import (
    CONDUCTED,
    ECTOPIC,
    LEAD_IN,
    LEAD_OUT,
    NONE,
    Rhythm,
    Variability,
    coupled,
    regular,
    sinus_times,
)
from deri.simulate.patient import Patient
from deri.simulate.ventricles import Codes
from deri.simulate.waves import Array


def _without_p(qrs: Array, atrial: str, rate: float, phase: float, kind: int | NDArray[np.int64] = CONDUCTED) -> Rhythm:
    return replace(Rhythm.of(qrs, kind=kind), atrial=atrial, atrial_rate=rate, atrial_phase=phase)


def fibrillation(rng: np.random.Generator, seconds: float, codes: Codes) -> Rhythm:
    """RR without order: gamma intervals, coefficient of variation 0.16-0.32, mean rate 45-170/min (ESC 2020).

    A fast response (> 110/min) varies a little less, a slow one (< 60/min) occurs with drugs or a sick node.
    """
    rate = float(rng.choice(np.array([rng.uniform(45, 62), rng.uniform(60, 112), rng.uniform(105, 170)]), p=_RESPONSE))
    mean, cv = 60 / rate, rng.uniform(0.17, 0.30)
    floor = max(0.56 * mean, 0.26)  # what the AV node lets through at most
    count = int((seconds + LEAD_IN + LEAD_OUT) / mean * 1.6) + 8
    shape = ((mean - floor) / (cv * mean)) ** 2
    intervals = floor + rng.gamma(shape, (mean - floor) / shape, count).clip(0, 1.7 * mean)
    qrs = np.cumsum(intervals) - LEAD_IN - mean
    kind = np.full(count, CONDUCTED, dtype=np.int64)
    if "PVC" in codes:
        inside = np.flatnonzero((qrs > 0.8) & (qrs < seconds - 1.0))
        for i in rng.permutation(inside)[: int(rng.integers(1, 4))]:
            if kind[i - 1] == CONDUCTED == kind[i + 1]:
                kind[i] = ECTOPIC
                qrs[i + 1 :] += max(0.0, 0.55 + 0.3 * mean - (qrs[i + 1] - qrs[i]))
    return _without_p(qrs, "fibrillation", rng.uniform(4.2, 8.5), rng.random(), kind)


_RESPONSE = (0.15, 0.6, 0.25)  # slow, controlled, fast


def flutter(rng: np.random.Generator, seconds: float) -> Rhythm:
    """Atrial circuit at 230-330/min, every second to fourth wave conducted, or in changing ratio (ESC 2019)."""
    rate = rng.uniform(230, 330) / 60
    ratio = int(rng.choice([2, 3, 4, 0], p=[0.35, 0.12, 0.28, 0.25]))  # 0: changing
    count = int((seconds + LEAD_IN + LEAD_OUT) * rate / 2) + 4
    steps = np.full(count, ratio) if ratio else rng.choice([2, 3, 4, 5], count, p=[0.35, 0.25, 0.3, 0.1])
    qrs = np.cumsum(steps + 0.02 * rng.standard_normal(count)) / rate - LEAD_IN - rng.uniform(0.8, 1.6)
    # A fixed phase between flutter wave and QRS: the ratio is fixed by the AV node, and so is its delay.
    phase = float(rng.uniform(0, 1) - qrs[0] * rate)
    return _without_p(qrs, "flutter", rate, phase)


def supraventricular(rng: np.random.Generator, seconds: float) -> Rhythm:
    """Re-entry at 145-215/min: the atria are excited backwards, in the QRS or 60-120 ms after its start (ESC 2019)."""
    qrs = regular(rng, 60 / rng.uniform(145, 215), seconds)
    behind = rng.uniform(0.06, 0.13)
    p = qrs + behind if rng.random() < 0.6 else NONE
    return Rhythm.of(qrs, p, p_ectopic=True)


def atrial_tachycardia(rng: np.random.Generator, patient: Patient, seconds: float) -> Rhythm:
    """A focus away from the sinus node at 105-180/min, conducted one to one (ESC 2019)."""
    rate = rng.uniform(105, 180)
    p = regular(rng, 60 / rate, seconds, 0.006)
    pr = max(min(patient.pr, 0.42 * 60 / rate), patient.p_duration + 0.004)
    return coupled(p, pr, True)


def junctional(rng: np.random.Generator, seconds: float) -> Rhythm:
    """Escape of the junction at 36-60/min; atria silent, or excited backwards shortly before or after (Chou)."""
    qrs = regular(rng, 60 / rng.uniform(36, 60), seconds, 0.008)
    form = rng.random()
    p = NONE if form < 0.45 else qrs - rng.uniform(0.09, 0.115) if form < 0.7 else qrs + rng.uniform(0.09, 0.14)
    return Rhythm.of(qrs, p, p_ectopic=True)


def paced(rng: np.random.Generator, patient: Patient, seconds: float, codes: Codes) -> Rhythm:
    """A pacemaker (ESC 2021). Of the atrium: spike, P, QRS of its own (AAI); of both: spike, P, spike, QRS (DDD).

    Of the ventricle: at a fixed rate without P waves (VVI), over fibrillation, or behind each sinus P (VDD).
    """
    rr = 60 / float(rng.choice(np.array([50, 60, 60, 65, 70, 70, 75, 80, 85, 90])))
    if "PACE" in codes:
        if patient.variant >= 0.55:
            p = sinus_times(rng, 60 / rng.uniform(60, 98), patient, seconds, Variability(0.01))
            return coupled(p, float(rng.uniform(0.13, 0.2)))
        qrs = regular(rng, rr, seconds, 0.0)
        phase = rng.random()
        return _without_p(qrs, "fibrillation", 6.0, phase) if patient.variant < 0.25 else Rhythm.of(qrs)
    spikes = regular(rng, rr, seconds, 0.0)
    delay = rng.uniform(0.015, 0.04)
    gap = rng.uniform(0.15, 0.2) if "DPACE" in codes else max(patient.pr, patient.p_duration + 0.006)
    p = spikes + delay
    return Rhythm.of(p + gap, p, gap, p_spikes=spikes)
