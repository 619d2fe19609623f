"""Beat times of a recording, and the sinus node that sets them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deri.simulate.patient import Patient
from deri.simulate.waves import Array

CONDUCTED, ECTOPIC = 0, 1
LEAD_IN = 2.0  # s simulated before the recording starts, so that its first beat is none in particular
LEAD_OUT = 1.0
NONE: Array = np.zeros(0)


@dataclass(frozen=True)
class Rhythm:
    """Beats of a recording (and a little before and after). Times in s from its start."""

    qrs_times: Array  # (n,) onsets of QRS complexes
    qrs_kind: NDArray[np.int64]  # (n,) CONDUCTED (or paced, or junctional escape) or ECTOPIC (from the ventricle)
    p_times: Array  # (n_p,) onsets of P waves
    p_ectopic: NDArray[np.bool_]  # (n_p,) from elsewhere than the sinus node
    pr: float | None  # s from P to QRS where they are coupled (of Wenckebach the shortest)
    atrial: str | None = None  # "fibrillation" | "flutter": atrial activity without P waves
    atrial_rate: float = 0.0  # Hz, of that activity
    atrial_phase: float = 0.0  # cycles, at time 0
    p_spikes: Array = field(default_factory=lambda: NONE)  # s, of an atrial pacemaker

    @classmethod
    def of(
        cls,
        qrs: Array,
        p: Array = NONE,
        pr: float | None = None,
        *,
        kind: int | NDArray[np.int64] = CONDUCTED,
        p_ectopic: bool | NDArray[np.bool_] = False,
        p_spikes: Array = NONE,
    ) -> Rhythm:
        """Beats with P waves or with silent atria; ``kind`` and ``p_ectopic`` of each beat, or of all."""
        kinds, ectopic = np.full(len(qrs), kind, dtype=np.int64), np.full(len(p), p_ectopic, dtype=bool)
        return cls(qrs, kinds, p, ectopic, pr, p_spikes=p_spikes)

    def rr(self) -> Array:
        """(n,) the RR interval before each QRS in s; the first beat takes the second's."""
        rr = np.diff(self.qrs_times)
        return np.concatenate([rr[:1], rr])

    def mean_rr(self, seconds: float) -> float:
        """Mean RR interval (s) of the beats within the recording."""
        inside = self.qrs_times[(self.qrs_times >= 0) & (self.qrs_times < seconds)]
        return float(np.diff(inside).mean()) if len(inside) > 1 else float(np.diff(self.qrs_times).mean())


@dataclass(frozen=True)
class Variability:
    """Relative depths of what modulates the sinus node: respiration, a 0.1 Hz wave, and chance.

    The intervals differ by at most ``most`` s. The first two bands are HF and LF of the Task Force on heart rate
    variability, Circulation 1996.
    """

    respiration: float
    slow: float = 0.008
    chance: float = 0.004
    most: float = np.inf


def sinus_times(
    rng: np.random.Generator, rr: float, patient: Patient, seconds: float, variability: Variability
) -> Array:
    """P onsets of the sinus node: mean interval ``rr`` s with the given variability."""
    v = variability
    shortest = rr * max(0.1, 1 - v.respiration - v.slow - 3 * v.chance)  # of large depths ``most`` leaves little
    count = int(np.ceil((seconds + LEAD_IN + LEAD_OUT) / shortest)) + 2
    nominal = rr * np.arange(count)
    phase = rng.uniform(0, 2 * np.pi, 2)
    swing = (
        v.respiration * np.sin(2 * np.pi * patient.respiration * nominal + phase[0])
        + v.slow * np.sin(2 * np.pi * 0.1 * nominal + phase[1])
        + v.chance * rng.standard_normal(count).clip(-3, 3)
    )
    intervals = rr * (1 + swing * min(1.0, v.most / (rr * float(np.ptp(swing)))))
    return np.cumsum(intervals) - LEAD_IN - rr * rng.uniform(0.5, 1.5)


def regular(rng: np.random.Generator, rr: float, seconds: float, jitter: float = 0.003) -> Array:
    """Times ``rr`` s apart but for a relative ``jitter``, from before the recording to after it."""
    count = int((seconds + LEAD_IN + LEAD_OUT) / rr) + 4
    times: Array = np.cumsum(rr * (1 + jitter * rng.standard_normal(count).clip(-3, 3)))
    return times - LEAD_IN - rr * float(rng.uniform(0.5, 1.5))


def coupled(p: Array, pr: float, p_ectopic: bool | NDArray[np.bool_] = False) -> Rhythm:
    """Each P wave is followed by a QRS after ``pr`` s."""
    return Rhythm.of(p + pr, p, pr, p_ectopic=p_ectopic)
