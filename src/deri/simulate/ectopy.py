"""Premature beats, and conduction from atria to ventricles that fails."""

from __future__ import annotations

import numpy as np

from deri.simulate.beats import CONDUCTED, ECTOPIC, Rhythm, Variability, coupled, regular, sinus_times
from deri.simulate.patient import Patient
from deri.simulate.waves import Array


def _slots(rng: np.random.Generator, times: Array, seconds: float, count: int, after: float) -> list[int]:
    """Indices of up to ``count`` beats, no two within three, such that ``after`` s later is well inside."""
    candidates = [i for i in range(1, len(times) - 2) if times[i] > 0.5 and times[i] + after < seconds - 1.0]
    chosen: list[int] = []
    for i in rng.permutation(candidates):
        if len(chosen) < count and all(abs(int(i) - j) > 2 for j in chosen):
            chosen.append(int(i))
    return sorted(chosen)


def premature_atrial(rng: np.random.Generator, p: Array, pr: float, seconds: float) -> Rhythm:
    """Early P from elsewhere at 48-73 % of the interval; the sinus node is reset: no full pause (Chou)."""
    p = p.copy()
    ectopic = np.zeros(len(p), dtype=bool)
    early = rng.uniform(0.48, 0.70)
    for i in _slots(rng, p, seconds, int(rng.choice([1, 2, 3, 4], p=[0.4, 0.3, 0.2, 0.1])), 0.5):
        interval = p[i + 1] - p[i]
        coupling = max(early + rng.uniform(0, 0.03), 0.34 / interval)
        p[i + 1 :] -= interval * (1 - min(coupling, 0.8))
        p[i + 2 :] += rng.uniform(0.02, 0.1) * interval
        ectopic[i + 1] = True
    return coupled(p, pr, ectopic)


def premature_ventricular(rng: np.random.Generator, p: Array, pr: float, seconds: float, *, pattern: str) -> Rhythm:
    """A wide beat 45-68 % into the interval; the next sinus beat finds the ventricle refractory (Chou).

    ``pattern``: the code of how they follow each other: PVC single, BIGU and TRIGU every second and third beat,
    COUP two in a row.
    """
    qrs, kind, keep_p = p + pr, np.full(len(p), CONDUCTED, dtype=np.int64), np.ones(len(p), dtype=bool)
    coupling = rng.uniform(0.46, 0.66)
    if pattern in ("BIGU", "TRIGU"):
        step = 2 if pattern == "BIGU" else 3
        slots = list(range(int(rng.integers(0, step)), len(p) - 1, step))
    else:
        number = int(rng.choice([1, 2, 3, 4], p=[0.45, 0.3, 0.15, 0.1])) if pattern == "PVC" else 1
        slots = _slots(rng, qrs, seconds, number, 1.2 if pattern == "COUP" else 0.5)
    for i in slots:
        interval = qrs[i + 1] - qrs[i]
        qrs[i + 1] = qrs[i] + max(coupling * interval * rng.uniform(0.98, 1.02), 0.36)
        kind[i + 1], keep_p[i + 1] = ECTOPIC, False
        if pattern == "COUP":
            qrs[i + 2] = qrs[i + 1] + max(rng.uniform(0.52, 0.66) * interval, 0.43)
            kind[i + 2], keep_p[i + 2] = ECTOPIC, False
    return Rhythm.of(qrs, p[keep_p], pr, kind=kind)


def wenckebach(rng: np.random.Generator, p: Array) -> Rhythm:
    """PR grows by ever smaller steps until a P wave is not conducted (Mobitz I; ACC 2018)."""
    first, steps = rng.uniform(0.16, 0.22), rng.uniform(0.8, 1.2) * np.array([0.0, 0.09, 0.13, 0.15])
    length = int(rng.integers(3, 6))  # P waves per group: 3:2 to 5:4
    offset = int(rng.integers(length))
    position = (np.arange(len(p)) + offset) % length
    conducted = position < length - 1
    qrs = p[conducted] + first + steps[position[conducted].clip(0, 3)]
    return Rhythm.of(qrs, p, float(first))


def mobitz(rng: np.random.Generator, p: Array, pr: float, seconds: float) -> Rhythm:
    """PR stays the same, and a P wave now and then (Mobitz II), or every other (2:1), is not conducted (ACC 2018)."""
    if rng.random() < 0.45:
        conducted = (np.arange(len(p)) + int(rng.integers(2))) % 2 == 0
    else:
        conducted = np.ones(len(p), dtype=bool)
        length = int(rng.integers(3, 6))
        conducted[int(rng.integers(length)) :: length] = False
    return Rhythm.of(p[conducted] + pr, p, pr)


def complete_block(rng: np.random.Generator, patient: Patient, seconds: float, *, ventricular: bool) -> Rhythm:
    """Escape beats that know nothing of the P waves: junctional 38-52/min or ventricular 28-40/min (ACC 2018)."""
    rr = 60 / (rng.uniform(28, 40) if ventricular else rng.uniform(38, 50))
    qrs = regular(rng, rr, seconds, 0.008)
    # Two and a bit P waves to a QRS, never a whole number: by chance ten seconds could look coupled.
    per_beat = np.floor(rr / rng.uniform(0.6, 0.8)) + rng.uniform(0.25, 0.7)
    p = sinus_times(rng, rr / per_beat, patient, seconds, Variability(0.01))
    return Rhythm.of(qrs, p, kind=ECTOPIC if ventricular else CONDUCTED)
